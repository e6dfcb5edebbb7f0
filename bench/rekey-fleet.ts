import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import type { BoardAccess } from './fleet-keys.ts';
import { RekeyBoard, type BoardFate, type BoardPace } from './rekey-board.ts';
import { RekeyCounts } from './rekey-counts.ts';

/** Fates by the number of the board, modulo {@link FATES_EVERY}; the others meet none. */
const FATES: ReadonlyMap<number, BoardFate> = new Map([
  [2, 'cut_asking'],
  [5, 'answer_lost'],
  [8, 'forgets'],
  [11, 'power_cut'],
  [14, 'falls_back'],
  [17, 'asleep'],
]);
const FATES_EVERY = 20;
const CONNECTS_PER_S = 150;
const POLL_MS = 50;

/** Boards whose keys are changed. The last one is deaf; three of ten others meet some misfortune. */
export class RekeyFleet {
  readonly counts = new RekeyCounts();
  readonly boards: readonly RekeyBoard[];
  readonly #pace: BoardPace;

  constructor(accesses: readonly BoardAccess[], mqttUrl: string, pace: BoardPace) {
    this.#pace = pace;
    const last = accesses.length - 1;
    this.boards = accesses.map((access, index) => {
      const fate = index === last ? 'deaf' : (FATES.get(index % FATES_EVERY) ?? 'none');
      return new RekeyBoard(access, fate, { mqttUrl, pace, counts: this.counts });
    });
  }

  /** Boards of a fate. */
  of(fate: BoardFate): RekeyBoard[] {
    return this.boards.filter((board) => board.fate === fate);
  }

  /** Readings without PUBACK. */
  get waitingCount(): number {
    return this.boards.reduce((sum, { outbox }) => sum + outbox.waitingCount, 0);
  }

  /** Connects all, and lets them publish. @throws {ToolFailedError} when not all were let in. */
  async open(timeoutMs: number): Promise<void> {
    for (const [index, board] of this.boards.entries()) {
      board.connect();
      board.startPublishing((this.#pace.readingMs * index) / this.boards.length);
      if (index % 10 === 9) await delay(10_000 / CONNECTS_PER_S);
    }
    await until('the boards are not let in', timeoutMs, () => {
      return this.counts.connects >= this.boards.length;
    });
  }

  /**
   * Ends the publishing and waits for what is unacknowledged, and for every board to be connected.
   * @throws {ToolFailedError} when that takes too long.
   */
  async settle(timeoutMs: number): Promise<void> {
    for (const board of this.boards) {
      board.stopPublishing();
      board.stayAwake();
    }
    await until('readings are not acknowledged, or boards not connected', timeoutMs, () => {
      return this.waitingCount === 0 && this.boards.every(({ isConnected }) => isConnected);
    }).catch((error: unknown) => {
      const away = this.boards.filter(({ isConnected }) => !isConnected);
      const names = away.slice(0, 5).map(({ device, fate }) => `${device} (${fate})`);
      const detail = `${this.waitingCount} readings wait; not connected: ${away.length} ${names.join(' ')}`;
      throw new ToolFailedError(detail, { cause: error });
    });
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    await Promise.all(this.boards.map((board) => board.stop()));
  }
}

/** Waits until something is so. @throws {ToolFailedError} with these words when it takes too long. */
export async function until(
  fault: string,
  timeoutMs: number,
  isSo: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new ToolFailedError(fault);
    await delay(POLL_MS);
  }
}
