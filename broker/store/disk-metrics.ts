import type { Registry } from 'prom-client';
import { scrapedCounterBy, scrapedCounters, scrapedGauges } from '../../scraped-metrics.ts';

/** Why a queued message was dropped before its client had it. */
export const QUEUE_DROP_REASONS = ['count', 'bytes', 'age', 'disk'] as const;
/** One of {@link QUEUE_DROP_REASONS}. */
export type QueueDropReason = (typeof QUEUE_DROP_REASONS)[number];

/** Sizes of the store, kept up to date by its parts and read at each scrape. */
export class StoreTotals {
  sessions = 0;
  queuedMessages = 0;
  queuedBytes = 0;
  retainedMessages = 0;
  writeFailures = 0;
  retainedRefused = 0;
  sessionsRefused = 0;
  sessionsExpired = 0;
  readonly dropped: Record<QueueDropReason, number> = { count: 0, bytes: 0, age: 0, disk: 0 };
}

/** Puts the metrics of one session store into a registry. Two programs in one process use two registries. */
export function registerStoreMetrics(registry: Registry, totals: StoreTotals): void {
  registerGauges(registry, totals);
  registerCounters(registry, totals);
  const dropped = {
    name: 'puback_broker_store_dropped_messages_total',
    help: 'Queued messages dropped before their client had them, by reason.',
    label: 'reason',
  };
  scrapedCounterBy(registry, dropped, () => Object.entries(totals.dropped));
}

function registerGauges(registry: Registry, totals: StoreTotals): void {
  const gauge = scrapedGauges(registry);
  gauge(
    'puback_broker_store_sessions',
    'Persistent sessions on disk, with a client or without.',
    () => totals.sessions,
  );
  gauge(
    'puback_broker_store_queued_messages',
    'Messages that wait for the clients of persistent sessions.',
    () => totals.queuedMessages,
  );
  gauge(
    'puback_broker_store_queued_bytes',
    'Bytes of the messages that wait.',
    () => totals.queuedBytes,
  );
  gauge(
    'puback_broker_store_retained_messages',
    'Retained messages.',
    () => totals.retainedMessages,
  );
}

function registerCounters(registry: Registry, totals: StoreTotals): void {
  const count = scrapedCounters(registry);
  count(
    'puback_broker_store_write_failures_total',
    'Attempts to write to disk that failed. They are repeated.',
    () => totals.writeFailures,
  );
  count(
    'puback_broker_store_retained_refused_total',
    'Messages not retained because there were too many.',
    () => totals.retainedRefused,
  );
  count(
    'puback_broker_store_sessions_refused_total',
    'Persistent sessions not made because there were too many.',
    () => totals.sessionsRefused,
  );
  count(
    'puback_broker_store_sessions_expired_total',
    'Persistent sessions dropped because their client stayed away.',
    () => totals.sessionsExpired,
  );
}
