import pg from 'pg';

/**
 * A statement with its values in the places of `$1` and so on, for statements that go to the server together
 * with others, which takes no parameters. What is no number stands there as an escaped literal.
 */
export function withLiterals(text: string, values: readonly (string | number | null)[]): string {
  return text.replaceAll(/\$(\d+)/g, (_, place: string) => {
    const value = values[Number(place) - 1] ?? null;
    if (value === null) return 'NULL';
    return typeof value === 'number' ? String(value) : pg.escapeLiteral(value);
  });
}
