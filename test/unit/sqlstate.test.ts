import { DrizzleQueryError } from 'drizzle-orm/errors';
import { describe, expect, it } from 'vitest';
import { guardStore, isUnavailable } from '../../drizzle/sqlstate.ts';
import { StoreUnavailableError } from '../../errors.ts';

function coded(code: string): Error {
  return Object.assign(new Error('from the server'), { code });
}

describe('isUnavailable', () => {
  it.each([
    '08006',
    '57P01',
    '57P03',
    '57014',
    '53300',
    '53100',
    '58030',
    '25006',
    '40001',
    '40P01',
  ])('is true for SQLSTATE %s', (code) => expect(isUnavailable(coded(code))).toBe(true));

  it.each(['22P05', '23505', '23514', '42601', '42P01', '25P02', 'XX000'])(
    'is false for SQLSTATE %s',
    (code) => expect(isUnavailable(coded(code))).toBe(false),
  );

  it.each(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENOENT', 'EAI_AGAIN'])(
    'is true for the system error %s',
    (code) => expect(isUnavailable(coded(code))).toBe(true),
  );

  it.each([
    'Connection terminated unexpectedly',
    'timeout exceeded when trying to connect',
    'Query read timeout',
  ])('is true for what pg says without a code: %s', (message) => {
    expect(isUnavailable(new Error(message))).toBe(true);
  });

  it('is false for a bug', () => {
    expect(isUnavailable(new TypeError('x is not a function'))).toBe(false);
    expect(isUnavailable('text')).toBe(false);
  });
});

describe('guardStore', () => {
  it('maps what a lost database ends with, through the wrapper of drizzle', async () => {
    const wrapped = new DrizzleQueryError('SELECT 1', [], coded('57P01'));
    await expect(guardStore(Promise.reject(wrapped))).rejects.toThrow(StoreUnavailableError);
  });

  it('takes parameters out of the error of a refused statement', async () => {
    const wrapped = new DrizzleQueryError('SELECT $1', ['secret'], coded('22P05'));
    const error: unknown = await guardStore(Promise.reject(wrapped)).catch(
      (cause: unknown) => cause,
    );
    expect(error).toBe(wrapped.cause);
  });
});
