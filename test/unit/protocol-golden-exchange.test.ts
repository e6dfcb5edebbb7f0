import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeAck } from '../../firmware-protocol/ack.ts';
import { encodeSlotCommand } from '../../firmware-protocol/command.ts';
import {
  decodeConfigurationReport,
  encodeDesiredConfiguration,
} from '../../firmware-protocol/configuration.ts';
import { Refusal, REFUSAL_CODES } from '../../firmware-protocol/contract.ts';
import { decodeHello } from '../../firmware-protocol/hello.ts';
import { decodeKeyRequest } from '../../firmware-protocol/key-request.ts';
import { parseKey } from '../../firmware-protocol/keys.ts';
import { decodeStatus, encodeStatus } from '../../broker/presence/status.ts';

interface GoldenCase {
  readonly what: string;
  readonly channel: string;
  readonly text: string;
  readonly read?: unknown;
  readonly refused?: string;
}

const DECODERS: Readonly<Record<string, (payload: Buffer) => object>> = {
  hello: decodeHello,
  ack: decodeAck,
  cfg: decodeConfigurationReport,
  key: decodeKeyRequest,
};

function golden(file: string): [string, GoldenCase][] {
  const path = fileURLToPath(new URL(`../../firmware-protocol/golden/${file}`, import.meta.url));
  const cases = JSON.parse(readFileSync(path, 'utf8')) as GoldenCase[];
  return cases.map((one) => [one.what, one]);
}

describe.each(['hello.json', 'ack.json', 'configuration.json', 'key-request.json'])(
  'the golden payloads of %s',
  (file) => {
    it.each(golden(file))('are read: %s', (_, { channel, text, read, refused }) => {
      const outcome = DECODERS[channel]?.(Buffer.from(text));
      if (outcome instanceof Refusal) {
        expect(outcome.code, outcome.detail).toBe(refused);
        return;
      }
      expect(refused).toBeUndefined();
      expect(JSON.parse(JSON.stringify(outcome))).toEqual(read);
    });
  },
);

describe('the golden payloads of downlink.json', () => {
  it.each(golden('downlink.json'))('are what the broker writes: %s', (_, one) => {
    const { channel, text, read } = one;
    if (text === '') expect(read).toBeNull();
    else if (channel === 'in/cmd') {
      expect(encodeSlotCommand(read as never).toString()).toBe(text);
    } else if (channel === 'in/cfg') {
      const { v, cfg } = read as { v: number; cfg: object };
      expect(encodeDesiredConfiguration(v, cfg).toString()).toBe(text);
    } else expect(JSON.parse(text)).toEqual(read);
  });

  it('hold a key whose checksum is right', () => {
    const keys = golden('downlink.json').flatMap(([, { text }]) => /pbd_\w+/.exec(text)?.[0] ?? []);
    expect(keys).toHaveLength(1);
    expect(parseKey(keys[0] ?? '')).toMatchObject({ kind: 'device' });
  });
});

it('the golden payloads of status are what presence reads and writes', () => {
  for (const [, { channel, text }] of golden('integrator.json')) {
    if (channel !== 'status') continue;
    const presence = decodeStatus(Buffer.from(text));
    expect(presence && encodeStatus(presence).toString()).toBe(text);
  }
});

describe('decoders of what devices say', () => {
  const mangled = Object.entries(DECODERS).flatMap(([channel]) =>
    ['hello.json', 'ack.json', 'configuration.json', 'key-request.json']
      .flatMap(golden)
      .filter(([, one]) => one.channel === channel)
      .map(([, { text }]) => text),
  );
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.json({ depthSize: 'medium' }).map((json) => Buffer.from(json)),
    fc.constantFrom(...mangled).map((text) => Buffer.from(text)),
    fc
      .record({ text: fc.constantFrom(...mangled), at: fc.nat(), byte: fc.nat(255) })
      .map(({ text, at, byte }) => {
        const changed = Buffer.from(text === '' ? '{}' : text);
        changed[at % changed.length] = byte;
        return changed;
      }),
  );

  it.each(Object.keys(DECODERS))('of %s throw at no bytes, and refuse with a code', (channel) => {
    fc.assert(
      fc.property(bytes, (payload) => {
        const outcome = DECODERS[channel]?.(Buffer.from(payload));
        expect(outcome).toBeTypeOf('object');
        if (outcome instanceof Refusal) expect(REFUSAL_CODES).toContain(outcome.code);
        // What was read is read again the same, so that it can be stored as JSON.
        else {
          const again = DECODERS[channel]?.(Buffer.from(JSON.stringify(outcome)));
          expect(JSON.stringify(again)).toBe(JSON.stringify(outcome));
        }
      }),
      { numRuns: 400 },
    );
  });
});

describe('what devices say in members of any JSON', () => {
  const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);

  it('nests 8 levels at most, whatever its size', () => {
    const deep = (levels: number) => Buffer.from(`{"v":1,"ok":true,"cfg":{"a":${nested(levels)}}}`);
    expect(decodeConfigurationReport(deep(6))).toMatchObject({ v: 1 });
    for (const levels of [7, 1900, 3900]) {
      expect(decodeConfigurationReport(deep(levels))).toMatchObject({ code: 'too_deep' });
    }
    const result = Buffer.from(`{"id":1,"st":"ok","r":${nested(900)}}`);
    expect(decodeAck(result)).toMatchObject({ code: 'too_deep' });
  });

  it('has no U+0000 and no half of a surrogate pair, which jsonb cannot hold', () => {
    for (const text of ['\\u0000', '\\ud800']) {
      for (const r of [`{"a":["${text}"]}`, `{"${text}":1}`]) {
        const ack = Buffer.from(`{"id":1,"st":"ok","r":${r}}`);
        expect(decodeAck(ack)).toMatchObject({ code: 'bad_type' });
        const report = Buffer.from(`{"v":1,"ok":true,"cfg":{"a":${r}}}`);
        expect(decodeConfigurationReport(report)).toMatchObject({ code: 'bad_type' });
      }
    }
  });

  it('as a single text of a result is cleaned by nobody, and so refused too', () => {
    const ack = Buffer.from('{"id":1,"st":"ok","r":"\\u0000"}');
    expect(decodeAck(ack)).toMatchObject({ code: 'bad_type' });
  });
});
