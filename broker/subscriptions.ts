import type { Subscription } from 'aedes';
import { aliasOf } from '../firmware-protocol/topics.ts';
import { authorizeFilter } from './authorize.ts';
import { ignoreOutcome, type EngineClient, type EngineHooks } from './engine.ts';
import type { BrokerMetrics } from './metrics.ts';

/** The hooks of the engine that have to do with what a device reads. */
export function createSubscriptionHooks(
  metrics: BrokerMetrics,
): Pick<EngineHooks, 'authorizeSubscribe' | 'authorizeForward'> {
  return {
    /** Denied filters are answered with 0x80; granted ones become the exact topics they stand for. */
    authorizeSubscribe(rawClient, subscription, done) {
      const client = rawClient as EngineClient;
      const topics = client.session && authorizeFilter(client.session, subscription.topic);
      const [first, ...others] = topics ?? [];
      if (first === undefined) {
        metrics.subscribeDenied();
        done(null, null);
        return;
      }
      subscription.topic = first;
      if (others.length > 0) {
        const rest = others.map((topic) => ({ ...subscription, topic }));
        client.subscribe(rest, ignoreOutcome);
      }
      done(null, subscription);
    },
    /** A device that spells its topics `v1/me/…` is answered so. */
    authorizeForward(client, packet) {
      const { session } = client as EngineClient;
      if (session === undefined || !session.usesAlias) return packet;
      return { ...packet, topic: aliasOf(packet.topic, session.principal) };
    },
  };
}

/**
 * Ends what a filter was expanded to: the engine knows only the filter that the device named in its
 * UNSUBSCRIBE.
 */
export function dropExpanded(client: EngineClient, filters: readonly string[]): void {
  if (client.closed) return;
  for (const filter of filters) {
    const topics = client.session?.expandedFilters.get(filter);
    if (topics === undefined) continue;
    client.session?.expandedFilters.delete(filter);
    // The declared type is that of SUBSCRIBE; the engine takes the bare filters here.
    client.unsubscribe(topics as unknown as Subscription[], ignoreOutcome);
  }
}
