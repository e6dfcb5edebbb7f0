const POSTGRES_EPOCH_MICROS = 946_684_800_000_000n;
const OID = { int2: 21, int4: 23, int8: 20, text: 25, float8: 701, timestamptz: 1184 } as const;

/** A one-dimensional array parameter in PostgreSQL's binary format, which `pg` passes on untouched. */
export function int4Array(values: readonly number[]): Buffer {
  return fixedArray(OID.int4, 4, values, (bytes, value, at) => bytes.writeInt32BE(value, at));
}

/** As {@link int4Array}. */
export function int2Array(values: readonly number[]): Buffer {
  return fixedArray(OID.int2, 2, values, (bytes, value, at) => bytes.writeInt16BE(value, at));
}

/** As {@link int4Array}. */
export function int8Array(values: readonly (number | bigint)[]): Buffer {
  return fixedArray(OID.int8, 8, values, (bytes, value, at) =>
    bytes.writeBigInt64BE(BigInt(value), at),
  );
}

/** As {@link int4Array}, null for a missing value. */
export function float8Array(values: readonly (number | null)[]): Buffer {
  return fixedArray(OID.float8, 8, values, (bytes, value, at) => bytes.writeDoubleBE(value, at));
}

/** As {@link int4Array}, from whole microseconds since 1970. */
export function timestamptzArray(micros: readonly number[]): Buffer {
  return fixedArray(OID.timestamptz, 8, micros, (bytes, value, at) =>
    bytes.writeBigInt64BE(BigInt(value) - POSTGRES_EPOCH_MICROS, at),
  );
}

/** As {@link int4Array}, null for a missing value. */
export function textArray(values: readonly (string | null)[]): Buffer {
  const parts = values.map((value) => (value === null ? null : Buffer.from(value, 'utf8')));
  const size = parts.reduce((sum, part) => sum + 4 + (part?.length ?? 0), 0);
  const bytes = startArray(OID.text, values.length, size);
  let at = ARRAY_HEADER_BYTES;
  for (const part of parts) {
    at = bytes.writeInt32BE(part?.length ?? -1, at);
    if (part !== null) at += part.copy(bytes, at);
  }
  return bytes;
}

/** Dimensions, null flag, element type, size and lower bound. */
const ARRAY_HEADER_BYTES = 20;

function startArray(elementOid: number, count: number, elementBytes: number): Buffer {
  const bytes = Buffer.allocUnsafe(ARRAY_HEADER_BYTES + elementBytes);
  bytes.writeInt32BE(1, 0);
  bytes.writeInt32BE(1, 4);
  bytes.writeInt32BE(elementOid, 8);
  bytes.writeInt32BE(count, 12);
  bytes.writeInt32BE(1, 16);
  return bytes;
}

function fixedArray<Value extends number | bigint>(
  elementOid: number,
  width: number,
  values: readonly (Value | null)[],
  write: (bytes: Buffer, value: Value, at: number) => void,
): Buffer {
  const bytes = startArray(elementOid, values.length, values.length * (4 + width));
  let at = ARRAY_HEADER_BYTES;
  for (const value of values) {
    if (value === null) {
      at = bytes.writeInt32BE(-1, at);
    } else {
      write(bytes, value, bytes.writeInt32BE(width, at));
      at += 4 + width;
    }
  }
  return bytes.subarray(0, at);
}
