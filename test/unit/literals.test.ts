import { describe, expect, it } from 'vitest';
import { withLiterals } from '../../drizzle/literals.ts';

describe('a statement with its values in it', () => {
  it('has values that end no literal, whatever is in them', () => {
    expect(withLiterals('SELECT $1', ["it's'; DROP TABLE command; --"])).toBe(
      "SELECT 'it''s''; DROP TABLE command; --'",
    );
    // Doubled, and marked as such: right whatever standard_conforming_strings says.
    expect(withLiterals('SELECT $1', ["\\'"])).toBe("SELECT  E'\\\\'''");
  });

  it('takes nothing in a value for a place', () => {
    expect(withLiterals('SELECT $1, $2', ['$2', "$& $$ $1 $'"])).toBe(
      "SELECT '$2', '$& $$ $1 $'''",
    );
  });

  it('tells places of two digits, and has numbers and NULL as they are', () => {
    const values = [1, -2, null, 4, 5, 6, 7, 8, 9, 'ten'];
    expect(withLiterals('SELECT $10, $1, $2, $3, $1', values)).toBe("SELECT 'ten', 1, -2, NULL, 1");
  });
});
