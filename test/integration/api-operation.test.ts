import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { drizzle } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createApi, type Api, type ApiDeps } from '../../api/server.ts';
import * as schema from '../../drizzle/schema.ts';
import { createHistory } from '../../ingest/history.ts';
import { createOccurrences } from '../../ingest/occurrences.ts';
import { loadConfig } from '../../config.ts';
import { createCompleteness } from '../../ingest/completeness.ts';
import { Imports } from '../../ingest/import/imports.ts';
import { createQuarantine } from '../../ingest/quarantine.ts';
import { createReinjection } from '../../quarantine-joints.ts';
import { createRuleParts } from '../../rule-joints.ts';
import { importLimits } from '../../web.ts';
import { writeAudit } from '../../registry/audit.ts';
import { createRegistry } from '../../registry/registry.ts';
import { newReceiver } from '../support/notify-requests.ts';
import { testNotifyStores } from '../support/notify.ts';
import { claimKeyBody, signerBody } from '../support/downlink-requests.ts';
import { createTestDownlink } from '../support/downlink.ts';
import { createTestApi, type TestApi, NO_GUARD } from '../support/api.ts';
import { registryLimits } from '../support/registry.ts';

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi();
});
afterAll(() => t.stop());

const AN_ID = '019a0000-0000-7000-8000-000000000002';
const A_ROUTE = { name: 'x', receivers: ['019a0000-0000-7000-8000-000000000001'] };

/** An API whose database is away; keys are known. */
async function createApiWithoutDatabase(replaced: Partial<ApiDeps> = {}): Promise<Api> {
  const pool = new pg.Pool({ host: '127.0.0.1', port: 1 });
  const database = { ...t.test.database, pool, orm: drizzle(pool, { schema }) };
  const metricsRegistry = new MetricsRegistry();
  const log = pino({ level: 'silent' });
  const registry = createRegistry({
    database,
    metricsRegistry,
    log,
    devicesMax: 10,
    databaseTimeoutMs: 1000,
    ...registryLimits,
  });
  const check = { name: 'database', isOk: false, detail: 'ECONNREFUSED' };
  return createApi({
    log,
    registry: { ...registry, verifyKey: (key) => t.registry.verifyKey(key) },
    history: createHistory(database),
    occurrences: createOccurrences(database),
    completeness: createCompleteness(database),
    quarantine: createQuarantine(database, writeAudit),
    reinjection: createReinjection(loadConfig({}), {
      database,
      ingest: t.ingest,
      keptMs: async () => 86_400_000,
    }),
    intake: t.intake,
    imports: new Imports({
      database,
      ingest: t.ingest,
      writeAudit,
      limits: importLimits(loadConfig({})),
      ageMaxMs: async () => 86_400_000,
      registry: metricsRegistry,
      log,
    }),
    ...createRuleParts(loadConfig({}), { database, log, now: Date.now }),
    ...createTestDownlink(database, registry).downlink.desk,
    notify: testNotifyStores(database, Date.now),
    now: Date.now,
    packetBytesMax: 65_536,
    health: { isStarted: () => true, check: () => Promise.resolve([check]) },
    ...NO_GUARD,
    metricsRegistry,
    version: '0',
    pageRowsMax: 100,
    ...replaced,
  });
}

describe('health', () => {
  it('is live and started, and ready when all checks hold', async () => {
    t.checks = [{ name: 'database', isOk: true }];
    for (const name of ['live', 'startup', 'ready']) {
      const answer = await t.send('GET', `/health/${name}`, undefined, null);
      expect(answer).toMatchObject({ status: 200, body: { status: 'ok', version: '0.0.0-test' } });
      expect(answer.headers.get('cache-control')).toBe('no-store');
    }
  });

  it('is not ready, but live, when a check fails, and says which', async () => {
    t.checks = [
      { name: 'database', isOk: false, detail: 'ECONNREFUSED' },
      { name: 'writer', isOk: true },
    ];
    expect(await t.send('GET', '/health/ready', undefined, null)).toMatchObject({
      status: 503,
      body: {
        status: 'failed',
        checks: [
          { name: 'database', ok: false, detail: 'ECONNREFUSED' },
          { name: 'writer', ok: true },
        ],
      },
    });
    expect(await t.send('GET', '/health/live', undefined, null)).toMatchObject({ status: 200 });
  });

  it('is neither started nor ready before the start is over', async () => {
    const health = { isStarted: () => false, check: () => Promise.resolve([]) };
    const api = await createApiWithoutDatabase({ health });
    const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
    for (const [name, status] of Object.entries({ live: 200, startup: 503, ready: 503 })) {
      expect((await fetch(`http://127.0.0.1:${port}/health/${name}`)).status).toBe(status);
    }
    await api.close();
  });
});

describe('a database that is away', () => {
  it('makes every admin route answer 503 with Retry-After', async () => {
    const api = await createApiWithoutDatabase();
    const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
    for (const { method, path, role } of api.routes) {
      if (role !== 'admin') continue;
      const isWrite = method === 'POST' || method === 'PUT' || method === 'PATCH';
      const bodies = new Map<string, object>([
        ['/api/v1/devices', { device: 'x' }],
        ['/api/v1/keys', { name: 'x', scopes: ['data'] }],
        ['/api/v1/devices/{device}/keys', {}],
        ['/api/v1/quarantine/reinject', {}],
        ['/api/v1/retention', {}],
        ['/api/v1/quarantine/{quarantineId}', { revision: 'x', topic: 'v1/me/data' }],
        ['/api/v1/rules/backtest', { ruleId: AN_ID }],
        ['/api/v1/alerts/{alertId}/acknowledge', {}],
        ['/api/v1/alerts/{alertId}/assign', { assignee: 'x' }],
        ['/api/v1/alerts/{alertId}/comment', { content: 'x' }],
        ['/api/v1/alerts/{alertId}/snooze', { for: '1h' }],
        ['/api/v1/alerts/{alertId}/resolve', {}],
        ['/api/v1/alerts/{alertId}/verdict', { verdict: true }],
        ['/api/v1/silences', { matchers: [{ label: 'a', op: '=', value: 'b' }], for: '1h' }],
        ['/api/v1/silences/{silenceId}', { comment: 'x' }],
        ['/api/v1/receivers', newReceiver()],
        ['/api/v1/receivers/{receiverId}', { name: 'x' }],
        ['/api/v1/notification-routes', A_ROUTE],
        ['/api/v1/notification-routes/{routeId}', A_ROUTE],
        ['/api/v1/notifications/preview', { labels: {} }],
        ['/api/v1/notification-policy', { stopped: true }],
        ['/api/v1/devices/{device}/commands', { command: 'relay' }],
        ['/api/v1/commands/{commandId}/approve', {}],
        ['/api/v1/command-definitions/{type}/{command}', {}],
        ['/api/v1/admin-keys', { name: 'x' }],
        ['/api/v1/devices/batch', { devices: ['x'] }],
        ['/api/v1/devices/{device}/keys/rotate', {}],
        ['/api/v1/claim-keys', claimKeyBody()],
        ['/api/v1/claim-keys/{keyId}', { quota: 2 }],
        ['/api/v1/campaigns', { name: 'x', targets: { all: true }, request: { command: 'relay' } }],
        ['/api/v1/device-types/{type}/configuration', { defaults: {} }],
        ['/api/v1/firmware', {}],
        ['/api/v1/firmware-signers', signerBody()],
        ['/api/v1/devices/{device}/updates', { firmware: AN_ID }],
      ]);
      const names = new Map([
        ['keyId', 'A1b2C3d4'],
        ['device', 'A1b2C3d4'],
        ['type', 'boiler'],
        ['command', 'relay'],
        ['version', '1'],
      ]);
      const body = bodies.get(path) ?? { displayName: 'x' };
      const queries = new Map<string, string>([
        ['GET /api/v1/diagnostics', '?address=203.0.113.7'],
        ['DELETE /api/v1/quarantine', '?code=rate'],
        ['GET /api/v1/rules/{ruleId}/why-not', '?device=mine'],
        ['POST /api/v1/firmware', '?model=thermo-1&version=1.0.0'],
        ['POST /api/v1/import', '?format=ndjson&source=x'],
      ]);
      const query = queries.get(`${method} ${path}`) ?? '';
      const answer = await fetch(
        `http://127.0.0.1:${port}${path.replace(/\{(\w+)\}/g, (_all, name: string) => names.get(name) ?? AN_ID)}${query}`,
        {
          method,
          headers: {
            authorization: `Bearer ${t.acme.adminKey}`,
            'if-match': '*',
            ...(isWrite ? { 'content-type': 'application/json' } : {}),
          },
          ...(isWrite ? { body: JSON.stringify(body) } : {}),
        },
      );
      expect(answer.status, `${method} ${path}`).toBe(503);
      expect(answer.headers.get('retry-after')).toBe('5');
      expect(await answer.json()).toMatchObject({ code: 'STORE_UNAVAILABLE', status: 503 });
    }
    await api.close();
  });
});

describe('an unexpected error', () => {
  it('is answered with a request id that is in the log, and nothing else', async () => {
    const lines: string[] = [];
    const history = {
      ...createHistory(t.test.database),
      latest: () => Promise.reject(new Error('secret detail')),
    };
    const api = await createApiWithoutDatabase({
      registry: t.registry,
      history,
      log: pino({ level: 'info' }, { write: (line: string) => void lines.push(line) }),
    });
    await t.send('POST', '/api/v1/devices', { device: 'broken' });
    const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
    const answer = await fetch(`http://127.0.0.1:${port}/api/v1/devices/broken/latest`, {
      headers: { authorization: `Bearer ${t.acme.adminKey}` },
    });
    const text = await answer.text();
    expect(answer.status).toBe(500);
    expect(text).not.toContain('secret detail');
    const { code, requestId } = JSON.parse(text) as { code: string; requestId: string };
    expect(code).toBe('INTERNAL');
    expect(
      lines.filter((line) => line.includes(requestId) && line.includes('secret detail')),
    ).toHaveLength(1);
    await api.close();
  });
});

describe('metrics and documentation', () => {
  it('serves Prometheus metrics without a name of any device or organization (I-17)', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'very-special-name' });
    await t.send('GET', '/api/v1/devices/very-special-name');
    await t.send('GET', '/some/path/of/a/stranger');
    const { status, body, headers } = await t.send('GET', '/metrics', undefined, null);
    expect(status).toBe(200);
    expect(headers.get('content-type')).toContain('text/plain');
    expect(body).toContain(
      'puback_api_request_duration_seconds_count{route="GET /api/v1/devices/:device",status="200"}',
    );
    expect(body).toContain('route="none",status="404"');
    expect(body).not.toMatch(/very-special-name|stranger|acme/);
  });

  it('serves a page of documentation that loads nothing from elsewhere', async () => {
    const page = await fetch(`${t.url}/docs`);
    expect(page.status).toBe(200);
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toContain("script-src 'self'");
    expect(policy).not.toMatch(/https?:|upgrade-insecure/);
    const html = await page.text();
    expect(html).not.toMatch(/<script>|<script [^>]*src="https?:|onload=/);
    const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '');
    expect(sources.length).toBeGreaterThan(4);
    for (const source of sources) {
      const asset = await fetch(new URL(source, `${t.url}/docs`));
      expect(asset.status, source).toBe(200);
      await asset.arrayBuffer();
    }
    expect((await fetch(`${t.url}/docs/json`)).status).toBe(200);
  });
});

describe('close', () => {
  it('finishes with keep-alive connections open, after the request under way', async () => {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const health = { isStarted: () => true, check: () => held.then(() => []) };
    const api = await createApiWithoutDatabase({ health });
    const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
    const idle = connect(port, '127.0.0.1');
    await once(idle, 'connect');
    idle.write('GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n');
    await once(idle, 'data');
    const busy = fetch(`http://127.0.0.1:${port}/health/ready`);
    await sleep(100);
    const closed = api.close();
    release();
    expect((await busy).status).toBe(200);
    await closed;
    await expect(fetch(`http://127.0.0.1:${port}/health/live`)).rejects.toThrow();
  });

  it('leaves an upgraded connection to who took it', async () => {
    const api = await createApiWithoutDatabase();
    api.server.on('upgrade', (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n');
      socket.on('data', (chunk: Buffer) => socket.write(chunk));
    });
    const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
    const socket = connect(port, '127.0.0.1');
    socket.write('GET /mqtt HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n');
    await once(socket, 'data');
    await api.close();
    socket.write('still here');
    const [echo] = (await once(socket, 'data')) as [Buffer];
    expect(echo.toString()).toBe('still here');
    socket.destroy();
  });

  it('fails to listen on a port that is taken with the name of the setting', async () => {
    const api = await createApiWithoutDatabase();
    const { port } = t.api.server.address() as { port: number };
    await expect(api.listen({ host: '127.0.0.1', port })).rejects.toThrow(/HTTP_PORT/);
    await api.close();
  });
});
