import { Gauge, Histogram, type Registry } from 'prom-client';
import type { Batch } from './batch.ts';
import type { Stored } from './reading-store.ts';
import { scrapedCounterBy, scrapedCounters, scrapedGauges } from '../scraped-metrics.ts';

/** What ingest holds at this moment, asked at each scrape. */
export interface IngestGauges {
  readonly queuedRows: number;
  readonly queuedBytes: number;
  readonly queuedMessages: number;
  readonly heldMessages: number;
  readonly heldBytes: number;
  readonly lanes: number;
  readonly isAway: boolean;
  readonly ledger: Ledger;
}

/** Where messages are. `received` is the sum of the others. */
export interface Ledger {
  readonly received: number;
  /** Their readings are in the database; copies of what was there count too. */
  readonly committed: number;
  /** On disk, acknowledged, and not in the database yet. */
  readonly spooled: number;
  readonly quarantined: number;
  /** Ended without an acknowledgement, or, at QoS 0, without a trace. */
  readonly rejected: number;
  /** Acknowledged, and lost by a disk that no longer has what was synced to it. */
  readonly lost: number;
  readonly inFlight: number;
}

/** The words of {@link Ledger} as labels, where they differ. */
const LEDGER_LABELS: Readonly<Record<string, string>> = { inFlight: 'in_flight' };

/** Ways in which a message ends without being stored or quarantined. It was not acknowledged then. */
export const DROP_REASONS = ['rate', 'quota', 'held_bytes'] as const;
/** One of {@link DROP_REASONS}. */
export type DropReason = (typeof DROP_REASONS)[number];

/**
 * Counts of ingest. The hot path adds to plain numbers; prom-client reads them at a scrape, because an
 * observation of its own costs a quarter of a microsecond.
 */
export class IngestMetrics {
  receivedMessages = 0;
  receivedBytes = 0;
  storedMessages = 0;
  storedRows = 0;
  duplicateRows = 0;
  duplicateMessages = 0;
  quarantinedMessages = 0;
  missingValues = 0;
  commitFailures = 0;
  /** Of devices that were deleted before it was stored; not stored, and not dropped by any bound. */
  deletedMessages = 0;
  readonly dropped: Record<DropReason, number> = { rate: 0, quota: 0, held_bytes: 0 };
  #commitSeconds: Histogram | null = null;
  #batchRows: Histogram | null = null;

  /** Messages that ended without being stored. */
  get droppedMessages(): number {
    const dropped = DROP_REASONS.reduce((sum, reason) => sum + this.dropped[reason], 0);
    return dropped + this.deletedMessages;
  }

  /** Notes a committed batch. */
  batchCommitted(batch: Batch, stored: Stored, seconds: number): void {
    this.storedMessages +=
      batch.messages.length - batch.duplicateMessages - stored.quarantinedMessages;
    this.storedRows += stored.insertedRows;
    this.duplicateRows += stored.duplicateRows;
    this.quarantinedMessages += stored.quarantinedMessages;
    this.#commitSeconds?.observe(seconds);
    this.#batchRows?.observe(batch.rowCount);
  }

  /** Puts the metrics into a registry. Two programs in one process use two registries. */
  register(
    registry: Registry,
    limits: { rowsMax: number; bytesMax: number },
    gauges: () => IngestGauges,
  ): void {
    const registers = [registry];
    const count = scrapedCounters(registry);
    const gauge = scrapedGauges(registry);
    count(
      'puback_ingest_received_messages_total',
      'Messages taken in, of every kind.',
      () => this.receivedMessages,
    );
    count(
      'puback_ingest_received_bytes_total',
      'Payload bytes taken in.',
      () => this.receivedBytes,
    );
    count(
      'puback_ingest_stored_messages_total',
      'Messages whose readings are committed.',
      () => this.storedMessages,
    );
    count('puback_ingest_stored_rows_total', 'Readings committed.', () => this.storedRows);
    count(
      'puback_ingest_duplicate_rows_total',
      'Readings that were stored already.',
      () => this.duplicateRows,
    );
    count(
      'puback_ingest_duplicate_messages_total',
      'Messages whose seq was stored already, acknowledged without being stored again.',
      () => this.duplicateMessages,
    );
    count(
      'puback_ingest_quarantined_messages_total',
      'Messages committed to quarantine.',
      () => this.quarantinedMessages,
    );
    count(
      'puback_ingest_deleted_messages_total',
      'Messages out of the spool, or fed in again, whose device was deleted meanwhile.',
      () => this.deletedMessages,
    );
    count(
      'puback_ingest_missing_values_total',
      'Values that were null, nan, infinite or beyond 1e290.',
      () => this.missingValues,
    );
    count(
      'puback_ingest_commit_failures_total',
      'Attempts to commit that failed and were repeated.',
      () => this.commitFailures,
    );
    const dropped = {
      name: 'puback_ingest_dropped_messages_total',
      help: 'Messages neither stored nor acknowledged, by reason.',
      label: 'reason',
    };
    scrapedCounterBy(registry, dropped, () => Object.entries(this.dropped));
    gauge('puback_ingest_queue_rows', 'Rows that wait for COMMIT.', () => gauges().queuedRows);
    gauge(
      'puback_ingest_queue_rows_max',
      'Bound of puback_ingest_queue_rows.',
      () => limits.rowsMax,
    );
    gauge(
      'puback_ingest_queue_bytes',
      'Payload bytes that wait for COMMIT.',
      () => gauges().queuedBytes,
    );
    gauge(
      'puback_ingest_queue_bytes_max',
      'Bound of puback_ingest_queue_bytes.',
      () => limits.bytesMax,
    );
    gauge(
      'puback_ingest_queue_messages',
      'Messages that wait for COMMIT.',
      () => gauges().queuedMessages,
    );
    gauge(
      'puback_ingest_held_messages',
      'Messages that wait before the queue.',
      () => gauges().heldMessages,
    );
    gauge(
      'puback_ingest_held_bytes',
      'Payload bytes that wait before the queue.',
      () => gauges().heldBytes,
    );
    gauge('puback_ingest_lanes', 'Devices whose state is in memory.', () => gauges().lanes);
    gauge('puback_ingest_database_away', '1 while commits fail and are repeated.', () =>
      gauges().isAway ? 1 : 0,
    );
    // One look for all of them: a scrape asks one metric after the other.
    const ledger = new Gauge({
      name: 'puback_ingest_ledger_messages',
      help: 'Where the messages are that were received; received is the sum of the others.',
      labelNames: ['entry'],
      registers,
      collect() {
        for (const [entry, messages] of Object.entries(gauges().ledger)) {
          ledger.set({ entry: LEDGER_LABELS[entry] ?? entry }, messages as number);
        }
      },
    });
    this.#commitSeconds = new Histogram({
      name: 'puback_ingest_commit_seconds',
      help: 'From the sealing of a batch to its COMMIT.',
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    });
    this.#batchRows = new Histogram({
      name: 'puback_ingest_batch_rows',
      help: 'Rows of a committed batch.',
      buckets: [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000],
      registers,
    });
  }
}
