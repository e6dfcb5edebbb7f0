import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { createApi, type Api, type ApiDeps } from '../../api/server.ts';
import type { HealthCheck } from '../../api/routes/operation.ts';
import { loadConfig } from '../../config.ts';
import { createHistory } from '../../ingest/history.ts';
import { createOccurrences } from '../../ingest/occurrences.ts';
import { HttpIntake } from '../../ingest/http-intake.ts';
import { Imports } from '../../ingest/import/imports.ts';
import { Ingest } from '../../ingest/ingest.ts';
import { createCompleteness } from '../../ingest/completeness.ts';
import { createQuarantine } from '../../ingest/quarantine.ts';
import type { Reinjection } from '../../ingest/reinjection.ts';
import { ingestLimits } from '../../joints.ts';
import { importLimits, replayAgeMaxMs } from '../../web.ts';
import { createReinjection, watchQuarantine } from '../../quarantine-joints.ts';
import { createRuleParts, type RuleHooks } from '../../rule-joints.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Registry } from '../../registry/registry.ts';
import type { NotifyStores } from '../../rules/notify/stores.ts';
import type { RuleStore } from '../../rules/rule-store.ts';
import { createTestDownlink } from './downlink.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';
import { testNotifyStores } from './notify.ts';
import { createOrganization, createTestRegistry, type TestOrganization } from './registry.ts';

/** What came back: the body is parsed when it is JSON. */
export interface ApiAnswer {
  readonly status: number;
  readonly headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into it freely
  readonly body: any;
}

/** An API that listens on a free port, on a database of its own, with two organizations. */
export interface TestApi {
  readonly api: Api;
  readonly registry: Registry;
  readonly test: TestDatabase;
  readonly ingest: Ingest;
  readonly imports: Imports;
  readonly rules: RuleStore;
  readonly notify: NotifyStores;
  readonly intake: HttpIntake;
  readonly reinjection: Reinjection;
  readonly url: string;
  readonly acme: TestOrganization;
  readonly other: TestOrganization;
  /** Set what `/health/ready` finds. */
  checks: HealthCheck[];
  /** Everything that was logged. */
  readonly logged: string[];
  /** Sends a request with the admin key of `acme`, or with `key`; null sends none. */
  send(
    method: string,
    path: string,
    body?: unknown,
    key?: string | null,
    headers?: Readonly<Record<string, string>>,
  ): Promise<ApiAnswer>;
  stop(): Promise<void>;
}

/** Lets everybody try as often as they like. */
export const NO_GUARD: Pick<ApiDeps, 'guard' | 'addressOf'> = {
  guard: { before: () => 'ok', failed: () => 0, succeeded: () => undefined },
  addressOf: () => '127.0.0.1',
};

/** What a test may change of one. */
export interface TestApiOptions {
  /** Settings, by the names of their environment variables. */
  readonly settings?: Record<string, string>;
  /** Days that readings are kept; 30 when left out. */
  readonly rawDays?: number;
  /** Longest silence in the file of an import; 60 s as in the product when left out. */
  readonly importIdleMs?: number;
  /** What rules need of who evaluates them; nothing when left out. */
  readonly ruleHooks?: RuleHooks;
  /** Milliseconds since 1970; the machine's clock when left out. */
  readonly now?: () => number;
}

/** Makes one. `pageRowsMax` is 5000; ingest has no spool. */
export async function createTestApi(options: TestApiOptions = {}): Promise<TestApi> {
  const test = await createTestDatabase();
  const { database } = test;
  const { rawDays = 30 } = options;
  const most = Math.max(rawDays, 3650);
  const max = { raw: rawDays, '1m': most, '1h': most, '1d': most };
  const bounds = rawDays === 30 ? undefined : { max, rawMin: 10 };
  const registry = createTestRegistry(database, 1000, bounds);
  await registry.start();
  const acme = await createOrganization(database, 'acme');
  const other = await createOrganization(database, 'other');
  const logged: string[] = [];
  const config = loadConfig(options.settings ?? {});
  const metricsRegistry = new MetricsRegistry();
  const silent = pino({ level: 'silent' });
  const ingest = new Ingest({
    database,
    spool: null,
    limits: ingestLimits(config),
    registry: metricsRegistry,
    log: silent,
  });
  await ingest.start();
  const ageMaxMs = replayAgeMaxMs(config, registry);
  const imports = new Imports({
    database,
    ingest,
    writeAudit,
    limits: { ...importLimits(config), idleMs: options.importIdleMs ?? 60_000 },
    ageMaxMs,
    registry: metricsRegistry,
    log: silent,
  });
  const intake = new HttpIntake({
    ingest,
    subscribers: { isWanted: () => false, publish: () => null },
    timeoutMs: config.HTTP_INGEST_TIMEOUT_S * 1000,
    aheadMaxMs: config.READING_AHEAD_MAX_S * 1000,
    ageMaxMs,
  });
  const now = options.now ?? Date.now;
  const ruleParts = createRuleParts(config, { database, log: silent, now }, options.ruleHooks);
  const notify = testNotifyStores(database, now);
  const { downlink } = createTestDownlink(database, registry, options.settings);
  const reinjection = createReinjection(config, { database, ingest, keptMs: ageMaxMs });
  await watchQuarantine({ registry, ingest, log: silent });
  const api = await createApi({
    log: pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) }),
    registry,
    history: createHistory(database),
    occurrences: createOccurrences(database),
    completeness: createCompleteness(database),
    quarantine: createQuarantine(database, writeAudit),
    reinjection,
    health: { isStarted: () => true, check: () => Promise.resolve(result.checks) },
    intake,
    imports,
    ...ruleParts,
    ...downlink.desk,
    notify,
    now,
    packetBytesMax: config.PACKET_BYTES_MAX,
    ...NO_GUARD,
    metricsRegistry,
    version: '0.0.0-test',
    pageRowsMax: 5000,
  });
  const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
  const url = `http://127.0.0.1:${port}`;
  const result: TestApi = {
    api,
    registry,
    test,
    ingest,
    imports,
    rules: ruleParts.rules,
    notify,
    intake,
    reinjection,
    url,
    acme,
    other,
    checks: [],
    logged,
    send: (method, path, body, key = acme.adminKey, headers = {}) =>
      send(url + path, method, body, key, headers),
    async stop() {
      await Promise.all([imports.stop(), api.close()]);
      await ingest.stop();
      await registry.stop();
      await test.drop();
    },
  };
  return result;
}

async function send(
  url: string,
  method: string,
  body: unknown,
  key: string | null,
  headers: Readonly<Record<string, string>>,
): Promise<ApiAnswer> {
  const answer = await fetch(url, {
    method,
    headers: {
      ...headers,
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const isJson = /[/+]json/.test(answer.headers.get('content-type') ?? '');
  return {
    status: answer.status,
    headers: answer.headers,
    body: isJson && text !== '' ? JSON.parse(text) : text,
  };
}
