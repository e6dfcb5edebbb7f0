// HOT PATH: see bench/RESULTS.md
import { QUALITY, Refusal, type RefusalCode } from '../firmware-protocol/contract.ts';
import { decodeData, decodeScalar, type Decoded } from '../firmware-protocol/telemetry.ts';
import { resolveTime, type TimeLimits } from '../firmware-protocol/time.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import type { Logger } from '../log.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { Lane } from './lane.ts';
import type { LaneStore } from './lane-store.ts';
import type { Message, Publication } from './message.ts';
import type { IngestMetrics } from './metrics.ts';

/** Bounds of the pipeline. */
export interface PipelineLimits extends TimeLimits {
  readonly deviceMetricsMax: number;
  /** Payload bytes of one device that may wait before the queue. */
  readonly deviceHeldBytesMax: number;
  /** Payload bytes of all devices that may wait before the queue. */
  readonly heldBytesMax: number;
}

/** A message over the rate waits this long at most; reading from the socket rests meanwhile. */
const RATE_WAIT_MS_MAX = 2000;
/** What `in/err` says of a message that is not taken. */
const DROP_TEXTS = {
  rate: 'more messages or values a second than allowed',
  held_bytes: 'more is waiting for the database than can be held',
} as const;
/** Between attempts to look something up while the database is away. */
const LOOKUP_RETRY_MS = 500;

/** What the pipeline is made of. */
export interface PipelineParts {
  readonly lanes: LaneStore;
  readonly writer: BatchWriter;
  readonly limits: PipelineLimits;
  readonly metrics: IngestMetrics;
  readonly log: Logger;
}

/**
 * The way of a message from the broker to the writer: count, read, look up its metrics, date, encode.
 * Most messages go through in one turn. One that has to wait (device not loaded, over the rate, a new
 * metric, a full queue) stands in its device's lane, and those behind it wait too: messages of a device
 * are stored and acknowledged in order of arrival.
 */
export class Pipeline {
  readonly #lanes: LaneStore;
  readonly #writer: BatchWriter;
  readonly #limits: PipelineLimits;
  readonly #metrics: IngestMetrics;
  readonly #log: Logger;
  #heldMessages = 0;
  #heldBytes = 0;

  constructor(parts: PipelineParts) {
    this.#lanes = parts.lanes;
    this.#writer = parts.writer;
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
   * @returns false when it has to wait before the queue: who reads no further until it is acknowledged
   * holds the device back.
   */
  accept(lane: Lane, publication: Publication): boolean {
    const metrics = this.#metrics;
    metrics.receivedMessages += 1;
    metrics.receivedBytes += publication.payload.length;
    const message: Message = {
      publication,
      lane,
      arrivedMs: Date.now(),
      receivedMicros: 0,
      outcome: null,
      isCounted: false,
      isShaped: false,
      arePointsCounted: false,
      quarantine: null,
    };
    if (!lane.isBlocked && this.#advance(message)) return true;
    return !this.#hold(message);
  }

  /** @returns false when the message was dropped instead. */
  #hold(message: Message): boolean {
    const { lane, publication } = message;
    const bytes = publication.payload.length;
    if (isOverRate(lane)) {
      this.#drop(message, 'rate');
      return false;
    }
    const isOver =
      lane.waitingBytes + bytes > this.#limits.deviceHeldBytesMax ||
      this.#heldBytes + bytes > this.#limits.heldBytesMax;
    if (isOver) {
      this.#drop(message, 'held_bytes');
      return false;
    }
    lane.waiting.push(message);
    lane.waitingBytes += bytes;
    this.#heldMessages += 1;
    this.#heldBytes += bytes;
    return true;
  }

  /** QoS 0 is lost here, and counted. Above it the connection ends, and the device sends again. */
  #drop(message: Message, reason: 'rate' | 'held_bytes'): void {
    const { source, qos, channel } = message.publication;
    this.#metrics.dropped[reason] += 1;
    source.report('rate', channel, DROP_TEXTS[reason]);
    if (qos === 0) message.publication.acknowledge();
    else source.close(reason);
  }

  /** Lets the waiting messages of a lane go on, up to the next that has to wait. */
  #wake(lane: Lane): void {
    lane.isBlocked = false;
    let done = 0;
    for (const message of lane.waiting) {
      if (!this.#advance(message)) break;
      done += 1;
      const bytes = message.publication.payload.length;
      lane.waitingBytes -= bytes;
      this.#heldBytes -= bytes;
    }
    this.#heldMessages -= done;
    for (const { publication } of lane.waiting.splice(0, done)) publication.source.resume();
  }

  /** True when the message has gone to the writer; false when it waits and the lane will be woken. */
  #advance(message: Message): boolean {
    const { lane } = message;
    if (!lane.isLoaded) {
      this.#block(lane, () => this.#lanes.load(lane));
      return false;
    }
    if (!message.isCounted) {
      const waitMs = lane.messageBucket.take(1, performance.now());
      if (waitMs > 0) return this.#wakeAfter(message, waitMs);
      message.isCounted = true;
    }
    const outcome = (message.outcome ??= this.#read(message));
    if (outcome instanceof Refusal) this.#refuse(message, outcome.code, outcome.detail);
    else if (!this.#arePointsReady(message, outcome)) return false;
    if (!this.#writer.hasRoom()) {
      lane.isBlocked = true;
      this.#writer.whenRoom(() => this.#wake(lane));
      return false;
    }
    if (!(message.outcome instanceof Refusal)) this.#encode(message, outcome as Decoded);
    this.#writer.open.addMessage(message);
    this.#writer.added();
    return true;
  }

  #read(message: Message): Decoded | Refusal {
    const { channel, metric, payload, refusal } = message.publication;
    const outcome =
      refusal ?? (channel === 'scalar' ? decodeScalar(metric ?? '', payload) : decodeData(payload));
    const samples = outcome instanceof Refusal ? 1 : outcome.samples.length;
    message.receivedMicros = message.lane.receiptClock.next(message.arrivedMs * 1000, samples);
    return outcome;
  }

  /** Asks the rate of points and finds the keys of the series; false when the lane has to wait. */
  #arePointsReady(message: Message, decoded: Decoded): boolean {
    const { lane } = message;
    if (!message.arePointsCounted) {
      const waitMs = lane.pointBucket.take(decoded.pointCount, performance.now());
      if (waitMs > 0) return this.#wakeAfter(message, waitMs);
      message.arePointsCounted = true;
      if (!message.isShaped) lane.rateWaitSince = null;
      this.#metrics.missingValues += decoded.missing;
    }
    const missing = this.#lanes.missingMetrics(lane, decoded);
    if (missing === null) return true;
    if (lane.slots.size + missing.size > this.#limits.deviceMetricsMax) {
      this.#tooManyMetrics(message, `more than ${this.#limits.deviceMetricsMax} metrics`);
      return true;
    }
    this.#block(lane, async () => {
      const isMade = await this.#lanes.makeSlots(lane, missing);
      if (!isMade) this.#tooManyMetrics(message, 'the organization has too many metrics');
    });
    return false;
  }

  #tooManyMetrics(message: Message, detail: string): void {
    message.outcome = new Refusal('too_many', detail);
    this.#refuse(message, 'too_many', detail);
  }

  #encode(message: Message, decoded: Decoded): void {
    const { lane, receivedMicros } = message;
    const batch = this.#writer.open;
    for (const sample of decoded.samples) {
      const resolved = resolveTime(sample, receivedMicros, this.#limits);
      if (resolved === 'too_old') {
        this.#refuse(message, 'too_old', `older than ${this.#limits.ageMaxMs / 86_400_000} days`);
        continue;
      }
      const { quality } = resolved;
      let { timeMicros } = resolved;
      if (quality === QUALITY.age) timeMicros += lane.nextAgeTick();
      if (quality === QUALITY.serverTs) this.#reportClock(message);
      for (const { metric, value, text } of sample.points) {
        const slot = lane.slots.get(metric);
        if (slot === undefined) throw new Error(`series of ${metric} not looked up`);
        batch.addReading(slot, timeMicros, value, text, receivedMicros, quality);
      }
    }
  }

  #reportClock({ publication, lane }: Message): void {
    if (lane.isClockReported) return;
    lane.isClockReported = true;
    publication.source.report('clock', publication.channel, 'clock not set: time of receipt used');
  }

  /** The message goes to quarantine. It is acknowledged, or the device would resend it for ever. */
  #refuse(message: Message, code: RefusalCode, detail: string): void {
    if (message.quarantine !== null) return;
    // In the order of receipt, also within a millisecond: pages of quarantine are sorted by id.
    const { receivedMicros } = message;
    const id = makeUuidV7(Math.floor(receivedMicros / 1000), receivedMicros % 1000);
    message.quarantine = { id, code, detail };
    message.publication.source.report(code, message.publication.channel, detail);
  }

  #wakeAfter(message: Message, waitMs: number): false {
    const { lane } = message;
    message.isShaped = true;
    lane.isBlocked = true;
    lane.rateWaitSince ??= performance.now();
    setTimeout(() => this.#wake(lane), waitMs);
    return false;
  }

  /** Waits for a lookup, and repeats it while the database is away. */
  #block(lane: Lane, lookUp: () => Promise<void>): void {
    lane.isBlocked = true;
    lookUp().then(
      () => this.#wake(lane),
      (err: unknown) => {
        this.#log.debug({ err, deviceId: lane.deviceId }, 'lookup failed, will be repeated');
        setTimeout(() => this.#wake(lane), LOOKUP_RETRY_MS);
      },
    );
  }
}

/** Whether waiting does not help: the device has been over its rate, or will be, for too long. */
function isOverRate(lane: Lane): boolean {
  const now = performance.now();
  if (lane.rateWaitSince !== null && now - lane.rateWaitSince > RATE_WAIT_MS_MAX) return true;
  return lane.messageBucket.waitFor(lane.waiting.length + 1, now) > RATE_WAIT_MS_MAX;
}
