import type { AcknowledgedLog } from './acknowledged-log.ts';
import type { HistoryRow } from './api-client.ts';
import { inParallel } from './fleet-keys.ts';
import { sensorMetrics, sensorReading } from './sensor-curves.ts';

/** What became of the acknowledged readings. One message holds three or four readings. */
export interface Verification {
  acknowledged: number;
  found: number;
  missing: number;
  /** Found, but with another value than was sent. */
  different: number;
  /** Found more than once. */
  twice: number;
  /** The first few that are missing, for a person to look at. */
  examples: string[];
}

/** Where history comes from; the API client in the tools. */
export type HistorySource = (
  device: string,
  fromMs: number,
  toMs: number,
) => AsyncIterable<HistoryRow[]>;

const BOARDS_AT_ONCE = 4;
const EXAMPLES_MAX = 5;

/**
 * Reads back every acknowledged reading of every board, page by page, and compares time, metric and
 * value. Memory: one board's times and one page for each of four boards.
 */
export async function verifyReadings(
  boards: readonly { number: number; device: string }[],
  log: AcknowledgedLog,
  history: HistorySource,
  advance: (boardsDone: number) => void = () => undefined,
): Promise<Verification> {
  const total: Verification = {
    acknowledged: 0,
    found: 0,
    missing: 0,
    different: 0,
    twice: 0,
    examples: [],
  };
  let boardsDone = 0;
  await inParallel(boards, BOARDS_AT_ONCE, async (board) => {
    const check = new BoardCheck(board, log.times(board.number), total);
    if (check.fromMs !== null) {
      for await (const page of history(board.device, check.fromMs, check.toMs)) check.take(page);
    }
    check.close();
    boardsDone += 1;
    advance(boardsDone);
  });
  return total;
}

class BoardCheck {
  readonly #board: { number: number; device: string };
  readonly #times: Float64Array;
  /** One bit for each metric that was found at the time of the same index. */
  readonly #found: Uint8Array;
  readonly #total: Verification;
  readonly fromMs: number | null;
  readonly toMs: number;

  constructor(board: { number: number; device: string }, times: Float64Array, total: Verification) {
    this.#board = board;
    this.#times = times;
    this.#found = new Uint8Array(times.length);
    this.#total = total;
    this.fromMs = times[0] ?? null;
    // A second more, whether the API takes "to" as inside or outside.
    this.toMs = (times.at(-1) ?? 0) + 1000;
  }

  take(page: readonly HistoryRow[]): void {
    for (const row of page) {
      const timeMs = Date.parse(row.time);
      const index = indexOf(this.#times, timeMs);
      const metric = sensorMetrics.findIndex((name) => name === row.metric);
      if (index < 0 || metric < 0) continue;
      const bit = 1 << metric;
      const found = this.#found[index] ?? 0;
      if ((found & bit) !== 0) this.#total.twice += 1;
      this.#found[index] = found | bit;
      const sent = sensorReading(this.#board.number, timeMs)[sensorMetrics[metric] ?? 'temp'];
      if (sent !== undefined && Number(row.value) !== Number(sent)) this.#total.different += 1;
    }
  }

  close(): void {
    for (const [index, timeMs] of this.#times.entries()) {
      const reading = sensorReading(this.#board.number, timeMs);
      for (const [metric, name] of sensorMetrics.entries()) {
        if (reading[name] === undefined) continue;
        this.#total.acknowledged += 1;
        if (((this.#found[index] ?? 0) & (1 << metric)) !== 0) this.#total.found += 1;
        else this.#miss(name, timeMs);
      }
    }
  }

  #miss(metric: string, timeMs: number): void {
    this.#total.missing += 1;
    if (this.#total.examples.length >= EXAMPLES_MAX) return;
    const time = new Date(timeMs).toISOString();
    this.#total.examples.push(`${this.#board.device} ${metric} ${time}`);
  }
}

/** Binary search; -1 when the value is not there. */
function indexOf(sorted: Float64Array, value: number): number {
  let low = 0;
  let high = sorted.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const candidate = sorted[middle] ?? 0;
    if (candidate === value) return middle;
    if (candidate < value) low = middle + 1;
    else high = middle - 1;
  }
  return -1;
}
