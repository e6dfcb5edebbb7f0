/** Some bytes of a file, the last one not included. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * What a `Range` header asks for (RFC 9110, 14). `whole`: everything, because it asks for nothing, for
 * something else than bytes, for several ranges at once, or is malformed. `none`: for what is not there.
 */
export type AskedRange = ByteRange | 'whole' | 'none';

/** Bytes of a range are counted with at most so many digits; more would not be exact. */
const RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/i;

/** Reads a `Range` header for a file of so many bytes. */
export function readRange(header: string | null, bytes: number): AskedRange {
  const [, first = '', last = ''] = RANGE.exec(header?.replaceAll(/[ \t]/g, '') ?? '') ?? [];
  if (first === '' && last === '') return 'whole';
  if (first === '') {
    const suffix = Number(last);
    return suffix === 0 || bytes === 0
      ? 'none'
      : { start: Math.max(0, bytes - suffix), end: bytes };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return 'whole';
  if (start >= bytes) return 'none';
  return { start, end: last === '' ? bytes : Math.min(bytes, Number(last) + 1) };
}
