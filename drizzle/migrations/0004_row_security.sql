-- The second line behind the filters of the program (docs/adr/0015-row-level-security.md). Whoever is
-- not the owner of these tables sees and writes rows of the organization of its transaction only, and
-- none without one. The owner is not bound: it looks up keys, writes and prunes for all.
-- An empty text is what a setting of an earlier transaction leaves behind.
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY['organization', 'device', 'api_key', 'metric', 'quarantine',
                                      'audit_event', 'device_presence', 'device_event']
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
-- Events of an address that nobody's device stands behind; what they tell is cut in diagnostics.ts.
CREATE POLICY device_event_nobody ON device_event FOR SELECT
USING (
  organization_id IS NULL
  AND NULLIF(current_setting('puback.organization_id', true), '') IS NOT NULL
);
--> statement-breakpoint
-- Readings know their device only, and TimescaleDB takes no row security with columnstore: they are
-- deleted by the owner, after a look at whose the device is.
CREATE FUNCTION device_readings_delete(deleted_id int4) RETURNS void
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
END
$$;
--> statement-breakpoint
REVOKE EXECUTE ON FUNCTION device_readings_delete(int4) FROM PUBLIC;
--> statement-breakpoint
-- Which organization a role of Grafana may read. Only the owner writes it.
CREATE TABLE organization_reader (
  role_name name NOT NULL,
  organization_id int4 NOT NULL,
  CONSTRAINT organization_reader_pkey PRIMARY KEY (role_name),
  CONSTRAINT organization_reader_organization_id_fk
    FOREIGN KEY (organization_id) REFERENCES organization (organization_id)
);
--> statement-breakpoint
-- The views of 0002 for one organization: that of who logged in, which no SET changes.
CREATE VIEW v_own_reading WITH (security_barrier) AS
SELECT * FROM v_reading
WHERE organization = (
  SELECT slug FROM organization JOIN organization_reader USING (organization_id)
  WHERE role_name = session_user
);
--> statement-breakpoint
CREATE VIEW v_own_latest WITH (security_barrier) AS
SELECT * FROM v_latest
WHERE organization = (
  SELECT slug FROM organization JOIN organization_reader USING (organization_id)
  WHERE role_name = session_user
);
--> statement-breakpoint
CREATE VIEW v_own_device WITH (security_barrier) AS
SELECT * FROM v_device
WHERE organization = (
  SELECT slug FROM organization JOIN organization_reader USING (organization_id)
  WHERE role_name = session_user
);
