/** Some rows of a list in its order, and whether more follow. */
export interface Page<Row> {
  readonly rows: readonly Row[];
  readonly hasMore: boolean;
}

/** Makes a page of at most `limit` rows from up to `limit + 1` that were asked for. */
export function cutPage<Row>(rows: readonly Row[], limit: number): Page<Row> {
  return rows.length > limit
    ? { rows: rows.slice(0, limit), hasMore: true }
    : { rows, hasMore: false };
}
