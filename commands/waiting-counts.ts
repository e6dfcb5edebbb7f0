import type { Database } from '../drizzle/database.ts';
import type { AnsweringDevice } from './command.ts';
import type { CommandWire } from './commands.ts';
import { readSlot, slotTopic } from './slot.ts';

/** How long a greeting waits for the database. */
const ANSWER_MS_MAX = 1000;
const BATCH_DEVICES_MAX = 1000;

interface Asked {
  readonly deviceId: number;
  readonly resolve: (waiting: number | null) => void;
}

/**
 * Counts the commands that wait for devices. Those who ask at the same time share a statement, one at a
 * time, so that a fleet that comes back at once does not use up the connections. When the database is away
 * or takes a second, it is what the slot said when it was published.
 */
export class WaitingCounts {
  readonly #database: Pick<Database, 'pool'>;
  readonly #wire: Pick<CommandWire, 'retained'>;
  readonly #answerMsMax: number;
  #asked: Asked[] = [];
  #isAsking = false;

  constructor(
    database: Pick<Database, 'pool'>,
    wire: Pick<CommandWire, 'retained'>,
    answerMsMax = ANSWER_MS_MAX,
  ) {
    this.#database = database;
    this.#wire = wire;
    this.#answerMsMax = answerMsMax;
  }

  /** Never rejects. */
  async of(from: AnsweringDevice): Promise<number> {
    const counted = await new Promise<number | null>((resolve) => {
      const timer = setTimeout(() => resolve(null), this.#answerMsMax);
      const { deviceId } = from;
      this.#asked.push({
        deviceId,
        resolve(waiting) {
          clearTimeout(timer);
          resolve(waiting);
        },
      });
      if (!this.#isAsking) void this.#ask();
    });
    return counted ?? readSlot(this.#wire.retained(slotTopic(from)))?.n ?? 0;
  }

  async #ask(): Promise<void> {
    this.#isAsking = true;
    // What is asked in this turn of the event loop becomes one batch.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#asked.length > 0) {
      const batch = this.#asked.splice(0, BATCH_DEVICES_MAX);
      const counts = await this.#count(batch.map(({ deviceId }) => deviceId));
      for (const { deviceId, resolve } of batch) resolve(counts?.get(deviceId) ?? (counts && 0));
    }
    this.#isAsking = false;
  }

  async #count(deviceIds: readonly number[]): Promise<ReadonlyMap<number, number> | null> {
    try {
      const { rows } = await this.#database.pool.query<{ device_id: number; waiting: number }>({
        name: 'command_waiting',
        text: `SELECT slot.device_id, (slot.head_command_id IS NOT NULL)::int4 +
                 (SELECT count(*)::int4 FROM command
                  WHERE command.device_id = slot.device_id AND command.state = 'queued') AS waiting
               FROM command_slot AS slot WHERE slot.device_id = ANY($1)`,
        values: [deviceIds],
      });
      return new Map(rows.map(({ device_id: id, waiting }) => [id, waiting]));
    } catch {
      return null;
    }
  }
}
