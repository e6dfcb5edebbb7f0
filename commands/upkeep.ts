import type { Database } from '../drizzle/database.ts';
import { reasonOf, StoreUnavailableError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { QueueOwner } from './command-queries.ts';
import { endSilent, expire, listOverdue, listSilent } from './expire.ts';
import type { CommandMetrics } from './metrics.ts';
import { pruneCommands } from './pruning.ts';
import type { Turns } from './turns.ts';

/** What {@link Upkeep} works with. */
export interface UpkeepParts {
  readonly database: Pick<Database, 'pool'>;
  readonly turns: Turns;
  readonly metrics: CommandMetrics;
  readonly now: () => number;
  readonly log: Logger;
  readonly runMsMax: number;
  readonly ageMaxMs: number;
}

const OVERDUE_MS = 1000;
const SILENT_MS = 60_000;
const PRUNE_MS = 3_600_000;
/** Devices whose commands are ended at the same time. */
const AT_ONCE = 20;

/** Ends commands whose time is over, each second; those that run and are silent, each minute; deletes old ones, each hour. */
export class Upkeep {
  readonly #parts: UpkeepParts;
  #timer: NodeJS.Timeout | null = null;
  #work: Promise<void> = Promise.resolve();
  #isStopped = true;
  #nextSilentMs = 0;
  #nextPruneMs = 0;

  constructor(parts: UpkeepParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#again(0);
  }

  /** Ends behind the round under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#work;
  }

  /** Ends what is overdue. @returns of how many devices. @throws {StoreUnavailableError} */
  async endOverdue(): Promise<number> {
    const { database, turns, now } = this.#parts;
    const overdueAt = new Date(now());
    const owners = await listOverdue(database, overdueAt);
    let ended = 0;
    for (let at = 0; at < owners.length && !this.#isStopped; at += AT_ONCE) {
      await Promise.all(
        owners.slice(at, at + AT_ONCE).map(async (owner) => {
          const wanted = { deviceId: owner.deviceId, overdueAt, asTenant: false };
          const isDone = await this.#apart(owner, () =>
            turns.take(owner, wanted, ({ draft, others }) => expire(draft, others)),
          );
          ended += isDone ? 1 : 0;
        }),
      );
    }
    return ended;
  }

  /** Ends what runs and is silent. @throws {StoreUnavailableError} */
  async endSilent(): Promise<void> {
    const { database, turns, now, runMsMax } = this.#parts;
    for (const owner of await listSilent(database, new Date(now() - runMsMax))) {
      const { deviceId, commandId } = owner;
      await this.#apart(owner, () =>
        turns.take(owner, { deviceId, commandId, asTenant: false }, ({ draft, subject }) => {
          if (subject !== null) endSilent(draft, subject);
        }),
      );
    }
  }

  /** A fault of ours with one device stops no other. @throws {StoreUnavailableError} */
  async #apart({ deviceId }: QueueOwner, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (err) {
      if (err instanceof StoreUnavailableError) throw err;
      this.#parts.metrics.failed();
      this.#parts.log.error({ err, deviceId }, 'commands of a device are ended later');
      return false;
    }
  }

  #again(inMs: number): void {
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => {
      this.#work = this.#round().then((isMore) => this.#again(isMore ? 0 : OVERDUE_MS));
    }, inMs);
    this.#timer.unref();
  }

  async #round(): Promise<boolean> {
    const { database, now, ageMaxMs, metrics, log } = this.#parts;
    try {
      const ended = await this.endOverdue();
      if (now() >= this.#nextSilentMs) {
        await this.endSilent();
        this.#nextSilentMs = now() + SILENT_MS;
      }
      if (now() >= this.#nextPruneMs) {
        await pruneCommands(database, ageMaxMs, now());
        this.#nextPruneMs = now() + PRUNE_MS;
      }
      return ended > 0;
    } catch (err) {
      metrics.failed();
      const isAway = err instanceof StoreUnavailableError;
      const fields = { err: isAway ? reasonOf(err) : err };
      log[isAway ? 'warn' : 'error'](fields, 'commands are ended later');
      return false;
    }
  }
}
