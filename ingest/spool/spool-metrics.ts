import type { Registry } from 'prom-client';
import { scrapedCounterBy, scrapedCounters, scrapedGauges } from '../../scraped-metrics.ts';

/** Counts of the spool since the start of the program. */
export class SpoolTotals {
  appendedMessages = 0;
  drainedMessages = 0;
  /** Messages that were not taken, by why. */
  readonly refused = { full: 0, failed: 0 };
  /** Counted as pending, and then found damaged. They are neither pending nor drained. */
  lostMessages = 0;
  tornBytes = 0;
  damagedBytes = 0;
}

/** What the spool holds at this moment, asked at each scrape. `Spool` has all of it. */
export interface SpoolGauges {
  readonly totals: SpoolTotals;
  readonly pendingMessages: number;
  readonly bytes: number;
  readonly bytesMax: number;
  readonly isFailing: boolean;
  readonly oldestReceivedMicros: number | null;
}

/** Puts the metrics of one spool into a registry. Two programs in one process use two registries. */
export function registerSpoolMetrics(
  registry: Registry,
  spool: SpoolGauges,
  now: () => number = Date.now,
): void {
  registerGauges(registry, spool, now);
  registerCounters(registry, spool.totals);
}

function registerGauges(registry: Registry, spool: SpoolGauges, now: () => number): void {
  const gauge = scrapedGauges(registry);
  gauge(
    'puback_spool_messages',
    'Acknowledged messages on disk that wait for the database.',
    () => spool.pendingMessages,
  );
  gauge('puback_spool_bytes', 'Bytes of the files of the spool.', () => spool.bytes);
  gauge('puback_spool_bytes_max', 'Bound of puback_spool_bytes.', () => spool.bytesMax);
  gauge('puback_spool_oldest_age_seconds', 'Age of the oldest message that waits.', () => {
    const oldest = spool.oldestReceivedMicros;
    return oldest === null ? 0 : Math.max(0, now() / 1000 - oldest / 1_000_000);
  });
  gauge('puback_spool_failing', '1 while the disk does not take what is spooled.', () =>
    spool.isFailing ? 1 : 0,
  );
}

function registerCounters(registry: Registry, totals: SpoolTotals): void {
  const count = scrapedCounters(registry);
  count(
    'puback_spool_appended_messages_total',
    'Messages written to the spool.',
    () => totals.appendedMessages,
  );
  count(
    'puback_spool_drained_messages_total',
    'Messages of the spool that were stored in the database.',
    () => totals.drainedMessages,
  );
  count(
    'puback_spool_lost_messages_total',
    'Messages that were stored in the spool and cannot be read any more.',
    () => totals.lostMessages,
  );
  count(
    'puback_spool_torn_bytes_total',
    'Bytes that were half written at a crash, never acknowledged, and cut off at the start.',
    () => totals.tornBytes,
  );
  count(
    'puback_spool_damaged_bytes_total',
    'Bytes on disk that are not as they were written.',
    () => totals.damagedBytes,
  );
  const refused = {
    name: 'puback_spool_refused_messages_total',
    help: 'Messages that the spool did not take, by reason.',
    label: 'reason',
  };
  scrapedCounterBy(registry, refused, () => Object.entries(totals.refused));
}
