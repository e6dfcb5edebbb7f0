import { decode, encode } from 'cborg';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readCbor } from '../../firmware-protocol/cbor.ts';
import { decodeData, isRefusal, Refusal, type Decoded } from '../../firmware-protocol/telemetry.ts';
import { mutated } from '../support/mutated-bytes.ts';
import { referenceCbor } from '../support/reference-cbor.ts';
import { referenceData } from '../support/reference-decoder.ts';
import { slowness } from '../support/slowness.ts';

const LABELS = new Map([
  [0, 'n'],
  [-1, 'bver'],
]);

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex');
}
function cbor(value: unknown): Buffer {
  return Buffer.from(encode(value));
}
/** Maps with names that all differ. */
function maps(count: number, members: number): object[] {
  const name = (map: number, member: number): string => `k${map}.${member}`;
  return Array.from({ length: count }, (_, map) =>
    Object.fromEntries(Array.from({ length: members }, (__, member) => [name(map, member), 0])),
  );
}
function codeOf(outcome: Decoded | Refusal): string {
  return isRefusal(outcome) ? outcome.code : 'accepted';
}
/** The fastest of twenty runs in milliseconds, so that a busy machine does not fail the test. */
function millisecondsOf(run: () => unknown): number {
  const times = Array.from({ length: 20 }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  return Math.min(...times) / slowness();
}

describe('CBOR', () => {
  it.each([
    ['00', 0],
    ['17', 23],
    ['18 18', 24],
    ['19 03e8', 1000],
    ['1a 000f4240', 1_000_000],
    ['1b 0020000000000001', 9_007_199_254_740_992],
    ['1b ffffffffffffffff', 18_446_744_073_709_552_000],
    ['20', -1],
    ['39 03e7', -1000],
    ['3b 001ffffffffffffe', -9_007_199_254_740_991],
    ['3b 0020000000000001', -9_007_199_254_740_994],
    ['3b 00200000ffffffff', -9_007_203_549_708_288],
    ['3b ffffffffffffffff', -18_446_744_073_709_552_000],
    ['f9 3c00', 1],
    ['f9 c400', -4],
    ['f9 0001', 2 ** -24],
    ['f9 7bff', 65_504],
    ['fa 47c35000', 100_000],
    ['fb 3ff199999999999a', 1.1],
    ['f9 8000', -0],
    ['f4', false],
    ['f5', true],
    ['f6', null],
    ['60', ''],
    ['64 49455446', 'IETF'],
    ['62 c3bc', 'ü'],
    ['64 f09f9880', '😀'],
    ['63 efbfbd', '\uFFFD'],
    ['80', []],
    ['82 01 81 02', [1, [2]]],
    ['a0', {}],
    ['a2 61 61 01 61 62 82 02 03', { a: 1, b: [2, 3] }],
    ['9b 0000000000000001 01', [1]],
    ['b9 0001 6161 01', { a: 1 }],
  ])('reads %s', (hex, expected) => {
    expect(readCbor(bytes(hex), null)).toEqual(expected);
  });

  it.each(['f9 7e00', 'f9 7c00', 'f9 fc00', 'fa 7f800000', 'fa 7fc00000', 'fb fff0000000000000'])(
    'reads %s, which is no finite number, as null',
    (hex) => {
      expect(readCbor(bytes(hex), null)).toBeNull();
    },
  );

  it.each([
    ['bad_cbor', 'an array of 2^64-1 items', '9b ffffffffffffffff'],
    ['bad_cbor', 'an array of 2^32-1 items', '9a ffffffff 00'],
    ['bad_cbor', 'a map of 2^63 members', 'bb 8000000000000000 6161 01'],
    ['bad_cbor', 'a text of 2^64-1 bytes', '81 7b ffffffffffffffff 61'],
    ['bad_cbor', 'an array of indefinite length', '9f 01 ff'],
    ['bad_cbor', 'a map of indefinite length', 'bf 6161 01 ff'],
    ['bad_cbor', 'a text of indefinite length', '81 7f 6161 ff'],
    ['bad_cbor', 'a reserved length', '9c 01'],
    ['bad_cbor', 'a tag', '81 c0 60'],
    ['bad_cbor', 'the tag of CBOR itself', 'd9d9f7 a0'],
    ['bad_cbor', 'a bignum', '81 c2 41 01'],
    ['bad_cbor', 'a byte string', '81 41 00'],
    ['bad_cbor', 'undefined', '81 f7'],
    ['bad_cbor', 'a break', '81 ff'],
    ['bad_cbor', 'a simple value', '81 f0'],
    ['bad_cbor', 'a simple value in two bytes', '81 f8 ff'],
    ['bad_cbor', 'a key that is a number', 'a1 01 01'],
    ['bad_cbor', 'a key that is null', 'a1 f6 01'],
    ['bad_cbor', 'a key that is an array', 'a1 80 01'],
    ['bad_cbor', 'a name that stands twice', 'a2 6161 01 6161 02'],
    ['bad_cbor', 'a name twice, first with null', 'a2 6161 f6 6161 02'],
    ['bad_cbor', 'a text that is not UTF-8', 'a1 6161 61 ff'],
    ['bad_cbor', 'a long text that is not UTF-8', `a1 6161 78 30 ${'61'.repeat(47)}ff`],
    ['bad_cbor', 'bytes behind the end', 'a0 00'],
    ['bad_cbor', 'a value that is cut off', 'a1 6161 19 01'],
    ['bad_cbor', 'a map that is cut off', 'a1 6161'],
    ['bad_cbor', 'a float that is cut off', 'a1 6161 fb 00'],
    ['bad_name', '__proto__ as a name', 'a1 69 5f5f70726f746f5f5f a0'],
    ['bad_name', '__proto__ below values', 'a1 66 76616c756573 a1 69 5f5f70726f746f5f5f 01'],
    ['bad_name', 'a bad name', 'a1 61 31 01'],
    ['bad_type', 'an array of numbers', '81 01'],
    ['too_deep', 'nine arrays in each other', '81 81 81 81 81 81 81 81 81 80'],
    ['too_deep', 'arrays without end', '81'.repeat(60_000)],
    ['too_many', 'a map of 129 members', `b8 81 ${'616101'.repeat(129)}`],
    ['too_many', 'more than 20 000 items', `99 9c40 ${'80'.repeat(40_000)}`],
  ])('[I-09] answers %s to %s', (code, _, hex) => {
    expect(codeOf(decodeData(bytes(hex)))).toBe(code);
  });

  it('[I-11] takes names of Object.prototype for ordinary ones', () => {
    expect(readCbor(cbor({ constructor: 1, toString: 2 }), null)).toEqual({
      constructor: 1,
      toString: 2,
    });
    expect(codeOf(decodeData(bytes('a2 68 746f537472696e67 01 68 746f537472696e67 02')))).toBe(
      'bad_cbor',
    );
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  it('gives integer keys the names of labels, and leaves other integer keys out', () => {
    expect(readCbor(bytes('a3 00 6161 20 05 09 8101'), LABELS)).toEqual({ n: 'a', bver: 5 });
    expect(readCbor(bytes('a2 09 01 09 02'), LABELS)).toEqual({});
    for (const hex of ['a2 00 01 616e 01', 'a1 f93c00 01', 'a1 f5 01']) {
      expect(readCbor(bytes(hex), LABELS)).toBeInstanceOf(Refusal);
    }
  });

  it('leaves byte order marks and UTF-16 to JSON, which says so', () => {
    for (const hex of ['efbbbf 7b7d', 'fffe 7b00 7d00', 'feff 007b 007d', 'ff']) {
      expect(codeOf(decodeData(bytes(hex)))).toBe('bad_json');
    }
  });

  it('[I-09] takes no more than 5 ms for the worst of 64 KiB', () => {
    const worst = [
      bytes(`99 4e1f ${'80'.repeat(19_999)}`),
      bytes('81'.repeat(65_536)),
      Buffer.concat([bytes('81 7a 0000fff0'), Buffer.alloc(0xfff0, 'é')]),
      cbor(maps(50, 120)),
      cbor(Array.from({ length: 2700 }, () => ['aaaaaaaaaaaaaaaaaaaaaaa'])).subarray(0, 65_536),
    ];
    for (const payload of worst) {
      const ms = millisecondsOf(() => decodeData(payload));
      expect(ms).toBeLessThan(5);
    }
  });

  it('[I-09] makes nothing of the lengths that are claimed', () => {
    const payload = bytes('9a 7fffffff'.repeat(4));
    const before = process.memoryUsage().heapUsed;
    for (let round = 0; round < 1000; round += 1) decodeData(payload);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(50e6);
  });
});

/** Values that CBOR and JSON have in common, with what JSON cannot say well. */
const leaf = fc.oneof(
  fc.double(),
  fc.integer(),
  fc.bigInt({ min: -(2n ** 64n), max: 2n ** 64n - 1n }),
  fc.boolean(),
  fc.string({ maxLength: 30, unit: 'grapheme' }),
  fc.constantFrom(null, undefined, NaN, Infinity, 'nan', 1e290, 1e300, -0),
);
const key = fc.oneof(
  fc.constantFrom('ts', 'age', 'dt', 'seq', 'values', 'a', 'b', 'temp', '__proto__'),
  fc.string({ maxLength: 5 }),
);
const { item } = fc.letrec((tie) => ({
  item: fc.oneof(
    { depthSize: 'small' },
    leaf,
    fc.array(tie('item'), { maxLength: 4 }),
    fc.dictionary(key, tie('item'), { maxKeys: 4, noNullPrototype: true }),
  ),
}));
const sample = fc.record(
  {
    ts: fc.oneof(fc.double(), fc.constant(1_795_235_431_857)),
    age: fc.double(),
    seq: fc.nat(),
    dt: fc.constantFrom(1000, 0.5),
    temp: fc.oneof(leaf, fc.array(leaf, { maxLength: 3 })),
    rh: fc.oneof(leaf, fc.array(leaf, { maxLength: 3 })),
    bme: fc.record({ t: leaf, p: fc.record({ hpa: leaf }) }),
  },
  { requiredKeys: [] },
);
const payloads = fc
  .oneof(sample, fc.array(sample, { maxLength: 3 }), item)
  .map((value) => cbor(value));

describe('the fast decoder of CBOR and the slow one', () => {
  it('agree on values as cborg encodes them', () => {
    fc.assert(
      fc.property(payloads, (payload) => {
        agree(payload);
        const value = readCbor(payload, null);
        if (value instanceof Refusal) return;
        const options = { allowBigInt: true, rejectDuplicateMapKeys: true };
        expect(value).toEqual(plain(decode(payload, options)));
      }),
      { numRuns: 1000 },
    );
  });

  it('agree on changed bytes, and never throw', () => {
    fc.assert(
      fc.property(mutated(payloads), (payload) => agree(payload)),
      { numRuns: 1500 },
    );
  });

  it('agree on random bytes that begin as CBOR does', () => {
    const random = fc
      .tuple(fc.integer({ min: 0x80, max: 0xff }), fc.uint8Array({ maxLength: 60 }))
      .map(([first, rest]) => Buffer.from([first, ...rest]));
    fc.assert(
      fc.property(random, (payload) => agree(payload)),
      { numRuns: 1500 },
    );
  });
});

function agree(payload: Buffer): void {
  for (const labels of [null, LABELS]) {
    const value = readCbor(payload, labels);
    const reference = referenceCbor(payload, labels);
    const isRefused = value instanceof Refusal;
    if (reference === null) expect(isRefused).toBe(true);
    else expect(value).toEqual(reference.json);
    if (isRefused) expect(value.detail).toMatch(/^.{1,100}$/u);
  }
  const decoded = decodeData(payload);
  expect(isRefusal(decoded) ? null : decoded).toEqual(referenceData(payload));
}

/** What cborg gives, as JSON would have it. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}
