import type { Socket } from 'node:net';
import { SocketAddress } from 'node:net';
import { plainAddress } from './address-group.ts';

/** What starts every header of version 2; no MQTT packet and no TLS record starts so. */
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');
const FIXED_BYTES = 16;
/** Largest header that is read: addresses of the longest kind (216 bytes) and as much again of TLVs. */
export const PROXY_HEADER_BYTES_MAX = 536;
const ADDRESS_BYTES = { 1: 12, 2: 36, 3: 216 } as const;
const STREAM = 1;

/** What the start of a proxied connection says. */
export type ProxyHeader =
  | { readonly state: 'incomplete' }
  | { readonly state: 'invalid' }
  | {
      readonly state: 'complete';
      /** Bytes of the header; what follows is the client's. */
      readonly bytes: number;
      /** Null when the proxy speaks for itself (LOCAL), or does not know where the client is. */
      readonly address: string | null;
    };

/**
 * Reads a PROXY protocol header of version 2 from the start of a stream. Version 1, a header of more than
 * {@link PROXY_HEADER_BYTES_MAX} bytes and anything else is invalid, and that shows with the first byte that
 * is wrong. Port, destination and TLVs are skipped.
 */
export function readProxyHeader(bytes: Buffer): ProxyHeader {
  const known = Math.min(bytes.length, SIGNATURE.length);
  if (bytes.compare(SIGNATURE, 0, known, 0, known) !== 0) return { state: 'invalid' };
  const versionAndCommand = bytes[12];
  if (versionAndCommand === undefined) return { state: 'incomplete' };
  if (versionAndCommand !== 0x20 && versionAndCommand !== 0x21) return { state: 'invalid' };
  if (bytes.length < FIXED_BYTES) return { state: 'incomplete' };
  const family = (bytes[13] as number) >> 4;
  const transport = (bytes[13] as number) & 0x0f;
  const length = FIXED_BYTES + bytes.readUInt16BE(14);
  if (length > PROXY_HEADER_BYTES_MAX) return { state: 'invalid' };
  const isLocal = versionAndCommand === 0x20;
  if (!isLocal && !isAddressBlock(family, transport, length)) return { state: 'invalid' };
  if (bytes.length < length) return { state: 'incomplete' };
  const address = isLocal || transport !== STREAM ? null : readAddress(family, bytes);
  return { state: 'complete', bytes: length, address };
}

/**
 * Reads the header off a socket and leaves what follows to the next reader. `done` is called once, unless
 * the socket closes first: null for an invalid header.
 */
export function takeProxyHeader(
  socket: Socket,
  done: (header: { readonly address: string | null } | null) => void,
): void {
  let seen: Buffer = Buffer.alloc(0);
  const onReadable = (): void => {
    for (;;) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      const header = readProxyHeader(seen);
      if (header.state === 'incomplete') continue;
      socket.off('readable', onReadable);
      if (header.state === 'invalid') {
        done(null);
        return;
      }
      if (seen.length > header.bytes) socket.unshift(seen.subarray(header.bytes));
      done({ address: header.address });
      return;
    }
  };
  socket.on('readable', onReadable);
}

function isAddressBlock(family: number, transport: number, length: number): boolean {
  if (transport > 2) return false;
  if (family === 0) return true;
  const wanted = ADDRESS_BYTES[family as 1 | 2 | 3] as number | undefined;
  return wanted !== undefined && length >= FIXED_BYTES + wanted;
}

function readAddress(family: number, bytes: Buffer): string | null {
  if (family === 1) return bytes.subarray(16, 20).join('.');
  if (family !== 2) return null;
  const groups = Array.from({ length: 8 }, (_, index) =>
    bytes.readUInt16BE(FIXED_BYTES + 2 * index).toString(16),
  );
  const { address } = new SocketAddress({ address: groups.join(':'), family: 'ipv6' });
  return plainAddress(address);
}
