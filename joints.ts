import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Health, HealthCheck } from './api/routes/operation.ts';
import type { Broker } from './broker/broker.ts';
import type { ConnectRefusal, KeyVerdict } from './broker/principal.ts';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import type { Ingest, IngestLimits } from './ingest/ingest.ts';
import type { Logger } from './log.ts';
import { isAbout } from './registry/key-verifier.ts';
import type { KeyRefusal, KeyVerdict as RegistryVerdict } from './registry/principal.ts';
import type { Registry } from './registry/registry.ts';

/** The settings of ingest in its own words. */
export function ingestLimits(config: Config): IngestLimits {
  return {
    writer: {
      batchRowsMax: config.BATCH_ROWS_MAX,
      lingerMs: config.BATCH_LINGER_MS,
      queueRowsMax: config.QUEUE_ROWS_MAX,
      queueBytesMax: config.QUEUE_BYTES_MAX,
    },
    pipeline: {
      deviceMetricsMax: config.DEVICE_METRICS_MAX,
      deviceHeldBytesMax: config.DEVICE_HELD_BYTES_MAX,
      heldBytesMax: config.HELD_BYTES_MAX,
      ageMaxMs: config.READING_AGE_MAX_D * 86_400_000,
      aheadMaxMs: config.READING_AHEAD_MAX_S * 1000,
    },
    rates: {
      messagesPerSecond: config.DEVICE_MESSAGES_PER_S,
      pointsPerSecond: config.DEVICE_POINTS_PER_S,
    },
    organizationMetricsMax: config.ORGANIZATION_METRICS_MAX,
    databaseTimeoutMs: config.DATABASE_TIMEOUT_S * 1000,
  };
}

const REFUSALS: Readonly<Record<KeyRefusal, ConnectRefusal>> = {
  malformed: 'key_malformed',
  unknown: 'key_unknown',
  revoked: 'key_revoked',
  disabled: 'device_disabled',
  suspended: 'organization_suspended',
  unavailable: 'unavailable',
};

/** What the registry says of a key in the broker's words. Only devices speak MQTT so far; any other key is as good as unknown there. */
export function toBrokerVerdict(verdict: RegistryVerdict): KeyVerdict {
  if (!verdict.ok) return { ok: false, refusal: REFUSALS[verdict.reason] };
  const { principal } = verdict;
  if (principal.kind === 'device') return { ok: true, principal };
  return { ok: false, refusal: 'key_unknown' };
}

/** Ends live connections whose key is no longer valid. */
export function closeRevoked(registry: Registry, broker: Broker, log: Logger): void {
  registry.revocations.onRevoked((revocation) => {
    broker.closeWhere((principal) => isAbout(revocation, { kind: 'device', ...principal }));
  });
  registry.revocations.onRecheck(() => {
    const live = broker.liveKeyIds();
    registry.apiKeys.activeKeyIds(live).then(
      (active) => {
        const revoked = new Set(live.filter((keyId) => !active.has(keyId)));
        broker.closeWhere((principal) => revoked.has(principal.keyId));
      },
      (err: unknown) => log.warn({ err }, 'live keys not looked at again'),
    );
  });
}

/** Longest time that a health check waits for the database. */
const CHECK_MS_MAX = 2000;

/** How the program is: ready while the database answers and commits succeed. */
export function createHealth(database: Database, ingest: Ingest): Health {
  return {
    // The API listens last: whoever can ask finds everything started.
    isStarted: () => true,
    async check() {
      return [await checkDatabase(database), checkIngest(ingest)];
    },
  };
}

async function checkDatabase({ pool }: Database): Promise<HealthCheck> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), CHECK_MS_MAX);
  });
  const answer = pool.query('SELECT 1').then(
    () => true,
    () => false,
  );
  const isOk = await Promise.race([answer, late]);
  clearTimeout(timer);
  return { name: 'database', isOk, ...(isOk ? {} : { detail: 'the database does not answer' }) };
}

function checkIngest(ingest: Ingest): HealthCheck {
  const isOk = !ingest.isDatabaseAway;
  const detail = 'commits fail and are repeated; acknowledgements are held';
  return { name: 'ingest', isOk, ...(isOk ? {} : { detail }) };
}

/** The version in package.json. */
export function readVersion(packageRoot: string): string {
  const text = readFileSync(join(packageRoot, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
