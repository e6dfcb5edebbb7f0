import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { CopyBuffer } from '../../ingest/copy-buffer.ts';
import { classifyStoreFault } from '../../ingest/store-fault.ts';
import { TokenBucket } from '../../ingest/token-bucket.ts';

/** Reads a row back as PostgreSQL's binary COPY format lays it out. */
function readRow(bytes: Buffer): unknown[] {
  const fields: (Buffer | null)[] = [];
  let at = 2;
  for (let field = 0; field < bytes.readInt16BE(0); field += 1) {
    const length = bytes.readInt32BE(at);
    at += 4;
    fields.push(length < 0 ? null : bytes.subarray(at, at + length));
    at += Math.max(0, length);
  }
  expect(at).toBe(bytes.length);
  const [time, device, metric, value, text, received, quality] = fields;
  return [
    Number(time?.readBigInt64BE()) + 946_684_800_000_000,
    device?.readInt32BE(),
    metric?.readInt32BE(),
    value === null ? null : value?.readDoubleBE(),
    text === null ? null : text?.toString('utf8'),
    Number(received?.readBigInt64BE()) + 946_684_800_000_000,
    quality?.readInt16BE(),
  ];
}

const micros = fc.integer({ min: 0, max: 4_102_444_800_000_000 });
const rowArbitrary = fc.tuple(
  micros,
  fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  fc.option(fc.double({ noNaN: true, noDefaultInfinity: true }), { nil: null }),
  fc.option(fc.string({ maxLength: 64, unit: 'grapheme' }), { nil: null }),
  micros,
  fc.integer({ min: 0, max: 3 }),
);

describe('CopyBuffer', () => {
  it('encodes any rows so that they read back the same, times before 2000 included', () => {
    fc.assert(
      fc.property(fc.array(rowArbitrary, { maxLength: 40 }), (rows) => {
        const buffer = new CopyBuffer(16);
        const ends = rows.map((row) => {
          buffer.addReading(...row);
          return buffer.length;
        });
        const decoded = ends.map((end, index) => readRow(buffer.slice(ends[index - 1] ?? 0, end)));
        expect(decoded).toEqual(rows);
      }),
    );
  });
});

describe('TokenBucket', () => {
  it('lets through a burst of five seconds and then the rate', () => {
    const bucket = new TokenBucket(20);
    let passed = 0;
    for (let nowMs = 0; nowMs <= 10_000; nowMs += 1) {
      if (bucket.take(1, nowMs) === 0) passed += 1;
    }
    expect(passed).toBe(100 + 200);
  });

  it('names a wait after which the tokens are there', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5000 }),
        fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 50 }),
        (rate, counts) => {
          const bucket = new TokenBucket(rate);
          let nowMs = 0;
          for (const count of counts) {
            const waitMs = bucket.take(count, nowMs);
            nowMs += waitMs;
            if (waitMs > 0) expect(bucket.take(count, nowMs)).toBeLessThanOrEqual(1);
          }
        },
      ),
    );
  });

  it('never refuses at rate 0, which is no limit', () => {
    const bucket = new TokenBucket(0);
    expect(bucket.take(1_000_000, 0)).toBe(0);
    expect(bucket.waitFor(1_000_000, 0)).toBe(0);
  });

  it('gives nothing extra for a clock that goes back', () => {
    const bucket = new TokenBucket(1);
    bucket.take(5, 1000);
    expect(bucket.take(1, 0)).toBeGreaterThan(0);
  });
});

describe('classifyStoreFault', () => {
  it('blames the rows only for SQLSTATE classes 22 and 23', () => {
    const faults = [
      '23505',
      '22003',
      '23502',
      '40001',
      '40P01',
      '57P01',
      '25006',
      '53100',
      '08006',
    ];
    expect(faults.map((code) => classifyStoreFault({ code }))).toEqual([
      'duplicate',
      'refused',
      'refused',
      ...Array.from({ length: 6 }, () => 'unavailable'),
    ]);
  });

  it('takes a missing partition for what it is', () => {
    const message = 'no partition of relation "reading" found for row';
    expect(classifyStoreFault({ code: '23514', message })).toBe('partition');
    expect(classifyStoreFault({ code: '23514', message: 'violates check' })).toBe('refused');
  });

  it('takes what it does not know for the database being away', () => {
    for (const error of [new Error('x'), null, undefined, 'text', { code: 5 }]) {
      expect(classifyStoreFault(error)).toBe('unavailable');
    }
  });
});

describe('makeUuidV7', () => {
  it('sorts by time and carries version and variant (RFC 9562)', () => {
    const early = makeUuidV7(1_700_000_000_000);
    const late = makeUuidV7(1_700_000_000_001);
    expect(early < late).toBe(true);
    const ids = [0, 1, 2, 998, 999].map((micros) => makeUuidV7(1_700_000_000_000, micros));
    expect(ids.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(ids);
    expect(early).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });
});
