import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { pruneAlerts } from '../../rules/log/alert-pruning.ts';
import type { AlertLog } from '../../rules/log/alert-log.ts';
import { AlertWriter } from '../../rules/log/alert-writer.ts';
import { Checkpoint } from '../../rules/log/checkpoint.ts';
import { recordedTransitions, recordHistorical } from '../../rules/log/historical.ts';
import { listOpenAlerts } from '../../rules/log/open-alerts.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import type { Author } from '../../registry/devices.ts';
import { createTestAlertLog, S, stepsOf, T0, type StepsOf } from '../support/alert-log.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { whileAway, whileLocked } from '../support/database-faults.ts';
import { eventually } from '../support/eventually.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

let test: TestDatabase;
let author: Author;
let of: StepsOf;
const running: AlertLog[] = [];
beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
});
afterAll(() => test.drop());
let devices = 0;
beforeEach(async () => {
  devices += 1;
  const slug = `d${devices}`;
  const { deviceId } = await createTestRegistry(test.database).devices.create(author, { slug });
  of = { organizationId: author.organizationId, deviceId };
});
afterEach(async () => {
  for (const alertLog of running.splice(0)) await alertLog.stop();
});

function open(queueMax = 1000): ReturnType<typeof createTestAlertLog> {
  const opened = createTestAlertLog(test.database, { queueMax });
  running.push(opened.alertLog);
  return opened;
}

async function write(...transitions: Transition[]): Promise<void> {
  const { alertLog } = open();
  for (const transition of transitions) alertLog.append(transition);
  await alertLog.drain();
}

interface StepRow {
  sequence: number;
  from_state: string;
  to_state: string;
  notified: boolean;
  detail: { operandsCut: number };
  bytes: number;
}

async function stepsIn(deviceId = of.deviceId): Promise<StepRow[]> {
  const { rows } = await test.database.pool.query<StepRow>(
    `SELECT sequence, from_state, to_state, notified_at IS NOT NULL AS notified, detail,
       octet_length(detail::text) AS bytes
     FROM alert_transition WHERE device_id = $1 ORDER BY at, sequence`,
    [deviceId],
  );
  return rows;
}

async function alertsIn(deviceId = of.deviceId): Promise<Record<string, unknown>[]> {
  const { rows } = await test.database.pool.query<Record<string, unknown>>(
    'SELECT * FROM alert WHERE device_id = $1 ORDER BY active_at, rule_id',
    [deviceId],
  );
  return rows;
}

const steps = async (): Promise<string[]> =>
  (await stepsIn()).map((row) => `${row.sequence} ${row.from_state} ${row.to_state}`);

describe('an alert that is recorded', () => {
  it('has its steps in the outbox and its state beside them (L-03)', async () => {
    const { pending, firing } = stepsOf(of);
    await write(pending, firing);
    expect(await stepsIn()).toMatchObject([
      { sequence: 0, from_state: 'inactive', to_state: 'pending', notified: false },
      { sequence: 1, from_state: 'pending', to_state: 'firing', notified: false },
    ]);
    expect(await alertsIn()).toMatchObject([
      {
        state: 'firing',
        severity: 'high',
        value: 83,
        sequence: 1,
        active_at: new Date(T0 / 1000),
        fired_at: new Date(T0 / 1000 + 2000),
        resolved_at: null,
        changed_at: new Date(T0 / 1000 + 2000),
        labels: { hall: '3' },
        snapshot: { phase: 'firing', level: 4 },
      },
    ]);
  });

  it('keeps the microseconds of its times', async () => {
    await write(stepsOf(of, T0 + 123_457).pending);
    const { rows } = await test.database.pool.query<{ at: string }>(
      `SELECT (extract(epoch FROM active_at) * 1000000)::int8::text AS at FROM alert
       WHERE device_id = $1`,
      [of.deviceId],
    );
    expect(rows[0]?.at).toBe(String(T0 + 123_457));
  });

  it('is over once it is resolved, and its key is free for the next', async () => {
    const { pending, firing, resolved } = stepsOf(of);
    await write(pending, firing);
    await write(resolved, stepsOf(of, T0 + 20 * S).pending);
    expect(await alertsIn()).toMatchObject([
      { state: 'resolved', resolved_at: new Date(T0 / 1000 + 10_000), snapshot: null, value: 83 },
      { state: 'pending' },
    ]);
  });

  it('is written once, however often it is evaluated', async () => {
    const { pending, firing, resolved } = stepsOf(of);
    await write(pending, firing);
    const { pool } = test.database;
    await pool.query('UPDATE alert_transition SET notified_at = now() WHERE device_id = $1', [
      of.deviceId,
    ]);
    const { alertLog, count } = open();
    for (const transition of [pending, firing, resolved, pending, firing, resolved]) {
      alertLog.append(transition);
    }
    await alertLog.drain();
    expect((await stepsIn()).map(({ notified }) => notified)).toEqual([true, true, false]);
    expect(await alertsIn()).toMatchObject([{ state: 'resolved', sequence: 2 }]);
    expect(await count('puback_rules_transitions_dropped_total', 'duplicate')).toBe(5);
    expect(await count('puback_rules_transitions_recorded_total')).toBe(1);
  });

  it('is told of behind its COMMIT', async () => {
    const { alertLog } = open();
    const told: string[] = [];
    let found: Promise<string[]> = Promise.resolve([]);
    alertLog.onCommitted((transitions) => {
      told.push(...transitions.map(({ to }) => to));
      found = steps();
    });
    const { pending, firing } = stepsOf(of);
    alertLog.append(pending);
    alertLog.append(firing);
    await alertLog.drain();
    expect(told).toEqual(['pending', 'firing']);
    expect(await found).toEqual(['0 inactive pending', '1 pending firing']);
  });

  it('is nothing to be told of when it is in shadow or historical', async () => {
    const shadow = stepsOf({ ...of, isShadow: true, ruleId: 2 });
    const late = stepsOf({ ...of, isHistorical: true });
    await write(shadow.pending, late.pending, late.firing);
    expect((await stepsIn()).map(({ notified }) => notified)).toEqual([true, true, true]);
    expect(await alertsIn()).toMatchObject(
      expect.arrayContaining([
        expect.objectContaining({ is_shadow: true, is_historical: false }),
        expect.objectContaining({ is_shadow: false, is_historical: true, state: 'firing' }),
      ]) as object,
    );
    const listed = await listOpenAlerts(test.database.pool);
    expect(listed.filter(({ deviceId }) => deviceId === of.deviceId)).toHaveLength(1);
  });

  it('keeps its labels, and its silence, when it ends because its rule is gone', async () => {
    const shadow = stepsOf({ ...of, isShadow: true, ruleId: 2 });
    const live = stepsOf(of);
    await write(live.pending, live.firing, shadow.pending, shadow.firing);
    const end = { labels: {}, annotations: {}, isShadow: false, reason: 'rule_deleted' } as const;
    await write({ ...live.resolved, ...end }, { ...shadow.resolved, ...end });
    expect(await alertsIn()).toMatchObject([
      { rule_id: 1, state: 'resolved', labels: { hall: '3' }, is_shadow: false },
      { rule_id: 2, state: 'resolved', labels: { hall: '3' }, is_shadow: true },
    ]);
    const { rows } = await test.database.pool.query<{ rule_id: number }>(
      'SELECT rule_id FROM alert_transition WHERE device_id = $1 AND notified_at IS NULL',
      [of.deviceId],
    );
    expect(rows.map((row) => row.rule_id)).toEqual([1, 1, 1]);
  });

  it('has at most 1 KB of detail a step, as PostgreSQL writes it', async () => {
    const operands = Array.from({ length: 16 }, (_, i) => ({
      name: `avg("metric":${i}, 5m) über alles`.repeat(5),
      value: i % 2 === 0 ? 1e290 / 3 : 'ä'.repeat(500),
      timeMicros: T0 + i,
      against: '> 1e-300',
      holds: true,
    }));
    const one = stepsOf({ ...of, operands: operands.slice(0, 1), value: 1e-290 });
    const many = stepsOf({ ...of, ruleId: 2, operands });
    await write(one.pending, one.firing, many.pending, many.firing);
    const rows = await stepsIn();
    expect(rows.every(({ bytes }) => bytes <= 1024)).toBe(true);
    expect(rows.filter(({ detail }) => detail.operandsCut > 0)).toHaveLength(2);
    expect(Math.max(...rows.map(({ bytes }) => bytes))).toBeGreaterThan(600);
  });
});

describe('two programs on one database', () => {
  it('make one alert of the same readings (L-08)', async () => {
    const logs = [open(), open()];
    const { pending, firing, resolved } = stepsOf(of);
    for (const transition of [pending, firing, resolved]) {
      for (const { alertLog } of logs) alertLog.append(transition);
      await Promise.all(logs.map(({ alertLog }) => alertLog.drain()));
    }
    expect(await alertsIn()).toMatchObject([{ state: 'resolved', sequence: 2 }]);
    expect(await stepsIn()).toHaveLength(3);
  });

  it('make one alert of it when they begin at different times, and one is told to load again (L-08)', async () => {
    const ours = stepsOf(of);
    const theirs = stepsOf(of, T0 + S);
    await write(ours.pending, ours.firing);
    const { alertLog } = open();
    const diverged: number[] = [];
    alertLog.onDiverged((deviceId) => diverged.push(deviceId));
    for (const transition of [theirs.pending, theirs.firing, theirs.resolved]) {
      alertLog.append(transition);
      await alertLog.drain();
    }
    expect(await alertsIn()).toMatchObject([
      { alert_id: ours.pending.alertId, state: 'resolved', sequence: 2 },
    ]);
    expect(await steps()).toEqual(['0 inactive pending', '1 pending firing', '2 firing inactive']);
    expect(new Set(diverged)).toEqual(new Set([of.deviceId]));
  });

  it('keep what the first one wrote when the second is behind (L-08)', async () => {
    const { pending, cleared, firing } = stepsOf(of);
    await write(pending, cleared);
    const { alertLog } = open();
    const diverged: number[] = [];
    alertLog.onDiverged((deviceId) => diverged.push(deviceId));
    alertLog.append(firing);
    await alertLog.drain();
    expect(await alertsIn()).toMatchObject([{ state: 'inactive', sequence: 1 }]);
    expect(diverged).toEqual([of.deviceId]);
  });

  it('never have two open alerts of one key, however they race', async () => {
    const { pool } = test.database;
    const writers = [new AlertWriter(pool), new AlertWriter(pool), new AlertWriter(pool)];
    for (let round = 0; round < 10; round += 1) {
      const ruleId = 100 + round;
      await Promise.all(
        writers.map((writer, i) => {
          const { pending, firing } = stepsOf({ ...of, ruleId }, T0 + i * S);
          return writer.write([pending, firing]);
        }),
      );
    }
    const alerts = await alertsIn();
    expect(alerts).toHaveLength(10);
    expect(new Set(alerts.map(({ rule_id: ruleId }) => ruleId)).size).toBe(10);
  });
});

describe('the alert log', () => {
  it('waits while the database is away, says so once, and writes all in order', async () => {
    const { alertLog, said, count } = open();
    const { pending, firing, resolved } = stepsOf(of);
    await whileAway(test, async () => {
      for (const transition of [pending, firing, resolved]) alertLog.append(transition);
      await eventually('several attempts', async () => {
        return (await count('puback_rules_record_failures_total')) >= 3;
      });
      expect(alertLog.isAway).toBe(true);
      expect(alertLog.size).toBe(3);
    });
    await alertLog.drain();
    expect(await steps()).toEqual(['0 inactive pending', '1 pending firing', '2 firing inactive']);
    expect(said).toEqual([
      'steps of alerts not written, trying again',
      'steps of alerts are written again',
    ]);
  });

  it('goes on without a step that the database refuses', async () => {
    const { alertLog, said, count } = open();
    const tooLong = stepsOf({ ...of, ruleId: 2, groupKey: randomText(20_000) });
    const { pending, firing } = stepsOf(of);
    const other = stepsOf({ ...of, ruleId: 3 });
    for (const transition of [pending, tooLong.pending, firing, other.pending]) {
      alertLog.append(transition);
    }
    await alertLog.drain();
    expect(await alertsIn()).toMatchObject([{ state: 'firing' }, { state: 'pending' }]);
    expect(await count('puback_rules_transitions_dropped_total', 'refused')).toBe(1);
    expect(said).toEqual(['step of an alert refused by the database, left out']);
  });

  it('goes on without a step of which no row can be made', async () => {
    const { alertLog, count } = open();
    const { pending, firing } = stepsOf(of);
    alertLog.append({ ...stepsOf({ ...of, ruleId: 2 }).pending, atMicros: NaN });
    alertLog.append(pending);
    alertLog.append({ ...stepsOf({ ...of, ruleId: 3 }).pending, alertId: 'none' });
    alertLog.append(firing);
    await alertLog.drain();
    expect(await alertsIn()).toMatchObject([{ state: 'firing' }]);
    expect(await count('puback_rules_transitions_dropped_total', 'refused')).toBe(2);
  });

  it('stores texts that PostgreSQL cannot hold as they are', async () => {
    const value = 'a\0b\ud800';
    await write(stepsOf({ ...of, groupKey: value, value }).pending);
    expect(await alertsIn()).toMatchObject([{ group_key: 'a\ufffdb\ufffd' }]);
    // Another program's, so to speak.
    await write(stepsOf({ ...of, groupKey: value, value }, T0 + S).firing);
    expect(await alertsIn()).toMatchObject([{ state: 'firing' }]);
  });

  it('drops what is of a device that was deleted', async () => {
    await createTestRegistry(test.database).devices.remove(author, `d${devices}`);
    const { alertLog, count } = open();
    alertLog.append(stepsOf(of).pending);
    await alertLog.drain();
    expect(await alertsIn()).toEqual([]);
    expect(await count('puback_rules_transitions_dropped_total', 'device_deleted')).toBe(1);
  });

  it('drops what is of a device of another organization', async () => {
    await write(stepsOf({ ...of, organizationId: of.organizationId + 1 }).pending);
    expect(await alertsIn()).toEqual([]);
  });

  it('says when it is full, and gives up what comes far beyond that', async () => {
    const { alertLog, said, count } = open(10);
    const checkpoint = new Checkpoint(test.database.pool);
    const before = await checkpoint.read();
    await whileLocked(test, 'alert', async () => {
      for (let i = 0; i < 50; i += 1) {
        expect(alertLog.isFull).toBe(i >= 10);
        alertLog.append(stepsOf({ ...of, ruleId: 200 + i }).pending);
      }
      expect(alertLog.size).toBe(40);
    });
    await alertLog.drain();
    expect(alertLog.isFull).toBe(false);
    expect(await alertsIn()).toHaveLength(40);
    expect(await count('puback_rules_transitions_dropped_total', 'queue_full')).toBe(10);
    expect(said).toEqual(['too many steps of alerts wait, further ones are given up']);
    // So that the next start evaluates again what was given up.
    alertLog.noteEvaluated(T0 + 1e15);
    await alertLog.stop();
    expect(await checkpoint.read()).toBe(before);
  });

  it('writes a thousand alerts that fire at once in seconds (L-02)', async () => {
    const { alertLog } = open(20_000);
    const startedMs = performance.now();
    for (let i = 0; i < 1000; i += 1) {
      const { pending, firing } = stepsOf({ ...of, ruleId: 1000 + i });
      alertLog.append(pending);
      alertLog.append(firing);
    }
    await alertLog.drain();
    expect(await alertsIn()).toHaveLength(1000);
    expect(performance.now() - startedMs).toBeLessThan(10_000);
  });
});

describe('the checkpoint', () => {
  it('begins with the first start, and stays where it was at the next', async () => {
    await test.database.pool.query('DELETE FROM rule_checkpoint');
    const checkpoint = new Checkpoint(test.database.pool);
    expect(await checkpoint.read()).toBe(null);
    expect(await checkpoint.begin(T0)).toBe(T0);
    expect(await checkpoint.begin(T0 + S)).toBe(T0);
    expect(await checkpoint.read()).toBe(T0);
  });

  it('moves over what is recorded, and never back', async () => {
    const checkpoint = new Checkpoint(test.database.pool);
    const { alertLog } = open();
    alertLog.start();
    alertLog.append(stepsOf(of).pending);
    alertLog.noteEvaluated(T0 + 5 * S);
    await eventually('the checkpoint', async () => (await checkpoint.read()) === T0 + 5 * S);
    expect(alertLog.checkpointMicros).toBe(T0 + 5 * S);
    await checkpoint.move(T0);
    expect(await checkpoint.read()).toBe(T0 + 5 * S);
  });

  it('stays behind what waits to be recorded, and moves at the end', async () => {
    const checkpoint = new Checkpoint(test.database.pool);
    const before = await checkpoint.read();
    const { alertLog } = open();
    alertLog.start();
    await whileLocked(test, 'alert', async () => {
      alertLog.append(stepsOf(of).pending);
      alertLog.noteEvaluated(T0 + 100 * S);
      await new Promise((resolve) => setTimeout(resolve, 2500));
      expect(await checkpoint.read()).toBe(before);
    });
    alertLog.noteEvaluated(T0 + 101 * S);
    await alertLog.stop();
    expect(await checkpoint.read()).toBe(T0 + 101 * S);
  });

  it('is left where it is when the program ends without the database', async () => {
    const checkpoint = new Checkpoint(test.database.pool);
    const before = await checkpoint.read();
    const { alertLog, said } = open();
    await whileAway(test, async () => {
      alertLog.append(stepsOf(of).pending);
      alertLog.noteEvaluated(T0 + 200 * S);
      await alertLog.stop();
    });
    expect(await checkpoint.read()).toBe(before);
    expect(said).toContain('steps of alerts left to the next start');
  });
});

describe('history that late readings change', () => {
  it('is recorded beside the live alert, and replaced by the next re-evaluation', async () => {
    const { pool } = test.database;
    const live = stepsOf(of);
    await write(live.pending, live.firing);
    const late = stepsOf({ ...of, isHistorical: true });
    await recordHistorical(pool, [late.pending, late.firing, late.resolved]);
    await recordHistorical(pool, [late.pending, late.cleared]);
    expect(await alertsIn()).toMatchObject(
      expect.arrayContaining([
        expect.objectContaining({ state: 'firing', is_historical: false }),
        expect.objectContaining({ state: 'inactive', is_historical: true, sequence: 1 }),
      ]) as object,
    );
    expect(await stepsIn()).toHaveLength(4);
    expect(await stepsIn()).toEqual(
      expect.arrayContaining([expect.objectContaining({ sequence: 1, notified: true })]),
    );
    const recorded = await recordedTransitions(pool, { ...of, ruleId: 1 }, T0, T0 + 60 * S);
    expect(recorded.map(({ to, atMicros }) => [to, atMicros])).toEqual([
      ['pending', T0],
      ['firing', T0 + 2 * S],
    ]);
    expect(recorded[0]?.detail.operands[0]).toMatchObject({ name: 'temp', against: '> 80' });
    expect(await recordedTransitions(pool, { ...of, ruleId: 1 }, T0 + 1, T0 + 2 * S)).toEqual([]);
    const foreign = { ...of, organizationId: of.organizationId + 1, ruleId: 1 };
    expect(await recordedTransitions(pool, foreign, T0, T0 + 60 * S)).toEqual([]);
  });
});

describe('pruning of alerts', () => {
  it('deletes those that ended long ago with all that hangs on them, and no open one', async () => {
    const { pool } = test.database;
    const DAY = 86_400 * S;
    const ended = stepsOf({ ...of, ruleId: 1 }, T0 - 400 * DAY);
    const open = stepsOf({ ...of, ruleId: 2 }, T0 - 400 * DAY);
    const young = stepsOf({ ...of, ruleId: 3 }, T0 - 10 * DAY);
    const lasting = stepsOf({ ...of, ruleId: 4 }, T0 - 400 * DAY);
    const lately = { ...lasting.resolved, atMicros: T0 - DAY };
    for (const { pending, firing } of [ended, open, young, lasting]) await write(pending, firing);
    await write(ended.resolved, young.resolved, lately);
    await pool.query(
      `INSERT INTO alert_note VALUES (gen_random_uuid(), $1, $2, now(), 'test', 'comment', 'x')`,
      [ended.pending.alertId, of.organizationId],
    );
    const deleted = await pruneAlerts(pool, 365 * 86_400_000, T0 / 1000);
    expect(deleted).toBe(1);
    const left = await alertsIn();
    expect(new Set(left.map(({ rule_id: ruleId }) => ruleId))).toEqual(new Set([2, 3, 4]));
    const { rows } = await pool.query('SELECT FROM alert_transition WHERE alert_id = $1', [
      ended.pending.alertId,
    ]);
    expect(rows).toEqual([]);
    const notes = await pool.query('SELECT FROM alert_note WHERE alert_id = $1', [
      ended.pending.alertId,
    ]);
    expect(notes.rows).toEqual([]);
  });

  it('deletes what was written of a device while it was deleted', async () => {
    const { pool } = test.database;
    await write(stepsOf(of).pending);
    await pool.query('DELETE FROM device WHERE device_id = $1', [of.deviceId]);
    const listed = await listOpenAlerts(pool);
    expect(listed.filter(({ deviceId }) => deviceId === of.deviceId)).toEqual([]);
    expect(await pruneAlerts(pool, 365 * 86_400_000, T0 / 1000)).toBe(1);
    expect(await alertsIn()).toEqual([]);
    expect(await stepsIn()).toEqual([]);
  });
});

/** Not to be compressed, so that an index cannot take it. */
function randomText(length: number): string {
  let state = 1;
  return Array.from({ length }, () => {
    state = (state * 48_271) % 2_147_483_647;
    return String.fromCharCode(97 + (state % 26));
  }).join('');
}
