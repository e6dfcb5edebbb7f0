import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { INACTIVE } from '../../rules/alert/alert.ts';
import { planAlerts, type AlertPlan, type StoredAlert } from '../../rules/log/alert-plan.ts';
import { SettledMark } from '../../rules/log/checkpoint.ts';
import { historicalOf } from '../../rules/log/historical.ts';
import { LateRanges } from '../../rules/log/late-ranges.ts';
import { DETAIL_BYTES_MAX, detailOf } from '../../rules/alert/transition-detail.ts';
import type { Transition } from '../../rules/alert/transition.ts';
import { S, stepsOf, T0 } from '../support/alert-log.ts';

const OF = { organizationId: 1, deviceId: 7 };

function plan(
  transitions: readonly Transition[],
  stored: readonly StoredAlert[] = [],
  adopted: ReadonlySet<string> = new Set(),
): AlertPlan {
  return planAlerts({ transitions, stored, hasDevice: (id) => id !== 404, adopted });
}

/** What the database has after a plan, of one alert. */
function storedOf(alert: AlertPlan['alerts'][number] | undefined): StoredAlert {
  if (alert === undefined) throw new Error('no alert');
  const { alertId, ruleId, deviceId, groupKey } = alert.last;
  return { ...alert, alertId, ruleId, deviceId, groupKey };
}

const steps = (result: AlertPlan): string[] =>
  result.transitions.map(({ transition }) => `${transition.sequence} ${transition.to}`);

describe('the plan of a batch', () => {
  it('makes one alert of its steps, with the value at which it fired', () => {
    const { pending, firing, resolved } = stepsOf(OF);
    const result = plan([pending, firing, resolved]);
    expect(steps(result)).toEqual(['0 pending', '1 firing', '2 inactive']);
    const [alert] = result.alerts;
    expect(alert).toMatchObject({ state: 'resolved', sequence: 2, isNew: true });
    expect(alert).toMatchObject({ firedMicros: T0 + 2 * S, changedMicros: T0 + 10 * S });
    expect(alert?.valueOf?.value).toBe(83);
  });

  it('ends a pending alert as inactive and not as resolved', () => {
    const { pending, cleared } = stepsOf(OF);
    expect(plan([pending, cleared]).alerts[0]).toMatchObject({
      state: 'inactive',
      firedMicros: null,
    });
  });

  it('leaves out what is on record (L-03)', () => {
    const { pending, firing, resolved } = stepsOf(OF);
    const stored = storedOf(plan([pending, firing]).alerts[0]);
    const again = plan([pending, firing, resolved], [stored]);
    expect(steps(again)).toEqual(['2 inactive']);
    expect(again.duplicates).toBe(2);
    expect(again.divergedDevices.size).toBe(0);
    expect(again.alerts[0]).toMatchObject({ isNew: false, state: 'resolved', valueOf: null });
    expect(again.alerts[0]?.firedMicros).toBe(T0 + 2 * S);
  });

  it('adds the steps to the alert that another program has open (L-08)', () => {
    const theirs = stepsOf(OF);
    const ours = stepsOf(OF, T0 + S);
    const open = storedOf(plan([theirs.pending]).alerts[0]);
    const result = plan([ours.pending, ours.firing, ours.resolved], [open]);
    expect(steps(result)).toEqual(['1 firing', '2 inactive']);
    expect(result.alerts).toHaveLength(1);
    expect(result.transitions.map(({ transition }) => transition.alertId)).toEqual([
      theirs.pending.alertId,
      theirs.pending.alertId,
    ]);
    expect(result.transitions[0]?.transition.state.activeAt).toBe(T0);
    expect(result.transitions[0]?.adoptedFrom).toBe(ours.pending.alertId);
    expect([...result.divergedDevices]).toEqual([OF.deviceId]);
  });

  it('adds nothing that is no news to that alert (L-08)', () => {
    const theirs = stepsOf(OF);
    const ours = stepsOf(OF, T0 + S);
    const open = storedOf(plan([theirs.pending, theirs.firing]).alerts[0]);
    const result = plan([ours.pending, ours.firing], [open]);
    expect(steps(result)).toEqual([]);
    expect(result.duplicates).toBe(2);
  });

  it('lets nobody go on with an alert that another program has ended (L-08)', () => {
    const theirs = stepsOf(OF);
    const ours = stepsOf(OF, T0 + S);
    const ended = storedOf(plan([theirs.pending, theirs.cleared]).alerts[0]);
    const same = plan([theirs.firing], [ended]);
    expect(steps(same)).toEqual([]);
    expect([...same.divergedDevices]).toEqual([OF.deviceId]);
    const stranger = plan([ours.firing], [], new Set([ours.firing.alertId]));
    expect(steps(stranger)).toEqual([]);
    expect([...stranger.divergedDevices]).toEqual([OF.deviceId]);
  });

  it('begins an alert again that ended at the very time at which it began', () => {
    const { pending, cleared, firing } = stepsOf(OF);
    const again = { ...firing, sequence: 2, from: 'inactive' } as const;
    const result = plan([pending, { ...cleared, atMicros: T0 }, again]);
    expect(steps(result)).toEqual(['0 pending', '1 inactive', '2 firing']);
    expect(result.alerts[0]).toMatchObject({ state: 'firing', sequence: 2 });
  });

  it('ends one alert and begins the next of its key', () => {
    const first = stepsOf(OF);
    const second = stepsOf(OF, T0 + 20 * S);
    const open = storedOf(plan([first.pending, first.firing]).alerts[0]);
    const result = plan([first.resolved, second.pending], [open]);
    expect(result.alerts.map(({ state, isNew }) => [state, isNew])).toEqual([
      ['resolved', false],
      ['pending', true],
    ]);
    expect(result.divergedDevices.size).toBe(0);
  });

  it('keeps alerts of other group keys and historical ones apart', () => {
    const one = stepsOf({ ...OF, groupKey: 'a' });
    const other = stepsOf({ ...OF, groupKey: 'b' });
    const late = stepsOf({ ...OF, groupKey: 'a', isHistorical: true }, T0 + S);
    const result = plan([one.pending, other.pending, late.pending]);
    expect(result.alerts).toHaveLength(3);
    expect(result.adopted.size).toBe(0);
  });

  it('leaves out what is of a device that was deleted', () => {
    const gone = stepsOf({ organizationId: 1, deviceId: 404 });
    const result = plan([gone.pending, stepsOf(OF).pending]);
    expect(result.orphans).toBe(1);
    expect(steps(result)).toEqual(['0 pending']);
  });

  it('comes to the same in one batch as in many, however often they are repeated', () => {
    const alerts = [0, 20, 40].map((after) => stepsOf(OF, T0 + after * S));
    const all = alerts.flatMap(({ pending, firing, resolved }) => [pending, firing, resolved]);
    const cuts = fc.array(fc.tuple(fc.nat(all.length), fc.nat(all.length)), { maxLength: 12 });
    const final = plan(all).alerts.map(storedOf);
    fc.assert(
      fc.property(cuts, (ranges) => {
        const stored = new Map<string, StoredAlert>();
        const recorded: string[] = [];
        const write = (batch: readonly Transition[]): void => {
          const result = plan(batch, [...stored.values()]);
          for (const alert of result.alerts) stored.set(alert.last.alertId, storedOf(alert));
          recorded.push(
            ...result.transitions.map(
              ({ transition }) => `${transition.alertId} ${transition.sequence}`,
            ),
          );
        };
        // From the beginning on, with parts that come again: what is behind the first gap never comes.
        let end = 0;
        for (const [from, to] of ranges) {
          write(all.slice(Math.min(from, end), Math.max(to, end)));
          end = Math.max(to, end);
        }
        write(all.slice(Math.min(end, all.length)));
        expect(new Set(recorded).size).toBe(recorded.length);
        expect(recorded).toHaveLength(all.length);
        const facts = (one: StoredAlert): unknown[] => [one.alertId, one.state, one.sequence];
        expect([...stored.values()].map(facts)).toEqual(final.map(facts));
      }),
    );
  });
});

describe('the detail of a transition', () => {
  /** As PostgreSQL writes it: a blank behind each colon and comma outside of texts. */
  const bytesOf = (detail: object): number =>
    Buffer.byteLength(
      JSON.stringify(detail).replaceAll(/"(?:[^"\\]|\\.)*"|[:,]/g, (part) =>
        part.length === 1 ? `${part} ` : part,
      ),
    );

  it('has at most 1 KB, whatever the rule looked at', () => {
    const operand = fc.record({
      name: fc.string({ maxLength: 300, unit: 'grapheme' }),
      value: fc.oneof(fc.double(), fc.string({ maxLength: 300 }), fc.boolean()),
      timeMicros: fc.option(fc.integer({ min: 0, max: 2 ** 51 })),
      against: fc.option(fc.string({ maxLength: 300 })),
      holds: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(operand, { maxLength: 16 }), (operands) => {
        const detail = detailOf({ ...stepsOf(OF).firing, operands });
        expect(bytesOf(detail)).toBeLessThanOrEqual(DETAIL_BYTES_MAX);
        expect(detail.operands.length + detail.operandsCut).toBe(operands.length);
      }),
    );
  });

  it('says how many operands were left out, and keeps the first', () => {
    const operands = Array.from({ length: 16 }, (_, i) => ({
      name: `avg(metric.with.a.long.name.${i}, 5m)`,
      value: 1e290,
      timeMicros: T0,
      against: '> 80',
      holds: true,
    }));
    const detail = detailOf({ ...stepsOf(OF).firing, operands });
    expect(detail.operandsCut).toBeGreaterThan(10);
    expect(detail.operands[0]?.name).toBe('avg(metric.with.a.long.name.0, 5m)');
  });

  it('keeps all of a rule of an ordinary size', () => {
    const operands = Array.from({ length: 6 }, (_, i) => ({
      name: `metric.${i}`,
      value: i / 3,
      timeMicros: T0,
      against: '> 80',
      holds: true,
    }));
    expect(detailOf({ ...stepsOf(OF).firing, operands }).operandsCut).toBe(0);
  });

  it('marks a text that was cut', () => {
    const operands = [
      { name: 'state', value: 'x'.repeat(200), timeMicros: T0, against: null, holds: true },
    ];
    const [cut] = detailOf({ ...stepsOf(OF).firing, operands }).operands;
    expect(cut?.value).toBe(`${'x'.repeat(80)}…`);
  });
});

describe('the mark of what is recorded', () => {
  it('moves only over what is settled', () => {
    const mark = new SettledMark();
    mark.noteEvaluated(10);
    mark.epoch.unsettled += 1;
    const first = mark.epoch;
    expect(mark.advance()).toBe(null);
    mark.noteEvaluated(20);
    expect(mark.advance()).toBe(null);
    first.unsettled -= 1;
    expect(mark.advance()).toBe(10);
    expect(mark.advance()).toBe(20);
  });

  it('goes back for nobody, and stays once something was given up', () => {
    const mark = new SettledMark();
    mark.noteEvaluated(20);
    mark.noteEvaluated(10);
    mark.advance();
    expect(mark.advance()).toBe(20);
    mark.noteEvaluated(30);
    mark.noteLoss();
    expect([mark.advance(), mark.advance(), mark.advance()]).toEqual([null, null, null]);
  });

  it('is nowhere before something was evaluated', () => {
    const mark = new SettledMark();
    expect([mark.advance(), mark.advance()]).toEqual([null, null]);
  });
});

describe('late ranges', () => {
  const late = (deviceId: number, timeMicros: number, metric = 'temp') => ({
    deviceId,
    organizationId: 1,
    metric,
    timeMicros,
  });

  it('are one for each device, due once it has been quiet', () => {
    let nowMs = 0;
    const ranges = new LateRanges(() => nowMs);
    ranges.note(late(1, T0 + S));
    nowMs = 3000;
    ranges.note(late(1, T0, 'rh'));
    nowMs = 7000;
    expect(ranges.takeDue()).toBe(null);
    nowMs = 8001;
    expect(ranges.takeDue()).toEqual({
      deviceId: 1,
      organizationId: 1,
      metrics: new Set(['temp', 'rh']),
      fromMicros: T0,
      toMicros: T0 + S,
    });
    expect(ranges.takeDue()).toBe(null);
    expect(ranges.size).toBe(0);
  });

  it('wait no longer than their bound for a device that is never quiet', () => {
    let nowMs = 0;
    const ranges = new LateRanges(() => nowMs);
    for (; nowMs < 60_000; nowMs += 1000) {
      ranges.note(late(1, T0 + nowMs * 1000));
      expect(ranges.takeDue()).toBe(null);
    }
    nowMs = 60_001;
    expect(ranges.takeDue()?.toMicros).toBe(T0 + 59 * S);
  });

  it('are bounded, and what is beyond is counted', () => {
    const ranges = new LateRanges(() => 0, { devicesMax: 2, quietMs: 1, longestMs: 1 });
    for (const deviceId of [1, 2, 3, 1]) ranges.note(late(deviceId, T0));
    expect(ranges.size).toBe(2);
    expect(ranges.dropped).toBe(1);
    ranges.forget(1);
    ranges.note(late(3, T0));
    expect(ranges.size).toBe(2);
  });
});

describe('an alert of history', () => {
  it('has an id of its own that begins with the same time', () => {
    const { pending } = stepsOf(OF);
    const { alertId, isHistorical } = historicalOf(pending);
    expect(isHistorical).toBe(true);
    expect(alertId).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
    expect(alertId.slice(0, 13)).toBe(pending.alertId.slice(0, 13));
    expect(alertId).not.toBe(pending.alertId);
    expect(historicalOf({ ...pending, state: INACTIVE }).alertId).toBe(alertId);
  });
});
