import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HttpIntake } from '../../ingest/http-intake.ts';
import { createTestApi, type ApiAnswer, type TestApi } from '../support/api.ts';
import { eventually } from '../support/eventually.ts';

let t: TestApi;
let deviceKey: string;
beforeAll(async () => {
  t = await createTestApi({
    settings: { HTTP_INGEST_TIMEOUT_S: '2', DEVICE_MESSAGES_PER_S: '0' },
    rawDays: 3650,
  });
  await t.send('POST', '/api/v1/devices', { device: 'boiler' });
  deviceKey = await keyOf('boiler');
});
afterAll(() => t.stop());

async function keyOf(device: string): Promise<string> {
  return (await t.send('POST', `/api/v1/devices/${device}/keys`, {})).body.key;
}

interface Posted {
  readonly path?: string;
  readonly type?: string | null;
  readonly key?: string;
  readonly headers?: Record<string, string>;
}

async function post(body: string | Buffer, options: Posted = {}): Promise<ApiAnswer> {
  const { path = '/api/v1/ingest', type = 'application/json', key = deviceKey } = options;
  const answer = await fetch(t.url + path, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      ...(type === null ? {} : { 'content-type': type }),
      ...options.headers,
    },
    body: typeof body === 'string' ? Buffer.from(body) : body,
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, body: JSON.parse(text) };
}

async function readings(device = 'boiler', query = ''): Promise<[string, string, unknown][]> {
  const { body } = await t.send('GET', `/api/v1/devices/${device}/readings?order=asc${query}`);
  return body.data.map((row: Record<string, unknown>) => [
    row['time'],
    row['metric'],
    row['value'],
  ]);
}

const COMMITTED_SHAPE = { stored: true, time: expect.any(String) };

describe('POST /api/v1/ingest', () => {
  it('answers 200 when the message is committed, once for one that comes twice (D-01)', async () => {
    const ts = Date.now() - 60_000;
    const message = JSON.stringify({ ts, temp: 21.5, ok: true, door: 'open' });
    for (let copy = 0; copy < 2; copy += 1) {
      expect(await post(message)).toMatchObject({ status: 200, body: COMMITTED_SHAPE });
      const time = new Date(ts).toISOString();
      const stored = await readings('boiler', `&from=${ts}`);
      expect(stored.toSorted(([, a], [, b]) => a.localeCompare(b))).toEqual([
        [time, 'door', 'open'],
        [time, 'ok', true],
        [time, 'temp', 21.5],
      ]);
    }
  });

  it('takes CBOR by its first byte, whatever its name', async () => {
    const cbor = Buffer.from('a1646362 6f7207'.replaceAll(' ', ''), 'hex');
    for (const type of ['application/cbor', 'application/json; charset=utf-8']) {
      expect((await post(cbor, { type })).status).toBe(200);
    }
    expect((await readings('boiler', '&metric=cbor')).map(([, , value]) => value)).toEqual([7, 7]);
  });

  it('takes SenML by its content type', async () => {
    const pack = JSON.stringify([{ n: 'pressure', u: 'Pa', v: 101_325 }]);
    const { status } = await post(pack, { type: 'application/senml+json' });
    expect(status).toBe(200);
    expect((await readings('boiler', '&metric=pressure'))[0]?.[2]).toBe(101_325);
  });

  it('answers 422 with the code of in/err, and keeps the message in quarantine (D-09)', async () => {
    const bad: [string, string][] = [
      ['{"temp":', 'bad_json'],
      ['{"a b":1}', 'bad_name'],
      [`{"ts":${Date.now() - 400 * 86_400_000},"old":1}`, 'too_old'],
    ];
    for (const [message, refusal] of bad) {
      const { status, body, headers } = await post(message);
      expect(headers.get('content-type')).toContain('application/problem+json');
      expect(status).toBe(422);
      expect(body).toMatchObject({ code: 'MESSAGE_REFUSED', refusal });
    }
    const { body } = await t.send('GET', '/api/v1/quarantine?device=boiler');
    const kept = body.data.map(({ code, payload }: Record<string, string>) => [payload, code]);
    expect(kept.toReversed()).toEqual(bad);
  });

  it('refuses other content types with 415, and compressed bodies', async () => {
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'application/xml',
      null,
    ]) {
      expect((await post('{"temp":1}', { type })).status, String(type)).toBe(415);
    }
    const headers = { 'content-encoding': 'gzip' };
    expect((await post('{"temp":1}', { headers })).status).toBe(415);
    expect((await post('')).status).toBe(400);
  });

  it('refuses more than a packet with 413, announced or not (I-18)', async () => {
    const large = Buffer.alloc(10 * 1_048_576, 0x20);
    const answer = await post(large.subarray(0, 70_000));
    expect(answer).toMatchObject({ status: 413, body: { code: 'REQUEST_INVALID' } });
    const streamed = await fetch(`${t.url}/api/v1/ingest`, {
      method: 'POST',
      headers: { authorization: `Bearer ${deviceKey}`, 'content-type': 'application/json' },
      body: new Blob([large]).stream(),
      duplex: 'half',
    } as RequestInit).then(
      ({ status }) => status,
      // The server ends the connection, which may overtake its answer.
      () => 413,
    );
    expect(streamed).toBe(413);
  });

  it('refuses hostile payloads at once, each with a code (I-09)', async () => {
    const hostile = [
      Buffer.from('9bffffffffffffffff', 'hex'),
      Buffer.from('5f41', 'hex'),
      Buffer.from('\uFEFF{"a":1}'),
      Buffer.from('{"a":1}\0'),
      Buffer.from('{"a":1}', 'utf16le'),
      Buffer.from(`${'['.repeat(30_000)}`),
      Buffer.from(`{"${'a'.repeat(60_000)}":1}`),
      Buffer.from('{"__proto__":1}'),
      Buffer.from('c2 ff fe 00'.replaceAll(' ', ''), 'hex'),
    ];
    for (const payload of hostile) {
      const startedAt = performance.now();
      const { status, body } = await post(payload);
      expect(status, payload.toString('hex').slice(0, 20)).toBe(422);
      expect(body.refusal).toMatch(/^[a-z_]+$/);
      expect(performance.now() - startedAt).toBeLessThan(5000);
    }
  });

  it('lets in the key of a device alone, and says so when the device is disabled (A-02)', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'off' });
    const key = await keyOf('off');
    expect((await post('{"a":1}', { key })).status).toBe(200);
    await t.send('PATCH', '/api/v1/devices/off', { disabled: true });
    expect(await post('{"a":2}', { key })).toMatchObject({
      status: 403,
      body: { code: 'DEVICE_REFUSED' },
    });
    await t.send('PATCH', '/api/v1/devices/off', { disabled: false });
    expect((await post('{"a":3}', { key })).status).toBe(200);
    const [made] = (await t.send('GET', '/api/v1/devices/off/keys')).body.data;
    await t.send('DELETE', `/api/v1/devices/off/keys/${made.keyId}`);
    expect((await post('{"a":4}', { key })).status).toBe(401);
    expect((await post('{"a":5}', { key: t.acme.adminKey })).status).toBe(401);
    expect((await readings('off')).map(([, , value]) => value)).toEqual([1, 3]);
  });

  it('answers 503 when the message is not stored in time, and 200 to its repetition', async () => {
    const { pool } = t.test.database;
    const client = await pool.connect();
    const message = JSON.stringify({ ts: Date.now() - 5000, slow: 1 });
    try {
      await client.query('BEGIN; LOCK TABLE device_latest IN ACCESS EXCLUSIVE MODE');
      const answer = await post(message);
      expect(answer).toMatchObject({ status: 503, body: { code: 'MESSAGE_NOT_STORED' } });
      expect(answer.headers.get('retry-after')).toBe('5');
    } finally {
      await client.query('ROLLBACK');
      client.release();
    }
    expect((await post(message)).status).toBe(200);
    expect(await readings('boiler', '&metric=slow')).toHaveLength(1);
  });
});

describe('the rates of devices over HTTP', () => {
  it('are answered with 429 and Retry-After, and what was answered so is not stored', async () => {
    const limited = await createTestApi({ settings: { DEVICE_MESSAGES_PER_S: '1' } });
    try {
      await limited.send('POST', '/api/v1/devices', { device: 'loud' });
      const { key } = (await limited.send('POST', '/api/v1/devices/loud/keys', {})).body;
      const answers = await Promise.all(
        Array.from({ length: 40 }, (_, n) =>
          limited.send('POST', '/api/v1/ingest', { ts: Date.now() - n * 1000, n }, key),
        ),
      );
      const ok = answers.filter(({ status }) => status === 200);
      const refused = answers.filter(({ status }) => status === 429);
      expect(ok.length + refused.length).toBe(40);
      expect(refused.length).toBeGreaterThan(20);
      expect(refused[0]?.headers.get('retry-after')).toBe('5');
      expect(refused[0]?.body.code).toBe('MESSAGE_RATE');
      const { body } = await limited.send('GET', '/api/v1/devices/loud/readings');
      expect(body.data).toHaveLength(ok.length);
    } finally {
      await limited.stop();
    }
  });
});

describe('POST /api/v1/devices/{device}/readings', () => {
  it('stores readings of years ago that the device itself could not bring', async () => {
    const path = '/api/v1/devices/boiler/readings';
    const key = t.acme.adminKey;
    const ts = Date.UTC(2023, 4, 5);
    const message = JSON.stringify([
      { ts, history: 1 },
      { ts: ts + 1000, history: 2 },
    ]);
    for (let copy = 0; copy < 2; copy += 1) {
      expect(await post(message, { path, key })).toMatchObject({
        status: 200,
        body: COMMITTED_SHAPE,
      });
    }
    expect(await readings('boiler', '&metric=history')).toEqual([
      ['2023-05-05T00:00:00.000Z', 'history', 1],
      ['2023-05-05T00:00:01.000Z', 'history', 2],
    ]);
    const { rows } = await t.test.database.pool.query(
      `SELECT FROM dirty_range WHERE hour = '2023-05-05T00:00:00Z'`,
    );
    expect(rows.length).toBeGreaterThan(0);
  });

  it('refuses a time that cannot be right, where a board would be given the time of receipt', async () => {
    const path = '/api/v1/devices/boiler/readings';
    const key = t.acme.adminKey;
    const senml = { path, key, type: 'application/senml+json' };
    for (const ts of [1, 1_500_000_000_000, Date.now() + 3_600_000]) {
      const good = { ts: Date.now() - 1000, wrong: 1 };
      for (const answer of [
        await post(JSON.stringify([good, { ts, wrong: 2 }]), { path, key }),
        await post(JSON.stringify([{ n: 'wrong', t: ts < 1000 ? 1.4e9 : ts / 1000, v: 1 }]), senml),
      ]) {
        expect(answer, String(ts)).toMatchObject({
          status: 422,
          body: { code: 'REQUEST_INVALID' },
        });
        expect(answer.body.detail).toContain('nothing was stored');
      }
    }
    expect(await readings('boiler', '&metric=wrong')).toEqual([]);
    const { body } = await t.send('GET', '/api/v1/quarantine?device=boiler');
    expect(JSON.stringify(body)).not.toContain('wrong');
    // A board is believed that it measured something, and told what time it is.
    expect((await post('{"ts":1,"unset":1}')).status).toBe(200);
  });

  it('asks for an admin of the organization, and for the device', async () => {
    const path = '/api/v1/devices/boiler/readings';
    expect((await post('{"a":1}', { path })).status).toBe(401);
    expect((await post('{"a":1}', { path, key: t.other.adminKey })).status).toBe(404);
    const missing = { path: '/api/v1/devices/none/readings', key: t.acme.adminKey };
    expect((await post('{"a":1}', missing)).status).toBe(404);
  });
});

describe('the way in of HTTP', () => {
  it('is not answered as stored by anything but the acknowledgement', async () => {
    const taken: (() => void)[] = [];
    const published: string[] = [];
    let isWritten = (): void => undefined;
    const lane = {} as never;
    let closed = 0;
    const intake = new HttpIntake({
      ingest: {
        openLane: () => lane,
        closeLane: () => void (closed += 1),
        accept(_lane, publication) {
          taken.push(() => publication.acknowledge(Buffer.from('{}'), null));
          return true;
        },
        openReplay: () => lane,
        closeReplay: () => undefined,
        acceptReplay: () => true,
      },
      subscribers: {
        isWanted: () => true,
        publish(topic) {
          published.push(topic);
          return new Promise((resolve) => {
            isWritten = resolve;
          });
        },
      },
      timeoutMs: 10_000,
      aheadMaxMs: 300_000,
      ageMaxMs: async () => 1,
    });
    const device = { organizationId: 1, organization: 'acme', deviceId: 1, device: 'x' };
    const message = { channel: 'data', payload: Buffer.from('{}') } as const;
    let outcome: unknown = null;
    const answered = intake.publish(device, message, '').then((given) => {
      outcome = given;
    });
    await delay(30);
    expect(outcome).toBeNull();
    taken[0]?.();
    await delay(30);
    expect([outcome, published]).toEqual([null, ['v1/acme/x/data']]);
    isWritten();
    await answered;
    expect(outcome).toEqual({ kind: 'stored' });
    expect(closed).toBe(1);
    intake.stop();
    expect(await intake.publish(device, message, '')).toMatchObject({ kind: 'unavailable' });
    await eventually('nothing more was taken', () => taken.length === 1);
  });
});
