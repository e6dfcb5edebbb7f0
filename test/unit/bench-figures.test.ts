import { describe, expect, it } from 'vitest';
import type { GeneratorResult } from '../../bench/generator.ts';
import { isFlat, riseMax, trendOf, type HeapSample } from '../../bench/heap-trend.ts';
import { isLatencyGoalMet, latencySection } from '../../bench/latency-results.ts';
import type { PeerResult } from '../../bench/peers/peer-measurement.ts';
import { peerTable, peerVerdicts, ratios } from '../../bench/peers/peer-results.ts';
import { PublishRing } from '../../bench/publish-ring.ts';
import { scenarios } from '../../bench/scenarios.ts';

const MB = 1_000_000;

function samples(heap: (atS: number) => number): HeapSample[] {
  return Array.from({ length: 180 }, (_, index) => {
    const atS = index * 10;
    return { atS, rssBytes: 200 * MB, heapBytes: heap(atS), externalBytes: 0 };
  });
}
const heapTrend = (heap: (atS: number) => number) =>
  trendOf(samples(heap), ({ heapBytes }) => heapBytes);

describe('the trend of memory', () => {
  it('is that of the last two thirds alone', () => {
    const trend = heapTrend((atS) => (atS < 590 ? atS * MB : 60 * MB));
    expect(trend).toMatchObject({ meanBytes: 60 * MB, risenBytes: 0, bytesPerH: 0 });
  });

  it('finds a leak of 1 MB a minute below a saw-tooth of 30 MB', () => {
    const saw = (atS: number): number => ((atS % 70) / 70) * 30 * MB;
    expect(isFlat(heapTrend((atS) => 50 * MB + saw(atS)))).toBe(true);
    const leaking = heapTrend((atS) => 50 * MB + saw(atS) + (atS / 60) * MB);
    expect(isFlat(leaking)).toBe(false);
    expect(leaking.bytesPerH / MB).toBeGreaterThan(50);
  });

  it('lets a line rise by a tenth of the mean, or by 8 MB', () => {
    expect(riseMax(heapTrend(() => 200 * MB))).toBe(20 * MB);
    expect(riseMax(heapTrend(() => 20 * MB))).toBe(8 * MB);
    expect(isFlat(heapTrend((atS) => 100 * MB - atS * 1000))).toBe(true);
  });

  it('needs three samples', () => {
    expect(() => trendOf(samples(() => 1).slice(0, 2), ({ rssBytes }) => rssBytes)).toThrow(
      RangeError,
    );
  });
});

describe('times to PUBACK', () => {
  const generator: GeneratorResult = {
    acknowledged: 10_000,
    seconds: 10,
    p50Ms: 4,
    p99Ms: 90,
    maxMs: 95,
    cpuUs: 1,
    acknowledgedTotal: 10_000,
    unacknowledged: 0,
    connectionsLost: 0,
  };
  const result = {
    title: 'calm',
    offeredPerS: 1000,
    goal: { quantile: 'p50', maxMs: 5 },
    generator,
  } as const;

  it('meet a goal within its bound, at the rate that was offered', () => {
    expect(isLatencyGoalMet(result)).toBe(true);
    expect(isLatencyGoalMet({ ...result, goal: { quantile: 'p99', maxMs: 89 } })).toBe(false);
    expect(isLatencyGoalMet({ ...result, offeredPerS: 1100 })).toBe(false);
    expect(isLatencyGoalMet({ ...result, goal: null })).toBe(true);
  });

  it('stand in a section with a verdict for each goal', () => {
    const machine = { machine: 'm', loadBefore: 0, node: 'n', commit: 'c', date: 'd' };
    const section = latencySection(machine, { warmupS: 4, measuredS: 20 }, [result]);
    expect(section.split('\n', 1)).toEqual(['## Time to PUBACK']);
    expect(section).toContain('- calm: p50 4.00 ms, at most 5.00 ms wanted: met');
  });
});

describe('peers', () => {
  const [scenario] = scenarios;
  if (scenario === undefined) throw new Error('no scenarios');
  const puback: PeerResult = {
    name: 'Puback',
    scenario,
    messagesPerS: 30_000,
    brokerCpuUs: 10,
    writerCpuUs: 0,
    databaseCpuUs: 4,
    offeredPerS: null,
    drainS: 0,
    lost: 0,
  };
  const peer = { ...puback, name: 'peer', messagesPerS: 20_000, writerCpuUs: 8, drainS: 0.2 };

  it('are compared by messages that arrived in the table', () => {
    expect(ratios([puback, peer])).toEqual(new Map([['a', 1.5]]));
    expect(peerVerdicts([puback, peer])[0]).toMatch(/1\.5 times .* NOT MET$/);
    expect(peerVerdicts([puback, { ...peer, messagesPerS: 15_000 }])[0]).toMatch(/: met$/);
  });

  it('show what the parts cost together, and nothing where a part is not known', () => {
    expect(peerTable([puback, peer])).toMatch(/peer .* 22\.0 /);
    expect(peerTable([{ ...peer, databaseCpuUs: null }])).not.toMatch(/22\.0/);
  });
});

describe('the generator', () => {
  it('publishes to the topic that it is given', () => {
    const ring = new PublishRing('one', 1, 'v1/bench-001/data');
    expect(ring.bytes.toString('latin1')).toContain('v1/bench-001/data');
    expect(ring.bytes.readUInt8(1)).toBe(ring.slotBytes - 2);
  });
});
