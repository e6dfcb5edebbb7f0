import type { Series } from '../compiled-rule.ts';
import type { RuleWatch } from './rule-instance.ts';

/** A series that one rule has of its own, because others may see a reading before it does. */
export interface SeriesApart {
  readonly series: Series;
  readonly watch: RuleWatch;
}

const NONE: readonly SeriesApart[] = [];

/** A metric of a device with who looks at it; the handle that readings are given with. */
export class DeviceSeries {
  readonly metric: string;
  /** Newest reading, for rules that take readings as they come. */
  readonly series: Series;
  readonly watches: RuleWatch[] = [];
  /** Empty of most devices; see `PreparedRule.isApart`. */
  apart: readonly SeriesApart[] = NONE;

  constructor(metric: string) {
    this.metric = metric;
    this.series = emptySeries(metric);
  }

  /** Whether any rule looks at it. */
  get isWatched(): boolean {
    return this.watches.length > 0 || this.apart.length > 0;
  }

  /** Notes that a rule looks at it: at the common series, or at one of its own. */
  watchedBy(watch: RuleWatch, series: Series): void {
    if (series === this.series) this.watches.push(watch);
    else this.apart = [...this.apart, { series, watch }];
  }

  /** Forgets who looks at it, and not its newest reading. */
  unwatch(): void {
    this.watches.length = 0;
    this.apart = NONE;
  }
}

/** A series without a reading. */
export function emptySeries(metric: string): Series {
  return { metric, timeMicros: -Infinity, value: NaN, text: null };
}

/** Moves a series on. @returns false when the reading is not newer than its last. */
export function moveOn(
  series: Series,
  timeMicros: number,
  value: number,
  text: string | null,
): boolean {
  if (timeMicros <= series.timeMicros) return false;
  series.timeMicros = timeMicros;
  series.value = value;
  series.text = text;
  return true;
}

/**
 * Readings of one sample, until all of them have come, and whom they concern. One is shared by all devices
 * of a thread: it is empty between samples.
 */
export class SampleReadings {
  count = 0;
  readonly handles: DeviceSeries[] = [];
  readonly values: number[] = [];
  readonly texts: (string | null)[] = [];
  /** Readings that were left out because later ones had come. */
  late = 0;
  readonly #touched: RuleWatch[] = [];
  #touchedCount = 0;

  /** @param value 1 or 0 of a boolean; NaN of a text. */
  add(handle: DeviceSeries, value: number, text: string | null): void {
    this.handles[this.count] = handle;
    this.values[this.count] = value;
    this.texts[this.count] = text;
    this.count += 1;
  }

  /** Notes that a rule is to be evaluated, once. */
  touch(watch: RuleWatch): void {
    if (watch.isTouched) return;
    watch.isTouched = true;
    this.#touched[this.#touchedCount] = watch;
    this.#touchedCount += 1;
  }

  /** Forgets a sample that could not be evaluated. */
  clear(): void {
    this.count = 0;
    this.#untouch();
  }

  /** Evaluates what was touched. */
  evaluateTouched(timeMicros: number): void {
    const count = this.#touchedCount;
    this.#untouch();
    for (let index = 0; index < count; index += 1) this.#touched[index]?.evaluate(timeMicros);
  }

  #untouch(): void {
    for (let index = 0; index < this.#touchedCount; index += 1) {
      const watch = this.#touched[index];
      if (watch !== undefined) watch.isTouched = false;
    }
    this.#touchedCount = 0;
  }
}
