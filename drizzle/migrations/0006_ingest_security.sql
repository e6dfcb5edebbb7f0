-- The tables of 0005 that belong to an organization, as those in 0004.
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['device_clock', 'event', 'log_entry', 'import_run', 'import_refusal']
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
    EXECUTE format(
      $policy$
      CREATE POLICY %I ON %I
      USING (organization_id = (SELECT NULLIF(current_setting('puback.organization_id', true), '')::int4))
      $policy$,
      tenant_table || '_own', tenant_table
    );
  END LOOP;
END
$$;
--> statement-breakpoint
-- As in 0004, with all that is kept of a device.
CREATE OR REPLACE FUNCTION device_readings_delete(deleted_id int4) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM device
    WHERE device_id = deleted_id
      AND organization_id = NULLIF(current_setting('puback.organization_id', true), '')::int4
  ) THEN
    RAISE insufficient_privilege USING MESSAGE = 'the device is not of the organization';
  END IF;
  DELETE FROM reading WHERE device_id = deleted_id;
  DELETE FROM device_latest WHERE device_id = deleted_id;
  DELETE FROM device_sequence WHERE device_id = deleted_id;
  DELETE FROM device_clock WHERE device_id = deleted_id;
  DELETE FROM event WHERE device_id = deleted_id;
  DELETE FROM log_entry WHERE device_id = deleted_id;
END
$$;
--> statement-breakpoint
-- Rows are updated in place with each batch, and a multirange of many gaps is not worth compressing.
ALTER TABLE device_sequence SET (fillfactor = 50, toast_tuple_target = 8160);
