import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ConnectionState, Silence } from '../../rules/compiled-rule.ts';
import type { SilenceChange } from '../../rules/no-data/no-data-port.ts';
import { OUTAGES_MAX, Outages } from '../../rules/no-data/outages.ts';
import {
  afterMicrosOf,
  judgeSilence,
  kindOfSilence,
  mayComeBackUntil,
  silenceDeadline,
  type Patience,
  type Quiet,
} from '../../rules/no-data/silence-state.ts';
import { SilenceWatch } from '../../rules/no-data/silence-watch.ts';

const SECOND = 1_000_000;
const quiet: Quiet = {
  sinceMicros: 0,
  connection: 'offline',
  connectedMicros: -Infinity,
  connectionMicros: -Infinity,
  refusedMicros: -Infinity,
};

function patienceOf(outages: readonly (readonly [number, number])[], after = 100): Patience {
  const all = new Outages();
  for (const [down, back] of outages) all.add(down, back);
  return { afterMicros: after, graceMicros: 300, outages: all };
}

describe('what a device is given', () => {
  const interval = { intervalMicros: null, sleepS: 0, gapP99Micros: null };
  it('is what the rule says, or what is declared, announced or learned, in this order', () => {
    const all = { intervalMicros: 60 * SECOND, sleepS: 600, gapP99Micros: 20 * SECOND };
    expect(afterMicrosOf(5 * SECOND, all)).toBe(5 * SECOND);
    expect(afterMicrosOf('auto', all)).toBe(180 * SECOND);
    expect(afterMicrosOf('auto', { ...all, intervalMicros: null })).toBe(1560 * SECOND);
    expect(afterMicrosOf('auto', { ...interval, gapP99Micros: 20 * SECOND })).toBe(60 * SECOND);
    expect(afterMicrosOf('auto', interval)).toBeNull();
  });

  it('is ten seconds at least when it is found by itself', () => {
    expect(afterMicrosOf('auto', { ...interval, gapP99Micros: SECOND })).toBe(10 * SECOND);
    expect(afterMicrosOf('auto', { ...interval, intervalMicros: SECOND })).toBe(10 * SECOND);
  });
});

describe('deadline of a silence', () => {
  it.each<[string, [number, number][], Partial<Quiet>, number]>([
    ['without an outage is as asked', [], {}, 100],
    ['is not moved by an outage that was over before', [[-50, 0]], {}, 100],
    ['is not moved by an outage that begins behind it', [[101, 500]], {}, 100],
    ['counts from the end of an outage, with the grace', [[50, 1000]], {}, 1300],
    [
      'counts from the end of an outage for a device that stayed',
      [[50, 1000]],
      { connection: 'online' },
      1100,
    ],
    [
      'counts from a new connection behind an outage',
      [[50, 1000]],
      { connectedMicros: 1040 },
      1140,
    ],
    [
      'counts from the end of an outage for one that sends garbage',
      [[50, 1000]],
      { refusedMicros: 1090 },
      1100,
    ],
    [
      'is put off by one outage behind the other',
      [
        [50, 60],
        [100, 110],
      ],
      {},
      410,
    ],
    [
      'is put off no more where we have listened for twice the time and the grace',
      [
        [50, 60],
        [300, 310],
        [500, 510],
        [530, 540],
      ],
      {},
      540,
    ],
  ])('%s', (_, outages, change, deadline) => {
    expect(silenceDeadline({ ...quiet, ...change }, patienceOf(outages))).toBe(deadline);
  });

  it('is never before the asked time, nor in or just behind an outage that began before it', () => {
    const outage = fc
      .tuple(fc.nat(3000), fc.nat(500))
      .map(([down, length]) => [down, down + length] as const);
    fc.assert(
      fc.property(
        fc.array(outage, { maxLength: 10 }),
        fc.integer({ min: 1, max: 400 }),
        (list, after) => {
          const sorted = list.toSorted(([left], [right]) => left - right);
          const patience = patienceOf(sorted, after);
          const deadline = silenceDeadline(quiet, patience);
          expect(deadline).toBeGreaterThanOrEqual(after);
          for (const { downMicros, backMicros } of patience.outages.past) {
            if (downMicros < deadline && backMicros > 0)
              expect(deadline).toBeGreaterThanOrEqual(Math.min(backMicros, deadline));
          }
          const listened = deadline - patience.outages.downtimeSince(0, deadline);
          expect(listened).toBeLessThanOrEqual(2 * after + 300);
        },
      ),
    );
  });
});

describe('outages', () => {
  it('are joined when they overlap, and bounded', () => {
    const outages = new Outages();
    outages.add(0, 10);
    outages.add(5, 20);
    expect(outages.past).toEqual([{ downMicros: 0, backMicros: 20 }]);
    for (let index = 1; index < 100; index += 1) outages.add(index * 100, index * 100 + 10);
    expect(outages.past).toHaveLength(OUTAGES_MAX);
    expect(outages.past[0]?.downMicros).toBe(0);
    expect(outages.backMicros).toBe(9910);
  });

  it('begin with the first cause and end with the last', () => {
    const outages = new Outages();
    outages.begin('a', 5);
    outages.begin('b', 7);
    expect([outages.isDown, outages.downMicros]).toEqual([true, 5]);
    expect(outages.end('a', 9)).toBe(false);
    expect(outages.end('c', 9)).toBe(false);
    expect(outages.end('b', 11)).toBe(true);
    expect([outages.isDown, outages.past]).toEqual([false, [{ downMicros: 5, backMicros: 11 }]]);
  });
});

type Step =
  | { readonly kind: 'reading'; readonly deviceId: number }
  | { readonly kind: 'refused'; readonly deviceId: number }
  | { readonly kind: 'connection'; readonly deviceId: number; readonly is: ConnectionState }
  | { readonly kind: 'down' }
  | { readonly kind: 'up' }
  | { readonly kind: 'pass'; readonly micros: number };

const AFTERS = [50, 120, 400];
const DEVICES = [1, 2, 3];
const TICK = 10;

/** The same without a heap: every device is looked at in every tick, from what was said of it. */
class Reference {
  readonly outages = new Outages();
  readonly changes: SilenceChange[] = [];
  readonly watch = new SilenceWatch({
    outages: this.outages,
    graceMicros: 300,
    onSilence: (change) => this.changes.push(change),
  });
  readonly quiets = new Map<number, Quiet>();
  now = 1000;

  constructor() {
    for (const deviceId of DEVICES) {
      this.quiets.set(deviceId, { ...quiet, sinceMicros: this.now, connection: 'never' });
      for (const afterMicros of AFTERS) {
        this.watch.watch(
          { deviceId, organizationId: 1, ruleId: afterMicros, afterMicros },
          this.now,
        );
      }
      const stored = {
        deviceId,
        organizationId: 1,
        lastReadingMicros: this.now,
        lastContactMicros: null,
      };
      this.watch.loaded(
        { ...stored, connection: 'never', sleepS: 0, intervalMicros: null, cadence: null },
        this.now,
      );
    }
  }

  take(step: Step): void {
    if (step.kind === 'down') this.outages.begin('x', this.now);
    else if (step.kind === 'up') this.outages.end('x', this.now);
    else if (step.kind === 'pass') {
      for (let passed = 0; passed < step.micros; passed += TICK) this.#tick();
    } else this.#hear(step);
  }

  #hear(step: Extract<Step, { deviceId: number }>): void {
    const { deviceId } = step;
    const before = this.quiets.get(deviceId) ?? quiet;
    const now = this.now;
    if (step.kind === 'reading') {
      this.quiets.set(deviceId, { ...before, sinceMicros: now });
      this.watch.received(deviceId, now);
    } else if (step.kind === 'refused') {
      this.quiets.set(deviceId, { ...before, refusedMicros: now });
      this.watch.refused(deviceId, now);
    } else {
      const connectedMicros = step.is === 'online' ? now : before.connectedMicros;
      const connectionMicros = step.is === before.connection ? before.connectionMicros : now;
      this.quiets.set(deviceId, {
        ...before,
        connection: step.is,
        connectedMicros,
        connectionMicros,
      });
      this.watch.setConnection(deviceId, step.is, now);
    }
  }

  #tick(): void {
    this.now += TICK;
    if (this.outages.isDown) return;
    this.watch.takeDue(this.now, this.now, 1000);
    for (const deviceId of DEVICES)
      for (const afterMicros of AFTERS) this.#compare(deviceId, afterMicros);
  }

  #compare(deviceId: number, afterMicros: number): void {
    const device = this.quiets.get(deviceId) ?? quiet;
    const patience = { afterMicros, graceMicros: 300, outages: this.outages };
    const told = this.told(deviceId, afterMicros);
    if (this.now <= silenceDeadline(device, patience) && told === null) return;
    const { silence } = kindOfSilence(device, afterMicros, this.now);
    const isOpen = silence === 'offline' && this.now <= mayComeBackUntil(device, patience);
    if (isOpen) return;
    if (told === silence) return;
    throw new Error(
      `device ${deviceId}, after ${afterMicros}, at ${this.now}: ${told} in place of ${silence}`,
    );
  }

  told(deviceId: number, ruleId: number): Silence | null | undefined {
    return this.changes.findLast(
      (change) => change.deviceId === deviceId && change.ruleId === ruleId,
    )?.silence;
  }
}

describe('watch over silences', () => {
  const deviceId = fc.constantFrom(...DEVICES);
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('reading', 'refused'), deviceId }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('connection'),
        deviceId,
        is: fc.constantFrom<ConnectionState>('online', 'sleeping', 'offline'),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('down', 'up') }) },
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('pass'), micros: fc.nat(300) }) },
  );

  it('finds with a heap what looking at every device in every tick finds, whatever happens', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 80, size: 'max' }), (steps) => {
        const reference = new Reference();
        for (const one of steps) reference.take(one);
        for (const id of DEVICES) {
          for (const ruleId of AFTERS) {
            const told = reference.changes.filter(
              (change) => change.deviceId === id && change.ruleId === ruleId,
            );
            // Never the same twice, and never a silence that begins before what it is about.
            for (const [index, { silence }] of told.entries()) {
              if (index > 0) expect(silence).not.toBe(told[index - 1]?.silence);
            }
          }
        }
      }),
      { numRuns: 150 },
    );
  });

  it('judges nothing before its deadline', () => {
    expect(judgeSilence(quiet, patienceOf([]), 99)).toEqual({ silence: null, nextMicros: 100 });
    expect(judgeSilence(quiet, patienceOf([]), 100).silence).toBe('offline');
  });
});
