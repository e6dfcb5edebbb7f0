import type pg from 'pg';
import { examine, renderFindings, type Finding } from './examination.ts';
import {
  lookAtAggregates,
  lookAtCompression,
  lookAtJobs,
  lookAtPartitions,
  lookAtRetention,
} from './reading-looks.ts';
import { lookAtConnections, lookAtDurability, lookAtServer, lookAtSpace } from './server-looks.ts';

/** Work of ours is done long before. */
const TRANSACTION_S_MAX = 300;

/** What `npm run db:doctor` found. */
export interface Diagnosis {
  readonly findings: readonly Finding[];
  readonly text: string;
  readonly problemCount: number;
}

/**
 * Looks at a migrated database in every respect, on a connection that is read-only from then on.
 * @throws what `pg` throws.
 */
export async function diagnoseDatabase(client: pg.Client): Promise<Diagnosis> {
  await client.query(`SET statement_timeout = '60s'; SET default_transaction_read_only = on`);
  const findings = await examine(client, [
    lookAtServer,
    lookAtDurability,
    lookAtPartitions,
    lookAtCompression,
    lookAtAggregates,
    lookAtJobs,
    lookAtRetention,
    lookAtSpace,
    lookAtConnections(TRANSACTION_S_MAX),
  ]);
  const problemCount = findings.reduce((sum, { problems }) => sum + problems.length, 0);
  return { findings, text: renderFindings(findings), problemCount };
}
