import { canonicalTopic } from '../firmware-protocol/topics.ts';
import { ignoreOutcome } from './engine.ts';
import type { Session } from './session.ts';

/**
 * Writes a message straight to a device's connection, at QoS 0: it needs no subscription, reaches nobody
 * else, and is gone when the connection is. The device gets it under the spelling of topics it uses.
 * @param channel below the device's own tree, for example `in/err`.
 */
export function sendDirect(session: Session, channel: string, message: object): void {
  if (session.client.closed) return;
  session.client.publish(
    {
      cmd: 'publish',
      topic: canonicalTopic(session.principal, channel),
      payload: Buffer.from(JSON.stringify(message)),
      qos: 0,
      retain: false,
      dup: false,
    },
    ignoreOutcome,
  );
}
