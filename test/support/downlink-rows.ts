import type pg from 'pg';

/** Whose rows they are. */
export interface DownlinkRowsOwner {
  readonly organizationId: number;
  readonly deviceId: number;
  /** Makes keys and texts differ from those of another owner: one digit. */
  readonly value: number;
}

/** The tables that {@link insertDownlinkRows} puts rows into. */
export const DOWNLINK_TABLES = [
  ...['command', 'command_slot', 'command_event', 'command_definition', 'rule_action_run'],
  ...['campaign', 'campaign_device'],
  ...['device_configuration', 'device_configuration_version', 'configuration_type'],
  ...['key_rotation', 'claim_policy', 'device_claim'],
  ...['firmware_image', 'firmware_part', 'firmware_signer', 'device_update'],
];

const POLICY = {
  canary: 1,
  waves: [100],
  waveDevices: null,
  ratePerMinute: 60,
  concurrent: 1,
  stop: { failedPercent: 20, failedCount: null },
  settleMs: 0,
  deviceTimeoutMs: 3_600_000,
};
/** Every byte there is. */
const IMAGE = Buffer.from(Array.from({ length: 256 }, (_, at) => at));

/**
 * Puts a row into every table of commands, campaigns, configuration, keys and updates: all about one
 * device, nothing of it under way.
 */
export async function insertDownlinkRows(
  pool: Pick<pg.Pool, 'query'>,
  owner: DownlinkRowsOwner,
): Promise<void> {
  const { organizationId: o, deviceId: d, value } = owner;
  const id = (of: number): string => `00000000-0000-4000-9000-0000000000${of}${value}`;
  const [command, campaign, firmware, update, alert] = [1, 2, 3, 4, 5].map(id);
  const claimKey = `claim00${value}`;
  const statements: [string, ...unknown[]][] = [
    ...commandRows({ o, d, value, command, campaign }),
    [
      `INSERT INTO campaign
         (campaign_id, organization_id, kind, name, state, request, policy, created_by, ended_at)
       VALUES ($2, $1, 'command', $3, 'completed', '{}', $4, 'test', now())`,
      ...[o, campaign, `campaign ${value}`, POLICY],
    ],
    [
      `INSERT INTO campaign_device
         (campaign_id, device_id, organization_id, wave, position, state, facts, command_id)
       VALUES ($1, $2, $3, 0, 0, 'succeeded', '{"from":"1.0"}', $4)`,
      ...[campaign, d, o, command],
    ],
    [
      `INSERT INTO rule_action_run
       SELECT $3, 0, 1, $1, coalesce(max(rule_id), 1), $2, now(), 'sent', $4, $5, 1
       FROM alert_rule WHERE organization_id = $1`,
      ...[o, d, alert, `detail ${value}`, command],
    ],
    ...configurationRows({ o, d, value }),
    [
      `INSERT INTO api_key (key_id, organization_id, kind, name, secret_hash, expires_at)
       VALUES ($2, $1, 'claim', $3, '', now() + interval '1 day')`,
      ...[o, claimKey, `claim key ${value}`],
    ],
    [
      `INSERT INTO claim_policy (key_id, organization_id, quota, tags, needs_approval)
       VALUES ($2, $1, $3, '{}', true)`,
      ...[o, claimKey, value],
    ],
    [
      `INSERT INTO device_claim VALUES ($1, 'b', $2, NULL, 'waiting', $3, now())`,
      ...[o, claimKey, `198.51.100.${value}`],
    ],
    [
      `INSERT INTO key_rotation
         (device_id, organization_id, old_key_id, command_id, campaign_id, asked_at, ends_at)
       VALUES ($1, $2, $3, $4, $5, now(), now() + interval '1 h')`,
      ...[d, o, `rotated${value}`, command, campaign],
    ],
    ...firmwareRows({ o, value, firmware }),
    [
      `INSERT INTO device_update (update_id, command_id, organization_id, device_id, firmware_id,
         campaign_id, from_version, state, started_at, changed_at, ended_at)
       VALUES ($3, $4, $1, $2, $5, $6, '1.0', 'succeeded', now(), now(), now())`,
      ...[o, d, update, command, firmware, campaign],
    ],
  ];
  for (const [statement, ...values] of statements) await pool.query(statement, values);
}

type Named = Readonly<Record<string, unknown>>;

function commandRows({ o, d, value, command, campaign }: Named): [string, ...unknown[]][] {
  return [
    [
      `INSERT INTO command (command_id, organization_id, device_id, name, args, state, wire_id,
         is_retry_safe, expires_at, origin, actor, campaign_id, ended_at, request_hash, result)
       VALUES ($3, $1, $2, 'relay', $4, 'succeeded', 7, true, now(), 'api', 'test', $5, now(),
         '\\x00ff', '{"on":true}')`,
      ...[o, d, command, { value }, campaign],
    ],
    [`INSERT INTO command_slot (device_id, organization_id, last_id) VALUES ($2, $1, 7)`, o, d],
    [
      `INSERT INTO command_event
         (command_id, organization_id, device_id, occurred_at, state, detail, told_at)
       VALUES ($3, $1, $2, now(), 'succeeded', $4, now())`,
      ...[o, d, command, { value }],
    ],
    [
      `INSERT INTO command_definition (organization_id, device_type, name, description, schema, updated_by)
       VALUES ($1, '', 'relay', $2, '{"type":"object"}', 'test')`,
      ...[o, `definition ${value as number}`],
    ],
  ];
}

function configurationRows({ o, d, value }: Named): [string, ...unknown[]][] {
  return [
    [
      `INSERT INTO device_configuration (device_id, organization_id, desired, document, version,
         changed_at, changed_by, published_version)
       VALUES ($2, $1, $3, $3, 1, now(), 'test', 1)`,
      ...[o, d, { value }],
    ],
    [
      `INSERT INTO device_configuration_version
         (device_id, version, organization_id, desired, document, cause, created_by)
       VALUES ($2, 1, $1, $3, $3, 'device', 'test')`,
      ...[o, d, { value }],
    ],
    [
      `INSERT INTO configuration_type
         (organization_id, device_type, defaults, schema, version, updated_by)
       VALUES ($1, 'pump', $2, '{"type":"object"}', 1, 'test')`,
      ...[o, { value }],
    ],
  ];
}

function firmwareRows({ o, value, firmware }: Named): [string, ...unknown[]][] {
  return [
    [
      `INSERT INTO firmware_image (firmware_id, organization_id, model, version, state, byte_count,
         sha256, notes, created_by)
       VALUES ($2, $1, 'thermo-1', '1.1', 'ready', $3, sha256($4), $5, 'test')`,
      ...[o, firmware, IMAGE.length, IMAGE, `notes ${value as number}`],
    ],
    [`INSERT INTO firmware_part VALUES ($2, 0, $1, $3)`, o, firmware, IMAGE],
    [
      `INSERT INTO firmware_signer (organization_id, signer_id, public_key, created_by)
       VALUES ($1, 'release', sha256($2), $3)`,
      ...[o, IMAGE, `signer ${value as number}`],
    ],
  ];
}
