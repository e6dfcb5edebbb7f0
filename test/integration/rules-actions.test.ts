import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CommandInvalidError } from '../../command-errors.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Author } from '../../registry/devices.ts';
import { ActionMetrics } from '../../rules/action/action-metrics.ts';
import { ActionRunner, type ActionCommand } from '../../rules/action/action-runner.ts';
import { ActionRuns } from '../../rules/action/action-runs.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import { createTestAlertLog, stepsOf, type StepsOf } from '../support/alert-log.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const RULE_ID = 7;
const PUBLIC_ID = '0199aaaa-0000-7000-8000-000000000007';
const log = pino({ level: 'silent' });

let test: TestDatabase;
let author: Author;
let of: StepsOf;
let slug = '';
const running: ActionRunner[] = [];
beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
});
afterAll(() => test.drop());
let devices = 0;
beforeEach(async () => {
  await test.database.pool.query('DELETE FROM rule_action_run');
  devices += 1;
  slug = `d${devices}`;
  const { deviceId } = await createTestRegistry(test.database).devices.create(author, { slug });
  of = { organizationId: author.organizationId, deviceId, ruleId: RULE_ID };
});
afterEach(async () => {
  for (const runner of running.splice(0)) await runner.stop();
});

interface Opened {
  readonly runner: ActionRunner;
  readonly sent: ActionCommand[];
  readonly outcomes: () => Promise<Record<string, number>>;
}

function open(
  actions: readonly object[],
  send: (command: ActionCommand) => Promise<void> = async () => undefined,
  waitingMax = 100,
): Opened {
  const definition = parseRule({
    name: 'hot',
    severity: 'high',
    when: { metric: 'temp', op: '>', value: 80 },
    actions: actions.map((action) => ({ fresh: null, ...action })),
  });
  const rule = { ruleId: RULE_ID, publicId: PUBLIC_ID, mode: 'enabled', definition };
  const sent: ActionCommand[] = [];
  const registry = new Registry();
  const runner = new ActionRunner({
    runs: new ActionRuns(test.database),
    async send(command) {
      await send(command);
      sent.push(command);
      return { commandId: '0199aaaa-0000-7000-8000-0000000000c1' };
    },
    rules: () => [rule as unknown as CompiledRule],
    limits: { ageMaxMs: 300_000, loopMax: 3, loopMs: 60_000, waitingMax },
    createMetrics: (waiting) => new ActionMetrics(registry, waiting, waitingMax),
    now: Date.now,
    log,
  });
  running.push(runner);
  const outcomes = async (): Promise<Record<string, number>> => {
    const metric = await registry.getSingleMetric('puback_rule_actions_runs_total')?.get();
    return Object.fromEntries(
      (metric?.values ?? []).map(({ labels, value }) => [labels['outcome'], value]),
    );
  };
  return { runner, sent, outcomes };
}

/** The steps of an alert that became active so many seconds ago. */
function steps(secondsAgo: number, groupKey = ''): ReturnType<typeof stepsOf> {
  return stepsOf({ ...of, groupKey }, (Date.now() - secondsAgo * 1000) * 1000);
}

async function runs(): Promise<{ outcome: string; detail: string; depth: number }[]> {
  const { rows } = await test.database.pool.query<{
    outcome: string;
    detail: string;
    depth: number;
  }>('SELECT outcome, detail, depth FROM rule_action_run ORDER BY occurred_at, sequence, action');
  return rows;
}

const ended = (count: number): Promise<void> =>
  eventually('runs', async () => (await runs()).length === count);

describe('an action of a rule', () => {
  it('sends one command when its alert fires and another when it is resolved', async () => {
    const { runner, sent } = open([
      { command: 'fan', args: { on: true }, replace: 'fan' },
      { on: 'resolved', command: 'fan', args: { on: false }, replace: 'fan' },
    ]);
    const { pending, firing, resolved } = steps(10);
    runner.noteRecorded([pending, firing, resolved]);
    await ended(2);
    const common = { organizationId: of.organizationId, device: slug, actor: `rule/${PUBLIC_ID}` };
    expect(sent).toMatchObject([
      { ...common, name: 'fan', args: { on: true }, ttlMs: 600_000, replaceKey: 'fan' },
      { ...common, name: 'fan', args: { on: false } },
    ]);
    expect(sent[0]?.idempotencyKey).toBe(`action:${firing.alertId}:1:0`);
    expect(await runs()).toMatchObject([
      { outcome: 'sent', detail: 'sent fan {"on":true}' },
      { outcome: 'sent', detail: 'sent fan {"on":false}' },
    ]);
  });

  it('for another device goes to that device', async () => {
    await createTestRegistry(test.database).devices.create(author, { slug: `${slug}-fan` });
    const { runner, sent } = open([{ command: 'fan', device: `${slug}-fan` }]);
    runner.noteRecorded([steps(10).firing]);
    await ended(1);
    expect(sent[0]?.device).toBe(`${slug}-fan`);
  });

  it('of a shadow alert, a late one, or a change of severity sends nothing', async () => {
    const { runner, sent } = open([{ command: 'fan' }]);
    const { firing } = steps(10);
    const quiet: Partial<Transition>[] = [
      { isShadow: true },
      { isHistorical: true },
      { from: 'firing', reason: 'severity_raised' },
    ];
    runner.noteRecorded(quiet.map((over) => ({ ...firing, ...over })));
    runner.noteRecorded([{ ...steps(10, 'other').firing }]);
    await ended(1);
    expect(sent).toHaveLength(1);
  });

  it('in simulation records what it would have sent, and sends nothing', async () => {
    const { runner, sent } = open([{ command: 'fan', args: { on: true }, simulate: true }]);
    runner.noteRecorded([steps(10).firing]);
    await ended(1);
    expect(sent).toEqual([]);
    expect(await runs()).toMatchObject([
      { outcome: 'simulated', detail: 'would have sent fan {"on":true}' },
    ]);
  });

  it('keeps its gap and its number an hour for each device', async () => {
    const { runner, sent, outcomes } = open([{ command: 'fan', maxPerHour: 2, minGap: '0s' }]);
    for (const key of ['a', 'b', 'c']) runner.noteRecorded([steps(200, key).firing]);
    await ended(3);
    expect(sent).toHaveLength(2);
    expect(await outcomes()).toEqual({ sent: 2, max_per_hour: 1 });
    const gap = open([{ command: 'fan', maxPerHour: 100, minGap: '1h' }]);
    gap.runner.noteRecorded([steps(200, 'd').firing]);
    await ended(4);
    expect(await gap.outcomes()).toEqual({ min_gap: 1 });
  });

  it('wants a device that was heard of late', async () => {
    const { runner, sent, outcomes } = open([{ command: 'fan', fresh: '5m', minGap: '0s' }]);
    runner.noteRecorded([steps(10, 'silent').firing]);
    await ended(1);
    expect([sent.length, await outcomes()]).toEqual([0, { not_fresh: 1 }]);
    await test.database.pool.query(
      `INSERT INTO device_latest (device_id, metric_id, time, value, received_at, quality)
       VALUES ($1, 1, now(), 1, now(), 0)`,
      [of.deviceId],
    );
    runner.noteRecorded([steps(10, 'heard').firing]);
    await ended(2);
    expect(sent).toHaveLength(1);
  });

  it('that leads to its own alert again is blocked as a loop', async () => {
    const { runner, sent } = open([{ command: 'fan', maxPerHour: 100, minGap: '0s' }]);
    for (let round = 0; round < 5; round += 1) {
      // The alert fires now, behind the command that was just sent.
      runner.noteRecorded([{ ...steps(2, `r${round}`).firing, atMicros: Date.now() * 1000 }]);
      await ended(round + 1);
    }
    expect(sent).toHaveLength(3);
    const recorded = await runs();
    expect(recorded.map(({ outcome }) => outcome)).toEqual([
      'sent',
      'sent',
      'sent',
      'blocked',
      'blocked',
    ]);
    expect(recorded[3]?.detail).toMatch(/^loop: 4 commands of rules in a row/);
  });

  it('that is refused says why, and the next one is taken', async () => {
    let refusals = 1;
    const { runner, sent } = open([{ command: 'fan', minGap: '0s' }], async () => {
      refusals -= 1;
      if (refusals >= 0) throw new CommandInvalidError('there is no fan');
    });
    runner.noteRecorded([steps(100, 'a').firing, steps(100, 'b').firing]);
    await ended(2);
    expect(sent).toHaveLength(1);
    expect((await runs())[0]).toMatchObject({
      outcome: 'blocked',
      detail: 'COMMAND_INVALID: there is no fan',
    });
  });

  it('waits for a database that is away', async () => {
    let failures = 3;
    const { runner, sent } = open([{ command: 'fan' }], async () => {
      failures -= 1;
      if (failures >= 0) throw new StoreUnavailableError();
    });
    runner.noteRecorded([steps(10).firing]);
    await ended(1);
    expect(sent).toHaveLength(1);
  });

  it('is found again after a crash, and once only', async () => {
    await test.database.pool.query(
      `INSERT INTO alert_rule (rule_id, public_id, organization_id, name, mode, version, revision)
       OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, 'hot', 'enabled', 1, 1)`,
      [RULE_ID, PUBLIC_ID, of.organizationId],
    );
    await test.database.pool.query(
      `INSERT INTO alert_rule_version (rule_id, version, organization_id, definition, created_by)
       VALUES ($1, 1, $2, '{"actions":[{}]}', 'test')`,
      [RULE_ID, of.organizationId],
    );
    const { alertLog } = createTestAlertLog(test.database, { queueMax: 100 });
    const { pending, firing } = steps(10);
    for (const step of [pending, firing]) alertLog.append(step);
    await alertLog.stop();
    const first = open([{ command: 'fan', minGap: '0s' }]);
    first.runner.start();
    await ended(1);
    expect(first.sent).toHaveLength(1);
    const second = open([{ command: 'fan', minGap: '0s' }]);
    second.runner.start();
    second.runner.noteRecorded([steps(20, 'other').firing]);
    await ended(2);
    expect(second.sent.map(({ idempotencyKey }) => idempotencyKey)).not.toContain(
      first.sent[0]?.idempotencyKey,
    );
  });

  it('is found again when the crash came between two actions of a step, and the first is not taken twice', async () => {
    await test.database.pool.query(
      `UPDATE alert_rule_version SET definition = '{"actions":[{},{"on":"resolved"},{}]}'
       WHERE rule_id = $1`,
      [RULE_ID],
    );
    await test.database.pool.query(
      `UPDATE alert_transition SET recorded_at = recorded_at - interval '1 hour'`,
    );
    const { alertLog } = createTestAlertLog(test.database, { queueMax: 100 });
    const { pending, firing } = steps(15, 'between');
    for (const step of [pending, firing]) alertLog.append(step);
    await alertLog.stop();
    const actions = [
      { command: 'fan', minGap: '0s' },
      { command: 'off', on: 'resolved' },
      { command: 'horn', minGap: '0s' },
    ];
    let isKilled = false;
    const first = open(actions, async ({ name }) => {
      if (name !== 'horn') return;
      isKilled = true;
      throw new StoreUnavailableError(new Error('gone'));
    });
    first.runner.start();
    await eventually('killed before the second', () => isKilled);
    await first.runner.stop();
    expect(first.sent.map(({ name }) => name)).toEqual(['fan']);
    const second = open(actions);
    second.runner.start();
    await eventually('the second is sent', () => second.sent.length > 0);
    expect(second.sent.map(({ name }) => name)).toEqual(['horn']);
  });

  it('beyond the bound of what waits is left to the next look', async () => {
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { runner, sent } = open(
      [{ command: 'fan', maxPerHour: 100, minGap: '0s' }],
      () => held,
      3,
    );
    for (let at = 0; at < 10; at += 1) runner.noteRecorded([steps(200 + at * 70, `k${at}`).firing]);
    release();
    await ended(3);
    expect(sent.length).toBeLessThanOrEqual(3);
  });
});
