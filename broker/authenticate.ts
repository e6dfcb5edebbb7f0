import type { AuthenticateError } from 'aedes';
import { PACKET_BYTES_MAX } from '../firmware-protocol/contract.ts';
import {
  canonicalTopic,
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
} from '../firmware-protocol/topics.ts';
import type { ConnectFields } from './connect-fields.ts';
import type { Peer } from './peer.ts';
import type {
  ConnectRefusal,
  DevicePrincipal,
  KeyVerdict,
  VerifyCertificate,
  VerifyKey,
} from './principal.ts';

/** Keep alive in seconds: less wears the radio down, more hides a dead connection for too long. */
const KEEP_ALIVE_S_MIN = 15;
const KEEP_ALIVE_S_MAX = 1200;

/** CONNACK return codes [MQTT-3.2.2-4]: firmware backs off on 3, and for a minute or more on 4 and 5. */
const RETURN_CODES: Readonly<Record<ConnectRefusal, number>> = {
  unavailable: 3,
  sessions_max: 3,
  connect_rate: 3,
  client_id_rejected: 2,
  key_malformed: 4,
  identity_mismatch: 4,
  key_unknown: 5,
  key_revoked: 5,
  key_expired: 5,
  device_disabled: 5,
  organization_suspended: 5,
  will_refused: 5,
};

/**
 * Finds out who connects: the key is the password, or the user name of a client without password; a
 * client without either may have a certificate. A user name with a `/` must be a device's own
 * `organization/device`: that catches a board flashed with another board's key.
 */
export async function identify(
  packet: ConnectFields,
  peer: Peer,
  verify: { readonly key: VerifyKey; readonly certificate: VerifyCertificate },
): Promise<KeyVerdict> {
  const username = packet.username ?? '';
  const key = keyOf(packet);
  const certificate = peer.clientCertificate;
  const verdict =
    certificate !== null && !looksLikeKey(key)
      ? await verify.certificate(certificate.identity, certificate.fingerprint)
      : await verify.key(key);
  if (!verdict.ok || verdict.principal.kind !== 'device' || !username.includes('/')) return verdict;
  const { principal } = verdict;
  return username === `${principal.organization}/${principal.device}`
    ? verdict
    : { ok: false, refusal: 'identity_mismatch', principal };
}

/** What a CONNECT gives as key: its password, or its user name when it has none. */
export function keyOf(packet: ConnectFields): string {
  const password = packet.password?.toString('utf8') ?? '';
  return password === '' ? (packet.username ?? '') : password;
}

function looksLikeKey(text: string): boolean {
  return text.startsWith('pb');
}

/** Keep alive that is granted to a device, in seconds, for what it asked for; 0 asks for none. */
export function deviceKeepAlive(askedS: number): number {
  if (askedS === 0) return KEEP_ALIVE_S_MAX;
  return Math.min(KEEP_ALIVE_S_MAX, Math.max(KEEP_ALIVE_S_MIN, askedS));
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
