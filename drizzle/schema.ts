import { sql } from 'drizzle-orm';
import {
  bigint,
  check,
  customType,
  doublePrecision,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  smallint,
  text,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';
import { at, bytea } from './columns.ts';

const int8multirange = customType<{ data: string }>({ dataType: () => 'int8multirange' });

/** A tenant. `slug` stands in topics and never changes; `suspended_at` refuses its keys. */
export const organization = pgTable(
  'organization',
  {
    organizationId: integer('organization_id').primaryKey().generatedAlwaysAsIdentity(),
    slug: text('slug').notNull(),
    displayName: text('display_name').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    suspendedAt: at('suspended_at'),
  },
  (table) => [unique('organization_slug_key').on(table.slug)],
);

/**
 * A device. `slug` stands in topics and never changes. `disabled_at` refuses its keys. While
 * `quarantined_at` is set, all it sends goes to quarantine; it stays connected.
 */
export const device = pgTable(
  'device',
  {
    deviceId: integer('device_id').primaryKey().generatedAlwaysAsIdentity(),
    organizationId: integer('organization_id')
      .notNull()
      .references(() => organization.organizationId),
    slug: text('slug').notNull(),
    displayName: text('display_name').notNull(),
    tags: text('tags')
      .array()
      .notNull()
      .default(sql`'{}'::text[]`),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    disabledAt: at('disabled_at'),
    quarantinedAt: at('quarantined_at'),
    /** What kind of device it is, as rules and people call it; null when nobody has said. */
    deviceType: text('device_type'),
    /** Longest time that it is meant to let pass between two readings; null: not declared. */
    reportIntervalMs: doublePrecision('report_interval_ms'),
  },
  (table) => [
    // Unique, and the order of GET /api/v1/devices.
    uniqueIndex('device_organization_id_slug_key').on(table.organizationId, table.slug),
  ],
);

/**
 * A credential. `key_id` is the public part (8 characters) and may be logged; of the secret only its
 * SHA-256 is stored. `device_id` is null for keys that speak for the organization.
 */
export const apiKey = pgTable(
  'api_key',
  {
    keyId: text('key_id').primaryKey(),
    organizationId: integer('organization_id')
      .notNull()
      .references(() => organization.organizationId),
    deviceId: integer('device_id').references(() => device.deviceId, { onDelete: 'cascade' }),
    kind: text('kind').notNull(),
    name: text('name').notNull(),
    secretHash: bytea('secret_hash').notNull(),
    /** Of an integrator's key: what it may read; see `SCOPES`. Empty for other kinds. */
    scopes: text('scopes')
      .array()
      .notNull()
      .default(sql`'{}'::text[]`),
    /** Of an integrator's key: slugs of the devices that it is limited to; null for all. */
    devices: text('devices').array(),
    createdAt: at('created_at').notNull().defaultNow(),
    expiresAt: at('expires_at'),
    lastUsedAt: at('last_used_at'),
    revokedAt: at('revoked_at'),
    /** Of a device's key that is to take the place of another: when it was used first. */
    activatedAt: at('activated_at'),
    /** The key whose place it takes; null for others. */
    replacesKeyId: text('replaces_key_id'),
  },
  (table) => [
    index('api_key_device_id_idx').on(table.deviceId),
    index('api_key_organization_id_idx').on(table.organizationId, table.createdAt, table.keyId),
    check('api_key_kind_check', sql`${table.kind} in ('device', 'admin', 'integrator', 'claim')`),
    check(
      'api_key_device_check',
      sql`(${table.kind} = 'device') = (${table.deviceId} is not null)`,
    ),
  ],
);

/** A metric name of an organization. `kind` is that of its first reading. */
export const metric = pgTable(
  'metric',
  {
    metricId: integer('metric_id').primaryKey().generatedAlwaysAsIdentity(),
    organizationId: integer('organization_id')
      .notNull()
      .references(() => organization.organizationId),
    name: text('name').notNull(),
    kind: text('kind').notNull(),
    unit: text('unit'),
    createdAt: at('created_at').notNull().defaultNow(),
  },
  (table) => [
    uniqueIndex('metric_organization_id_name_key').on(table.organizationId, table.name),
    check('metric_kind_check', sql`${table.kind} in ('number', 'bool', 'text')`),
  ],
);

/**
 * The newest reading of each series, written in the transaction that stores it. Without foreign keys:
 * a batch must not fail because a device was deleted while its last message was under way.
 */
export const deviceLatest = pgTable(
  'device_latest',
  {
    deviceId: integer('device_id').notNull(),
    metricId: integer('metric_id').notNull(),
    time: at('time').notNull(),
    value: doublePrecision('value'),
    textValue: text('text_value'),
    receivedAt: at('received_at').notNull(),
    quality: smallint('quality').notNull(),
  },
  (table) => [
    primaryKey({ name: 'device_latest_pkey', columns: [table.deviceId, table.metricId] }),
  ],
);

/**
 * Messages that were acknowledged but cannot be stored as readings, with the coded reason. `payload` is
 * what would be stored; `original_payload` what was sent, once somebody has edited it.
 */
export const quarantine = pgTable(
  'quarantine',
  {
    quarantineId: uuid('quarantine_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    deviceId: integer('device_id').notNull(),
    receivedAt: at('received_at').notNull(),
    topic: text('topic').notNull(),
    code: text('code').notNull(),
    detail: text('detail').notNull(),
    payload: bytea('payload').notNull(),
    originalPayload: bytea('original_payload'),
    editedAt: at('edited_at'),
  },
  (table) => [
    index('quarantine_organization_id_idx').on(table.organizationId, table.quarantineId),
    index('quarantine_device_id_idx').on(table.deviceId, table.quarantineId),
    index('quarantine_received_at_idx').on(table.receivedAt),
  ],
);

/** Who changed what, in the transaction of the change. Rows are only ever added. */
export const auditEvent = pgTable(
  'audit_event',
  {
    auditEventId: uuid('audit_event_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    occurredAt: at('occurred_at').notNull().defaultNow(),
    actor: text('actor').notNull(),
    action: text('action').notNull(),
    subject: text('subject').notNull(),
    change: jsonb('change'),
  },
  (table) => [
    index('audit_event_organization_id_idx').on(table.organizationId, table.auditEventId),
  ],
);

/**
 * What is known of a device's connection and of its last `hello`. One row for each device that has
 * connected; `state` is `online`, `sleeping` or `offline`. `connection_number` rises with each
 * connection of the device: what an older connection says does not overwrite a newer one.
 */
export const devicePresence = pgTable(
  'device_presence',
  {
    deviceId: integer('device_id')
      .primaryKey()
      .references(() => device.deviceId, { onDelete: 'cascade' }),
    organizationId: integer('organization_id').notNull(),
    state: text('state').notNull(),
    since: at('since').notNull(),
    lastContactAt: at('last_contact_at').notNull(),
    connectionNumber: bigint('connection_number', { mode: 'number' }).notNull(),
    address: text('address').notNull(),
    /** Members of the last `hello`, as PROTOCOL names them; `{}` before the first. */
    hello: jsonb('hello').notNull(),
    helloAt: at('hello_at'),
  },
  (table) => [
    index('device_presence_organization_id_idx').on(table.organizationId, table.deviceId),
    index('device_presence_state_idx').on(table.state, table.lastContactAt),
    check('device_presence_state_check', sql`${table.state} in ('online', 'sleeping', 'offline')`),
  ],
);

/**
 * What happened to connections: `connect`, `disconnect`, `refusal` (of a connection or of a message),
 * `identity` (two peers with one key). Equal events in a short time are one row with a `count`.
 * `organization_id` and `device_id` are null while nobody knows whose connection it is.
 */
export const deviceEvent = pgTable(
  'device_event',
  {
    deviceEventId: uuid('device_event_id').primaryKey(),
    organizationId: integer('organization_id'),
    deviceId: integer('device_id'),
    occurredAt: at('occurred_at').notNull(),
    lastOccurredAt: at('last_occurred_at').notNull(),
    kind: text('kind').notNull(),
    /** Why: a refusal or close reason. */
    code: text('code').notNull(),
    detail: text('detail').notNull(),
    count: integer('count').notNull(),
    address: text('address').notNull(),
    keyId: text('key_id'),
    connectionNumber: bigint('connection_number', { mode: 'number' }),
  },
  (table) => [
    index('device_event_device_id_idx').on(table.deviceId, table.deviceEventId),
    index('device_event_address_idx').on(table.address, table.deviceEventId),
    index('device_event_occurred_at_idx').on(table.occurredAt),
    check(
      'device_event_kind_check',
      sql`${table.kind} in ('connect', 'disconnect', 'refusal', 'identity')`,
    ),
  ],
);

/**
 * Which `seq` of a boot of a device are stored, written in the transaction that stores them: a
 * multirange, so that writers only ever add to it, in any order. `forgotten` counts numbers that were
 * given up as missing because there were too many gaps. Without foreign keys, as `device_latest`.
 */
export const deviceSequence = pgTable(
  'device_sequence',
  {
    deviceId: integer('device_id').notNull(),
    boot: bigint('boot', { mode: 'number' }).notNull(),
    received: int8multirange('received').notNull(),
    forgotten: bigint('forgotten', { mode: 'number' }).notNull().default(0),
    firstAt: at('first_at').notNull().defaultNow(),
    lastAt: at('last_at').notNull().defaultNow(),
  },
  (table) => [
    primaryKey({ name: 'device_sequence_pkey', columns: [table.deviceId, table.boot] }),
    index('device_sequence_last_at_idx').on(table.lastAt),
  ],
);

/** What is known of a device's clock; see `firmware-protocol/device-clock.ts`. */
export const deviceClock = pgTable('device_clock', {
  deviceId: integer('device_id').primaryKey(),
  organizationId: integer('organization_id').notNull(),
  /** Milliseconds that the clock is ahead of ours, at `measured_at`. */
  offsetMs: doublePrecision('offset_ms').notNull(),
  /** How fast the offset grows, in millionths; null while too little is known. */
  driftPpm: doublePrecision('drift_ppm'),
  samples: integer('samples').notNull(),
  measuredAt: at('measured_at').notNull(),
});

/**
 * Things that happened, as devices say on `event/{name}`. The key makes every redelivery harmless.
 * Without foreign keys, as `device_latest`.
 */
export const event = pgTable(
  'event',
  {
    deviceId: integer('device_id').notNull(),
    time: at('time').notNull(),
    name: text('name').notNull(),
    organizationId: integer('organization_id').notNull(),
    /** The JSON that the device sent; null when it sent nothing. */
    content: jsonb('content'),
    receivedAt: at('received_at').notNull(),
    quality: smallint('quality').notNull(),
  },
  (table) => [
    primaryKey({ name: 'event_pkey', columns: [table.deviceId, table.time, table.name] }),
    index('event_received_at_idx').on(table.receivedAt),
  ],
);

/** Lines that devices logged, one row each. Without foreign keys, as `device_latest`. */
export const logEntry = pgTable(
  'log_entry',
  {
    deviceId: integer('device_id').notNull(),
    time: at('time').notNull(),
    organizationId: integer('organization_id').notNull(),
    /** `E`, `W`, `I`, `D`, `V` of ESP-IDF; null for a line without. */
    level: text('level'),
    tag: text('tag'),
    /** Milliseconds since boot, where the line says so. */
    uptimeMs: bigint('uptime_ms', { mode: 'number' }),
    message: text('message').notNull(),
  },
  (table) => [
    primaryKey({ name: 'log_entry_pkey', columns: [table.deviceId, table.time] }),
    index('log_entry_time_idx').on(table.time),
  ],
);

/**
 * Hours of a device whose aggregates no longer say what its readings say. Only ever added to, so that
 * no writer waits for the refresh that reads and deletes them.
 */
export const dirtyRange = pgTable('dirty_range', {
  dirtyRangeId: bigint('dirty_range_id', { mode: 'number' })
    .primaryKey()
    .generatedAlwaysAsIdentity(),
  deviceId: integer('device_id').notNull(),
  /** Beginning of the hour, UTC. */
  hour: at('hour').notNull(),
});

/** An import of a file and how far it has come; what is before `byte_offset` is stored or refused. */
export const importRun = pgTable(
  'import_run',
  {
    importRunId: uuid('import_run_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    /** Name of the file, for people and to find the run that is to be resumed. */
    source: text('source').notNull(),
    format: text('format').notNull(),
    state: text('state').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    byteOffset: bigint('byte_offset', { mode: 'number' }).notNull().default(0),
    linesRead: bigint('lines_read', { mode: 'number' }).notNull().default(0),
    linesRefused: bigint('lines_refused', { mode: 'number' }).notNull().default(0),
    /** SHA-256 over the head of the file: the same name with other content is another import. */
    fingerprint: bytea('fingerprint').notNull(),
  },
  (table) => [
    index('import_run_organization_id_idx').on(table.organizationId, table.importRunId),
    check('import_run_format_check', sql`${table.format} in ('csv', 'ndjson')`),
    check('import_run_state_check', sql`${table.state} in ('running', 'done', 'failed')`),
  ],
);

/** A line that an import refused, and why. */
export const importRefusal = pgTable(
  'import_refusal',
  {
    importRunId: uuid('import_run_id')
      .notNull()
      .references(() => importRun.importRunId, { onDelete: 'cascade' }),
    /** Line of the file, from 1. */
    line: bigint('line', { mode: 'number' }).notNull(),
    organizationId: integer('organization_id').notNull(),
    code: text('code').notNull(),
    detail: text('detail').notNull(),
    /** The line itself, cut to 1 024 characters. */
    content: text('content').notNull(),
  },
  (table) => [
    primaryKey({ name: 'import_refusal_pkey', columns: [table.importRunId, table.line] }),
  ],
);
