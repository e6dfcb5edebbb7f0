import { randomBytes, randomUUID } from 'node:crypto';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { loadConfig } from '../../config.ts';
import type { Database } from '../../drizzle/database.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Severity } from '../../rules/severity.ts';
import { notifyLimits, type NotifyLimits } from '../../rules/notify/limits.ts';
import type {
  NotificationMessage,
  SenderReceiver,
  Senders,
  SendOutcome,
} from '../../rules/notify/message.ts';
import { NotifyMetrics } from '../../rules/notify/metrics.ts';
import { Notifier } from '../../rules/notify/notifier.ts';
import { flushDue } from '../../rules/notify/flush.ts';
import { takeOutbox } from '../../rules/notify/outbox.ts';
import { routeSchema } from '../../rules/notify/route-definition.ts';
import { createSenders } from '../../rules/notify/senders.ts';
import { Secrets } from '../../rules/notify/secrets.ts';
import { createNotifyStores, type NotifyStores } from '../../rules/notify/stores.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';
import { createOrganization, createTestRegistry, type TestOrganization } from './registry.ts';

const START_MS = Date.parse('2026-03-02T12:00:00Z');
const HOOK = 'https://example.com/hook';
/** Of receivers that tests make. */
export const SECRET = 'a secret of sixteen';

/** What a faked sender was given. */
export interface Sent {
  readonly receiver: SenderReceiver;
  readonly message: NotificationMessage;
}

/** Answers attempts in place of real senders. */
export type FakeSend = (sent: Sent, signal: AbortSignal) => Promise<SendOutcome>;

/** Senders of all kinds that one function stands for. */
export function fakeSenders(send: FakeSend): Senders {
  const sender = {
    send: (receiver: SenderReceiver, message: NotificationMessage, signal: AbortSignal) =>
      send({ receiver, message }, signal),
  };
  return {
    webhook: sender,
    email: sender,
    mqtt: sender,
    slack: sender,
    telegram: sender,
    ntfy: sender,
  };
}

/** The senders of the product, which may reach this machine. */
export function realSenders(): Senders {
  return createSenders({
    privateAddresses: '127.0.0.0/8',
    isHttpAllowed: true,
    httpTimeoutMs: 1000,
    mqtt: {
      topics: { repeat: () => Promise.resolve() },
      publisher: { publish: () => Promise.resolve() },
    },
  });
}

/**
 * Stores whose senders always succeed. Webhooks are checked as in the product; all names resolve but those
 * under `.invalid`.
 */
export function testNotifyStores(database: Database, now: () => number): NotifyStores {
  const { webhook } = createSenders({
    privateAddresses: '',
    isHttpAllowed: false,
    resolve: (host) =>
      host.endsWith('.invalid')
        ? Promise.reject(Object.assign(new Error(host), { code: 'ENOTFOUND' }))
        : Promise.resolve(['93.184.215.14']),
    mqtt: {
      topics: { repeat: () => Promise.resolve() },
      publisher: { publish: () => Promise.resolve() },
    },
  });
  const senders = fakeSenders(() => Promise.resolve({ ok: true }));
  const check: NonNullable<typeof webhook.check> = async (receiver) =>
    (await webhook.check?.(receiver)) ?? { fault: null, warning: null };
  return createNotifyStores({
    database,
    writeAudit,
    senders: { ...senders, webhook: { ...senders.webhook, check } },
    secrets: new Secrets([randomBytes(32)]),
    limits: testLimits(),
    now,
    wake: () => undefined,
  });
}

/** The bounds of the product, for tests to change. */
export function testLimits(changed: Partial<NotifyLimits> = {}): NotifyLimits {
  return { ...notifyLimits(loadConfig({})), ...changed };
}

/** An alert as a test makes it. */
export interface TestAlert {
  readonly rule?: string;
  readonly device?: string;
  readonly severity?: Severity;
  readonly labels?: Record<string, string>;
  readonly suppressedBy?: readonly { readonly rule: string; readonly device?: string }[];
  readonly isShadow?: boolean;
  readonly atMs?: number;
}

/** Notifications on a database of their own, with a clock that the test holds. */
export interface TestNotify {
  readonly test: TestDatabase;
  readonly acme: TestOrganization;
  readonly other: TestOrganization;
  readonly stores: NotifyStores;
  readonly limits: NotifyLimits;
  readonly secrets: Secrets;
  readonly metricsRegistry: MetricsRegistry;
  readonly logged: string[];
  /** What was sent, in order; see `answer`. */
  readonly sent: Sent[];
  /** What senders answer. */
  answer: FakeSend;
  nowMs: number;
  /** Writes an alert that begins to fire, as the alert log would. @returns its id. */
  fire(alert?: TestAlert): Promise<string>;
  /** Takes a step of an alert. */
  step(alertId: string, to: 'firing' | 'inactive', severity?: Severity): Promise<void>;
  /** Takes the outbox, flushes groups that are due. */
  decide(): Promise<void>;
  /** All messages that were decided on, oldest first. */
  messages(): Promise<MessageRow[]>;
  /** A notifier of this database; it is to be stopped by the test. */
  notifier(changed?: Partial<ConstructorParameters<typeof Notifier>[0]>): Notifier;
  /** A receiver, and a route to it. @returns the id of the receiver. */
  tell(route?: Record<string, unknown>, name?: string, url?: string): Promise<string>;
  /** Forgets alerts, receivers, routes and all that was told; the clock stands as at first. */
  reset(): Promise<void>;
  stop(): Promise<void>;
}

/** A row of notification. */
export interface MessageRow {
  notification_id: string;
  receiver_id: string;
  kind: string;
  state: string;
  reason: string | null;
  attempts: number;
  content: NotificationMessage;
  next_attempt_at: Date | null;
}

/** Makes it. The clock stands at 2026-03-02T12:00:00Z. */
export async function createTestNotify(changed: Partial<NotifyLimits> = {}): Promise<TestNotify> {
  const test = await createTestDatabase();
  const { database } = test;
  const registry = createTestRegistry(database, 1000);
  const acme = await createOrganization(database, 'acme');
  const other = await createOrganization(database, 'other');
  const limits = testLimits(changed);
  const metricsRegistry = new MetricsRegistry();
  const secrets = new Secrets([randomBytes(32)]);
  const logged: string[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) });
  const sent: Sent[] = [];
  const senders = fakeSenders((each, signal) => {
    sent.push(each);
    return t.answer(each, signal);
  });
  const now = (): number => t.nowMs;
  const metrics = new NotifyMetrics(metricsRegistry, () => ({
    outboxSteps: 0,
    waitingMessages: 0,
    inFlightMessages: 0,
    openCircuits: 0,
  }));
  const parts = { database, limits, metrics, log };
  const stores = createNotifyStores({
    database,
    writeAudit,
    senders,
    secrets,
    limits,
    now,
    wake: () => undefined,
  });
  const { organizationId } = acme.author;
  const rules = new Map<string, number>();
  const devices = new Map<string, number>();

  async function ruleId(name: string, definition: object): Promise<number> {
    const known = rules.get(name);
    if (known !== undefined) return known;
    const { rows } = await database.pool.query(
      `INSERT INTO alert_rule (public_id, organization_id, name, mode, version, revision)
       VALUES ($1, $2, $3, 'enabled', 1, 1) RETURNING rule_id`,
      [randomUUID(), organizationId, name],
    );
    await database.pool.query(
      `INSERT INTO alert_rule_version (rule_id, version, organization_id, definition, created_by)
       VALUES ($1, 1, $2, $3, 'test')`,
      [rows[0].rule_id, organizationId, JSON.stringify(definition)],
    );
    rules.set(name, rows[0].rule_id);
    return rows[0].rule_id;
  }

  async function deviceId(slug: string): Promise<number> {
    const known = devices.get(slug);
    if (known !== undefined) return known;
    const made = await registry.devices.create(acme.author, { slug, tags: ['hall-3'] });
    devices.set(slug, made.deviceId);
    return made.deviceId;
  }

  const t: TestNotify = {
    test,
    acme,
    other,
    stores,
    limits,
    secrets,
    metricsRegistry,
    logged,
    sent,
    answer: () => Promise.resolve({ ok: true }),
    nowMs: START_MS,

    async fire({
      rule = 'too hot',
      device = 'boiler-7',
      severity = 'high',
      labels = {},
      suppressedBy = [],
      isShadow = false,
      atMs = t.nowMs,
    } = {}) {
      const alertId = randomUUID();
      const ids = [await ruleId(rule, { suppressedBy }), await deviceId(device)];
      await database.pool.query(
        `INSERT INTO alert (alert_id, organization_id, rule_id, rule_version, device_id, state,
           severity, value, labels, annotations, active_at, fired_at, changed_at, is_shadow)
         VALUES ($1, $2, $3, 1, $4, 'firing', $5, 91.5, $6, $7, $8, $8, $8, $9)`,
        [
          alertId,
          organizationId,
          ...ids,
          severity,
          labels,
          { summary: `${device} is too hot` },
          new Date(atMs),
          isShadow,
        ],
      );
      await writeStep(alertId, { from: 'inactive', to: 'firing', severity, atMs });
      return alertId;
    },

    async step(alertId, to, severity) {
      const { rows } = await database.pool.query('SELECT * FROM alert WHERE alert_id = $1', [
        alertId,
      ]);
      const next = severity ?? rows[0].severity;
      await database.pool.query(
        `UPDATE alert SET state = $2, severity = $3, changed_at = $4, sequence = sequence + 1,
           resolved_at = CASE WHEN $2 = 'resolved' THEN $4::timestamptz END
         WHERE alert_id = $1`,
        [alertId, to === 'firing' ? 'firing' : 'resolved', next, new Date(t.nowMs)],
      );
      const step = { from: 'firing', to, severity: next, atMs: t.nowMs };
      await writeStep(alertId, step);
    },

    async decide() {
      for (;;) {
        const taken = await takeOutbox(parts, t.nowMs);
        const flushed = await flushDue(parts, t.nowMs);
        if (taken + flushed === 0) return;
      }
    },

    async messages() {
      const { rows } = await database.pool.query<MessageRow>(
        `SELECT * FROM notification WHERE state <> 'suppressed' ORDER BY created_at, notification_id`,
      );
      return rows;
    },

    notifier: (more = {}) =>
      new Notifier({
        database,
        senders,
        secrets,
        limits,
        registry: new MetricsRegistry(),
        log,
        now,
        ...more,
      }),

    async tell(route = {}, name = `receiver-${randomBytes(3).toString('hex')}`, url = HOOK) {
      const { receiverId } = await stores.receivers.create(acme.author, {
        name,
        kind: 'webhook',
        settings: { url },
        secret: SECRET,
      });
      const definition = routeSchema.parse({
        name,
        receivers: [receiverId],
        groupWait: '0s',
        ...route,
      });
      await stores.routes.create(acme.author, { definition });
      return receiverId;
    },

    async reset() {
      await database.pool.query(
        `TRUNCATE alert, alert_note, alert_transition, notification, notification_alert,
           notification_group, notification_route, notification_policy, receiver, silence`,
      );
      sent.length = 0;
      t.nowMs = START_MS;
      t.answer = () => Promise.resolve({ ok: true });
    },

    async stop() {
      await registry.stop();
      await test.drop();
    },
  };

  async function writeStep(
    alertId: string,
    step: { from: string; to: string; severity: string; atMs: number },
  ): Promise<void> {
    const reason = step.from === step.to ? 'severity_raised' : 'condition_holds';
    await database.pool.query(
      `INSERT INTO alert_transition (alert_id, sequence, organization_id, rule_id, rule_version,
         device_id, at, from_state, to_state, severity, reason, detail, recorded_at)
       SELECT alert_id, sequence, organization_id, rule_id, rule_version, device_id, $2, $3, $4, $5,
              $6, '{}', $2
       FROM alert WHERE alert_id = $1`,
      [alertId, new Date(step.atMs), step.from, step.to, step.severity, reason],
    );
  }
  return t;
}
