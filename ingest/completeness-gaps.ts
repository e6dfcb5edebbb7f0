import type { SequenceRange } from './sequence-ranges.ts';

/** Numbers that did not come, both included. */
export interface SequenceGap {
  readonly from: number;
  readonly to: number;
}

/** How complete the numbered messages of one boot are. */
export interface SequenceCompleteness {
  /** Lowest number that came; what may have been before it is not known. */
  readonly first: number;
  readonly highest: number;
  readonly received: number;
  /** Numbers between `first` and `highest` that did not come; those that were given up among them. */
  readonly missing: number;
  /** See {@link percentOf}. */
  readonly percent: number;
  /** Rising. */
  readonly gaps: readonly SequenceGap[];
}

/** Completeness of what came, of which `forgotten` numbers did not come. Null when nothing came. */
export function sequenceCompleteness(
  ranges: readonly SequenceRange[],
  forgotten: number,
): SequenceCompleteness | null {
  const [lowest] = ranges;
  const last = ranges.at(-1);
  if (lowest === undefined || last === undefined) return null;
  const [first] = lowest;
  const highest = last[1] - 1;
  const received = ranges.reduce((sum, [from, to]) => sum + to - from, 0) - forgotten;
  const missing = highest - first + 1 - received;
  const gaps = ranges.slice(1).map(([to], index) => ({
    from: ranges[index]?.[1] ?? 0,
    to: to - 1,
  }));
  return { first, highest, received, missing, percent: percentOf(received, missing), gaps };
}

/**
 * Received of received and missing together, in percent, cut to three decimals: 100 says that nothing is
 * missing. 100 too when nothing was expected.
 */
export function percentOf(received: number, missing: number): number {
  if (missing === 0) return 100;
  return Math.floor((received / (received + missing)) * 100_000) / 1000;
}

/** A time in which readings are missing: from when the first was due up to the next that came. */
export interface TimeGap {
  readonly fromMicros: number;
  readonly toMicros: number;
  readonly missing: number;
}

/** What lies around the readings of a window, in microseconds since 1970. */
export interface WindowEdges {
  readonly fromMicros: number;
  /** End of the window, or now when that is earlier. */
  readonly endMicros: number;
  /** Last reading before the window; null when there is none. */
  readonly beforeMicros: number | null;
  /** First and last reading in it; null when there is none. */
  readonly firstMicros: number | null;
  readonly lastMicros: number | null;
}

/**
 * The gap between two readings, when it is longer than one and a half cadences: a reading is missing once
 * it is half a cadence overdue.
 */
export function gapBetween(before: number, after: number, cadence: number): TimeGap | null {
  if (after - before <= 1.5 * cadence) return null;
  const missing = Math.round((after - before) / cadence) - 1;
  return { fromMicros: before + cadence, toMicros: after, missing };
}

/**
 * The gaps at the two ends of a window. Before the first reading that the device ever sent nothing is
 * missing; after its last one everything is.
 */
export function edgeGaps(edges: WindowEdges, cadence: number): TimeGap[] {
  const { fromMicros, endMicros, beforeMicros, firstMicros, lastMicros } = edges;
  const gaps: (TimeGap | null)[] = [];
  if (beforeMicros !== null) {
    const until = firstMicros ?? endMicros;
    gaps.push(clipped(gapBetween(beforeMicros, until, cadence), fromMicros, cadence));
  }
  if (lastMicros !== null) gaps.push(gapBetween(lastMicros, endMicros, cadence));
  return gaps.filter((gap) => gap !== null);
}

/** The part of a gap that lies in the window; readings were due at whole cadences before its end. */
function clipped(gap: TimeGap | null, fromMicros: number, cadence: number): TimeGap | null {
  if (gap === null || gap.fromMicros >= fromMicros) return gap;
  const missing = Math.min(gap.missing, Math.floor((gap.toMicros - fromMicros) / cadence));
  return missing > 0 ? { fromMicros, toMicros: gap.toMicros, missing } : null;
}
