import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { pruneQuarantine } from '../../ingest/quarantine-pruning.ts';
import { createTestApi, type TestApi } from '../support/api.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';

interface Row {
  time: string;
  metric: string;
  value: unknown;
}

let t: TestApi;
let deviceId: number;
beforeAll(async () => {
  t = await createTestApi();
  const { database } = t.test;
  const { organizationId } = t.acme.author;
  ({ deviceId } = await t.registry.devices.create(t.acme.author, { slug: 'boiler' }));
  await t.registry.devices.create(t.acme.author, { slug: 'empty' });
  await ensureDays(database, '2026-11-19', '2026-11-21');
  const temp = await ensureMetric(database, organizationId, 'temp');
  const door = await ensureMetric(database, organizationId, 'door', 'bool');
  const state = await ensureMetric(database, organizationId, 'state', 'text');
  const at = (time: string, metricId: number, rest: { value?: number; text?: string }) =>
    insertReading(database, { deviceId, metricId, time, ...rest });
  await at('2026-11-19T23:59:59.999999Z', temp, { value: 1 });
  await at('2026-11-20T00:00:00Z', temp, { value: 2 });
  await at('2026-11-20T00:00:00Z', door, { value: 1 });
  await at('2026-11-20T00:00:00Z', state, { text: 'open' });
  await at('2026-11-21T08:00:00Z', temp, { value: 21.5 });
  await at('2026-11-21T08:00:00.000001Z', temp, { value: -0.1 });
  await at('2026-11-21T09:00:00Z', door, { value: 0 });
  await at('2026-11-21T10:00:00Z', temp, { text: 'broken' });
});
afterAll(() => t.stop());

async function readings(query: string): Promise<Row[]> {
  const { body, status } = await t.send('GET', `/api/v1/devices/boiler/readings?${query}`);
  expect(status, JSON.stringify(body)).toBe(200);
  expect(body.next).toBeNull();
  return body.data;
}

/** All pages, one after the other. */
async function pages(query: string, limit: number): Promise<Row[]> {
  const rows: Row[] = [];
  let cursor = '';
  for (;;) {
    const path = `/api/v1/devices/boiler/readings?${query}&limit=${limit}${cursor}`;
    const { body } = await t.send('GET', path);
    expect(body.data.length).toBeLessThanOrEqual(limit);
    rows.push(...body.data);
    if (body.next === null) return rows;
    expect(body.data).toHaveLength(limit);
    cursor = `&cursor=${body.next}`;
  }
}

describe('GET readings', () => {
  it('gives the newest first, with kinds of values and microseconds', async () => {
    const rows = await readings('');
    expect(rows.map(({ value }) => value).slice(0, 4)).toEqual(['broken', false, -0.1, 21.5]);
    expect(rows.slice(2, 4)).toEqual([
      { time: '2026-11-21T08:00:00.000001Z', metric: 'temp', value: -0.1 },
      { time: '2026-11-21T08:00:00.000Z', metric: 'temp', value: 21.5 },
    ]);
    expect(rows).toHaveLength(8);
  });

  it('takes from as inclusive and to as exclusive, to the microsecond', async () => {
    const one = 'from=2026-11-21T08:00:00.000001Z&to=2026-11-21T08:00:00.000002Z';
    expect((await readings(one)).map(({ value }) => value)).toEqual([-0.1]);
    const day = 'from=2026-11-20&to=2026-11-21&order=asc&metric=temp';
    expect((await readings(day)).map(({ value }) => value)).toEqual([2]);
    const byMs = `from=${Date.UTC(2026, 10, 21, 8)}&to=${Date.UTC(2026, 10, 21, 8) + 1}`;
    expect(await readings(byMs)).toHaveLength(2);
    expect(await readings('from=2026-11-21&to=2026-11-21')).toEqual([]);
  });

  it('gives one metric, several, and nothing for unknown ones', async () => {
    expect(await readings('metric=door')).toHaveLength(2);
    expect(await readings('metric=door&metric=state&metric=nope')).toHaveLength(3);
    for (const name of ['nope', '__proto__', "temp' OR 1=1 --"]) {
      expect(await readings(`metric=${encodeURIComponent(name)}`)).toEqual([]);
    }
  });

  it('finds nothing for a device that has sent nothing', async () => {
    const { body } = await t.send('GET', '/api/v1/devices/empty/readings');
    expect(body).toEqual({ data: [], next: null });
  });

  it.each(['asc', 'desc'])('pages %s without losing or repeating a reading', async (order) => {
    const all = await readings(`order=${order}`);
    for (const limit of [1, 2, 3, 7]) {
      expect(await pages(`order=${order}`, limit), `limit ${limit}`).toEqual(all);
      const some = all.filter(({ metric }) => metric !== 'state');
      expect(await pages(`order=${order}&metric=temp&metric=door`, limit)).toEqual(some);
    }
  });

  it('gives no next on a last page that is exactly full', async () => {
    expect(await readings('limit=8')).toHaveLength(8);
  });

  it('refuses a metric name that none can have (I-12)', async () => {
    const odd = await t.send('GET', '/api/v1/devices/boiler/readings?metric=%00');
    expect(odd).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });

  it('refuses a cursor of another question', async () => {
    const { body } = await t.send('GET', '/api/v1/devices/boiler/readings?limit=1');
    for (const query of ['order=asc', 'metric=temp', 'from=0', 'to=1']) {
      const path = `/api/v1/devices/boiler/readings?${query}&cursor=${body.next}`;
      expect(await t.send('GET', path)).toMatchObject({ body: { code: 'CURSOR_INVALID' } });
    }
    const limit = `/api/v1/devices/boiler/readings?limit=5&cursor=${body.next}`;
    expect(await t.send('GET', limit)).toMatchObject({ status: 200 });
  });

  it.each([
    'from=yesterday',
    'from=2026-11-21T08:00:00',
    'from=2026-11-22&to=2026-11-21',
    'limit=5001',
    'limit=1e9',
    'order=random',
    'bucket=1%20day',
    'metric=',
    `metric=${'x'.repeat(65)}`,
  ])('refuses the question %s with 400 (I-12, I-20)', async (query) => {
    const answer = await t.send('GET', `/api/v1/devices/boiler/readings?${query}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
  });
});

describe('GET latest', () => {
  it('gives the newest value of each metric in the order of names', async () => {
    const { body } = await t.send('GET', '/api/v1/devices/boiler/latest');
    const common = { unit: null, receivedAt: '2026-11-21T12:00:00.000Z', quality: 'device' };
    expect(body).toEqual({
      data: [
        { metric: 'door', kind: 'bool', time: '2026-11-21T09:00:00.000Z', value: false, ...common },
        {
          metric: 'state',
          kind: 'text',
          time: '2026-11-20T00:00:00.000Z',
          value: 'open',
          ...common,
        },
        {
          metric: 'temp',
          kind: 'number',
          time: '2026-11-21T10:00:00.000Z',
          value: 'broken',
          ...common,
        },
      ],
      next: null,
    });
  });
});

describe('GET metrics of the organization', () => {
  it('pages through names, and shows none of another organization', async () => {
    const first = await t.send('GET', '/api/v1/metrics?limit=2');
    expect(first.body.data).toEqual([
      { name: 'door', kind: 'bool', unit: null },
      { name: 'state', kind: 'text', unit: null },
    ]);
    const rest = await t.send('GET', `/api/v1/metrics?limit=2&cursor=${first.body.next}`);
    expect(rest.body).toMatchObject({ data: [{ name: 'temp' }], next: null });
    const other = await t.send('GET', '/api/v1/metrics', undefined, t.other.adminKey);
    expect(other.body).toEqual({ data: [], next: null });
  });
});

describe('GET quarantine', () => {
  it('shows text as text and bytes as base64, newest first, and filters', async () => {
    await quarantine('bad_json', Buffer.from('{"temp":n\n'), 1);
    await quarantine('bad_cbor', Buffer.from([0x80, 0xff]), 2);
    await quarantine('bad_json', Buffer.from('a\u0000b'), 3);
    const { body } = await t.send('GET', '/api/v1/quarantine?device=boiler');
    expect(body.data).toMatchObject([
      { payload: 'YQBi', payloadEncoding: 'base64', payloadBytes: 3 },
      { payload: 'gP8=', payloadEncoding: 'base64', code: 'bad_cbor', device: 'boiler' },
      { payload: '{"temp":n\n', payloadEncoding: 'text', topic: 'v1/acme/boiler/data' },
    ]);
    const coded = await t.send('GET', '/api/v1/quarantine?code=bad_cbor');
    expect(coded.body.data).toHaveLength(1);
    const page = await t.send('GET', '/api/v1/quarantine?limit=2');
    const rest = await t.send('GET', `/api/v1/quarantine?limit=2&cursor=${page.body.next}`);
    expect([...page.body.data, ...rest.body.data]).toEqual(body.data);
    const other = await t.send('GET', '/api/v1/quarantine', undefined, t.other.adminKey);
    expect(other.body).toEqual({ data: [], next: null });
    expect(await t.send('GET', '/api/v1/quarantine?device=nope')).toMatchObject({ status: 404 });
  });

  it('ends a page when its payloads reach 8 MiB, and says that more follows', async () => {
    for (let at = 0; at < 5; at += 1) await quarantine('too_big', Buffer.alloc(3e6, 120), 10 + at);
    const counts: number[] = [];
    let cursor = '';
    for (;;) {
      const { body } = await t.send('GET', `/api/v1/quarantine?code=too_big${cursor}`);
      counts.push(body.data.length);
      if (body.next === null) break;
      cursor = `&cursor=${body.next}`;
    }
    expect(counts).toEqual([2, 2, 1]);
  });

  it('prunes what is too old and the oldest of what is too much for one device', async () => {
    const { pool } = t.test.database;
    const second = await t.registry.devices.create(t.acme.author, { slug: 'noisy' });
    for (let at = 0; at < 5; at += 1)
      await quarantine('rate', Buffer.of(48 + at), at, second.deviceId);
    await pool.query(
      `UPDATE quarantine SET received_at = now() - interval '8 days' WHERE code = 'too_big'`,
    );
    const bounds = { ageMaxMs: 7 * 86_400_000, rowsPerDeviceMax: 3, apartRowsPerDeviceMax: 3 };
    expect(await pruneQuarantine(pool, bounds)).toBe(7);
    expect(await pruneQuarantine(pool, bounds)).toBe(0);
    const { body } = await t.send('GET', '/api/v1/quarantine?device=noisy');
    expect(body.data.map((row: { payload: string }) => row.payload)).toEqual(['4', '3', '2']);
  });
});

async function quarantine(code: string, payload: Buffer, at: number, of = deviceId): Promise<void> {
  await t.test.database.pool.query(
    `INSERT INTO quarantine VALUES ($1, $2, $3, now(), 'v1/acme/boiler/data', $4, 'why', $5)`,
    [makeUuidV7(1_795_000_000_000 + at), t.acme.author.organizationId, of, code, payload],
  );
}
