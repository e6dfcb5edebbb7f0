import type { SequenceRange } from './sequence-ranges.ts';

/**
 * Most gaps that are told apart in one boot of a device. Each costs 24 bytes, and 0.4 µs whenever the
 * device is written to; see docs/adr/0021-completeness.md. Above half of the window that tells copies.
 */
export const SEQUENCE_GAPS_MAX = 64;

/**
 * The statement that notes which `seq` are stored. Its parameters are columns: device ids (`int4[]`),
 * boots (`int8[]`), the numbers that are new (`int8multirange[]`, see {@link multirangeArray}); each
 * device and boot once. Numbers may come in any order and more than once.
 *
 * Beyond `gapsMax` gaps the lowest are given up: they count as received in `received`, and their numbers
 * are added to `forgotten`, which stays as it is when one of them comes after all. So `received` without
 * `forgotten` is how many came, and with `forgotten` above 0 its first range no longer says how far
 * there is no gap. The highest `2 * gapsMax` numbers are exact.
 *
 * Rows are locked in the order of their keys, so that two writers cannot wait for each other. `last_at`
 * is indexed and so only written once a minute. How many ranges there are is told by their bytes: counting
 * them would cost more than adding to them.
 */
export function sequenceStatement(gapsMax: number = SEQUENCE_GAPS_MAX): string {
  const bytesMax = multirangeBytes(gapsMax + 1);
  const isSmall = (multirange: string): string => `pg_column_size(${multirange}) <= ${bytesMax}`;
  const isSurelySmall = `pg_column_compression(stored.received) IS NULL
        AND pg_column_size(stored.received) + pg_column_size(excluded.received) <= ${bytesMax}`;
  const union = '(stored.received + excluded.received)';
  const forgotten = 'stored.forgotten + excluded.forgotten';
  return `INSERT INTO device_sequence AS stored (device_id, boot, received, forgotten)
    SELECT device_id, boot,
      CASE WHEN ${isSmall('fresh')} THEN fresh ELSE ${cut('fresh', gapsMax)} END,
      CASE WHEN ${isSmall('fresh')} THEN 0 ELSE ${cutCount('fresh', gapsMax)} END
    FROM unnest($1::int4[], $2::int8[], $3::int8multirange[]) AS given (device_id, boot, fresh)
    ORDER BY device_id, boot
    ON CONFLICT (device_id, boot) DO UPDATE SET
      received = CASE WHEN ${isSurelySmall} THEN ${union} WHEN ${isSmall(union)} THEN ${union}
        ELSE ${cut(union, gapsMax)} END,
      forgotten = CASE WHEN ${isSurelySmall} OR ${isSmall(union)} THEN ${forgotten}
        ELSE ${forgotten} + ${cutCount(union, gapsMax)} END,
      last_at = CASE WHEN stored.last_at < now() - interval '1 minute' THEN now()
        ELSE stored.last_at END`;
}

/** An array of multiranges in PostgreSQL's binary format, for the third parameter. */
export function multirangeArray(values: readonly (readonly SequenceRange[])[]): Buffer {
  const size = values.reduce((sum, ranges) => sum + 8 + ranges.length * (4 + RANGE_BYTES), 0);
  const bytes = Buffer.allocUnsafe(20 + size);
  let at = 0;
  for (const word of [1, 0, INT8MULTIRANGE_OID, values.length, 1])
    at = bytes.writeInt32BE(word, at);
  for (const ranges of values) {
    at = bytes.writeInt32BE(4 + ranges.length * (4 + RANGE_BYTES), at);
    at = bytes.writeInt32BE(ranges.length, at);
    for (const range of ranges) at = writeRange(bytes, range, at);
  }
  return bytes;
}

const INT8MULTIRANGE_OID = 4536;
/** Flags, and two bounds of eight bytes with their lengths. */
const RANGE_BYTES = 25;
const LOWER_INCLUSIVE = 2;

function writeRange(bytes: Buffer, [from, to]: SequenceRange, start: number): number {
  let at = bytes.writeInt32BE(RANGE_BYTES, start);
  at = bytes.writeUInt8(LOWER_INCLUSIVE, at);
  at = bytes.writeBigInt64BE(BigInt(from), bytes.writeInt32BE(8, at));
  return bytes.writeBigInt64BE(BigInt(to), bytes.writeInt32BE(8, at));
}

/** What a multirange of so many ranges takes (multirangetypes.c): head, items, flags, bounds. */
function multirangeBytes(ranges: number): number {
  return Math.ceil((12 + 4 * (ranges - 1) + ranges) / 8) * 8 + 16 * ranges;
}

/** Where the part begins that keeps its gaps. */
function edge(multirange: string, gapsMax: number): string {
  return `(SELECT lower(part) FROM unnest(${multirange}) AS part ORDER BY 1 DESC OFFSET ${gapsMax} LIMIT 1)`;
}

/** The multirange with its lowest gaps closed, so that `gapsMax` are left. */
function cut(multirange: string, gapsMax: number): string {
  const closed = `int8range(lower(${multirange}), ${edge(multirange, gapsMax)})`;
  return `${multirange} + int8multirange(${closed})`;
}

/** How many numbers stand in the gaps that {@link cut} closes. */
function cutCount(multirange: string, gapsMax: number): string {
  return `(SELECT upper(part) - min(lower(part)) OVER below - sum(upper(part) - lower(part)) OVER below
      FROM unnest(${multirange}) AS part WINDOW below AS (ORDER BY part)
      ORDER BY part DESC OFFSET ${gapsMax} LIMIT 1)::int8`;
}
