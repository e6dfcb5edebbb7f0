import { hashKey } from './disk-codec.ts';
import type { DiskWriter } from './disk-writer.ts';
import { hasWildcard, matchesFilter } from './topic-filter.ts';

/** A subscription as the engine stores it, with its options of MQTT 5. */
export interface EngineSubscription {
  readonly topic: string;
  readonly qos: 0 | 1 | 2;
  readonly rh?: number;
  readonly rap?: boolean;
  readonly nl?: boolean;
  readonly subscriptionIdentifier?: number;
}

/** A subscription with its client. */
export type ClientSubscription = EngineSubscription & { readonly clientId: string };

interface StoredClient {
  readonly clientId: string;
  readonly subscriptions: readonly EngineSubscription[];
}

const TABLE = 's';

/** Subscriptions that the engine keeps itself: in memory, and one row for each client on disk. */
export class EngineSubscriptions {
  readonly #writer: DiskWriter;
  readonly #byClient = new Map<string, Map<string, EngineSubscription>>();

  constructor(writer: DiskWriter) {
    this.#writer = writer;
  }

  /** Reads in what is on disk. */
  restore(): void {
    for (const { value } of this.#writer.scan(TABLE)) {
      const { clientId, subscriptions } = JSON.parse(value.toString()) as StoredClient;
      this.#byClient.set(clientId, new Map(subscriptions.map((found) => [found.topic, found])));
    }
  }

  add(clientId: string, subscriptions: readonly EngineSubscription[]): void {
    const known = this.#byClient.get(clientId) ?? new Map<string, EngineSubscription>();
    for (const { topic, qos, rh, rap, nl, subscriptionIdentifier } of subscriptions) {
      known.set(topic, {
        topic,
        qos,
        ...(rh !== undefined && { rh }),
        ...(rap !== undefined && { rap }),
        ...(nl !== undefined && { nl }),
        ...(subscriptionIdentifier !== undefined && { subscriptionIdentifier }),
      });
    }
    this.#byClient.set(clientId, known);
    this.#save(clientId, known);
  }

  remove(clientId: string, filters: readonly string[]): void {
    const known = this.#byClient.get(clientId);
    if (known === undefined) return;
    for (const filter of filters) known.delete(filter);
    if (known.size === 0) this.clean(clientId);
    else this.#save(clientId, known);
  }

  clean(clientId: string): void {
    if (this.#byClient.delete(clientId)) this.#writer.remove(TABLE + hashKey(clientId));
  }

  ofClient(clientId: string): EngineSubscription[] {
    return [...(this.#byClient.get(clientId)?.values() ?? [])];
  }

  /** Those above QoS 0 that select a topic, those with wildcards first. */
  matching(topic: string): ClientSubscription[] {
    const found: ClientSubscription[] = [];
    for (const [clientId, subscriptions] of this.#byClient) {
      for (const subscription of subscriptions.values()) {
        if (subscription.qos === 0 || !matchesFilter(topic, subscription.topic)) continue;
        found.push({ clientId, ...subscription });
      }
    }
    return found.sort((a, b) => Number(hasWildcard(b.topic)) - Number(hasWildcard(a.topic)));
  }

  *clientsOf(filter: string): Generator<string> {
    for (const [clientId, subscriptions] of this.#byClient) {
      if (subscriptions.has(filter)) yield clientId;
    }
  }

  /** Subscriptions above QoS 0, and clients with any. */
  count(): { subsCount: number; clientsCount: number } {
    let subsCount = 0;
    for (const subscriptions of this.#byClient.values()) {
      for (const { qos } of subscriptions.values()) if (qos > 0) subsCount += 1;
    }
    return { subsCount, clientsCount: this.#byClient.size };
  }

  #save(clientId: string, subscriptions: ReadonlyMap<string, EngineSubscription>): void {
    const row: StoredClient = { clientId, subscriptions: [...subscriptions.values()] };
    this.#writer.put(TABLE + hashKey(clientId), Buffer.from(JSON.stringify(row)));
  }
}
