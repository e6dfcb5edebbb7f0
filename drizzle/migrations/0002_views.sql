-- What Grafana and people read: names instead of integer keys. Columns are only ever added.
CREATE VIEW v_reading AS
SELECT
  reading.time,
  organization.slug AS organization,
  device.slug AS device,
  metric.name AS metric,
  metric.kind,
  metric.unit,
  reading.value,
  reading.text_value,
  reading.received_at,
  reading.quality
FROM reading
JOIN device ON device.device_id = reading.device_id
JOIN metric ON metric.metric_id = reading.metric_id
JOIN organization ON organization.organization_id = device.organization_id;
--> statement-breakpoint
CREATE VIEW v_latest AS
SELECT
  organization.slug AS organization,
  device.slug AS device,
  metric.name AS metric,
  metric.kind,
  metric.unit,
  device_latest.time,
  device_latest.value,
  device_latest.text_value,
  device_latest.received_at,
  device_latest.quality
FROM device_latest
JOIN device ON device.device_id = device_latest.device_id
JOIN metric ON metric.metric_id = device_latest.metric_id
JOIN organization ON organization.organization_id = device.organization_id;
--> statement-breakpoint
CREATE VIEW v_device AS
SELECT
  organization.slug AS organization,
  device.slug AS device,
  device.display_name,
  device.tags,
  device.created_at,
  device.disabled_at,
  latest.last_received_at,
  COALESCE(latest.metric_count, 0) AS metric_count
FROM device
JOIN organization ON organization.organization_id = device.organization_id
LEFT JOIN LATERAL (
  SELECT max(device_latest.received_at) AS last_received_at, count(*)::int4 AS metric_count
  FROM device_latest
  WHERE device_latest.device_id = device.device_id
) AS latest ON true;
