/** What is kept for how long: readings as they came, and their rollups from fine to coarse. */
export const RETENTION_CLASSES = ['raw', '1m', '1h', '1d'] as const;
/** One of {@link RETENTION_CLASSES}. */
export type RetentionClass = (typeof RETENTION_CLASSES)[number];
/** Days that each class is kept. */
export type RetentionDays = Readonly<Record<RetentionClass, number>>;

/** What the settings allow. */
export interface RetentionBounds {
  /** Days for who asks for nothing, and the most that anybody gets. Not falling from raw to 1d. */
  readonly max: RetentionDays;
  /**
   * The least for raw readings: as far back as readings are taken in. A shorter time would delete what a
   * late reading is aggregated with.
   */
  readonly rawMin: number;
}

/** What an organization asks for; a class that is left out is kept as long as it may be. */
export type AskedRetention = Readonly<Partial<Record<RetentionClass, number>>>;

/**
 * What an organization gets: what it asks for, within the bounds, and no class shorter than the finer
 * one that it is made of.
 */
export function settleRetention(asked: AskedRetention, bounds: RetentionBounds): RetentionDays {
  let least = bounds.rawMin;
  const settle = (name: RetentionClass): number => {
    const most = bounds.max[name];
    least = Math.max(Math.min(asked[name] ?? most, most), least);
    return least;
  };
  return { raw: settle('raw'), '1m': settle('1m'), '1h': settle('1h'), '1d': settle('1d') };
}
