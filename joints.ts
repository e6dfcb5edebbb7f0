import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Health, HealthCheck } from './api/routes/operation.ts';
import type { Broker } from './broker/broker.ts';
import type { StoreLimits } from './broker/store/disk-store.ts';
import type { OutboxLimits } from './broker/outgoing/dispatch.ts';
import type { GateParts } from './broker/gate/gate.ts';
import type { ConnectRefusal, KeyVerdict } from './broker/principal.ts';
import type { Config } from './config.ts';
import type { Database } from './drizzle/database.ts';
import type { RetentionBounds } from './drizzle/retention.ts';
import type { Aggregates } from './ingest/aggregates/aggregates.ts';
import type { Ingest, IngestLimits } from './ingest/ingest.ts';
import type { Occurrences } from './ingest/occurrences.ts';
import type { Logger } from './log.ts';
import type { DeviceEventBounds } from './registry/device-event-pruning.ts';
import { reasonOf } from './errors.ts';
import { isCertificateId } from './firmware-protocol/keys.ts';
import { isAbout } from './registry/key-verifier.ts';
import { parseBrokerAddress } from './registry/keys/broker-address.ts';
import type { KeySettings } from './registry/keys/key-parts.ts';
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
      deviceShare: config.DEVICE_QUEUE_PERCENT / 100,
      spoolAfterMs: config.SPOOL_AFTER_MS,
    },
    pipeline: {
      deviceMetricsMax: config.DEVICE_METRICS_MAX,
      deviceHeldBytesMax: config.DEVICE_HELD_BYTES_MAX,
      heldBytesMax: config.HELD_BYTES_MAX,
      ageMaxMs: config.READING_AGE_MAX_D * 86_400_000,
      aheadMaxMs: config.READING_AHEAD_MAX_S * 1000,
      spoolAfterMs: config.SPOOL_AFTER_MS,
      deviceLogBytesPerSecond: config.DEVICE_LOG_BYTES_PER_S,
    },
    rates: {
      messagesPerSecond: config.DEVICE_MESSAGES_PER_S,
      pointsPerSecond: config.DEVICE_POINTS_PER_S,
      organizationMessagesPerSecond: config.ORGANIZATION_MESSAGES_PER_S,
      addressMessagesPerSecond: config.ADDRESS_MESSAGES_PER_S,
    },
    organizationMetricsMax: config.ORGANIZATION_METRICS_MAX,
    databaseTimeoutMs: config.DATABASE_TIMEOUT_S * 1000,
  };
}

const REFUSALS: Readonly<Record<KeyRefusal, ConnectRefusal>> = {
  malformed: 'key_malformed',
  unknown: 'key_unknown',
  revoked: 'key_revoked',
  expired: 'key_expired',
  disabled: 'device_disabled',
  suspended: 'organization_suspended',
  unavailable: 'unavailable',
};

/**
 * What the registry says of a credential in the broker's words. Admins do not speak MQTT: their keys are
 * as good as unknown there.
 */
export function toBrokerVerdict(verdict: RegistryVerdict): KeyVerdict {
  const principal = verdict.principal?.kind === 'admin' ? undefined : verdict.principal;
  if (!verdict.ok) {
    const refusal = REFUSALS[verdict.reason];
    return { ok: false, refusal, ...(principal === undefined ? {} : { principal }) };
  }
  return principal === undefined ? { ok: false, refusal: 'key_unknown' } : { ok: true, principal };
}

/** The settings of the session store in its own words. */
export function storeLimits(config: Config): StoreLimits {
  return {
    queueMessagesMax: config.SESSION_QUEUE_MESSAGES_MAX,
    queueBytesMax: config.SESSION_QUEUE_BYTES_MAX,
    queueAgeMaxMs: config.SESSION_QUEUE_AGE_MAX_H * 3_600_000,
    sessionsMax: config.SESSIONS_MAX,
    sessionAgeMaxMs: config.SESSION_AGE_MAX_D * 86_400_000,
    retainedMax: config.RETAINED_MAX,
  };
}

/** The settings of what waits for subscribers in the fan-out's own words. */
export function outboxLimits(config: Config): OutboxLimits {
  return {
    queueMessagesMax: config.SUBSCRIBER_QUEUE_MESSAGES_MAX,
    queueBytesMax: config.SUBSCRIBER_QUEUE_BYTES_MAX,
    queuesBytesMax: config.SUBSCRIBERS_QUEUE_BYTES_MAX,
    inFlightMax: config.SUBSCRIBER_IN_FLIGHT_MAX,
    stuckMs: config.SUBSCRIBER_STUCK_S * 1000,
  };
}

/** The settings of the history of connections in the registry's words. */
export function deviceEventBounds(config: Config): DeviceEventBounds {
  return {
    ageMaxMs: config.DEVICE_EVENT_AGE_MAX_D * 86_400_000,
    rowsPerDeviceMax: config.DEVICE_EVENTS_PER_DEVICE_MAX,
    unknownRowsMax: config.DEVICE_EVENTS_UNKNOWN_MAX,
  };
}

/** The settings of rotations, claims and batches in the registry's words. */
export function keySettings(config: Config): KeySettings {
  return {
    address: parseBrokerAddress(config.MQTT_PUBLIC_URL),
    pendingMs: config.KEY_PENDING_H * 3_600_000,
    graceMs: config.KEY_GRACE_S * 1000,
    reissueMs: REISSUE_MS,
    isPlainAllowed: config.KEYS_WITHOUT_TLS === 'yes',
    claimKeysMax: config.CLAIM_KEYS_MAX,
    claimsWaitingMax: config.CLAIMS_WAITING_MAX,
    batchMax: config.DEVICE_BATCH_MAX,
    now: () => Date.now(),
  };
}

/** How long data is kept, between what is taken in and what the settings allow. */
export function retentionBounds(config: Config): RetentionBounds {
  return {
    max: {
      raw: config.RETENTION_RAW_D,
      '1m': config.RETENTION_1M_D,
      '1h': config.RETENTION_1H_D,
      '1d': config.RETENTION_1D_D,
    },
    rawMin: config.READING_AGE_MAX_D,
  };
}

/** The settings of the gate in its own words. */
export function gateLimits(config: Config): Pick<GateParts, 'door' | 'logins' | 'proxies'> {
  return {
    door: {
      connectionsMax: config.CONNECTIONS_MAX,
      addressConnectionsMax: config.ADDRESS_CONNECTIONS_MAX,
      addressUnauthenticatedMax: config.ADDRESS_UNAUTHENTICATED_MAX,
      addressConnectsPerS: config.ADDRESS_CONNECTS_PER_S,
      connectDeadlineMs: config.CONNECT_DEADLINE_S * 1000,
    },
    logins: { failuresMax: config.LOGIN_FAILURES_MAX, banMs: config.LOGIN_BAN_S * 1000 },
    proxies: config.PROXY_PROTOCOL_FROM,
  };
}

/** Ends live connections whose key is no longer valid. */
export function closeRevoked(registry: Registry, broker: Broker, log: Logger): void {
  registry.revocations.onRevoked((revocation) => {
    broker.closeWhere((principal) => isAbout(revocation, principal));
  });
  const look = (): void => {
    closeInactive(registry, broker).catch((err: unknown) => {
      log.warn({ err: reasonOf(err) }, 'live connections not looked at again, will be tried again');
      setTimeout(look, RECHECK_MS).unref();
    });
  };
  registry.revocations.onRecheck(look);
}

/** Revocations may have been missed: asks for every live key, and for every device with a certificate. */
async function closeInactive(registry: Registry, broker: Broker): Promise<void> {
  const live = broker.livePrincipals();
  const keyIds = live.map(({ keyId }) => keyId).filter((keyId) => !isCertificateId(keyId));
  const certified = live.flatMap((principal) =>
    principal.kind === 'device' && isCertificateId(principal.keyId) ? principal.deviceId : [],
  );
  const activeKeyIds = await registry.apiKeys.activeKeyIds(keyIds);
  const activeDeviceIds = await registry.activeDeviceIds(certified);
  const revokedKeyIds = new Set(keyIds.filter((keyId) => !activeKeyIds.has(keyId)));
  const revokedDeviceIds = new Set(certified.filter((deviceId) => !activeDeviceIds.has(deviceId)));
  broker.closeWhere((principal) =>
    isCertificateId(principal.keyId)
      ? principal.kind === 'device' && revokedDeviceIds.has(principal.deviceId)
      : revokedKeyIds.has(principal.keyId),
  );
}

/** A board that lost the answer asks again; one that asks all the time is not to make a key each time. */
const REISSUE_MS = 5000;
/** Between attempts to look at live connections again. */
const RECHECK_MS = 1000;
/** Longest time that a health check waits for the database. */
const CHECK_MS_MAX = 2000;

/** How the program is: ready while the database answers and commits succeed. */
export function createHealth(
  database: Database,
  { ingest, aggregates }: { ingest: Ingest; aggregates: Aggregates },
): Health {
  return {
    // The API listens last: whoever can ask finds everything started.
    isStarted: () => true,
    async check() {
      return [
        await checkDatabase(database),
        checkIngest(ingest),
        checkSpool(ingest),
        checkAggregates(aggregates),
      ];
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
  const detail =
    'commits fail and are repeated; messages go to the spool, or are held when it is full';
  return { name: 'ingest', isOk, ...(isOk ? {} : { detail }) };
}

/** Messages that wait there are safe: no reason to turn clients away. */
function checkSpool(ingest: Ingest): HealthCheck {
  const { pendingMessages = 0, pace = null } = ingest.drainState ?? {};
  if (pendingMessages === 0) return { name: 'spool', isOk: true };
  const perSecond = pace?.messagesPerSecond ?? 0;
  const rate = perSecond === 0 ? '' : `, ${perSecond.toFixed(perSecond < 10 ? 1 : 0)} a second`;
  const left = pace?.secondsToGo ?? null;
  const toGo = left === null ? '' : `, ${Math.ceil(left)} s to go`;
  return { name: 'spool', isOk: true, detail: `waiting: ${pendingMessages}${rate}${toGo}` };
}

/** Aggregates that are behind are made later: no reason to turn clients away either. */
function checkAggregates(aggregates: Aggregates): HealthCheck {
  const { detail } = aggregates.healthDetail();
  return { name: 'aggregates', isOk: true, ...(detail === null ? {} : { detail }) };
}

/** Deletes events and log lines that are too old. */
export function pruneOccurrences(config: Config, occurrences: Occurrences, log: Logger): void {
  const bounds = {
    eventAgeMaxMs: config.EVENT_AGE_MAX_D * 86_400_000,
    logAgeMaxMs: config.LOG_AGE_MAX_D * 86_400_000,
  };
  occurrences.prune(bounds).catch((err: unknown) => {
    log.warn({ err: reasonOf(err) }, 'events and logs not pruned, will be tried again');
  });
}

/** The version in package.json. */
export function readVersion(packageRoot: string): string {
  const text = readFileSync(join(packageRoot, 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
