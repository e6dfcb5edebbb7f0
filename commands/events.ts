import { Buffer } from 'node:buffer';
import type { Database } from '../drizzle/database.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { canonicalTopic } from '../firmware-protocol/topics.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Command, CommandEvent, CommandEventDetail, CommandState } from './command.ts';
import type { CommandWire } from './commands.ts';

/** What {@link CommandEvents} works with. */
export interface CommandEventsParts {
  readonly database: Pick<Database, 'pool'>;
  readonly wire: Pick<CommandWire, 'publish'>;
  readonly log: Logger;
}

/** What of a command its events say. */
type Told = Pick<Command, 'organization' | 'device' | 'commandId' | 'name' | 'ref'>;

interface UntoldStep {
  readonly eventId: number;
  readonly topic: string;
  readonly payload: Buffer;
}

interface UntoldRow {
  event_id: number;
  command_id: string;
  organization: string;
  device: string;
  name: string;
  ref: string | null;
  state: CommandState;
  occurred_at: Date;
  detail: CommandEventDetail;
}

const BATCH_STEPS = 200;
/** Beyond it steps are read from the table, where they all are. */
const HELD_MAX = 10_000;
const RETRY_MS = 1000;
/**
 * What was told and is forgotten in a crash is told again. So nobody waits for the disk because of it, and
 * it takes the disk from nobody who does.
 */
const LAZILY = 'SET LOCAL synchronous_commit = off';

/**
 * Publishes each step of a command on `cmd/{uuid}`: at least once, those of a command in order. They come
 * from memory right after COMMIT. When the broker or the database does not keep up, and at the start, they
 * come from the table, until nothing there is untold.
 */
export class CommandEvents {
  readonly #parts: CommandEventsParts;
  #held: UntoldStep[] = [];
  #isBehind = true;
  #missed = 0;
  #work: Promise<void> | null = null;
  #retry: NodeJS.Timeout | null = null;
  #isStopped = true;

  constructor(parts: CommandEventsParts) {
    this.#parts = parts;
  }

  /** Steps in memory that wait. */
  get size(): number {
    return this.#held.length;
  }

  start(): void {
    this.#isStopped = false;
    this.#wake();
  }

  /** Ends behind the batch under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    await this.#work;
  }

  /** Takes a step that is committed. In the order of a device's steps. Returns at once. */
  tell(command: Told, event: CommandEvent): void {
    if (this.#isBehind || this.#held.length >= HELD_MAX) this.lookUp();
    else this.#held.push(untoldStep(command, event));
    this.#wake();
  }

  /** There may be untold steps in the table that this program does not know of. */
  lookUp(): void {
    this.#missed += 1;
    this.#isBehind = true;
    this.#wake();
  }

  #wake(): void {
    if (this.#work !== null || this.#isStopped || this.#retry !== null) return;
    this.#work = this.#run().finally(() => {
      this.#work = null;
    });
  }

  async #run(): Promise<void> {
    // What is told in this turn of the event loop becomes one batch.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      while (!this.#isStopped && (this.#held.length > 0 || this.#isBehind)) {
        if (this.#isBehind) await this.#catchUp();
        else await this.#publish(this.#held.splice(0, BATCH_STEPS));
      }
    } catch (err) {
      this.#parts.log.warn({ err: reasonOf(err) }, 'steps of commands wait to be published');
      // All of them are in the table, and there they are in order.
      this.lookUp();
      this.#retry = setTimeout(() => {
        this.#retry = null;
        this.#wake();
      }, RETRY_MS);
      this.#retry.unref();
    }
  }

  async #catchUp(): Promise<void> {
    this.#held = [];
    const { pool } = this.#parts.database;
    const missed = this.#missed;
    const { rows } = await guardStore(
      pool.query<UntoldRow>(
        `SELECT event.command_event_id::float8 AS event_id, event.command_id,
                organization.slug AS organization, device.slug AS device, command.name, command.ref,
                event.state, event.occurred_at, event.detail
         FROM command_event AS event
         JOIN command USING (command_id)
         JOIN device ON device.device_id = command.device_id
         JOIN organization ON organization.organization_id = command.organization_id
         WHERE event.told_at IS NULL ORDER BY event.command_event_id LIMIT ${BATCH_STEPS}`,
      ),
    );
    await this.#publish(rows.map(stepOfRow));
    if (rows.length < BATCH_STEPS && missed === this.#missed) this.#isBehind = false;
  }

  async #publish(steps: readonly UntoldStep[]): Promise<void> {
    if (steps.length === 0) return;
    const { wire, database } = this.#parts;
    await Promise.all(steps.map(({ topic, payload }) => wire.publish(topic, payload)));
    const ids = steps.map(({ eventId }) => eventId).join();
    await guardStore(
      database.pool.query(
        `${LAZILY}; UPDATE command_event SET told_at = now()
         WHERE command_event_id = ANY('{${ids}}'::int8[])`,
      ),
    );
  }
}

/** The payload of `cmd/{uuid}`. */
export function encodeEvent(
  { commandId, name, ref }: Told,
  { state, occurredAt, detail }: Pick<CommandEvent, 'state' | 'occurredAt' | 'detail'>,
): Buffer {
  const { actor: _, ...said } = detail;
  const named = { id: commandId, cmd: name, st: state, ts: occurredAt.getTime() };
  return Buffer.from(JSON.stringify({ ...named, ...(ref === null ? {} : { ref }), ...said }));
}

function untoldStep(command: Told, event: CommandEvent): UntoldStep {
  const topic = canonicalTopic(command, `cmd/${command.commandId}`);
  return { eventId: event.commandEventId, topic, payload: encodeEvent(command, event) };
}

function stepOfRow(row: UntoldRow): UntoldStep {
  const { event_id: commandEventId, command_id: commandId, state, detail } = row;
  const event = { commandEventId, commandId, state, detail, occurredAt: row.occurred_at };
  const { organization, device, name, ref } = row;
  return untoldStep({ commandId, organization, device, name, ref }, event);
}
