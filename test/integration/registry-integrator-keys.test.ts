import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { pino } from 'pino';
import { SCOPES } from '../../firmware-protocol/contract.ts';
import { isAbout, KeyVerifier } from '../../registry/key-verifier.ts';
import type { Registry } from '../../registry/registry.ts';
import type { Revocation } from '../../registry/revocations.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  registryLimits,
  type TestOrganization,
} from '../support/registry.ts';

let test: TestDatabase;
let registry: Registry;
let acme: TestOrganization;
const others: Registry[] = [];
let organizations = 0;

beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database);
  await registry.start();
});
afterEach(async () => {
  for (const other of others.splice(0)) await other.stop();
  acme = await createOrganization(test.database, `org-${(organizations += 1)}`);
});
beforeAll(async () => {
  acme = await createOrganization(test.database, 'acme');
});
afterAll(async () => {
  await registry.stop();
  await test.drop();
});

const wanted = {
  name: 'reader',
  scopes: ['data', 'status'],
  devices: null,
  expiresAt: null,
} as const;

describe('integrator keys', () => {
  it('speak for the organization with the scopes and devices they were given', async () => {
    const { author } = acme;
    await registry.devices.create(author, { slug: 'boiler-7' });
    const expiresAt = new Date(Date.now() + 3_600_000);
    const made = await registry.integratorKeys.create(author, {
      ...wanted,
      devices: ['boiler-7'],
      expiresAt,
    });
    expect(made.key).toMatch(/^pbi_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/);
    expect(await registry.verifyKey(made.key)).toEqual({
      ok: true,
      principal: {
        kind: 'integrator',
        organizationId: author.organizationId,
        organization: 'acme',
        keyId: made.keyId,
        scopes: ['data', 'status'],
        devices: ['boiler-7'],
        expiresAt: expiresAt.getTime(),
      },
    });
    const { key: _, ...shown } = made;
    expect(await registry.integratorKeys.get(author.organizationId, made.keyId)).toEqual(shown);
    const { rows } = await test.database.pool.query(
      `SELECT action, subject, change FROM audit_event WHERE subject LIKE 'key/%'
         AND organization_id = $1 AND subject LIKE $2`,
      [author.organizationId, `%${made.keyId}`],
    );
    expect(rows).toEqual([
      {
        action: 'key.create',
        subject: `key/${made.keyId}`,
        change: {
          name: 'reader',
          scopes: ['data', 'status'],
          devices: ['boiler-7'],
          expiresAt: expiresAt.toISOString(),
        },
      },
    ]);
    expect(JSON.stringify(rows)).not.toContain(made.key.slice(13));
  });

  it('are limited to devices that exist in the organization [A-01]', async () => {
    const other = await createOrganization(test.database, 'foreign');
    await registry.devices.create(other.author, { slug: 'theirs' });
    for (const devices of [['theirs'], ['nope'], ["'; DROP"]]) {
      await expect(
        registry.integratorKeys.create(acme.author, { ...wanted, devices }),
      ).rejects.toMatchObject({ code: 'DEVICE_NOT_FOUND' });
    }
  });

  it('are at most as many active ones as the bound says, also when made at once', async () => {
    const { author } = acme;
    const max = registryLimits.integratorKeysMax;
    const expired = await registry.integratorKeys.create(author, {
      ...wanted,
      expiresAt: new Date(Date.now() - 1),
    });
    const all = await Promise.allSettled(
      Array.from({ length: max + 3 }, () => registry.integratorKeys.create(author, wanted)),
    );
    const made = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    expect(made).toHaveLength(max);
    await expect(registry.integratorKeys.create(author, wanted)).rejects.toMatchObject({
      code: 'KEY_LIMIT',
      message: expect.stringContaining('INTEGRATOR_KEYS_MAX') as string,
    });
    await registry.integratorKeys.revoke(author, made[0]?.keyId ?? '');
    await registry.integratorKeys.create(author, wanted);
    const { organizationId } = author;
    const first = await registry.integratorKeys.list({ organizationId, limit: 4, after: null });
    expect(first.hasMore).toBe(true);
    const rest = await registry.integratorKeys.list({
      organizationId,
      limit: 10,
      after: first.rows.at(-1)?.keyId ?? '',
    });
    expect(first.rows[0]?.keyId).toBe(expired.keyId);
    expect([...first.rows, ...rest.rows]).toHaveLength(max + 2);
  });

  it('are not found by another organization, nor are keys of devices and admins among them [A-01]', async () => {
    const made = await registry.integratorKeys.create(acme.author, wanted);
    const other = await createOrganization(test.database, `org-${(organizations += 1)}`);
    const { organizationId } = other.author;
    const notFound = { code: 'KEY_NOT_FOUND' };
    await expect(registry.integratorKeys.get(organizationId, made.keyId)).rejects.toMatchObject(
      notFound,
    );
    await expect(registry.integratorKeys.revoke(other.author, made.keyId)).rejects.toMatchObject(
      notFound,
    );
    for (const keyId of [other.adminKey.slice(4, 12), 'x', "a'\0"]) {
      await expect(registry.integratorKeys.get(organizationId, keyId)).rejects.toMatchObject(
        notFound,
      );
    }
    const page = { organizationId, limit: 10, after: null };
    expect((await registry.integratorKeys.list(page)).rows).toEqual([]);
    expect(await registry.verifyKey(made.key)).toMatchObject({ ok: true });
  });

  it('are refused in every program as soon as they are revoked, and that is announced [A-04]', async () => {
    const there = createTestRegistry(test.database);
    await there.start();
    others.push(there);
    const made = await registry.integratorKeys.create(acme.author, wanted);
    const verdict = await there.verifyKey(made.key);
    if (!verdict.ok) throw new Error('refused');
    const told = new Promise<Revocation>((resolve) => {
      there.revocations.onRevoked(resolve);
    });
    const revokedAt = performance.now();
    await registry.integratorKeys.revoke(acme.author, made.keyId);
    const revocation = await told;
    expect(performance.now() - revokedAt).toBeLessThan(5000);
    expect(isAbout(revocation, verdict.principal)).toBe(true);
    for (const program of [registry, there]) {
      expect(await program.verifyKey(made.key)).toMatchObject({
        ok: false,
        reason: 'revoked',
        principal: { kind: 'integrator', keyId: made.keyId },
      });
    }
    await registry.integratorKeys.revoke(acme.author, made.keyId);
    expect(await registry.apiKeys.activeKeyIds([made.keyId])).toEqual(new Set());
  });

  it('are refused while the organization is suspended, and are about its revocation only', async () => {
    const { author } = acme;
    const made = await registry.integratorKeys.create(author, wanted);
    const verdict = await registry.verifyKey(made.key);
    if (!verdict.ok) throw new Error('refused');
    const { organizationId } = author;
    expect(isAbout({ organizationId }, verdict.principal)).toBe(true);
    expect(isAbout({ organizationId: organizationId + 1 }, verdict.principal)).toBe(false);
    expect(isAbout({ deviceId: 1 }, verdict.principal)).toBe(false);
    await registry.organizations.setSuspended(author, true);
    expect(await registry.verifyKey(made.key)).toMatchObject({ reason: 'suspended' });
    await registry.organizations.setSuspended(author, false);
    expect(await registry.verifyKey(made.key)).toMatchObject({ ok: true });
  });

  it('expire to the millisecond, also while they are in memory', async () => {
    const expiresAt = new Date(Date.now() + 60_000);
    const made = await registry.integratorKeys.create(acme.author, { ...wanted, expiresAt });
    let nowMs = expiresAt.getTime() - 1;
    let queries = 0;
    const { pool } = test.database;
    const verifier = new KeyVerifier({
      pool,
      revocations: registry.revocations,
      log: pino({ level: 'silent' }),
      now: () => nowMs,
      onUsed: () => undefined,
      activate: () => Promise.resolve(),
      onRetiringUsed: () => undefined,
      onVerdict: () => (queries += 1),
    });
    expect(await verifier.verify(made.key)).toMatchObject({ ok: true });
    nowMs += 1;
    const expired = { ok: false, reason: 'expired', principal: { keyId: made.keyId } };
    expect(await verifier.verify(made.key)).toMatchObject(expired);
    const wrong = `${made.key.slice(0, -33)}${'0'.repeat(33)}`;
    expect(await verifier.verify(wrong)).toMatchObject({ ok: false, reason: 'malformed' });
    expect(queries).toBe(3);
    expect(await registry.apiKeys.activeKeyIds([made.keyId])).toEqual(new Set([made.keyId]));
    await pool.query(`UPDATE api_key SET expires_at = now() WHERE key_id = $1`, [made.keyId]);
    expect(await registry.apiKeys.activeKeyIds([made.keyId])).toEqual(new Set());
  });

  it('lose a scope that this version does not know', async () => {
    const made = await registry.integratorKeys.create(acme.author, { ...wanted, scopes: SCOPES });
    await test.database.pool.query(
      `UPDATE api_key SET scopes = '{log,teleport}' WHERE key_id = $1`,
      [made.keyId],
    );
    expect(await registry.verifyKey(made.key)).toMatchObject({ principal: { scopes: ['log'] } });
  });
});
