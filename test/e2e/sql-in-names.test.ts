import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw } from '../support/raw-client.ts';

/** Texts that would do harm, or wait for seconds, if any of them became a part of a statement. */
const ATTACKS = [
  `'; DROP TABLE reading; --`,
  `x'); DELETE FROM device WHERE ('a'='a`,
  `' OR '1'='1`,
  `"; TRUNCATE api_key CASCADE; --`,
  `1 day'::interval`,
  `1; SELECT pg_sleep(20)`,
  `(SELECT pg_sleep(20))`,
  `$1`,
  `\\'; DROP TABLE metric; --`,
  `time) FROM reading; COPY api_key TO PROGRAM 'id'; --`,
  `{"a":"'"}`,
  `temp'||(SELECT secret_hash FROM api_key LIMIT 1)||'`,
];

let app: TestApp;
let before: readonly string[];
beforeAll(async () => {
  app = await startTestApp();
  before = await tables();
});
afterAll(() => app.stop());

/** Every table with its columns; days of readings come and go by themselves. */
async function tables(): Promise<string[]> {
  const { rows } = await app.testDatabase.database.pool.query<{ column: string }>(
    `SELECT table_name || '.' || column_name AS column FROM information_schema.columns
     WHERE table_schema = 'public' AND table_name !~ '[0-9]{6}' ORDER BY 1`,
  );
  return rows.map(({ column }) => column);
}

async function count(table: 'device' | 'api_key' | 'metric' | 'reading'): Promise<number> {
  const { rows } = await app.testDatabase.database.pool.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM ${table}`,
  );
  return rows[0]?.count ?? -1;
}

/** @returns the status; no answer may take as long as a `pg_sleep` that came through. */
async function statusOf(method: string, path: string, body?: unknown): Promise<number> {
  const startedAt = performance.now();
  const { status, body: answer } = await app.api(method, path, body);
  expect(performance.now() - startedAt, path).toBeLessThan(5000);
  expect(JSON.stringify(answer) ?? '', path).not.toMatch(/syntax error|SQLSTATE/);
  return status;
}

/** A cursor that passes for one of this question, with places of the attacker's choice. */
function forgedCursor(filters: readonly unknown[], ...place: readonly unknown[]): string {
  const madeFor = createHash('sha256')
    .update(JSON.stringify(filters))
    .digest('base64url')
    .slice(0, 11);
  return Buffer.from(JSON.stringify([madeFor, ...place])).toString('base64url');
}

describe('SQL', () => {
  it('in names and texts over HTTP is refused or kept as it is (I-12)', async () => {
    for (const [at, attack] of ATTACKS.entries()) {
      const inPath = encodeURIComponent(attack);
      expect(await statusOf('POST', '/api/v1/devices', { device: attack })).toBe(400);
      const named = {
        device: `kept-${at}`,
        displayName: attack,
        tags: [attack.slice(0, 48).trim()],
      };
      expect(await app.api('POST', '/api/v1/devices', named)).toMatchObject({
        status: 201,
        body: named,
      });
      expect((await app.api('GET', `/api/v1/devices/kept-${at}`)).body).toMatchObject(named);
      const changed = { displayName: `${attack} again` };
      expect(await app.api('PATCH', `/api/v1/devices/kept-${at}`, changed)).toMatchObject({
        status: 200,
        body: changed,
      });
      for (const [method, path, body] of [
        ['GET', `/api/v1/devices/${inPath}`, undefined],
        ['PATCH', `/api/v1/devices/${inPath}`, { displayName: 'x' }],
        ['DELETE', `/api/v1/devices/${inPath}`, undefined],
        ['GET', `/api/v1/devices/${inPath}/readings`, undefined],
        ['GET', `/api/v1/devices/${inPath}/diagnostics`, undefined],
        ['POST', `/api/v1/devices/${inPath}/keys`, {}],
        ['DELETE', `/api/v1/devices/first/keys/${inPath}`, undefined],
        ['DELETE', `/api/v1/keys/${inPath}`, undefined],
        ['POST', `/api/v1/devices/${inPath}/commands`, { command: 'relay' }],
        ['GET', `/api/v1/devices/${inPath}/commands`, undefined],
        ['GET', `/api/v1/commands/${inPath}`, undefined],
        ['GET', `/api/v1/campaigns/${inPath}`, undefined],
        ['GET', `/api/v1/devices/${inPath}/configuration`, undefined],
        ['GET', `/api/v1/devices/first/configuration/versions/${inPath}`, undefined],
        ['GET', `/api/v1/device-types/${inPath}/configuration`, undefined],
        ['GET', `/api/v1/firmware/${inPath}`, undefined],
        ['GET', `/api/v1/firmware-signers/${inPath}`, undefined],
        ['GET', `/api/v1/updates/${inPath}`, undefined],
        ['GET', `/api/v1/devices/${inPath}/updates`, undefined],
        ['POST', `/api/v1/devices/${inPath}/keys/rotate`, {}],
        ['POST', `/api/v1/claims/${inPath}/approve`, {}],
      ] as const) {
        expect(await statusOf(method, path, body), `${method} ${path}`).toBe(404);
      }
      const key = { name: attack, scopes: ['data'] };
      expect((await app.api('POST', '/api/v1/keys', key)).body.name).toBe(attack);
      for (const wrong of [{ devices: [attack] }, { scopes: [attack] }, { expiresAt: attack }]) {
        expect(await statusOf('POST', '/api/v1/keys', { ...key, ...wrong })).toBe(400);
      }
    }
    expect(await count('device')).toBe(1 + ATTACKS.length);
    expect(await tables()).toEqual(before);
  });

  it('in commands, definitions and campaigns over HTTP is refused or kept as it is (I-12)', async () => {
    for (const attack of ATTACKS) {
      const commands = '/api/v1/devices/first/commands';
      expect(await statusOf('POST', commands, { command: attack })).toBe(400);
      const kept = { command: 'relay', args: { [attack]: attack } };
      const made = await app.api('POST', commands, kept);
      expect(made.status).toBe(202);
      const path = `/api/v1/commands/${made.body.id}`;
      expect((await app.api('GET', path)).body).toMatchObject(kept);
      expect(await statusOf('DELETE', path)).toBe(200);
      const targets = { tags: [attack.slice(0, 48)], types: [attack.slice(0, 48)] };
      const campaign = { name: attack, targets, request: { command: 'relay' } };
      // No device has the tag.
      expect(await statusOf('POST', '/api/v1/campaigns', campaign)).toBe(400);
      for (const list of ['commands', 'campaigns', 'configurations', 'firmware', 'claims']) {
        const text = encodeURIComponent(attack);
        expect(await statusOf('GET', `/api/v1/${list}?cursor=${text}`), list).toBe(400);
        expect(await statusOf('GET', `/api/v1/${list}?state=${text}`), list).toBe(400);
      }
    }
    expect(await tables()).toEqual(before);
  });

  it('in parameters of questions is refused, or names what is not there (I-12)', async () => {
    for (const attack of ATTACKS) {
      const text = encodeURIComponent(attack);
      for (const name of [
        'from',
        'to',
        'order',
        'limit',
        'cursor',
        'sort',
        'interval',
        'bucket',
        'filter',
        'offset',
      ]) {
        const path = `/api/v1/devices/first/readings?${name}=${text}`;
        expect(await statusOf('GET', path), path).toBe(400);
      }
      const readings = await app.api('GET', `/api/v1/devices/first/readings?metric=${text}`);
      expect(readings).toMatchObject({ status: 200, body: { data: [] } });
      expect(await statusOf('GET', `/api/v1/quarantine?code=${text}`)).toBe(400);
      expect(await statusOf('GET', `/api/v1/quarantine?device=${text}`)).toBe(404);
      expect(await statusOf('GET', `/api/v1/diagnostics?address=${text}`)).toBe(400);
      for (const list of ['devices', 'metrics', 'keys', 'quarantine', 'devices/first/keys']) {
        expect(await statusOf('GET', `/api/v1/${list}?limit=${text}`), list).toBe(400);
        expect(await statusOf('GET', `/api/v1/${list}?cursor=${text}`), list).toBe(400);
      }
    }
    expect(await tables()).toEqual(before);
  });

  it('in the place that a forged cursor names is a value like any other (I-12)', async () => {
    const { rows } = await app.testDatabase.database.pool.query<{
      organization_id: number;
      device_id: number;
    }>(`SELECT organization_id, device_id FROM device WHERE slug = 'first'`);
    const { organization_id: organizationId, device_id: deviceId } = rows[0] ?? {};
    for (const attack of ATTACKS) {
      const ofDevices = forgedCursor(['devices', organizationId], attack);
      expect(await statusOf('GET', `/api/v1/devices?cursor=${ofDevices}`)).toBe(200);
      const ofMetrics = forgedCursor(['metrics', organizationId], attack);
      expect(await statusOf('GET', `/api/v1/metrics?cursor=${ofMetrics}`)).toBe(200);
      const ofReadings = forgedCursor(
        ['readings', deviceId, null, null, null, 'desc'],
        attack,
        attack,
      );
      const path = `/api/v1/devices/first/readings?cursor=${ofReadings}`;
      expect(await statusOf('GET', path)).toBe(400);
    }
    expect(await tables()).toEqual(before);
  });

  it('in names and values over MQTT ends in quarantine or is kept as text (I-12)', async () => {
    const key = await app.addDevice('injector');
    for (const [at, attack] of ATTACKS.entries()) {
      const client = await connectRaw(app.addresses.mqttUrl, key, {
        clientId: attack,
        username: attack.replaceAll('/', ''),
        will: { topic: 'v1/me/data', payload: Buffer.from(attack), qos: 1, retain: false },
      });
      const messages = [
        ['v1/me/data', JSON.stringify({ [attack]: 1 })],
        ['v1/me/data', JSON.stringify({ [`t${at}`]: attack })],
        ['v1/me/data', JSON.stringify({ seq: attack, ts: attack, n: 1 })],
        [`v1/me/data/${attack}`.replaceAll(/[+#]/g, ''), '1'],
        [`v1/me/event/${attack}`.replaceAll(/[+#]/g, ''), '{}'],
        [`v1/demo/${attack}/data`.replaceAll(/[+#]/g, ''), '1'],
        ['v1/me/hello', JSON.stringify({ fw: attack.slice(0, 31), mdl: attack.slice(0, 31) })],
      ] as const;
      for (const [n, [topic, payload]] of messages.entries()) {
        const packet = { cmd: 'publish', topic, payload, qos: 1, dup: false } as const;
        client.send({ ...packet, messageId: n + 1, retain: false });
      }
      const pubacks = new Set<number | undefined>();
      while (pubacks.size < messages.length) {
        const packet = await client.next();
        if (packet.cmd === 'puback') pubacks.add(packet.messageId);
      }
      const { body } = await app.api('GET', `/api/v1/devices/injector/readings?metric=t${at}`);
      expect(body.data).toMatchObject([{ metric: `t${at}`, value: attack }]);
      client.end();
      await client.closed;
    }
    const shown = await app.api('GET', '/api/v1/devices/injector/diagnostics');
    expect(shown.body.presence.hello.fw).toBe(ATTACKS.at(-1)?.slice(0, 31));
    const { body: metrics } = await app.api('GET', '/api/v1/metrics?limit=1000');
    for (const { name } of metrics.data) expect(name).toMatch(/^[A-Za-z][A-Za-z0-9_.-]{0,63}$/);
    expect(await tables()).toEqual(before);
    expect(await count('reading')).toBeGreaterThanOrEqual(ATTACKS.length);
    expect(await count('api_key')).toBeGreaterThan(2);
    expect((await app.api('GET', '/health/ready')).status).toBe(200);
  });
});
