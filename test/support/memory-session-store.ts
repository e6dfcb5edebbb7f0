import type { OutgoingMessage } from '../../broker/message.ts';
import type {
  QueuedMessage,
  SessionStore,
  StoredSubscription,
} from '../../broker/store/session-store.ts';
import { matchesFilter } from '../../broker/store/topic-filter.ts';

interface MemorySession {
  readonly subscriptions: Map<string, 0 | 1>;
  readonly requests: Map<string, 0 | 1>;
  queue: QueuedMessage[];
  isConnected: boolean;
}

/** A session store that forgets everything with the program. It has no bounds. */
export class MemorySessionStore implements SessionStore {
  readonly sessions = new Map<string, MemorySession>();
  readonly #retained = new Map<string, OutgoingMessage>();
  #sequence = 0;
  /** Set: writes reject with it. */
  failure: Error | null = null;
  /** Calls of {@link enqueue}. */
  enqueueCalls = 0;

  sessionIds(): Iterable<string> {
    return this.sessions.keys();
  }

  hasSession(clientId: string): boolean {
    return this.sessions.has(clientId);
  }

  async openSession(clientId: string): Promise<boolean> {
    if (!this.sessions.has(clientId)) {
      this.sessions.set(clientId, {
        subscriptions: new Map(),
        requests: new Map(),
        queue: [],
        isConnected: false,
      });
    }
    return true;
  }

  touchSession(clientId: string, isConnected: boolean): void {
    const session = this.sessions.get(clientId);
    if (session !== undefined) session.isConnected = isConnected;
  }

  async dropSession(clientId: string): Promise<void> {
    this.sessions.delete(clientId);
  }

  subscriptions(clientId: string): readonly StoredSubscription[] {
    const subscriptions = this.sessions.get(clientId)?.subscriptions ?? new Map<string, 0 | 1>();
    return [...subscriptions].map(([filter, qos]) => ({ filter, qos }));
  }

  async addSubscriptions(
    clientId: string,
    subscriptions: readonly StoredSubscription[],
  ): Promise<void> {
    if (this.failure !== null) throw this.failure;
    for (const { filter, qos } of subscriptions) {
      this.sessions.get(clientId)?.subscriptions.set(filter, qos);
    }
  }

  async removeSubscriptions(clientId: string, filters: readonly string[]): Promise<void> {
    if (this.failure !== null) throw this.failure;
    for (const filter of filters) this.sessions.get(clientId)?.subscriptions.delete(filter);
  }

  requests(clientId: string): readonly StoredSubscription[] {
    const requests = this.sessions.get(clientId)?.requests ?? new Map<string, 0 | 1>();
    return [...requests].map(([filter, qos]) => ({ filter, qos }));
  }

  async changeRequests(
    clientId: string,
    added: readonly StoredSubscription[],
    removed: readonly string[],
  ): Promise<void> {
    if (this.failure !== null) throw this.failure;
    const requests = this.sessions.get(clientId)?.requests;
    for (const { filter, qos } of added) requests?.set(filter, qos);
    for (const filter of removed) requests?.delete(filter);
  }

  async enqueue(clientIds: readonly string[], message: OutgoingMessage): Promise<void> {
    this.enqueueCalls += 1;
    if (this.failure !== null) throw this.failure;
    this.#sequence += 1;
    for (const clientId of clientIds) {
      const queued = { ...message, sequence: this.#sequence, packetId: 0 };
      this.sessions.get(clientId)?.queue.push(queued);
    }
  }

  queued(clientId: string, afterSequence: number, limit: number): QueuedMessage[] {
    const queue = this.sessions.get(clientId)?.queue ?? [];
    const first = queue.findIndex(({ sequence }) => sequence > afterSequence);
    return first < 0 ? [] : queue.slice(first, first + limit);
  }

  markSent(clientId: string, sequence: number, packetId: number): void {
    const queue = this.sessions.get(clientId)?.queue ?? [];
    const index = queue.findIndex((message) => message.sequence === sequence);
    const message = queue[index];
    if (message !== undefined) queue[index] = { ...message, packetId };
  }

  removeQueued(clientId: string, sequence: number): void {
    const session = this.sessions.get(clientId);
    if (session === undefined) return;
    session.queue = session.queue.filter((message) => message.sequence !== sequence);
  }

  queueSize(clientId: string): { messages: number; bytes: number } {
    const queue = this.sessions.get(clientId)?.queue ?? [];
    return {
      messages: queue.length,
      bytes: queue.reduce((sum, { payload }) => sum + payload.length, 0),
    };
  }

  async putRetained(message: OutgoingMessage): Promise<void> {
    if (this.failure !== null) throw this.failure;
    if (message.payload.length === 0) this.#retained.delete(message.topic);
    else this.#retained.set(message.topic, { ...message, retain: true });
  }

  retained(topic: string): OutgoingMessage | null {
    return this.#retained.get(topic) ?? null;
  }

  *retainedMatching(filter: string): Iterable<OutgoingMessage> {
    for (const message of this.#retained.values()) {
      if (matchesFilter(message.topic, filter)) yield message;
    }
  }

  async close(): Promise<void> {}
}
