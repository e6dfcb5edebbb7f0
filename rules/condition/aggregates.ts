// HOT PATH: once for each sample of a metric that a window looks at
import type { SampleRing } from './sample-ring.ts';

/** Something computed over the samples of a ring, kept up to date as they come and go. */
export interface Aggregate {
  /** After the newest sample came in. */
  added(ring: SampleRing): void;
  /** Before the oldest one goes out. */
  removing(ring: SampleRing): void;
  /** NaN when it cannot be said of so few. Of an empty ring it is not asked. */
  result(ring: SampleRing): number;
  reset(): void;
}

/** What can be folded in any grouping without subtraction. */
type Fold = 'sum' | 'min' | 'max';

/**
 * Sum, smallest or largest of a window. Two stacks: the older samples have each the fold of themselves and
 * all younger ones of that part, the newer ones have one fold in all. So nothing is ever subtracted and no
 * error of rounding stays behind when a sample goes; a sample is folded at most twice.
 */
export class FoldAggregate implements Aggregate {
  readonly #fold: Fold;
  readonly #isMean: boolean;
  /** By slot, of the older part. */
  #older = new Float64Array(0);
  #olderCount = 0;
  #newer = 0;

  constructor(fold: Fold, isMean = false) {
    this.#fold = fold;
    this.#isMean = isMean;
  }

  added(ring: SampleRing): void {
    if (this.#older.length !== ring.capacity) {
      this.#older = new Float64Array(ring.capacity);
      this.#turn(ring);
      return;
    }
    const value = ring.valueAt(ring.count - 1);
    const isFirst = ring.count - this.#olderCount === 1;
    this.#newer = isFirst ? value : this.#join(this.#newer, value);
  }

  removing(ring: SampleRing): void {
    if (this.#olderCount === 0) this.#turn(ring);
    this.#olderCount -= 1;
  }

  result(ring: SampleRing): number {
    const older = this.#olderCount === 0 ? NaN : (this.#older[ring.slot(0)] as number);
    const hasNewer = ring.count > this.#olderCount;
    const all =
      this.#olderCount === 0 ? this.#newer : hasNewer ? this.#join(older, this.#newer) : older;
    return this.#isMean ? all / ring.count : all;
  }

  reset(): void {
    this.#older = new Float64Array(0);
    this.#olderCount = 0;
  }

  /** Makes all samples the older part. */
  #turn(ring: SampleRing): void {
    let fold = ring.valueAt(ring.count - 1);
    this.#older[ring.slot(ring.count - 1)] = fold;
    for (let index = ring.count - 2; index >= 0; index -= 1) {
      fold = this.#join(ring.valueAt(index), fold);
      this.#older[ring.slot(index)] = fold;
    }
    this.#olderCount = ring.count;
  }

  #join(left: number, right: number): number {
    if (this.#fold === 'sum') return left + right;
    return this.#fold === 'min' ? Math.min(left, right) : Math.max(left, right);
  }
}

/**
 * Standard deviation of the samples of a window (of all of them, not an estimate from a part), by the same
 * two stacks: each keeps a mean and a sum of squared distances from it, joined after Chan. Needs two.
 */
export class SpreadAggregate implements Aggregate {
  #olderMeans = new Float64Array(0);
  #olderSquares = new Float64Array(0);
  #olderCount = 0;
  #newerMean = 0;
  #newerSquares = 0;

  added(ring: SampleRing): void {
    if (this.#olderMeans.length !== ring.capacity) {
      this.#olderMeans = new Float64Array(ring.capacity);
      this.#olderSquares = new Float64Array(ring.capacity);
      this.#turn(ring);
      return;
    }
    const count = ring.count - this.#olderCount;
    if (count === 1) {
      this.#newerMean = 0;
      this.#newerSquares = 0;
    }
    const value = ring.valueAt(ring.count - 1);
    const distance = value - this.#newerMean;
    this.#newerMean = count === 1 ? value : this.#newerMean + distance / count;
    if (count > 1) this.#newerSquares += distance * (value - this.#newerMean);
  }

  removing(ring: SampleRing): void {
    if (this.#olderCount === 0) this.#turn(ring);
    this.#olderCount -= 1;
  }

  result(ring: SampleRing): number {
    const count = ring.count;
    if (count < 2) return NaN;
    const newerCount = count - this.#olderCount;
    if (this.#olderCount === 0) return Math.sqrt(this.#newerSquares / count);
    const slot = ring.slot(0);
    const squares = this.#olderSquares[slot] as number;
    if (newerCount === 0) return Math.sqrt(squares / count);
    const distance = this.#newerMean - (this.#olderMeans[slot] as number);
    const between = distance * distance * ((this.#olderCount * newerCount) / count);
    return Math.sqrt((squares + this.#newerSquares + between) / count);
  }

  reset(): void {
    this.#olderMeans = new Float64Array(0);
    this.#olderSquares = new Float64Array(0);
    this.#olderCount = 0;
  }

  #turn(ring: SampleRing): void {
    let mean = 0;
    let squares = 0;
    for (let index = ring.count - 1; index >= 0; index -= 1) {
      const value = ring.valueAt(index);
      const count = ring.count - index;
      const distance = value - mean;
      mean = count === 1 ? value : mean + distance / count;
      if (count > 1) squares += distance * (value - mean);
      const slot = ring.slot(index);
      this.#olderMeans[slot] = mean;
      this.#olderSquares[slot] = squares;
    }
    this.#olderCount = ring.count;
  }
}

/** How far the newest sample is from the oldest; a second apart in case of a rate. Needs two. */
export class ChangeAggregate implements Aggregate {
  readonly #isRate: boolean;

  constructor(isRate: boolean) {
    this.#isRate = isRate;
  }

  added(): void {}

  removing(): void {}

  result(ring: SampleRing): number {
    const last = ring.count - 1;
    if (last < 1) return NaN;
    const change = ring.valueAt(last) - ring.valueAt(0);
    if (!this.#isRate) return change;
    return (change * 1_000_000) / (ring.timeAt(last) - ring.timeAt(0));
  }

  reset(): void {}
}

/** A percentile of the samples of a window, with a straight line between the two next to it. */
export class PercentileAggregate implements Aggregate {
  readonly #fraction: number;
  #sorted = new Float64Array(0);
  #count = 0;

  /** @param percent 1 to 99. */
  constructor(percent: number) {
    this.#fraction = percent / 100;
  }

  added(ring: SampleRing): void {
    if (this.#sorted.length !== ring.capacity) {
      const sorted = new Float64Array(ring.capacity);
      sorted.set(this.#sorted.subarray(0, this.#count));
      this.#sorted = sorted;
    }
    const value = ring.valueAt(ring.count - 1);
    const at = this.#placeOf(value);
    this.#sorted.copyWithin(at + 1, at, this.#count);
    this.#sorted[at] = value;
    this.#count += 1;
  }

  removing(ring: SampleRing): void {
    const at = this.#placeOf(ring.valueAt(0));
    this.#sorted.copyWithin(at, at + 1, this.#count);
    this.#count -= 1;
  }

  result(): number {
    const rank = this.#fraction * (this.#count - 1);
    const below = Math.floor(rank);
    const low = this.#sorted[below] as number;
    const high = this.#sorted[Math.min(below + 1, this.#count - 1)] as number;
    return low + (high - low) * (rank - below);
  }

  reset(): void {
    this.#sorted = new Float64Array(0);
    this.#count = 0;
  }

  /** Of the first that is not smaller. */
  #placeOf(value: number): number {
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sorted[middle] as number) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** How many samples there are. */
export class CountAggregate implements Aggregate {
  added(): void {}

  removing(): void {}

  result(ring: SampleRing): number {
    return ring.count;
  }

  reset(): void {}
}
