import type { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import { DEVICE_NAME, ORGANIZATION_NAME } from '../../firmware-protocol/contract.ts';
import type { ClientCertificate } from '../peer.ts';

/**
 * The certificate that a client has shown in a handshake with verification, and without a rejection of what
 * does not pass it.
 * @returns null when it has shown none, or a valid one whose subject has not one common name of the form
 * `organization/device`; `refused` when it is not valid. A resumed session has the verdict of its first
 * handshake, so the time is looked at again.
 */
export function readClientCertificate(
  socket: TLSSocket,
  nowMs: number = Date.now(),
): ClientCertificate | 'refused' | null {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return null;
  const notAfterMs = Date.parse(certificate.validTo);
  if (!socket.authorized || !(notAfterMs > nowMs)) return 'refused';
  const identity = commonName(certificate);
  if (identity === null || !isIdentity(identity)) return null;
  const fingerprint = certificate.fingerprint256.replaceAll(':', '').toLowerCase();
  return { identity, fingerprint, notAfterMs };
}

function isIdentity(name: string): boolean {
  const [organization = '', device = '', ...more] = name.split('/');
  return ORGANIZATION_NAME.test(organization) && DEVICE_NAME.test(device) && more.length === 0;
}

/** Null for none or several. X.509 allows it 64 characters. */
function commonName(certificate: X509Certificate): string | null {
  const name: unknown = certificate.toLegacyObject().subject?.CN;
  return typeof name === 'string' ? name : null;
}
