// HOT PATH: see bench/RESULTS.md
import { setTimeout as delay } from 'node:timers/promises';
import type { PacketSink } from './framer.ts';
import { holdOne, releaseOne, type Session } from './session.ts';
import type { Subscriber } from './subscriber.ts';

/** Joins a connection's packets to what its client may do: PUBLISH to the access, the rest to its subscriber. */
export function sinkOf(session: Session, subscriber: Subscriber): PacketSink {
  const { access } = session;
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
    async subscribe(packet) {
      const startedMs = performance.now();
      const subscribing = subscriber.subscribe(packet);
      const busyMs = performance.now() - startedMs;
      access.subscribed(await subscribing);
      await restAfter(busyMs);
    },
    async unsubscribe(packet) {
      const startedMs = performance.now();
      const unsubscribing = subscriber.unsubscribe(packet);
      const busyMs = performance.now() - startedMs;
      await unsubscribing;
      await restAfter(busyMs);
    },
    acknowledged: (packetId) => subscriber.acknowledge(packetId),
    drained: () => subscriber.drained(),
  };
}

/** Work for one packet that is no matter, in ms. */
const FREE_MS = 2;
/** A client rests this much longer than what its packet kept everybody else waiting. */
const REST_FACTOR = 20;

/** Filters that stand for many cost time: who asks for them again and again is not read for a while. */
async function restAfter(busyMs: number): Promise<void> {
  if (busyMs > FREE_MS) await delay(busyMs * REST_FACTOR);
}
