// HOT PATH: once per message that has to wait
import type { OutgoingMessage } from '../message.ts';

/** Places at the front that may be empty before the list is cut. */
const EMPTY_PLACES_MAX = 64;
/** What a waiting message takes beside its payload and its topic, in bytes; measured roughly. */
const ENTRY_BYTES = 64;

/** Messages that wait, first in, first out; both ends in constant time. */
export class MessageQueue {
  #messages: OutgoingMessage[] = [];
  #head = 0;
  /** What the waiting messages take, by {@link messageBytes}. */
  bytes = 0;

  /** Messages that wait. */
  get length(): number {
    return this.#messages.length - this.#head;
  }

  /** Appends a message. */
  push(message: OutgoingMessage): void {
    this.#messages.push(message);
    this.bytes += messageBytes(message);
  }

  /** Takes the oldest message; there must be one. */
  shift(): OutgoingMessage {
    const message = this.#messages[this.#head] as OutgoingMessage;
    this.#head += 1;
    this.bytes -= messageBytes(message);
    if (this.#head > EMPTY_PLACES_MAX && this.#head * 2 > this.#messages.length) {
      this.#messages = this.#messages.slice(this.#head);
      this.#head = 0;
    } else {
      // A message that was sent must not live as long as the list does.
      (this.#messages as (OutgoingMessage | undefined)[])[this.#head - 1] = undefined;
    }
    return message;
  }
}

/** What a message takes while it waits, in bytes. */
export function messageBytes({ topic, payload }: OutgoingMessage): number {
  return payload.length + topic.length + ENTRY_BYTES;
}
