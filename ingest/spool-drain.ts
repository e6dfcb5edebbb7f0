import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from '../log.ts';
import { reasonOf } from '../errors.ts';
import type { Lane } from './lane.ts';
import type { LaneStore } from './lane-store.ts';
import type { Publication, Source } from './message.ts';
import type { Pipeline } from './pipeline.ts';
import { DrainProgress, type DrainPace } from './spool/drain-progress.ts';
import type { PlacedRecord, SpoolPosition, SpoolRecord } from './spool/spool-record.ts';
import type { Spool } from './spool/spool.ts';

/** What the drain works with. */
export interface DrainParts {
  readonly spool: Spool;
  /** Those of the way in of what is fed in again. */
  readonly lanes: LaneStore;
  readonly pipeline: Pipeline;
  /** True while live messages need the database for themselves. */
  readonly isBusy: () => boolean;
  /** Called when the database has taken something. */
  readonly onStored: () => void;
  readonly log: Logger;
}

/** How far the drain has come. */
export interface DrainState {
  readonly pendingMessages: number;
  /** Null while not known. */
  readonly pace: DrainPace | null;
}

/** Messages, and bytes of payloads and heads, that are read at a time. */
const READ_MESSAGES = 1000;
const READ_BYTES = 1_048_576;
/** Messages that may be under way: a few batches, so that the writer always has a next one. */
const UNDER_WAY_MAX = 5000;
const UNDER_WAY_BYTES_MAX = 16_777_216;
/** Lanes that are kept open between messages. */
const LANES_MAX = 20_000;
const PAUSE_MS = 20;
/** After the disk could not be read. */
const RETRY_MS = 1000;
const LOG_MS = 5000;

/**
 * Feeds what waits in the spool into the pipeline, oldest first, for as long as there is anything. While
 * the database is away its writer keeps trying, so this is also what finds the database back. A message
 * leaves the spool after its COMMIT; one that is fed in twice is stored once.
 */
export class SpoolDrain {
  readonly #parts: DrainParts;
  readonly #lanes = new Map<string, Lane>();
  readonly #progress = new DrainProgress();
  #drainedMessages = 0;
  #underWay = 0;
  #underWayBytes = 0;
  #isRunning = false;
  #isStopped = false;
  #wake: (() => void) | null = null;
  #ended: Promise<void> = Promise.resolve();
  #loggedAt = 0;

  constructor(parts: DrainParts) {
    this.#parts = parts;
  }

  /** Messages that were fed in and are not stored yet. They are still in the spool. */
  get underWayMessages(): number {
    return this.#underWay;
  }

  get state(): DrainState {
    return { pendingMessages: this.#parts.spool.pendingMessages, pace: this.#progress.pace() };
  }

  /** Tells that there is something to drain. */
  start(): void {
    if (this.#isRunning || this.#isStopped || this.#parts.spool.pendingMessages === 0) return;
    this.#isRunning = true;
    this.#ended = this.#run();
  }

  /** Feeds nothing more. What is under way may be stored yet; if not, it is fed in again next time. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#wake?.();
    await this.#ended;
  }

  async #run(): Promise<void> {
    const { spool, log } = this.#parts;
    this.#loggedAt = performance.now();
    while (!this.#isStopped && (spool.pendingMessages > 0 || this.#underWay > 0)) {
      try {
        await this.#feedNext();
      } catch (err) {
        log.error({ err: reasonOf(err) }, 'spool not read, will be tried again');
        await delay(RETRY_MS);
      }
      this.#logProgress();
    }
    for (const lane of this.#lanes.values()) this.#parts.lanes.release(lane);
    this.#lanes.clear();
    this.#progress.clear();
    this.#isRunning = false;
    if (!this.#isStopped) log.info('spool drained');
    this.start();
  }

  async #feedNext(): Promise<void> {
    const { spool, isBusy } = this.#parts;
    const isFull = this.#underWay >= UNDER_WAY_MAX || this.#underWayBytes >= UNDER_WAY_BYTES_MAX;
    if (isFull || isBusy()) return this.#pause();
    const placed = await spool.read(READ_MESSAGES, READ_BYTES);
    if (placed.length === 0) {
      // All was read and nothing is under way, but something was not stored: once more.
      if (this.#underWay === 0 && spool.pendingMessages > 0) spool.rewind();
      return this.#pause();
    }
    for (const each of placed) this.#feed(each);
  }

  /** Until something was stored, or a moment. */
  async #pause(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, PAUSE_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = null;
  }

  #feed({ record, position }: PlacedRecord): void {
    const bytes = record.payload.length;
    this.#underWay += 1;
    this.#underWayBytes += bytes;
    const publication = publicationOf(record, () => this.#stored(position, bytes));
    const { receivedMicros, basis } = record;
    this.#parts.pipeline.accept(this.#laneOf(record), publication, { receivedMicros, basis });
  }

  /** Several are stored in one turn; the spool is told of each in that turn. */
  #stored(position: SpoolPosition, bytes: number): void {
    this.#underWay -= 1;
    this.#underWayBytes -= bytes;
    this.#parts.spool.drained([position]);
    this.#drainedMessages += 1;
    this.#parts.onStored();
    this.#wake?.();
  }

  /** A lane for each boot: numbers of a boot that has no name were held against others when they came. */
  #laneOf({ organizationId, deviceId, boot }: SpoolRecord): Lane {
    const key = `${deviceId}/${boot ?? ''}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      if (this.#lanes.size >= LANES_MAX) this.#closeOldestLane();
      lane = this.#parts.lanes.acquire(organizationId, deviceId, '');
      lane.isLive = false;
      lane.isOfSpool = true;
      if (boot === null) lane.isNumbered = false;
      else lane.setBoot(boot);
      this.#lanes.set(key, lane);
    }
    return lane;
  }

  #closeOldestLane(): void {
    for (const [key, lane] of this.#lanes) {
      this.#parts.lanes.release(lane);
      this.#lanes.delete(key);
      return;
    }
  }

  #logProgress(): void {
    const nowMs = performance.now();
    const { pendingMessages } = this.#parts.spool;
    this.#progress.add(nowMs, pendingMessages, this.#drainedMessages);
    if (nowMs - this.#loggedAt < LOG_MS) return;
    this.#loggedAt = nowMs;
    this.#parts.log.info({ pendingMessages, ...this.#progress.pace() }, 'spool drains');
  }
}

/** Told of nothing: the device was when the message came. */
const SILENT: Source = { report: () => undefined, resume: () => undefined, close: () => undefined };

function publicationOf(record: SpoolRecord, onStored: () => void): Publication {
  const { channel, name, refusal, isKeptApart, word, topic, payload, qos } = record;
  return {
    source: SILENT,
    channel,
    name,
    refusal,
    isKeptApart,
    word,
    topic,
    payload,
    qos,
    isWanted: () => false,
    acknowledge: onStored,
  };
}
