import { sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
  check,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';
import { at, bytea } from './columns.ts';
import { apiKey, device } from './schema.ts';

/** A device that is deleted takes its rows with it. */
const ofDevice = () =>
  integer('device_id')
    .notNull()
    .references(() => device.deviceId, { onDelete: 'cascade' });

/**
 * The configuration of a device. `desired` is what people set for this device; `document` what it is
 * sent: the defaults of its type with `desired` over them. `reported` is what it said is in effect.
 */
export const deviceConfiguration = pgTable(
  'device_configuration',
  {
    deviceId: ofDevice().primaryKey(),
    organizationId: integer('organization_id').notNull(),
    desired: jsonb('desired').notNull(),
    document: jsonb('document').notNull(),
    version: bigint('version', { mode: 'number' }).notNull(),
    changedAt: at('changed_at').notNull(),
    changedBy: text('changed_by').notNull(),
    reportedVersion: bigint('reported_version', { mode: 'number' }),
    isApplied: boolean('is_applied'),
    reported: jsonb('reported'),
    reportedMessage: text('reported_message'),
    reportedAt: at('reported_at'),
    /** The slot is as it should be up to this version; null: it has to be looked at. */
    publishedVersion: bigint('published_version', { mode: 'number' }),
    /** The type, and the version of its defaults, that `document` was made with. */
    deviceType: text('device_type'),
    typeVersion: integer('type_version').notNull().default(0),
    /** Why `document` is not what it should be by now: `code`, and `bytes` or `detail`. */
    held: jsonb('held'),
    /** Since when the device has not had what it should; null: it has. */
    differsSince: at('differs_since'),
  },
  (table) => [
    index('device_configuration_organization_id_idx').on(table.organizationId, table.deviceId),
    index('device_configuration_differs_idx')
      .on(table.organizationId, table.differsSince)
      .where(sql`${table.differsSince} is not null`),
    index('device_configuration_unpublished_idx')
      .on(table.deviceId)
      .where(sql`${table.publishedVersion} is distinct from ${table.version}`),
  ],
);

/** What the configuration of a device was; never changed. */
export const deviceConfigurationVersion = pgTable(
  'device_configuration_version',
  {
    deviceId: ofDevice(),
    version: bigint('version', { mode: 'number' }).notNull(),
    organizationId: integer('organization_id').notNull(),
    desired: jsonb('desired').notNull(),
    document: jsonb('document').notNull(),
    /**
     * `device`: somebody set it; `type`: the defaults of its type, or its type, changed; `number`: nothing
     * but the number, because the device knew a higher one.
     */
    cause: text('cause').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
  },
  (table) => [
    primaryKey({
      name: 'device_configuration_version_pkey',
      columns: [table.deviceId, table.version],
    }),
    check(
      'device_configuration_version_cause_check',
      sql`${table.cause} in ('device', 'type', 'number')`,
    ),
  ],
);

/** What devices of a type are configured with where nothing is set for them, and what may be set. */
export const configurationType = pgTable(
  'configuration_type',
  {
    organizationId: integer('organization_id').notNull(),
    deviceType: text('device_type').notNull(),
    defaults: jsonb('defaults').notNull(),
    /** JSON Schema of the whole document; null: anything. */
    schema: jsonb('schema'),
    version: integer('version').notNull(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    updatedBy: text('updated_by').notNull(),
  },
  (table) => [
    primaryKey({
      name: 'configuration_type_pkey',
      columns: [table.organizationId, table.deviceType],
    }),
  ],
);

/** A change of a device's key that is under way: one for each device. */
export const keyRotation = pgTable(
  'key_rotation',
  {
    deviceId: ofDevice().primaryKey(),
    organizationId: integer('organization_id').notNull(),
    oldKeyId: text('old_key_id').notNull(),
    /** Null until the board asked for it. */
    newKeyId: text('new_key_id'),
    commandId: uuid('command_id'),
    campaignId: uuid('campaign_id'),
    askedAt: at('asked_at').notNull(),
    issuedAt: at('issued_at'),
    /** When the new key was used first; from then on the old one has its grace. */
    activatedAt: at('activated_at'),
    /** When the old key was used last behind that. */
    oldUsedAt: at('old_used_at'),
    endsAt: at('ends_at').notNull(),
  },
  (table) => [
    index('key_rotation_new_key_id_idx').on(table.newKeyId),
    index('key_rotation_ends_at_idx').on(table.endsAt),
  ],
);

/** What boards with a claim key may make of themselves. */
export const claimPolicy = pgTable(
  'claim_policy',
  {
    keyId: text('key_id')
      .primaryKey()
      .references(() => apiKey.keyId, { onDelete: 'cascade' }),
    organizationId: integer('organization_id').notNull(),
    quota: integer('quota').notNull(),
    claimed: integer('claimed').notNull().default(0),
    deviceType: text('device_type'),
    tags: text('tags').array().notNull(),
    /** Models that may claim; null: any. */
    models: text('models').array(),
    needsApproval: boolean('needs_approval').notNull(),
  },
  (table) => [index('claim_policy_organization_id_idx').on(table.organizationId)],
);

/** A board that asked for a name and a key. */
export const deviceClaim = pgTable(
  'device_claim',
  {
    organizationId: integer('organization_id').notNull(),
    hardwareId: text('hardware_id').notNull(),
    keyId: text('key_id').notNull(),
    model: text('model'),
    state: text('state').notNull(),
    address: text('address').notNull(),
    requestedAt: at('requested_at').notNull(),
    decidedAt: at('decided_at'),
    decidedBy: text('decided_by'),
  },
  (table) => [
    primaryKey({ name: 'device_claim_pkey', columns: [table.organizationId, table.hardwareId] }),
    index('device_claim_key_id_idx').on(table.keyId),
    check(
      'device_claim_state_check',
      sql`${table.state} in ('waiting', 'approved', 'denied', 'issued')`,
    ),
  ],
);

/** A firmware image; its bytes are in `firmware_part`. */
export const firmwareImage = pgTable(
  'firmware_image',
  {
    firmwareId: uuid('firmware_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    model: text('model').notNull(),
    version: text('version').notNull(),
    state: text('state').notNull(),
    byteCount: integer('byte_count').notNull(),
    sha256: bytea('sha256').notNull(),
    /** Ed25519 over the image. */
    signature: bytea('signature'),
    signerId: text('signer_id'),
    notes: text('notes').notNull().default(''),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
  },
  (table) => [
    uniqueIndex('firmware_image_version_key')
      .on(table.organizationId, table.model, table.version)
      .where(sql`${table.state} <> 'withdrawn'`),
    index('firmware_image_organization_id_idx').on(table.organizationId, table.firmwareId),
    check('firmware_image_state_check', sql`${table.state} in ('ready', 'withdrawn')`),
  ],
);

/** A part of an image, in order. */
export const firmwarePart = pgTable(
  'firmware_part',
  {
    firmwareId: uuid('firmware_id')
      .notNull()
      .references(() => firmwareImage.firmwareId, { onDelete: 'cascade' }),
    part: integer('part').notNull(),
    organizationId: integer('organization_id').notNull(),
    content: bytea('content').notNull(),
  },
  (table) => [primaryKey({ name: 'firmware_part_pkey', columns: [table.firmwareId, table.part] })],
);

/** Whose signatures of images are believed. */
export const firmwareSigner = pgTable(
  'firmware_signer',
  {
    organizationId: integer('organization_id').notNull(),
    signerId: text('signer_id').notNull(),
    /** Raw Ed25519 public key, 32 bytes. */
    publicKey: bytea('public_key').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
    revokedAt: at('revoked_at'),
  },
  (table) => [
    primaryKey({ name: 'firmware_signer_pkey', columns: [table.organizationId, table.signerId] }),
  ],
);

/** An update of one device, from the command to the greeting of the new image. */
export const deviceUpdate = pgTable(
  'device_update',
  {
    updateId: uuid('update_id').primaryKey(),
    /** Null until the command is known; its `ref` is the id of the update. */
    commandId: uuid('command_id'),
    organizationId: integer('organization_id').notNull(),
    deviceId: ofDevice(),
    firmwareId: uuid('firmware_id').notNull(),
    campaignId: uuid('campaign_id'),
    fromVersion: text('from_version'),
    state: text('state').notNull(),
    /** Highest byte that was sent of the image. */
    bytesSent: integer('bytes_sent').notNull().default(0),
    /** Boots of the device since it took the image, as far as it counts them. */
    boots: integer('boots').notNull().default(0),
    /** Boot in which it took the image; null when it does not count. */
    bootBefore: bigint('boot_before', { mode: 'number' }),
    /** Boot in which it greeted with the new version. */
    bootAfter: bigint('boot_after', { mode: 'number' }),
    code: text('code'),
    detail: text('detail'),
    startedAt: at('started_at').notNull(),
    /** When the device was sent the command, or said last that it works on it. */
    heardAt: at('heard_at'),
    /** The same, or when bytes were sent to it last. */
    activeAt: at('active_at'),
    changedAt: at('changed_at').notNull(),
    endedAt: at('ended_at'),
  },
  (table) => [
    index('device_update_device_id_idx').on(table.deviceId, table.startedAt),
    uniqueIndex('device_update_open_key')
      .on(table.deviceId)
      .where(sql`${table.endedAt} is null`),
    uniqueIndex('device_update_command_id_key')
      .on(table.commandId)
      .where(sql`${table.commandId} is not null`),
    index('device_update_campaign_id_idx')
      .on(table.campaignId, table.deviceId)
      .where(sql`${table.campaignId} is not null`),
    index('device_update_firmware_id_idx').on(table.firmwareId),
    check(
      'device_update_state_check',
      sql`${table.state} in ('offered', 'downloading', 'installing', 'succeeded', 'failed', 'rolled_back')`,
    ),
  ],
);
