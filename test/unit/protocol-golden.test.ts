import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { CanonicalPayload } from '../../firmware-protocol/canonical.ts';
import { canonicalEvent, decodeEvent } from '../../firmware-protocol/event.ts';
import { canonicalLog, decodeLog } from '../../firmware-protocol/log-entry.ts';
import { decodeSenml } from '../../firmware-protocol/senml.ts';
import {
  decodeData,
  decodeScalar,
  isRefusal,
  type Decoded,
  type Refusal,
} from '../../firmware-protocol/telemetry.ts';
import { newestTimes, NO_BASIS, resolveTime } from '../../firmware-protocol/time.ts';

interface GoldenCase {
  readonly what: string;
  readonly channel: 'data' | 'scalar' | 'senml' | 'event' | 'log';
  readonly name?: string;
  readonly text?: string;
  readonly hex?: string;
  readonly shown?: unknown;
  readonly refused?: string;
  readonly units?: Readonly<Record<string, string>>;
}

/** In the middle of the millisecond that the cases speak of. */
const RECEIVED_MICROS = 1_795_235_431_857_500;
const LIMITS = { ageMaxMs: 30 * 86_400_000, aheadMaxMs: 300_000 };
const FOLDER = fileURLToPath(new URL('../../firmware-protocol/golden/', import.meta.url));
const FILES = [
  'data-cbor.json',
  'data-json.json',
  'event.json',
  'log.json',
  'scalar.json',
  'senml-cbor.json',
  'senml-json.json',
];

function decode({ channel, name = '', text = '', hex }: GoldenCase): Decoded | Refusal {
  const payload = hex === undefined ? Buffer.from(text) : Buffer.from(hex, 'hex');
  switch (channel) {
    case 'data':
      return decodeData(payload);
    case 'scalar':
      return decodeScalar(name, payload);
    case 'senml':
      return decodeSenml(payload);
    case 'event':
      return decodeEvent(name, payload);
    case 'log':
      return decodeLog(payload);
  }
}

function shownOf({ samples, occurrence }: Decoded): string | null {
  const newest = newestTimes(samples);
  const arrival = { receivedMicros: RECEIVED_MICROS, basis: NO_BASIS, newest };
  const times = samples.map((sample) => {
    const resolved = resolveTime(sample, arrival, LIMITS);
    if (resolved === 'too_old') throw new Error('too old');
    return resolved.timeMicros;
  });
  if (occurrence?.kind === 'event') {
    return canonicalEvent(times[0] ?? 0, samples[0]?.seq ?? null, occurrence.content).toString();
  }
  if (occurrence?.kind === 'log') return canonicalLog(times, occurrence.lines)?.toString() ?? null;
  const canonical = new CanonicalPayload();
  for (const [index, sample] of samples.entries()) canonical.add(times[index] ?? 0, sample);
  return canonical.end()?.toString() ?? null;
}

describe.each(FILES)('the golden payloads of %s', (file) => {
  const cases = JSON.parse(readFileSync(FOLDER + file, 'utf8')) as GoldenCase[];

  it.each(cases.map((golden) => [golden.what, golden] as const))('hold: %s', (_, golden) => {
    const decoded = decode(golden);
    if (isRefusal(decoded)) {
      expect(decoded.code, decoded.detail).toBe(golden.refused);
      return;
    }
    expect(golden.refused).toBeUndefined();
    expect(shownOf(decoded)).toBe(golden.shown === null ? null : JSON.stringify(golden.shown));
    const units = Object.fromEntries(decoded.units ?? []);
    expect(units).toEqual(golden.units ?? {});
  });
});

it('covers every form of payload, with what is exchanged besides telemetry', () => {
  const exchanged = [
    'ack.json',
    'configuration.json',
    'downlink.json',
    'hello.json',
    'integrator.json',
    'key-request.json',
  ];
  const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));
  expect(files.toSorted()).toEqual([...FILES, ...exchanged].toSorted());
});
