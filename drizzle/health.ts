import type pg from 'pg';
import { isUnavailable } from './sqlstate.ts';

/**
 * Asks the database for a sign of life over the pool. Never rejects.
 * @returns null when it answers; else the code of what is wrong (`ECONNREFUSED`, `57P03`), without
 * addresses or names.
 */
export async function findDatabaseFault(pool: pg.Pool): Promise<string | null> {
  try {
    await pool.query('SELECT 1');
    return null;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (/^[A-Z0-9]{3,20}$/.test(code)) return code;
    return isUnavailable(error) ? 'no answer' : 'unexpected error';
  }
}
