// HOT PATH: see bench/RESULTS.md
import type { PacketSink } from './framer.ts';
import type { Pacer } from './pacer.ts';
import { holdOne, releaseOne, type Session } from './session.ts';
import type { Subscriber } from './outgoing/subscriber.ts';

/** Joins a connection's packets to what its client may do: PUBLISH to the access, the rest to its subscriber. */
export function sinkOf(session: Session, subscriber: Subscriber, pacer: Pacer): PacketSink {
  const { access } = session;
  const organizationId = session.principal?.organizationId ?? null;
  return {
    authorize: (topic) => access.authorize(topic),
    take(intake, publication) {
      holdOne(session);
      const { topic, payload, qos, retain, acknowledge } = publication;
      return access.take(intake, {
        topic,
        payload,
        qos,
        retain,
        acknowledge: () => {
          releaseOne(session);
          acknowledge();
        },
      });
    },
    subscribe: (packet) =>
      pacer.pace(organizationId, async () => {
        access.subscribed(await subscriber.subscribe(packet));
        return subscriber.changes;
      }),
    unsubscribe: (packet) =>
      pacer.pace(organizationId, async () => {
        await subscriber.unsubscribe(packet);
        return subscriber.changes;
      }),
    acknowledged: (packetId) => subscriber.acknowledge(packetId),
    drained: () => subscriber.drained(),
  };
}
