import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import type { Database } from '../../drizzle/database.ts';
import { Ingest, type IngestLimits } from '../../ingest/ingest.ts';
import type { Ledger } from '../../ingest/metrics.ts';
import { Spool } from '../../ingest/spool/spool.ts';

/** Bounds so small that a few devices reach every one of them. */
const LIMITS: IngestLimits = {
  writer: {
    batchRowsMax: 20,
    lingerMs: 0,
    queueRowsMax: 60,
    queueBytesMax: 1_000_000,
    spoolAfterMs: 30,
  },
  pipeline: {
    deviceMetricsMax: 100,
    deviceHeldBytesMax: 1000,
    heldBytesMax: 1_000_000,
    ageMaxMs: 30 * 86_400_000,
    aheadMaxMs: 300_000,
    deviceLogBytesPerSecond: 0,
    spoolAfterMs: 30,
  },
  rates: { messagesPerSecond: 0, pointsPerSecond: 0 },
  organizationMetricsMax: 1000,
  databaseTimeoutMs: 700,
};
const SEGMENT_BYTES = 8000;

/** Ingest over a spool, as between a start of the program and its end. */
export interface SpoolingIngest {
  readonly ingest: Ingest;
  readonly spool: Spool;
  /** The ledgers that were seen and did not add up, in words. */
  readonly unbalanced: readonly string[];
  /** Once; later calls do nothing. */
  stop(): Promise<void>;
}

/** Starts it, and looks at its ledger in every turn of the event loop. */
export async function startSpoolingIngest(
  database: Database,
  folder: string,
  bytesMax = 10_000_000,
): Promise<SpoolingIngest> {
  const log = pino({ level: 'silent' });
  const limits = { bytesMax, segmentBytes: SEGMENT_BYTES };
  const spool = await Spool.open({ folder, limits, log, tidyMs: 100 });
  const registry = new MetricsRegistry();
  const ingest = new Ingest({ database, spool, limits: LIMITS, registry, log });
  const unbalanced: string[] = [];
  const stopWatching = watchLedger(ingest, unbalanced);
  await ingest.start();
  return {
    ingest,
    spool,
    unbalanced,
    async stop() {
      if (!stopWatching()) return;
      await ingest.stop();
      await spool.close();
    },
  };
}

/** @returns what ends it; false when it was ended before. */
function watchLedger(ingest: Ingest, unbalanced: string[]): () => boolean {
  let isWatching = true;
  const look = (): void => {
    if (!isWatching) return;
    if (!isBalanced(ingest.ledger)) unbalanced.push(JSON.stringify(ingest.ledger));
    // Without a reference: looks when something else has made a turn, and makes none itself.
    setImmediate(look).unref();
  };
  look();
  return () => {
    const wasWatching = isWatching;
    isWatching = false;
    return wasWatching;
  };
}

function isBalanced({ received, ...others }: Ledger): boolean {
  return received === Object.values(others).reduce((sum: number, count: number) => sum + count, 0);
}
