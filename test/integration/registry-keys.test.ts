import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { makeKey, secretHash } from '../../firmware-protocol/keys.ts';
import type { Registry } from '../../registry/registry.ts';
import type { Revocation } from '../../registry/revocations.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { fastestMs } from '../support/fastest.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';

let test: TestDatabase;
let acme: TestOrganization;
const started: Registry[] = [];
beforeAll(async () => {
  test = await createTestDatabase();
  acme = await createOrganization(test.database, 'acme');
});
afterEach(async () => {
  for (const registry of started.splice(0)) await registry.stop();
});
afterAll(() => test.drop());

/** As a program of its own on the same database. */
async function start(): Promise<Registry> {
  const registry = createTestRegistry(test.database);
  await registry.start();
  started.push(registry);
  return registry;
}

let made = 0;
async function makeDevice(
  registry: Registry,
): Promise<{ slug: string; key: string; keyId: string }> {
  made += 1;
  const slug = `device-${made}`;
  await registry.devices.create(acme.author, { slug });
  return { slug, ...(await registry.apiKeys.createForDevice(acme.author, slug, 'k')) };
}

/** Statements that ran on the pool while `work` ran. */
async function countQueries(work: () => Promise<unknown>): Promise<number> {
  const { pool } = test.database;
  const original = pool.query.bind(pool);
  let count = 0;
  pool.query = ((...parameters: Parameters<typeof original>) => {
    count += 1;
    return original(...parameters);
  }) as typeof pool.query;
  try {
    await work();
  } finally {
    pool.query = original;
  }
  return count;
}

describe('verifyKey', () => {
  it('tells whom a key speaks for', async () => {
    const registry = await start();
    const { slug, key, keyId } = await makeDevice(registry);
    expect(await registry.verifyKey(key)).toMatchObject({
      ok: true,
      principal: { kind: 'device', organization: 'acme', device: slug, keyId },
    });
    expect(await registry.verifyKey(acme.adminKey)).toEqual({
      ok: true,
      principal: {
        kind: 'admin',
        organizationId: acme.author.organizationId,
        organization: 'acme',
        keyId: acme.adminKey.slice(4, 12),
      },
    });
  });

  it('tells a mistyped key from an unknown one', async () => {
    const registry = await start();
    const { key } = await makeDevice(registry);
    const swapped = key.slice(0, -1) + (key.endsWith('0') ? '1' : '0');
    for (const text of ['', 'x', swapped, `${key} `, key.toLowerCase(), 'x'.repeat(1e6)]) {
      expect(await registry.verifyKey(text)).toEqual({ ok: false, reason: 'malformed' });
    }
    for (const kind of ['device', 'admin', 'integrator', 'claim'] as const) {
      const verdict = await registry.verifyKey(makeKey(kind).key);
      expect(verdict).toEqual({ ok: false, reason: 'unknown' });
    }
  });

  it('refuses a right id with a wrong secret, and with the prefix of another kind', async () => {
    const registry = await start();
    const { slug } = await makeDevice(registry);
    const device = await registry.devices.get(acme.author.organizationId, slug);
    const [right, wrong, kind] = ['device', 'device', 'admin'].map((of) => sameId(of as 'device'));
    await test.database.pool.query(`INSERT INTO api_key VALUES ($1, $2, $3, 'device', 'k', $4)`, [
      right?.publicId,
      acme.author.organizationId,
      device.deviceId,
      secretHash(right?.secret ?? ''),
    ]);
    expect(wrong?.publicId).toBe(right?.publicId);
    for (let turn = 0; turn < 2; turn += 1) {
      const unknown = { ok: false, reason: 'unknown' };
      expect(await registry.verifyKey(wrong?.key ?? '')).toEqual(unknown);
      expect(await registry.verifyKey(kind?.key ?? '')).toEqual(unknown);
      expect(await registry.verifyKey(right?.key ?? '')).toMatchObject({ ok: true });
    }
  });

  it('asks the database once for a key that many connections bring at once, and then no more', async () => {
    const registry = await start();
    const { key } = await makeDevice(registry);
    const many = () => Promise.all(Array.from({ length: 200 }, () => registry.verifyKey(key)));
    expect(await countQueries(many)).toBe(1);
    expect(await countQueries(many)).toBe(0);
  });

  it('asks for the keys of a whole fleet in a few queries, and remembers that a key is unknown', async () => {
    const registry = await start();
    const keys = Array.from({ length: 1000 }, () => makeKey('device').key);
    const many = () => Promise.all(keys.map((key) => registry.verifyKey(key)));
    expect(await countQueries(many)).toBeLessThanOrEqual(6);
    expect(await countQueries(many)).toBe(0);
  });

  it('refuses revoked keys, disabled devices and suspended organizations, and restores the last two', async () => {
    const registry = await start();
    const { author } = await createOrganization(test.database, `org-${(made += 1)}`);
    await registry.devices.create(author, { slug: 'd' });
    const one = await registry.apiKeys.createForDevice(author, 'd', 'one');
    const two = await registry.apiKeys.createForDevice(author, 'd', 'two');
    const verdict = async (key: string) => {
      const result = await registry.verifyKey(key);
      return result.ok ? 'ok' : result.reason;
    };
    expect(await verdict(one.key)).toBe('ok');
    await registry.apiKeys.revoke(author, 'd', one.keyId);
    expect(await verdict(one.key)).toBe('revoked');
    expect(await verdict(two.key)).toBe('ok');
    await registry.devices.update(author, 'd', { isDisabled: true });
    expect(await verdict(two.key)).toBe('disabled');
    await registry.devices.update(author, 'd', { isDisabled: false });
    expect(await verdict(two.key)).toBe('ok');
    await registry.organizations.setSuspended(author, true);
    expect(await verdict(two.key)).toBe('suspended');
    await registry.organizations.setSuspended(author, false);
    expect(await verdict(two.key)).toBe('ok');
    await registry.devices.remove(author, 'd');
    expect(await verdict(two.key)).toBe('unknown');
  });

  it('does not believe what was read before a revocation that came during the lookup', async () => {
    const registry = await start();
    const { pool } = test.database;
    for (let round = 0; round < 10; round += 1) {
      const { slug, key, keyId } = await makeDevice(registry);
      const original = pool.query.bind(pool);
      // The answer of the lookup is held back until the key is revoked.
      pool.query = (async (...parameters: Parameters<typeof original>) => {
        const answer: unknown = await (original(...parameters) as unknown as Promise<unknown>);
        pool.query = original;
        await registry.apiKeys.revoke(acme.author, slug, keyId);
        return answer;
      }) as unknown as typeof pool.query;
      const early = await registry.verifyKey(key);
      expect(early).toMatchObject({ ok: false, reason: 'revoked' });
      expect(await registry.verifyKey(key)).toMatchObject({ ok: false, reason: 'revoked' });
    }
  });

  it('says unavailable, and rejects never, when the database is away', async () => {
    const pool = new pg.Pool({ host: '127.0.0.1', port: 1, max: 1 });
    const registry = createTestRegistry({ ...test.database, pool });
    const verdict = await registry.verifyKey(makeKey('device').key);
    expect(verdict).toEqual({ ok: false, reason: 'unavailable' });
    await pool.end();
  });

  it('writes the time of last use in the background', async () => {
    const registry = createTestRegistry(test.database);
    const { slug, key, keyId } = await makeDevice(registry);
    await registry.verifyKey(key);
    await registry.stop();
    const ref = { organizationId: acme.author.organizationId, device: slug };
    const { lastUsedAt } = await registry.apiKeys.get(ref, keyId);
    expect(Math.abs(Date.now() - (lastUsedAt?.getTime() ?? 0))).toBeLessThan(60_000);
  });
});

describe('activeKeyIds', () => {
  it('gives those of the keys that would be accepted', async () => {
    const registry = await start();
    const all = [];
    for (let at = 0; at < 4; at += 1) all.push(await makeDevice(registry));
    const [kept, revoked, disabled, removed] = all;
    await registry.apiKeys.revoke(acme.author, revoked?.slug ?? '', revoked?.keyId ?? '');
    await registry.devices.update(acme.author, disabled?.slug ?? '', { isDisabled: true });
    await registry.devices.remove(acme.author, removed?.slug ?? '');
    const active = await registry.apiKeys.activeKeyIds(all.map(({ keyId }) => keyId));
    expect(active).toEqual(new Set([kept?.keyId]));
  });
});

describe('revocations', () => {
  it('are told in the program that makes them before the change returns, and once', async () => {
    const registry = await start();
    const { slug, keyId } = await makeDevice(registry);
    const told: Revocation[] = [];
    registry.revocations.onRevoked((revocation) => told.push(revocation));
    await registry.apiKeys.revoke(acme.author, slug, keyId);
    expect(told).toEqual([{ keyId }]);
    await sleep(200);
    expect(told).toHaveLength(1);
  });

  it('are told in every other program on the database within two seconds, which then refuses the key', async () => {
    const [here, there] = [await start(), await start()];
    const toldMs = await fastestMs(async () => {
      const { slug, key, keyId } = await makeDevice(here);
      expect(await there.verifyKey(key)).toMatchObject({ ok: true });
      const told = nextRevocation(there);
      const revokedAt = performance.now();
      await here.apiKeys.revoke(acme.author, slug, keyId);
      expect(await told).toMatchObject({ keyId });
      const ms = performance.now() - revokedAt;
      expect(await there.verifyKey(key)).toMatchObject({ ok: false, reason: 'revoked' });
      return ms;
    });
    expect(toldMs).toBeLessThan(2000);
  });

  it('tell of a disabled device, and of one that is enabled again only who keeps refusals', async () => {
    const [here, there] = [await start(), await start()];
    const { slug, key } = await makeDevice(here);
    const { deviceId } = await here.devices.get(acme.author.organizationId, slug);
    const disabled = nextRevocation(there);
    await here.devices.update(acme.author, slug, { isDisabled: true });
    expect(await disabled).toMatchObject({ deviceId });
    expect(await there.verifyKey(key)).toMatchObject({ ok: false, reason: 'disabled' });
    const restored = new Promise<void>((resolve) => there.revocations.onRestored(resolve));
    await here.devices.update(acme.author, slug, { isDisabled: false });
    await restored;
    expect(await there.verifyKey(key)).toMatchObject({ ok: true });
  });

  it('are not told when the change is rolled back', async () => {
    const [here, there] = [await start(), await start()];
    const told: Revocation[] = [];
    for (const registry of [here, there]) {
      registry.revocations.onRevoked((revocation) => told.push(revocation));
    }
    await expect(here.apiKeys.revoke(acme.author, 'no-device', 'A1b2C3d4')).rejects.toThrow();
    await sleep(200);
    expect(told).toEqual([]);
  });

  it('ask for everything to be checked again after the listening connection was lost', async () => {
    const [here, there] = [await start(), await start()];
    const { slug, key, keyId } = await makeDevice(here);
    expect(await there.verifyKey(key)).toMatchObject({ ok: true });
    const recheck = new Promise<void>((resolve) => there.revocations.onRecheck(resolve));
    await test.database.pool.query(`UPDATE api_key SET revoked_at = now() WHERE key_id = $1`, [
      keyId,
    ]);
    await test.database.pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE application_name = 'puback revocations' AND datname = current_database()`,
    );
    await recheck;
    expect(there.revocations.isListening).toBe(true);
    expect(await there.verifyKey(key)).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await there.apiKeys.activeKeyIds([keyId])).toEqual(new Set());
    expect(slug).not.toBe('');
  });

  it('fail to start with a coded error when the database is away', async () => {
    const nobody = await closedPort();
    const registry = createTestRegistry({
      ...test.database,
      url: `postgres://x@127.0.0.1:${nobody}/x`,
    });
    await expect(registry.start()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    await registry.stop();
  });
});

function nextRevocation(registry: Registry): Promise<Revocation> {
  return new Promise((resolve) => {
    const stop = registry.revocations.onRevoked((revocation) => {
      stop();
      resolve(revocation);
    });
  });
}

/** A key whose public id is always the same, with a secret of chance. */
function sameId(kind: 'device' | 'admin'): ReturnType<typeof makeKey> {
  let isFirst = true;
  return makeKey(kind, (bytes) => {
    const drawn = isFirst ? new Uint8Array(bytes) : crypto.getRandomValues(new Uint8Array(bytes));
    isFirst = false;
    return drawn;
  });
}

async function closedPort(): Promise<number> {
  const server: Server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}
