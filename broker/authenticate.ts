import type { AuthenticateError, ConnectPacket } from 'aedes';
import { PACKET_BYTES_MAX } from '../firmware-protocol/contract.ts';
import {
  canonicalTopic,
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
} from '../firmware-protocol/topics.ts';
import type { ConnectRefusal, DevicePrincipal, KeyVerdict, VerifyKey } from './principal.ts';

/** Keep alive in seconds: less wears the radio down, more hides a dead connection for too long. */
const KEEP_ALIVE_S_MIN = 15;
const KEEP_ALIVE_S_MAX = 1200;

/** CONNACK return codes [MQTT-3.2.2-3]: firmware backs off on 3, and for a minute or more on 4 and 5. */
const RETURN_CODES: Readonly<Record<ConnectRefusal, number>> = {
  unavailable: 3,
  key_malformed: 4,
  identity_mismatch: 4,
  key_unknown: 5,
  key_revoked: 5,
  device_disabled: 5,
  organization_suspended: 5,
  will_refused: 5,
};

/** The parts of a CONNECT that the broker decides on and rewrites. */
export type ConnectFields = Pick<
  ConnectPacket,
  'clientId' | 'clean' | 'keepalive' | 'username' | 'password' | 'will'
>;

/**
 * Finds out who connects: the key is the password, or the user name of a client without password. A
 * user name with a `/` must be the key's own `organization/device`: that catches a board flashed with
 * another board's key.
 */
export async function identify(packet: ConnectFields, verifyKey: VerifyKey): Promise<KeyVerdict> {
  const username = packet.username ?? '';
  const password = packet.password?.toString('utf8') ?? '';
  const verdict = await verifyKey(password === '' ? username : password);
  if (!verdict.ok || password === '' || !username.includes('/')) return verdict;
  const { organization, device } = verdict.principal;
  return username === `${organization}/${device}`
    ? verdict
    : { ok: false, refusal: 'identity_mismatch' };
}

/**
 * Rewrites a CONNECT to what the device gets: a client identifier made from its identity, so that none
 * can take another's place; a clean session; keep alive within bounds. @returns keep alive in seconds.
 */
export function rewriteConnect(packet: ConnectFields, principal: DevicePrincipal): number {
  packet.clientId = `d:${principal.organization}/${principal.device}`;
  packet.clean = true;
  const asked = packet.keepalive ?? 0;
  // The engine keeps no clock: it does not see the packets that the framer answers.
  packet.keepalive = 0;
  if (asked === 0) return KEEP_ALIVE_S_MAX;
  return Math.min(KEEP_ALIVE_S_MAX, Math.max(KEEP_ALIVE_S_MIN, asked));
}

/**
 * Checks and rewrites the will. (8) It is checked now, because when it is published nobody can be told.
 * @returns false when its topic is not one that the device may publish to.
 */
export function rewriteWill(packet: ConnectFields, principal: DevicePrincipal): boolean {
  const will = packet.will;
  if (will === undefined) return true;
  if (topicNameFault(will.topic) !== null) return false;
  if (will.payload.length > PACKET_BYTES_MAX) return false;
  const topic = readUplinkTopic(will.topic, principal);
  if (isTopicRefusal(topic)) return false;
  const rest = topic.channel === 'scalar' ? `data/${topic.name}` : topic.channel;
  will.topic = canonicalTopic(principal, topic.channel === 'event' ? `event/${topic.name}` : rest);
  will.retain = false;
  return true;
}

/** The error that makes the engine answer a CONNECT with the return code of a refusal. */
export function connackError(refusal: ConnectRefusal): AuthenticateError {
  const error = new Error(`CONNECT refused: ${refusal}`) as AuthenticateError;
  error.returnCode = RETURN_CODES[refusal];
  return error;
}
