-- Rollups of readings: reading_1m, reading_1h, reading_1d, one row for each bucket of a series, up to
-- this moment, and the views over them (docs/adr/0019-aggregates.md). With TimescaleDB they are
-- continuous aggregates, else views over tables of our own. Numbers only: texts have no rows in them,
-- nor have NaN, infinities and what is beyond 1e290 either side of zero, which no device can send: their
-- sum would be an error, for whoever reads it and for the job that makes aggregates of everybody.
CREATE TABLE aggregate_watermark (
  level text NOT NULL,
  -- End of the last bucket that is materialised. What is below it is read from there; it never goes back.
  watermark timestamptz NOT NULL,
  CONSTRAINT aggregate_watermark_pkey PRIMARY KEY (level),
  CONSTRAINT aggregate_watermark_level_check CHECK (level IN ('1m', '1h', '1d'))
);
--> statement-breakpoint
INSERT INTO aggregate_watermark VALUES ('1m', '-infinity'), ('1h', '-infinity'), ('1d', '-infinity');
--> statement-breakpoint
-- When each job of ours last came through, on whichever node.
CREATE TABLE aggregate_job (
  job text NOT NULL,
  succeeded_at timestamptz NOT NULL,
  CONSTRAINT aggregate_job_pkey PRIMARY KEY (job)
);
--> statement-breakpoint
-- Before when raw readings were deleted, or are about to be: aggregates of before are all that is left
-- and are not made anew. Written by the retention before it deletes, never taken back; for jobs alone.
CREATE TABLE raw_deletion (
  -- 0: partitions and chunks, of everybody.
  of_organization int4 NOT NULL,
  deleted_before timestamptz NOT NULL,
  CONSTRAINT raw_deletion_pkey PRIMARY KEY (of_organization)
);
--> statement-breakpoint
-- What could not be made, because the database cannot compute with what is stored there. It is left out
-- for good, so that it holds nothing else up, unless somebody notes it in dirty_range.
CREATE TABLE aggregate_skip (
  level text NOT NULL,
  -- 0: all devices.
  device_id int4 NOT NULL,
  -- Beginning of the hour; with level 1d, of the day.
  hour timestamptz NOT NULL,
  error text NOT NULL,
  skipped_at timestamptz NOT NULL,
  CONSTRAINT aggregate_skip_pkey PRIMARY KEY (level, device_id, hour),
  CONSTRAINT aggregate_skip_level_check CHECK (level IN ('1m', '1h', '1d'))
);
--> statement-breakpoint
-- Days that an organization wants its data kept, where it is not what the settings say.
CREATE TABLE retention (
  organization_id int4 NOT NULL,
  class text NOT NULL,
  days int4 NOT NULL,
  CONSTRAINT retention_pkey PRIMARY KEY (organization_id, class),
  CONSTRAINT retention_organization_id_fk
    FOREIGN KEY (organization_id) REFERENCES organization (organization_id),
  CONSTRAINT retention_class_check CHECK (class IN ('raw', '1m', '1h', '1d')),
  CONSTRAINT retention_days_check CHECK (days BETWEEN 1 AND 36500)
);
--> statement-breakpoint
ALTER TABLE retention ENABLE ROW LEVEL SECURITY;
--> statement-breakpoint
CREATE POLICY retention_own ON retention
USING (organization_id = (SELECT NULLIF(current_setting('puback.organization_id', true), '')::int4));
--> statement-breakpoint
DO $$
DECLARE
  version int[];
  is_licensed boolean := false;
  level record;
BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    SELECT string_to_array(substring(extversion FROM '^\d+\.\d+'), '.')::int[] INTO version
    FROM pg_extension WHERE extname = 'timescaledb';
    is_licensed := current_setting('timescaledb.license', true) = 'timescale'
      AND EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = 'reading');
  END IF;

  IF is_licensed AND version >= ARRAY[2, 18] THEN
    ALTER TABLE reading SET (
      timescaledb.enable_columnstore = true,
      timescaledb.segmentby = 'device_id, metric_id',
      timescaledb.orderby = 'time DESC'
    );
    CALL add_columnstore_policy('reading', after => INTERVAL '7 days', if_not_exists => true);
  END IF;

  IF is_licensed THEN
    -- A refresh asks for a time and no device. A few bytes for each megabyte, 0 to 5 % of a COPY.
    CREATE INDEX reading_time_idx ON reading USING brin (time);
    CREATE MATERIALIZED VIEW reading_1m
    WITH (timescaledb.continuous, timescaledb.materialized_only = false,
          timescaledb.create_group_indexes = false) AS
    SELECT device_id, metric_id, time_bucket(INTERVAL '1 minute', time) AS bucket,
           count(value) AS count, sum(value) AS sum, min(value) AS min, max(value) AS max,
           first(value, time) AS first, last(value, time) AS last
    FROM reading WHERE value BETWEEN '-1e290'::float8 AND '1e290'::float8
    GROUP BY device_id, metric_id, time_bucket(INTERVAL '1 minute', time)
    WITH NO DATA;
    CREATE MATERIALIZED VIEW reading_1h
    WITH (timescaledb.continuous, timescaledb.materialized_only = false,
          timescaledb.create_group_indexes = false) AS
    SELECT device_id, metric_id, time_bucket(INTERVAL '1 hour', bucket) AS bucket,
           sum(count)::int8 AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,
           first(first, reading_1m.bucket) AS first, last(last, reading_1m.bucket) AS last
    FROM reading_1m
    GROUP BY device_id, metric_id, time_bucket(INTERVAL '1 hour', bucket)
    WITH NO DATA;
    CREATE MATERIALIZED VIEW reading_1d
    WITH (timescaledb.continuous, timescaledb.materialized_only = false,
          timescaledb.create_group_indexes = false) AS
    SELECT device_id, metric_id, time_bucket(INTERVAL '1 day', bucket) AS bucket,
           sum(count)::int8 AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,
           first(first, reading_1h.bucket) AS first, last(last, reading_1h.bucket) AS last
    FROM reading_1h
    GROUP BY device_id, metric_id, time_bucket(INTERVAL '1 day', bucket)
    WITH NO DATA;
    CREATE INDEX reading_1m_series_idx ON reading_1m (device_id, metric_id, bucket);
    CREATE INDEX reading_1h_series_idx ON reading_1h (device_id, metric_id, bucket);
    CREATE INDEX reading_1d_series_idx ON reading_1d (device_id, metric_id, bucket);
    -- Where the rows of each level are, for what deletes some of them.
    CREATE FUNCTION rollup_tables() RETURNS TABLE (level text, relation regclass)
    LANGUAGE sql STABLE SET search_path = public, pg_temp AS $body$
      SELECT substr(view_name::text, 9),
             format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)::regclass
      FROM timescaledb_information.continuous_aggregates
      WHERE view_schema = 'public' AND view_name IN ('reading_1m', 'reading_1h', 'reading_1d')
    $body$;
    RETURN;
  END IF;

  FOR level IN SELECT unnest(ARRAY['1m', '1h', '1d']) AS name LOOP
    EXECUTE format(
      $table$
      CREATE TABLE %I (
        device_id int4 NOT NULL,
        metric_id int4 NOT NULL,
        bucket timestamptz NOT NULL,
        count int8 NOT NULL,
        sum float8 NOT NULL,
        min float8 NOT NULL,
        max float8 NOT NULL,
        first float8 NOT NULL,
        last float8 NOT NULL,
        CONSTRAINT %I PRIMARY KEY (device_id, metric_id, bucket)
      ) PARTITION BY RANGE (bucket)
      $table$,
      'rollup_' || level.name, 'rollup_' || level.name || '_pkey'
    );
  END LOOP;
  CREATE FUNCTION rollup_tables() RETURNS TABLE (level text, relation regclass)
  LANGUAGE sql STABLE SET search_path = public, pg_temp AS $body$
    VALUES ('1m', 'rollup_1m'::regclass), ('1h', 'rollup_1h'), ('1d', 'rollup_1d')
  $body$;

  -- What is materialised, and what is not yet from the level below. For each series by itself
  -- (device_latest lists them), because that is the order of every index.
  CREATE VIEW reading_1m AS
  SELECT device_id, metric_id, bucket, count, sum, min, max, first, last
  FROM rollup_1m
  WHERE bucket < (SELECT watermark FROM aggregate_watermark WHERE level = '1m')
  UNION ALL
  SELECT series.device_id, series.metric_id, made.bucket, made.count, made.sum, made.min, made.max,
         made.in_order[1], made.in_order[made.count::int4]
  FROM device_latest AS series
  CROSS JOIN LATERAL (
    SELECT date_bin('1 minute', time, '2000-01-01Z') AS bucket, count(*) AS count, sum(value) AS sum,
           min(value) AS min, max(value) AS max, array_agg(value ORDER BY time) AS in_order
    FROM reading
    WHERE reading.device_id = series.device_id AND reading.metric_id = series.metric_id
      AND time >= (SELECT watermark FROM aggregate_watermark WHERE level = '1m')
      AND value BETWEEN '-1e290'::float8 AND '1e290'::float8
    GROUP BY date_bin('1 minute', time, '2000-01-01Z')
  ) AS made
  WHERE series.time >= (SELECT watermark FROM aggregate_watermark WHERE level = '1m');

  CREATE VIEW reading_1h AS
  SELECT device_id, metric_id, bucket, count, sum, min, max, first, last
  FROM rollup_1h
  WHERE bucket < (SELECT watermark FROM aggregate_watermark WHERE level = '1h')
  UNION ALL
  SELECT series.device_id, series.metric_id, made.bucket, made.count, made.sum, made.min, made.max,
         made.firsts[1], made.lasts[1]
  FROM device_latest AS series
  CROSS JOIN LATERAL (
    SELECT date_bin('1 hour', bucket, '2000-01-01Z') AS bucket, sum(count)::int8 AS count,
           sum(sum) AS sum, min(min) AS min, max(max) AS max,
           array_agg(first ORDER BY bucket) AS firsts, array_agg(last ORDER BY bucket DESC) AS lasts
    FROM reading_1m AS below
    WHERE below.device_id = series.device_id AND below.metric_id = series.metric_id
      AND below.bucket >= (SELECT watermark FROM aggregate_watermark WHERE level = '1h')
    GROUP BY date_bin('1 hour', bucket, '2000-01-01Z')
  ) AS made
  WHERE series.time >= (SELECT watermark FROM aggregate_watermark WHERE level = '1h');

  CREATE VIEW reading_1d AS
  SELECT device_id, metric_id, bucket, count, sum, min, max, first, last
  FROM rollup_1d
  WHERE bucket < (SELECT watermark FROM aggregate_watermark WHERE level = '1d')
  UNION ALL
  SELECT series.device_id, series.metric_id, made.bucket, made.count, made.sum, made.min, made.max,
         made.firsts[1], made.lasts[1]
  FROM device_latest AS series
  CROSS JOIN LATERAL (
    SELECT date_bin('1 day', bucket, '2000-01-01Z') AS bucket, sum(count)::int8 AS count,
           sum(sum) AS sum, min(min) AS min, max(max) AS max,
           array_agg(first ORDER BY bucket) AS firsts, array_agg(last ORDER BY bucket DESC) AS lasts
    FROM reading_1h AS below
    WHERE below.device_id = series.device_id AND below.metric_id = series.metric_id
      AND below.bucket >= (SELECT watermark FROM aggregate_watermark WHERE level = '1d')
    GROUP BY date_bin('1 day', bucket, '2000-01-01Z')
  ) AS made
  WHERE series.time >= (SELECT watermark FROM aggregate_watermark WHERE level = '1d');

  -- Makes the partition of a rollup table that a time falls into; true when it was missing.
  CREATE FUNCTION rollup_partition_ensure(parent regclass, width_days int4, at timestamptz)
  RETURNS boolean LANGUAGE plpgsql SET search_path = public, pg_temp AS $body$
  DECLARE
    first_day date := date '1970-01-01'
      + (floor(extract(epoch FROM at) / 86400 / width_days) * width_days)::int4;
    partition_name text := parent::text || '_' || to_char(first_day, 'YYYYMMDD');
  BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('puback rollup_partition_ensure', 0));
    IF EXISTS (
      SELECT FROM pg_inherits WHERE inhparent = parent AND inhrelid = to_regclass(partition_name)
    ) THEN
      RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name, parent);
    EXECUTE format(
      'ALTER TABLE %s ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
      parent, partition_name,
      to_char(first_day, 'YYYY-MM-DD') || ' 00:00:00+00',
      to_char(first_day + width_days, 'YYYY-MM-DD') || ' 00:00:00+00'
    );
    RETURN true;
  END
  $body$;
END
$$;
--> statement-breakpoint
-- For people and Grafana. The names are joined in each half where there are two: a condition on a name
-- reaches the series then, before anything is aggregated.
DO $$
DECLARE
  level text;
  live text;
  names text := 'organization.slug AS organization, device.slug AS device, metric.name AS metric, metric.unit';
  -- A quotient too small for a double is an error of the database.
  figures text := 'made.count, made.sum, made.min, made.max, made.first, made.last,
    CASE WHEN abs(made.sum) < ''1e-300''::float8 THEN 0 ELSE made.sum / made.count END AS avg';
  joined text := 'JOIN device ON device.device_id = made.device_id
    JOIN metric ON metric.metric_id = made.metric_id
    JOIN organization ON organization.organization_id = device.organization_id';
BEGIN
  FOREACH level IN ARRAY ARRAY['1m', '1h', '1d'] LOOP
    IF to_regclass('rollup_' || level) IS NULL THEN
      EXECUTE format(
        'CREATE VIEW %I AS SELECT made.bucket AS time, %s, %s FROM %I AS made %s',
        'v_reading_' || level, names, figures, 'reading_' || level, joined
      );
    ELSE
      EXECUTE format(
        $view$
        CREATE VIEW %I AS
        SELECT made.bucket AS time, %s, %s
        FROM %I AS made %s
        WHERE made.bucket < (SELECT watermark FROM aggregate_watermark WHERE level = %L)
        UNION ALL
        SELECT made.bucket AS time, %s, %s
        FROM device_latest AS series
        JOIN device ON device.device_id = series.device_id
        JOIN metric ON metric.metric_id = series.metric_id
        JOIN organization ON organization.organization_id = device.organization_id
        CROSS JOIN LATERAL (
          SELECT * FROM %I AS live
          WHERE live.device_id = series.device_id AND live.metric_id = series.metric_id
            AND live.bucket >= (SELECT watermark FROM aggregate_watermark WHERE level = %L)
          -- Keeps the series the outer side of the join.
          OFFSET 0
        ) AS made
        WHERE series.time >= (SELECT watermark FROM aggregate_watermark WHERE level = %L)
        $view$,
        'v_reading_' || level, names, figures, 'rollup_' || level, joined, level,
        names, figures, 'reading_' || level, level, level
      );
    END IF;
    EXECUTE format(
      $view$
      CREATE VIEW %I WITH (security_barrier) AS
      SELECT * FROM %I
      WHERE organization = (
        SELECT slug FROM organization JOIN organization_reader USING (organization_id)
        WHERE role_name = session_user
      )
      $view$,
      'v_own_reading_' || level, 'v_reading_' || level
    );
  END LOOP;
END
$$;
--> statement-breakpoint
-- As in 0006, with the rollups.
CREATE OR REPLACE FUNCTION device_readings_delete(deleted_id int4) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  rollup regclass;
BEGIN
  IF NOT EXISTS (
    SELECT FROM device
    WHERE device_id = deleted_id
      AND organization_id = NULLIF(current_setting('puback.organization_id', true), '')::int4
  ) THEN
    RAISE insufficient_privilege USING MESSAGE = 'the device is not of the organization';
  END IF;
  DELETE FROM reading WHERE device_id = deleted_id;
  FOR rollup IN SELECT relation FROM rollup_tables() LOOP
    EXECUTE format('DELETE FROM %s WHERE device_id = $1', rollup) USING deleted_id;
  END LOOP;
  DELETE FROM dirty_range WHERE device_id = deleted_id;
  DELETE FROM aggregate_skip WHERE device_id = deleted_id;
  DELETE FROM device_latest WHERE device_id = deleted_id;
  DELETE FROM device_sequence WHERE device_id = deleted_id;
  DELETE FROM device_clock WHERE device_id = deleted_id;
  DELETE FROM event WHERE device_id = deleted_id;
  DELETE FROM log_entry WHERE device_id = deleted_id;
END
$$;
