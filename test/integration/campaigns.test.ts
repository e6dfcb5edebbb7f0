import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { CampaignDetail, CampaignParts } from '../../commands/campaign/campaign.ts';
import {
  campaignLimits,
  FAILED,
  FakeKind,
  newCampaign,
  storeAway,
  SUCCEEDED,
  testCampaigns,
} from '../support/campaigns.ts';
import { createRandom } from '../../bench/random.ts';
import { whileAway } from '../support/database-faults.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization, type TestOrganization } from '../support/registry.ts';

/** Waits until nothing is thrown. */
function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: 30_000, interval: 20 });
}

const STOP = { failedPercent: 20, failedCount: null };

let test: TestDatabase;
let count = 0;
let org: TestOrganization;
const running: CampaignParts[] = [];
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(() => test.drop());
afterEach(async () => {
  await Promise.all(running.splice(0).map((parts) => parts.stop()));
  await test.database.pool.query('UPDATE campaign SET ended_at = now() WHERE ended_at IS NULL');
});

/** Devices `d0`, `d1`, … of an organization of their own. */
async function fleet(
  devices: number,
  more = "'{}'::text[], NULL, NULL",
): Promise<TestOrganization> {
  count += 1;
  org = await createOrganization(test.database, `org-${count}`);
  await test.database.pool.query(
    `INSERT INTO device (organization_id, slug, display_name, tags, device_type, disabled_at)
     SELECT $1, 'd' || n, 'd' || n, ${more} FROM generate_series(0, $2 - 1) AS n`,
    [org.author.organizationId, devices],
  );
  return org;
}

function begin(
  kinds: readonly FakeKind[],
  more: Parameters<typeof testCampaigns>[2] = {},
): CampaignParts {
  const parts = testCampaigns(test.database, kinds, more);
  parts.start();
  running.push(parts);
  return parts;
}

const make = async (
  parts: CampaignParts,
  more: Parameters<typeof newCampaign>[0] = {},
): Promise<CampaignDetail> =>
  (await parts.campaigns.create(org.author, newCampaign(more))).campaign;

const policyOf = (more: Partial<CampaignDetail['policy']>): CampaignDetail['policy'] => ({
  ...newCampaign().policy,
  ...more,
});

const get = (parts: CampaignParts, { campaignId }: CampaignDetail): Promise<CampaignDetail> =>
  parts.campaigns.get(org.author.organizationId, campaignId);

async function ended(parts: CampaignParts, campaign: CampaignDetail): Promise<CampaignDetail> {
  return eventually(async () => {
    const found = await get(parts, campaign);
    expect(found.endedAt, JSON.stringify(found.counts)).not.toBeNull();
    return found;
  });
}

async function devicesOf(
  parts: CampaignParts,
  { campaignId }: CampaignDetail,
): Promise<{ device: string; wave: number; state: string; code: string | null }[]> {
  const { organizationId } = org.author;
  const query = { organizationId, campaignId, states: null, limit: 5000, after: null };
  const { rows } = await parts.campaigns.devices(query);
  return rows.map(({ device, wave, state, code }) => ({ device, wave, state, code }));
}

async function audited({ campaignId }: CampaignDetail): Promise<string[]> {
  const { rows } = await test.database.pool.query<{ action: string }>(
    'SELECT action FROM audit_event WHERE subject = $1 ORDER BY audit_event_id',
    [`campaign/${campaignId}`],
  );
  return rows.map(({ action }) => action);
}

describe('a campaign', () => {
  it('does what it is to do to every device once, in waves, and is completed', async () => {
    await fleet(40);
    const kind = new FakeKind();
    const parts = begin([kind]);
    const policy = policyOf({ canary: 2, waves: [10, 50, 100] });
    const campaign = await make(parts, { policy });
    expect(campaign.waves.map((one) => one.waiting)).toEqual([2, 2, 16, 20]);
    const done = await ended(parts, campaign);
    expect(done).toMatchObject({ state: 'completed', wave: 3, stopCode: null });
    expect(done.counts).toMatchObject({ succeeded: 40, failed: 0, waiting: 0, active: 0 });
    expect([...kind.begun.values()]).toEqual(Array.from({ length: 40 }, () => 1));
    const order = (await devicesOf(parts, campaign)).map(({ device }) => device);
    expect(kind.order.toSorted()).toEqual(order.toSorted());
    expect(new Set(kind.order.slice(0, 2))).toEqual(new Set(order.slice(0, 2)));
    expect(await audited(campaign)).toEqual(['campaign.create']);
  });

  it('with 1 000 devices ends with each of them, begun with once', async () => {
    await fleet(1000);
    const kind = new FakeKind();
    const parts = begin([kind]);
    const policy = policyOf({ canary: 5, waves: [10, 50, 100], concurrent: 100 });
    const done = await ended(parts, await make(parts, { policy }));
    expect(done.counts).toMatchObject({ succeeded: 1000, failed: 0 });
    expect(kind.begun.size).toBe(1000);
    expect(Math.max(...kind.begun.values())).toBe(1);
    expect(kind.activeMax).toBeLessThanOrEqual(100);
  });

  it('that is bad stops at the canary, with numbers, and touches no other device', async () => {
    await fleet(50);
    const kind = new FakeKind();
    kind.outcome = (device) => (kind.order.indexOf(device) < 3 ? FAILED : SUCCEEDED);
    const parts = begin([kind]);
    const policy = policyOf({ canary: 5, stop: { failedPercent: 60, failedCount: null } });
    const done = await ended(parts, await make(parts, { policy }));
    expect(done).toMatchObject({
      state: 'stopped',
      stopCode: 'failed_percent',
      stopReason: '3 of 5 canaries failed: valve',
    });
    expect(kind.begun.size).toBe(5);
    expect(done.counts).toMatchObject({ failed: 3, skipped: 45 });
    expect(await audited(done)).toEqual(['campaign.create', 'campaign.stop']);
    const skipped = (await devicesOf(parts, done)).filter(({ state }) => state === 'skipped');
    expect(new Set(skipped.map(({ code }) => code))).toEqual(new Set(['not_begun']));
  });

  it('that stops withdraws what is under way, once, and ends when that has ended', async () => {
    await fleet(30);
    const kind = new FakeKind();
    kind.outcome = (device) => (kind.order.indexOf(device) < 4 ? FAILED : null);
    const parts = begin([kind]);
    const policy = policyOf({ concurrent: 20, stop: { failedPercent: null, failedCount: 4 } });
    const done = await ended(parts, await make(parts, { policy }));
    expect(done).toMatchObject({ stopCode: 'failed_count', stopReason: '4 devices failed: valve' });
    expect(kind.withdrawn.length).toBe(new Set(kind.withdrawn).size);
    expect(kind.withdrawn.length).toBe(kind.begun.size - 4);
    expect(done.counts).toMatchObject({ failed: 4, active: 0, waiting: 0 });
  });

  it('takes other canaries in place of those to which there is nothing to do', async () => {
    await fleet(20);
    const kind = new FakeKind();
    const skipped: string[] = [];
    kind.skips = (device) => {
      if (kind.begun.size > 0 || skipped.length >= 6) return false;
      skipped.push(device);
      return true;
    };
    kind.outcome = () => FAILED;
    const parts = begin([kind]);
    const policy = policyOf({ canary: 2, stop: STOP });
    const done = await ended(parts, await make(parts, { policy }));
    expect(done.stopReason).toBe('2 of 2 canaries failed: valve');
    expect(skipped.length).toBe(6);
    expect(kind.begun.size).toBeLessThanOrEqual(2);
  });

  it('begins with devices that were named as canaries, then with those that are online', async () => {
    await fleet(30);
    const { rows } = await test.database.pool.query<{ device_id: number; slug: string }>(
      'SELECT device_id, slug FROM device WHERE organization_id = $1',
      [org.author.organizationId],
    );
    const online = new Map(rows.slice(0, 5).map((row) => [row.device_id, row.slug]));
    const kind = new FakeKind();
    const parts = begin([kind], { isOnline: (deviceId) => online.has(deviceId) });
    const policy = policyOf({ canary: 3, waves: [100] });
    const done = await ended(parts, await make(parts, { policy, canaryDevices: ['d29'] }));
    const canaries = (await devicesOf(parts, done)).filter(({ wave }) => wave === 0);
    expect(canaries[0]?.device).toBe('d29');
    const names = new Set(online.values());
    expect(canaries.slice(1).every(({ device }) => names.has(device))).toBe(true);
    expect(new Set(kind.order.slice(0, 6))).toEqual(new Set([...names, 'd29']));
  });

  it('begins with no more devices in a minute than it says', async () => {
    await fleet(30);
    let nowMs = Date.now();
    const kind = new FakeKind();
    const parts = begin([kind], { now: () => nowMs });
    const campaign = await make(parts, { policy: policyOf({ ratePerMinute: 6 }) });
    const counts: number[] = [];
    for (let second = 0; second < 61; second += 1) {
      await eventually(async () => {
        const { counts: at } = await get(parts, campaign);
        expect(at.active).toBe(0);
        expect(at.succeeded).toBe(Math.min(30, 1 + Math.floor(second / 10)));
      });
      counts.push(kind.begun.size);
      nowMs += 1000;
    }
    expect(counts[59]).toBe(6);
    expect(counts[60]).toBe(7);
  });

  it('goes on at its rate when the clock is set back by a day', async () => {
    await fleet(10);
    let nowMs = Date.now();
    const kind = new FakeKind();
    const parts = begin([kind], { now: () => nowMs });
    await make(parts, { policy: policyOf({ ratePerMinute: 6 }) });
    await eventually(() => expect(kind.begun.size).toBe(1));
    nowMs -= 86_400_000;
    await eventually(() => expect(kind.begun.size).toBe(2));
  });

  it('begins with no device while its organization is suspended', async () => {
    await fleet(10);
    const kind = new FakeKind();
    kind.outcome = () => null;
    const parts = begin([kind]);
    const campaign = await make(parts, { policy: policyOf({ concurrent: 3 }) });
    await eventually(() => expect(kind.begun.size).toBe(3));
    const suspend = (at: string) =>
      test.database.pool.query(
        `UPDATE organization SET suspended_at = ${at} WHERE organization_id = $1`,
        [org.author.organizationId],
      );
    await suspend('now()');
    kind.outcome = () => SUCCEEDED;
    await eventually(async () => expect((await get(parts, campaign)).counts.succeeded).toBe(3));
    // Ten looks at it, to prove an absence.
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(kind.begun.size).toBe(3);
    await suspend('NULL');
    expect(await ended(parts, campaign)).toMatchObject({ state: 'completed' });
    expect(kind.begun.size).toBe(10);
  });

  it('is paused, resumed and cancelled, and says so when that cannot be', async () => {
    await fleet(10);
    const kind = new FakeKind();
    kind.outcome = () => null;
    const parts = begin([kind]);
    const { author } = org;
    const campaign = await make(parts, { policy: policyOf({ concurrent: 3 }) });
    await eventually(() => expect(kind.begun.size).toBe(3));
    const paused = await parts.campaigns.pause(author, campaign.campaignId);
    expect(paused.state).toBe('paused');
    kind.outcome = () => SUCCEEDED;
    await eventually(async () => expect((await get(parts, campaign)).counts.succeeded).toBe(3));
    await expect(get(parts, campaign)).resolves.toMatchObject({ counts: { waiting: 7 } });
    kind.outcome = () => null;
    await parts.campaigns.resume(author, campaign.campaignId);
    await eventually(() => expect(kind.begun.size).toBe(6));
    const retry = { scope: 'failed', idempotencyKey: null } as const;
    await expect(parts.campaigns.retry(author, campaign.campaignId, retry)).rejects.toMatchObject({
      code: 'CAMPAIGN_STATE',
    });
    await parts.campaigns.cancel(author, campaign.campaignId);
    const done = await ended(parts, campaign);
    expect(done).toMatchObject({ state: 'cancelled', counts: { succeeded: 3, skipped: 7 } });
    expect(kind.withdrawn.length).toBe(3);
    await expect(parts.campaigns.pause(author, campaign.campaignId)).rejects.toMatchObject({
      code: 'CAMPAIGN_STATE',
    });
    await parts.campaigns.cancel(author, campaign.campaignId);
    const verbs = ['create', 'pause', 'resume', 'cancel'].map((verb) => `campaign.${verb}`);
    expect(await audited(campaign)).toEqual(verbs);
  });

  it('gives up a device that takes too long, withdraws it, and counts it as failed', async () => {
    await fleet(3);
    let nowMs = Date.now();
    const kind = new FakeKind();
    kind.outcome = (device) => (device === 'd1' ? null : SUCCEEDED);
    const parts = begin([kind], { now: () => nowMs });
    const campaign = await make(parts, { policy: policyOf({ deviceTimeoutMs: 5000 }) });
    await eventually(async () => expect((await get(parts, campaign)).counts.succeeded).toBe(2));
    nowMs += 4999;
    expect(kind.withdrawn).toEqual([]);
    nowMs += 1;
    const done = await ended(parts, campaign);
    expect(kind.withdrawn).toEqual(['d1']);
    const d1 = (await devicesOf(parts, done)).find(({ device }) => device === 'd1');
    expect(d1).toMatchObject({ state: 'failed', code: 'timeout' });
  });

  it('takes a fault of its kind for a failure of the device, and asks again while the database is away', async () => {
    await fleet(4);
    let nowMs = Date.now();
    let isAway = true;
    const kind = new FakeKind();
    kind.before = (device) => {
      if (device === 'd0') throw new TypeError('a bug');
      if (device === 'd1' && isAway) storeAway();
    };
    const parts = begin([kind], { now: () => nowMs });
    const campaign = await make(parts);
    await eventually(async () => expect((await get(parts, campaign)).counts.succeeded).toBe(2));
    expect(await devicesOf(parts, campaign)).toContainEqual(
      expect.objectContaining({ device: 'd1', state: 'active', code: 'beginning' }),
    );
    isAway = false;
    nowMs += 10_000;
    const done = await ended(parts, campaign);
    expect(done.counts).toMatchObject({ succeeded: 3, failed: 1 });
    expect(await devicesOf(parts, campaign)).toContainEqual(
      expect.objectContaining({ device: 'd0', state: 'failed', code: 'internal_error' }),
    );
  });

  it('skips devices that are disabled, before it is made or before their turn', async () => {
    await fleet(6, `'{}'::text[], NULL, CASE WHEN n < 2 THEN now() END`);
    const kind = new FakeKind();
    kind.before = async (device) => {
      if (device === 'd5') return;
      await test.database.pool.query(
        `UPDATE device SET disabled_at = now() WHERE organization_id = $1 AND slug = 'd5'`,
        [org.author.organizationId],
      );
    };
    const parts = begin([kind]);
    const policy = policyOf({ canary: 1, concurrent: 1 });
    const campaign = await make(parts, { policy, canaryDevices: ['d2'] });
    expect(campaign.counts).toMatchObject({ skipped: 2, waiting: 4 });
    const done = await ended(parts, campaign);
    expect(done.counts).toMatchObject({ skipped: 3, succeeded: 3 });
    expect(kind.begun.has('d5')).toBe(false);
  });

  it('lets several campaigns go on side by side', async () => {
    await fleet(300);
    const kind = new FakeKind();
    const parts = begin([kind]);
    const first = await make(parts, { name: 'long' });
    const devices = ['d1', 'd2'];
    const second = await make(parts, { targets: { devices, tags: null, types: null } });
    await ended(parts, second);
    expect((await get(parts, first)).counts.waiting).toBeGreaterThan(0);
    await ended(parts, first);
  });

  it('is deleted when it ended long ago', async () => {
    await fleet(1);
    const kind = new FakeKind();
    const parts = begin([kind]);
    const done = await ended(parts, await make(parts));
    await parts.stop();
    const old = begin([kind], { now: () => Date.now() + campaignLimits.ageMaxMs + 60_000 });
    await eventually(async () => {
      await expect(get(old, done)).rejects.toMatchObject({ code: 'CAMPAIGN_NOT_FOUND' });
    });
  });
});

describe('the devices of a campaign', () => {
  it('match every member of the targets, in one organization', async () => {
    await fleet(4);
    await fleet(
      9,
      `CASE WHEN n % 2 = 0 THEN '{hall-3}' ELSE '{}' END::text[],
       CASE WHEN n < 5 THEN 'pump' END, NULL`,
    );
    const parts = testCampaigns(test.database, [new FakeKind()]);
    const planned = async (targets: object): Promise<string[]> => {
      const all = { devices: null, tags: null, types: null, ...targets };
      const { waves } = await parts.campaigns.plan(org.author, newCampaign({ targets: all }));
      return waves.flatMap(({ devices }) => devices).toSorted();
    };
    expect((await planned({})).length).toBe(9);
    expect(await planned({ tags: ['hall-3', 'hall-4'] })).toEqual(['d0', 'd2', 'd4', 'd6', 'd8']);
    expect(await planned({ types: ['pump'], tags: ['hall-3'] })).toEqual(['d0', 'd2', 'd4']);
    expect(await planned({ devices: ['d0', 'd2'], types: ['pump'] })).toEqual(['d0', 'd2']);
    await expect(planned({ tags: ['none'] })).rejects.toMatchObject({ code: 'CAMPAIGN_INVALID' });
    await expect(planned({ devices: ['d0', 'd77'] })).rejects.toThrow(/"d77"/);
    await expect(planned({ devices: ['d8'], types: ['pump'] })).rejects.toThrow(/"d8"/);
  });

  it('are the same in a plan and in the campaign, and their types are asked about', async () => {
    await fleet(30, `'{}'::text[], CASE WHEN n < 5 THEN 'pump' END, NULL`);
    const kind = new FakeKind();
    const parts = testCampaigns(test.database, [kind]);
    const wanted = newCampaign({ policy: policyOf({ canary: 4, waves: [50, 100] }) });
    const plan = await parts.campaigns.plan(org.author, wanted);
    const { campaign } = await parts.campaigns.create(org.author, wanted);
    const made = await devicesOf(parts, campaign);
    expect(made.map(({ device }) => device)).toEqual(plan.waves.flatMap(({ devices }) => devices));
    expect(plan.waves.map(({ devices }) => devices.length)).toEqual([4, 11, 15]);
    kind.refuses = (types) => {
      throw new TypeError(types.map(String).toSorted().join());
    };
    await expect(parts.campaigns.plan(org.author, wanted)).rejects.toThrow('null,pump');
  });

  it('are in one campaign at a time that changes their key or firmware', async () => {
    await fleet(6);
    const rekey = new FakeKind('rekey');
    const update = new FakeKind('update');
    rekey.outcome = () => null;
    const parts = begin([rekey, update, new FakeKind()]);
    const targets = { devices: ['d0', 'd1', 'd2'], tags: null, types: null };
    const first = await make(parts, { kind: 'rekey', targets });
    const second = await make(parts, { kind: 'update' });
    expect(second.counts).toMatchObject({ skipped: 3, waiting: 3 });
    const skipped = (await devicesOf(parts, second)).filter(({ state }) => state === 'skipped');
    expect(skipped.map(({ device }) => device).toSorted()).toEqual(['d0', 'd1', 'd2']);
    expect(new Set(skipped.map(({ code }) => code))).toEqual(new Set(['in_other_campaign']));
    // A command changes nothing that both could want.
    expect((await make(parts, {})).counts.skipped).toBe(0);
    await expect(make(parts, { kind: 'update', targets })).rejects.toThrow(first.campaignId);
    rekey.outcome = () => SUCCEEDED;
    await ended(parts, first);
    expect((await make(parts, { kind: 'update', targets })).counts.skipped).toBe(0);
  });

  it('are the failed ones, or all unfinished ones, of a campaign that is tried again', async () => {
    await fleet(10);
    const kind = new FakeKind();
    kind.outcome = (device) => (['d3', 'd4'].includes(device) ? FAILED : SUCCEEDED);
    kind.skips = (device) => device === 'd5';
    const parts = begin([kind]);
    const campaign = await ended(parts, await make(parts));
    expect(campaign.counts).toMatchObject({ failed: 2, skipped: 1, succeeded: 7 });
    const again = async (scope: 'failed' | 'unfinished', idempotencyKey: string | null = null) =>
      parts.campaigns.retry(org.author, campaign.campaignId, { scope, idempotencyKey });
    const failed = await again('failed', 'again');
    const names = async (of: CampaignDetail): Promise<string[]> =>
      (await devicesOf(parts, of)).map(({ device }) => device).toSorted();
    expect(await names(failed.campaign)).toEqual(['d3', 'd4']);
    expect(failed.campaign).toMatchObject({ name: 'test', request: { command: 'relay' } });
    const repeated = await again('failed', 'again');
    expect(repeated).toMatchObject({
      isNew: false,
      campaign: { campaignId: failed.campaign.campaignId },
    });
    const unfinished = await again('unfinished');
    expect(await names(unfinished.campaign)).toEqual(['d3', 'd4', 'd5']);
    const done = await ended(parts, failed.campaign);
    expect(kind.begun.get('d3')).toBeGreaterThan(1);
    kind.outcome = () => SUCCEEDED;
    const last = await ended(parts, (await again('failed')).campaign);
    expect(done.counts.failed).toBe(2);
    await expect(
      parts.campaigns.retry(org.author, last.campaignId, { scope: 'failed', idempotencyKey: null }),
    ).rejects.toMatchObject({ code: 'CAMPAIGN_INVALID' });
  });
});

describe('the bounds of campaigns', () => {
  it('are those of devices, campaigns, rate and devices at a time, and waves', async () => {
    await fleet(1501);
    const parts = testCampaigns(test.database, [new FakeKind()]);
    const invalid = { code: 'CAMPAIGN_INVALID' };
    await expect(make(parts)).rejects.toThrow(/CAMPAIGN_DEVICES_MAX/);
    const targets = {
      devices: Array.from({ length: 150 }, (_, at) => `d${at}`),
      tags: null,
      types: null,
    };
    const refused = (more: Partial<CampaignDetail['policy']>) =>
      expect(make(parts, { targets, policy: policyOf(more) })).rejects.toMatchObject(invalid);
    await refused({ concurrent: 1001 });
    await refused({ ratePerMinute: 100_001 });
    await refused({ waves: null, waveDevices: 1 });
    await expect(make(parts, { kind: 'rekey', targets })).rejects.toMatchObject(invalid);
    for (let open = 0; open < campaignLimits.openMax; open += 1) await make(parts, { targets });
    await expect(make(parts, { targets })).rejects.toMatchObject({ code: 'CAMPAIGN_LIMIT' });
  });

  it('do not let the same idempotency key make two campaigns', async () => {
    await fleet(3);
    const parts = testCampaigns(test.database, [new FakeKind()]);
    const wanted = newCampaign({ idempotencyKey: 'once' });
    const both = await Promise.all([1, 2].map(() => parts.campaigns.create(org.author, wanted)));
    expect(new Set(both.map(({ campaign }) => campaign.campaignId)).size).toBe(1);
    expect(both.filter(({ isNew }) => isNew).length).toBe(1);
    await test.database.pool.query('DELETE FROM device WHERE organization_id = $1', [
      org.author.organizationId,
    ]);
    expect((await parts.campaigns.create(org.author, wanted)).isNew).toBe(false);
    await expect(
      parts.campaigns.create(org.author, { ...wanted, name: 'other' }),
    ).rejects.toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
  });

  it('keep the campaigns of another organization out of sight', async () => {
    await fleet(2);
    const parts = testCampaigns(test.database, [new FakeKind()]);
    const { campaignId } = await make(parts);
    await fleet(2);
    const { author } = org;
    const absent = { code: 'CAMPAIGN_NOT_FOUND' };
    const { campaigns } = parts;
    const { organizationId } = author;
    await expect(campaigns.get(organizationId, campaignId)).rejects.toMatchObject(absent);
    await expect(campaigns.cancel(author, campaignId)).rejects.toMatchObject(absent);
    const retry = { scope: 'failed', idempotencyKey: null } as const;
    await expect(campaigns.retry(author, campaignId, retry)).rejects.toMatchObject(absent);
    const page = { states: null, limit: 10, after: null };
    await expect(campaigns.devices({ organizationId, campaignId, ...page })).rejects.toMatchObject(
      absent,
    );
    const { rows } = await campaigns.list({ organizationId, kind: null, ...page });
    expect(rows).toEqual([]);
  });
});

describe('a campaign whose program dies', () => {
  it('goes on in the next one and begins with nothing twice', async () => {
    await fleet(60);
    let nowMs = Date.now();
    const now = (): number => nowMs;
    const effects = new Set<string>();
    const calls = new Map<string, number>();
    let isDead = false;
    const kindOf = (dies: boolean): FakeKind => {
      const kind = new FakeKind();
      kind.before = async (device) => {
        // What a device is begun with is done, and then nothing more is heard of this program.
        effects.add(device);
        calls.set(device, (calls.get(device) ?? 0) + 1);
        if (dies && effects.size > 20) {
          isDead = true;
          await new Promise<never>(() => undefined);
        }
      };
      return kind;
    };
    const dying = testCampaigns(test.database, [kindOf(true)], { now });
    dying.start();
    const policy = policyOf({ canary: 2, concurrent: 30 });
    const campaign = await make(dying, { policy });
    await eventually(() => expect(isDead).toBe(true));
    void dying.stop();
    const next = begin([kindOf(false)], { now });
    nowMs += 10_000;
    const done = await ended(next, campaign);
    expect(done).toMatchObject({ state: 'completed', counts: { succeeded: 60 } });
    expect(effects.size).toBe(60);
    // Asked again were those alone whose begin was not noted: one in each lane.
    const twice = [...calls.values()].filter((times) => times > 1);
    expect(twice.every((times) => times === 2)).toBe(true);
    expect(twice.length).toBeLessThanOrEqual(4);
  });

  it('keeps its rate and its devices at a time with two programs at work', async () => {
    await fleet(80);
    const first = new FakeKind();
    const second = new FakeKind();
    const open = new Set<string>();
    let activeMax = 0;
    for (const kind of [first, second]) {
      kind.before = (device) => {
        open.add(device);
        activeMax = Math.max(activeMax, open.size);
      };
      kind.outcome = (device) => {
        open.delete(device);
        return SUCCEEDED;
      };
    }
    const one = begin([first]);
    const two = begin([second]);
    const campaign = await make(one, { policy: policyOf({ concurrent: 7, canary: 2 }) });
    await ended(two, campaign);
    expect(activeMax).toBeLessThanOrEqual(7);
    expect(first.begun.size + second.begun.size).toBe(80);
  });

  it('over and over, while its kind has no database now and then, ends with every device and keeps its bound', async () => {
    await fleet(60);
    let nowMs = Date.now();
    const effects = new Set<string>();
    const random = createRandom(30);
    const unlucky = (): boolean => random.between(0, 1) < 0.2;
    const newKind = (): FakeKind => {
      const kind = new FakeKind();
      kind.before = (device) => {
        if (unlucky()) storeAway();
        // By the idempotency key: asked again, it finds what there is.
        effects.add(device);
        if (unlucky()) storeAway();
      };
      kind.outcome = () => (unlucky() ? null : SUCCEEDED);
      return kind;
    };
    let parts = testCampaigns(test.database, [newKind()], { now: () => nowMs });
    const policy = policyOf({ canary: 2, concurrent: 9, waves: [50, 100] });
    const campaign = await make(parts, { policy });
    for (let life = 0; life < 200; life += 1) {
      parts.start();
      await new Promise((resolve) => setTimeout(resolve, random.between(0, 30)));
      expect((await get(parts, campaign)).counts.active).toBeLessThanOrEqual(9);
      await parts.stop();
      nowMs += 5000;
      if ((await get(parts, campaign)).endedAt !== null) break;
      parts = testCampaigns(test.database, [newKind()], { now: () => nowMs });
    }
    const done = await get(parts, campaign);
    expect(done).toMatchObject({ state: 'completed', counts: { succeeded: 60 } });
    expect(effects.size).toBe(60);
  });

  it('waits for a database that is away, and goes on when it is back', async () => {
    await fleet(80);
    const kind = new FakeKind();
    const parts = begin([kind]);
    const policy = policyOf({ canary: 2, concurrent: 5 });
    const campaign = await make(parts, { policy });
    await eventually(() => expect(kind.begun.size).toBeGreaterThan(10));
    await whileAway(test, async () => {
      const begunBefore = kind.begun.size;
      await new Promise((resolve) => setTimeout(resolve, 300));
      // Those that had been claimed by then, and no more.
      expect(kind.begun.size).toBeLessThanOrEqual(begunBefore + 5);
      expect(kind.begun.size).toBeLessThan(80);
    });
    const done = await ended(parts, campaign);
    expect(done).toMatchObject({ state: 'completed', counts: { succeeded: 80 } });
  });

  it('that was cancelled meanwhile withdraws what may have been begun with, and begins with nothing', async () => {
    await fleet(3);
    let nowMs = Date.now();
    const now = (): number => nowMs;
    const dying = new FakeKind();
    dying.before = () => new Promise<never>(() => undefined);
    const before = testCampaigns(test.database, [dying], { now });
    before.start();
    const campaign = await make(before, { policy: policyOf({ canary: 1 }) });
    await eventually(async () => expect((await get(before, campaign)).counts.active).toBe(1));
    await before.campaigns.cancel(org.author, campaign.campaignId);
    void before.stop();
    const kind = new FakeKind();
    const after = begin([kind], { now });
    nowMs += 10_000;
    const done = await ended(after, campaign);
    expect(kind.begun.size).toBe(0);
    expect(kind.withdrawnUnknown.length).toBe(1);
    expect(done.counts).toMatchObject({ skipped: 3 });
  });
});
