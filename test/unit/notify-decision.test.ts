import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { AlertView } from '../../rules/notify/alert-view.ts';
import { decide, type Hold, type Told } from '../../rules/notify/decision.ts';
import { flapDeadlineMs, flapPhase, noteChange } from '../../rules/notify/flapping.ts';
import { addChanges } from '../../rules/notify/group.ts';
import { EMPTY_GROUP, type Flap, type GroupState } from '../../rules/notify/group-state.ts';
import { matchesAll } from '../../rules/notify/matchers.ts';
import { isWithin } from '../../rules/notify/quiet-hours.ts';
import { mergeDigest } from '../../rules/notify/rate-cap.ts';
import { judge } from '../../rules/notify/retry.ts';
import { groupKeyOf, groupLabelsOf } from '../../rules/notify/route.ts';
import { Circuits } from '../../rules/notify/circuit.ts';
import { routeSchema } from '../../rules/notify/route-definition.ts';
import type { NotificationMessage } from '../../rules/notify/message.ts';
import { loadConfig } from '../../config.ts';
import { notifyLimits } from '../../rules/notify/limits.ts';

const limits = notifyLimits(loadConfig({}));
const route = routeSchema.parse({
  name: 'r',
  receivers: ['019a0000-0000-7000-8000-000000000001'],
  groupWait: '5s',
  groupInterval: '1m',
  repeatInterval: '1h',
});
const MINUTE_MS = 60_000;

function view(alertId: string, isFiring: boolean, changed: Partial<AlertView> = {}): AlertView {
  return {
    alertId,
    ruleId: 1,
    rulePublicId: '',
    rule: 'hot',
    deviceId: 1,
    device: 'd',
    groupKey: '',
    isFiring,
    severity: 'high',
    level: 4,
    value: 1,
    labels: {},
    tags: [],
    annotations: {},
    activeAt: new Date(0),
    firedAt: null,
    resolvedAt: null,
    isUntold: false,
    isAcknowledged: false,
    snoozedUntilMs: null,
    suppressedBy: [],
    ...changed,
  };
}

/** What happens to a group: alerts of three devices come and go, are held back or not, and time passes. */
const happenings = fc.array(
  fc.oneof(
    fc.record({ what: fc.constant('toggle' as const), device: fc.nat(2) }),
    fc.record({ what: fc.constant('hold' as const), isHeld: fc.boolean() }),
    fc.record({ what: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 400_000 }) }),
  ),
  { maxLength: 120, size: 'max' },
);

/** A group, its alerts and its receiver, as the program would run them. */
class Model {
  nowMs = 1_700_000_000_000;
  state: GroupState = EMPTY_GROUP;
  flushAtMs: number | null = null;
  readonly alerts = new Map<string, AlertView>();
  readonly open = new Map<number, string>();
  /** What the receiver believes to be firing. */
  readonly believed = new Set<string>();
  isHeld = false;
  lastToldMs = -Infinity;
  made = 0;
  readonly faults: string[] = [];

  check(holds: boolean, fault: string): void {
    if (!holds) this.faults.push(fault);
  }

  toggle(device: number): void {
    const alertId = this.open.get(device) ?? `a${(this.made += 1)}`;
    const isFiring = !this.open.has(device);
    if (isFiring) this.open.set(device, alertId);
    else this.open.delete(device);
    this.alerts.set(alertId, view(alertId, isFiring));
    const change = {
      alertId,
      sequence: isFiring ? 0 : 1,
      flapKey: `1/${device}/`,
      atMs: this.nowMs,
    };
    const grouped = addChanges(this.state, [change], route, { nowMs: this.nowMs, limits });
    this.state = grouped.state;
    this.flushAtMs = Math.min(this.flushAtMs ?? Infinity, grouped.flushAtMs ?? Infinity);
  }

  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    while (this.flushAtMs !== null && this.flushAtMs <= endMs) {
      this.nowMs = Math.max(this.nowMs, this.flushAtMs);
      this.flush();
    }
    this.nowMs = endMs;
  }

  flush(): void {
    const hold: Hold = { reason: 'silenced', by: null };
    const decision = decide({
      state: this.state,
      route,
      alerts: this.alerts,
      holdOf: () => (this.isHeld ? hold : null),
      nowMs: this.nowMs,
      limits,
    });
    // A digest and a message may be told at once.
    const sinceMs = this.nowMs - this.lastToldMs;
    for (const told of decision.tells) this.receive(told, sinceMs);
    this.state = decision.flushAtMs === null ? EMPTY_GROUP : decision.state;
    this.flushAtMs = decision.flushAtMs;
    this.check((this.flushAtMs ?? Infinity) > this.nowMs, 'flushed in the past');
  }

  receive({ kind, changed, others, changes }: Told, sinceMs: number): void {
    this.check(!this.isHeld, 'told while held');
    this.check(changed.length > 0, 'told nothing');
    if (kind === 'alert') {
      this.check(sinceMs >= MINUTE_MS, 'too soon');
      for (const { alertId, isFiring } of changed) {
        // An end is told only where a beginning was.
        if (!isFiring) this.check(this.believed.has(alertId), 'an end without a beginning');
        // What is told without a change is a repetition.
        if (changes === 0) this.check(sinceMs >= 3_600_000, 'repeated too soon');
        else if (isFiring) this.check(!this.believed.has(alertId), 'told twice');
      }
    }
    for (const { alertId, isFiring } of [...changed, ...others]) {
      if (isFiring) this.believed.add(alertId);
      else this.believed.delete(alertId);
    }
    this.lastToldMs = this.nowMs;
  }
}

describe('what a receiver is told', () => {
  it('is spaced, ends only what began, is nothing while held, and comes true in the end', () => {
    fc.assert(
      fc.property(happenings, (all) => {
        const model = new Model();
        for (const each of all) {
          if (each.what === 'toggle') model.toggle(each.device);
          else if (each.what === 'hold') model.isHeld = each.isHeld;
          else model.pass(each.ms);
        }
        model.isHeld = false;
        model.pass(2 * limits.flappingWindowMs + limits.flappingDigestMs);
        expect(model.faults).toEqual([]);
        expect([...model.believed].toSorted()).toEqual([...model.open.values()].toSorted());
        // Nothing is kept of what has ended.
        expect(Object.keys(model.state.alerts).length).toBe(model.open.size);
      }),
      { numRuns: 300 },
    );
  });

  it('does not know of alerts that are gone', () => {
    const state: GroupState = {
      alerts: { gone: { flapKey: 'x', sequence: 0 } },
      flaps: {},
      told: { gone: 4 },
      toldMs: 0,
    };
    const decision = decide({
      state,
      route,
      alerts: new Map(),
      holdOf: () => null,
      nowMs: 100_000,
      limits,
    });
    expect(decision).toEqual({
      tells: [],
      suppressed: [],
      flushAtMs: null,
      state: { alerts: {}, flaps: {}, told: {}, toldMs: 0 },
    });
  });
});

describe('flapping', () => {
  const bounds = { flappingChangesMax: 3, flappingWindowMs: 1000, flappingDigestMs: 5000 };
  const changeAll = (times: readonly number[]): Flap => {
    let flap: Flap | null = null;
    for (const atMs of times) flap = noteChange(flap, { atMs, nowMs: atMs }, bounds);
    return flap as Flap;
  };

  it('begins with one change more than allowed in a window, and not before', () => {
    expect(flapPhase(changeAll([0, 100, 200]), 200, bounds)).toBe('steady');
    expect(flapPhase(changeAll([0, 100, 200, 1001]), 1001, bounds)).toBe('steady');
    expect(flapPhase(changeAll([0, 100, 200, 1000]), 1000, bounds)).toBe('notice');
  });

  it('remembers a bounded number of changes', () => {
    const many = Array.from({ length: 1000 }, (_, at) => at * 400);
    expect(changeAll(many).changes).toHaveLength(4);
  });

  it('is told again in digests, and is over after a window without a change', () => {
    const flap = { ...changeAll([0, 1, 2, 3]), toldMs: 3, untold: 0 };
    expect(flapPhase(flap, 900, bounds)).toBe('held');
    expect(flapPhase(flap, 1003, bounds)).toBe('over');
    const changed = noteChange(flap, { atMs: 5500, nowMs: 5500 }, bounds);
    expect(flapPhase(changed, 5500, bounds)).toBe('digest');
    expect(flapDeadlineMs(changed, bounds)).toBe(5003);
  });
});

describe('matchers', () => {
  const subject = { labels: { site: 'north' }, tags: ['hall-3', 'hot'] };

  it('match by equality, inequality, set and prefix, and tags by any of them', () => {
    const holds = (matcher: object) => matchesAll([matcher as never], subject);
    expect(holds({ label: 'site', op: '=', value: 'north' })).toBe(true);
    expect(holds({ label: 'site', op: '=', value: 'nort' })).toBe(false);
    expect(holds({ label: 'site', op: 'prefix', value: 'nort' })).toBe(true);
    expect(holds({ label: 'site', op: 'in', values: ['a', 'north'] })).toBe(true);
    expect(holds({ label: 'none', op: '!=', value: 'x' })).toBe(true);
    expect(holds({ label: 'constructor', op: '=', value: '' })).toBe(true);
    expect(holds({ label: 'tag', op: '=', value: 'hot' })).toBe(true);
    expect(holds({ label: 'tag', op: '!=', value: 'hot' })).toBe(false);
    expect(matchesAll([], subject)).toBe(true);
  });

  it('make groups by labels whose keys stay short', () => {
    const labels = groupLabelsOf({ groupBy: ['site', 'line'] }, subject);
    expect(labels).toEqual({ line: '', site: 'north' });
    const long = { line: 'x'.repeat(10_000), site: 'y'.repeat(10_000) };
    expect(groupKeyOf('r', long)).toHaveLength(22);
    expect(groupKeyOf('r', { a: 'b', c: 'd' })).not.toBe(groupKeyOf('r', { a: 'b","c":"d' }));
    expect(groupKeyOf('r', {})).not.toBe(groupKeyOf('s', {}));
  });
});

describe('quiet hours', () => {
  const night = {
    timeZone: 'Europe/Berlin',
    windows: [{ days: ['sat', 'sun'], from: '22:00', to: '06:00' }],
  } satisfies Parameters<typeof isWithin>[0];
  const at = (text: string) => isWithin(night, Date.parse(text));

  it('go by the clock on the wall when the clocks are changed', () => {
    // 2026-03-29, a Sunday: 02:00 CET becomes 03:00 CEST, so that the night ends an hour earlier.
    expect(at('2026-03-28T20:59:00Z')).toBe(false);
    expect(at('2026-03-28T21:00:00Z')).toBe(true);
    expect(at('2026-03-29T03:59:00Z')).toBe(true);
    expect(at('2026-03-29T04:00:00Z')).toBe(false);
    // 2026-10-25, a Sunday: 03:00 CEST becomes 02:00 CET.
    expect(at('2026-10-25T04:59:00Z')).toBe(true);
    expect(at('2026-10-25T05:00:00Z')).toBe(false);
  });

  it('belong to the day on which they begin', () => {
    expect(at('2026-03-30T03:00:00Z')).toBe(true);
    expect(at('2026-03-30T21:00:00Z')).toBe(false);
    expect(at('2026-03-28T02:00:00Z')).toBe(false);
  });
});

describe('retries', () => {
  const failed = { ok: false, isRetryable: true, reason: '500' } as const;
  const claim = { attempts: 1, createdAtMs: 0 };

  it('back off with full jitter up to ten minutes', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 99 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (attempts, random) => {
          const verdict = judge(failed, { ...claim, attempts }, limits, { nowMs: 0, random });
          const mostMs = Math.min(600_000, 5000 * 2 ** (attempts - 1));
          expect(verdict).toEqual({ isDead: false, nextMs: Math.ceil(mostMs * random) });
        },
      ),
    );
  });

  it('wait as long as the receiver asks for, and an hour at most', () => {
    const at = { nowMs: 0, random: 0 };
    expect(judge({ ...failed, retryAfterMs: 90_000 }, claim, limits, at)).toMatchObject({
      nextMs: 90_000,
    });
    expect(judge({ ...failed, retryAfterMs: 9e9 }, claim, limits, at)).toMatchObject({
      nextMs: 3_600_000,
    });
  });

  it('end when they are no use, after so many, and at their age', () => {
    const at = { nowMs: 0, random: 0.5 };
    expect(judge({ ...failed, isRetryable: false }, claim, limits, at)).toEqual({ isDead: true });
    expect(judge(failed, { ...claim, attempts: 100 }, limits, at)).toEqual({ isDead: true });
    const old = { ...claim, createdAtMs: -limits.ageMaxMs };
    expect(judge(failed, old, limits, at)).toEqual({ isDead: true });
  });

  it('leave a receiver alone that fails five times in a row, longer each time', () => {
    const circuits = new Circuits();
    for (let nth = 0; nth < 4; nth += 1) circuits.failed('r', 0);
    expect(circuits.openAt(0)).toEqual([]);
    circuits.failed('r', 0);
    expect(circuits.openAt(14_999)).toEqual(['r']);
    expect(circuits.openAt(15_000)).toEqual([]);
    expect(circuits.isHalfOpen('r')).toBe(true);
    circuits.failed('r', 15_000);
    expect(circuits.nextMs(15_000)).toBe(45_000);
    circuits.succeeded('r');
    expect(circuits.openAt(15_000)).toEqual([]);
    expect(circuits.isHalfOpen('r')).toBe(false);
  });
});

describe('a digest of the cap', () => {
  it('tells of each alert once, as it was last, and of a bounded number', () => {
    const alertOf = (alertId: string, state: string) => ({ alertId, state }) as never;
    const message = (alerts: never[]) =>
      ({ alerts, truncated: 0, state: 'firing' }) as unknown as NotificationMessage;
    const digest = { reason: 'rate_cap', from: '', to: '', suppressed: 0, changes: 0 } as const;
    let merged: NotificationMessage = { ...message([]), digest };
    const each = { changes: 1, alertsMax: 2 };
    merged = mergeDigest(merged, message([alertOf('a', 'firing')]), each);
    merged = mergeDigest(merged, message([alertOf('a', 'resolved')]), each);
    expect(merged).toMatchObject({
      state: 'resolved',
      alerts: [{ alertId: 'a', state: 'resolved' }],
      digest: { suppressed: 2, changes: 2 },
    });
    merged = mergeDigest(merged, message([alertOf('b', 'firing'), alertOf('c', 'firing')]), each);
    expect(merged.alerts).toHaveLength(2);
    expect(merged.truncated).toBe(1);
  });
});
