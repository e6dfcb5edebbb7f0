import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  STEP_BELIEVED_AFTER_MS,
  SteadyClock,
  type ClockStep,
} from '../../firmware-protocol/steady-clock.ts';

const HOUR_MS = 3_600_000;

/** A machine whose clock the test sets. */
class Machine {
  wallMs = 1_790_000_000_000;
  monotonicMs = 5000;
  uptimeMs = 20 * 60_000;
  readonly steps: ClockStep[] = [];
  readonly clock: SteadyClock;

  constructor(uptimeMs?: number) {
    this.uptimeMs = uptimeMs ?? this.uptimeMs;
    const wall = () => this.wallMs;
    const monotonic = () => this.monotonicMs;
    const uptime = () => this.uptimeMs;
    this.clock = new SteadyClock({ wall, monotonic, uptime }, (step) => this.steps.push(step));
  }

  /** Time goes by; the clock is asked ten times meanwhile. */
  pass(ms: number): number {
    for (let part = 0; part < 10; part += 1) {
      this.wallMs += ms / 10;
      this.monotonicMs += ms / 10;
      this.uptimeMs += ms / 10;
      this.clock.now();
    }
    return this.clock.now();
  }
}

describe('SteadyClock', () => {
  it('is the wall clock, also when that is slewed', () => {
    const machine = new Machine();
    for (let second = 0; second < 1000; second += 1) {
      machine.wallMs += 0.5;
      expect(machine.pass(1000)).toBe(Math.floor(machine.wallMs));
    }
    expect(machine.steps).toEqual([]);
  });

  it.each([HOUR_MS, -HOUR_MS])('goes on as before when it is set by %d ms for a while', (byMs) => {
    const machine = new Machine();
    const before = machine.pass(60_000);
    machine.wallMs += byMs;
    expect(machine.pass(60_000)).toBe(before + 60_000);
    machine.wallMs -= byMs;
    expect(machine.pass(60_000)).toBe(before + 120_000);
    expect(machine.steps).toEqual([{ byMs, isBelieved: false }]);
  });

  it.each([HOUR_MS, -HOUR_MS])('believes five minutes later that it was set by %d ms', (byMs) => {
    const machine = new Machine();
    machine.pass(1000);
    machine.wallMs += byMs;
    machine.clock.now();
    machine.pass(STEP_BELIEVED_AFTER_MS - 1000);
    expect(machine.clock.now()).toBe(machine.wallMs - byMs);
    machine.pass(2000);
    expect(machine.clock.now()).toBe(machine.wallMs);
    expect(machine.steps).toEqual([
      { byMs, isBelieved: false },
      { byMs, isBelieved: true },
    ]);
  });

  it('begins to doubt anew when it is set again', () => {
    const machine = new Machine();
    machine.pass(1000);
    machine.wallMs += HOUR_MS;
    machine.pass(STEP_BELIEVED_AFTER_MS - 10_000);
    machine.wallMs += HOUR_MS;
    machine.pass(20_000);
    expect(machine.clock.now()).toBe(machine.wallMs - 2 * HOUR_MS);
    expect(machine.steps).toHaveLength(2);
  });

  it('follows at once when the machine has slept', () => {
    const machine = new Machine();
    machine.pass(60_000);
    machine.wallMs += HOUR_MS;
    machine.uptimeMs += HOUR_MS;
    expect(machine.clock.now()).toBe(machine.wallMs);
    expect(machine.steps).toEqual([]);
  });

  it('follows at once in the first minutes of the machine, when its clock is set for the first time', () => {
    const machine = new Machine(30_000);
    machine.pass(1000);
    machine.wallMs += 20 * 365 * 24 * HOUR_MS;
    expect(machine.clock.now()).toBe(machine.wallMs);
  });

  it('never goes back by more than two seconds while it doubts, whatever the wall clock does', () => {
    const setting = fc.record({
      byMs: fc.integer({ min: -1e10, max: 1e10 }),
      afterMs: fc.nat(20_000),
    });
    fc.assert(
      fc.property(fc.array(setting, { maxLength: 12 }), (settings) => {
        const machine = new Machine();
        let last = machine.clock.now();
        for (const { byMs, afterMs } of settings) {
          const now = machine.pass(afterMs);
          expect(now).toBeGreaterThanOrEqual(last - 2000);
          last = now;
          machine.wallMs += byMs;
        }
      }),
    );
  });
});
