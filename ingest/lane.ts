import { ReceiptClock } from '../firmware-protocol/time.ts';
import type { Batch } from './batch.ts';
import type { Message } from './message.ts';
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
}

/** The rates that a device may keep up; 0 is no limit. */
export interface LaneRates {
  readonly messagesPerSecond: number;
  readonly pointsPerSecond: number;
}

/**
 * What ingest knows of one device, and the messages of it that wait: for this to be loaded, for a rate,
 * for the ids of new metrics or for room in the queue. They leave in order of arrival.
 */
export class Lane {
  readonly organizationId: number;
  readonly deviceId: number;
  /** By metric name. Empty until loaded. */
  readonly slots = new Map<string, Slot>();
  readonly waiting: Message[] = [];
  readonly messageBucket: TokenBucket;
  readonly pointBucket: TokenBucket;
  waitingBytes = 0;
  isLoaded = false;
  /** True while something will wake the lane. */
  isBlocked = false;
  readonly receiptClock = new ReceiptClock();
  /** Since when every message has had to wait for a rate, in ms of the monotonic clock. */
  rateWaitSince: number | null = null;
  /** Whether this connection was told that its clock is wrong. */
  isClockReported = false;
  /** Connections that use the lane; it may be forgotten when there is none. */
  connections = 0;
  /** Milliseconds since 1970. */
  usedAt = 0;
  #ageTick = 0;

  constructor(organizationId: number, deviceId: number, rates: LaneRates) {
    this.organizationId = organizationId;
    this.deviceId = deviceId;
    this.messageBucket = new TokenBucket(rates.messagesPerSecond);
    this.pointBucket = new TokenBucket(rates.pointsPerSecond);
  }

  /** Microseconds below a millisecond that tell apart samples whose time is only known by their age. */
  nextAgeTick(): number {
    this.#ageTick = (this.#ageTick + 1) % 1000;
    return this.#ageTick;
  }
}
