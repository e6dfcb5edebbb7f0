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
  /** Rejects never, as `VerifyKey` promises. */
  const answer: AnswerConnect = async (client, packet, done) => {
    const refusal = await decide(client, packet);
    if (client.closed) return;
    if (refusal !== null) {
      refusals.set(client, refusal);
      packet.clientId = 'refused';
      packet.clean = true;
      delete packet.will;
    }
    done(null, true);
  };
  return {
    preConnect: (client, packet, done) => void answer(client as EngineClient, packet, done),
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

type PreConnect = Parameters<EngineHooks['preConnect']>;
type DecideConnect = (
  client: EngineClient,
  packet: PreConnect[1],
) => Promise<ConnectRefusal | null>;
type AnswerConnect = (
  client: EngineClient,
  packet: PreConnect[1],
  done: PreConnect[2],
) => Promise<void>;
