// HOT PATH: see bench/RESULTS.md
import { Refusal } from '../firmware-protocol/contract.ts';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import { NO_BASIS, newestTimes } from '../firmware-protocol/time.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { DeviceLane } from './device-lane.ts';
import { Encoder } from './encoder.ts';
import type { Lane } from './lane.ts';
import type { LaneStore } from './lane-store.ts';
import { copyStateOf, settleSpooled } from './message-spool.ts';
import { LogRate, type LogVerdict } from './log-rate.ts';
import type { KeptApart, Message, Publication, Receipt } from './message.ts';
import type { DropReason, IngestMetrics } from './metrics.ts';
import type { MetricKind } from './metric-catalog.ts';
import { overRateReason, passesRates } from './message-rates.ts';
import type { PipelineLimits, PipelineParts } from './pipeline-parts.ts';
import { readMessage } from './payload-reader.ts';
import { forgetVerdict, isToBeKeptApart, keepApart, putAside, setAside } from './refusal.ts';
import type { SharedRate } from './shared-rate.ts';
import { classifyStoreFault } from './store-fault.ts';
import type { BatchSpool } from './writer-limits.ts';

/** What `in/err` says of a message that is not taken. */
const DROP_TEXTS: Readonly<Record<DropReason, string>> = {
  rate: 'more messages or values a second than allowed',
  quota: 'more messages a second than the organization is allowed',
  held_bytes: 'more is waiting for the database than can be held',
};
/** A lookup that has not failed yet may be slow only: a fleet connects at once. */
const SLOW_LOOKUP_FACTOR = 5;
/** Between attempts to look something up while the database is away. */
const LOOKUP_RETRY_MS = 500;

const NO_TIMES = newestTimes([]);
const DELETED: KeptApart = { code: 'not_stored', detail: 'the device was deleted' };

/**
 * The way of a message from the broker to the writer: count, read, look up its metrics, date, encode.
 * Most messages go through in one turn. One that has to wait (device not loaded, over the rate, a new
 * metric, a full queue) stands in its device's lane, and those behind it wait too: messages of a device
 * are stored and acknowledged in order of arrival.
 */
export class Pipeline {
  readonly #lanes: LaneStore;
  readonly #writer: BatchWriter;
  readonly #encoder: Encoder;
  readonly #spool: BatchSpool | null;
  readonly #now: () => number;
  readonly #limits: PipelineLimits;
  readonly #metrics: IngestMetrics;
  readonly #log: Logger;
  /** Lanes that wait for a lookup, while there is a spool. */
  readonly #lookups = new Set<DeviceLane>();
  #watch: NodeJS.Timeout | null = null;
  #heldMessages = 0;
  #heldBytes = 0;

  constructor(parts: PipelineParts) {
    this.#lanes = parts.lanes;
    this.#writer = parts.writer;
    this.#encoder = new Encoder(parts);
    this.#spool = parts.spool ?? null;
    this.#now = parts.now ?? Date.now;
    this.#limits = parts.limits;
    this.#metrics = parts.metrics;
    this.#log = parts.log;
  }

  /** Messages that wait before the writer's queue. */
  get heldMessages(): number {
    return this.#heldMessages;
  }

  /** Payload bytes of {@link heldMessages}. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /**
   * Takes a message in. Throws never. Either the message is stored, or kept in quarantine, and then
   * acknowledged; or its source is closed and it stays unacknowledged.
   * @param receipt of a message that comes again; null for one that has just come.
   * @returns false when it has to wait before the queue: who reads no further until it is acknowledged
   * holds the device back.
   */
  accept(lane: Lane, publication: Publication, receipt: Receipt | null = null): boolean {
    const metrics = this.#metrics;
    // What comes out of the spool was counted when it came.
    if (!lane.isOfSpool) {
      metrics.receivedMessages += 1;
      metrics.receivedBytes += publication.payload.length;
    }
    const message: Message = {
      publication,
      lane,
      arrivedMs: this.#now(),
      receivedMicros: receipt?.receivedMicros ?? 0,
      basis: receipt?.basis ?? NO_BASIS,
      newest: NO_TIMES,
      outcome: null,
      isCounted: false,
      isLogCounted: false,
      sharedRatesPassed: 0,
      arePointsCounted: false,
      quarantine: null,
      dated: null,
      canonical: null,
      isDuplicate: false,
      rowCount: 0,
    };
    if (publication.channel === 'log' && publication.qos === 0 && lane.isLive) {
      message.isLogCounted = this.#askLogRate(message) === 'taken';
      if (!message.isLogCounted) {
        this.#drop(message, 'rate');
        return true;
      }
    }
    if (!lane.device.isBlocked && this.#advance(message)) return true;
    return !this.#hold(message);
  }

  /** @returns false when the message was dropped instead. */
  #hold(message: Message): boolean {
    const { lane, publication } = message;
    const { device } = lane;
    const bytes = publication.payload.length;
    const reason =
      overRateReason(device) ?? (this.#isOverHeld(device, bytes) ? 'held_bytes' : null);
    if (reason !== null) {
      this.#drop(message, reason);
      return false;
    }
    device.waiting.push(message);
    device.waitingBytes += bytes;
    this.#heldMessages += 1;
    this.#heldBytes += bytes;
    return true;
  }

  /** Writes to the spool what waits for a lookup that takes too long. */
  #spoolHeld(device: DeviceLane): void {
    const spool = this.#spool;
    if (spool?.isUsable !== true || device.spoolingMessages > 0) return;
    const messages = this.#readyToSpool(device);
    if (messages.length === 0) return;
    device.spoolingMessages = messages.length;
    const onEnd = (): void => {
      device.spoolingMessages = 0;
      if (device.isWakeDue) this.#wake(device);
    };
    const onStored = (): void => {
      this.#writer.noteSpooled();
      this.#leave(device, messages, (message) => this.#settleSpooled(message));
      onEnd();
    };
    const onFailed = (): void => {
      for (const message of messages) forgetVerdict(message);
      onEnd();
    };
    spool.append(messages, onStored, onFailed);
  }

  #settleSpooled(message: Message): void {
    if (message.isDuplicate) this.#metrics.duplicateMessages += 1;
    settleSpooled(message);
  }

  /** The first messages of a lane that wait for the lookup, and not for a rate. */
  #readyToSpool(device: DeviceLane): Message[] {
    const { lookupSince, hasLookupFailed, waiting } = device;
    const nowMs = performance.now();
    const afterMs = this.#limits.spoolAfterMs * (hasLookupFailed ? 1 : SLOW_LOOKUP_FACTOR);
    if (lookupSince === null || nowMs - lookupSince < afterMs) return [];
    const first = waiting.findIndex(
      (message) => !passesRates(message, nowMs) || !this.#isPrepared(message),
    );
    return first < 0 ? [...waiting] : waiting.slice(0, first);
  }

  /**
   * Finds out what has to be known of a message that goes to the spool: its number, its times, its faults.
   * False for a copy of what is not stored yet: it must not be acknowledged before that is.
   */
  #isPrepared(message: Message): boolean {
    const outcome = (message.outcome ??= readMessage(message));
    if (outcome instanceof Refusal) {
      setAside(message, outcome.code, outcome.detail);
      return true;
    }
    const copy = copyStateOf(message, outcome);
    message.isDuplicate = copy === 'stored';
    if (copy === 'waits') return false;
    if (isToBeKeptApart(message)) keepApart(message);
    else if (copy === null) this.#encoder.show(message, outcome);
    return true;
  }

  #isOverHeld(device: DeviceLane, bytes: number): boolean {
    return (
      device.waitingBytes + bytes > this.#limits.deviceHeldBytesMax ||
      this.#heldBytes + bytes > this.#limits.heldBytesMax
    );
  }

  /** QoS 0 is lost here, and counted. Above it the connection ends, and the device sends again. */
  #drop(message: Message, reason: DropReason): void {
    const { source, qos, word } = message.publication;
    this.#metrics.dropped[reason] += 1;
    source.report(reason === 'quota' ? 'quota' : 'rate', word, DROP_TEXTS[reason]);
    if (qos === 0) message.publication.acknowledge(null, null);
    else source.close(reason);
  }

  /** Lets the waiting messages of a lane go on, up to the next that has to wait. */
  #wake(device: DeviceLane): void {
    device.isWakeDue = device.spoolingMessages > 0;
    if (device.isWakeDue) return;
    device.isBlocked = false;
    let done = 0;
    for (const message of device.waiting) {
      if (!this.#advance(message)) break;
      done += 1;
    }
    this.#leave(device, device.waiting.slice(0, done));
    // Nobody waits for its lookup any more: the next one begins anew.
    if (!device.isBlocked) this.#forgetLookup(device);
  }

  #forgetLookup(device: DeviceLane): void {
    device.lookupSince = null;
    device.hasLookupFailed = false;
    this.#lookups.delete(device);
  }

  /** Takes the first messages out of a lane's waiting ones. */
  #leave(device: DeviceLane, messages: Message[], settle?: (message: Message) => void): void {
    device.waiting.splice(0, messages.length);
    this.#heldMessages -= messages.length;
    for (const message of messages) {
      const bytes = message.publication.payload.length;
      device.waitingBytes -= bytes;
      this.#heldBytes -= bytes;
      settle?.(message);
    }
    for (const { publication } of messages) publication.source.resume();
  }

  /** True when the message has gone to the writer; false when it waits and the lane will be woken. */
  #advance(message: Message): boolean {
    const { device } = message.lane;
    if (!device.isLoaded) {
      this.#block(device, () => this.#lanes.load(device));
      return false;
    }
    if (device.isGone) {
      this.#metrics.deletedMessages += 1;
      message.publication.acknowledge(null, DELETED);
      return true;
    }
    if (!this.#isRateReady(message)) return false;
    const outcome = (message.outcome ??= readMessage(message));
    if (outcome instanceof Refusal) setAside(message, outcome.code, outcome.detail);
    else {
      if (isToBeKeptApart(message)) keepApart(message);
      if (!this.#arePointsReady(message, outcome)) return false;
    }
    if (!this.#writer.hasRoomFor(device)) {
      device.isBlocked = true;
      this.#writer.whenRoom(() => this.#wake(device));
      return false;
    }
    if (!(outcome instanceof Refusal)) this.#encoder.encode(message, outcome);
    this.#encoder.refuse(message);
    this.#writer.open.addMessage(message);
    this.#writer.added();
    return true;
  }

  /** Asks the device's own rate first: what is over it takes nothing from the rates of others. */
  #isRateReady(message: Message): boolean {
    const { device, sharedRates } = message.lane;
    if (message.publication.channel === 'log' && !message.isLogCounted && message.lane.isLive) {
      const verdict = this.#askLogRate(message);
      if (typeof verdict === 'object') return this.#wakeAfter(message, verdict.waitMs);
      message.isLogCounted = true;
    }
    if (!message.isCounted) {
      const waitMs = device.messageBucket.take(1, performance.now());
      if (waitMs > 0) return this.#wakeAfter(message, waitMs);
      message.isCounted = true;
    }
    while (message.sharedRatesPassed < sharedRates.length) {
      const rate = sharedRates[message.sharedRatesPassed];
      const nowMs = performance.now();
      if (rate !== undefined && !rate.take(nowMs)) return this.#standInLine(message, rate, nowMs);
      message.sharedRatesPassed += 1;
    }
    return true;
  }

  #askLogRate({ publication: { qos, payload }, lane: { device } }: Message): LogVerdict {
    device.logRate ??= new LogRate(this.#limits.deviceLogBytesPerSecond);
    const log = { qos, bytes: payload.length };
    return device.logRate.take(log, this.#writer.fullShare, performance.now());
  }

  #standInLine(message: Message, rate: SharedRate, nowMs: number): false {
    const { device } = message.lane;
    device.isBlocked = true;
    device.sharedWait.start(rate, nowMs);
    rate.wait(() => {
      message.sharedRatesPassed += 1;
      device.sharedWait.end(performance.now());
      this.#wake(device);
    }, nowMs);
    return false;
  }

  async #makeSlots(message: Message, missing: ReadonlyMap<string, MetricKind>): Promise<void> {
    try {
      const isMade = await this.#lanes.makeSlots(message.lane.device, missing);
      if (!isMade) setAside(message, 'too_many', 'the organization has too many metrics');
    } catch (cause) {
      if (classifyStoreFault(cause) !== 'refused') throw cause;
      putAside(message, reasonOf(cause));
    }
  }

  /** Asks the rate of points and finds the keys of the series; false when the lane has to wait. */
  #arePointsReady(message: Message, decoded: Decoded): boolean {
    if (message.quarantine !== null) return true;
    const { device } = message.lane;
    if (!message.arePointsCounted) {
      const waitMs = device.pointBucket.take(decoded.pointCount, performance.now());
      if (waitMs > 0) return this.#wakeAfter(message, waitMs);
      message.arePointsCounted = true;
      this.#metrics.missingValues += decoded.missing;
    }
    const missing = this.#lanes.missingMetrics(device, decoded);
    if (missing === null) return true;
    if (device.slots.size + missing.size > this.#limits.deviceMetricsMax) {
      setAside(message, 'too_many', `more than ${this.#limits.deviceMetricsMax} metrics`);
      return true;
    }
    this.#block(device, () => this.#makeSlots(message, missing));
    return false;
  }

  #wakeAfter(message: Message, waitMs: number): false {
    const { device } = message.lane;
    device.isBlocked = true;
    device.rateWait.start(performance.now());
    setTimeout(() => {
      device.rateWait.end(performance.now());
      this.#wake(device);
    }, waitMs);
    return false;
  }

  /** Waits for a lookup, and repeats it while the database is away. */
  #block(device: DeviceLane, lookUp: () => Promise<void>): void {
    device.isBlocked = true;
    device.lookupSince ??= performance.now();
    this.#watchLookup(device);
    lookUp().then(
      () => {
        this.#forgetLookup(device);
        this.#wake(device);
      },
      (err: unknown) => {
        this.#log.debug({ err, deviceId: device.deviceId }, 'lookup failed, will be repeated');
        device.hasLookupFailed = true;
        setTimeout(() => this.#wake(device), LOOKUP_RETRY_MS);
      },
    );
  }

  #watchLookup(device: DeviceLane): void {
    if (this.#spool === null) return;
    this.#lookups.add(device);
    this.#watch ??= setInterval(() => this.#spoolLookups(), LOOKUP_RETRY_MS / 2);
  }

  #spoolLookups(): void {
    for (const device of this.#lookups) this.#spoolHeld(device);
    if (this.#lookups.size > 0 || this.#watch === null) return;
    clearInterval(this.#watch);
    this.#watch = null;
  }
}
