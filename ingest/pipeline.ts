// HOT PATH: see bench/RESULTS.md
import { CanonicalPayload } from '../firmware-protocol/canonical.ts';
import { QUALITY, Refusal, type RefusalCode } from '../firmware-protocol/contract.ts';
import {
  decodeData,
  decodeScalar,
  type Decoded,
  type Sample,
} from '../firmware-protocol/telemetry.ts';
import { resolveTime, type TimeLimits } from '../firmware-protocol/time.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import type { Logger } from '../log.ts';
import type { BatchWriter } from './batch-writer.ts';
import type { DeviceLane } from './device-lane.ts';
import type { Lane } from './lane.ts';
import type { LaneStore } from './lane-store.ts';
import type { Message, Publication } from './message.ts';
import type { DropReason, IngestMetrics } from './metrics.ts';
import type { SharedRate } from './shared-rate.ts';

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
const DROP_TEXTS: Readonly<Record<DropReason, string>> = {
  rate: 'more messages or values a second than allowed',
  quota: 'more messages a second than the organization is allowed',
  held_bytes: 'more is waiting for the database than can be held',
};
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
      sharedRatesPassed: 0,
      arePointsCounted: false,
      quarantine: null,
      canonical: null,
      isDuplicate: false,
      rowCount: 0,
    };
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
    if (qos === 0) message.publication.acknowledge(null);
    else source.close(reason);
  }

  /** Lets the waiting messages of a lane go on, up to the next that has to wait. */
  #wake(device: DeviceLane): void {
    device.isBlocked = false;
    let done = 0;
    for (const message of device.waiting) {
      if (!this.#advance(message)) break;
      done += 1;
      const bytes = message.publication.payload.length;
      device.waitingBytes -= bytes;
      this.#heldBytes -= bytes;
    }
    this.#heldMessages -= done;
    for (const { publication } of device.waiting.splice(0, done)) publication.source.resume();
  }

  /** True when the message has gone to the writer; false when it waits and the lane will be woken. */
  #advance(message: Message): boolean {
    const { device } = message.lane;
    if (!device.isLoaded) {
      this.#block(device, () => this.#lanes.load(device));
      return false;
    }
    if (!this.#isRateReady(message)) return false;
    const outcome = (message.outcome ??= this.#read(message));
    if (outcome instanceof Refusal) this.#refuse(message, outcome.code, outcome.detail);
    else if (!this.#arePointsReady(message, outcome)) return false;
    if (!this.#writer.hasRoomFor(device)) {
      device.isBlocked = true;
      this.#writer.whenRoom(() => this.#wake(device));
      return false;
    }
    if (!(outcome instanceof Refusal)) this.#encode(message, outcome);
    this.#writer.open.addMessage(message);
    this.#writer.added();
    return true;
  }

  /** Asks the device's own rate first: what is over it takes nothing from the rates of others. */
  #isRateReady(message: Message): boolean {
    const { device, sharedRates } = message.lane;
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

  #read(message: Message): Decoded | Refusal {
    const { channel, metric, payload, refusal } = message.publication;
    const outcome =
      refusal ?? (channel === 'scalar' ? decodeScalar(metric ?? '', payload) : decodeData(payload));
    const samples = outcome instanceof Refusal ? 1 : outcome.samples.length;
    message.receivedMicros = message.lane.device.receiptClock.next(
      message.arrivedMs * 1000,
      samples,
    );
    return outcome;
  }

  /** Asks the rate of points and finds the keys of the series; false when the lane has to wait. */
  #arePointsReady(message: Message, decoded: Decoded): boolean {
    if (message.quarantine !== null) return true;
    const { device } = message.lane;
    if (!message.arePointsCounted) {
      const waitMs = device.pointBucket.take(decoded.pointCount, performance.now());
      if (waitMs > 0) return this.#wakeAfter(message, waitMs);
      message.arePointsCounted = true;
      if (!message.isShaped) device.rateWaitSince = null;
      this.#metrics.missingValues += decoded.missing;
    }
    const missing = this.#lanes.missingMetrics(device, decoded);
    if (missing === null) return true;
    if (device.slots.size + missing.size > this.#limits.deviceMetricsMax) {
      this.#refuse(message, 'too_many', `more than ${this.#limits.deviceMetricsMax} metrics`);
      return true;
    }
    this.#block(device, async () => {
      const isMade = await this.#lanes.makeSlots(device, missing);
      if (!isMade) this.#refuse(message, 'too_many', 'the organization has too many metrics');
    });
    return false;
  }

  /** Makes rows of what is new. Of a message that is refused already only the numbers are noted. */
  #encode(message: Message, decoded: Decoded): void {
    const isRefused = message.quarantine !== null;
    const canonical = !isRefused && message.publication.isWanted() ? new CanonicalPayload() : null;
    let newSamples = 0;
    let isNew = true;
    for (const sample of decoded.samples) {
      if (!sample.isContinued) isNew = this.#isNew(message.lane, sample.seq);
      if (!isNew) continue;
      newSamples += 1;
      if (!isRefused) this.#encodeSample(message, sample, canonical);
    }
    message.isDuplicate = newSamples === 0 && decoded.samples.length > 0;
    // It was refused when it came first, and is in quarantine already.
    if (message.isDuplicate) message.quarantine = null;
    if (canonical !== null) message.canonical = canonical.end();
  }

  /** Whether a number has not come before; it has from now on. */
  #isNew(lane: Lane, seq: number | null): boolean {
    if (seq === null) return true;
    const { sequence } = lane;
    if (sequence.ahead.has(seq)) return false;
    this.#writer.open.addSequence(sequence, seq);
    return true;
  }

  #encodeSample(message: Message, sample: Sample, canonical: CanonicalPayload | null): void {
    const { lane, receivedMicros } = message;
    const { device } = lane;
    const resolved = resolveTime(sample, receivedMicros, this.#limits);
    if (resolved === 'too_old') {
      this.#refuse(message, 'too_old', `older than ${this.#limits.ageMaxMs / 86_400_000} days`);
      return;
    }
    const { quality } = resolved;
    let { timeMicros } = resolved;
    if (quality === QUALITY.age) timeMicros += device.nextAgeTick();
    if (quality === QUALITY.serverTs) this.#reportClock(message);
    const batch = this.#writer.open;
    for (const { metric, value, text } of sample.points) {
      const slot = device.slots.get(metric);
      if (slot === undefined) throw new Error(`series of ${metric} not looked up`);
      batch.addReading(slot, timeMicros, value, text, receivedMicros, quality);
    }
    canonical?.add(timeMicros, sample);
  }

  #reportClock({ publication, lane }: Message): void {
    if (lane.isClockReported) return;
    lane.isClockReported = true;
    publication.source.report('clock', publication.word, 'clock not set: time of receipt used');
  }

  /** The message goes to quarantine. It is acknowledged, or the device would resend it for ever. */
  #refuse(message: Message, code: RefusalCode, detail: string): void {
    if (message.quarantine !== null) return;
    // In the order of receipt, also within a millisecond: pages of quarantine are sorted by id.
    const { receivedMicros } = message;
    const id = makeUuidV7(Math.floor(receivedMicros / 1000), receivedMicros % 1000);
    message.quarantine = { id, code, detail };
    message.publication.source.report(code, message.publication.word, detail);
  }

  #wakeAfter(message: Message, waitMs: number): false {
    const { device } = message.lane;
    message.isShaped = true;
    device.isBlocked = true;
    device.rateWaitSince ??= performance.now();
    setTimeout(() => this.#wake(device), waitMs);
    return false;
  }

  /** Waits for a lookup, and repeats it while the database is away. */
  #block(device: DeviceLane, lookUp: () => Promise<void>): void {
    device.isBlocked = true;
    lookUp().then(
      () => this.#wake(device),
      (err: unknown) => {
        this.#log.debug({ err, deviceId: device.deviceId }, 'lookup failed, will be repeated');
        setTimeout(() => this.#wake(device), LOOKUP_RETRY_MS);
      },
    );
  }
}

/** Why waiting does not help: the device has been over a rate, or will be, for too long. */
function overRateReason(device: DeviceLane): DropReason | null {
  const now = performance.now();
  const { rateWaitSince, messageBucket, waiting, sharedWait } = device;
  if (rateWaitSince !== null && now - rateWaitSince > RATE_WAIT_MS_MAX) return 'rate';
  if (messageBucket.waitFor(waiting.length + 1, now) > RATE_WAIT_MS_MAX) return 'rate';
  return sharedWait.overReason(now);
}
