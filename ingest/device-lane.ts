import { DeviceClock } from '../firmware-protocol/device-clock.ts';
import { ReceiptClock } from '../firmware-protocol/time.ts';
import type { Batch } from './batch.ts';
import { BootSequence } from './boot-sequence.ts';
import type { LogRate } from './log-rate.ts';
import type { Message } from './message.ts';
import type { ObservedSeries } from './observer.ts';
import { RateWait } from './rate-wait.ts';
import { SharedWait } from './shared-rate.ts';
import type { PendingSequence } from './spool/pending-sequences.ts';
import { TokenBucket } from './token-bucket.ts';

/** One series in memory: the keys of its rows and its newest reading. */
export interface Slot {
  readonly deviceId: number;
  readonly metricId: number;
  timeMicros: number;
  value: number | null;
  text: string | null;
  receivedMicros: number;
  quality: number;
  /** The open batch that holds the newest reading, if any does. */
  batch: Batch | null;
  /** Made when it is observed for the first time. */
  observed: ObservedSeries | null;
}

/** Boots of a device whose numbers are in memory. */
const BOOTS_MAX = 4;

/** The rates that a device may keep up; 0 is no limit. */
export interface DeviceRates {
  readonly messagesPerSecond: number;
  readonly pointsPerSecond: number;
}

/**
 * What ingest knows of one device, and the messages of it that wait: for this to be loaded, for a rate,
 * for the ids of new metrics or for room in the queue. They leave in order of arrival, also those of two
 * connections of the device.
 */
export class DeviceLane {
  readonly organizationId: number;
  readonly deviceId: number;
  /** By metric name. Empty until loaded. */
  readonly slots = new Map<string, Slot>();
  readonly waiting: Message[] = [];
  readonly messageBucket: TokenBucket;
  readonly pointBucket: TokenBucket;
  readonly sharedWait = new SharedWait();
  /** Made when the device logs for the first time. */
  logRate: LogRate | null = null;
  waitingBytes = 0;
  isLoaded = false;
  /** Of what is fed in again: the device was deleted. Nothing of it is stored. */
  isGone = false;
  /** While true all that it sends is kept apart. */
  isQuarantined = false;
  /** The load under way. */
  loading: Promise<void> | null = null;
  /** True while something will wake the lane. */
  isBlocked = false;
  /** Since when it waits for a lookup, in ms of the monotonic clock; null when it does not. */
  lookupSince: number | null = null;
  /** Whether an attempt at that lookup has failed. */
  hasLookupFailed = false;
  /** How many of {@link waiting}, from the first, are being written to the spool. */
  spoolingMessages = 0;
  /** Whether something would have woken the lane meanwhile. */
  isWakeDue = false;
  /** Whether messages of it waited in the spool when it was loaded. */
  hasSpooled = false;
  /** Which numbers were stored then; empty when none waited. */
  readonly numbersAtLoad: PendingSequence[] = [];
  readonly receiptClock: ReceiptClock;
  readonly clock = new DeviceClock();
  /** How it fares with its own rates. */
  readonly rateWait = new RateWait();
  /** The last boots that the device has named. Known once loaded. */
  readonly #boots = new Map<number, BootSequence>();
  /** What stands in the writer's queue. */
  queuedMessages = 0;
  queuedRows = 0;
  queuedBytes = 0;
  /** Connections that use the lane; it may be forgotten when there is none. */
  connections = 0;
  /** In ms of the monotonic clock. */
  usedAt = 0;

  /** @param residueMicros where between the milliseconds its times of receipt lie; see `firstResidue`. */
  constructor(organizationId: number, deviceId: number, rates: DeviceRates, residueMicros = 0) {
    this.receiptClock = new ReceiptClock(residueMicros);
    this.organizationId = organizationId;
    this.deviceId = deviceId;
    this.messageBucket = new TokenBucket(rates.messagesPerSecond);
    this.pointBucket = new TokenBucket(rates.pointsPerSecond);
  }

  /** The numbers of a boot; the first look at one that is new begins it. */
  sequenceOf(boot: number): BootSequence {
    let sequence = this.#boots.get(boot);
    if (sequence === undefined) {
      sequence = new BootSequence(this, boot);
      this.keep(sequence);
    }
    return sequence;
  }

  /**
   * Keeps the numbers of a boot that has a name, with what was noted of it before, and forgets those of
   * the oldest boot beyond a few.
   */
  keep(sequence: BootSequence): void {
    const boot = sequence.boot ?? 0;
    for (const seq of this.#boots.get(boot)?.committed.recent() ?? []) sequence.addStored(seq);
    this.#boots.set(boot, sequence);
    const [oldest = 0] = this.#boots.keys();
    if (this.#boots.size > BOOTS_MAX) this.#boots.delete(oldest);
  }

  /** Whether nothing of the device is on its way. */
  get isEmpty(): boolean {
    return this.connections === 0 && this.waiting.length === 0 && this.queuedMessages === 0;
  }
}
