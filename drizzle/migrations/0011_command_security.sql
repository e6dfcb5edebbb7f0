-- The tables of 0010 belong to an organization, as those in 0004.
DO $$
DECLARE
  tenant_table text;
BEGIN
  FOREACH tenant_table IN ARRAY ARRAY[
    'command', 'command_slot', 'command_event', 'command_definition', 'campaign', 'campaign_device',
    'device_configuration', 'device_configuration_version', 'configuration_type', 'key_rotation',
    'claim_policy', 'device_claim', 'firmware_image', 'firmware_part', 'firmware_signer',
    'device_update', 'rule_action_run'
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
-- Images are compressed or of little use to compress, and are read piece by piece.
ALTER TABLE firmware_part ALTER COLUMN content SET STORAGE EXTERNAL;
--> statement-breakpoint
-- Commands with names instead of integer keys; as the views of 0002. Without the link of a sys.ota: whoever
-- has it can fetch the image.
CREATE VIEW v_command AS
SELECT
  command.created_at AS time,
  organization.slug AS organization,
  device.slug AS device,
  command.command_id,
  command.name AS command,
  CASE command.name WHEN 'sys.ota' THEN command.args - 'url' ELSE command.args END AS args,
  command.state,
  command.origin,
  command.actor,
  command.code,
  command.message,
  command.is_late,
  command.sent_at,
  command.started_at,
  command.ended_at,
  command.expires_at
FROM command
JOIN device ON device.device_id = command.device_id
JOIN organization ON organization.organization_id = command.organization_id;
--> statement-breakpoint
CREATE VIEW v_own_command WITH (security_barrier) AS
SELECT * FROM v_command
WHERE organization = (
  SELECT slug FROM organization JOIN organization_reader USING (organization_id)
  WHERE role_name = session_user
);
--> statement-breakpoint
-- Takes hold of the queue of a device until the end of the transaction, and reads what is asked of it:
-- one way to the server. Each statement in it sees what was committed while the one before waited.
-- The device first, as whoever deletes it does. Null: there is no such device.
CREATE FUNCTION command_queue_lock(wanted jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
  tenant int4 := (wanted ->> 'organizationId')::int4;
  wanted_device int4 := (wanted ->> 'deviceId')::int4;
  owner record;
  slot command_slot;
BEGIN
  IF wanted_device IS NULL AND wanted ->> 'commandId' IS NOT NULL THEN
    SELECT device_id INTO wanted_device FROM command
    WHERE command_id = (wanted ->> 'commandId')::uuid AND organization_id = tenant;
    IF NOT FOUND THEN RETURN NULL; END IF;
  END IF;
  IF wanted_device IS NULL THEN
    SELECT device_id, slug INTO owner FROM device
    WHERE organization_id = tenant AND slug = wanted ->> 'device' FOR KEY SHARE;
  ELSE
    SELECT device_id, slug INTO owner FROM device
    WHERE organization_id = tenant AND device_id = wanted_device FOR KEY SHARE;
  END IF;
  IF NOT FOUND THEN RETURN NULL; END IF;
  SELECT * INTO slot FROM command_slot WHERE device_id = owner.device_id FOR UPDATE;
  IF NOT FOUND THEN
    INSERT INTO command_slot (device_id, organization_id) VALUES (owner.device_id, tenant)
    ON CONFLICT DO NOTHING;
    SELECT * INTO slot FROM command_slot WHERE device_id = owner.device_id FOR UPDATE;
  END IF;
  RETURN jsonb_build_object(
    'deviceId', owner.device_id,
    'device', owner.slug,
    'organization', (SELECT slug FROM organization WHERE organization_id = tenant),
    'hello', (SELECT jsonb_build_object('mps', hello -> 'mps', 'boot', hello -> 'boot')
              FROM device_presence WHERE device_id = owner.device_id),
    'slot', to_jsonb(slot),
    'head', (SELECT to_jsonb(command) FROM command WHERE command_id = slot.head_command_id),
    'queued', (
      SELECT coalesce(jsonb_agg(to_jsonb(next_one) ORDER BY next_one.queue_number), '[]')
      FROM (SELECT * FROM command
            WHERE device_id = owner.device_id AND state = 'queued'
            ORDER BY queue_number LIMIT (wanted ->> 'queuedMax')::int4) AS next_one),
    'queuedCount', (SELECT count(*) FROM command
                    WHERE device_id = owner.device_id AND state = 'queued'),
    'subject', CASE
      WHEN wanted ->> 'commandId' IS NOT NULL THEN
        (SELECT to_jsonb(command) FROM command
         WHERE command_id = (wanted ->> 'commandId')::uuid AND organization_id = tenant)
      WHEN wanted ->> 'wireId' IS NOT NULL THEN
        (SELECT to_jsonb(command) FROM command
         WHERE device_id = owner.device_id AND wire_id = (wanted ->> 'wireId')::int8)
      END,
    'twin', CASE WHEN wanted ->> 'idempotencyKey' IS NOT NULL THEN
      (SELECT to_jsonb(command) FROM command
       WHERE organization_id = tenant AND idempotency_key = wanted ->> 'idempotencyKey') END,
    'others', CASE
      WHEN wanted ->> 'replaceKey' IS NOT NULL THEN
        (SELECT jsonb_agg(to_jsonb(command) ORDER BY queue_number) FROM command
         WHERE device_id = owner.device_id AND state = 'queued'
           AND replace_key = wanted ->> 'replaceKey')
      WHEN wanted ->> 'overdueAt' IS NOT NULL THEN
        (SELECT jsonb_agg(to_jsonb(late) ORDER BY late.queue_number)
         FROM (SELECT * FROM command
               WHERE device_id = owner.device_id
                 AND state IN ('awaiting_approval', 'queued', 'published', 'sent')
                 AND expires_at <= (wanted ->> 'overdueAt')::timestamptz
               ORDER BY queue_number LIMIT 500) AS late)
      WHEN wanted ? 'running' THEN
        (SELECT jsonb_agg(to_jsonb(command) ORDER BY wire_id) FROM command
         WHERE device_id = owner.device_id AND state = 'running')
      END,
    'awaitingCount', CASE WHEN wanted ? 'awaiting' THEN
      (SELECT count(*) FROM command
       WHERE device_id = owner.device_id AND state = 'awaiting_approval') END
  );
END
$$;
