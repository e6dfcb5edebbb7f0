-- One row for each value of each device. Narrow, with integer keys and no second index: 95 bytes a row.
-- The key makes every redelivery of a message with a time harmless (ON CONFLICT DO NOTHING).
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
    CREATE TABLE reading (
      time timestamptz NOT NULL,
      device_id int4 NOT NULL,
      metric_id int4 NOT NULL,
      value float8,
      text_value text,
      received_at timestamptz NOT NULL,
      quality int2 NOT NULL,
      CONSTRAINT reading_pkey PRIMARY KEY (device_id, metric_id, time)
    );
    PERFORM create_hypertable('reading', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
  ELSE
    CREATE TABLE reading (
      time timestamptz NOT NULL,
      device_id int4 NOT NULL,
      metric_id int4 NOT NULL,
      value float8,
      text_value text,
      received_at timestamptz NOT NULL,
      quality int2 NOT NULL,
      CONSTRAINT reading_pkey PRIMARY KEY (device_id, metric_id, time)
    ) PARTITION BY RANGE (time);
  END IF;
END
$$;
--> statement-breakpoint
-- Makes the partition of one UTC day where reading is partitioned natively; true when it was missing.
-- ATTACH, and not CREATE … PARTITION OF, because it does not lock out readers and writers of the parent.
CREATE FUNCTION reading_partition_ensure(day date) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  partition_name text := 'reading_' || to_char(day, 'YYYYMMDD');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('puback reading_partition_ensure', 0));
  IF EXISTS (
    SELECT FROM pg_inherits
    WHERE inhparent = 'reading'::regclass AND inhrelid = to_regclass(partition_name)
  ) THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
  EXECUTE format(
    'ALTER TABLE reading ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    partition_name,
    to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
    to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00'
  );
  RETURN true;
END
$$;
--> statement-breakpoint
-- Each batch updates the newest readings in place: room on the page keeps those updates out of the index.
ALTER TABLE device_latest SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
