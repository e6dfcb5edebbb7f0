import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { microsOf, timestampText } from '../../drizzle/timestamp-text.ts';

/** The only program there is; a row for each when there are several. */
const NODE = 'main';

/** The row of this program in `rule_checkpoint`: times of receipt, microseconds since 1970. */
export class Checkpoint {
  readonly #pool: pg.Pool;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  /** Up to where everything received was evaluated and recorded; null: never written. @throws {StoreUnavailableError} */
  async read(): Promise<number | null> {
    const { rows } = await guardStore(
      this.#pool.query<{ micros: number }>(
        `SELECT ${microsOf('evaluated_until')} AS micros FROM rule_checkpoint WHERE node = $1`,
        [NODE],
      ),
    );
    return rows[0]?.micros ?? null;
  }

  /**
   * The same at the start of the program. The first one begins with the time of now: nothing of before is
   * to be evaluated, and all of this run is when it ends within the second. @throws {StoreUnavailableError}
   */
  async begin(nowMicros: number): Promise<number> {
    const before = await this.read();
    if (before === null) await this.move(nowMicros);
    return before ?? nowMicros;
  }

  /** Moves it; never back. @throws {StoreUnavailableError} */
  async move(micros: number): Promise<void> {
    await guardStore(
      this.#pool.query(
        `INSERT INTO rule_checkpoint AS stored (node, evaluated_until) VALUES ($1, $2)
         ON CONFLICT (node) DO UPDATE SET evaluated_until = excluded.evaluated_until
         WHERE stored.evaluated_until < excluded.evaluated_until`,
        [NODE, timestampText(micros)],
      ),
    );
  }
}

/** What was appended between two looks at the clock and is not settled yet. */
export interface Epoch {
  unsettled: number;
}

/**
 * Says up to which time of receipt everything that was evaluated is recorded. What is appended belongs to
 * the epoch under way; an epoch that is over and has nothing unsettled, with all before it settled, moves
 * the mark to where evaluation was when it ended.
 */
export class SettledMark {
  #open: Epoch = { unsettled: 0 };
  #closing: { readonly epoch: Epoch; readonly micros: number } | null = null;
  #evaluatedMicros = -Infinity;
  #isLossy = false;

  /** The epoch that something appended now belongs to. */
  get epoch(): Epoch {
    return this.#open;
  }

  /** Everything received up to then has been evaluated. Never goes back. */
  noteEvaluated(receivedMicros: number): void {
    if (receivedMicros > this.#evaluatedMicros) this.#evaluatedMicros = receivedMicros;
  }

  /** Something was given up that evaluation can find again: the mark stays where it is until the next start. */
  noteLoss(): void {
    this.#isLossy = true;
  }

  /** To be called every second. @returns where the mark is now; null when it has not moved. */
  advance(): number | null {
    if (this.#isLossy) return null;
    let reached: number | null = null;
    if (this.#closing?.epoch.unsettled === 0) {
      reached = this.#closing.micros;
      this.#closing = null;
    }
    if (this.#closing === null) {
      this.#closing = { epoch: this.#open, micros: this.#evaluatedMicros };
      this.#open = { unsettled: 0 };
    }
    return reached === -Infinity ? null : reached;
  }
}
