import { setImmediate } from 'node:timers/promises';
import type pg from 'pg';
import type { StoredReading } from './device-load.ts';
import type { DeviceLoaderDeps } from './device-loader.ts';
import {
  CATCH_UP_ROWS_MAX,
  findUnevaluated,
  readHistory,
  type HistoryRow,
  type WantedSeries,
} from './history-rows.ts';

/** Readings that one statement may find: what comes of it holds up the event loop for no more than 50 ms. */
const STATEMENT_ROWS_MAX = 50_000;
/** Readings that are sorted in one turn of the event loop. */
const SORTED_ROWS_MAX = 20_000;

/** The first time of each device that may not have been evaluated; devices without are left out. */
export async function findCatchUp(
  pool: pg.Pool,
  series: readonly WantedSeries[],
): Promise<Map<number, number>> {
  const behind = series.filter(({ latest, unevaluatedMicros }) => {
    return latest.receivedMicros > unevaluatedMicros;
  });
  const catchUp = new Map<number, number>();
  for (const part of partsOf(behind, () => CATCH_UP_ROWS_MAX)) {
    for (const [{ deviceId }, first] of await findUnevaluated(pool, part)) {
      catchUp.set(deviceId, Math.min(catchUp.get(deviceId) ?? Infinity, first));
    }
  }
  return catchUp;
}

/** Of each device, in order of time. Most series have no window, and nothing but their newest reading is wanted. */
export async function readHistories(
  { pool, windowSamplesMax, metrics, log }: DeviceLoaderDeps,
  series: readonly WantedSeries[],
  catchUp: ReadonlyMap<number, number>,
): Promise<Map<number, StoredReading[]>> {
  const rowsMax = windowSamplesMax + CATCH_UP_ROWS_MAX;
  const histories = new Map<number, StoredReading[]>();
  const hasWindow = ({ deviceId, historyMicros }: WantedSeries): boolean =>
    historyMicros > 0 || catchUp.has(deviceId);
  const asked: WantedSeries[] = [];
  for (const one of series) {
    if (isNewestEnough(one) && one.samplesBefore === 1 && !hasWindow(one)) {
      add(histories, one, readingOf(one, one.latest.timeMicros, one.latest));
    } else asked.push(one);
  }
  const fromMicros = (one: WantedSeries): number => windowBeginning(one, catchUp.get(one.deviceId));
  let cut = 0;
  const rowsOf = (one: WantedSeries): number => one.samplesBefore + (hasWindow(one) ? rowsMax : 1);
  asked.sort((a, b) => a.samplesBefore - b.samplesBefore);
  for (const part of partsOf(asked, rowsOf)) {
    const { samplesBefore = 1 } = part[0] ?? {};
    const rows = await readHistory(pool, part, { fromMicros, rowsMax, samplesBefore });
    const inWindow = addRows(histories, part, rows, fromMicros);
    cut += inWindow.filter((count) => count >= rowsMax).length;
  }
  await sortAll(histories.values());
  metrics.loaded(series.length, cut);
  if (cut > 0) log.warn({ series: cut, rowsMax }, 'windows of rules begin later than they reach');
  return histories;
}

async function sortAll(histories: Iterable<StoredReading[]>): Promise<void> {
  let sorted = 0;
  for (const history of histories) {
    history.sort((a, b) => a.timeMicros - b.timeMicros);
    sorted += history.length;
    if (sorted < SORTED_ROWS_MAX) continue;
    sorted = 0;
    await setImmediate();
  }
}

function isNewestEnough({ latest, beforeMicros, receivedBeforeMicros }: WantedSeries): boolean {
  return latest.timeMicros < beforeMicros && latest.receivedMicros < receivedBeforeMicros;
}

function windowBeginning(
  { latest, beforeMicros, historyMicros }: WantedSeries,
  catchUpMicros = Infinity,
): number {
  return Math.min(latest.timeMicros, beforeMicros, catchUpMicros) - historyMicros;
}

/** @returns how many rows of the window there are, of each series. */
function addRows(
  histories: Map<number, StoredReading[]>,
  series: readonly WantedSeries[],
  rows: readonly HistoryRow[],
  fromMicros: (one: WantedSeries) => number,
): number[] {
  const inWindow = series.map(() => 0);
  for (const { i, time_micros: timeMicros, value, text_value: text } of rows) {
    const one = series[i];
    if (one === undefined) continue;
    if (timeMicros >= fromMicros(one)) inWindow[i] = (inWindow[i] ?? 0) + 1;
    add(histories, one, readingOf(one, timeMicros, { value, text }));
  }
  return inWindow;
}

function readingOf(
  { metric, isText }: WantedSeries,
  timeMicros: number,
  { value, text }: { readonly value: number | null; readonly text: string | null },
): StoredReading {
  return { metric, timeMicros, value: value ?? NaN, text: isText ? text : null };
}

function add(
  histories: Map<number, StoredReading[]>,
  { deviceId }: WantedSeries,
  reading: StoredReading,
): void {
  const history = histories.get(deviceId);
  if (history === undefined) histories.set(deviceId, [reading]);
  else history.push(reading);
}

/** Parts that want as many samples before the window, and find no more than {@link STATEMENT_ROWS_MAX} rows. */
function* partsOf(
  series: readonly WantedSeries[],
  rowsOf: (one: WantedSeries) => number,
): Generator<WantedSeries[]> {
  let part: WantedSeries[] = [];
  let rows = 0;
  for (const one of series) {
    const more = rowsOf(one);
    const isAlike = part[0] === undefined || part[0].samplesBefore === one.samplesBefore;
    if (part.length > 0 && (!isAlike || rows + more > STATEMENT_ROWS_MAX)) {
      yield part;
      part = [];
      rows = 0;
    }
    part.push(one);
    rows += more;
  }
  if (part.length > 0) yield part;
}
