import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CampaignKind } from '../../commands/campaign/campaign-kind.ts';
import { CommandBacklogError } from '../../command-errors.ts';
import type { KeyRotations } from '../../registry/keys/key-rotations.ts';
import { createRekeyCampaign } from '../../registry/keys/rekey-campaign.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import {
  createOrganization,
  createTestRegistry,
  type TestOrganization,
} from '../support/registry.ts';
import { FakeRekeyWire } from '../support/rekey.ts';

const HOUR_MS = 3_600_000;

let test: TestDatabase;
let registry: Registry;
let acme: TestOrganization;
let wire: FakeRekeyWire;
let rotations: KeyRotations;
let kind: CampaignKind;
let campaign: Parameters<CampaignKind['begin']>[0];
let target: Parameters<CampaignKind['begin']>[1];
let nowMs = 0;
let devices = 0;
let key = { keyId: '', key: '' };

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
  kind = createRekeyCampaign({ database: test.database, rotations });
  const { organizationId } = acme.author;
  const request = {};
  const deviceTimeoutMs = HOUR_MS;
  campaign = {
    campaignId: randomUUID(),
    ...{ organizationId, request, createdBy: 'test', deviceTimeoutMs },
  };
  target = await makeTarget();
  key = await registry.apiKeys.createForDevice(acme.author, target.device, 'board');
});
afterAll(async () => {
  await registry.stop();
  await test.drop();
});

async function makeTarget(): Promise<typeof target> {
  const device = `d-${(devices += 1)}`;
  const { deviceId } = await registry.devices.create(acme.author, { slug: device });
  return { deviceId, device, deviceType: null, commandId: null, facts: {}, startedAt: null };
}

const begin = () => kind.begin(campaign, target);
const judge = () => kind.judge(campaign, [target]);
const ask = () =>
  rotations.keyRequested(
    {
      organizationId: acme.author.organizationId,
      organization: 'acme',
      deviceId: target.deviceId,
      device: target.device,
      keyId: key.keyId,
    },
    true,
  );

/** What became of the command, as commands would write it. */
async function endCommand(state: string, code: string | null): Promise<void> {
  const { commandId } = await rotations.get(acme.author.organizationId, target.device);
  await test.database.pool.query(
    `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
       expires_at, ended_at, origin, actor, code)
     VALUES ($1, $2, $3, 'sys.rekey', '{}', $4, true, now(), now(), 'key', 'test', $5)`,
    [commandId, acme.author.organizationId, target.deviceId, state, code],
  );
}

describe('a campaign that changes keys', () => {
  it('takes nothing but devices', async () => {
    expect(await kind.prepare(acme.author, {})).toEqual({});
    expect(await kind.prepare(acme.author, null)).toEqual({});
    await expect(kind.prepare(acme.author, { force: true })).rejects.toMatchObject({ status: 400 });
  });

  it('asks a device once, however often it begins with it', async () => {
    const begun = await begin();
    expect(begun).toMatchObject({ facts: { oldKeyId: key.keyId } });
    expect(await begin()).toEqual(begun);
    expect(wire.sent).toMatchObject([
      {
        campaignId: campaign.campaignId,
        ttlMs: HOUR_MS,
        idempotencyKey: `campaign:${campaign.campaignId}:${target.deviceId}`,
      },
    ]);
  });

  it('leaves out what cannot be changed', async () => {
    await rotations.rotate(acme.author, { device: target.device, campaignId: null, ttlMs: 1000 });
    expect(await begin()).toMatchObject({ skipped: 'rotation_open' });
    target = await makeTarget();
    expect(await begin()).toMatchObject({ skipped: 'no_key' });
    await registry.devices.remove(acme.author, target.device);
    expect(await begin()).toMatchObject({ skipped: 'device_gone' });
  });

  it('passes on why a command was refused, and begins anew then', async () => {
    wire.fault = { error: new CommandBacklogError(target.device, 100), when: 'before' };
    await expect(begin()).rejects.toMatchObject({ code: 'COMMAND_BACKLOG_FULL' });
    expect(await begin()).toHaveProperty('commandId');
  });

  it('has succeeded with a device that uses its new key, whatever it said of the command', async () => {
    await begin();
    expect(await judge()).toEqual([]);
    const answer = await ask();
    expect(await judge()).toEqual([]);
    await endCommand('expired', null);
    // It has a key, and may yet come with it.
    expect(await judge()).toEqual([]);
    await registry.verifyKey(answer.st === 'ok' ? answer.key : '');
    expect(await judge()).toMatchObject([{ state: 'succeeded', code: 'rekeyed' }]);
    await kind.withdraw(campaign, [target]);
    expect(await judge()).toMatchObject([{ state: 'succeeded' }]);
  });

  it.each([
    ['failed', 'nvs', 'nvs'],
    ['rejected', 'unsupported', 'unsupported'],
    ['expired', null, 'expired'],
    ['unknown', null, 'unknown'],
  ])('has failed when the command is %s and no key was asked for', async (state, code, verdict) => {
    await begin();
    await endCommand(state, code);
    expect(await judge()).toMatchObject([{ state: 'failed', code: verdict }]);
  });

  it('that has failed with a device keeps nobody from asking it anew', async () => {
    await begin();
    const request = { device: target.device, campaignId: null, ttlMs: HOUR_MS };
    await expect(rotations.rotate(acme.author, request)).rejects.toMatchObject({
      code: 'KEY_ROTATION_OPEN',
    });
    await endCommand('failed', 'nvs');
    expect(await rotations.rotate(acme.author, request)).toMatchObject({ state: 'asked' });
    expect(await judge()).toMatchObject([{ state: 'skipped', code: 'rolled_back' }]);
  });

  it('has failed when the new key was not used in time', async () => {
    await begin();
    await ask();
    nowMs += 24 * HOUR_MS;
    expect(await judge()).toMatchObject([{ state: 'failed', code: 'expired' }]);
  });

  it('takes back what was not used, and says that it did', async () => {
    await begin();
    const answer = await ask();
    await kind.withdraw(campaign, [target]);
    await kind.withdraw(campaign, [target]);
    expect(wire.cancelled).toHaveLength(1);
    expect(await judge()).toMatchObject([{ state: 'skipped', code: 'rolled_back' }]);
    const verdict = await registry.verifyKey(answer.st === 'ok' ? answer.key : '');
    expect(verdict).toMatchObject({ ok: false, reason: 'revoked' });
    expect(await registry.verifyKey(key.key)).toMatchObject({ ok: true });
    await registry.devices.remove(acme.author, target.device);
    await kind.withdraw(campaign, [target]);
  });
});
