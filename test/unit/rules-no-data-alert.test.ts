import { afterEach, describe, expect, it } from 'vitest';
import { compileRule } from '../../rules/compile.ts';
import { DeviceEvaluation } from '../../rules/evaluation/device-evaluation.ts';
import type { OpenAlert } from '../../rules/evaluation/device-load.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import { NoDataRun, SECOND, START_MS, StoredFleet } from '../support/no-data.ts';

const runs: NoDataRun[] = [];
afterEach(async () => {
  for (const run of runs.splice(0)) await run.noData.stop();
});

/** One run of the program with the rule `noData: 1m` for device 1. */
class AlertRun {
  readonly transitions: Transition[] = [];
  readonly run: NoDataRun;
  readonly evaluation: DeviceEvaluation;

  constructor(fleet: StoredFleet, seconds: number, rule: object = {}) {
    const definition = parseRule({
      name: 'mute',
      severity: 'high',
      when: { noData: '1m' },
      for: '0s',
      keepFiringFor: '30s',
      ...rule,
    });
    const keys = { ruleId: 1, publicId: 'mute', organizationId: 1, version: 1 };
    const compiled = compileRule(
      { ...keys, mode: 'enabled', definition },
      { windowSamplesMax: 100 },
    );
    const device = { deviceId: 1, organizationId: 1, slug: 'one', tags: [], type: null };
    this.evaluation = new DeviceEvaluation(device, [compiled], {
      emit: (transition) => this.transitions.push(transition),
    });
    this.run = new NoDataRun(fleet, START_MS + seconds * 1000);
    runs.push(this.run);
  }

  async start(open: readonly OpenAlert[] = []): Promise<void> {
    await this.run.noData.start();
    this.evaluation.load({
      device: this.evaluation.device,
      connection: 'offline',
      connectionMicros: 0,
      open,
      history: [],
      catchUpFromMicros: Infinity,
      settled: [],
    });
    await this.run.watch([1], 60 * SECOND);
    this.pass(0);
  }

  /** Time goes by, and evaluation is told what is found. */
  pass(seconds: number): void {
    let seen = 0;
    const tell = (): void => {
      for (const { ruleId, silence, atMicros } of this.run.changes.slice(seen)) {
        this.evaluation.setSilence(ruleId, silence, atMicros);
      }
      seen = this.run.changes.length;
      this.evaluation.takeTimers(this.run.nowMicros);
    };
    tell();
    this.run.pass(seconds, tell);
    tell();
    this.run.changes.length = 0;
  }

  /** Changes of the state, and seconds since the start. */
  get steps(): (readonly [string, number])[] {
    return this.transitions
      .filter(({ from, to }) => from !== to)
      .map(({ to, atMicros }) => [to, atMicros / SECOND - START_MS / 1000] as const);
  }
}

async function firing(fleet: StoredFleet): Promise<AlertRun> {
  fleet.uptime = { outages: [], upMicros: START_MS * 1000 };
  const alert = new AlertRun(fleet, 0);
  await alert.start();
  alert.run.connection(1, 'online');
  alert.run.reading(1);
  alert.pass(70);
  expect(alert.steps).toEqual([['firing', 60]]);
  return alert;
}

describe('alert of missing readings', () => {
  it('fires at the deadline and resolves keep_firing_for behind the next reading', async () => {
    const alert = await firing(new StoredFleet());
    alert.run.reading(1);
    alert.pass(20);
    expect(alert.steps).toHaveLength(1);
    alert.pass(15);
    expect(alert.steps).toEqual([
      ['firing', 60],
      ['inactive', 100],
    ]);
    expect(alert.transitions[0]?.reason).toBe('no_data');
  });

  it('stays while the silence becomes another one', async () => {
    const alert = await firing(new StoredFleet());
    alert.run.connection(1, 'offline');
    alert.pass(100);
    alert.run.connection(1, 'online');
    alert.run.noData.refused(1, alert.run.nowMicros);
    alert.pass(100);
    expect(alert.steps).toHaveLength(1);
  });

  it('L-06 goes over a restart: it stays, is not fired again, and resolves when data is back', async () => {
    const fleet = new StoredFleet();
    const before = await firing(fleet);
    const open = before.evaluation.openAlerts;
    expect(open).toHaveLength(1);
    await before.run.crash();

    const after = new AlertRun(fleet, 80);
    await after.start(open);
    after.pass(600);
    expect(after.steps).toEqual([]);
    after.run.reading(1);
    after.pass(40);
    expect(after.steps).toEqual([['inactive', 710]]);
    expect(after.transitions[0]?.alertId).toBe(before.transitions[0]?.alertId);
  });

  it('L-06 makes the same alert again when the first one was never written', async () => {
    const fleet = new StoredFleet();
    const before = await firing(fleet);
    await before.run.noData.write();
    await before.run.crash();
    const after = new AlertRun(fleet, 80);
    await after.start();
    after.pass(400);
    expect(after.steps).toEqual([['firing', 60]]);
    expect(after.transitions[0]?.alertId).toBe(before.transitions[0]?.alertId);
  });

  it('does not come of another kind of silence than the rule names', async () => {
    const fleet = new StoredFleet();
    fleet.uptime = { outages: [], upMicros: START_MS * 1000 };
    const alert = new AlertRun(fleet, 0, { when: { noData: '1m', kinds: ['garbage'] } });
    await alert.start();
    alert.run.connection(1, 'online');
    alert.run.reading(1);
    alert.pass(90);
    expect(alert.steps).toEqual([]);
    alert.run.noData.refused(1, alert.run.nowMicros);
    alert.pass(10);
    expect(alert.steps).toEqual([['firing', 90]]);
  });
});
