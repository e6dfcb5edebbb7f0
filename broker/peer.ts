import type { IncomingMessage } from 'node:http';
import { BlockList } from 'node:net';

/** How a connection came in. */
export type Transport = 'tcp' | 'tls' | 'ws';

/** A client certificate that the TLS listener has verified: signed by the CA, in its time, not revoked. */
export interface ClientCertificate {
  /** `organization/device` from the subject's common name. Whether there is such a device is not known yet. */
  readonly identity: string;
  /** SHA-256 of the certificate in DER, lower-case hex. */
  readonly fingerprint: string;
  /** End of its time, in ms since 1970. */
  readonly notAfterMs: number;
}

/** The place of a connection at the {@link Door}; it is given up when the connection closes. */
export interface Entry {
  /** CONNACK 0 has been sent: the connect deadline ends, and the connection is no longer an unknown one. */
  authenticated(): void;
}

/** What is known of the other end of a connection when its first byte is read. */
export interface Peer {
  /** IP address of the client, through configured proxies; IPv4 also when it came mapped into IPv6. */
  readonly address: string;
  readonly transport: Transport;
  /** Null without TLS, without a certificate, or with one that names no device. */
  readonly clientCertificate: ClientCertificate | null;
  /** The upgrade request of a WebSocket. */
  readonly request?: IncomingMessage;
  /** Absent when nobody was asked at the door, as in tests over a pair of streams. */
  readonly entry?: Entry;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** Whether nobody on the way can read what is sent to a peer: TLS, or a connection within this machine. */
export function isPrivate({ transport, address }: Peer): boolean {
  if (transport === 'tls') return true;
  return LOOPBACK.check(address, address.includes(':') ? 'ipv6' : 'ipv4');
}
