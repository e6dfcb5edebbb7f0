import { randomUUID } from 'node:crypto';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import Fastify, { type FastifyInstance } from 'fastify';
import { validatorCompiler } from 'fastify-type-provider-zod';
import { ListenFailedError, reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Registry } from '../registry/registry.ts';
import type { AuthorizeParts } from './authorize.ts';
import { boundBodies } from './body-deadline.ts';
import { boundConnections } from './connection-bounds.ts';
import { addRoutes, answerErrors, refuseBytes, sendError } from './dispatch.ts';
import { registerDocumentation } from './documentation.ts';
import { createApiMetrics, type ApiMetrics } from './metrics.ts';
import { createRouteTable, type RouteDeps } from './route-table.ts';
import type { Route } from './route.ts';

/** What {@link createApi} needs. */
export interface ApiDeps extends RouteDeps, Pick<AuthorizeParts, 'guard' | 'addressOf'> {
  readonly log: Logger;
  readonly registry: RouteDeps['registry'] & Pick<Registry, 'verifyKey'>;
}

/** The HTTP API. */
export interface Api {
  /**
   * The server beneath. Whoever takes WebSockets adds an `upgrade` listener, which then has to
   * answer every path; without one they are refused with 404.
   */
  readonly server: Server;
  /** Every route, for tests and documents. */
  readonly routes: readonly Route[];
  /** @returns the port, which is a free one for port 0. @throws {ListenFailedError} */
  listen(address: { readonly host: string; readonly port: number }): Promise<{ port: number }>;
  /**
   * Takes no more connections, lets requests under way finish for at most five seconds, and ends
   * every HTTP connection. WebSockets are left to who took them over.
   */
  close(): Promise<void>;
}

const BODY_BYTES_MAX = 1_048_576;
const HEADERS_TIMEOUT_MS = 10_000;
/** Bound of a body, but for the file of an import. */
const BODY_DEADLINE_MS = 30_000;
/**
 * How often headers are looked at; with Node's own 30 s a bound of 10 s would be one of 40.
 */
const TIMEOUT_CHECK_MS = 1000;
/**
 * Without a byte in either direction: above what the deletion of a device with much history takes.
 */
const SILENCE_MS_MAX = 300_000;
const KEEP_ALIVE_MS = 30_000;
const CONNECTIONS_MAX = 1000;
const CLOSE_GRACE_MS = 5000;

/** Makes the API from its parts. It does not listen yet. */
export async function createApi(deps: ApiDeps): Promise<Api> {
  const { log } = deps;
  const app = createServer(log);
  const bounds = boundConnections(app.server, CONNECTIONS_MAX);
  const metrics = createApiMetrics(deps.metricsRegistry, () => bounds.count(), CONNECTIONS_MAX);
  addHooks(app, metrics);
  boundBodies(app, BODY_DEADLINE_MS);
  answerErrors(app, log);
  await registerDocumentation(app, deps.version);
  const routes = createRouteTable(deps, () => app.swagger());
  const { guard, addressOf } = deps;
  const rights = { verifyKey: deps.registry.verifyKey, guard, addressOf };
  await addRoutes(app, routes, rights);
  await app.ready();
  return {
    server: app.server,
    routes,
    listen: (address) => listen(app, address, log),
    async close() {
      // Its promise waits for WebSockets too, which are not ours to end.
      app
        .close()
        .then(undefined, (err: unknown) => log.error({ err }, 'http server did not close'));
      await bounds.drain(CLOSE_GRACE_MS);
    },
  };
}

function createServer(log: Logger): FastifyInstance {
  const app = Fastify({
    bodyLimit: BODY_BYTES_MAX,
    // Bodies are bounded by route: see boundBodies.
    requestTimeout: 0,
    connectionTimeout: SILENCE_MS_MAX,
    keepAliveTimeout: KEEP_ALIVE_MS,
    http: {
      headersTimeout: HEADERS_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
    },
    forceCloseConnections: 'idle',
    genReqId: () => randomUUID(),
    clientErrorHandler: refuseBytes,
    frameworkErrors: (error, request, reply) => void sendError(error, request, reply, log),
  });
  app.setValidatorCompiler(validatorCompiler);
  // Answers are not checked again on their way out: it costs a quarter of the throughput of
  // history.
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  return app as unknown as FastifyInstance;
}

function addHooks(app: FastifyInstance, metrics: ApiMetrics): void {
  app.decorateRequest('principal', null);
  app.decorateRequest('clientAddress', '');
  app.addHook('onRequest', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff');
  });
  app.addHook('onResponse', async ({ routeOptions, method }, reply) => {
    const route = routeOptions.url === undefined ? 'none' : `${method} ${routeOptions.url}`;
    metrics.observe(route, reply.statusCode, reply.elapsedTime / 1000);
  });
}

async function listen(
  app: FastifyInstance,
  { host, port }: { readonly host: string; readonly port: number },
  log: Logger,
): Promise<{ port: number }> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    throw new ListenFailedError('HTTP', `${host}:${port}`, 'HTTP_PORT', error);
  }
  // From now on an error is one of accept(), for want of file descriptors: who is in stays in.
  app.server.on('error', (err) => log.warn({ err: reasonOf(err) }, 'connection not accepted'));
  return { port: (app.server.address() as AddressInfo).port };
}
