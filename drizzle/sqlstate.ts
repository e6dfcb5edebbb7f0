import { DrizzleQueryError } from 'drizzle-orm/errors';
import { StoreUnavailableError } from '../errors.ts';

/**
 * Classes and codes of SQLSTATE that lie with the database or the way to it and pass or are mended:
 * connection 08, login 28, no such database 3D, resources 53, operator 57, system 58, read-only
 * 25006, serialization 40001, deadlock 40P01.
 */
const UNAVAILABLE_SQLSTATE = /^(08|28|3D|53|57|58)...$|^(25006|40001|40P01|55P03)$/;
const UNAVAILABLE_SYSTEM_CODES: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  // The unix socket of a server that is not running.
  'ENOENT',
]);
/** What `pg` and its pool say without a code when a connection is lost, slow or closing. */
const UNAVAILABLE_MESSAGE =
  /^(Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client has encountered a connection error|Client was closed|Cannot use a pool after|timeout expired)/;

/**
 * Whether an error means that the database does not answer or cannot work now, so that the same
 * statement may succeed later. Looks through the wrappers that drizzle and Node put around an
 * error.
 */
export function isUnavailable(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    if (at instanceof StoreUnavailableError) return true;
    const code = 'code' in at && typeof at.code === 'string' ? at.code : '';
    if (UNAVAILABLE_SQLSTATE.test(code) || UNAVAILABLE_SYSTEM_CODES.has(code)) return true;
    if (code === '' && UNAVAILABLE_MESSAGE.test(at.message)) return true;
  }
  return false;
}

/**
 * The error to pass on for one that a statement ended with: {@link StoreUnavailableError} when the
 * database is away, else the database's own error without drizzle's wrapper, whose text would carry
 * the parameters into a log.
 */
export function toStoreError(error: unknown): unknown {
  if (isUnavailable(error) && !(error instanceof StoreUnavailableError)) {
    return new StoreUnavailableError(withoutWrapper(error));
  }
  return withoutWrapper(error);
}

/**
 * Waits for statements and maps what they end with, so that a caller sees {@link
 * StoreUnavailableError} or a fault of ours and nothing else.
 */
export async function guardStore<T>(work: PromiseLike<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw toStoreError(error);
  }
}

function withoutWrapper(error: unknown): unknown {
  return error instanceof DrizzleQueryError && error.cause !== undefined ? error.cause : error;
}
