import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { boundConnections } from '../../api/connection-bounds.ts';
import { JSON_LINES_TYPE } from '../../api/json-lines.ts';
import type { Route } from '../../api/route.ts';
import { revisionOf } from '../../ingest/quarantine-row.ts';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { HOT_RULE, insertAlert } from '../support/alerts.ts';
import { createTestApi, type TestApi } from '../support/api.ts';
import { downlinkRequest, type DownlinkRequest } from '../support/downlink-requests.ts';
import { insertDownlinkRows } from '../support/downlink-rows.ts';
import { notifyBody, notifyPath } from '../support/notify-requests.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';

let t: TestApi;
let deviceKey: string;
let keyId: string;
let integratorKey: string;
let integratorKeyId: string;
let ruleId: string;
let silenceId: string;
/** One that is ended before the other is changed. */
let expiringId: string;
let alertId: string;
const SILENCE = { matchers: [{ label: 'device', op: '=', value: 'mine' }], for: '1h' };
/** By the last part of the path. */
const RULE_BODIES: Readonly<Record<string, unknown>> = {
  rules: { ...HOT_RULE, name: 'another' },
  check: HOT_RULE,
  backtest: { rule: { ...HOT_RULE, name: 'a draft' } },
  silences: SILENCE,
  acknowledge: {},
  assign: { assignee: 'Ada' },
  comment: { content: 'x' },
  snooze: { for: '1h' },
  resolve: {},
  verdict: { verdict: true },
};
const INTEGRATOR = { name: 'reader', scopes: ['data'], devices: null, expiresAt: null };
beforeAll(async () => {
  t = await createTestApi({ ruleHooks: { resolveByHand: async () => 'ended' } });
  await t.send('POST', '/api/v1/devices', { device: 'mine' });
  ruleId = (await t.send('POST', '/api/v1/rules', HOT_RULE)).body.id;
  silenceId = (await t.send('POST', '/api/v1/silences', SILENCE)).body.id;
  alertId = await insertAlert(t, { rule: ruleId, device: 'mine', activeAt: Date.now() - 60_000 });
  expiringId = (await t.send('POST', '/api/v1/silences', SILENCE)).body.id;
  await t.send('POST', `/api/v1/alerts/${alertId}/acknowledge`);
  const made = await t.send('POST', '/api/v1/devices/mine/keys');
  deviceKey = made.body.key;
  keyId = made.body.keyId;
  const integrator = await t.send('POST', '/api/v1/keys', INTEGRATOR);
  integratorKey = integrator.body.key;
  integratorKeyId = integrator.body.keyId;
});
afterAll(() => t.stop());

/** A body that the route's schema accepts, so that nothing but rights can refuse it. */
async function bodyFor({ method, path }: Route): Promise<unknown> {
  const notified = await notifyBody(t, { method, path });
  if (notified !== null) return notified;
  if (path === '/api/v1/quarantine/{quarantineId}' && method === 'PATCH') {
    const revision = revisionOf({ topic: 't', payload: Buffer.from('x') });
    return { revision, payload: 'y' };
  }
  if (path === '/api/v1/quarantine/reinject' || method === 'PUT') return {};
  if (method === 'PATCH' && path.startsWith('/api/v1/rules')) return { for: '3s' };
  if (method === 'PATCH' && path.startsWith('/api/v1/silences')) return { comment: 'taken' };
  const ofRule = RULE_BODIES[path.split('/').at(-1) ?? ''];
  if (method === 'POST' && ofRule !== undefined) return ofRule;
  if (method === 'PATCH') return { displayName: 'taken' };
  if (method !== 'POST') return undefined;
  if (path === '/api/v1/keys') return INTEGRATOR;
  if (path === '/api/v1/import') return 'device,time,temp\nmine,yesterday,1\n';
  if (path === '/api/v1/ingest' || path.endsWith('/readings')) return { temp: 1 };
  return path.endsWith('/keys') ? {} : { device: 'stolen' };
}

/** A message of `mine` in quarantine. */
const QUARANTINE_ID = '019a0000-0000-7000-8000-000000000001';
/** An import that refused a line. */
const IMPORT_ID = '019a0000-0000-7000-8000-000000000002';

async function pathOf({ method, path }: Route): Promise<string> {
  if (path.endsWith('/why-not')) return `${path.replace('{ruleId}', ruleId)}?device=mine`;
  if (path === '/api/v1/quarantine' && method === 'DELETE') return `${path}?code=rate`;
  if (path === '/api/v1/import') return `${path}?format=csv&source=a.csv`;
  if (path === '/api/v1/diagnostics') return `${path}?address=203.0.113.7`;
  const ofDevice = path.includes('{device}');
  return (await notifyPath(t, path))
    .replace('{device}', 'mine')
    .replace('{keyId}', ofDevice ? keyId : integratorKeyId)
    .replace('{importId}', IMPORT_ID)
    .replace('{quarantineId}', QUARANTINE_ID)
    .replace('{ruleId}', ruleId)
    .replace('{version}', '1')
    .replace('{alertId}', alertId)
    .replace('{silenceId}', path.endsWith('/expire') ? expiringId : silenceId);
}

/** A request that is answered as its route says. */
async function requestFor(
  route: Route,
): Promise<Pick<DownlinkRequest, 'path' | 'body' | 'headers'>> {
  const ofDownlink = await downlinkRequest(t, route);
  if (ofDownlink === null) return { path: await pathOf(route), body: await bodyFor(route) };
  const isRead = route.method === 'GET' || route.method === 'DELETE';
  return isRead ? { ...ofDownlink, body: undefined } : ofDownlink;
}

describe('every route of the table', () => {
  it('is public or for admin keys, and only operation and signed links are public', () => {
    expect(t.api.routes.length).toBeGreaterThan(15);
    for (const { role, tag, path } of t.api.routes) {
      expect(role === 'public', path).toBe(tag === 'operation' || path === '/fw/{link}');
    }
  });

  it('answers 401 without a key, with the key of a device or an integrator, a wrong key and a key of no use (A-02)', async () => {
    const wrong = `${t.acme.adminKey.slice(0, 13)}${makeKey('admin').secret}000000`;
    const none = [makeKey('admin').key, wrong, 'x', 'x'.repeat(5000), `${keyId}`];
    const keys = [null, deviceKey, integratorKey, ...none];
    for (const route of t.api.routes.filter(({ role }) => role === 'admin')) {
      const bodies = new Set<string>();
      const path = await pathOf(route);
      const body = await bodyFor(route);
      for (const key of keys) {
        const answer = await t.send(route.method, path, body, key);
        expect(answer.status, `${route.method} ${route.path}`).toBe(401);
        expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="puback"');
        bodies.add(JSON.stringify(answer.body));
      }
      expect(bodies.size).toBe(1);
    }
  });

  it("[A-01] answers 404 to another organization's admin key wherever a device or a key is named", async () => {
    const routes = t.api.routes.filter(({ path }) => path.includes('{device}'));
    expect(routes.length).toBeGreaterThanOrEqual(10);
    for (const route of routes) {
      const { path, body, headers } = await requestFor(route);
      const answer = await t.send(route.method, path, body, t.other.adminKey, headers);
      const code = route.path.includes('{commandId}') ? 'COMMAND_NOT_FOUND' : 'DEVICE_NOT_FOUND';
      expect(answer, `${route.method} ${route.path}`).toMatchObject({
        status: 404,
        body: { code },
      });
    }
    const ofIntegrators = t.api.routes.filter(({ path }) => path === '/api/v1/keys/{keyId}');
    expect(ofIntegrators).toHaveLength(2);
    for (const route of ofIntegrators) {
      expect(
        await t.send(route.method, await pathOf(route), undefined, t.other.adminKey),
      ).toMatchObject({
        status: 404,
        body: { code: 'KEY_NOT_FOUND' },
      });
    }
    expect(await t.send('GET', '/api/v1/devices/mine')).toMatchObject({
      body: { displayName: 'mine' },
    });
    for (const [member, code] of [
      ['{ruleId}', 'RULE_NOT_FOUND'],
      ['{alertId}', 'ALERT_NOT_FOUND'],
      ['{silenceId}', 'SILENCE_NOT_FOUND'],
      ['{receiverId}', 'RECEIVER_NOT_FOUND'],
      ['{routeId}', 'NOTIFICATION_ROUTE_NOT_FOUND'],
      ['{notificationId}', 'NOTIFICATION_NOT_FOUND'],
    ] as const) {
      const named = t.api.routes.filter(({ path }) => path.includes(member));
      expect(named.length).toBeGreaterThanOrEqual(2);
      for (const route of named) {
        const answer = await t.send(
          route.method,
          await pathOf(route),
          await bodyFor(route),
          t.other.adminKey,
        );
        const where = `${route.method} ${route.path}`;
        expect(answer, where).toMatchObject({ status: 404, body: { code } });
      }
    }
    const quarantine = await t.send(
      'GET',
      '/api/v1/quarantine?device=mine',
      undefined,
      t.other.adminKey,
    );
    expect(quarantine).toMatchObject({ status: 404 });
  });

  it('has answers in the OpenAPI document, and the document has nothing else', async () => {
    const { body } = await t.send('GET', '/openapi.json', undefined, null);
    expect(body.openapi).toBe('3.1.0');
    const documented = Object.entries<Record<string, unknown>>(body.paths).flatMap(([path, at]) =>
      Object.keys(at).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const table = t.api.routes.map(({ method, path }) => `${method} ${path}`);
    expect(documented.sort()).toEqual(table.sort());
    const limit = body.paths['/api/v1/devices'].get.parameters.find(
      ({ name }: { name: string }) => name === 'limit',
    );
    expect(limit.schema).toMatchObject({
      type: 'integer',
      minimum: 1,
      maximum: 5000,
      default: 100,
    });
    const readings = body.paths['/api/v1/devices/{device}/readings'].get;
    expect(readings.security).toEqual([{ adminKey: [] }]);
    expect(Object.keys(readings.responses).sort()).toEqual(['200', 'default']);
  });
});

/** Members that the document does not name are refused. */
function strict(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodArray) return z.array(strict(schema.element as z.ZodType));
  if (!(schema instanceof z.ZodObject) || schema.def.catchall !== undefined) return schema;
  const members = Object.entries<z.ZodType>(schema.shape);
  return z.strictObject(Object.fromEntries(members.map(([name, of]) => [name, strict(of)])));
}

describe('connections', () => {
  it('beyond the bound are closed at once, and come again when others are gone', async () => {
    const server = createServer((_request, response) => response.end('ok'));
    const bounds = boundConnections(server, 2);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const open = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    await Promise.all(open.map((socket) => once(socket, 'connect')));
    const third = connect(port, '127.0.0.1');
    third.resume();
    await once(third, 'close');
    expect(bounds.count()).toBe(2);
    const end = once(open[0] as Socket, 'close');
    open[0]?.destroy();
    await end;
    await expect.poll(() => bounds.count()).toBe(1);
    const drained = bounds.drain(50);
    await Promise.all([drained, once((open[1] as Socket).resume(), 'close')]);
    server.close();
  });
});

describe('hostile HTTP', () => {
  it('refuses a body above 1 MiB with 413, whether announced or chunked (I-18)', async () => {
    const body = `{"device":"${'x'.repeat(1_100_000)}"}`;
    expect(await t.send('POST', '/api/v1/devices', body)).toMatchObject({
      status: 413,
      body: { code: 'REQUEST_INVALID', status: 413 },
    });
    const chunked = await raw(
      `POST /api/v1/devices HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${t.acme.adminKey}\r\n` +
        `content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n` +
        `110000\r\n${' '.repeat(0x110000)}\r\n`,
    );
    expect(chunked).toMatch(/^HTTP\/1\.1 413 /);
  });

  it('does not read the body of who has no key', async () => {
    const answer = await raw(
      'POST /api/v1/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n' +
        'content-type: application/json\r\n\r\n{',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 401 /);
  });

  it('refuses headers above 16 KiB with 431 (I-18)', async () => {
    const headers = Array.from({ length: 1000 }, (_, at) => `x-${at}: ${'y'.repeat(30)}\r\n`);
    const answer = await raw(`GET /health/live HTTP/1.1\r\nhost: x\r\n${headers.join('')}\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    expect(answer).toContain('application/problem+json');
  });

  it('refuses a request with two lengths, and bytes that are not HTTP (I-18)', async () => {
    const smuggled = await raw(
      'POST /api/v1/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n' +
        'transfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    );
    expect(smuggled).toMatch(/^HTTP\/1\.1 400 /);
    const mqtt = await raw('\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06client');
    expect(mqtt).toMatch(/^HTTP\/1\.1 400 /);
    expect(mqtt).toContain('"code":"REQUEST_INVALID"');
  });

  it('ignores a method that a header asks for (I-18)', async () => {
    const answer = await fetch(`${t.url}/api/v1/devices/mine`, {
      method: 'GET',
      headers: {
        authorization: `Bearer ${t.acme.adminKey}`,
        'x-http-method-override': 'DELETE',
      },
    });
    expect(answer.status).toBe(200);
  });

  it('answers a path that is no route, or no path, as a problem', async () => {
    expect(await t.send('GET', '/nothing')).toMatchObject({
      status: 404,
      body: { code: 'ROUTE_NOT_FOUND' },
    });
    expect(await t.send('PUT', '/api/v1/devices/mine')).toMatchObject({
      status: 404,
      body: { code: 'ROUTE_NOT_FOUND' },
    });
    expect(
      await raw('GET /api/v1/devices/%zz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1\.1 400 [^]*REQUEST_INVALID/);
  });

  it('refuses an upgrade that nobody takes', async () => {
    const answer = await raw(
      'GET /mqtt HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 404 /);
  });

  it('writes no secret of any request into the log', () => {
    const log = t.logged.join('\n');
    for (const key of [t.acme.adminKey, t.other.adminKey, deviceKey, integratorKey]) {
      expect(log).not.toContain(key.slice(13));
    }
  });
});

describe('answers', () => {
  it('are as the OpenAPI document says', async () => {
    const { database } = t.test;
    const { organizationId } = t.acme.author;
    const { deviceId } = await t.registry.devices.get(organizationId, 'mine');
    const metricId = await ensureMetric(database, organizationId, 'temp');
    await ensureDays(database, '2026-11-21', '2026-11-21');
    await insertReading(database, { deviceId, metricId, time: '2026-11-21T08:00Z', value: 1 });
    await database.pool.query(
      `INSERT INTO quarantine VALUES ($3, $1, $2, now(), 't', 'rate', '', 'x')`,
      [organizationId, deviceId, QUARANTINE_ID],
    );
    await database.pool.query(
      `INSERT INTO import_run VALUES ($2, $1, 'b.csv', 'csv', 'done', now(), now(), 9, 2, 1, '')`,
      [organizationId, IMPORT_ID],
    );
    await database.pool.query(
      `INSERT INTO import_refusal VALUES ($2, 2, $1, 'bad_time', 'yesterday is no time', 'x')`,
      [organizationId, IMPORT_ID],
    );
    await database.pool.query(`INSERT INTO event VALUES ($2, now(), 'door', $1, '1', now(), 0)`, [
      organizationId,
      deviceId,
    ]);
    await database.pool.query(`INSERT INTO log_entry VALUES ($2, now(), $1, 'E', 'wifi', 1, 'm')`, [
      organizationId,
      deviceId,
    ]);
    t.registry.deviceEvents.note({
      kind: 'refusal',
      code: 'rate',
      detail: '',
      address: '203.0.113.7',
      organizationId,
      deviceId,
      keyId,
      connectionNumber: 1,
      occurredAtMs: Date.now(),
    });
    await t.registry.deviceEvents.flush();
    await database.pool.query(
      `INSERT INTO device_presence VALUES ($1, $2, 'online', now(), now(), 1, '203.0.113.7', $3)`,
      [deviceId, organizationId, { fw: '1.4.2' }],
    );
    await insertDownlinkRows(database.pool, { organizationId, deviceId, value: 1 });
    const order = ['GET', 'PUT', 'POST', 'PATCH', 'DELETE'];
    const routes = t.api.routes.toSorted(
      (a, b) => order.indexOf(a.method) - order.indexOf(b.method) || b.path.length - a.path.length,
    );
    for (const route of routes) {
      // Bytes, and nothing without the code of a link.
      if (route.path === '/fw/{link}') continue;
      const key = route.role === 'device' ? deviceKey : t.acme.adminKey;
      // What is listed is of the device that has something of everything.
      const isList = route.method === 'GET' && !/Id\}|\{type\}|\}$/.test(route.path);
      const asked = isList
        ? { path: await pathOf(route), body: undefined }
        : await requestFor(route);
      const { status, body } = await t.send(
        route.method,
        asked.path,
        asked.body,
        key,
        'headers' in asked ? asked.headers : {},
      );
      const answer = route.answers[status];
      expect(answer, `${route.method} ${route.path}: ${status}`).toBeDefined();
      const schema = answer?.schema ?? z.literal('');
      const isLines = answer?.contentType === JSON_LINES_TYPE;
      const values: unknown[] = isLines
        ? String(body)
            .trimEnd()
            .split('\n')
            .map((line) => JSON.parse(line))
        : [body];
      for (const value of values) {
        const { error } = strict(schema).safeParse(value);
        expect(error, `${route.method} ${route.path}`).toBeUndefined();
      }
      if (body.data !== undefined) expect(body.data, route.path).not.toHaveLength(0);
    }
  });
});

/** Sends bytes and returns everything that comes back until the connection ends or falls silent. */
function raw(bytes: string): Promise<string> {
  const { port } = t.api.server.address() as { port: number };
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    socket.setTimeout(20_000, () => socket.destroy());
    socket.on('data', (chunk) => {
      text += chunk.toString();
      socket.setTimeout(1000);
    });
    // A reset after the answer is how a refused body ends.
    socket.on('error', (error) => (text === '' ? reject(error) : undefined));
    socket.on('close', () => resolve(text));
    socket.write(bytes);
  });
}
