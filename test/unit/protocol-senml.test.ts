import { encode } from 'cborg';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeSenml } from '../../firmware-protocol/senml.ts';
import { isRefusal, type Decoded, type Refusal } from '../../firmware-protocol/telemetry.ts';
import { mutated } from '../support/mutated-bytes.ts';
import { referenceSenml } from '../support/reference-senml.ts';
import { slowness } from '../support/slowness.ts';

const LABELS: Readonly<Record<string, number>> = {
  ...{ bver: -1, bn: -2, bt: -3, bu: -4, bv: -5, bs: -6 },
  ...{ n: 0, u: 1, v: 2, vs: 3, vb: 4, s: 5, t: 6, ut: 7, vd: 8 },
};

function json(pack: unknown): Buffer {
  return Buffer.from(typeof pack === 'string' ? pack : JSON.stringify(pack));
}
/** The pack with integer keys, as RFC 8428 wants it. */
function cbor(pack: readonly object[]): Buffer {
  const records = pack.map((record) => {
    const entries = Object.entries(record).map(([key, value]) => [LABELS[key] ?? key, value]);
    return new Map(entries as [unknown, unknown][]);
  });
  return Buffer.from(encode(records));
}
function accepted(outcome: Decoded | Refusal): Decoded {
  if (isRefusal(outcome)) throw new Error(`refused: ${outcome.code} ${outcome.detail}`);
  return outcome;
}
/** One string for each sample: its time, metrics and values. */
function lines(outcome: Decoded | Refusal): string[] {
  return accepted(outcome).samples.map(({ tsMicros, ageMs, points }) => {
    const time = tsMicros === null ? (ageMs === null ? 'now' : `-${ageMs}`) : `${tsMicros}`;
    return [time, ...points.map((p) => `${p.metric}=${p.text ?? p.value}`)].join(' ');
  });
}
function codeOf(outcome: Decoded | Refusal): string {
  return isRefusal(outcome) ? outcome.code : 'accepted';
}

describe('a SenML pack', () => {
  it('is read with its base fields, in JSON and in CBOR', () => {
    const pack = [
      {
        bn: 'urn:dev:ow:10e2073a01080063:',
        bt: 1.276020076001e9,
        bu: 'A',
        bver: 5,
        n: 'voltage',
        u: 'V',
        v: 120.1,
      },
      { n: 'current', t: -5, v: 1.2 },
      { n: 'current', t: -4, v: 1.3 },
      { n: 'current', v: 1.7 },
    ];
    const expected = [
      '1276020076001000 voltage=120.1 current=1.7',
      '1276020071001000 current=1.2',
      '1276020072001000 current=1.3',
    ];
    for (const outcome of [decodeSenml(json(pack)), decodeSenml(cbor(pack))]) {
      expect(lines(outcome)).toEqual(expected);
      expect(accepted(outcome).units).toEqual(
        new Map([
          ['voltage', 'V'],
          ['current', 'A'],
        ]),
      );
      expect(accepted(outcome)).toMatchObject({ pointCount: 4, missing: 0 });
      expect(accepted(outcome).samples.map(({ fromLast }) => fromLast)).toEqual([2, 1, 0]);
    }
  });

  it('has numbers, texts and bools', () => {
    const pack = [
      { n: 'a', v: 1 },
      { n: 'b', vs: 'open' },
      { n: 'c', vb: true },
      { n: 'd', vb: false },
    ];
    expect(lines(decodeSenml(json(pack)))).toEqual(['now a=1 b=open c=1 d=0']);
    expect(accepted(decodeSenml(json(pack))).units).toBeUndefined();
  });

  it('counts times below 2^28 s from now, others from 1970', () => {
    const at = (t: number) => lines(decodeSenml(json([{ n: 'a', v: 1, t }])))[0];
    expect(at(-5)).toBe('-5000 a=1');
    expect(at(-0.25)).toBe('-250 a=1');
    expect(at(10)).toBe('--10000 a=1');
    expect(at(0)).toBe('now a=1');
    expect(at(2 ** 28 - 1)).toBe('--268435455000 a=1');
    expect(at(2 ** 28)).toBe('268435456000000 a=1');
    expect(at(1_795_235_431.857_25)).toBe('1795235431857250 a=1');
    expect(at(1e300)).toBe(`${Number.MAX_SAFE_INTEGER} a=1`);
    expect(at(-1e300)).toBe(`-${Number.MAX_SAFE_INTEGER} a=1`);
    expect(lines(decodeSenml(json([{ bt: 1.79e9, n: 'a', v: 1, t: -1.79e9 }])))).toEqual([
      'now a=1',
    ]);
  });

  it('adds base values, and makes a metric of each sum', () => {
    const pack = [
      { bv: 20, bs: 100, n: 'p', v: 1.5, s: 7 },
      { n: 'q', v: -20 },
      { n: 'r', s: 1 },
    ];
    expect(lines(decodeSenml(json(pack)))).toEqual([
      'now p=21.5 p.sum=107 q=0 q.sum=100 r.sum=101',
    ]);
  });

  it.each([
    ['urn:dev:mac:0024befffe804ff1:', 'temp', 'temp'],
    ['urn:dev:mac:0024befffe804ff1/', 'temp', 'temp'],
    ['urn:dev:ow:10e2073a01080063:', 'bme/t', 'bme.t'],
    ['', 'urn:dev:ow:10e2073a01080063:temp', 'temp'],
    ['boiler-', 'temp', 'boiler-temp'],
    ['room', '', 'room'],
    ['a:b:', 'c:d', 'd'],
    ['a/b:c', 'd', 'cd'],
    [`${'x'.repeat(1000)}:`, 'temp', 'temp'],
    ['x'.repeat(1000), 'y:temp', 'temp'],
  ])('drops of %j and %j what names the device', (bn, n, metric) => {
    expect(lines(decodeSenml(json([{ bn, n, v: 1 }])))).toEqual([`now ${metric}=1`]);
  });

  it.each([
    ['bad_name', [{ bn: 'urn:dev:ow:10e2073a01080063', v: 1 }]],
    ['bad_name', [{ n: 'urn:dev:ow:', v: 1 }]],
    ['bad_name', [{ n: '3303/0/5700', v: 1 }]],
    ['bad_name', [{ n: 'a b', v: 1 }]],
    ['bad_name', [{ n: 'ts', v: 1 }]],
    ['bad_name', [{ v: 1 }]],
    ['bad_name', [{ bn: 'x'.repeat(65), v: 1 }]],
    ['bad_name', [{ n: 'x'.repeat(62), s: 1 }]],
    [
      'bad_name',
      [
        { n: 'a', v: 1 },
        { n: 'a', v: 2 },
      ],
    ],
    [
      'bad_name',
      [
        { n: 'a', v: 1, s: 1 },
        { n: 'a.sum', v: 2 },
      ],
    ],
    ['bad_senml', {}],
    ['bad_senml', []],
    ['bad_senml', 1],
    ['bad_senml', [1]],
    ['bad_senml', [[]]],
    ['bad_senml', [null]],
    ['bad_senml', [{ n: 'a' }]],
    ['bad_senml', [{ u: 'Cel' }]],
    ['bad_senml', [{ n: 'a', v: 1, vs: 'x' }]],
    ['bad_senml', [{ n: 'a', vd: 'AQ' }]],
    ['bad_senml', [{ n: 'a', v: 1, extra_: 1 }]],
    ['bad_senml', [{ n: 'a', v: 1, bver: 11 }]],
    ['bad_senml', [{ n: 'a', v: 1, bver: 0 }]],
    ['bad_senml', [{ n: 'a', v: 1, bver: '5' }]],
    ['bad_senml', [{ n: 1, v: 1 }]],
    ['bad_senml', [{ n: 'a', v: '1' }]],
    ['bad_senml', [{ n: 'a', vs: 1 }]],
    ['bad_senml', [{ n: 'a', vb: 1 }]],
    ['bad_senml', [{ n: 'a', v: 1, t: '1' }]],
    ['bad_senml', [{ n: 'a', v: 1, ut: '1' }]],
    ['bad_senml', [{ n: 'a', v: 1, u: 1 }]],
    ['bad_senml', [{ n: 'a', s: null }]],
    ['bad_senml', '[{"n":"a","v":1,"t":1e999}]'],
    ['bad_senml', [{ n: 'a', v: 1, bn: null }]],
    ['bad_senml', [{ n: 'a', v: 1, bu: 1 }]],
    ['bad_senml', [{ n: 'a', v: 1, bt: 'x' }]],
    ['bad_senml', [{ n: 'a', v: 1, bv: 'x' }]],
    ['bad_senml', [{ n: 'a', v: 1, bs: 'x' }]],
    ['bad_type', [{ n: 'a', v: 1, u: 'x'.repeat(16) }]],
    ['bad_type', [{ n: 'a', v: 1, u: 'a b' }]],
    ['bad_type', [{ n: 'a', vs: 'x\0' }]],
    ['too_big', [{ n: 'a', vs: 'x'.repeat(257) }]],
    ['too_many', Array.from({ length: 65 }, (_, i) => ({ n: `a${i}`, v: 1 }))],
    ['too_many', Array.from({ length: 501 }, (_, t) => ({ n: 'a', v: 1, t }))],
    ['too_many', Array.from({ length: 2001 }, () => ({ bn: '' }))],
    ['bad_json', '[{"n":"a","v":1}'],
  ])('answers %s to %j', (code, pack) => {
    expect(codeOf(decodeSenml(json(pack)))).toBe(code);
  });

  it('takes what stands at its bounds', () => {
    const metrics = Array.from({ length: 64 }, (_, i) => ({ n: `a${i}`, v: 1 }));
    const samples = Array.from({ length: 500 }, (_, t) => ({ n: 'a', v: 1, t: -t }));
    const values = Array.from({ length: 2000 }, (_, i) => ({ n: `a${i % 4}`, v: 1, t: -(i >> 2) }));
    expect(accepted(decodeSenml(json(metrics))).pointCount).toBe(64);
    expect(accepted(decodeSenml(json(samples))).samples).toHaveLength(500);
    expect(accepted(decodeSenml(cbor(values))).pointCount).toBe(2000);
    expect(codeOf(decodeSenml(json([{ n: 'a', v: 1, bver: 10, u: 'x'.repeat(15) }])))).toBe(
      'accepted',
    );
    expect(codeOf(decodeSenml(json([{ n: 'a', v: 1 }]), 10))).toBe('too_big');
  });

  it('leaves unknown fields alone, and counts what has no value', () => {
    expect(lines(decodeSenml(json([{ n: 'a', v: 1, geo: {}, ut: 60 }])))).toEqual(['now a=1']);
    expect(
      lines(decodeSenml(json('[{"n":"a","v":nan},{"n":"b","vs":"nan"},{"n":"c","v":1e999}]'))),
    ).toEqual(['now']);
    expect(accepted(decodeSenml(cbor([{ n: 'a', v: NaN }]))).missing).toBe(1);
    expect(
      lines(
        decodeSenml(
          json([
            { bn: 'x-', bu: 'Cel' },
            { n: 'a', v: 1 },
          ]),
        ),
      ),
    ).toEqual(['now x-a=1']);
  });

  it('refuses binary values, tags and indefinite lengths of CBOR', () => {
    const hex = (text: string) => codeOf(decodeSenml(Buffer.from(text, 'hex')));
    expect(hex('81a20061610841ff')).toBe('bad_cbor');
    expect(hex('81a200616102c48221196ab3')).toBe('bad_cbor');
    expect(hex('9fa20061610201ff')).toBe('bad_cbor');
    expect(hex('81a20061610201')).toBe('accepted');
    expect(hex('81a3006161020109f5')).toBe('accepted');
  });

  it('[I-09] takes no more than 5 ms for the worst of 64 KiB', () => {
    const worst = [
      json([
        { bn: 'x'.repeat(30_000) },
        ...Array.from({ length: 1900 }, () => ({ n: 'y:a', bs: 1 })),
      ]),
      json(
        Array.from({ length: 1000 }, (_, i) => ({
          bn: 'x'.repeat(30),
          n: `a${i % 60}`,
          v: 1,
          t: -i,
        })),
      ),
      cbor(
        Array.from({ length: 2000 }, (_, i) => ({
          n: `metric${i % 4}`,
          u: 'Cel',
          v: 1.1,
          t: -(i >> 2),
        })),
      ),
      json(Array.from({ length: 60 }, (_, i) => ({ n: `a${i}/${'/'.repeat(900)}`, v: 1 }))),
    ];
    for (const payload of worst) {
      const times = Array.from({ length: 20 }, () => {
        const start = performance.now();
        decodeSenml(payload);
        return performance.now() - start;
      });
      expect(payload.length).toBeLessThan(100_000);
      expect(Math.min(...times) / slowness()).toBeLessThan(5);
    }
  });
});

const number = fc.oneof(
  fc.constantFrom(0, -0, -5, 5, 1.79e9, 2 ** 28, 2 ** 28 - 1, 1e300, -1e300, 6e289, -6e289),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
);
const odd = fc.oneof(number, fc.string({ maxLength: 3 }), fc.constantFrom(null, true, [], {}));
const mostly = <T>(usual: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 40, arbitrary: usual }, { weight: 1, arbitrary: odd });
const name = fc.oneof(
  fc.constantFrom('temp', 'rh', 'a/b', 'x:', 'urn:dev:ow:1:', 'a.sum', 'ts', ''),
  fc.string({ maxLength: 4, unit: fc.constantFrom('a', 'b', ':', '/', '.', '-', '1') }),
);
const unit = fc.constantFrom('Cel', '%RH', '', 'x y', 'beat/min');
const record = fc.record(
  {
    bn: mostly(name),
    bt: mostly(number),
    bu: mostly(unit),
    bv: mostly(number),
    bs: mostly(number),
    bver: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(5, 10) }, odd),
    n: mostly(name),
    u: mostly(unit),
    v: mostly(fc.oneof(number, fc.constant(null))),
    vs: mostly(fc.constantFrom('open', 'nan', '', 'ü')),
    vb: mostly(fc.boolean()),
    s: mostly(number),
    t: mostly(number),
    ut: mostly(number),
    vd: fc.constant('AQ'),
    x_: fc.constant(1),
    other: odd,
  },
  { requiredKeys: [], noNullPrototype: true },
);
/** A record that is likely to be good. */
const good = fc.record(
  {
    bn: fc.constantFrom('dev:', 'boiler-', ''),
    bt: number,
    bu: fc.constantFrom('Cel', 'A'),
    bv: number,
    n: fc.constantFrom('temp', 'rh', 'a/b', 'flow'),
    u: fc.constantFrom('Cel', 'l/s'),
    v: number,
    t: fc.oneof(fc.constantFrom(-5, -4, 0), number),
    s: number,
  },
  { requiredKeys: ['n', 'v'], noNullPrototype: true },
);
const packs = fc.array(fc.oneof({ weight: 3, arbitrary: good }, record), { maxLength: 6 });

function agree(payload: Buffer): void {
  const decoded = decodeSenml(payload);
  expect(isRefusal(decoded) ? null : decoded).toEqual(referenceSenml(payload));
  if (isRefusal(decoded)) expect(decoded.detail).toMatch(/^.{1,100}$/u);
}

describe('the fast decoder of SenML and the slow one', () => {
  it('agree on packs in JSON and in CBOR', () => {
    let refused = 0;
    fc.assert(
      fc.property(packs, (pack) => {
        agree(json(pack));
        agree(cbor(pack));
        if (isRefusal(decodeSenml(json(pack)))) refused += 1;
      }),
      { numRuns: 1000 },
    );
    expect(refused).toBeGreaterThan(100);
    expect(refused).toBeLessThan(900);
  });

  it('agree on changed bytes, and never throw', () => {
    const payloads = fc.oneof(packs.map(json), packs.map(cbor));
    fc.assert(
      fc.property(mutated(payloads), (payload) => agree(payload)),
      { numRuns: 1000 },
    );
  });
});
