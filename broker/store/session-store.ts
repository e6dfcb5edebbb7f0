import type { OutgoingMessage } from '../message.ts';

/** A subscription of a persistent session. */
export interface StoredSubscription {
  readonly filter: string;
  readonly qos: 0 | 1;
}

/** A message that waits for a persistent session. */
export interface QueuedMessage extends OutgoingMessage {
  /** Rises within a session. */
  readonly sequence: number;
  /** Packet identifier under which it was sent; 0 when it was not sent yet. */
  readonly packetId: number;
}

/**
 * What outlives a connection: persistent sessions with their subscriptions and queued messages, and
 * retained messages. Reads see what was written before, durable or not; a promise resolves when its
 * change is on disk.
 */
export interface SessionStore {
  /** Identifiers of all persistent sessions. */
  sessionIds(): Iterable<string>;
  hasSession(clientId: string): boolean;
  /** Makes the session when it is absent. @returns false when there are too many. */
  openSession(clientId: string): Promise<boolean>;
  /** Notes that the client has come or gone; sessions without a client are dropped by age. */
  touchSession(clientId: string, isConnected: boolean): void;
  /** Ends a session with its subscriptions and its queue. */
  dropSession(clientId: string): Promise<void>;
  /** Filters that the session was granted: messages are queued for these. */
  subscriptions(clientId: string): readonly StoredSubscription[];
  addSubscriptions(clientId: string, subscriptions: readonly StoredSubscription[]): Promise<void>;
  removeSubscriptions(clientId: string, filters: readonly string[]): Promise<void>;
  /** Filters as the client wrote them, from which the granted ones come. */
  requests(clientId: string): readonly StoredSubscription[];
  changeRequests(
    clientId: string,
    added: readonly StoredSubscription[],
    removed: readonly string[],
  ): Promise<void>;
  /** Appends to the queues of these sessions. Beyond the bounds the oldest are dropped and counted. */
  enqueue(clientIds: readonly string[], message: OutgoingMessage): Promise<void>;
  /** Oldest first, those behind `afterSequence`; 0 starts at the oldest. */
  queued(clientId: string, afterSequence: number, limit: number): QueuedMessage[];
  /** Notes the packet identifier of a message that is being sent [MQTT-4.4.0-1]. */
  markSent(clientId: string, sequence: number, packetId: number): void;
  removeQueued(clientId: string, sequence: number): void;
  queueSize(clientId: string): { readonly messages: number; readonly bytes: number };
  /** Keeps a message as the last of its topic; an empty payload removes it [MQTT-3.3.1-10]. */
  putRetained(message: OutgoingMessage): Promise<void>;
  retained(topic: string): OutgoingMessage | null;
  retainedMatching(filter: string): Iterable<OutgoingMessage>;
  /** Writes everything out and lets go of the files. */
  close(): Promise<void>;
}
