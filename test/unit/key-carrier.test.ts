import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { parseBrokerAddress, type BrokerAddress } from '../../registry/keys/broker-address.ts';
import {
  csvCell,
  NVS_NAME_CHARS_MAX,
  nvsCsv,
  qrOf,
  qrSvg,
  qrText,
} from '../../registry/keys/key-carrier.ts';
import { hasProgram } from '../support/programs.ts';

const ADDRESS: BrokerAddress = { host: 'iot.example.com', port: 8883, isEncrypted: true };
const { key } = makeKey('device');
const CREDENTIAL = { address: ADDRESS, user: 'acme/boiler-7', key };

describe('the address of the broker', () => {
  it.each([
    ['mqtts://iot.example.com', { host: 'iot.example.com', port: 8883, isEncrypted: true }],
    ['mqtts://iot.example.com:443', { host: 'iot.example.com', port: 443, isEncrypted: true }],
    ['mqtt://10.0.0.5', { host: '10.0.0.5', port: 1883, isEncrypted: false }],
    ['mqtts://[2001:db8::1]:8884', { host: '2001:db8::1', port: 8884, isEncrypted: true }],
  ])('is read from %s', (url, address) => {
    expect(parseBrokerAddress(url)).toEqual(address);
  });

  it.each([
    '',
    'https://x',
    'mqtts://',
    'mqtts://a:0',
    'mqtts://a:70000',
    'mqtts://u:p@a',
    'mqtts://a/b',
  ])('is none in "%s"', (url) => {
    expect(parseBrokerAddress(url)).toBeNull();
  });
});

describe('the file for nvs_partition_gen', () => {
  it('has the namespace fp with host, user and key', () => {
    expect(nvsCsv(CREDENTIAL)).toBe(
      `key,type,encoding,value
fp,namespace,,
host,data,string,iot.example.com
user,data,string,acme/boiler-7
key,data,string,${key}
`,
    );
  });

  it('tells of another port and of a broker without TLS, with names that ESP-IDF takes', () => {
    const address = { host: '10.0.0.5', port: 1884, isEncrypted: false };
    const rows = parse(nvsCsv({ ...CREDENTIAL, address })) as string[][];
    expect(rows).toContainEqual(['port', 'data', 'u16', '1884']);
    expect(rows).toContainEqual(['tls', 'data', 'u8', '0']);
    for (const [name = '', type, encoding] of rows.slice(1)) {
      expect(name).toMatch(/^[a-z]+$/);
      expect(name.length).toBeLessThanOrEqual(NVS_NAME_CHARS_MAX);
      expect(['namespace', 'data']).toContain(type);
      expect(['', 'string', 'u16', 'u8']).toContain(encoding);
    }
  });

  it('keeps any text in its cell', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 2, maxLength: 4 }), (cells) => {
        expect(parse(`${cells.map(csvCell).join(',')}\n`)).toEqual([cells]);
      }),
      { numRuns: 500 },
    );
  });
});

describe('the QR code', () => {
  it('says where the broker is, who the device is, and its key behind the #', () => {
    expect(qrText(CREDENTIAL)).toBe(`puback:iot.example.com:8883/acme/boiler-7#${key}`);
    const address = { host: '2001:db8::1', port: 1883, isEncrypted: false };
    expect(qrText({ ...CREDENTIAL, address })).toBe(
      `puback+plain:[2001:db8::1]:1883/acme/boiler-7#${key}`,
    );
  });

  it('is not drawn while nobody has said where the broker is', () => {
    expect(() => qrOf(null)).toThrowError('MQTT_PUBLIC_URL');
  });

  it('is an SVG without anything that a browser would run or fetch', async () => {
    const svg = await qrSvg({ ...CREDENTIAL, user: '<script>/"onload=1' });
    expect(svg).toMatch(/^<svg [^>]*>/);
    expect(svg).not.toMatch(/script|onload|href|<image|<!|&/i);
  });

  it.skipIf(!hasProgram('zbarimg', 'reading QR codes back'))(
    'is read back by a scanner as it was written',
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'puback-qr-'));
      try {
        const path = join(folder, 'qr.pgm');
        writeFileSync(path, bitmapOf(await qrSvg(CREDENTIAL)));
        const read = execFileSync('zbarimg', ['--quiet', '--raw', path], {
          encoding: 'utf8',
          stdio: ['ignore', 'pipe', 'ignore'],
        });
        expect(read.trim()).toBe(qrText(CREDENTIAL));
      } finally {
        rmSync(folder, { recursive: true });
      }
    },
  );
});

/** Draws what `qrcode` writes, lines one unit wide, as a PGM picture. */
function bitmapOf(svg: string): Buffer {
  const size = Number(/viewBox="0 0 (\d+) \1"/.exec(svg)?.[1]);
  const [, path = ''] = /stroke="#000000" d="([^"]+)"/.exec(svg) ?? [];
  const dark = new Set<number>();
  let x = 0;
  let y = 0;
  for (const [, step, first = '0', second = '0'] of path.matchAll(
    /([Mmh])\s*(-?[\d.]+)(?:[ ,](-?[\d.]+))?/g,
  )) {
    if (step === 'M') [x, y] = [Number(first), Math.floor(Number(second))];
    else if (step === 'm') [x, y] = [x + Number(first), y + Number(second)];
    else {
      for (let at = x; at < x + Number(first); at += 1) dark.add(y * size + at);
      x += Number(first);
    }
  }
  const scale = 8;
  const pixels = Buffer.alloc(size * scale * size * scale, 255);
  for (const [index] of pixels.entries()) {
    const column = Math.floor((index % (size * scale)) / scale);
    const row = Math.floor(index / (size * scale) / scale);
    if (dark.has(row * size + column)) pixels[index] = 0;
  }
  return Buffer.concat([Buffer.from(`P5 ${size * scale} ${size * scale} 255\n`), pixels]);
}
