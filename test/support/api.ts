import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { createApi, type Api, type ApiDeps } from '../../api/server.ts';
import type { HealthCheck } from '../../api/routes/operation.ts';
import { createHistory } from '../../ingest/history.ts';
import { createQuarantine } from '../../ingest/quarantine.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';
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
  readonly url: string;
  readonly acme: TestOrganization;
  readonly other: TestOrganization;
  /** Set what `/health/ready` finds. */
  checks: HealthCheck[];
  /** Everything that was logged. */
  readonly logged: string[];
  /** Sends a request with the admin key of `acme`, or with `key`; null sends none. */
  send(method: string, path: string, body?: unknown, key?: string | null): Promise<ApiAnswer>;
  stop(): Promise<void>;
}

/** Lets everybody try as often as they like. */
export const NO_GUARD: Pick<ApiDeps, 'guard' | 'addressOf'> = {
  guard: { before: () => 'ok', failed: () => 0, succeeded: () => undefined },
  addressOf: () => '127.0.0.1',
};

/** Makes one. `pageRowsMax` is 5000. */
export async function createTestApi(): Promise<TestApi> {
  const test = await createTestDatabase();
  const { database } = test;
  const registry = createTestRegistry(database);
  await registry.start();
  const acme = await createOrganization(database, 'acme');
  const other = await createOrganization(database, 'other');
  const logged: string[] = [];
  const api = await createApi({
    log: pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) }),
    registry,
    history: createHistory(database),
    quarantine: createQuarantine(database),
    health: { isStarted: () => true, check: () => Promise.resolve(result.checks) },
    ...NO_GUARD,
    metricsRegistry: new MetricsRegistry(),
    version: '0.0.0-test',
    pageRowsMax: 5000,
  });
  const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
  const url = `http://127.0.0.1:${port}`;
  const result: TestApi = {
    api,
    registry,
    test,
    url,
    acme,
    other,
    checks: [],
    logged,
    send: (method, path, body, key = acme.adminKey) => send(url + path, method, body, key),
    async stop() {
      await api.close();
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
): Promise<ApiAnswer> {
  const answer = await fetch(url, {
    method,
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const isJson = answer.headers.get('content-type')?.includes('json') === true;
  return {
    status: answer.status,
    headers: answer.headers,
    body: isJson && text !== '' ? JSON.parse(text) : text,
  };
}
