import { setTimeout as delay } from 'node:timers/promises';
import type { Registry } from 'prom-client';
import type { Database } from '../drizzle/database.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import { ClockMetrics } from './clock-metrics.ts';
import { ClockStore } from './clock-store.ts';
import type { Lane } from './lane.ts';
import { MessageSpool } from './message-spool.ts';
import type { Publication, Receipt } from './message.ts';
import { MetricCatalog } from './metric-catalog.ts';
import { MetricUnits } from './metric-units.ts';
import { IngestMetrics, type Ledger } from './metrics.ts';
import type { ReadingObserver } from './observer.ts';
import type { ReplayOptions, ReplayWayIn } from './replay-port.ts';
import { SpoolDrain, type DrainState } from './spool-drain.ts';
import type { Spool } from './spool/spool.ts';
import { createWayIn, type WayIn, type WayInLimits } from './way-in.ts';

/** Bounds of ingest, each from one setting. */
export interface IngestLimits extends WayInLimits {
  readonly organizationMetricsMax: number;
  readonly databaseTimeoutMs: number;
}

/** What ingest is made of. */
export interface IngestParts {
  readonly database: Database;
  /** Null: what the database does not take is held unacknowledged. */
  readonly spool: Spool | null;
  readonly limits: IngestLimits;
  /** Milliseconds since 1970; the wall clock when left out. */
  readonly now?: () => number;
  readonly registry: Registry;
  readonly log: Logger;
  /** Told of readings and events before they are stored, of both ways in; null costs nothing. */
  readonly observer?: ReadingObserver | null;
}

const HOUSEKEEPING_MS = 60_000;
const DAY_MS = 86_400_000;
/** Partitions are made for today and this many days ahead. */
const DAYS_AHEAD = 2;
/** Aggregates are made of what is older than this, and more; see `aggregates`. */
const LATE_MS = 60_000;
/** The drain leaves the database to live messages while so much of their queue is filled. */
const BUSY_SHARE = 0.25;

/**
 * From a publication to its COMMIT. There are two ways in, made of the same parts: `live` for what
 * connections bring, and `replay` for what is stored somewhere already and is fed in again.
 */
export class Ingest implements ReplayWayIn {
  readonly metrics = new IngestMetrics();
  readonly #live: WayIn;
  readonly #replay: WayIn;
  readonly #units: MetricUnits;
  readonly #clocks: ClockStore;
  readonly #clockMetrics = new ClockMetrics();
  readonly #spool: Spool | null;
  readonly #drain: SpoolDrain | null;
  readonly #limits: IngestLimits;
  readonly #log: Logger;
  readonly #now: () => number;
  #watermarkMicros = 0;
  #housekeeping: NodeJS.Timeout | undefined;

  constructor({ database, spool, limits, registry, log, now = Date.now, observer }: IngestParts) {
    this.#log = log;
    this.#now = now;
    this.#limits = limits;
    this.#spool = spool;
    this.#units = new MetricUnits(database.pool, log);
    this.#clocks = new ClockStore(database.pool);
    const shared = {
      database,
      catalog: new MetricCatalog(database.pool, limits.organizationMetricsMax, () =>
        this.#units.metricsMade(),
      ),
      units: this.#units,
      metrics: this.metrics,
      clockMetrics: this.#clockMetrics,
      timeoutMs: limits.databaseTimeoutMs,
      lateBefore: () => this.#lateBefore(),
      observer: observer ?? null,
      now,
      log,
    };
    const messageSpool =
      spool === null ? null : new MessageSpool(spool, () => this.#drain?.start(), log);
    this.#live = createWayIn({
      ...shared,
      limits,
      residueOffset: 0,
      isReplay: false,
      spool: messageSpool,
      pendingSequences: (deviceId) => spool?.pendingSequences(deviceId) ?? [],
      // The drain must know a copy of what was stored live since it looked the device up.
      onNumber: (...number) => this.#replay.lanes.noteNumber(...number),
    });
    this.#replay = createWayIn({
      ...shared,
      limits: unlimited(limits),
      residueOffset: 500,
      isReplay: true,
      loadedNumbers: (deviceId) => this.#live.lanes.numbersAtLoad(deviceId),
    });
    this.#drain = spool === null ? null : this.#createDrain(spool);
    this.#clockMetrics.register(registry, () => this.#liveClocks());
    const { queueRowsMax: rowsMax, queueBytesMax: bytesMax } = limits.writer;
    this.metrics.register(registry, { rowsMax, bytesMax }, () => ({
      queuedRows: this.#live.writer.queuedRows,
      queuedBytes: this.#live.writer.queuedBytes,
      queuedMessages: this.#live.writer.queuedMessages,
      heldMessages: this.#live.pipeline.heldMessages,
      heldBytes: this.#live.pipeline.heldBytes,
      lanes: this.#live.lanes.size,
      isAway: this.isDatabaseAway,
      ledger: this.ledger,
    }));
  }

  /**
   * Where all messages are that came in since the start, and those that were in the spool then:
   * `received` is the sum of the others, whenever it is looked at.
   */
  get ledger(): Ledger {
    const { metrics } = this;
    const inPipelines = [this.#live, this.#replay].reduce(
      (sum, { pipeline, writer }) => sum + pipeline.heldMessages + writer.queuedMessages,
      0,
    );
    return {
      received: metrics.receivedMessages + (this.#spool?.recoveredMessages ?? 0),
      committed: metrics.storedMessages + metrics.duplicateMessages,
      spooled: this.#spool?.pendingMessages ?? 0,
      quarantined: metrics.quarantinedMessages,
      rejected: metrics.droppedMessages,
      lost: this.#spool?.totals.lostMessages ?? 0,
      inFlight: inPipelines - (this.#drain?.underWayMessages ?? 0),
    };
  }

  /** How far the spool is drained; null without a spool. */
  get drainState(): DrainState | null {
    return this.#drain?.state ?? null;
  }

  /** True while commits fail and are repeated. */
  get isDatabaseAway(): boolean {
    return this.#live.writer.isAway || this.#replay.writer.isAway;
  }

  /** True while messages are spooled because the database does not take them in time. */
  get isSpooling(): boolean {
    return this.#spool !== null && this.#live.writer.isSpooling;
  }

  /** Makes the partitions of the next days, now and every hour of need, and drains what is spooled. */
  async start(): Promise<void> {
    await this.#live.store.ensurePartitions(daysAhead(this.#now()));
    this.#drain?.start();
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS);
  }

  /**
   * The way in for a new connection of a device; give it back with {@link closeLane}.
   * @param address of the peer, for the limit by address; empty for none.
   */
  openLane(organizationId: number, deviceId: number, address = ''): Lane {
    const lane = this.#live.lanes.acquire(organizationId, deviceId, address);
    lane.device.clock.connected();
    return lane;
  }

  closeLane(lane: Lane): void {
    this.#live.lanes.release(lane);
  }

  /**
   * Notes which boot the device has said that its messages on this connection belong to; to be called
   * before those that come behind its `hello`. Their `seq` are then held against those of the same boot
   * that came over earlier connections, also before a restart of the program. Without it a `seq` is only
   * compared with others of the same connection.
   */
  setBoot(lane: Lane, boot: number): void {
    lane.setBoot(boot);
    void this.whenLoaded(lane);
  }

  /** Notes how long ago a device says it has booted, in milliseconds, now. */
  greetClock({ device }: Lane, upMs: number): void {
    device.clock.greet(upMs, this.#now() * 1000);
  }

  /** Notes the units that a device says its metrics have. */
  noteUnits(organizationId: number, units: Iterable<readonly [string, string]>): void {
    this.#units.note(organizationId, units);
  }

  /** Resolves when {@link storedSequence} knows, or the database does not answer. Rejects never. */
  whenLoaded({ device }: Lane): Promise<void> {
    return this.#live.lanes.load(device).catch((err: unknown) => {
      this.#log.debug({ err, deviceId: device.deviceId }, 'device not loaded');
    });
  }

  /**
   * The highest `seq` of the device's boot such that it and all before it, from the first that came, are
   * committed. Null when none is, or nothing is known yet: see {@link whenLoaded}.
   */
  storedSequence(lane: Lane): number | null {
    return lane.storedSequence;
  }

  /** See `Pipeline.accept`. */
  accept(lane: Lane, publication: Publication): boolean {
    return this.#live.pipeline.accept(lane, publication);
  }

  openReplay(organizationId: number, deviceId: number, options: ReplayOptions = {}): Lane {
    const lane = this.#replay.lanes.acquire(organizationId, deviceId, '');
    lane.isLive = false;
    lane.isNumbered = false;
    if (Object.keys(options).length > 0) {
      const { ageMaxMs, aheadMaxMs } = this.#limits.pipeline;
      lane.timeLimits = { ageMaxMs, aheadMaxMs, ...options };
    }
    return lane;
  }

  closeReplay(lane: Lane): void {
    this.#replay.lanes.release(lane);
  }

  acceptReplay(lane: Lane, publication: Publication, receipt: Receipt | null): boolean {
    return this.#replay.pipeline.accept(lane, publication, receipt);
  }

  /** Notes that a device was put into quarantine, or let out: at once, for its next message. */
  setQuarantined(deviceId: number, isQuarantined: boolean): void {
    this.#live.lanes.setQuarantined(deviceId, isQuarantined);
    this.#replay.lanes.setQuarantined(deviceId, isQuarantined);
  }

  /**
   * Notes up to where aggregates are made: readings from before it are noted as late, so that their
   * aggregates are made again.
   */
  raiseWatermark(micros: number): void {
    this.#watermarkMicros = Math.max(this.#watermarkMicros, micros);
  }

  /** Notes that partitions were dropped: whether one exists is asked anew. */
  forgetPartitions(): void {
    this.#live.store.forgetPartitions();
    this.#replay.store.forgetPartitions();
  }

  /** Resolves when all that was taken in is stored, or after `timeoutMs`. */
  async drain(timeoutMs: number): Promise<void> {
    const ended = new AbortController();
    const late = delay(timeoutMs, undefined, { signal: ended.signal }).catch(() => undefined);
    await Promise.race([this.#live.writer.drain(), late]);
    ended.abort();
  }

  /** Gives up what is not stored; it stays unacknowledged. What is spooled waits for the next start. */
  async stop(): Promise<void> {
    clearInterval(this.#housekeeping);
    this.#units.stop();
    await this.#drain?.stop();
    await this.#writeClocks();
    await Promise.all([this.#live.writer.stop(), this.#replay.writer.stop()]);
  }

  *#liveClocks() {
    for (const { clock } of this.#live.lanes.devices) yield clock;
  }

  #createDrain(spool: Spool): SpoolDrain {
    const { writer } = this.#live;
    const busyRows = this.#limits.writer.queueRowsMax * BUSY_SHARE;
    return new SpoolDrain({
      spool,
      lanes: this.#replay.lanes,
      pipeline: this.#replay.pipeline,
      isBusy: () => !writer.isAway && writer.queuedRows > busyRows,
      onStored: () => writer.noteBack(),
      log: this.#log,
    });
  }

  /** What is older than a minute, and whatever aggregates were made of when the clock was ahead. */
  #lateBefore(): number {
    return Math.max(this.#watermarkMicros, (this.#now() - LATE_MS) * 1000);
  }

  async #writeClocks(): Promise<void> {
    try {
      await this.#clocks.write(this.#live.lanes.devices);
    } catch (err) {
      this.#log.debug({ err: reasonOf(err) }, 'clocks not written, will be tried again');
    }
  }

  #keepHouse(): void {
    void this.#writeClocks().then(() => this.#live.lanes.forgetIdle());
    this.#replay.lanes.forgetIdle();
    this.#live.store.ensurePartitions(daysAhead(this.#now())).catch((err: unknown) => {
      this.#log.warn({ err }, 'partitions ahead not made, will be tried again');
    });
  }
}

/** What is fed in again is held back by who feeds it. */
function unlimited(limits: IngestLimits): WayInLimits {
  const { writer, pipeline } = limits;
  return {
    writer: { ...writer, deviceShare: 1 },
    pipeline: {
      ...pipeline,
      deviceHeldBytesMax: Infinity,
      heldBytesMax: Infinity,
      deviceLogBytesPerSecond: 0,
    },
    rates: { messagesPerSecond: 0, pointsPerSecond: 0 },
  };
}

function daysAhead(nowMs: number): number[] {
  const today = Math.floor(nowMs / DAY_MS);
  return Array.from({ length: DAYS_AHEAD + 1 }, (_, ahead) => today + ahead);
}
