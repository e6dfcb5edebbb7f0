import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CanonicalPayload } from '../../firmware-protocol/canonical.ts';
import {
  decodeData,
  decodeScalar,
  isRefusal,
  type Point,
} from '../../firmware-protocol/telemetry.ts';

const TIME_MICROS = 1_795_235_431_857_000;

/** The canonical JSON of what a device sent, each sample under a time of its own. */
function canonicalOf(payload: string, metric?: string): string | undefined {
  const bytes = Buffer.from(payload);
  const decoded = metric === undefined ? decodeData(bytes) : decodeScalar(metric, bytes);
  if (isRefusal(decoded)) throw new Error(decoded.detail);
  const canonical = new CanonicalPayload();
  for (const [index, sample] of decoded.samples.entries()) {
    canonical.add(TIME_MICROS + index * 1_000_000, sample);
  }
  return canonical.end()?.toString('utf8');
}

const pointArbitrary: fc.Arbitrary<Omit<Point, 'metric'>> = fc.oneof(
  fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .map((value) => ({ kind: 'number' as const, value, text: null })),
  fc.boolean().map((is) => ({ kind: 'bool' as const, value: is ? 1 : 0, text: null })),
  fc
    .string({ unit: 'binary', maxLength: 40 })
    .map((text) => ({ kind: 'text' as const, value: null, text })),
);
const sampleArbitrary = fc.record({
  timeMicros: fc.integer({ min: 1_577_836_800_000_000, max: 4_102_444_800_000_000 }),
  seq: fc.option(fc.maxSafeNat(), { nil: null }),
  points: fc.dictionary(fc.stringMatching(/^[A-Za-z][A-Za-z0-9_.-]{0,12}$/), pointArbitrary, {
    maxKeys: 6,
    noNullPrototype: true,
  }),
});

describe('CanonicalPayload', () => {
  it('is, parsed, what a naive model builds', () => {
    fc.assert(
      fc.property(fc.array(sampleArbitrary, { maxLength: 5 }), (samples) => {
        const canonical = new CanonicalPayload();
        const model: Record<string, unknown>[] = [];
        for (const { timeMicros, seq, points } of samples) {
          const named = Object.entries(points).map(([metric, point]) => ({ metric, ...point }));
          const base = { tsMicros: null, ageMs: null, upMs: null, isContinued: false, fromLast: 0 };
          canonical.add(timeMicros, { ...base, seq, points: named });
          if (named.length === 0) continue;
          const members = named.map(({ metric, kind, value, text }) => [
            metric,
            kind === 'text' ? text : kind === 'bool' ? value === 1 : value,
          ]);
          const stamps = { ts: Math.trunc(timeMicros / 1000), ...(seq === null ? {} : { seq }) };
          model.push({ ...stamps, ...(Object.fromEntries(members) as object) });
        }
        const bytes = canonical.end();
        const expected = model.length === 0 ? null : model.length === 1 ? model[0] : model;
        // Through JSON once more: it knows no minus zero.
        const plain: unknown = JSON.parse(JSON.stringify(expected));
        expect(bytes === null ? null : JSON.parse(bytes.toString('utf8'))).toEqual(plain);
      }),
    );
  });

  it('shows one sample as an object and several as an array', () => {
    expect(canonicalOf('{"temp":21.5}')).toBe('{"ts":1795235431857,"temp":21.5}');
    expect(canonicalOf('[{"temp":1},{"temp":2}]')).toBe(
      '[{"ts":1795235431857,"temp":1},{"ts":1795235432857,"temp":2}]',
    );
  });

  it('shows a scalar under the metric of its topic', () => {
    expect(canonicalOf('21.5', 'temp')).toBe('{"ts":1795235431857,"temp":21.5}');
    expect(canonicalOf('true', 'ok')).toBe('{"ts":1795235431857,"ok":true}');
    expect(canonicalOf('a "b"', 'door')).toBe('{"ts":1795235431857,"door":"a \\"b\\""}');
  });

  it('flattens groups, passes seq on and leaves missing values out', () => {
    expect(canonicalOf('{"seq":7,"bme":{"t":21},"rh":null,"x":nan}')).toBe(
      '{"ts":1795235431857,"seq":7,"bme.t":21}',
    );
    expect(canonicalOf('{"seq":7,"dt":1000,"temp":[1,null,3]}')).toBe(
      '[{"ts":1795235431857,"seq":7,"temp":1},{"ts":1795235433857,"seq":7,"temp":3}]',
    );
  });

  it('is nothing where no sample has a value', () => {
    expect(canonicalOf('{"temp":null}')).toBeUndefined();
    expect(canonicalOf('[]')).toBeUndefined();
  });

  it('rounds microseconds down to whole milliseconds', () => {
    const canonical = new CanonicalPayload();
    const decoded = decodeData(Buffer.from('{"temp":1}'));
    if (isRefusal(decoded) || decoded.samples[0] === undefined) throw new Error('no sample');
    canonical.add(TIME_MICROS + 999, decoded.samples[0]);
    expect(canonical.end()?.toString()).toBe('{"ts":1795235431857,"temp":1}');
  });
});
