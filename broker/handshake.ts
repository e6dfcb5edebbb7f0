import { setTimeout as delay } from 'node:timers/promises';
import { connackError } from './authenticate.ts';
import { ignoreOutcome, type EngineClient, type EngineHooks } from './engine.ts';
import type { BrokerMetrics } from './metrics.ts';
import type { Peer } from './peer.ts';
import type { Admission, Policy } from './policy.ts';
import type { ConnectRefusal } from './principal.ts';
import type { SessionStore } from './store/session-store.ts';
import { reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';

/** What the handshake asks of the broker. */
export interface HandshakeParts {
  readonly policy: Policy;
  readonly store: SessionStore;
  readonly peerOf: (client: EngineClient) => Peer;
  /** Tells that CONNACK is to say "session present". */
  readonly markPresent: (clientId: string) => void;
  /** Makes the session of a client that is let in; CONNACK follows. */
  readonly openSession: (
    client: EngineClient,
    admission: Admission & { ok: true },
    namedClientId: string,
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
  /** Rejects never, as `Policy.admit` promises. */
  const answer: AnswerConnect = async (client, packet, done) => {
    const refusal = await decide(parts, client, packet);
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

async function decide(
  parts: HandshakeParts,
  client: EngineClient,
  packet: PreConnect[1],
): Promise<ConnectRefusal | null> {
  const namedClientId = packet.clientId;
  // [MQTT-3.1.3-8] The engine would make one up.
  if (namedClientId === '' && packet.clean !== true) return 'client_id_rejected';
  const admission = await parts.policy.admit(packet, parts.peerOf(client));
  if (client.closed) return null;
  if (!admission.ok) {
    if (admission.delayMs > 0) await delay(admission.delayMs);
    return admission.refusal;
  }
  const { access } = admission;
  packet.clientId = access.clientId;
  packet.clean = access.isClean;
  // The engine keeps no clock: it does not see the packets that the framer answers.
  packet.keepalive = 0;
  // Before anything is waited for: a revocation that comes meanwhile must find it.
  parts.openSession(client, admission, namedClientId);
  const refusal = access.isClean ? null : await keepSession(parts, access.clientId);
  if (refusal !== null) delete client.session;
  return refusal;
}

/** Makes the persistent session, or finds it. @returns why it cannot be. */
async function keepSession(
  { store, markPresent, log }: HandshakeParts,
  clientId: string,
): Promise<ConnectRefusal | null> {
  const isPresent = store.hasSession(clientId);
  try {
    if (!(await store.openSession(clientId))) return 'sessions_max';
  } catch (err) {
    log.warn({ err: reasonOf(err) }, 'session not stored');
    // What is not on disk is still in memory; nobody uses it.
    if (!isPresent) store.dropSession(clientId).catch(ignoreOutcome);
    return 'unavailable';
  }
  if (isPresent) markPresent(clientId);
  return null;
}

type PreConnect = Parameters<EngineHooks['preConnect']>;
type AnswerConnect = (
  client: EngineClient,
  packet: PreConnect[1],
  done: PreConnect[2],
) => Promise<void>;
