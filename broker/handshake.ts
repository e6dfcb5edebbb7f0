import { connackError, identify, rewriteConnect, rewriteWill } from './authenticate.ts';
import type { EngineClient, EngineHooks } from './engine.ts';
import type { BrokerMetrics } from './metrics.ts';
import type { ConnectRefusal, DevicePrincipal, VerifyKey } from './principal.ts';
import type { Logger } from '../log.ts';

/** What the handshake asks of the broker. */
export interface HandshakeParts {
  readonly verifyKey: VerifyKey;
  /** Makes the session of a device that is let in; CONNACK follows. */
  readonly openSession: (
    client: EngineClient,
    principal: DevicePrincipal,
    keepAliveS: number,
  ) => void;
  readonly metrics: BrokerMetrics;
  readonly log: Logger;
}

/**
 * From CONNECT to CONNACK. Identity is settled in `preConnect`, before the engine looks at the client
 * identifier; `authenticate` only speaks the verdict, because only there a return code can be given.
 */
export function createHandshake(
  parts: HandshakeParts,
): Pick<EngineHooks, 'preConnect' | 'authenticate'> {
  const refusals = new WeakMap<EngineClient, ConnectRefusal>();
  const decide: DecideConnect = async (client, packet) => {
    const verdict = await identify(packet, parts.verifyKey);
    if (client.closed) return null;
    if (!verdict.ok) return verdict.refusal;
    if (!rewriteWill(packet, verdict.principal)) return 'will_refused';
    parts.openSession(client, verdict.principal, rewriteConnect(packet, verdict.principal));
    return null;
  };
  return {
    preConnect(rawClient, packet, done) {
      const client = rawClient as EngineClient;
      // Rejects never, as `VerifyKey` promises.
      void decide(client, packet).then((refusal) => {
        if (refusal !== null) {
          refusals.set(client, refusal);
          packet.clientId = 'refused';
          packet.clean = true;
          delete packet.will;
        }
        if (!client.closed) done(null, true);
      });
    },
    authenticate(rawClient, _username, _password, done) {
      const client = rawClient as EngineClient;
      if (client.session !== undefined) {
        done(null, true);
        return;
      }
      const refusal = refusals.get(client) ?? 'key_malformed';
      parts.metrics.refused(refusal);
      parts.log.debug({ refusal }, 'connect refused');
      done(connackError(refusal), false);
    },
  };
}

type DecideConnect = (
  client: EngineClient,
  packet: Parameters<EngineHooks['preConnect']>[1],
) => Promise<ConnectRefusal | null>;
