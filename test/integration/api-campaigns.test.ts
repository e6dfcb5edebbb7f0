import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { createCommandCampaign } from '../../commands/campaign/command-campaign.ts';
import type { CampaignParts } from '../../commands/campaign/campaign.ts';
import type { Command } from '../../commands/command.ts';
import type { Commands } from '../../commands/commands.ts';
import type { CommandDesk } from '../../commands/command-desk.ts';
import { createTestApi, type ApiAnswer, type TestApi } from '../support/api.ts';
import { testCampaigns } from '../support/campaigns.ts';
import { createTestDownlink } from '../support/downlink.ts';

const CAMPAIGNS = '/api/v1/campaigns';
const RELAY = { command: 'relay', args: { on: true }, ttl: '1h' };
const POLICY = { canary: 0, waves: [100], ratePerMinute: 6000, settle: '0s' };

let t: TestApi;
let commands: Commands;
let desk: CommandDesk;
let running: CampaignParts | null = null;
const keys = new Map<string, string>();
beforeAll(async () => {
  t = await createTestApi({ settings: { CAMPAIGNS_OPEN_MAX: '3' } });
  // The parts of the API's own program; its campaigns are run by the tests.
  const { downlink } = createTestDownlink(t.test.database, t.registry);
  commands = downlink.desk.commands;
  desk = downlink.desk.commandDesk;
  for (let number = 0; number < 8; number += 1) {
    const device = `d${number}`;
    const body = { device, tags: number < 4 ? ['hall-3'] : [], type: number < 6 ? 'pump' : null };
    await t.send('POST', '/api/v1/devices', body);
    keys.set(device, (await t.send('POST', `/api/v1/devices/${device}/keys`, {})).body.key);
  }
});
afterAll(() => t.stop());
afterEach(async () => {
  await running?.stop();
  running = null;
  await t.test.database.pool.query('UPDATE campaign SET ended_at = now() WHERE ended_at IS NULL');
  await t.test.database.pool.query('DELETE FROM command');
  await t.test.database.pool.query('UPDATE command_slot SET head_command_id = NULL');
});

function run(more: { commands?: Pick<Commands, 'cancel'> } = {}): void {
  const kind = createCommandCampaign({
    pool: t.test.database.pool,
    desk,
    commands: more.commands ?? commands,
  });
  running = testCampaigns(t.test.database, [kind]);
  commands.onChanged((command: Command) => running?.noteCommand(command));
  running.start();
}

const make = (body: object, key?: string | null): Promise<ApiAnswer> =>
  t.send('POST', CAMPAIGNS, { name: 'test', request: RELAY, policy: POLICY, ...body }, key);
const all = { targets: { all: true } };

async function answerHead(device: string, more: object): Promise<boolean> {
  const key = keys.get(device) ?? '';
  const { command } = (await t.send('GET', '/api/v1/device/commands', undefined, key)).body;
  if (command === null) return false;
  const ack = { id: command.id, ...more };
  return (await t.send('POST', '/api/v1/device/commands/ack', ack, key)).status === 204;
}

async function ended(id: string): Promise<ApiAnswer['body']> {
  return vi.waitFor(
    async () => {
      const { body } = await t.send('GET', `${CAMPAIGNS}/${id}`);
      expect(body.endedAt, JSON.stringify(body.devices)).not.toBeNull();
      return body;
    },
    { timeout: 30_000, interval: 20 },
  );
}

describe('POST /api/v1/campaigns', () => {
  it('makes a campaign with defaults, with a Location that answers', async () => {
    const made = await t.send('POST', CAMPAIGNS, {
      name: 'relays on',
      targets: { tags: ['hall-3'], types: ['pump'] },
      request: RELAY,
    });
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({
      kind: 'command',
      name: 'relays on',
      state: 'running',
      request: RELAY,
      policy: {
        canary: 1,
        waves: [10, 50, 100],
        waveDevices: null,
        ratePerMinute: 60,
        concurrent: 50,
        stop: { failedPercent: 20, failedCount: null },
        settle: '1m',
        deviceTimeout: '1h',
      },
      wave: 0,
      devices: { waiting: 4, active: 0, succeeded: 0, failed: 0, skipped: 0 },
      stopCode: null,
      endedAt: null,
    });
    const location = made.headers.get('location') ?? '';
    expect(await t.send('GET', location)).toMatchObject({ status: 200, body: made.body });
    const { body } = await t.send('GET', CAMPAIGNS);
    expect(body.data.map(({ id }: { id: string }) => id)).toContain(made.body.id);
  });

  it('says with dryRun=true what it would do, and does nothing', async () => {
    const before = (await t.send('GET', CAMPAIGNS)).body.data.length;
    const body = {
      name: 'dry',
      ...all,
      request: RELAY,
      policy: { canary: ['d7'], waves: [50, 100] },
    };
    const planned = await t.send('POST', `${CAMPAIGNS}?dryRun=true`, body);
    expect(planned.status).toBe(200);
    expect(planned.body).toMatchObject({ dryRun: true, skipped: [], skippedDevices: 0 });
    expect(planned.body.waves).toMatchObject([
      { wave: 0, devices: 1, first: ['d7'] },
      { wave: 1, devices: 3 },
      { wave: 2, devices: 4 },
    ]);
    expect((await t.send('GET', CAMPAIGNS)).body.data.length).toBe(before);
  });

  it('makes one campaign of one Idempotency-Key', async () => {
    const post = async (name: string): Promise<{ status: number; id: string; code: string }> => {
      const answer = await fetch(t.url + CAMPAIGNS, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${t.acme.adminKey}`,
          'content-type': 'application/json',
          'idempotency-key': 'once',
        },
        body: JSON.stringify({ name, ...all, request: RELAY }),
      });
      const body = (await answer.json()) as { id: string; code: string };
      return { status: answer.status, id: body.id, code: body.code };
    };
    const first = await post('a');
    expect(first.status).toBe(201);
    expect(await post('a')).toMatchObject({ status: 200, id: first.id });
    expect(await post('b')).toMatchObject({ status: 409, code: 'IDEMPOTENCY_KEY_REUSED' });
  });

  it.each([
    ['no targets', { targets: {} }, /targets/],
    ['targets and all', { targets: { all: true, tags: ['hall-3'] } }, /targets/],
    ['a device that is none', { targets: { devices: ['d0', 'nobody'] } }, /nobody/],
    ['nobody', { targets: { tags: ['hall-9'] } }, /no device matches/],
    [
      'a canary outside of the targets',
      { targets: { devices: ['d0'] }, policy: { canary: ['d1'] } },
      /is .{2}d1/,
    ],
    ['waves that fall', { ...all, policy: { waves: [50, 10, 100] } }, /waves/],
    ['waves that end early', { ...all, policy: { waves: [50] } }, /waves/],
    ['two kinds of waves', { ...all, policy: { waves: [100], waveDevices: 5 } }, /policy/],
    ['a rate of nothing', { ...all, policy: { ratePerMinute: 0 } }, /ratePerMinute/],
    ['too high a rate', { ...all, policy: { ratePerMinute: 6001 } }, /RATE_PER_MINUTE_MAX/],
    ['too many at a time', { ...all, policy: { concurrent: 1001 } }, /CONCURRENT_MAX/],
    ['a settle time of a year', { ...all, policy: { settle: '300d' } }, /settle/],
    ['an unknown kind', { ...all, kind: 'dance' }, /kind/],
    ['a command without a name', { ...all, request: {} }, /command/],
    ['a command of the system', { ...all, request: { command: 'sys.ota' } }, /sys\./],
    ['approval', { ...all, request: { ...RELAY, approval: true } }, /second person/],
    ['a strange member', { ...all, surprise: 1 }, /surprise/],
  ])('refuses %s', async (_what, body, told) => {
    const refused = await make(body);
    expect(refused.status).toBe(400);
    expect(JSON.stringify(refused.body)).toMatch(told);
  });

  it('holds arguments against the definitions of the types that match, and refuses those that need a second person', async () => {
    const schema = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
    const path = '/api/v1/command-definitions';
    const { organizationId } = t.acme.author;
    await t.test.database.pool.query(
      `INSERT INTO command_definition (organization_id, device_type, name, schema, needs_approval, updated_by)
       VALUES ($1, 'pump', 'relay', $2, false, 'test'), ($1, 'pump', 'open', '{}', true, 'test')`,
      [organizationId, JSON.stringify(schema)],
    );
    expect((await t.send('GET', path)).status).toBeLessThan(500);
    await vi.waitFor(
      async () => {
        const wrong = await make({ ...all, request: { command: 'relay', args: { on: 1 } } });
        expect(wrong).toMatchObject({ status: 400, body: { code: 'COMMAND_INVALID' } });
      },
      // An organization without definitions is remembered as one for two seconds.
      { timeout: 20_000, interval: 200 },
    );
    const dangerous = await make({ targets: { types: ['pump'] }, request: { command: 'open' } });
    expect(dangerous).toMatchObject({ status: 400 });
    expect(dangerous.body.detail).toMatch(/second person/);
    await t.test.database.pool.query('DELETE FROM command_definition');
  });

  it('has its bound of campaigns that have not ended', async () => {
    for (let open = 0; open < 3; open += 1) expect((await make(all)).status).toBe(201);
    expect(await make(all)).toMatchObject({ status: 409, body: { code: 'CAMPAIGN_LIMIT' } });
  });
});

describe('a campaign over HTTP', () => {
  it('is paused, resumed, cancelled and tried again, with its devices in pages', async () => {
    const { id } = (await make(all)).body;
    const post = (verb: string) => t.send('POST', `${CAMPAIGNS}/${id}/${verb}`);
    expect(await post('pause')).toMatchObject({ status: 200, body: { state: 'paused' } });
    expect(await post('resume')).toMatchObject({ status: 200, body: { state: 'running' } });
    expect(await post('retry-failed')).toMatchObject({ status: 409 });
    expect(await post('cancel')).toMatchObject({ status: 200, body: { state: 'cancelled' } });
    expect(await post('resume')).toMatchObject({ status: 409, body: { code: 'CAMPAIGN_STATE' } });
    run();
    await ended(id);
    const names: string[] = [];
    let cursor = '';
    do {
      const path = `${CAMPAIGNS}/${id}/devices?limit=3&state=skipped${cursor}`;
      const { body } = await t.send('GET', path);
      names.push(...body.data.map(({ device }: { device: string }) => device));
      cursor = body.next === null ? '' : `&cursor=${body.next}`;
    } while (cursor !== '');
    expect(names.toSorted()).toEqual([...keys.keys()]);
    expect(await post('retry-failed')).toMatchObject({ status: 400 });
    const again = await post('retry-failed?unfinished=true');
    expect(again).toMatchObject({ status: 201, body: { devices: { waiting: 8 } } });
  });

  it('is seen by its own organization alone', async () => {
    const { id } = (await make(all)).body;
    for (const path of ['', '/devices']) {
      const answer = await t.send('GET', `${CAMPAIGNS}/${id}${path}`, undefined, t.other.adminKey);
      expect(answer).toMatchObject({ status: 404, body: { code: 'CAMPAIGN_NOT_FOUND' } });
    }
    const { body } = await t.send('GET', CAMPAIGNS, undefined, t.other.adminKey);
    expect(body).toEqual({ data: [], next: null });
    for (const strange of ['x', '%00']) {
      expect((await t.send('GET', `${CAMPAIGNS}/${strange}`)).status).toBe(404);
    }
  });
});

describe('a campaign of commands', () => {
  it('queues one command for each device, in its name, and ends with their answers', async () => {
    const { body: made } = await make({
      ...all,
      policy: { ...POLICY, stop: { failedPercent: null } },
    });
    run();
    const ends = new Map<string, object>([
      ['d0', { st: 'err', code: 'valve', msg: 'stuck' }],
      ['d1', { st: 'no', code: 'unknown' }],
    ]);
    await vi.waitFor(
      async () => {
        const { body } = await t.send('GET', `${CAMPAIGNS}/${made.id}`);
        expect(body.devices.active).toBe(8);
      },
      { timeout: 20_000 },
    );
    // Active is a device as soon as it is claimed; its command comes a moment later.
    for (const device of keys.keys()) {
      await vi.waitFor(async () => {
        expect(await answerHead(device, ends.get(device) ?? { st: 'ok' })).toBe(true);
      }, 20_000);
    }
    const done = await ended(made.id);
    expect(done).toMatchObject({ state: 'completed', devices: { succeeded: 6, failed: 2 } });
    const { body } = await t.send('GET', `${CAMPAIGNS}/${made.id}/devices?state=failed`);
    const failed = body.data.toSorted((a: { device: string }, b: { device: string }) =>
      a.device.localeCompare(b.device),
    );
    expect(failed).toMatchObject([
      { device: 'd0', code: 'valve', detail: 'stuck' },
      { device: 'd1', code: 'unknown' },
    ]);
    const { rows } = await t.test.database.pool.query(
      'SELECT origin, campaign_id, count(*)::int4 AS commands FROM command GROUP BY 1, 2',
    );
    expect(rows).toEqual([{ origin: 'campaign', campaign_id: made.id, commands: 8 }]);
  });

  it('that stops cancels what has not been answered', async () => {
    const policy = { ...POLICY, stop: { failedPercent: null, failedCount: 2 } };
    const { body: made } = await make({ ...all, policy });
    run();
    await vi.waitFor(async () => {
      expect(await answerHead('d0', { st: 'err', code: 'valve' })).toBe(true);
    }, 20_000);
    await vi.waitFor(async () => {
      expect(await answerHead('d1', { st: 'err', code: 'valve' })).toBe(true);
    }, 20_000);
    const done = await ended(made.id);
    expect(done).toMatchObject({ state: 'stopped', stopReason: '2 devices failed: valve' });
    expect(done.devices).toMatchObject({ failed: 2, active: 0, waiting: 0 });
    const { rows } = await t.test.database.pool.query(
      'SELECT state, count(*)::int4 AS commands FROM command GROUP BY 1 ORDER BY 1',
    );
    expect(rows.find(({ state }) => state === 'queued')).toBeUndefined();
    expect(rows.find(({ state }) => state === 'cancelled')?.commands).toBe(done.devices.skipped);
  });

  it('takes a command that people cancelled for no failure of the device', async () => {
    const { body: made } = await make({ targets: { devices: ['d2'] } });
    run();
    const id = await vi.waitFor(async () => {
      const { body } = await t.send('GET', `${CAMPAIGNS}/${made.id}/devices`);
      expect(body.data[0].commandId).not.toBeNull();
      return body.data[0].commandId as string;
    }, 20_000);
    await t.send('DELETE', `/api/v1/devices/d2/commands/${id}`);
    const done = await ended(made.id);
    expect(done).toMatchObject({ state: 'completed', devices: { skipped: 1, failed: 0 } });
  });

  it('finds the command that it queued before a crash, whatever has become of definitions', async () => {
    const { body: made } = await make({ targets: { devices: ['d3'] } });
    const kind = createCommandCampaign({ pool: t.test.database.pool, desk, commands });
    const { rows } = await t.test.database.pool.query<{ device_id: number }>(
      `SELECT device_id FROM device WHERE slug = 'd3'`,
    );
    const campaign = {
      campaignId: made.id as string,
      organizationId: t.acme.author.organizationId,
      request: RELAY,
      createdBy: 'test',
      deviceTimeoutMs: 3_600_000,
    };
    const target = {
      deviceId: rows[0]?.device_id ?? 0,
      device: 'd3',
      deviceType: 'pump',
      commandId: null,
      facts: {},
      startedAt: new Date(),
    };
    const first = await kind.begin(campaign, target);
    expect(await kind.begin(campaign, target)).toEqual(first);
    await kind.withdraw(campaign, [target]);
    const ends = await kind.judge(campaign, [
      { ...target, commandId: 'commandId' in first ? first.commandId : null },
    ]);
    expect(ends).toMatchObject([{ state: 'skipped', code: 'cancelled' }]);
    await kind.withdraw(campaign, [target]);
  });
});
