import type { Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  PROXY_HEADER_BYTES_MAX,
  readProxyHeader,
  takeProxyHeader,
} from '../../broker/gate/proxy-protocol.ts';
import { TrustedProxies } from '../../broker/gate/trusted-proxies.ts';
import { proxyHeader } from '../support/proxy-header.ts';

const IPV6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42];
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 9];

describe('a PROXY header of version 2', () => {
  it.each([
    ['of TCP over IPv4', proxyHeader(), '192.0.2.7'],
    ['of TCP over IPv6', proxyHeader({ family: 2, source: IPV6 }), '2001:db8::42'],
    ['of IPv4 mapped into IPv6', proxyHeader({ family: 2, source: MAPPED }), '192.0.2.9'],
    ['with TLVs', proxyHeader({ rest: Buffer.from([4, 0, 3, 1, 2, 3]) }), '192.0.2.7'],
    ['of a health check (LOCAL)', proxyHeader({ command: 0 }), null],
    ['LOCAL without addresses', proxyHeader({ command: 0, family: 0, source: [] }), null],
    ['of an unknown family', proxyHeader({ family: 0, transport: 0 }), null],
    ['of a UNIX socket', proxyHeader({ family: 3, source: Array(106).fill(65) }), null],
  ])('%s is read', (_name, bytes, address) => {
    const header = readProxyHeader(Buffer.concat([bytes, Buffer.from('rest')]));
    expect(header).toEqual({ state: 'complete', bytes: bytes.length, address });
  });

  it.each([
    ['version 1', Buffer.from('PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n')],
    ['a CONNECT', Buffer.from([0x10, 12, 0, 4])],
    ['a TLS record', Buffer.from([0x16, 3, 1])],
    ['another version', Buffer.concat([proxyHeader().subarray(0, 12), Buffer.from([0x11])])],
    ['another command', proxyHeader({ command: 2 })],
    ['another family', proxyHeader({ family: 4 })],
    ['another transport', proxyHeader({ transport: 3 })],
    ['an address block that is too short', proxyHeader({ length: 11 }).subarray(0, 16)],
    ['more than the bound', proxyHeader({ length: PROXY_HEADER_BYTES_MAX - 15 })],
  ])('%s is none', (_name, bytes) => {
    expect(readProxyHeader(bytes)).toEqual({ state: 'invalid' });
  });

  it('of the longest kind is read', () => {
    const bytes = proxyHeader({ rest: Buffer.alloc(PROXY_HEADER_BYTES_MAX - 28) });
    expect(readProxyHeader(bytes)).toMatchObject({ state: 'complete', bytes: 536 });
  });

  it('any beginning of one is incomplete', () => {
    const bytes = proxyHeader({ rest: Buffer.alloc(40) });
    for (let length = 0; length < bytes.length; length += 1) {
      expect(readProxyHeader(bytes.subarray(0, length))).toEqual({ state: 'incomplete' });
    }
  });

  it('is taken off a stream that is cut anywhere, and what follows stays whole (N-13)', async () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(cuts, fc.uint8Array({ maxLength: 100 }), async (sizes, after) => {
        const header = proxyHeader({ rest: Buffer.alloc(20, 1) });
        const whole = Buffer.concat([header, after]);
        const stream = new PassThrough();
        const taken = new Promise<{ address: string | null } | null>((resolve) => {
          takeProxyHeader(stream as unknown as Socket, resolve);
        });
        let at = 0;
        for (let turn = 0; at < whole.length; turn += 1) {
          const size = sizes[turn % sizes.length] ?? 1;
          stream.write(whole.subarray(at, at + size));
          at += size;
          await new Promise(setImmediate);
        }
        stream.end();
        expect(await taken).toEqual({ address: '192.0.2.7' });
        const rest: Buffer[] = [];
        for await (const chunk of stream) rest.push(chunk as Buffer);
        expect(Buffer.concat(rest).equals(Buffer.from(after))).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it('any bytes end in a verdict without a throw', () => {
    const start = fc.constantFrom(Buffer.alloc(0), proxyHeader().subarray(0, 12));
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 600 }), (head, tail) => {
        const bytes = Buffer.concat([head, tail]);
        const header = readProxyHeader(bytes);
        if (header.state === 'complete') expect(header.bytes).toBeLessThanOrEqual(bytes.length);
        if (header.state === 'incomplete') expect(bytes.length).toBeLessThan(536);
      }),
    );
  });
});

describe('X-Forwarded-For (N-14)', () => {
  const proxies = new TrustedProxies('10.0.0.0/8, 192.0.2.1 fd00::/8');
  const clientOf = (peer: string, forwarded?: string | string[]) =>
    proxies.clientOf({
      socket: { remoteAddress: peer } as Socket,
      headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded as string },
    });

  it('is ignored unless the peer is a configured proxy', () => {
    expect(clientOf('203.0.113.5', '198.51.100.1')).toBe('203.0.113.5');
    expect(clientOf('::ffff:203.0.113.5', '198.51.100.1')).toBe('203.0.113.5');
    const none = new TrustedProxies('');
    const request = {
      socket: { remoteAddress: '127.0.0.1' } as Socket,
      headers: { 'x-forwarded-for': '198.51.100.1' },
    };
    expect(none.clientOf(request)).toBe('127.0.0.1');
    expect(none.isEmpty).toBe(true);
  });

  it('gives the last address that is not a proxy; what a client put before it is not believed', () => {
    expect(clientOf('10.1.1.1', '198.51.100.1')).toBe('198.51.100.1');
    expect(clientOf('::ffff:10.1.1.1', '6.6.6.6, 198.51.100.1, 10.2.2.2')).toBe('198.51.100.1');
    expect(clientOf('192.0.2.1', ['6.6.6.6', '198.51.100.1'])).toBe('198.51.100.1');
    expect(clientOf('fd00::1', '[2001:db8::1]:4711')).toBe('2001:db8::1');
    expect(clientOf('10.1.1.1', '198.51.100.1:4711')).toBe('198.51.100.1');
  });

  it('that is no address leaves the proxy as the client', () => {
    expect(clientOf('10.1.1.1')).toBe('10.1.1.1');
    expect(clientOf('10.1.1.1', '198.51.100.1, unknown')).toBe('10.1.1.1');
    expect(clientOf('10.1.1.1', '')).toBe('10.1.1.1');
  });
});
