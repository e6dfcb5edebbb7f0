/** What to do about an error of the database. */
export type StoreFault =
  /** A key is there already: store row by row what is new. */
  | 'duplicate'
  /** No partition for a day: make it, then again. */
  | 'partition'
  /** The rows themselves are refused: find the one and put it aside. */
  | 'refused'
  /** Anything else: the same batch again, later, for as long as it takes. */
  | 'unavailable';

/**
 * Tells by SQLSTATE what a failed batch needs. Only classes 22 (data) and 23 (integrity) can lie with
 * the rows; everything else, unknown errors included, lies with the database and passes or is mended.
 */
export function classifyStoreFault(error: unknown): StoreFault {
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
  if (typeof code !== 'string') return 'unavailable';
  if (code === '23505') return 'duplicate';
  if (code === '23514' && String(message).includes('no partition')) return 'partition';
  return /^2[23]/.test(code) ? 'refused' : 'unavailable';
}
