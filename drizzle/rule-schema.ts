import { sql } from 'drizzle-orm';
import {
  bigint,
  boolean,
  check,
  doublePrecision,
  foreignKey,
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

/**
 * An alert rule. `rule_id` is the key inside, `public_id` the one of the API. `version` is the one in
 * force. `suspended_at`: the program has stopped evaluating it, for the reason beside it. `revision`
 * rises with every change of any rule: who keeps rules in memory asks for what is higher.
 */
export const alertRule = pgTable(
  'alert_rule',
  {
    ruleId: integer('rule_id').primaryKey().generatedAlwaysAsIdentity(),
    publicId: uuid('public_id').notNull(),
    organizationId: integer('organization_id').notNull(),
    name: text('name').notNull(),
    mode: text('mode').notNull(),
    version: integer('version').notNull(),
    revision: bigint('revision', { mode: 'number' }).notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
    suspendedAt: at('suspended_at'),
    suspendedReason: text('suspended_reason'),
    deletedAt: at('deleted_at'),
  },
  (table) => [
    uniqueIndex('alert_rule_public_id_key').on(table.publicId),
    uniqueIndex('alert_rule_organization_id_name_key')
      .on(table.organizationId, table.name)
      .where(sql`${table.deletedAt} is null`),
    index('alert_rule_revision_idx').on(table.revision),
    check('alert_rule_mode_check', sql`${table.mode} in ('enabled', 'disabled', 'shadow')`),
  ],
);

/** What a rule said, for each version; never changed and never deleted. */
export const alertRuleVersion = pgTable(
  'alert_rule_version',
  {
    ruleId: integer('rule_id')
      .notNull()
      .references(() => alertRule.ruleId, { onDelete: 'cascade' }),
    version: integer('version').notNull(),
    organizationId: integer('organization_id').notNull(),
    /** As the API has it. */
    definition: jsonb('definition').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    createdBy: text('created_by').notNull(),
  },
  (table) => [
    primaryKey({ name: 'alert_rule_version_pkey', columns: [table.ruleId, table.version] }),
  ],
);

/**
 * An alert: one rule held for one device, from `active_at` to its end. `alert_id` is made of rule,
 * device, group key and `active_at`, so that whoever evaluates the same readings makes the same alert.
 * At most one is open for each (rule, device, group key). `snapshot` is what the program needs to go on
 * evaluating after a restart. Without foreign keys, as `device_latest`.
 */
export const alert = pgTable(
  'alert',
  {
    alertId: uuid('alert_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    ruleId: integer('rule_id').notNull(),
    ruleVersion: integer('rule_version').notNull(),
    deviceId: integer('device_id').notNull(),
    groupKey: text('group_key').notNull().default(''),
    state: text('state').notNull(),
    severity: text('severity').notNull(),
    /** Of the metric that stands first in the rule, when it fired or, while pending, when that began. */
    value: doublePrecision('value'),
    textValue: text('text_value'),
    labels: jsonb('labels').notNull(),
    annotations: jsonb('annotations').notNull(),
    activeAt: at('active_at').notNull(),
    firedAt: at('fired_at'),
    resolvedAt: at('resolved_at'),
    /** Event time of the last transition. */
    changedAt: at('changed_at').notNull(),
    /** Times that it has fired again while it was open, as `keep_firing_for` allows. */
    occurrences: integer('occurrences').notNull().default(1),
    /** Of the last transition. */
    sequence: integer('sequence').notNull().default(0),
    isShadow: boolean('is_shadow').notNull().default(false),
    /** Found later, in readings that came late; nobody was told. */
    isHistorical: boolean('is_historical').notNull().default(false),
    snapshot: jsonb('snapshot'),
    acknowledgedAt: at('acknowledged_at'),
    acknowledgedBy: text('acknowledged_by'),
    assignee: text('assignee'),
    snoozedUntil: at('snoozed_until'),
    /** What people say of it afterwards: `true` or `false` alert; null when nobody has said. */
    verdict: boolean('verdict'),
    verdictBy: text('verdict_by'),
    verdictAt: at('verdict_at'),
  },
  (table) => [
    uniqueIndex('alert_open_key')
      .on(table.ruleId, table.deviceId, table.groupKey)
      .where(sql`${table.state} in ('pending', 'firing') and not ${table.isHistorical}`),
    index('alert_organization_id_idx').on(table.organizationId, table.activeAt, table.alertId),
    // What is open is asked for most, and little of what there is.
    index('alert_open_idx')
      .on(table.organizationId, table.activeAt, table.alertId)
      .where(sql`${table.state} in ('pending', 'firing')`),
    index('alert_device_id_idx').on(table.deviceId, table.activeAt),
    index('alert_changed_at_idx').on(table.deviceId, table.changedAt),
    index('alert_rule_id_idx').on(table.ruleId, table.activeAt),
    check(
      'alert_state_check',
      sql`${table.state} in ('pending', 'firing', 'resolved', 'inactive')`,
    ),
  ],
);

/**
 * Every step of an alert and why it was taken. `detail` holds operands, sample times and timers, 1 KB at
 * most. `notified_at` is null until the notification stages have seen it: this is their queue.
 */
export const alertTransition = pgTable(
  'alert_transition',
  {
    alertId: uuid('alert_id').notNull(),
    /** From 0, without a gap. */
    sequence: integer('sequence').notNull(),
    organizationId: integer('organization_id').notNull(),
    ruleId: integer('rule_id').notNull(),
    ruleVersion: integer('rule_version').notNull(),
    deviceId: integer('device_id').notNull(),
    /** Event time. */
    at: at('at').notNull(),
    fromState: text('from_state').notNull(),
    toState: text('to_state').notNull(),
    severity: text('severity').notNull(),
    reason: text('reason').notNull(),
    detail: jsonb('detail').notNull(),
    isHistorical: boolean('is_historical').notNull().default(false),
    recordedAt: at('recorded_at').notNull().defaultNow(),
    notifiedAt: at('notified_at'),
  },
  (table) => [
    primaryKey({ name: 'alert_transition_pkey', columns: [table.alertId, table.sequence] }),
    index('alert_transition_unnotified_idx')
      .on(table.recordedAt, table.alertId, table.sequence)
      .where(sql`${table.notifiedAt} is null`),
    index('alert_transition_rule_id_idx').on(table.ruleId, table.at),
  ],
);

/** What people did with an alert: comments, and who acknowledged, assigned, snoozed or resolved it. */
export const alertNote = pgTable(
  'alert_note',
  {
    alertNoteId: uuid('alert_note_id').primaryKey(),
    alertId: uuid('alert_id')
      .notNull()
      .references(() => alert.alertId, { onDelete: 'cascade' }),
    organizationId: integer('organization_id').notNull(),
    at: at('at').notNull().defaultNow(),
    actor: text('actor').notNull(),
    kind: text('kind').notNull(),
    content: text('content').notNull(),
  },
  (table) => [index('alert_note_alert_id_idx').on(table.alertId, table.alertNoteId)],
);

/**
 * Up to where this program has evaluated what it received, and written what came of it. After a crash
 * readings from behind it are evaluated again.
 */
export const ruleCheckpoint = pgTable('rule_checkpoint', {
  node: text('node').primaryKey(),
  /** Time of receipt. */
  evaluatedUntil: at('evaluated_until').notNull(),
});

/**
 * Until when this program was last known to be up, and its outages before: `[[downMs, backMs], …]`, oldest
 * first, null where nothing is known. Silence of devices in an outage does not count.
 */
export const ruleUptime = pgTable('rule_uptime', {
  node: text('node').primaryKey(),
  upAt: at('up_at').notNull(),
  outages: jsonb('outages').notNull(),
});

/** How long a device usually is silent between two messages; for rules that look for missing ones. */
export const deviceCadence = pgTable('device_cadence', {
  deviceId: integer('device_id').primaryKey(),
  organizationId: integer('organization_id').notNull(),
  gapP99Ms: doublePrecision('gap_p99_ms').notNull(),
  samples: integer('samples').notNull(),
  /** A summary of the gaps, so that learning goes on after a restart. */
  sketch: jsonb('sketch').notNull(),
  lastReceivedAt: at('last_received_at').notNull(),
  updatedAt: at('updated_at').notNull().defaultNow(),
});

/**
 * When nobody is told of alerts that match. `kind` `silence`: once, from `starts_at` to `ends_at`.
 * `maintenance`: at the times of `schedule`, between `starts_at` and `ends_at`.
 */
export const silence = pgTable(
  'silence',
  {
    silenceId: uuid('silence_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    kind: text('kind').notNull(),
    matchers: jsonb('matchers').notNull(),
    schedule: jsonb('schedule'),
    startsAt: at('starts_at').notNull(),
    endsAt: at('ends_at').notNull(),
    comment: text('comment').notNull(),
    createdBy: text('created_by').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
  },
  (table) => [
    index('silence_organization_id_idx').on(table.organizationId, table.endsAt, table.silenceId),
    check('silence_kind_check', sql`${table.kind} in ('silence', 'maintenance')`),
  ],
);

/**
 * Where notifications go. `settings` may be shown; `secret` is encrypted (see rules/notify) and never is.
 */
export const receiver = pgTable(
  'receiver',
  {
    receiverId: uuid('receiver_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    name: text('name').notNull(),
    kind: text('kind').notNull(),
    settings: jsonb('settings').notNull(),
    secret: bytea('secret'),
    /** Which key `secret` is encrypted with. */
    secretKeyId: text('secret_key_id'),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
  },
  (table) => [
    uniqueIndex('receiver_organization_id_name_key').on(table.organizationId, table.name),
    check(
      'receiver_kind_check',
      sql`${table.kind} in ('webhook', 'email', 'mqtt', 'slack', 'telegram', 'ntfy')`,
    ),
  ],
);

/** Which alerts go to which receivers, and when; asked in the order of `position`. */
export const notificationRoute = pgTable(
  'notification_route',
  {
    routeId: uuid('route_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    position: integer('position').notNull(),
    definition: jsonb('definition').notNull(),
    createdAt: at('created_at').notNull().defaultNow(),
    updatedAt: at('updated_at').notNull().defaultNow(),
  },
  (table) => [
    index('notification_route_organization_id_idx').on(
      table.organizationId,
      table.position,
      table.routeId,
    ),
  ],
);

/** How an organization is notified as a whole; no row: as by default. `stopped_at`: the kill switch. */
export const notificationPolicy = pgTable('notification_policy', {
  organizationId: integer('organization_id').primaryKey(),
  stoppedAt: at('stopped_at'),
  stoppedBy: text('stopped_by'),
});

/**
 * Alerts of one route and receiver with the same group labels: what was told of them last, and when the
 * next flush is due.
 */
export const notificationGroup = pgTable(
  'notification_group',
  {
    groupId: uuid('group_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    routeId: uuid('route_id').notNull(),
    receiverId: uuid('receiver_id').notNull(),
    groupKey: text('group_key').notNull(),
    /** Alerts and the state in which they wait, or were told. */
    members: jsonb('members').notNull(),
    toldMembers: jsonb('told_members').notNull(),
    flushAt: at('flush_at'),
    toldAt: at('told_at'),
  },
  (table) => [
    uniqueIndex('notification_group_key').on(table.routeId, table.receiverId, table.groupKey),
    index('notification_group_flush_at_idx').on(table.flushAt),
  ],
);

/** A message to a receiver, from when it was decided on: retried until it is sent or given up. */
export const notification = pgTable(
  'notification',
  {
    notificationId: uuid('notification_id').primaryKey(),
    organizationId: integer('organization_id').notNull(),
    receiverId: uuid('receiver_id').notNull(),
    groupKey: text('group_key').notNull(),
    kind: text('kind').notNull(),
    state: text('state').notNull(),
    /** Why it was not sent, or the last error. */
    reason: text('reason'),
    content: jsonb('content').notNull(),
    attempts: smallint('attempts').notNull().default(0),
    createdAt: at('created_at').notNull().defaultNow(),
    nextAttemptAt: at('next_attempt_at'),
    sentAt: at('sent_at'),
  },
  (table) => [
    index('notification_next_attempt_at_idx')
      .on(table.nextAttemptAt)
      .where(sql`${table.state} = 'waiting'`),
    // The oldest message of each group that waits is asked for whenever there is room to send one.
    index('notification_waiting_idx')
      .on(table.receiverId, table.groupKey, table.notificationId)
      .where(sql`${table.state} = 'waiting'`),
    index('notification_organization_id_idx').on(table.organizationId, table.notificationId),
    check(
      'notification_state_check',
      sql`${table.state} in ('waiting', 'sent', 'dead', 'suppressed')`,
    ),
  ],
);

/** Which notifications speak of an alert, for its history. */
export const notificationAlert = pgTable(
  'notification_alert',
  {
    alertId: uuid('alert_id').notNull(),
    notificationId: uuid('notification_id').notNull(),
    organizationId: integer('organization_id').notNull(),
  },
  (table) => [
    primaryKey({ name: 'notification_alert_pkey', columns: [table.alertId, table.notificationId] }),
    // Without it each notification that is deleted would be looked for in all rows.
    index('notification_alert_notification_id_idx').on(table.notificationId),
    foreignKey({
      name: 'notification_alert_notification_id_fk',
      columns: [table.notificationId],
      foreignColumns: [notification.notificationId],
    }).onDelete('cascade'),
  ],
);
