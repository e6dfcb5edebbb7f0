import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Route } from '../../api/route.ts';
import { apiKey } from '../../drizzle/schema.ts';
import { inTransaction } from '../../drizzle/transaction.ts';
import { revisionOf } from '../../ingest/quarantine-row.ts';
import { insertKey } from '../../registry/api-keys.ts';
import { HOT_RULE, insertAlert } from '../support/alerts.ts';
import { eventually } from '../support/eventually.ts';
import { createTestApi, type TestApi } from '../support/api.ts';
import {
  claimKeyBody,
  downlinkRequest,
  type DownlinkRequest,
} from '../support/downlink-requests.ts';
import { notifyBody, notifyPath } from '../support/notify-requests.ts';

/** What stands in quarantine. */
const KEPT = { topic: 'v1/me/data', payload: Buffer.from('{"temp":1}') };
const SILENCE = { matchers: [{ label: 'device', op: '=', value: 'kept' }], for: '1h' };
/** By the last part of the path. */
const RULE_BODIES: Readonly<Record<string, unknown>> = {
  check: HOT_RULE,
  backtest: { rule: HOT_RULE },
  enable: undefined,
  silences: SILENCE,
  acknowledge: {},
  assign: { assignee: 'Ada' },
  comment: { content: 'x' },
  snooze: { for: '1h' },
  resolve: {},
  verdict: { verdict: true },
};
const READER = { name: 'reader', scopes: ['data'], devices: null, expiresAt: null };
/** What a route does for a key that may use it, by its method; nothing here is optional. */
const DONE: Readonly<Record<Route['method'], number>> = {
  GET: 200,
  POST: 201,
  PUT: 200,
  PATCH: 200,
  DELETE: 204,
};
/** Routes that anybody may use; every other needs a key. Mirrors docs/operations.md. */
const PUBLIC_PATHS = [
  '/health/live',
  '/health/startup',
  '/health/ready',
  '/metrics',
  '/openapi.json',
  // The code in the link is the right: an HMAC for one device, one update and some time.
  '/fw/{link}',
] as const;

type Caller =
  'none' | 'device' | 'claim' | 'integrator' | 'admin' | 'foreign admin' | 'revoked admin';
const CALLERS: readonly Caller[] = [
  'none',
  'device',
  'claim',
  'integrator',
  'admin',
  'foreign admin',
  'revoked admin',
];

/** Routes for the key of a device alone. */
const DEVICE_PATH = '/api/v1/ingest';
const ROUTES_PATH = '/api/v1/notification-routes';
/** Routes whose POST makes nothing that has a name. */
const TAKING_PATHS: readonly string[] = [
  DEVICE_PATH,
  '/api/v1/import',
  '/api/v1/devices/{device}/readings',
];

let t: TestApi;
let keys: Readonly<Record<Caller, string | null>>;
/** Each request has a device and a key of its own, so that it may end them. */
let made = 0;
let importId: string;
beforeAll(async () => {
  t = await createTestApi({ ruleHooks: { resolveByHand: async () => 'ended' } });
  t.checks = [{ name: 'database', isOk: true }];
  await t.send('POST', '/api/v1/devices', { device: 'kept' });
  keys = {
    none: null,
    device: (await t.send('POST', '/api/v1/devices/kept/keys')).body.key,
    claim: (await t.send('POST', '/api/v1/claim-keys', claimKeyBody('matrix'))).body.key,
    integrator: (await t.send('POST', '/api/v1/keys', READER)).body.key,
    admin: t.acme.adminKey,
    'foreign admin': t.other.adminKey,
    'revoked admin': await revokedAdminKey(),
  };
  const imported = await t.send('POST', '/api/v1/import?format=ndjson&source=empty', '');
  importId = imported.body.importId;
});
afterAll(() => t.stop());

/** An admin key that worked, also from the cache, and was revoked. */
async function revokedAdminKey(): Promise<string> {
  const { database } = t.test;
  const owner = { deviceId: null, device: null, name: 'for a while' };
  const { key, keyId } = await inTransaction(database.pool, (transaction) =>
    insertKey(transaction, t.acme.author, owner),
  );
  expect((await t.send('GET', '/api/v1/devices', undefined, key)).status).toBe(200);
  await inTransaction(database.pool, async ({ orm, client }) => {
    await orm.update(apiKey).set({ revokedAt: new Date() }).where(eq(apiKey.keyId, keyId));
    const told = JSON.stringify({ origin: 'another program', keyId });
    await client.query('SELECT pg_notify($1, $2)', ['puback_revoked', told]);
  });
  const works = async () => (await t.send('GET', '/api/v1/devices', undefined, key)).status === 200;
  await eventually('that it works no more', async () => !(await works()));
  return key;
}

function nameOfDevice(): string {
  made += 1;
  return `d${made}`;
}

/** A request that nothing but rights can refuse: what it names exists, and its body is valid. */
async function requestFor({ method, path }: Route): Promise<{ path: string; body: unknown }> {
  const device = nameOfDevice();
  if (/\{(?:device|alertId)\}|why-not/.test(path)) {
    await t.send('POST', '/api/v1/devices', { device });
  }
  const ofDevice = path.includes('{device}');
  const keyId = !path.includes('{keyId}')
    ? ''
    : ofDevice
      ? (await t.send('POST', `/api/v1/devices/${device}/keys`)).body.keyId
      : (await t.send('POST', '/api/v1/keys', READER)).body.keyId;
  const query =
    path === '/api/v1/diagnostics'
      ? '?address=203.0.113.7'
      : path === '/api/v1/import'
        ? '?format=ndjson&source=x'
        : path === '/api/v1/quarantine' && method === 'DELETE'
          ? '?code=rate'
          : path.endsWith('/why-not')
            ? `?device=${device}`
            : '';
  const notified = await notifyBody(t, { method, path });
  return {
    path:
      (await notifyPath(t, path))
        .replace('{device}', device)
        .replace('{keyId}', keyId)
        .replace('{importId}', importId)
        .replace('{quarantineId}', await quarantineFor(path))
        .replace('{ruleId}', await ruleFor(path))
        .replace('{version}', '1')
        .replace('{alertId}', await alertFor(path, device))
        .replace('{silenceId}', await silenceFor(path)) + query,
    body: notified ?? bodyFor(method, path),
  };
}

/** A message in quarantine that nobody else asks for. */
async function quarantineFor(path: string): Promise<string> {
  if (!path.includes('{quarantineId}')) return '';
  const { rows } = await t.test.database.pool.query(
    `INSERT INTO quarantine (quarantine_id, organization_id, device_id, received_at, topic, code,
       detail, payload)
     SELECT gen_random_uuid(), organization_id, device_id, now(), $1, 'bad_json', '', $2
     FROM device WHERE slug = 'kept' RETURNING quarantine_id`,
    [KEPT.topic, KEPT.payload],
  );
  return rows[0].quarantine_id;
}

async function ruleFor(path: string): Promise<string> {
  return path.includes('{ruleId}') ? createRule() : '';
}

async function createRule(): Promise<string> {
  const rule = { ...HOT_RULE, name: `rule ${made}` };
  return (await t.send('POST', '/api/v1/rules', rule)).body.id;
}

async function alertFor(path: string, device: string): Promise<string> {
  if (!path.includes('{alertId}')) return '';
  return insertAlert(t, { rule: await createRule(), device, activeAt: Date.now() });
}

async function silenceFor(path: string): Promise<string> {
  if (!path.includes('{silenceId}')) return '';
  return (await t.send('POST', '/api/v1/silences', SILENCE)).body.id;
}

/** What the routes of rules, alerts and silences take; null: this is none of them. */
function ruleBodyFor(method: Route['method'], path: string): unknown {
  if (path.startsWith('/api/v1/rules') && method === 'PATCH') return { for: '3s' };
  if (method === 'PATCH' && path.startsWith('/api/v1/silences')) return { comment: 'changed' };
  if (method !== 'POST') return null;
  const body = RULE_BODIES[path.split('/').at(-1) ?? ''];
  return path === '/api/v1/rules' ? { ...HOT_RULE, name: `new ${made}` } : (body ?? null);
}

function bodyFor(method: Route['method'], path: string): unknown {
  const ofRule = ruleBodyFor(method, path);
  if (ofRule !== null) return ofRule;
  if (path === '/api/v1/quarantine/{quarantineId}' && method === 'PATCH') {
    return { revision: revisionOf(KEPT), payload: '{"temp":2}' };
  }
  if (method === 'PATCH') return { displayName: 'changed' };
  if (path === '/api/v1/retention' && method === 'PUT') return { raw: 20 };
  if (method !== 'POST') return undefined;
  if (path === '/api/v1/keys') return READER;
  if (path.endsWith('/reinject')) return {};
  if (TAKING_PATHS.includes(path)) return { ts: Date.now(), temp: 21.5 };
  return path.endsWith('/keys') ? {} : { device: `new${made}` };
}

/** The table of the documents: 401 without a key of the right kind that is in use, 404 for what is another's. */
function expectedStatus({ method, path }: Route, caller: Caller): number {
  // What anybody may ask for is nothing without the code of the link.
  if (path === '/fw/{link}') return 400;
  if ((PUBLIC_PATHS as readonly string[]).includes(path)) return DONE[method];
  if (path === DEVICE_PATH) return caller === 'device' ? 200 : 401;
  if (caller !== 'admin' && caller !== 'foreign admin') return 401;
  // What the body of the last one names is another's too.
  const isNamed = path.includes('{') || (path === ROUTES_PATH && method === 'POST');
  const isTold =
    path.endsWith('/reinject') ||
    path === '/api/v1/quarantine' ||
    /\/(?:notifications\/preview|receivers\/\{receiverId\}\/test|rules\/(?:check|backtest)|silences\/\{silenceId\}\/\w+)$|\{(?:rule|alert)Id\}\/\w+$/.test(
      path,
    );
  const done = isTold || TAKING_PATHS.includes(path) ? 200 : DONE[method];
  return caller === 'foreign admin' && isNamed ? 404 : done;
}

function downlinkStatus(
  { done, foreign }: DownlinkRequest,
  { role }: Route,
  caller: Caller,
): number {
  if (role === 'public') return done;
  if (role === 'device') return caller === 'device' ? done : 401;
  if (caller === 'admin') return done;
  return caller === 'foreign admin' ? foreign : 401;
}

/** So many integrator keys as this test makes are more than an organization may have. */
async function forgetIntegratorKeys(): Promise<void> {
  await t.test.database.pool.query(
    `DELETE FROM api_key WHERE kind = 'integrator' AND name = 'reader' AND key_id <> $1`,
    [(keys.integrator ?? '').slice(4, 12)],
  );
}

describe('the rights of HTTP', () => {
  it(
    'are those of the documents, for every route and every kind of key (A-02)',
    { timeout: 120_000 },
    async () => {
      const wrong: string[] = [];
      const paths = t.api.routes.filter(({ role }) => role === 'public').map(({ path }) => path);
      expect(paths.toSorted()).toEqual(PUBLIC_PATHS.toSorted());
      for (const route of t.api.routes) {
        for (const caller of CALLERS) {
          await forgetIntegratorKeys();
          const ofDownlink = await downlinkRequest(t, route);
          const { path, body } = ofDownlink ?? (await requestFor(route));
          const isRead = route.method === 'GET' || route.method === 'DELETE';
          const sent = isRead ? undefined : body;
          const { headers } = ofDownlink ?? {};
          const { status } = await t.send(route.method, path, sent, keys[caller], headers);
          const expected =
            ofDownlink === null
              ? expectedStatus(route, caller)
              : downlinkStatus(ofDownlink, route, caller);
          if (status === expected) continue;
          wrong.push(`${route.method} ${route.path}, ${caller}: ${status}, not ${expected}`);
        }
      }
      expect(wrong).toEqual([]);
    },
  );

  it('are nobody’s while the organization is suspended, and come back with it', async () => {
    const { organizations } = t.registry;
    const device = nameOfDevice();
    await t.send('POST', '/api/v1/devices', { device });
    const { key } = (await t.send('POST', `/api/v1/devices/${device}/keys`, {})).body;
    const asked = [
      ['/api/v1/device/commands', key, 403],
      ['/api/v1/commands', t.acme.adminKey, 401],
      ['/api/v1/configurations', t.acme.adminKey, 401],
      ['/api/v1/campaigns', t.acme.adminKey, 401],
      ['/api/v1/firmware', t.acme.adminKey, 401],
      ['/api/v1/claims', keys.claim, 401],
    ] as const;
    await organizations.setSuspended(t.acme.author, true);
    for (const [path, own, status] of asked) {
      expect((await t.send('GET', path, undefined, own)).status, path).toBe(status);
    }
    await organizations.setSuspended(t.acme.author, false);
    for (const [path, own] of asked.slice(0, -1)) {
      expect((await t.send('GET', path, undefined, own)).status, path).toBe(200);
    }
  });

  it('do not depend on how a method or a path is written (A-02)', async () => {
    for (const caller of ['none', 'device', 'claim', 'integrator', 'revoked admin'] as const) {
      for (const { method, path } of [
        { method: 'HEAD', path: '/api/v1/devices' },
        { method: 'GET', path: '/api/v1/devices?limit=1' },
        { method: 'GET', path: '/api/v1/%64evices' },
        { method: 'GET', path: '/health/../api/v1/devices' },
      ]) {
        const { status, body } = await t.send(method, path, undefined, keys[caller]);
        expect(status, `${method} ${path}, ${caller}`).toBe(401);
        expect(JSON.stringify(body)).not.toContain('kept');
      }
      for (const path of ['//api/v1/devices', '/API/v1/devices', '/api/v1/devices/', '/api/v1/']) {
        const { status, body } = await t.send('GET', path, undefined, keys[caller]);
        expect([401, 404], `${path}, ${caller}`).toContain(status);
        expect(JSON.stringify(body)).not.toContain('kept');
      }
    }
  });
});
