import { generateKeyPairSync, sign } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { slotPacketBytesMax } from '../../firmware-protocol/command.ts';
import { readRange } from '../../ota/byte-range.ts';
import { LINK_PATH_BYTES, makeLinkPath, readLink } from '../../ota/download-link.ts';
import { readAppDescription } from '../../ota/esp-image.ts';
import { fromBase64, isSignedBy, readPublicKey } from '../../ota/signature.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { espImage } from '../support/esp-image.ts';

describe('a range of an image', () => {
  it.each([
    [null, 'whole'],
    ['bytes=0-', { start: 0, end: 100 }],
    ['bytes=10-19', { start: 10, end: 20 }],
    ['bytes=99-', { start: 99, end: 100 }],
    ['bytes=90-500', { start: 90, end: 100 }],
    ['bytes=-10', { start: 90, end: 100 }],
    ['bytes=-500', { start: 0, end: 100 }],
    ['Bytes = 0-0', { start: 0, end: 1 }],
    ['bytes=100-', 'none'],
    ['bytes=-0', 'none'],
    ['bytes=20-10', 'whole'],
    ['bytes=0-1,5-6', 'whole'],
    ['bytes=-', 'whole'],
    ['lines=0-1', 'whole'],
    ['bytes=a-b', 'whole'],
    ['bytes=99999999999999999999-', 'whole'],
  ] as const)('is read as RFC 9110 has it: %s', (header, asked) => {
    expect(readRange(header, 100)).toEqual(asked);
  });

  it('lies inside of the image whatever is asked for', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), fc.nat({ max: 1000 }), (first, last, bytes) => {
        const asked = readRange(`bytes=${first}-${last}`, bytes);
        if (typeof asked === 'string') return;
        expect(asked.start).toBeGreaterThanOrEqual(0);
        expect(asked.start).toBeLessThan(asked.end);
        expect(asked.end).toBeLessThanOrEqual(bytes);
      }),
    );
  });
});

describe('a link to an image', () => {
  const key = Buffer.alloc(32, 1);
  const partsOf = (path: string): [string, string] => {
    const [, name = '', code = ''] = /^\/fw\/(.*)\?t=(.*)$/.exec(path) ?? [];
    return [name, code];
  };

  it('leads back to the update that it was made for', () => {
    fc.assert(
      fc.property(fc.uuid(), (updateId) => {
        const path = makeLinkPath(key, updateId);
        expect(path.length).toBe(LINK_PATH_BYTES);
        expect(readLink(key, ...partsOf(path))).toBe(updateId);
      }),
    );
  });

  it('holds in no other spelling, and with no other key', () => {
    const [name, code] = partsOf(makeLinkPath(key, makeUuidV7(1)));
    expect(readLink(Buffer.alloc(32, 2), name, code)).toBeNull();
    for (let at = 0; at < 22; at += 1) {
      for (const change of ['A', 'B', 'Q', '_', '=', '\0', 'é']) {
        const swap = (text: string): string => text.slice(0, at) + change + text.slice(at + 1);
        if (swap(name) !== name) expect(readLink(key, swap(name), code)).toBeNull();
        if (swap(code) !== code) expect(readLink(key, name, swap(code))).toBeNull();
      }
    }
    expect(readLink(key, '', '')).toBeNull();
    expect(readLink(key, name, `${code}A`)).toBeNull();
  });

  it('is short enough for a board that takes packets of 256 bytes', () => {
    const url = `https://iot.example.com${makeLinkPath(key, makeUuidV7(1))}`;
    const command = { cmd: 'sys.ota', args: { ver: '1.4.3', url }, exp: 1_795_239_040 };
    expect(slotPacketBytesMax('v1/me/in/cmd', command, 100)).toBe(183);
    const longest = { ...command, args: { ver: 'v'.repeat(31), url } };
    expect(slotPacketBytesMax('v1/me/in/cmd', longest, 100)).toBeLessThanOrEqual(256);
  });
});

describe('an image of ESP-IDF', () => {
  it('says its version and project', () => {
    const image = espImage('1.4.3-rc1', 'thermo-1', 1000);
    expect(readAppDescription(image)).toEqual({ version: '1.4.3-rc1', projectName: 'thermo-1' });
  });

  it('may fill its fields to the last byte', () => {
    const image = espImage('', '', 1000);
    image.fill('v', 48, 80);
    image.fill('p', 80, 112);
    const all = { version: 'v'.repeat(32), projectName: 'p'.repeat(32) };
    expect(readAppDescription(image)).toEqual(all);
  });

  it('is told from anything else', () => {
    expect(readAppDescription(Buffer.alloc(0))).toBeNull();
    expect(readAppDescription(espImage('1', 'a', 1000).subarray(0, 111))).toBeNull();
    expect(readAppDescription(Buffer.from('not an image '.repeat(20)))).toBeNull();
    const other = espImage('1', 'a', 1000);
    other.writeUInt32LE(0, 32);
    expect(readAppDescription(other)).toBeNull();
  });
});

describe('the signature of an image', () => {
  const pair = generateKeyPairSync('ed25519');
  const pem = pair.publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const raw = Buffer.from(pair.publicKey.export({ format: 'jwk' }).x ?? '', 'base64url');

  it('is checked with a key in PEM or in base64', async () => {
    expect(readPublicKey(pem)).toEqual(raw);
    expect(readPublicKey(` ${raw.toString('base64')}\n`)).toEqual(raw);
    const image = espImage('1', 'a', 5000);
    const signature = sign(null, image, pair.privateKey);
    expect(await isSignedBy(raw, image, signature)).toBe(true);
    expect(await isSignedBy(raw, image.subarray(1), signature)).toBe(false);
    expect(await isSignedBy(raw, image, signature.subarray(1))).toBe(false);
  });

  it('is not believed of a key that everybody can sign with', () => {
    const identity = Buffer.alloc(32);
    identity[0] = 1;
    const orders = [Buffer.alloc(32), identity];
    for (const weak of orders) {
      expect(() => readPublicKey(weak.toString('base64'))).toThrow('everybody');
    }
  });

  it('refuses a private key, another kind of key, and what is none', () => {
    const secret = pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    expect(() => readPublicKey(secret)).toThrow('private key');
    const rsa = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey;
    const other = rsa.export({ type: 'spki', format: 'pem' }).toString();
    for (const text of [other, 'no key', '', 'AAAA', pem.slice(0, 60)]) {
      expect(() => readPublicKey(text)).toThrow('must be an Ed25519 public key');
    }
  });

  it('may be spelled with either alphabet of base64, and with the spaces that a query makes', () => {
    const bytes = Buffer.from('fbefbefbef3e', 'hex');
    for (const text of ['--_vvvvvPg', '++/vvvvvPg==', '  /vvvvvPg==']) {
      expect(fromBase64(text)).toHaveLength(7);
    }
    expect(fromBase64(bytes.toString('base64'))).toEqual(bytes);
    expect(fromBase64('a*b')).toBeNull();
  });
});
