import { setImmediate as nextTurn } from 'node:timers/promises';
import type { OutgoingMessage } from '../message.ts';
import type { Outbox } from './outbox.ts';
import type { Recipient } from './recipient.ts';

/** What a scan works with. */
export interface RetainedScanParts {
  readonly recipient: Recipient;
  readonly outbox: Outbox;
  /** Retained messages that match a granted filter. */
  readonly read: (filter: string) => Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>;
  readonly isTelemetry: (topic: string) => boolean;
  readonly onFailure: (err: unknown) => void;
}

/** Topics that were sent live since the scan began; beyond it the oldest are forgotten. */
const LIVE_TOPICS_MAX = 65_536;
/** Messages after which others get their turn. */
const TURN_MESSAGES = 64;

/**
 * Sends retained messages because of a SUBSCRIBE, one filter after the other, as the outbox has room. A
 * topic of which a live message was sent since the scan began is left out: what is retained may be older.
 */
export class RetainedScan {
  readonly #parts: RetainedScanParts;
  /** Filters whose retained messages are not all sent; the first is being read. */
  readonly #pending = new Map<string, { readonly qos: 0 | 1 }>();
  readonly #live = new Set<string>();
  #isRunning = false;
  readonly #noteLive = (topic: string): void => {
    if (this.#parts.isTelemetry(topic)) return;
    this.#live.add(topic);
    if (this.#live.size <= LIVE_TOPICS_MAX) return;
    for (const oldest of this.#live) {
      this.#live.delete(oldest);
      return;
    }
  };

  constructor(parts: RetainedScanParts) {
    this.#parts = parts;
  }

  /** Adds a filter, or starts over with it [MQTT-3.8.4-3]. */
  add(filter: string, qos: 0 | 1): void {
    this.#pending.delete(filter);
    this.#pending.set(filter, { qos });
    if (!this.#isRunning) void this.#run();
  }

  /** Sends no more because of a filter. */
  drop(filter: string): void {
    this.#pending.delete(filter);
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { recipient, onFailure } = this.#parts;
    this.#isRunning = true;
    recipient.onLive = this.#noteLive;
    for (const [filter, request] of this.#pending) {
      try {
        await this.#scan(filter, request);
      } catch (err) {
        onFailure(err);
      }
      if (this.#pending.get(filter) === request) this.#pending.delete(filter);
    }
    this.#isRunning = false;
    this.#live.clear();
    if (recipient.onLive === this.#noteLive) recipient.onLive = null;
  }

  async #scan(filter: string, request: { readonly qos: 0 | 1 }): Promise<void> {
    const { outbox, read } = this.#parts;
    let count = 0;
    for await (const message of read(filter)) {
      const room = outbox.whenRoom();
      if (room !== null) await room;
      if (outbox.isClosed || this.#pending.get(filter) !== request) return;
      if (!this.#live.has(message.topic)) sendRetained(outbox, message, request.qos);
      count += 1;
      if (count % TURN_MESSAGES === 0) await nextTurn();
    }
  }
}

/** Sends a message because of a SUBSCRIBE [MQTT-3.3.1-8]. */
export function sendRetained(outbox: Outbox, message: OutgoingMessage, qos: 0 | 1): void {
  const effectiveQos = qos < message.qos ? qos : message.qos;
  outbox.offer(message.retain ? message : { ...message, retain: true }, effectiveQos);
}
