import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decideStep,
  pacingSpan,
  RATE_WINDOW_MS,
  sizeWaves,
  stopReasonOf,
  type CampaignPolicy,
  type CampaignProgress,
} from '../../commands/campaign/campaign-policy.ts';
import { NO_DEVICES, sumCounts } from '../../commands/campaign/campaign-row.ts';
import type { CampaignDeviceState, WaveCounts } from '../../commands/campaign/campaign.ts';

const POLICY: CampaignPolicy = {
  canary: 2,
  waves: [10, 50, 100],
  waveDevices: null,
  ratePerMinute: 60,
  concurrent: 50,
  stop: { failedPercent: 20, failedCount: null },
  settleMs: 60_000,
  deviceTimeoutMs: 3_600_000,
};

/** A campaign in memory: what the engine does with SQL, and what it must never do. */
class Fleet {
  nowMs = 1_000_000;
  wave = 0;
  readonly devices: {
    wave: number;
    state: CampaignDeviceState;
    startedMs: number;
    endedMs: number | null;
    endsMs: number;
  }[];
  readonly policy: CampaignPolicy;
  ended: 'stop' | 'complete' | null = null;

  constructor(policy: CampaignPolicy, total: number) {
    this.policy = policy;
    this.devices = sizeWaves(policy, total).flatMap((size, wave) =>
      Array.from({ length: size }, () => ({
        wave,
        state: 'waiting' as CampaignDeviceState,
        startedMs: -Infinity,
        endedMs: null,
        endsMs: Infinity,
      })),
    );
  }

  counts(wave: number): WaveCounts {
    const counts = { wave, ...NO_DEVICES };
    for (const device of this.devices) if (device.wave === wave) counts[device.state] += 1;
    return counts;
  }

  progress(): CampaignProgress {
    const waves = [...new Set(this.devices.map(({ wave }) => wave))].toSorted((a, b) => a - b);
    const all = sumCounts(waves.map((wave) => this.counts(wave)));
    const later = waves.filter((wave) => wave > this.wave && this.counts(wave).waiting > 0);
    const ended = this.devices.flatMap(({ wave, endedMs }) =>
      wave === this.wave && endedMs !== null ? [endedMs] : [],
    );
    const { spanMs } = pacingSpan(this.policy);
    return {
      nowMs: this.nowMs,
      isPaused: false,
      wave: this.wave,
      counts: this.counts(this.wave),
      lastEndedMs: ended.length === 0 ? null : Math.max(...ended),
      waitingLater: later.reduce((sum, wave) => sum + this.counts(wave).waiting, 0),
      nextWave: later[0] ?? null,
      active: all.active,
      failed: all.failed,
      begunInMinute: this.begunSince(this.nowMs - RATE_WINDOW_MS),
      begunInSpan: this.begunSince(this.nowMs - spanMs),
    };
  }

  begunSince(fromMs: number): number {
    return this.devices.filter(({ startedMs }) => startedMs > fromMs).length;
  }

  /** One look of the engine. @returns whether there is more to do at once. */
  look(takesMs: () => number): boolean {
    const step = decideStep(this.policy, this.progress());
    if (step.do === 'stop' || step.do === 'complete') this.ended = step.do;
    if (step.do === 'advance') this.wave = step.wave;
    if (step.do === 'promote') {
      for (const device of this.waiting().slice(0, step.devices)) device.wave = 0;
    }
    if (step.do === 'begin') {
      const turn = this.waiting().filter(({ wave }) => wave === this.wave);
      for (const device of turn.slice(0, step.devices)) {
        device.state = 'active';
        device.startedMs = this.nowMs;
        device.endsMs = this.nowMs + takesMs();
      }
    }
    return step.do === 'advance' || step.do === 'promote' || step.do === 'begin';
  }

  waiting(): Fleet['devices'] {
    return this.devices.filter(({ state }) => state === 'waiting');
  }

  end(outcome: () => CampaignDeviceState): void {
    for (const device of this.devices) {
      if (device.state !== 'active' || device.endsMs > this.nowMs) continue;
      device.state = outcome();
      device.endedMs = this.nowMs;
      // As SQL has it: what was skipped at its begin was not begun.
      if (device.state === 'skipped') device.startedMs = -Infinity;
    }
  }
}

const policies: fc.Arbitrary<CampaignPolicy> = fc.record({
  canary: fc.integer({ min: 0, max: 6 }),
  waves: fc.constantFrom(null, [100], [10, 50, 100], [1, 2, 3, 100]),
  waveDevices: fc.constantFrom(null, 1, 7, 1000),
  ratePerMinute: fc.constantFrom(1, 7, 60, 90, 600, 6000),
  concurrent: fc.integer({ min: 1, max: 40 }),
  stop: fc.record({
    failedPercent: fc.constantFrom(null, 0, 1, 20, 50, 100),
    failedCount: fc.constantFrom(null, 1, 5, 30),
  }),
  settleMs: fc.constantFrom(0, 1000, 30_000),
  deviceTimeoutMs: fc.constant(3_600_000),
});

interface Run {
  readonly policy: CampaignPolicy;
  readonly total: number;
  readonly outcomes: readonly CampaignDeviceState[];
  readonly takesMs: readonly number[];
}
const runs: fc.Arbitrary<Run> = fc.record({
  policy: policies,
  total: fc.integer({ min: 1, max: 120 }),
  outcomes: fc.array(fc.constantFrom('succeeded', 'succeeded', 'failed', 'skipped'), {
    minLength: 1,
    maxLength: 30,
  }) as fc.Arbitrary<CampaignDeviceState[]>,
  takesMs: fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 1, maxLength: 10 }),
});

/** Lets a campaign go on to its end, and looks at it each second. */
function play({ policy, total, outcomes, takesMs }: Run, check: (fleet: Fleet) => void): Fleet {
  const fleet = new Fleet(policy, total);
  let outcome = 0;
  let duration = 0;
  for (let second = 0; second < 20_000 && fleet.ended === null; second += 1) {
    fleet.end(() => outcomes[outcome++ % outcomes.length] ?? 'succeeded');
    while (fleet.ended === null && fleet.look(() => takesMs[duration++ % takesMs.length] ?? 0)) {
      check(fleet);
    }
    check(fleet);
    fleet.nowMs += 1000;
  }
  return fleet;
}

describe('the policy of a campaign', () => {
  it('never has more devices under way, and never begins with more in a minute, than it says', () => {
    fc.assert(
      fc.property(runs, (run) => {
        const fleet = play(run, (at) => {
          expect(sumCounts([at.progress().counts]).active).toBeLessThanOrEqual(
            run.policy.concurrent,
          );
          expect(at.progress().active).toBeLessThanOrEqual(run.policy.concurrent);
          expect(at.begunSince(at.nowMs - RATE_WINDOW_MS)).toBeLessThanOrEqual(
            run.policy.ratePerMinute,
          );
        });
        expect(fleet.ended).not.toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it('never begins with a wave while one before it has a device that has not ended', () => {
    fc.assert(
      fc.property(runs, (run) => {
        play(run, (at) => {
          const isOpen = at.devices.some(
            ({ wave, state }) => wave < at.wave && (state === 'waiting' || state === 'active'),
          );
          expect(isOpen).toBe(false);
        });
      }),
      { numRuns: 60 },
    );
  });

  it('stops a bad thing at the canary: no more devices are touched than canaries', () => {
    fc.assert(
      fc.property(
        runs,
        fc.constantFrom(1, 20, 50, 100),
        fc.integer({ min: 1, max: 6 }),
        (run, failedPercent, canary) => {
          const policy = { ...run.policy, canary, stop: { failedPercent, failedCount: null } };
          const bad = { ...run, policy, outcomes: ['failed' as const] };
          const fleet = play(bad, () => undefined);
          expect(fleet.ended).toBe('stop');
          const touched = fleet.devices.filter(({ state }) => state !== 'waiting');
          expect(touched.length).toBeLessThanOrEqual(canary);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('lets as many canaries end as it asks for, in place of those that were skipped', () => {
    fc.assert(
      fc.property(runs, fc.integer({ min: 1, max: 6 }), (run, canary) => {
        const policy = { ...run.policy, canary, stop: { failedPercent: null, failedCount: null } };
        const fleet = play({ ...run, policy }, (at) => {
          if (at.wave === 0) return;
          const { succeeded, failed } = at.counts(0);
          expect(succeeded + failed).toBe(Math.min(canary, run.total));
        });
        expect(fleet.ended).toBe('complete');
      }),
      { numRuns: 60 },
    );
  });

  it('begins with nothing once as many devices have failed as it takes', () => {
    fc.assert(
      fc.property(runs, fc.integer({ min: 1, max: 8 }), (run, failedCount) => {
        const policy = { ...run.policy, stop: { failedPercent: null, failedCount } };
        const fleet = play({ ...run, policy }, () => undefined);
        const failed = fleet.devices.filter(({ state }) => state === 'failed').length;
        if (failed >= failedCount) expect(fleet.ended).toBe('stop');
        else expect(fleet.ended).toBe('complete');
      }),
      { numRuns: 60 },
    );
  });

  it('ends with every device ended, when it does not stop', () => {
    fc.assert(
      fc.property(runs, (run) => {
        const fleet = play(run, () => undefined);
        if (fleet.ended === 'complete') expect(fleet.waiting()).toEqual([]);
      }),
      { numRuns: 40 },
    );
  });

  it('does not take the first of many failures for a hundred percent', () => {
    const wave = (counts: Partial<WaveCounts>): CampaignProgress => ({
      ...new Fleet(POLICY, 1).progress(),
      wave: 1,
      counts: { wave: 1, ...NO_DEVICES, ...counts },
      failed: counts.failed ?? 0,
      active: counts.active ?? 0,
    });
    expect(decideStep(POLICY, wave({ active: 99, failed: 1 })).do).toBe('wait');
    expect(decideStep(POLICY, wave({ active: 98, failed: 2 })).do).toBe('stop');
    expect(decideStep(POLICY, wave({ active: 60, succeeded: 32, failed: 8 })).do).toBe('stop');
    expect(decideStep(POLICY, wave({ active: 60, succeeded: 33, failed: 7 })).do).toBe('wait');
    // A wave smaller than the sample is judged as a whole.
    expect(decideStep(POLICY, wave({ active: 4, failed: 1 })).do).toBe('stop');
  });

  it('waits for a wave to settle, and begins with nothing while it is paused', () => {
    const fleet = new Fleet(POLICY, 100);
    const at = (more: Partial<CampaignProgress>): string =>
      decideStep(POLICY, { ...fleet.progress(), ...more }).do;
    expect(at({ isPaused: true })).toBe('wait');
    const counts = { wave: 0, ...NO_DEVICES, succeeded: 2 };
    const ended = { counts, lastEndedMs: fleet.nowMs - 59_999 };
    expect(at(ended)).toBe('wait');
    expect(at({ ...ended, lastEndedMs: fleet.nowMs - 60_000 })).toBe('advance');
    expect(at({ ...ended, lastEndedMs: 0, isPaused: true })).toBe('wait');
  });
});

describe('the waves of a campaign', () => {
  it('are percents of all devices, the canary among them', () => {
    expect(sizeWaves(POLICY, 100)).toEqual([2, 8, 40, 50]);
    expect(sizeWaves(POLICY, 1)).toEqual([1, 0, 0, 0]);
    expect(sizeWaves({ ...POLICY, canary: 20 }, 100)).toEqual([20, 0, 30, 50]);
    expect(sizeWaves({ canary: 3, waves: null, waveDevices: 40 }, 100)).toEqual([3, 40, 40, 17]);
    expect(sizeWaves({ canary: 0, waves: null, waveDevices: null }, 9)).toEqual([0, 9]);
  });

  it('have every device once', () => {
    fc.assert(
      fc.property(policies, fc.integer({ min: 0, max: 10_000 }), (policy, total) => {
        const sizes = sizeWaves(policy, total);
        expect(sizes.every((size) => size >= 0)).toBe(true);
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(total);
      }),
    );
  });
});

describe('the reason of a stop', () => {
  const counts = { wave: 0, ...NO_DEVICES, active: 1, succeeded: 1, failed: 3 };

  it('has numbers and the codes of the failures', () => {
    expect(
      stopReasonOf('failed_percent', { counts, failed: 3 }, [{ code: 'valve', devices: 3 }]),
    ).toBe('3 of 5 canaries failed: valve');
    const codes = [
      { code: 'timeout', devices: 9 },
      { code: 'valve', devices: 3 },
    ];
    const second = { wave: 2, ...NO_DEVICES, succeeded: 38, failed: 12 };
    expect(stopReasonOf('failed_percent', { counts: second, failed: 12 }, codes)).toBe(
      '12 of 50 devices that ended in wave 2 failed: timeout (9), valve (3)',
    );
    expect(stopReasonOf('failed_count', { counts, failed: 1 }, [])).toBe('1 device failed');
  });
});
