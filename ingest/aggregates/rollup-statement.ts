import { VALUE_MAX } from '../../firmware-protocol/contract.ts';
import { LEVELS, type Level } from './levels.ts';

/** Where buckets start; the same as those of `time_bucket`. */
const ORIGIN = `'2000-01-01Z'::timestamptz`;
const COLUMNS = 'device_id, metric_id, bucket, count, sum, min, max, first, last';

/**
 * Makes the buckets of a span for the devices of a slice. `$1`, `$2`: the span; `$3`, `$4`: device ids
 * behind the one and up to the other.
 *
 * It depends on its plan: `reading` has no index on time, so each series that has anything as new as
 * the span (`device_latest` says which) is looked up in the primary key (device_id, metric_id, time).
 */
export function spanStatement(level: Level): string {
  return rollupStatement(level, {
    from: 'device_latest AS series',
    start: '$1::timestamptz',
    end: '$2::timestamptz',
    where:
      'WHERE series.time >= $1::timestamptz AND series.device_id > $3 AND series.device_id <= $4',
  });
}

/** The same for spans of single devices: `$1` device ids, `$2` starts, `$3` ends, all of them arrays. */
export function spansStatement(level: Level): string {
  return rollupStatement(level, {
    from: `unnest($1::int4[], $2::timestamptz[], $3::timestamptz[]) AS dirty (device_id, start, "end")
      JOIN device_latest AS series ON series.device_id = dirty.device_id AND series.time >= dirty.start`,
    start: 'dirty.start',
    end: 'dirty."end"',
    where: '',
  });
}

interface Outer {
  readonly from: string;
  readonly start: string;
  readonly end: string;
  readonly where: string;
}

function rollupStatement(level: Level, { from, start, end, where }: Outer): string {
  const below = LEVELS[LEVELS.findIndex(({ name }) => name === level.name) - 1];
  const time = below === undefined ? 'source.time' : 'source.bucket';
  const bucket = `date_bin('${level.widthMs} milliseconds', ${time}, ${ORIGIN})`;
  return `
    INSERT INTO ${level.table} AS old (${COLUMNS})
    SELECT series.device_id, series.metric_id, made.*
    FROM ${from}
    CROSS JOIN LATERAL (
      SELECT ${bucket}, ${below === undefined ? FROM_READINGS : FROM_BELOW}
      FROM ${below?.table ?? 'reading'} AS source
      WHERE source.device_id = series.device_id AND source.metric_id = series.metric_id
        AND ${time} >= ${start} AND ${time} < ${end}
        ${below === undefined ? SUMMABLE : ''}
      GROUP BY ${bucket}
    ) AS made
    ${where}
    ON CONFLICT (device_id, metric_id, bucket) DO UPDATE SET count = excluded.count,
      sum = excluded.sum, min = excluded.min, max = excluded.max, first = excluded.first,
      last = excluded.last
    ${IF_CHANGED}`;
}

/** A late row changes a minute or two of an hour: the others are not written again. */
const IF_CHANGED = `WHERE (old.count, old.sum, old.min, old.max, old.first, old.last) IS DISTINCT FROM
      (excluded.count, excluded.sum, excluded.min, excluded.max, excluded.first, excluded.last)`;

/** As in the views. What is stored by other means than ours may be any double, NaN too. */
const SUMMABLE = `AND source.value BETWEEN '${-VALUE_MAX}'::float8 AND '${VALUE_MAX}'::float8`;
const FROM_READINGS = `count(*), sum(value), min(value), max(value),
  (array_agg(value ORDER BY time))[1], (array_agg(value ORDER BY time DESC))[1]`;
const FROM_BELOW = `sum(count)::int8, sum(sum), min(min), max(max),
  (array_agg(first ORDER BY source.bucket))[1], (array_agg(last ORDER BY source.bucket DESC))[1]`;
