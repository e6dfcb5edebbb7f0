// HOT PATH: once per message and subscriber; see bench/RESULTS.md
import { reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { FanOutMetrics } from './fan-out-metrics.ts';
import type { OutgoingMessage } from '../message.ts';
import { PublishEncoder } from './publish-frame.ts';
import type { SessionStore } from '../store/session-store.ts';

/** Bounds on what is on its way to subscribers. */
export interface OutboxLimits {
  /** Messages that wait in memory for one connection, and their bytes. */
  readonly queueMessagesMax: number;
  readonly queueBytesMax: number;
  /** Bytes that wait in memory for all connections together. */
  readonly queuesBytesMax: number;
  /** Messages at QoS 1 without PUBACK, for one connection; at most 65 535. */
  readonly inFlightMax: number;
  /** Longest time in ms that a connection takes nothing of what it was written. */
  readonly stuckMs: number;
}

/** What all outboxes of a broker work with. */
export interface DispatchParts {
  readonly store: SessionStore;
  readonly limits: OutboxLimits;
  readonly metrics: FanOutMetrics;
  /** Whether messages of a topic leave room to others when a queue runs full. */
  readonly isTelemetry: (topic: string) => boolean;
  readonly log: Logger;
}

/** An outbox as the others' keeper sees it. */
export interface DispatchedOutbox {
  /** Sends what has become possible to send, and what was collected in this turn. */
  flush(): void;
  /** Ends a connection that takes nothing any more. */
  checkStuck(nowMs: number): void;
}

/**
 * What the outboxes of a broker share: bounds, counts, the encoder, and the end of a turn of the event
 * loop, at which each writes what it collected in one go.
 */
export class Dispatch {
  readonly store: SessionStore;
  readonly limits: OutboxLimits;
  readonly metrics: FanOutMetrics;
  readonly isTelemetry: (topic: string) => boolean;
  readonly encoder = new PublishEncoder();
  /** Of all connections: what waits in memory, and what waits for PUBACK. */
  waitingMessages = 0;
  waitingBytes = 0;
  inFlightMessages = 0;
  readonly #log: Logger;
  #due: DispatchedOutbox[] = [];
  readonly #blocked = new Set<DispatchedOutbox>();
  #isStoreFailing = false;
  readonly #flushDue = (): void => {
    const due = this.#due;
    this.#due = [];
    for (const outbox of due) outbox.flush();
  };

  constructor({ store, limits, metrics, isTelemetry, log }: DispatchParts) {
    this.store = store;
    this.limits = limits;
    this.metrics = metrics;
    this.isTelemetry = isTelemetry;
    this.#log = log;
  }

  /** Flushes an outbox when everything that runs now has run. Asked once by each until it is flushed. */
  schedule(outbox: DispatchedOutbox): void {
    if (this.#due.push(outbox) === 1) queueMicrotask(this.#flushDue);
  }

  /** Watches an outbox whose connection is full. */
  watch(outbox: DispatchedOutbox): void {
    this.#blocked.add(outbox);
  }

  /** Ends {@link watch}. */
  unwatch(outbox: DispatchedOutbox): void {
    this.#blocked.delete(outbox);
  }

  /** Ends the connections that have taken nothing for too long; called every second or so. */
  checkStuck(nowMs: number): void {
    for (const outbox of this.#blocked) outbox.checkStuck(nowMs);
  }

  /**
   * Puts a message into the queues of persistent sessions.
   * @returns a promise that resolves when it is on disk, or when that failed, which is counted.
   */
  async enqueue(clientIds: readonly string[], message: OutgoingMessage): Promise<void> {
    try {
      await this.store.enqueue(clientIds, message);
      if (this.#isStoreFailing) this.#log.info('session store works again');
      this.#isStoreFailing = false;
    } catch (err) {
      this.metrics.dropped.store_failed += clientIds.length;
      this.storeFailed(err);
    }
  }

  /** Notes that the session store failed. */
  storeFailed(err: unknown): void {
    if (!this.#isStoreFailing) this.#log.warn({ err: reasonOf(err) }, 'session store failed');
    this.#isStoreFailing = true;
  }

  /** Notes that retained messages could not be read: the client does not get them. */
  retainedFailed(err: unknown): void {
    this.#log.warn({ err: reasonOf(err) }, 'retained messages were not read');
  }
}
