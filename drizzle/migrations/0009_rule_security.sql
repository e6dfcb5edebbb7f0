-- The tables of 0008 that belong to an organization, as those in 0004.
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY[
    'alert_rule', 'alert_rule_version', 'alert', 'alert_transition', 'alert_note', 'device_cadence',
    'silence', 'receiver', 'notification_route', 'notification_policy', 'notification_group',
    'notification', 'notification_alert'
  ]
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
-- Rises with every change of any rule.
CREATE SEQUENCE alert_rule_revision AS int8;
--> statement-breakpoint
CREATE FUNCTION alert_rule_revise() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  NEW.revision := nextval('alert_rule_revision');
  RETURN NEW;
END
$$;
--> statement-breakpoint
CREATE TRIGGER alert_rule_revise BEFORE INSERT OR UPDATE ON alert_rule
FOR EACH ROW EXECUTE FUNCTION alert_rule_revise();
--> statement-breakpoint
-- As in 0007, with the alerts of a device.
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
  DELETE FROM device_cadence WHERE device_id = deleted_id;
  DELETE FROM event WHERE device_id = deleted_id;
  DELETE FROM log_entry WHERE device_id = deleted_id;
  DELETE FROM notification_alert USING alert
  WHERE notification_alert.alert_id = alert.alert_id AND alert.device_id = deleted_id;
  -- By the alerts, which have an index of devices; steps without an alert are none.
  DELETE FROM alert_transition USING alert
  WHERE alert_transition.alert_id = alert.alert_id AND alert.device_id = deleted_id;
  DELETE FROM alert WHERE device_id = deleted_id;
END
$$;
--> statement-breakpoint
-- Alerts of all kinds, with names instead of integer keys; as the views of 0002.
CREATE VIEW v_alert_history AS
SELECT
  coalesce(alert.fired_at, alert.active_at) AS time,
  organization.slug AS organization,
  device.slug AS device,
  alert_rule.name AS rule,
  alert.rule_version,
  alert.group_key,
  alert.severity,
  alert.state,
  alert.value,
  alert.text_value,
  alert.active_at,
  alert.fired_at,
  alert.resolved_at,
  alert.occurrences,
  alert.acknowledged_at,
  alert.assignee,
  alert.verdict,
  alert.labels,
  alert.is_shadow,
  alert.is_historical
FROM alert
JOIN device ON device.device_id = alert.device_id
JOIN alert_rule ON alert_rule.rule_id = alert.rule_id
JOIN organization ON organization.organization_id = alert.organization_id;
--> statement-breakpoint
CREATE VIEW v_own_alert_history WITH (security_barrier) AS
SELECT * FROM v_alert_history
WHERE organization = (
  SELECT slug FROM organization JOIN organization_reader USING (organization_id)
  WHERE role_name = session_user
);
