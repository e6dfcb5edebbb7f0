import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { int4Array, int8Array } from '../../ingest/binary-array.ts';
import {
  SEQUENCE_GAPS_MAX,
  multirangeArray,
  sequenceStatement,
} from '../../ingest/sequence-statement.ts';
import type { SequenceRange } from '../../ingest/sequence-ranges.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
});
afterAll(() => test.drop());

interface Noted {
  readonly deviceId: number;
  readonly boot: number;
  readonly ranges: readonly SequenceRange[];
}

async function note(rows: readonly Noted[], gapsMax?: number): Promise<void> {
  await test.database.pool.query(sequenceStatement(gapsMax), [
    int4Array(rows.map(({ deviceId }) => deviceId)),
    int8Array(rows.map(({ boot }) => boot)),
    multirangeArray(rows.map(({ ranges }) => ranges)),
  ]);
}

async function stored(deviceId: number): Promise<{ received: string; forgotten: string }> {
  const { rows } = await test.database.pool.query(
    'SELECT received::text, forgotten FROM device_sequence WHERE device_id = $1',
    [deviceId],
  );
  return rows[0];
}

/** How many numbers there are, and in how many ranges. */
async function sizeOf(deviceId: number): Promise<{ numbers: number; ranges: number }> {
  const { rows } = await test.database.pool.query(
    `SELECT sum(upper(r) - lower(r))::float8 AS numbers, count(*)::int4 AS ranges
     FROM device_sequence, unnest(received) AS r WHERE device_id = $1`,
    [deviceId],
  );
  return rows[0];
}

const one = (seq: number): SequenceRange => [seq, seq + 1];

describe('the numbers of a boot', () => {
  it('are joined in any order, also when they come again', async () => {
    await note([{ deviceId: 1, boot: 7, ranges: [[5, 9], one(1)] }]);
    await note([{ deviceId: 1, boot: 7, ranges: [[8, 12], one(3)] }]);
    await note([{ deviceId: 1, boot: 7, ranges: [one(2), one(4), one(4)] }]);
    expect(await stored(1)).toEqual({ received: '{[1,12)}', forgotten: '0' });
  });

  it('are kept apart by device and boot, in one statement of many', async () => {
    const many = Array.from({ length: 1000 }, (_, index) => ({
      deviceId: 10_000 - index,
      boot: 2 ** 53 - 1,
      ranges: [one(index)],
    }));
    await note(many);
    await note(many.map((row, index) => ({ ...row, ranges: [one(index + 2)] })));
    expect((await stored(9990)).received).toBe('{[10,11),[12,13)}');
  });

  it('have at most SEQUENCE_GAPS_MAX gaps; the lowest are given up and counted', async () => {
    for (let seq = 0; seq <= 1000; seq += 10) {
      await note([{ deviceId: 2, boot: 1, ranges: [[seq, seq + 4]] }], 4);
    }
    expect(await stored(2)).toEqual({
      received: '{[0,964),[970,974),[980,984),[990,994),[1000,1004)}',
      forgotten: String(96 * 6),
    });
    await note([{ deviceId: 2, boot: 1, ranges: [[984, 990]] }], 4);
    expect((await stored(2)).received).toBe('{[0,964),[970,974),[980,994),[1000,1004)}');
  });

  it('are bounded from their first batch on, and exactly at the bound', async () => {
    const parts = (count: number) => Array.from({ length: count }, (_, index) => one(2 * index));
    await note([{ deviceId: 3, boot: 1, ranges: parts(257) }], 256);
    expect(await sizeOf(3)).toEqual({ numbers: 257, ranges: 257 });
    expect((await stored(3)).forgotten).toBe('0');
    await note([{ deviceId: 3, boot: 1, ranges: [one(1000)] }], 256);
    expect(await sizeOf(3)).toEqual({ numbers: 259, ranges: 257 });
    expect((await stored(3)).forgotten).toBe('1');
    await note([{ deviceId: 4, boot: 1, ranges: parts(5000) }]);
    expect(await sizeOf(4)).toEqual({ numbers: 5000 + 4935, ranges: SEQUENCE_GAPS_MAX + 1 });
    expect((await stored(4)).forgotten).toBe('4935');
  });

  it('lose nothing of their sum, whatever comes in whatever order', async () => {
    let deviceId = 100;
    const batch = fc.array(fc.tuple(fc.nat(400), fc.integer({ min: 1, max: 5 })), {
      minLength: 1,
      maxLength: 8,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(batch, { minLength: 1, maxLength: 12 }), async (batches) => {
        deviceId += 1;
        const came = new Set<number>();
        for (const parts of batches) {
          const ranges = parts.map(([from, size]): SequenceRange => [from, from + size]);
          for (const [from, to] of ranges) for (let n = from; n < to; n += 1) came.add(n);
          await note([{ deviceId, boot: 0, ranges }], 300);
        }
        const { numbers } = await sizeOf(deviceId);
        expect(numbers).toBe(came.size);
      }),
      { numRuns: 40 },
    );
  });
});
