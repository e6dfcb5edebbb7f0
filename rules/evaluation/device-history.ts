import type { StoredEvent, StoredReading } from './device-load.ts';
import { emptySeries, moveOn, type DeviceSeries } from './device-series.ts';
import type { RuleWatch } from './rule-instance.ts';

/** Readings of one time, which are evaluated as one sample. */
function* samplesOf(
  history: readonly StoredReading[],
): Generator<{ readonly timeMicros: number; readonly readings: readonly StoredReading[] }> {
  let first = 0;
  while (first < history.length) {
    const timeMicros = history[first]?.timeMicros ?? 0;
    let end = first + 1;
    while (end < history.length && history[end]?.timeMicros === timeMicros) end += 1;
    yield { timeMicros, readings: history.slice(first, end) };
    first = end;
  }
}

/** A sample or an event of history. */
export interface Happening {
  readonly timeMicros: number;
  /** Empty of an event. */
  readonly readings: readonly StoredReading[];
  readonly event: StoredEvent | null;
}

/** Samples and events in the order of their times; readings are first at the same time. */
export function* happeningsOf(
  history: readonly StoredReading[],
  events: readonly StoredEvent[],
): Generator<Happening> {
  let next = 0;
  for (const sample of samplesOf(history)) {
    for (let event = events[next]; event !== undefined; event = events[next]) {
      if (event.timeMicros >= sample.timeMicros) break;
      next += 1;
      yield { timeMicros: event.timeMicros, readings: [], event };
    }
    yield { ...sample, event: null };
  }
  for (const event of events.slice(next)) {
    yield { timeMicros: event.timeMicros, readings: [], event };
  }
}

/** What is fed to rules of the past. */
export interface Past {
  readonly history: readonly StoredReading[];
  readonly events: readonly StoredEvent[];
}

/** Parts the past at a time: what is before it, and what is not. */
export function splitPast({ history, events }: Past, atMicros: number): [Past, Past] {
  const isBefore = ({ timeMicros }: { readonly timeMicros: number }): boolean =>
    timeMicros < atMicros;
  const isBehind = (each: { readonly timeMicros: number }): boolean => !isBefore(each);
  return [
    { history: history.filter(isBefore), events: events.filter(isBefore) },
    { history: history.filter(isBehind), events: events.filter(isBehind) },
  ];
}

/**
 * Feeds the past to some rules, so that their conditions remember what they would have seen; the device must
 * be warming. Others that look at the same series see nothing of it. Series that are newer stay as they are.
 * @param takeEvent gives an event to a rule.
 */
export function feedPast(
  past: Past,
  series: ReadonlyMap<string, DeviceSeries>,
  watches: ReadonlySet<RuleWatch>,
  takeEvent: (watch: RuleWatch, event: StoredEvent) => void,
): void {
  const known = [...series.values()].map((handle) => ({ ...handle.series }));
  for (const handle of series.values()) Object.assign(handle.series, emptySeries(handle.metric));
  for (const { timeMicros, readings, event } of happeningsOf(past.history, past.events)) {
    const touched = new Set<RuleWatch>();
    for (const reading of readings) {
      const handle = series.get(reading.metric);
      if (handle !== undefined) moveTo(handle, reading, watches, touched);
    }
    for (const watch of touched) watch.evaluate(timeMicros);
    if (event === null) continue;
    for (const watch of watches) {
      if (watch.prepared.rule.events.includes(event.name)) takeEvent(watch, event);
    }
  }
  for (const [index, { series: own }] of [...series.values()].entries()) {
    const before = known[index];
    if (before !== undefined && before.timeMicros >= own.timeMicros) Object.assign(own, before);
  }
}

/** Moves the series on that the rules look at, and notes which look. */
function moveTo(
  handle: DeviceSeries,
  { timeMicros, value, text }: StoredReading,
  watches: ReadonlySet<RuleWatch>,
  touched: Set<RuleWatch>,
): void {
  moveOn(handle.series, timeMicros, value, text);
  for (const watch of handle.watches) if (watches.has(watch)) touched.add(watch);
  for (const { watch, series } of handle.apart) {
    if (!watches.has(watch)) continue;
    moveOn(series, timeMicros, value, text);
    touched.add(watch);
  }
}
