import { pino } from 'pino';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import type { LoadedDevice, LoadRequest, OpenAlert } from '../../rules/evaluation/device-load.ts';
import type { LateReading } from '../../rules/evaluation/device-evaluation.ts';
import { RuleEvaluator } from '../../rules/evaluation/evaluator.ts';
import type { NoDataWatch } from '../../rules/no-data/no-data-port.ts';
import { STEPS_PER_MINUTE_MAX } from '../../rules/evaluation/rule-guard.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import { DEVICE, loadedOf, ruleOf, stepOf, type SampleValues } from '../support/evaluation.ts';

const SECOND = 1_000_000;
/** Wall clock at the beginning of each test, in seconds. */
const NOW_S = 1_800_000_000;

class Live {
  readonly transitions: Transition[] = [];
  readonly requests: LoadRequest[] = [];
  readonly suspended: string[] = [];
  readonly late: LateReading[] = [];
  readonly watched: string[] = [];
  readonly devices = new Map<number, Partial<LoadedDevice>>([[DEVICE.deviceId, {}]]);
  readonly evaluated: number[] = [];
  inScope: number[] = [];
  isLoaderAway = false;
  isFull = false;
  drained: Promise<void> = Promise.resolve();
  nowS = NOW_S;
  readonly evaluator: RuleEvaluator;
  readonly #series = new Map<string, object>();

  constructor(rules: readonly CompiledRule[], deviceReadingsHeldMax = 100) {
    const isFull = (): boolean => this.isFull;
    this.evaluator = new RuleEvaluator({
      loader: { load: (requests) => this.#load(requests) },
      alertLog: {
        append: (transition) => this.transitions.push(transition),
        get isFull() {
          return isFull();
        },
        isAway: false,
        noteEvaluated: (micros) => this.evaluated.push(micros),
        drain: () => this.drained,
      },
      findDevices: () => Promise.resolve(this.inScope),
      noData: {
        watch: ({ deviceId, ruleId }: NoDataWatch) => this.watched.push(`${deviceId}/${ruleId}`),
        unwatch: (deviceId, ruleId) => this.watched.push(`no ${deviceId}/${ruleId}`),
      },
      onSuspend: (ruleId, reason) => this.suspended.push(`${ruleId}: ${reason}`),
      onLate: (late) => this.late.push(late),
      now: () => this.nowS * 1000,
      limits: { evaluationUsMax: 1000, timerSlackMs: 1000, deviceReadingsHeldMax },
      log: pino({ level: 'silent' }),
    });
    this.evaluator.replaceRules(rules);
  }

  get steps(): string[] {
    return this.transitions.map(stepOf).map((step) => step.replace(/\d+$/, this.#shortTime));
  }

  /** Times in seconds behind the beginning. */
  sample(atS: number, values: SampleValues, isLive = true, deviceId = DEVICE.deviceId): this {
    const timeMicros = (NOW_S + atS) * SECOND;
    for (const [metric, value] of Object.entries(values)) {
      const series = this.#seriesOf(deviceId, metric);
      const isText = typeof value === 'string';
      this.evaluator.reading(series, timeMicros, isText ? null : value, isText ? value : null);
    }
    const receivedMicros = this.nowS * SECOND;
    this.evaluator.sampleEnd(deviceId, { timeMicros, receivedMicros, isLive });
    return this;
  }

  tickAt(atS: number): this {
    this.nowS = NOW_S + atS;
    this.evaluator.tick();
    return this;
  }

  /** Until what was begun (loads, exchanges) has come to its end. */
  async settled(): Promise<this> {
    for (let turn = 0; turn < 20; turn += 1) await new Promise((done) => setImmediate(done));
    return this;
  }

  #seriesOf(deviceId: number, metric: string): object {
    const key = `${deviceId}/${metric}`;
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const series = this.evaluator.seriesOf(DEVICE.organizationId, deviceId, metric);
    this.#series.set(key, series);
    return series;
  }

  readonly #shortTime = (micros: string): string => String(Number(micros) - NOW_S);

  #load(requests: readonly LoadRequest[]): Promise<LoadedDevice[]> {
    this.requests.push(...requests);
    if (this.isLoaderAway) return Promise.reject(new Error('database away'));
    return Promise.resolve(
      requests.flatMap(({ deviceId }) => {
        const known = this.devices.get(deviceId);
        if (known === undefined) return [];
        return [loadedOf({ device: { ...DEVICE, deviceId }, ...known })];
      }),
    );
  }
}

let live: Live;

function liveWith(rules: readonly CompiledRule[], deviceReadingsHeldMax?: number): Live {
  live = new Live(rules, deviceReadingsHeldMax);
  return live;
}

afterEach(async () => {
  vi.useRealTimers();
  await live.evaluator.stop();
});

function openAlertOf(rule: CompiledRule, open: Partial<OpenAlert> = {}): OpenAlert {
  return {
    alertId: '01234567-0000-8000-8000-000000000000',
    ruleId: rule.ruleId,
    ruleVersion: rule.version,
    deviceId: DEVICE.deviceId,
    groupKey: '',
    state: {
      phase: 'firing',
      level: 4,
      activeAt: (NOW_S - 100) * SECOND,
      firedAt: (NOW_S - 100) * SECOND,
      clearSince: null,
      raise: null,
      lower: null,
    },
    sequence: 0,
    occurrences: 1,
    changedMicros: (NOW_S - 100) * SECOND,
    ...open,
  };
}

describe('live evaluation', () => {
  it('loads a device with its first reading that a rule looks at, and evaluates what came meanwhile', async () => {
    liveWith([ruleOf()]).sample(1, { flow: 1 });
    await live.settled();
    expect(live.requests).toEqual([]);
    live.sample(2, { temp: 90 }).sample(3, { temp: 20 });
    expect(live.steps).toEqual([]);
    await live.settled();
    expect(live.requests).toHaveLength(1);
    expect(live.requests[0]?.beforeMicros).toBe((NOW_S + 2) * SECOND);
    expect(live.steps).toEqual(['1 inactive → firing at 2', '1 firing → inactive at 3']);
    live.sample(4, { temp: 90, flow: 1 });
    expect(live.steps).toHaveLength(3);
  });

  it('evaluates what has waited a little at a time, and holds up nothing else meanwhile', async () => {
    const lasting = (rule: CompiledRule): CompiledRule => ({
      ...rule,
      evaluate: (context) => {
        const untilMs = performance.now() + 0.5;
        while (performance.now() < untilMs);
        return rule.evaluate(context);
      },
    });
    liveWith([lasting(ruleOf())]);
    for (let deviceId = 100; deviceId < 140; deviceId += 1) {
      live.devices.set(deviceId, {});
      for (let atS = 0; atS < 4; atS += 1) live.sample(atS, { temp: 90 }, true, deviceId);
    }
    for (let atS = 0; atS < 90; atS += 1) live.sample(atS, { temp: atS }, true);
    const held = () => live.evaluator.gauges.heldReadings;
    let [most, last] = [0, held()];
    while (held() > 0) {
      await new Promise((done) => setImmediate(done));
      most = Math.max(most, last - held());
      last = held();
    }
    // Of 250, of which each takes half a millisecond.
    expect(most).toBeLessThan(120);
    const ends = live.transitions.filter(({ deviceId }) => deviceId === DEVICE.deviceId);
    expect(ends.map(({ to, atMicros }) => `${to} at ${atMicros / SECOND - NOW_S}`)).toEqual([
      'firing at 81',
    ]);
    expect(new Set(live.transitions.map(({ deviceId }) => deviceId)).size).toBe(41);
  });

  it('meets no rule of another organization, and none that the device is not in scope of', async () => {
    liveWith([
      ruleOf({}, { ruleId: 1, organizationId: 2 }),
      ruleOf({ scope: { tags: ['hall-2'] } }, { ruleId: 2 }),
      ruleOf({ scope: { types: ['heater'], devices: ['boiler'] } }, { ruleId: 3 }),
    ]);
    live.sample(1, { temp: 90 });
    await live.settled();
    expect(live.steps).toEqual(['3 inactive → firing at 1']);
  });

  it('tries again while the database is away, and holds readings within a bound', async () => {
    liveWith([ruleOf()], 10);
    live.isLoaderAway = true;
    for (let atS = 0; atS < 30; atS += 1) live.sample(atS, { temp: atS < 5 ? 90 : 20 });
    await live.settled();
    expect(live.evaluator.gauges.heldReadings).toBe(10);
    expect(live.evaluator.counters.leftOut.held).toBe(20);
    live.isLoaderAway = false;
    await expect.poll(() => live.evaluator.evaluationOf(DEVICE.deviceId)).not.toBeNull();
    expect(live.evaluator.gauges.heldReadings).toBe(0);
    // What was left out is history by then.
    expect(live.requests.at(-1)?.beforeMicros).toBe((NOW_S + 20) * SECOND);
    expect(live.evaluator.counters.loadFailures).toBeGreaterThan(0);
  });

  it('says how far everything that was received is evaluated', async () => {
    liveWith([ruleOf()]).tickAt(2);
    // A reading of so long ago may be that of an alert that is not recorded as pending yet.
    expect(live.evaluated.at(-1)).toBe((NOW_S + 1) * SECOND);
    live.isLoaderAway = true;
    live.sample(1, { temp: 90 });
    await live.settled();
    live.tickAt(5);
    expect(live.evaluated.at(-1)).toBe((NOW_S + 2) * SECOND - 1);
    live.isLoaderAway = false;
    await expect.poll(() => live.steps).toHaveLength(1);
    live.tickAt(7);
    expect(live.evaluated.at(-1)).toBe((NOW_S + 6) * SECOND);
    live.evaluator.replaceRules([ruleOf({ allowedLateness: '5s' }), ruleOf({}, { ruleId: 2 })]);
    live.tickAt(17);
    expect(live.evaluated.at(-1)).toBe((NOW_S + 11) * SECOND);
  });

  it('takes a timer by the wall clock when the slack has passed', async () => {
    liveWith([ruleOf({ for: '10s' })]).sample(0, { temp: 90 });
    await live.settled();
    live.tickAt(10.9);
    expect(live.steps.at(-1)).not.toContain('firing');
    live.tickAt(11.2);
    expect(live.steps.at(-1)).toBe('1 pending → firing at 10');
  });

  it('goes on with the timers of devices that stay silent behind a restart', async () => {
    const rule = ruleOf({ for: '60s' });
    liveWith([rule]);
    const activeAt = (NOW_S - 30) * SECOND;
    const state = {
      ...openAlertOf(rule).state,
      phase: 'pending',
      activeAt,
      firedAt: null,
    } as const;
    live.devices.set(DEVICE.deviceId, {
      open: [openAlertOf(rule, { state, changedMicros: activeAt })],
    });
    live.evaluator.start([DEVICE.deviceId]);
    await live.settled();
    live.tickAt(32);
    expect(live.steps).toEqual(['1 pending → firing at 30']);
  });

  it('waits while too many steps wait to be written, and goes on in order [L-02]', async () => {
    liveWith([ruleOf()], 5).sample(0, { temp: 20 });
    await live.settled();
    live.isFull = true;
    for (let atS = 1; atS <= 8; atS += 1) live.sample(atS, { temp: atS < 8 ? 90 : 20 });
    live.tickAt(9);
    expect(live.steps).toEqual([]);
    expect(live.evaluator.gauges.heldReadings).toBe(5);
    expect(live.evaluator.counters.leftOut.held).toBe(3);
    live.isFull = false;
    live.tickAt(10);
    expect(live.steps).toEqual(['1 inactive → firing at 4', '1 firing → inactive at 8']);
  });

  it('never takes readings of a sample that did not end for those of another device', async () => {
    liveWith([ruleOf()]).devices.set(8, {});
    live.sample(1, { temp: 20 }).sample(1, { temp: 20 }, true, 8);
    await live.settled();
    const broken = live.evaluator.seriesOf(DEVICE.organizationId, 7, 'temp');
    live.evaluator.reading(broken, (NOW_S + 2) * SECOND, 90, null);
    live.sample(2, {}, true, 8).sample(3, { temp: 20 }, true, 8);
    expect(live.steps).toEqual([]);
  });

  it('leaves history out that somebody imports, and notes it for rules that evaluate again', async () => {
    liveWith([ruleOf({ late: 're-evaluate' })]).sample(0, { temp: 20 });
    await live.settled();
    live.sample(-86_400, { temp: 90 }, false);
    expect(live.steps).toEqual([]);
    expect(live.late).toMatchObject([{ metric: 'temp', deviceId: DEVICE.deviceId }]);
    live.sample(1, { temp: 90 }, false);
    expect(live.steps).toEqual(['1 inactive → firing at 1']);
  });

  it('evaluates events with what the device sent', async () => {
    liveWith([ruleOf({ when: { event: 'door.open', holds: '10s' }, groupBy: 'door' })]);
    const times = { timeMicros: NOW_S * SECOND, receivedMicros: NOW_S * SECOND, isLive: true };
    live.evaluator.event(DEVICE, { ...times, name: 'door.shut', content: null });
    await live.settled();
    expect(live.requests).toEqual([]);
    live.evaluator.event(DEVICE, { ...times, name: 'door.open', content: '{"door":"north"}' });
    await live.settled();
    expect(live.steps).toEqual(['1 north inactive → firing at 0']);
  });

  it('follows connections, also of devices that send nothing', async () => {
    liveWith([ruleOf({ when: { connection: 'offline' }, for: '5s' })]);
    live.evaluator.setConnection(DEVICE, 'offline', (NOW_S + 1) * SECOND);
    await live.settled();
    live.tickAt(8);
    expect(live.steps.at(-1)).toBe('1 pending → firing at 6');
    live.evaluator.setConnection(DEVICE, 'online', (NOW_S + 9) * SECOND);
    expect(live.steps.at(-1)).toBe('1 firing → inactive at 9');
  });

  it('has devices looked for that their rules expect readings of', async () => {
    const rule = ruleOf({ when: { noData: '5m' } });
    live = new Live([]);
    live.inScope = [DEVICE.deviceId];
    live.evaluator.replaceRules([rule]);
    await live.settled();
    expect(live.watched).toEqual(['7/1']);
    const change = { deviceId: 7, organizationId: 1, ruleId: 1 };
    live.evaluator.setSilence({ ...change, silence: null, atMicros: NOW_S * SECOND });
    live.evaluator.setSilence({ ...change, silence: 'silent', atMicros: (NOW_S + 300) * SECOND });
    expect(live.steps).toEqual(['1 inactive → firing at 300']);
    live.evaluator.replaceRules([]);
    await live.settled();
    expect(live.watched).toEqual(['7/1', 'no 7/1']);
  });

  it('ends an alert of a rule that looks for silence only once it is known that there is none', async () => {
    const rule = ruleOf({ when: { noData: '5m' } });
    liveWith([rule]);
    live.devices.set(DEVICE.deviceId, { open: [openAlertOf(rule)] });
    live.evaluator.start([DEVICE.deviceId]);
    await live.settled();
    expect(live.steps).toEqual([]);
    const change = { deviceId: 7, organizationId: 1, ruleId: 1 };
    live.evaluator.setSilence({ ...change, silence: null, atMicros: (NOW_S + 1) * SECOND });
    expect(live.steps).toEqual(['1 firing → inactive at 1']);
  });

  it('compares with what the fleet says', async () => {
    const when = { metric: 'temp', op: '>', fleet: 'avg', tag: 'hall-1', plus: 5 };
    liveWith([ruleOf({ when, scope: { devices: ['boiler'] } })]);
    for (const deviceId of [1, 2, 3]) {
      live.devices.set(deviceId, { device: { ...DEVICE, deviceId, slug: `other-${deviceId}` } });
      live.sample(0, { temp: 20 }, true, deviceId);
    }
    await live.settled();
    live.sample(1, { temp: 26 });
    await live.settled();
    expect(live.steps).toEqual([]);
    live.sample(2, { temp: 28 });
    expect(live.steps).toEqual(['1 inactive → firing at 2']);
  });
});

describe('rules that change while they are evaluated [L-07]', () => {
  it('end their alerts when they are disabled, deleted or out of scope', async () => {
    for (const reason of ['rule_disabled', 'rule_deleted'] as const) {
      liveWith([ruleOf(), ruleOf({}, { ruleId: 2 })]).sample(1, { temp: 90 });
      await live.settled();
      live.evaluator.replaceRules([ruleOf({}, { ruleId: 2 })], () => reason);
      await live.settled();
      expect(live.transitions.slice(2)).toMatchObject([{ ruleId: 1, to: 'inactive', reason }]);
      live.sample(2, { temp: 20 });
      expect(live.steps.at(-1)).toBe('2 firing → inactive at 2');
      await live.evaluator.stop();
    }
    liveWith([ruleOf({ scope: { tags: ['hall-1'] } })]).sample(1, { temp: 90 });
    await live.settled();
    live.devices.set(DEVICE.deviceId, { device: { ...DEVICE, tags: [] } });
    live.evaluator.deviceChanged(DEVICE.deviceId, 1);
    await live.settled();
    expect(live.transitions.at(-1)).toMatchObject({ to: 'inactive', reason: 'out_of_scope' });
  });

  it('end alerts of rules that were gone when the device was loaded: there is no orphan', async () => {
    liveWith([]);
    live.devices.set(DEVICE.deviceId, { open: [openAlertOf(ruleOf())] });
    live.evaluator.start([DEVICE.deviceId]);
    await live.settled();
    expect(live.transitions).toMatchObject([
      { sequence: 1, to: 'inactive', reason: 'rule_disabled', severity: 'high' },
    ]);
  });

  it('go on under the new version when they still hold, without a second alert', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 90 });
    await live.settled();
    live.evaluator.replaceRules([
      ruleOf({ when: { metric: 'temp', op: '>', value: 85 } }, { version: 2 }),
    ]);
    await live.settled();
    live.sample(2, { temp: 20 });
    expect(live.transitions.map(({ ruleVersion }) => ruleVersion)).toEqual([1, 2]);
    expect(new Set(live.transitions.map(({ alertId }) => alertId)).size).toBe(1);
  });

  it('look back at history that is loaded first when they need any', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 20 });
    await live.settled();
    const history = [0, 1].map((atS) => ({
      metric: 'temp',
      timeMicros: (NOW_S + atS) * SECOND,
      value: 95,
      text: null,
    }));
    live.devices.set(DEVICE.deviceId, { history });
    const window = { metric: 'temp', window: '1h', fn: 'min', op: '>', value: 80 };
    live.evaluator.replaceRules([ruleOf(), ruleOf({ when: window }, { ruleId: 2 })]);
    await live.settled();
    expect(live.requests).toHaveLength(2);
    live.sample(2, { temp: 90 });
    expect(live.steps.toSorted()).toEqual(['1 inactive → firing at 2', '2 inactive → firing at 2']);
  });

  it('are the same objects when nothing has changed', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 90 });
    await live.settled();
    const [before] = live.evaluator.evaluationOf(7)?.rules ?? [];
    live.evaluator.replaceRules([ruleOf()]);
    await live.settled();
    expect(live.evaluator.evaluationOf(7)?.rules[0]).toBe(before);
    expect(live.requests).toHaveLength(1);
  });

  it('are ended by hand for one alert, and only where it is open', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 90 });
    await live.settled();
    const wanted = { alertId: live.transitions[0]?.alertId ?? '', deviceId: 7 };
    expect(await live.evaluator.resolveByHand(wanted)).toBe('ended');
    expect(live.transitions.at(-1)).toMatchObject({ reason: 'resolved_by_hand' });
    expect(await live.evaluator.resolveByHand(wanted)).toBe('not held');
    expect(await live.evaluator.resolveByHand({ ...wanted, deviceId: 8 })).toBe('not held');
  });

  it('are ended by hand also while the database is away, which is said within a bound', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 90 });
    await live.settled();
    vi.useFakeTimers();
    live.drained = new Promise(() => undefined);
    const ended = live.evaluator.resolveByHand({
      alertId: live.transitions[0]?.alertId ?? '',
      deviceId: 7,
    });
    await Promise.all([
      expect(ended).rejects.toMatchObject({ code: 'ALERT_NOT_RECORDED' }),
      vi.advanceTimersByTimeAsync(10_000),
    ]);
    expect(live.transitions.at(-1)).toMatchObject({ reason: 'resolved_by_hand' });
  });

  it('are loaded anew when another program has recorded other steps [L-08]', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 90 });
    await live.settled();
    live.evaluator.deviceDiverged(7);
    live.sample(2, { temp: 20 });
    await live.settled();
    // On record is no open alert, and none is ended.
    expect(live.steps).toEqual(['1 inactive → firing at 1']);
  });
});

describe('rules that do harm', () => {
  const slow = (rule: CompiledRule): CompiledRule => ({
    ...rule,
    evaluate: (context) => {
      const untilMs = performance.now() + 1.5;
      while (performance.now() < untilMs);
      return rule.evaluate(context);
    },
  });

  it('are suspended when they cost too much, with a reason, and the others go on', async () => {
    liveWith([slow(ruleOf()), ruleOf({}, { ruleId: 2 })]);
    for (let atS = 0; atS < 80; atS += 1) live.sample(atS, { temp: 90 });
    await live.settled();
    live.tickAt(81);
    await live.settled();
    expect(live.suspended).toHaveLength(1);
    expect(live.suspended[0]).toMatch(/^1: an evaluation takes \d+ µs, 1000 µs are allowed$/);
    expect(live.transitions.at(-1)).toMatchObject({ ruleId: 1, reason: 'rule_suspended' });
    expect(live.evaluator.evaluationOf(7)?.rules.map(({ ruleId }) => ruleId)).toEqual([2]);
  });

  it('stay out until somebody has changed them', async () => {
    const costly = slow(ruleOf());
    liveWith([costly]);
    for (let atS = 0; atS < 80; atS += 1) live.sample(atS, { temp: 20 });
    await live.settled();
    live.tickAt(81).evaluator.replaceRules([costly]);
    expect(live.evaluator.gauges.rules).toBe(0);
    live.evaluator.replaceRules([ruleOf({}, { version: 2 })]);
    expect(live.evaluator.gauges.rules).toBe(1);
  });

  it('are suspended when their alerts take steps without end', async () => {
    liveWith([ruleOf()]).sample(0, { temp: 20 });
    await live.settled();
    for (let step = 1; step < 2 * STEPS_PER_MINUTE_MAX; step += 1) {
      live.sample(step / 1000, { temp: step % 2 === 0 ? 20 : 90 });
    }
    await live.settled();
    expect(live.suspended).toEqual([
      `1: its alerts took more than ${STEPS_PER_MINUTE_MAX} steps in a minute for one device`,
    ]);
    expect(live.evaluator.evaluationOf(7)?.rules).toEqual([]);
  });

  it('are not suspended for steps of hours that come at once', async () => {
    liveWith([ruleOf()]).sample(0, { temp: 20 });
    await live.settled();
    for (let step = 1; step < 2 * STEPS_PER_MINUTE_MAX; step += 1) {
      live.sample(step * 10, { temp: step % 2 === 0 ? 20 : 90 });
    }
    expect(live.transitions).toHaveLength(2 * STEPS_PER_MINUTE_MAX - 1);
    expect(live.suspended).toEqual([]);
  });

  it('are suspended when they throw, and nothing of it reaches who stores readings', async () => {
    const broken = {
      ...ruleOf(),
      evaluate: () => {
        throw new Error('broken');
      },
    };
    liveWith([broken, ruleOf({}, { ruleId: 2 })]).sample(0, { temp: 90 });
    await live.settled();
    live.sample(1, { temp: 90 });
    expect(live.suspended).toEqual(['1: its evaluation failed: broken']);
    expect(live.steps).toEqual(['2 inactive → firing at 0']);
  });
});

describe('devices in memory', () => {
  it('are let go of when nothing of them is open, and found again by their series', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 20 });
    await live.settled();
    live.tickAt(5000);
    expect(live.evaluator.gauges.devices).toBe(0);
    live.sample(5001, { temp: 90 });
    await live.settled();
    expect(live.requests).toHaveLength(2);
    expect(live.steps).toEqual(['1 inactive → firing at 5001']);
    live.tickAt(10_000);
    expect(live.evaluator.gauges.devices).toBe(1);
  });

  it('are forgotten when they are deleted', async () => {
    liveWith([ruleOf()]).sample(1, { temp: 20 });
    await live.settled();
    live.devices.clear();
    live.evaluator.deviceChanged(7, 1);
    await live.settled();
    expect(live.evaluator.gauges.devices).toBe(0);
  });
});
