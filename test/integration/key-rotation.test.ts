import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CommandBacklogError } from '../../command-errors.ts';
import { StoreUnavailableError } from '../../errors.ts';
import { parseKey } from '../../firmware-protocol/keys.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import { keyStateOf, type NewApiKey } from '../../registry/api-keys.ts';
import type { AskingDevice, KeyRotations } from '../../registry/keys/key-rotations.ts';
import { KEYS_PER_ROTATION_MAX } from '../../registry/keys/rotation-issue.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';
import { FakeRekeyWire } from '../support/rekey.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let test: TestDatabase;
let registry: Registry;
let acme: TestOrganization;
let wire: FakeRekeyWire;
let rotations: KeyRotations;
let nowMs = 0;
let devices = 0;
/** The device of this test with its first key. */
let device = '';
let deviceId = 0;
let first: NewApiKey;

beforeAll(async () => {
  test = await createTestDatabase();
  registry = createTestRegistry(test.database, 1000, undefined, { now: () => nowMs });
  await registry.start();
  acme = await createOrganization(test.database, 'acme');
});
beforeEach(async () => {
  nowMs = Date.now();
  wire = new FakeRekeyWire();
  rotations = registry.keys.rotations(wire);
  device = `boiler-${(devices += 1)}`;
  ({ deviceId } = await registry.devices.create(acme.author, { slug: device }));
  first = await registry.apiKeys.createForDevice(acme.author, device, 'board');
});
const others: Registry[] = [];
afterEach(async () => {
  for (const other of others.splice(0)) await other.stop();
});
afterAll(async () => {
  await registry.stop();
  await test.drop();
});

const ask = (campaignId: string | null = null) =>
  rotations.rotate(acme.author, { device, campaignId, ttlMs: DAY_MS });
const from = (key: { keyId: string } = first): AskingDevice => ({
  organizationId: acme.author.organizationId,
  organization: 'acme',
  deviceId,
  device,
  keyId: key.keyId,
});
const request = (key = first, isPrivate = true) => rotations.keyRequested(from(key), isPrivate);
const rotation = () => rotations.get(acme.author.organizationId, device);

/** Asks as the first key and gives the new one. */
async function issued(): Promise<{ key: string; keyId: string }> {
  const answer = await request();
  if (answer.st !== 'ok') throw new Error(`no key: ${JSON.stringify(answer)}`);
  expect(answer.user).toBe(`acme/${device}`);
  return { key: answer.key, keyId: keyIdOf(answer) };
}

function keyIdOf(answer: KeyAnswer): string {
  return answer.st === 'ok' ? (parseKey(answer.key)?.publicId ?? '') : '';
}

async function stateOf(keyId: string): Promise<string> {
  const { organizationId } = acme.author;
  return keyStateOf(await registry.apiKeys.get({ organizationId, device }, keyId), nowMs);
}

describe('rotation', () => {
  it('goes from one key to the next without a moment in which the device has none', async () => {
    const asked = await ask();
    expect(asked).toMatchObject({ state: 'asked', oldKeyId: first.keyId, newKeyId: null });
    expect(wire.sent).toEqual([
      expect.objectContaining({ device, deviceId, campaignId: null, ttlMs: DAY_MS }),
    ]);
    const next = await issued();
    expect(await rotation()).toMatchObject({ state: 'issued', newKeyId: next.keyId });
    expect(await stateOf(next.keyId)).toBe('pending');
    expect(await stateOf(first.keyId)).toBe('active');
    expect(await registry.verifyKey(first.key)).toMatchObject({ ok: true });

    const verdict = await registry.verifyKey(next.key);
    expect(verdict).toMatchObject({
      ok: true,
      principal: { kind: 'device', device, keyId: next.keyId, expiresAt: null },
    });
    expect(await rotation()).toMatchObject({
      state: 'retiring',
      activatedAt: new Date(nowMs),
      endsAt: new Date(nowMs + DAY_MS),
      oldKeyUsedAt: null,
    });
    expect(await stateOf(next.keyId)).toBe('active');
    expect(await stateOf(first.keyId)).toBe('retiring');
    expect(await registry.verifyKey(first.key)).toMatchObject({
      ok: true,
      principal: { keyId: first.keyId, expiresAt: nowMs + DAY_MS },
    });

    nowMs += DAY_MS;
    expect(await registry.verifyKey(first.key)).toMatchObject({ ok: false, reason: 'expired' });
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: true });
    expect(await stateOf(first.keyId)).toBe('expired');
    expect(await rotation()).toMatchObject({ state: 'done' });
  });

  it('takes the name of the key before it and is in the audit trail, without a secret [A-15]', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    const { organizationId } = acme.author;
    expect(await registry.apiKeys.get({ organizationId, device }, next.keyId)).toMatchObject({
      name: 'board',
      replacesKeyId: first.keyId,
    });
    const { rows } = await test.database.pool.query<{ action: string; actor: string }>(
      `SELECT action, actor, subject, change FROM audit_event
       WHERE subject LIKE $1 ORDER BY audit_event_id`,
      [`device/${device}%`],
    );
    expect(rows.map(({ action, actor }) => `${action} ${actor}`)).toEqual([
      'device.create test',
      'key.create test',
      'key.rotate test',
      `key.create ${first.keyId}`,
      `key.activate ${next.keyId}`,
    ]);
    expect(JSON.stringify(rows)).not.toContain(next.key.slice(13));
  });

  it('gives another key to a device that lost the answer, and ends the one before', async () => {
    await ask();
    const lost = await issued();
    expect(await request()).toEqual({ st: 'wait', retry: 5 });
    nowMs += 5000;
    const next = await issued();
    expect(next.keyId).not.toBe(lost.keyId);
    expect(await stateOf(lost.keyId)).toBe('revoked');
    expect(await registry.verifyKey(lost.key)).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: true });
    expect(await registry.verifyKey(first.key)).toMatchObject({ ok: true });
  });

  it('gives a device that never keeps its key twenty, and no more', async () => {
    await ask();
    for (let count = 0; count < KEYS_PER_ROTATION_MAX; count += 1) {
      await issued();
      nowMs += 5000;
    }
    expect(await request()).toEqual({ st: 'no', code: 'unasked' });
    expect(await registry.verifyKey(first.key)).toMatchObject({ ok: true });
  });

  it('gives a key to nobody that was not asked, on no open connection, and to no certificate', async () => {
    expect(await request()).toEqual({ st: 'no', code: 'unasked' });
    await ask();
    expect(await request(first, false)).toEqual({ st: 'no', code: 'tls' });
    const certified = { ...first, keyId: 'x509:0123456789abcdef' };
    expect(await request(certified)).toEqual({ st: 'no', code: 'unasked' });
    const next = await issued();
    await registry.verifyKey(next.key);
    expect(await rotations.keyRequested(from(next), true)).toEqual({ st: 'no', code: 'unasked' });
    expect(await request()).toEqual({ st: 'no', code: 'unasked' });
  });

  it('gives no key to who still has the one that retires, unless there is no other', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    await ask();
    expect(await request()).toEqual({ st: 'no', code: 'retiring' });
    expect(await stateOf(next.keyId)).toBe('active');
    await registry.apiKeys.revoke(acme.author, device, next.keyId);
    expect(await request()).toMatchObject({ st: 'ok' });
  });

  it('takes no key of another device for the one that asks [A-01]', async () => {
    await ask();
    await registry.devices.create(acme.author, { slug: `${device}-other` });
    const strange = await registry.apiKeys.createForDevice(acme.author, `${device}-other`, 'x');
    expect(await request(strange)).toEqual({ st: 'no', code: 'unasked' });
    const other = await createOrganization(test.database, `other-${devices}`);
    const elsewhere = { ...from(), organizationId: other.author.organizationId };
    expect(await rotations.keyRequested(elsewhere, true)).toEqual({ st: 'no', code: 'unasked' });
    const { organizationId } = other.author;
    await expect(rotations.get(organizationId, device)).rejects.toMatchObject({
      code: 'DEVICE_NOT_FOUND',
    });
    await expect(rotations.rollBack(other.author, device)).rejects.toMatchObject({
      code: 'DEVICE_NOT_FOUND',
    });
    expect(await rotations.list(organizationId, [deviceId])).toEqual([]);
  });

  it('ends a new key that is never used, and leaves the old one', async () => {
    await ask();
    const next = await issued();
    nowMs += DAY_MS;
    expect(await stateOf(next.keyId)).toBe('expired');
    expect(await rotation()).toMatchObject({ state: 'expired' });
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: false, reason: 'expired' });
    expect(await registry.verifyKey(first.key)).toMatchObject({ ok: true });
    expect(await stateOf(first.keyId)).toBe('active');
    expect(await request()).toEqual({ st: 'no', code: 'unasked' });
    expect(await ask()).toMatchObject({ state: 'asked', newKeyId: null });
  });

  it('replaces the key that the device asks with, not another one of it', async () => {
    const spare = await registry.apiKeys.createForDevice(acme.author, device, 'spare');
    expect(await ask()).toMatchObject({ oldKeyId: spare.keyId });
    const next = await issued();
    await registry.verifyKey(next.key);
    expect(await stateOf(first.keyId)).toBe('retiring');
    expect(await stateOf(spare.keyId)).toBe('active');
  });

  it('is one at a time for each device', async () => {
    await ask();
    await expect(ask()).rejects.toMatchObject({ code: 'KEY_ROTATION_OPEN' });
    const next = await issued();
    await expect(ask()).rejects.toMatchObject({ code: 'KEY_ROTATION_OPEN' });
    await registry.verifyKey(next.key);
    expect(await ask()).toMatchObject({ state: 'asked', oldKeyId: next.keyId });
  });

  it('needs a key that is in use, and room for one more', async () => {
    for (let count = 1; count < 10; count += 1) {
      await registry.apiKeys.createForDevice(acme.author, device, 'more');
    }
    await expect(ask()).rejects.toMatchObject({ code: 'KEY_LIMIT' });
    const bare = `${device}-bare`;
    await registry.devices.create(acme.author, { slug: bare });
    await expect(
      rotations.rotate(acme.author, { device: bare, campaignId: null, ttlMs: DAY_MS }),
    ).rejects.toMatchObject({ code: 'DEVICE_KEYLESS' });
    await expect(rotations.get(acme.author.organizationId, bare)).rejects.toMatchObject({
      code: 'KEY_ROTATION_NOT_FOUND',
    });
  });

  it('shows that the old key is used though the new one is in use', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    nowMs += HOUR_MS;
    await registry.verifyKey(first.key);
    await eventually('the use is noted', async () => {
      const { oldKeyUsedAt } = await rotation();
      return oldKeyUsedAt?.getTime() === nowMs;
    });
  });

  it('never makes a key outlive its own end', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    const endsAt = new Date(nowMs + DAY_MS);
    nowMs += HOUR_MS;
    await registry.apiKeys.revoke(acme.author, device, next.keyId);
    await ask();
    const third = await issued();
    await registry.verifyKey(third.key);
    const { organizationId } = acme.author;
    const old = await registry.apiKeys.get({ organizationId, device }, first.keyId);
    expect(old.expiresAt).toEqual(endsAt);
  });
});

describe('a program that dies', () => {
  it('behind the row and before the command goes on where it was when it is asked again', async () => {
    wire.fault = { error: new StoreUnavailableError(), when: 'before' };
    await expect(ask()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(await rotation()).toMatchObject({ state: 'asked', commandId: null });
    const { askedAt } = await rotation();
    nowMs += 1000;
    expect(await ask()).toMatchObject({ state: 'asked', askedAt });
    expect(wire.sent).toHaveLength(1);
  });

  it('behind the command and before it is noted sends it no second time', async () => {
    wire.fault = { error: new StoreUnavailableError(), when: 'after' };
    await expect(ask()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    const { commandId } = await ask();
    expect(wire.sent).toHaveLength(1);
    expect(commandId).not.toBeNull();
  });

  it('gives a device a key that was faster than the command was noted', async () => {
    wire.fault = { error: new StoreUnavailableError(), when: 'after' };
    await expect(ask()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    const next = await issued();
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: true });
  });

  it('leaves nothing open when the command is refused', async () => {
    wire.fault = { error: new CommandBacklogError(device, 100), when: 'before' };
    await expect(ask()).rejects.toMatchObject({ code: 'COMMAND_BACKLOG_FULL' });
    await expect(rotation()).rejects.toMatchObject({ code: 'KEY_ROTATION_NOT_FOUND' });
  });

  it('before the first use is committed lets nobody in, and the device tries again', async () => {
    await ask();
    const next = await issued();
    const { pool } = test.database;
    const holder = await pool.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT FROM device WHERE device_id = $1 FOR UPDATE', [deviceId]);
    const verdict = registry.verifyKey(next.key);
    let isDecided = false;
    void verdict.then(() => (isDecided = true));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(isDecided).toBe(false);
    await holder.query('ROLLBACK');
    holder.release();
    expect(await verdict).toMatchObject({ ok: true });
  });
});

describe('rollback', () => {
  it('before the new key is used ends it and takes the command back', async () => {
    const { commandId } = await ask();
    const next = await issued();
    await rotations.rollBack(acme.author, device);
    expect(wire.cancelled).toEqual([commandId]);
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await stateOf(first.keyId)).toBe('active');
    expect(await request()).toEqual({ st: 'no', code: 'unasked' });
    await expect(rotation()).rejects.toMatchObject({ code: 'KEY_ROTATION_NOT_FOUND' });
    await expect(rotations.rollBack(acme.author, device)).rejects.toMatchObject({
      code: 'KEY_ROTATION_NOT_FOUND',
    });
  });

  it('within the grace makes the old key one for good and ends the new one', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    await registry.verifyKey(first.key);
    const told: (string | undefined)[] = [];
    const stop = registry.revocations.onRevoked(({ keyId }) => told.push(keyId));
    await rotations.rollBack(acme.author, device);
    stop();
    expect(told).toEqual([first.keyId, next.keyId]);
    expect(wire.cancelled).toEqual([]);
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: false, reason: 'revoked' });
    nowMs += 10 * DAY_MS;
    expect(await registry.verifyKey(first.key)).toMatchObject({
      ok: true,
      principal: { expiresAt: null },
    });
  });

  it('is refused when the device would have no key, and changes nothing then', async () => {
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    await registry.apiKeys.revoke(acme.author, device, first.keyId);
    await expect(rotations.rollBack(acme.author, device)).rejects.toMatchObject({
      code: 'KEY_ROTATION_FINAL',
    });
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: true });
    nowMs += DAY_MS;
    await expect(rotations.rollBack(acme.author, device)).rejects.toMatchObject({
      code: 'KEY_ROTATION_NOT_FOUND',
    });
  });

  it('of a campaign leaves what others have asked for, and keys that are in use', async () => {
    const campaignId = '0197a000-0000-7000-8000-000000000001';
    await ask();
    await rotations.withdraw(acme.author, device, campaignId);
    expect(await rotation()).toMatchObject({ state: 'asked' });
    await rotations.rollBack(acme.author, device);
    await ask(campaignId);
    expect(await ask(campaignId)).toMatchObject({ state: 'asked', campaignId });
    expect(wire.sent).toHaveLength(2);
    const next = await issued();
    await registry.verifyKey(next.key);
    await rotations.withdraw(acme.author, device, campaignId);
    expect(await rotation()).toMatchObject({ state: 'retiring' });
    expect(await registry.verifyKey(next.key)).toMatchObject({ ok: true });
  });
});

describe('at the same time', () => {
  it('twenty requests of a device give it one key', async () => {
    await ask();
    const answers = await Promise.all(Array.from({ length: 20 }, () => request()));
    const given = answers.filter(({ st }) => st === 'ok');
    expect(given).toHaveLength(1);
    expect(answers.filter(({ st }) => st === 'wait')).toHaveLength(19);
    const states = await allStates();
    expect(states.filter((state) => state === 'pending')).toHaveLength(1);
  });

  it('twenty first uses of a key are one', async () => {
    await ask();
    const next = await issued();
    let activated = 0;
    rotations.onActivated((told) => {
      if (told.deviceId === deviceId) activated += 1;
    });
    const verdicts = await Promise.all(
      Array.from({ length: 20 }, () => registry.verifyKey(next.key)),
    );
    expect(verdicts.every(({ ok }) => ok)).toBe(true);
    expect(activated).toBe(1);
  });

  it('ten people who ask for a rotation open one', async () => {
    const all = await Promise.allSettled(Array.from({ length: 10 }, () => ask()));
    expect(all.some(({ status }) => status === 'fulfilled')).toBe(true);
    expect(wire.sent).toHaveLength(1);
  });

  it('a first use and a rollback leave the device one key that it may use', async () => {
    for (let round = 0; round < 10; round += 1) {
      await ask();
      nowMs += 5000;
      const answer = await request();
      if (answer.st !== 'ok') throw new Error(JSON.stringify(answer));
      const [verdict] = await Promise.all([
        registry.verifyKey(answer.key),
        rotations.rollBack(acme.author, device),
      ]);
      // Whichever came first, the rollback was the last word.
      expect(verdict.ok || verdict.reason === 'revoked').toBe(true);
      expect(await registry.verifyKey(answer.key)).toMatchObject({ ok: false });
      expect(await registry.verifyKey(first.key)).toMatchObject({
        ok: true,
        principal: { expiresAt: null },
      });
    }
  });

  it('another program learns within moments that a key retires', async () => {
    const there = createTestRegistry(test.database, 1000, undefined, { now: () => nowMs });
    await there.start();
    others.push(there);
    expect(await there.verifyKey(first.key)).toMatchObject({ principal: { expiresAt: null } });
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    await eventually('it is known there', async () => {
      const verdict = await there.verifyKey(first.key);
      const { principal } = verdict;
      return principal?.kind === 'device' && principal.expiresAt === nowMs + DAY_MS;
    });
    nowMs += DAY_MS;
    expect(await there.verifyKey(first.key)).toMatchObject({ ok: false, reason: 'expired' });
  });

  it('a key that another program saw pending is good there once it was used here', async () => {
    const there = createTestRegistry(test.database, 1000, undefined, { now: () => nowMs });
    await there.start();
    others.push(there);
    await ask();
    const next = await issued();
    await registry.verifyKey(next.key);
    nowMs += 2 * DAY_MS;
    expect(await there.verifyKey(next.key)).toMatchObject({
      ok: true,
      principal: { expiresAt: null },
    });
  });
});

async function allStates(): Promise<string[]> {
  const { organizationId } = acme.author;
  const { rows } = await registry.apiKeys.list({ organizationId, device, limit: 100, after: null });
  return rows.map((key) => keyStateOf(key, nowMs));
}
