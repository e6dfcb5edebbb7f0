import type { Database } from '../drizzle/database.ts';
import { reasonOf, StoreUnavailableError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { listFilledSlots, listStalled, readSlotRow, type QueueOwner } from './command-queries.ts';
import type { CommandNames } from './command-row.ts';
import type { CommandWire } from './commands.ts';
import type { Lanes } from './lanes.ts';
import { laneOf } from './lanes.ts';
import type { CommandMetrics } from './metrics.ts';
import type { SlotPublisher } from './slot-publisher.ts';
import { encodeHead, isSameSlot, slotTopic } from './slot.ts';

/** What {@link Sweeper} works with. */
export interface SweeperParts {
  readonly database: Pick<Database, 'pool'>;
  readonly wire: Pick<CommandWire, 'retained' | 'retainedTopics'>;
  readonly lanes: Lanes;
  readonly publisher: SlotPublisher;
  readonly metrics: CommandMetrics;
  readonly log: Logger;
  readonly sweepMs: number;
  /** Moves on a queue that waits for nothing. */
  readonly move: (owner: QueueOwner) => Promise<void>;
}

const PAGE_SLOTS = 500;
const AT_ONCE = 20;
const SOON_MS = 1000;
const ALL_SLOTS = 'v1/+/+/in/cmd';
const NAMES = /^v1\/([^/]+)\/([^/]+)\/in\/cmd$/;

/**
 * Compares retained slots with the table: all of them at the start and every now and then, and a second later
 * those of which it is not known what became of a write. What a crash, the broker or the database kept from
 * being published is published then.
 */
export class Sweeper {
  readonly #parts: SweeperParts;
  #suspects = new Set<string>();
  #isSweepDue = true;
  #timer: NodeJS.Timeout | null = null;
  #sweepTimer: NodeJS.Timeout | null = null;
  #work: Promise<void> | null = null;
  #isStopped = true;

  constructor(parts: SweeperParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#isStopped = false;
    this.#sweepTimer = setInterval(() => this.sweepSoon(0), this.#parts.sweepMs);
    this.#sweepTimer.unref();
    this.sweepSoon(0);
  }

  /** Ends behind the round under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#sweepTimer !== null) clearInterval(this.#sweepTimer);
    this.#timer = null;
    await this.#work;
  }

  /** Looks at one slot in a second. */
  suspect(topic: string): void {
    this.#suspects.add(topic);
    this.#wake(SOON_MS);
  }

  /** Looks at all slots, in a second at the latest. */
  sweepSoon(inMs = SOON_MS): void {
    this.#isSweepDue = true;
    this.#wake(inMs);
  }

  #wake(inMs: number): void {
    if (this.#isStopped || this.#timer !== null || this.#work !== null) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#work = this.#round().finally(() => {
        this.#work = null;
        if (this.#isSweepDue || this.#suspects.size > 0) this.#wake(SOON_MS);
      });
    }, inMs);
    this.#timer.unref();
  }

  async #round(): Promise<void> {
    const suspects = [...this.#suspects];
    this.#suspects = new Set();
    const isSweep = this.#isSweepDue;
    this.#isSweepDue = false;
    try {
      if (isSweep) await this.#sweep();
      else await this.#compareAll(suspects);
    } catch (err) {
      for (const topic of suspects) this.#suspects.add(topic);
      this.#isSweepDue ||= isSweep;
      this.#parts.metrics.failed();
      const isAway = err instanceof StoreUnavailableError;
      const fields = { err: isAway ? reasonOf(err) : err };
      this.#parts.log[isAway ? 'warn' : 'error'](fields, 'slots of commands are compared later');
    }
  }

  async #sweep(): Promise<void> {
    const { database, wire, metrics, move } = this.#parts;
    const filled = new Set<string>();
    let page = await listFilledSlots(database, 0, PAGE_SLOTS);
    while (page.length > 0 && !this.#isStopped) {
      const different: string[] = [];
      for (const slot of page) {
        const topic = slotTopic(slot);
        filled.add(topic);
        if (!isSameSlot(wire.retained(topic), slot.head)) different.push(topic);
      }
      await this.#compareAll(different);
      page = await listFilledSlots(database, page.at(-1)?.deviceId ?? 0, PAGE_SLOTS);
    }
    if (this.#isStopped) return;
    const retained = [...wire.retainedTopics(ALL_SLOTS)];
    await this.#compareAll(retained.filter((topic) => !filled.has(topic)));
    for (const owner of await listStalled(database)) await move(owner);
    metrics.waiting(await countWaiting(database));
  }

  async #compareAll(topics: readonly string[]): Promise<void> {
    for (let at = 0; at < topics.length && !this.#isStopped; at += AT_ONCE) {
      await Promise.all(topics.slice(at, at + AT_ONCE).map((topic) => this.#compare(topic)));
    }
  }

  async #compare(topic: string): Promise<void> {
    const [, organization, device] = NAMES.exec(topic) ?? [];
    if (organization === undefined || device === undefined) return;
    const { database, lanes, publisher } = this.#parts;
    const names = { organization, device };
    if (publisher.isBusy(topic)) {
      this.#suspects.add(topic);
      return;
    }
    const found = await readSlotRow(database, names);
    if (found === null) this.#clear(names);
    // Read again where nobody changes it meanwhile: an older slot must not follow a newer one.
    else await lanes.run(laneOf(found), () => this.#repair(names));
  }

  #clear(names: CommandNames): void {
    const { wire, publisher, metrics } = this.#parts;
    const topic = slotTopic(names);
    if (isSameSlot(wire.retained(topic), null)) return;
    metrics.repaired('cleared');
    publisher.publish({ topic, deviceId: null, revision: 0, payload: Buffer.alloc(0) });
  }

  async #repair(names: CommandNames): Promise<void> {
    const { database, wire, publisher, metrics } = this.#parts;
    const stored = await readSlotRow(database, names);
    if (stored === null) return;
    const { head, waiting, deviceId, revision } = stored;
    const topic = slotTopic(names);
    if (publisher.isBusy(topic) || isSameSlot(wire.retained(topic), head)) return;
    metrics.repaired(head === null ? 'cleared' : 'published');
    const payload = head === null ? Buffer.alloc(0) : encodeHead(head, waiting);
    publisher.publish({ topic, deviceId, revision, payload });
  }
}

async function countWaiting({ pool }: Pick<Database, 'pool'>): Promise<number> {
  const { rows } = await pool.query<{ waiting: number }>(
    `SELECT count(*)::int4 AS waiting FROM command WHERE state IN ('queued', 'published', 'sent')`,
  );
  return rows[0]?.waiting ?? 0;
}
