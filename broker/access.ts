import type { Refusal } from '../firmware-protocol/contract.ts';
import type { OutgoingMessage } from './message.ts';
import type { Session } from './session.ts';

/** How a publication is to be taken. */
export interface Intake {
  /**
   * `data`, `scalar`, `senml`: readings. `event`, `log`: what happened to a device. `hello`: its greeting.
   * `ack`, `cfg`, `key`: its answers. `do`: a command of an integrator. `refused`: kept in quarantine for
   * the reason in `refusal`. `open`: a topic without a meaning to the broker.
   */
  readonly channel:
    | 'data'
    | 'scalar'
    | 'senml'
    | 'event'
    | 'log'
    | 'hello'
    | 'ack'
    | 'cfg'
    | 'key'
    | 'do'
    | 'refused'
    | 'open';
  /** The metric of a `scalar`, the name of an `event`, else null. */
  readonly name: string | null;
  readonly refusal: Refusal | null;
  /** The channel as the client named it, for a message to it: `data`, `hello`, or what else it wrote. */
  readonly word: string;
}

/** A PUBLISH as it came. */
export interface IncomingMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  /** The message is stored: acknowledge it. Called once, or never. */
  readonly acknowledge: () => void;
}

/**
 * What one client may do and what becomes of its messages: made for each connection that is let in,
 * by the kind of its principal. All rights of MQTT are decided in implementations of this.
 */
export interface Access {
  /** Takes the place of the client's own identifier. */
  readonly clientId: string;
  /** True: the session ends with the connection. */
  readonly isClean: boolean;
  /** Granted keep alive in seconds; 0: none. */
  readonly keepAliveS: number;
  /** CONNACK was sent: the session begins. */
  opened(session: Session): void;
  /** Verdict on the topic of a PUBLISH; null for one that no client may send: the connection ends. */
  authorize(topic: string): Intake | null;
  /**
   * Takes a publication at QoS 0 or 1.
   * @returns false when it has to wait before it is even queued: nothing is read until it has gone on.
   */
  take(intake: Intake, message: IncomingMessage): boolean;
  /** Takes a publication at QoS 2, or a will, from the engine, which goes on once it is acknowledged. */
  store(intake: Intake, message: IncomingMessage): void;
  /** Hands a message at QoS 2, whose identifier is stored by now, or a will, to whom it concerns. */
  release(message: Omit<IncomingMessage, 'acknowledge'>, done: () => void): void;
  /** The filters that a requested one stands for; null when it is not granted [MQTT-3.8.4-5]. */
  grant(filter: string): readonly string[] | null;
  /** A filter was answered with 0x80: it is not this client's to read. */
  denied(filter: string): void;
  /** Some filters were granted. */
  subscribed(filters: readonly string[]): void;
  /** A canonical topic as this client spells it. */
  spell(topic: string): string;
  /** Retained messages that match a granted filter. */
  retained(filter: string): Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>;
  /** The connection has ended; `code` says why. */
  closed(code: string): void;
}
