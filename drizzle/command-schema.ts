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
  smallint,
  text,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core';
import { at, bytea } from './columns.ts';
import { device } from './schema.ts';

/** A device that is deleted takes its rows with it. */
const ofDevice = () =>
  integer('device_id')
    .notNull()
    .references(() => device.deviceId, { onDelete: 'cascade' });

/**
 * A command for a device. `wire_id` is the id in the device's slot, given when the command enters it;
 * `queue_number` the order in the queue,
 * set to its DEFAULT to stand at the end anew. `boot` is the boot of the device in which it began to run.
 * `is_late`: the device said so after the command had expired or been cancelled.
 */
export const command = pgTable(
  'command',
  {
    commandId: uuid('command_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    deviceId: ofDevice(),
    queueNumber: bigint('queue_number', { mode: 'number' }).generatedByDefaultAsIdentity(),
    name: text('name').notNull(),
    args: jsonb('args').notNull(),
    state: text('state').notNull(),
    wireId: bigint('wire_id', { mode: 'number' }),
    /** What an integrator calls it; comes back in events. */
    ref: text('ref'),
    /** A newer queued command with the same value takes its place. */
    replaceKey: text('replace_key'),
    /** Whether it may be executed again when the device reboots in the middle. */
    isRetrySafe: boolean('is_retry_safe').notNull(),
    /** How often it has entered the slot. */
    attempts: smallint('attempts').notNull().default(0),
    precondition: jsonb('precondition'),
    createdAt: at('created_at').notNull().defaultNow(),
    expiresAt: at('expires_at').notNull(),
    publishedAt: at('published_at'),
    sentAt: at('sent_at'),
    startedAt: at('started_at'),
    endedAt: at('ended_at'),
    boot: bigint('boot', { mode: 'number' }),
    /** Percent, while it runs. */
    progress: smallint('progress'),
    result: jsonb('result'),
    /** Why it ended as it did, for programs. */
    code: text('code'),
    /** Why, for people. */
    message: text('message'),
    isLate: boolean('is_late').notNull().default(false),
    origin: text('origin').notNull(),
    actor: text('actor').notNull(),
    campaignId: uuid('campaign_id'),
    idempotencyKey: text('idempotency_key'),
    /** SHA-256 of the request: the same key with another request is a mistake. */
    requestHash: bytea('request_hash'),
    approvedBy: text('approved_by'),
    approvedAt: at('approved_at'),
    cancelAskedAt: at('cancel_asked_at'),
  },
  (table) => [
    index('command_organization_id_idx').on(table.organizationId, table.commandId),
    index('command_device_id_idx').on(table.deviceId, table.commandId),
    // Nearly all commands have succeeded: those are found soon without it.
    index('command_state_idx')
      .on(table.organizationId, table.state, table.commandId)
      .where(sql`${table.state} <> 'succeeded'`),
    index('command_queue_idx')
      .on(table.deviceId, table.queueNumber)
      .where(sql`${table.state} = 'queued'`),
    index('command_expires_at_idx')
      .on(table.expiresAt)
      .where(sql`${table.state} in ('awaiting_approval', 'queued', 'published', 'sent')`),
    index('command_running_idx')
      .on(table.startedAt)
      .where(sql`${table.state} = 'running'`),
    index('command_ended_at_idx').on(table.endedAt),
    index('command_campaign_id_idx')
      .on(table.campaignId)
      .where(sql`${table.campaignId} is not null`),
    uniqueIndex('command_wire_id_key')
      .on(table.deviceId, table.wireId)
      .where(sql`${table.wireId} is not null`),
    uniqueIndex('command_idempotency_key')
      .on(table.organizationId, table.idempotencyKey)
      .where(sql`${table.idempotencyKey} is not null`),
    check(
      'command_state_check',
      sql`${table.state} in ('awaiting_approval', 'queued', 'published', 'sent', 'running',
        'succeeded', 'failed', 'rejected', 'expired', 'cancelled', 'unknown')`,
    ),
    check(
      'command_origin_check',
      sql`${table.origin} in ('api', 'mqtt', 'rule', 'campaign', 'key', 'update')`,
    ),
  ],
);

/**
 * The one retained slot of a device. Whoever changes its queue holds this row. `last_id` is the highest
 * id that is known to have been used; `head_command_id` what stands in the slot; `revision` rises with
 * each change of what stands there.
 */
export const commandSlot = pgTable(
  'command_slot',
  {
    deviceId: ofDevice().primaryKey(),
    organizationId: integer('organization_id').notNull(),
    lastId: bigint('last_id', { mode: 'number' }).notNull().default(0),
    headCommandId: uuid('head_command_id'),
    revision: bigint('revision', { mode: 'number' }).notNull().default(0),
    /** Whether the device spells its topics `v1/me/…`; the size of its packets depends on it. */
    usesAlias: boolean('uses_alias').notNull().default(true),
    /** Boot counter that the device said last. */
    boot: bigint('boot', { mode: 'number' }),
  },
  (table) => [
    index('command_slot_head_idx')
      .on(table.deviceId)
      .where(sql`${table.headCommandId} is not null`),
  ],
);

/** What became of commands, step by step. `told_at` is null until it was published on `cmd/{uuid}`. */
export const commandEvent = pgTable(
  'command_event',
  {
    commandEventId: bigint('command_event_id', { mode: 'number' })
      .primaryKey()
      .generatedAlwaysAsIdentity(),
    commandId: uuid('command_id')
      .notNull()
      .references(() => command.commandId, { onDelete: 'cascade' }),
    organizationId: integer('organization_id').notNull(),
    deviceId: integer('device_id').notNull(),
    occurredAt: at('occurred_at').notNull(),
    state: text('state').notNull(),
    /** `code`, `msg`, `pct`, `r`, `late`, `actor`, where there is something to say. */
    detail: jsonb('detail').notNull(),
    toldAt: at('told_at'),
  },
  (table) => [
    index('command_event_command_id_idx').on(table.commandId, table.commandEventId),
    index('command_event_untold_idx')
      .on(table.commandEventId)
      .where(sql`${table.toldAt} is null`),
  ],
);

/** What a command of a type of devices takes. `device_type` `''` is for devices of any type. */
export const commandDefinition = pgTable(
  'command_definition',
  {
    organizationId: integer('organization_id').notNull(),
    deviceType: text('device_type').notNull(),
    name: text('name').notNull(),
    description: text('description').notNull().default(''),
    /** JSON Schema of the arguments. */
    schema: jsonb('schema').notNull(),
    /** A second person has to agree. */
    needsApproval: boolean('needs_approval').notNull().default(false),
    isRetrySafe: boolean('is_retry_safe').notNull().default(false),
    ttlMs: bigint('ttl_ms', { mode: 'number' }),
    updatedAt: at('updated_at').notNull().defaultNow(),
    updatedBy: text('updated_by').notNull(),
  },
  (table) => [
    primaryKey({
      name: 'command_definition_pkey',
      columns: [table.organizationId, table.deviceType, table.name],
    }),
  ],
);

/** The same thing done to many devices, in waves. `policy` says how fast and when to stop. */
export const campaign = pgTable(
  'campaign',
  {
    campaignId: uuid('campaign_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    kind: text('kind').notNull(),
    name: text('name').notNull(),
    state: text('state').notNull(),
    request: jsonb('request').notNull(),
    policy: jsonb('policy').notNull(),
    /** The wave under way, from 0, the canary. */
    wave: integer('wave').notNull().default(0),
    waveStartedAt: at('wave_started_at'),
    stopCode: text('stop_code'),
    stopReason: text('stop_reason'),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    endedAt: at('ended_at'),
    idempotencyKey: text('idempotency_key'),
    requestHash: bytea('request_hash'),
  },
  (table) => [
    index('campaign_organization_id_idx').on(table.organizationId, table.campaignId),
    index('campaign_open_idx')
      .on(table.campaignId)
      .where(sql`${table.endedAt} is null`),
    uniqueIndex('campaign_idempotency_key')
      .on(table.organizationId, table.idempotencyKey)
      .where(sql`${table.idempotencyKey} is not null`),
    check('campaign_kind_check', sql`${table.kind} in ('command', 'rekey', 'update')`),
    check(
      'campaign_state_check',
      sql`${table.state} in ('running', 'paused', 'stopped', 'completed', 'cancelled')`,
    ),
  ],
);

/** One device of a campaign. `facts` is what the judge of its kind remembers, such as the version before. */
export const campaignDevice = pgTable(
  'campaign_device',
  {
    campaignId: uuid('campaign_id')
      .notNull()
      .references(() => campaign.campaignId, { onDelete: 'cascade' }),
    deviceId: ofDevice(),
    organizationId: integer('organization_id').notNull(),
    wave: integer('wave').notNull(),
    position: integer('position').notNull(),
    state: text('state').notNull(),
    commandId: uuid('command_id'),
    code: text('code'),
    detail: text('detail'),
    facts: jsonb('facts').notNull(),
    startedAt: at('started_at'),
    endedAt: at('ended_at'),
  },
  (table) => [
    primaryKey({ name: 'campaign_device_pkey', columns: [table.campaignId, table.deviceId] }),
    index('campaign_device_state_idx').on(table.campaignId, table.state, table.position),
    index('campaign_device_device_id_idx').on(table.deviceId),
    check(
      'campaign_device_state_check',
      sql`${table.state} in ('waiting', 'active', 'succeeded', 'failed', 'skipped')`,
    ),
  ],
);

/** What an action of a rule did for an alert, or why it did nothing. */
export const ruleActionRun = pgTable(
  'rule_action_run',
  {
    alertId: uuid('alert_id').notNull(),
    /** Place of the action in its rule, from 0. */
    action: smallint('action').notNull(),
    /** Step of the alert that asked for it. */
    sequence: integer('sequence').notNull(),
    organizationId: integer('organization_id').notNull(),
    ruleId: integer('rule_id').notNull(),
    /** The device that the command was for. */
    deviceId: ofDevice(),
    occurredAt: at('occurred_at').notNull(),
    outcome: text('outcome').notNull(),
    /** Why nothing was sent, or what would have been. */
    detail: text('detail').notNull(),
    commandId: uuid('command_id'),
    /** How many actions in a row had led to it, this one included. */
    depth: smallint('depth').notNull(),
  },
  (table) => [
    primaryKey({
      name: 'rule_action_run_pkey',
      columns: [table.alertId, table.action, table.sequence],
    }),
    index('rule_action_run_rule_id_idx').on(table.ruleId, table.occurredAt),
    index('rule_action_run_device_id_idx').on(table.deviceId, table.occurredAt),
    check(
      'rule_action_run_outcome_check',
      sql`${table.outcome} in ('sent', 'simulated', 'blocked')`,
    ),
  ],
);
