import type { Database } from '../drizzle/database.ts';
import { inTransaction } from '../drizzle/transaction.ts';
import type { AnsweringDevice } from './command.ts';
import type { CommandRow } from './command-row.ts';
import type { CommandWire } from './commands.ts';
import { readSlot, slotTopic } from './slot.ts';

/** A slot that was written to a connection. */
export interface SentNote {
  readonly from: AnsweringDevice;
  /** Null: the slot was empty. */
  readonly wireId: number | null;
  readonly usesAlias: boolean;
  readonly atMs: number;
}

interface PendingNote {
  readonly note: SentNote;
  /** Also when the slot has moved on: it says how the device spells its topics. */
  readonly mustBe: boolean;
  /** Monotonic. */
  readonly dueMs: number;
  /** How often it was left out. */
  readonly misses: number;
}

/** What became of notes that were written. */
export interface WrittenNotes {
  /** Commands that were not known to have been sent. */
  readonly sent: readonly SentRow[];
  /** Devices whose rows were free; the notes of others have been left out. */
  readonly deviceIds: ReadonlySet<number>;
}

/** A command that is known to have been sent, with the id of the step. */
export interface SentRow {
  readonly row: CommandRow;
  readonly event_id: number;
}

/** How often notes are looked at. */
const FLUSH_MS = 100;
/**
 * What was answered within this time is not noted: the answer says it too. Noting holds the row of the slot,
 * and an answer that came meanwhile would wait for that.
 */
const UNANSWERED_MS = 250;
const NOTES_MAX = 500;
/** A row is held for milliseconds; that of a device that was deleted is never free. */
const MISSES_MAX = 20;
const KNOWN_MAX = 100_000;

/**
 * Notes that slots were written to connections, off the way of a command to its device: in batches, and
 * what is being changed by somebody else is left out. What is lost does no harm: an answer says it too.
 */
export class SentNotes {
  readonly #wire: Pick<CommandWire, 'retained'>;
  readonly #now: () => number;
  readonly #flush: (notes: readonly SentNote[]) => Promise<ReadonlySet<number> | null>;
  #notes = new Map<number, PendingNote>();
  /** How devices spell their topics: stored, or about to be. */
  readonly #spelling = new Map<number, boolean>();
  #timer: NodeJS.Timeout | null = null;
  #work: Promise<void> = Promise.resolve();
  #isOver = false;

  /** @param flush gives the devices whose notes were written; null: nothing was. Never rejects. */
  constructor(
    wire: Pick<CommandWire, 'retained'>,
    now: () => number,
    flush: (notes: readonly SentNote[]) => Promise<ReadonlySet<number> | null>,
  ) {
    this.#wire = wire;
    this.#now = now;
    this.#flush = flush;
  }

  /** Takes note of it. Returns at once. */
  sent(from: AnsweringDevice, usesAlias: boolean): void {
    const { deviceId } = from;
    const wireId = this.#slotId(from);
    const isSpellingNew = (this.#spelling.get(deviceId) ?? true) !== usesAlias;
    if (wireId === null && !isSpellingNew) return;
    if (this.#spelling.size >= KNOWN_MAX) this.#spelling.clear();
    this.#spelling.set(deviceId, usesAlias);
    const note = { from, wireId, usesAlias, atMs: this.#now() };
    const mustBe = isSpellingNew || this.#notes.get(deviceId)?.mustBe === true;
    this.#notes.set(deviceId, {
      note,
      mustBe,
      dueMs: performance.now() + UNANSWERED_MS,
      misses: 0,
    });
    if (this.#notes.size >= NOTES_MAX) this.#take(Infinity);
    else this.#timer ??= setTimeout(() => this.#take(performance.now()), FLUSH_MS);
  }

  /** Writes what was noted; resolves when it is done or given up. Nothing is tried again from now on. */
  async drained(): Promise<void> {
    this.#isOver = true;
    this.#take(Infinity);
    await this.#work;
  }

  /** Those that are due by then; of the slot that has moved on nothing is to be said any more. */
  #take(byMs: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const due: PendingNote[] = [];
    for (const [deviceId, pending] of this.#notes) {
      const { note, mustBe, dueMs } = pending;
      if (dueMs > byMs) continue;
      this.#notes.delete(deviceId);
      if (mustBe || this.#slotId(note.from) === note.wireId) due.push(pending);
    }
    if (this.#notes.size > 0) {
      this.#timer = setTimeout(() => this.#take(performance.now()), FLUSH_MS);
    }
    if (due.length > 0) this.#work = this.#work.then(() => this.#write(due));
  }

  /** What could not be written of a new spelling is not to be taken for stored. */
  async #write(due: readonly PendingNote[]): Promise<void> {
    const written = await this.#flush(due.map(({ note }) => note));
    for (const pending of due) {
      const { mustBe, misses, note } = pending;
      if (!mustBe || written?.has(note.from.deviceId) === true) continue;
      const mayTryAgain = written !== null && !this.#isOver && misses < MISSES_MAX;
      this.#missed(pending, mayTryAgain);
    }
  }

  #missed(pending: PendingNote, mayTryAgain: boolean): void {
    const { from, usesAlias } = pending.note;
    const { deviceId } = from;
    const newer = this.#notes.get(deviceId);
    if (newer !== undefined) {
      this.#notes.set(deviceId, { ...newer, mustBe: true });
    } else if (mayTryAgain) {
      const [dueMs, misses] = [performance.now() + UNANSWERED_MS, pending.misses + 1];
      this.#notes.set(deviceId, { ...pending, dueMs, misses });
      this.#timer ??= setTimeout(() => this.#take(performance.now()), FLUSH_MS);
    } else {
      this.#spelling.set(deviceId, !usesAlias);
    }
  }

  #slotId(from: AnsweringDevice): number | null {
    return readSlot(this.#wire.retained(slotTopic(from)))?.id ?? null;
  }
}

/** Writes notes; those of slots that somebody holds are left out. @throws {StoreUnavailableError} */
export function writeSent(
  { pool }: Pick<Database, 'pool'>,
  notes: readonly SentNote[],
): Promise<WrittenNotes> {
  const given = JSON.stringify(
    notes.map(({ from, wireId, usesAlias, atMs }) => ({
      device_id: from.deviceId,
      wire_id: wireId,
      uses_alias: usesAlias,
      at: new Date(atMs),
    })),
  );
  const x = `jsonb_to_recordset($1::jsonb)
    AS x (device_id int4, wire_id int8, uses_alias bool, at timestamptz)`;
  return inTransaction(pool, async ({ client }) => {
    // Devices that spell otherwise than it is taken for granted have a row before their first command.
    await client.query(
      `INSERT INTO command_slot (device_id, organization_id, uses_alias)
       SELECT device_id, organization_id, uses_alias FROM device JOIN ${x} USING (device_id)
       WHERE NOT x.uses_alias ON CONFLICT DO NOTHING`,
      [given],
    );
    // Whoever holds a slot now is about to write the answer; what it writes says more.
    const { rows: free } = await client.query<{ device_id: number }>(
      `SELECT device_id FROM command_slot
       WHERE device_id IN (SELECT device_id FROM ${x}) FOR UPDATE SKIP LOCKED`,
      [given],
    );
    const held = free.map((row) => row.device_id);
    await client.query(
      `UPDATE command_slot AS slot SET uses_alias = x.uses_alias FROM ${x}
       WHERE slot.device_id = x.device_id AND slot.device_id = ANY($2)
         AND slot.uses_alias <> x.uses_alias`,
      [given, held],
    );
    const { rows: sent } = await client.query<SentRow>(
      `WITH sent AS (
         UPDATE command SET state = 'sent', sent_at = x.at FROM ${x}
         WHERE command.device_id = x.device_id AND command.wire_id = x.wire_id
           AND command.device_id = ANY($2) AND command.state = 'published'
         RETURNING command.*, x.at),
       step AS (
         INSERT INTO command_event (command_id, organization_id, device_id, occurred_at, state, detail)
         SELECT command_id, organization_id, device_id, at, 'sent', '{}' FROM sent
         RETURNING command_id, command_event_id)
       SELECT to_jsonb(sent) AS row, command_event_id::float8 AS event_id
       FROM step JOIN sent USING (command_id)`,
      [given, held],
    );
    return { sent, deviceIds: new Set(held) };
  });
}
