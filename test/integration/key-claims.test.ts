import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseKey } from '../../firmware-protocol/keys.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import { KEYS_PER_CLAIM_MAX } from '../../registry/keys/claim-decision.ts';
import type { ClaimKeyRules, NewClaimKey } from '../../registry/keys/claim-keys.ts';
import type { Claims, ClaimRequest } from '../../registry/keys/claims.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  registryLimits,
  type TestOrganization,
} from '../support/registry.ts';

const DAY_MS = 86_400_000;
const REISSUE_MS = registryLimits.keys.reissueMs;

let test: TestDatabase;
let registry: Registry;
let claims: Claims;
let acme: TestOrganization;
let organization = '';
let organizations = 0;
let nowMs = 0;
const connected = new Set<number>();

beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database, 20, undefined, { now: () => nowMs });
  await registry.start();
  claims = registry.keys.claims((deviceId) => connected.has(deviceId));
});
beforeEach(async () => {
  nowMs = Date.now();
  connected.clear();
  organization = `org-${(organizations += 1)}`;
  acme = await createOrganization(test.database, organization);
});
afterAll(async () => {
  await registry.stop();
  await test.drop();
});

function makeClaimKey(rules: Partial<ClaimKeyRules> = {}): Promise<NewClaimKey> {
  return registry.keys.claimKeys.create(acme.author, {
    name: 'batch 1',
    quota: 10,
    expiresAt: new Date(nowMs + DAY_MS),
    deviceType: 'thermo',
    tags: ['hall'],
    models: null,
    needsApproval: false,
    ...rules,
  });
}

function claim(
  { keyId }: { keyId: string },
  hardwareId: string,
  more: Partial<ClaimRequest> = {},
): Promise<KeyAnswer> {
  const { organizationId } = acme.author;
  const board = { model: null, address: '192.0.2.1', isPrivate: true };
  return claims.claim({ organizationId, organization, keyId, hardwareId, ...board, ...more });
}

function keyOf(answer: KeyAnswer): string {
  if (answer.st !== 'ok') throw new Error(`no key: ${JSON.stringify(answer)}`);
  return answer.key;
}

async function claimed({ keyId }: NewClaimKey): Promise<number> {
  return (await registry.keys.claimKeys.get(acme.author.organizationId, keyId)).claimed;
}

/** A connection of the device was written down. */
async function writePresence(slug: string): Promise<void> {
  await test.database.pool.query(
    `INSERT INTO device_presence
       (device_id, organization_id, state, since, last_contact_at, connection_number, address, hello)
     SELECT device_id, organization_id, 'offline', now(), now(), 1, '', '{}' FROM device
     WHERE organization_id = $1 AND slug = $2`,
    [acme.author.organizationId, slug],
  );
}

async function validKeys(slug: string): Promise<number> {
  const { organizationId } = acme.author;
  const list = { organizationId, device: slug, limit: 100, after: null };
  const { rows } = await registry.apiKeys.list(list);
  return rows.filter(({ revokedAt }) => revokedAt === null).length;
}

describe('a claim key', () => {
  it('is shown once, and speaks for nobody but a board without a name', async () => {
    const made = await makeClaimKey();
    expect(made.key).toMatch(/^pbc_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/);
    expect(await registry.verifyKey(made.key)).toEqual({
      ok: true,
      principal: {
        kind: 'claim',
        organizationId: acme.author.organizationId,
        organization,
        keyId: made.keyId,
        expiresAt: nowMs + DAY_MS,
      },
    });
    const { organizationId } = acme.author;
    const shown = await registry.keys.claimKeys.get(organizationId, made.keyId);
    expect(shown).toMatchObject({ quota: 10, claimed: 0, deviceType: 'thermo', tags: ['hall'] });
    expect(JSON.stringify(shown)).not.toContain(made.key.slice(13));
    const { rows } = await test.database.pool.query(
      `SELECT action, change FROM audit_event WHERE organization_id = $1 AND subject = $2`,
      [organizationId, `key/${made.keyId}`],
    );
    expect(rows.map(({ action }) => action)).toEqual(
      expect.arrayContaining(['key.create', 'claim_policy.create']),
    );
    expect(JSON.stringify(rows)).not.toContain(made.key.slice(13));
  });

  it('ends when it expires, is revoked, or its end is moved; also for a claim under way', async () => {
    const made = await makeClaimKey();
    await registry.keys.claimKeys.update(acme.author, made.keyId, {
      expiresAt: new Date(nowMs + 1000),
    });
    nowMs += 1000;
    expect(await registry.verifyKey(made.key)).toMatchObject({ ok: false, reason: 'expired' });
    expect(await claim(made, 'late')).toEqual({ st: 'no', code: 'expired' });
    const other = await makeClaimKey();
    await registry.keys.claimKeys.revoke(acme.author, other.keyId);
    await registry.keys.claimKeys.revoke(acme.author, other.keyId);
    expect(await registry.verifyKey(other.key)).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await claim(other, 'late')).toEqual({ st: 'no', code: 'expired' });
  });

  it('is one of at most as many as the bound says, and of no other organization', async () => {
    const max = registryLimits.keys.claimKeysMax;
    const all = await Promise.allSettled(Array.from({ length: max + 3 }, () => makeClaimKey()));
    expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(max);
    await expect(makeClaimKey()).rejects.toMatchObject({ code: 'CLAIM_KEY_LIMIT' });
    const { organizationId } = acme.author;
    const first = await registry.keys.claimKeys.list({ organizationId, limit: 2, after: null });
    expect(first).toMatchObject({ hasMore: true });
    const after = first.rows[1]?.keyId ?? '';
    const rest = await registry.keys.claimKeys.list({ organizationId, limit: 10, after });
    expect(rest.rows).toHaveLength(max - 2);
    const foreign = await createOrganization(test.database, `${organization}-x`);
    await expect(registry.keys.claimKeys.revoke(foreign.author, after)).rejects.toMatchObject({
      code: 'KEY_NOT_FOUND',
    });
    const theirs = foreign.author.organizationId;
    expect(await claim({ keyId: after }, 'board', { organizationId: theirs })).toEqual({
      st: 'no',
      code: 'expired',
    });
  });
});

describe('a board that claims', () => {
  it('becomes a device with the type and the tags of the claim key', async () => {
    const key = await makeClaimKey();
    const answer = await claim(key, 'a4cf12f0e1b2');
    expect(answer).toMatchObject({ st: 'ok', user: `${organization}/a4cf12f0e1b2` });
    const { organizationId } = acme.author;
    expect(await registry.devices.get(organizationId, 'a4cf12f0e1b2')).toMatchObject({
      type: 'thermo',
      tags: ['hall'],
    });
    expect(await registry.verifyKey(keyOf(answer))).toMatchObject({
      ok: true,
      principal: { kind: 'device', device: 'a4cf12f0e1b2', expiresAt: null },
    });
    expect(await claimed(key)).toBe(1);
    const { rows } = await claims.list({ organizationId, state: null, limit: 10, after: null });
    expect(rows).toMatchObject([{ hardwareId: 'a4cf12f0e1b2', state: 'issued', decidedBy: null }]);
  });

  it('gets another key as long as none was used, and the one before ends', async () => {
    const key = await makeClaimKey();
    const lost = keyOf(await claim(key, 'board'));
    expect(await claim(key, 'board')).toEqual({ st: 'wait', retry: 5 });
    nowMs += REISSUE_MS;
    const next = keyOf(await claim(key, 'board'));
    expect(await registry.verifyKey(lost)).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await registry.verifyKey(next)).toMatchObject({ ok: true });
    expect(await claimed(key)).toBe(1);
    nowMs += REISSUE_MS;
    expect(await claim(key, 'board')).toEqual({ st: 'no', code: 'claimed' });
    expect(await registry.verifyKey(next)).toMatchObject({ ok: true });
  });

  it('is given twenty keys, and no more', async () => {
    const key = await makeClaimKey();
    for (let count = 0; count < KEYS_PER_CLAIM_MAX; count += 1) {
      keyOf(await claim(key, 'board'));
      nowMs += REISSUE_MS;
    }
    expect(await claim(key, 'board')).toEqual({ st: 'no', code: 'quota' });
  });

  it('never takes over a device that has connected, is connected, or is somebody else’s [A-17]', async () => {
    const key = await makeClaimKey();
    const { organizationId } = acme.author;
    const refused = { st: 'no', code: 'claimed' };
    // Made by people, with a key and without.
    await registry.devices.create(acme.author, { slug: 'keyed' });
    await registry.apiKeys.createForDevice(acme.author, 'keyed', 'key');
    await registry.devices.create(acme.author, { slug: 'bare' });
    // By the factory.
    await registry.keys.batches.create(acme.author, { devices: ['made'], type: null, tags: [] });
    // With another claim key.
    const other = await makeClaimKey();
    keyOf(await claim(other, 'others'));
    // Claimed, then connected: written down, or only known to the broker.
    keyOf(await claim(key, 'seen'));
    await writePresence('seen');
    keyOf(await claim(key, 'live'));
    connected.add((await registry.devices.get(organizationId, 'live')).deviceId);
    // Claimed, and given a key of its own by people.
    keyOf(await claim(key, 'adopted'));
    await registry.apiKeys.createForDevice(acme.author, 'adopted', 'key');
    nowMs += REISSUE_MS;
    for (const hardwareId of ['keyed', 'bare', 'made', 'others', 'seen', 'live', 'adopted']) {
      const before = await validKeys(hardwareId);
      expect(await claim(key, hardwareId), hardwareId).toEqual(refused);
      expect(await validKeys(hardwareId), hardwareId).toBe(before);
    }
    expect(await claimed(key)).toBe(3);
  });

  it('is not let back in when people have revoked its key or disabled it', async () => {
    const key = await makeClaimKey();
    const made = parseKey(keyOf(await claim(key, 'revoked')));
    await registry.apiKeys.revoke(acme.author, 'revoked', made?.publicId ?? '');
    keyOf(await claim(key, 'disabled'));
    await registry.devices.update(acme.author, 'disabled', { isDisabled: true });
    nowMs += REISSUE_MS;
    expect(await claim(key, 'revoked')).toEqual({ st: 'no', code: 'claimed' });
    expect(await claim(key, 'disabled')).toEqual({ st: 'no', code: 'denied' });
  });

  it('is refused without TLS, with a strange name, another model, or above the quota', async () => {
    const key = await makeClaimKey({ quota: 1, models: ['thermo-1'] });
    const thermo = { model: 'thermo-1' };
    expect(await claim(key, 'board', { ...thermo, isPrivate: false })).toEqual({
      st: 'no',
      code: 'tls',
    });
    for (const name of ['', 'a b', '../x', "'; DROP", 'x'.repeat(49), '_']) {
      expect(await claim(key, name, thermo), name).toEqual({ st: 'no', code: 'name' });
    }
    expect(await claim(key, 'board')).toEqual({ st: 'no', code: 'model' });
    expect(await claim(key, 'board', { model: 'x' })).toEqual({ st: 'no', code: 'model' });
    keyOf(await claim(key, 'board', thermo));
    expect(await claim(key, 'board-2', thermo)).toEqual({ st: 'no', code: 'quota' });
    await registry.keys.claimKeys.update(acme.author, key.keyId, { quota: 2 });
    keyOf(await claim(key, 'board-2', thermo));
  });

  it('counts when it was deleted and comes again', async () => {
    const key = await makeClaimKey({ quota: 2 });
    keyOf(await claim(key, 'board'));
    await registry.devices.remove(acme.author, 'board');
    keyOf(await claim(key, 'board'));
    await registry.devices.remove(acme.author, 'board');
    expect(await claim(key, 'board')).toEqual({ st: 'no', code: 'quota' });
  });

  it('does not make an organization larger than it may be', async () => {
    const devices = Array.from({ length: 20 }, (_, index) => `d-${index}`);
    await registry.keys.batches.create(acme.author, { devices, type: null, tags: [] });
    const key = await makeClaimKey();
    expect(await claim(key, 'board')).toEqual({ st: 'no', code: 'quota' });
    expect(await claimed(key)).toBe(0);
  });
});

describe('approval', () => {
  it('is given once for one key; until then the board waits', async () => {
    const key = await makeClaimKey({ needsApproval: true });
    const waits = { st: 'wait', retry: 60 };
    expect(await claim(key, 'board', { model: 'thermo-1' })).toEqual(waits);
    expect(await claim(key, 'board', { model: 'thermo-1' })).toEqual(waits);
    const { organizationId } = acme.author;
    const query = { organizationId, limit: 10, after: null };
    const { rows } = await claims.list({ ...query, state: 'waiting' });
    expect(rows).toMatchObject([
      { hardwareId: 'board', model: 'thermo-1', address: '192.0.2.1', keyId: key.keyId },
    ]);
    expect(await claims.approve(acme.author, 'board')).toMatchObject({
      state: 'approved',
      decidedBy: 'test',
    });
    keyOf(await claim(key, 'board'));
    await expect(claims.approve(acme.author, 'board')).rejects.toMatchObject({
      code: 'CLAIM_ISSUED',
    });
    nowMs += REISSUE_MS;
    expect(await claim(key, 'board')).toEqual(waits);
    await claims.approve(acme.author, 'board');
    const next = keyOf(await claim(key, 'board'));
    expect(await registry.verifyKey(next)).toMatchObject({ ok: true });
    expect((await claims.list({ ...query, state: 'waiting' })).rows).toEqual([]);
  });

  it('that is denied holds for every claim key, until it is given', async () => {
    const key = await makeClaimKey({ needsApproval: true });
    const automatic = await makeClaimKey();
    await claim(key, 'board');
    await claims.deny(acme.author, 'board');
    const denied = { st: 'no', code: 'denied' };
    expect(await claim(key, 'board')).toEqual(denied);
    expect(await claim(automatic, 'board')).toEqual(denied);
    await claims.approve(acme.author, 'board');
    keyOf(await claim(key, 'board'));
  });

  it('is for the claim key that the board has asked with', async () => {
    const key = await makeClaimKey({ needsApproval: true });
    const stolen = await makeClaimKey({ needsApproval: true });
    await claim(key, 'board');
    await claims.approve(acme.author, 'board');
    expect(await claim(stolen, 'board')).toEqual({ st: 'wait', retry: 60 });
    keyOf(await claim(key, 'board'));
  });

  it('is waited for by as many boards as may, and a foreign one is nobody’s to decide', async () => {
    const key = await makeClaimKey({ needsApproval: true });
    const max = registryLimits.keys.claimsWaitingMax;
    for (let count = 0; count < max; count += 1) await claim(key, `board-${count}`);
    expect(await claim(key, 'one-more')).toEqual({ st: 'no', code: 'quota' });
    expect(await claim(key, 'board-0')).toMatchObject({ st: 'wait' });
    const { author } = await createOrganization(test.database, `${organization}-x`);
    await expect(claims.approve(author, 'board-0')).rejects.toMatchObject({
      code: 'CLAIM_NOT_FOUND',
    });
    await expect(claims.deny(author, "'; DROP")).rejects.toMatchObject({ code: 'CLAIM_NOT_FOUND' });
  });
});

describe('at the same time', () => {
  it('twenty claims of one hardware id give one key', async () => {
    const key = await makeClaimKey();
    const answers = await Promise.all(Array.from({ length: 20 }, () => claim(key, 'board')));
    expect(answers.filter(({ st }) => st === 'ok')).toHaveLength(1);
    expect(answers.filter(({ st }) => st === 'wait')).toHaveLength(19);
    expect(await validKeys('board')).toBe(1);
    expect(await claimed(key)).toBe(1);
  });

  it('claims of one hardware id with five claim keys make one device', async () => {
    const keys = await Promise.all(Array.from({ length: 5 }, () => makeClaimKey()));
    const answers = await Promise.all(
      keys.flatMap((key) => [1, 2, 3].map(() => claim(key, 'board'))),
    );
    expect(answers.filter(({ st }) => st === 'ok')).toHaveLength(1);
    expect(await validKeys('board')).toBe(1);
    const made = await Promise.all(keys.map(claimed));
    expect(made.reduce((sum, one) => sum + one, 0)).toBe(1);
  });

  it('thirty boards share a quota of ten', async () => {
    const key = await makeClaimKey();
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, index) => claim(key, `board-${index}`)),
    );
    expect(answers.filter(({ st }) => st === 'ok')).toHaveLength(10);
    expect(await claimed(key)).toBe(10);
  });

  it('a key that is used and claimed again is either used or ended, never both', async () => {
    const key = await makeClaimKey({ quota: 20 });
    for (let round = 0; round < 10; round += 1) {
      const hardwareId = `board-${round}`;
      const first = keyOf(await claim(key, hardwareId));
      nowMs += REISSUE_MS;
      const [verdict, answer] = await Promise.all([
        registry.verifyKey(first),
        claim(key, hardwareId),
      ]);
      expect(answer.st === 'ok').toBe(!verdict.ok);
      if (verdict.ok) expect(answer).toEqual({ st: 'no', code: 'claimed' });
      expect((await registry.verifyKey(first)).ok).toBe(verdict.ok);
      expect(await validKeys(hardwareId)).toBe(1);
    }
  });
});

describe('a batch', () => {
  it('is devices with a key each, all or none, within the bound of the organization', async () => {
    const made = await registry.keys.batches.create(acme.author, {
      devices: ['b-1', 'b-2', 'b-3'],
      type: 'thermo',
      tags: ['batch'],
    });
    expect(made.map(({ device }) => device)).toEqual(['b-1', 'b-2', 'b-3']);
    for (const { device, user, key, keyId } of made) {
      expect(user).toBe(`${organization}/${device}`);
      expect(await registry.verifyKey(key)).toMatchObject({
        ok: true,
        principal: { kind: 'device', device, keyId },
      });
    }
    const { organizationId } = acme.author;
    expect(await registry.devices.get(organizationId, 'b-2')).toMatchObject({
      type: 'thermo',
      tags: ['batch'],
    });
    const { rows } = await test.database.pool.query<{ action: string }>(
      'SELECT action, change FROM audit_event WHERE organization_id = $1',
      [organizationId],
    );
    expect(rows.filter(({ action }) => action === 'device.create')).toHaveLength(3);
    expect(rows.filter(({ action }) => action === 'key.create')).toHaveLength(4);
    expect(JSON.stringify(rows)).not.toContain(made[0]?.key.slice(13));
    await expect(
      registry.keys.batches.create(acme.author, { devices: ['b-4', 'b-1'], type: null, tags: [] }),
    ).rejects.toMatchObject({ code: 'DEVICE_EXISTS' });
    const many = Array.from({ length: 18 }, (_, index) => `m-${index}`);
    await expect(
      registry.keys.batches.create(acme.author, { devices: many, type: null, tags: [] }),
    ).rejects.toMatchObject({ code: 'DEVICE_LIMIT' });
    const all = await registry.devices.list({ organizationId, limit: 100, after: null });
    expect(all.rows).toHaveLength(3);
  });
});
