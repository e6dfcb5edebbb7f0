import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { readCursor, writeCursor } from '../../api/cursor.ts';
import { CursorInvalidError } from '../../errors.ts';

const place = z.tuple([z.number().int(), z.number().int()]);

describe('cursors', () => {
  it('come back as they were written, for the same question', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), fc.maxSafeInteger(), fc.integer(), (filters, a, b) => {
        const cursor = writeCursor(filters, [a, b]);
        expect(cursor).toMatch(/^[A-Za-z0-9_-]+$/);
        expect(readCursor(filters, place, cursor)).toEqual([a, b]);
      }),
    );
  });

  it('are refused for another question, with another place and when made up', () => {
    const cursor = writeCursor(['readings', 1, null], [1, 2]);
    expect(() => readCursor(['readings', 2, null], place, cursor)).toThrow(CursorInvalidError);
    const strange = writeCursor(['readings', 1, null], ['1', {}]);
    expect(() => readCursor(['readings', 1, null], place, strange)).toThrow(CursorInvalidError);
    const nul = writeCursor([], ['a\u0000']);
    expect(() => readCursor([], z.tuple([z.string()]), nul)).toThrow(CursorInvalidError);
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(() => readCursor([], place, text)).toThrow(CursorInvalidError);
      }),
    );
  });
});
