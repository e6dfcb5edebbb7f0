/** What the program said of its memory at one moment. */
export interface HeapSample {
  /** Since the load began. */
  readonly atS: number;
  readonly rssBytes: number;
  /** Of the JavaScript heap, in use: what is garbage by now is in it. */
  readonly heapBytes: number;
  /** Of buffers and other memory outside the JavaScript heap. */
  readonly externalBytes: number;
}

/** One kind of memory over the last two thirds of a run. */
export interface HeapTrend {
  readonly meanBytes: number;
  readonly maxBytes: number;
  /** Of the straight line that fits the samples best. */
  readonly bytesPerH: number;
  /** What that line rises from its beginning to its end. */
  readonly risenBytes: number;
}

/** The line may rise by this much, as a share of the mean, or by this many bytes, before it counts. */
const RISE_SHARE_MAX = 0.1;
const RISE_BYTES_MAX = 8_000_000;
/** Caches fill and code is compiled in the first third. */
const FIRST_SHARE = 1 / 3;

/** The line of least squares through the last two thirds of the samples. Needs three of them. */
export function trendOf(
  samples: readonly HeapSample[],
  read: (sample: HeapSample) => number,
): HeapTrend {
  const endS = samples.at(-1)?.atS ?? 0;
  const kept = samples.filter(({ atS }) => atS >= endS * FIRST_SHARE);
  if (kept.length < 3) throw new RangeError(`${kept.length} samples make no trend`);
  const meanS = mean(kept.map(({ atS }) => atS));
  const meanBytes = mean(kept.map(read));
  const sum = (each: (sample: HeapSample) => number): number =>
    kept.reduce((total, sample) => total + each(sample), 0);
  const slope =
    sum((sample) => (sample.atS - meanS) * (read(sample) - meanBytes)) /
    sum(({ atS }) => (atS - meanS) ** 2);
  const lastedS = endS - (kept[0]?.atS ?? 0);
  return {
    meanBytes,
    maxBytes: Math.max(...kept.map(read)),
    bytesPerH: slope * 3600,
    risenBytes: slope * lastedS,
  };
}

/** The bytes by which a line may rise over the last two thirds of a run and still count as flat. */
export function riseMax({ meanBytes }: HeapTrend): number {
  return Math.max(RISE_BYTES_MAX, meanBytes * RISE_SHARE_MAX);
}

/** Whether the memory did not grow. A falling line is flat too. */
export function isFlat(trend: HeapTrend): boolean {
  return trend.risenBytes <= riseMax(trend);
}

function mean(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0) / values.length;
}
