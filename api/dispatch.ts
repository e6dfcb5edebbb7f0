import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { InternalError, RequestInvalidError, RouteNotFoundError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { authorize, type AuthorizeParts } from './authorize.ts';
import { schemaOf } from './documentation.ts';
import { toAppError, toProblem } from './problem.ts';
import type { Answer, BodyInput, Principals, RequestConditions, Role, Route } from './route.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Whose key the request carries; null on a public route. */
    principal: Principals[Role];
    /** Of the client, behind configured proxies too. */
    clientAddress: string;
  }
  interface FastifyContextConfig {
    /** See {@link Route.input}; a path that is no route has none. */
    input?: BodyInput;
  }
}

/**
 * Makes Fastify serve a line of the table: rights first, before the body is read; then the schemas;
 * then the handler.
 */
function addRoute(app: FastifyInstance, route: Route, parts: AuthorizeParts): void {
  app.route({
    method: route.method,
    url: route.path.replaceAll(/\{(\w+)\}/g, ':$1'),
    schema: schemaOf(route),
    config: { input: route.input ?? 'json' },
    ...(route.bodyBytesMax === undefined ? {} : { bodyLimit: route.bodyBytesMax }),
    async onRequest(request) {
      const { authorization } = request.headers;
      request.clientAddress = parts.addressOf(request.raw);
      const origin = { authorization, address: request.clientAddress };
      request.principal = await authorize(route.role, origin, parts);
      if (route.input !== undefined) refuseEncoded(request);
    },
    async handler(request, reply) {
      const { principal, params, query, body, clientAddress, headers } = request;
      const answer = await route.handle({
        // `authorize` has set what belongs to the role, or thrown.
        principal: principal as never,
        params,
        query,
        body,
        contentType: (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? '',
        bodyBytes: lengthOf(headers['content-length']),
        address: clientAddress,
        conditions: conditionsOf(headers),
        isHead: request.method === 'HEAD',
        gone: () => goneSignal(reply.raw),
      });
      return sendAnswer(reply, answer);
    },
  });
}

/** A body that is to be taken as it is must not be a compressed one: a few bytes could be gigabytes. */
function refuseEncoded({ headers }: FastifyRequest): void {
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() === 'identity') return;
  throw new RequestInvalidError(['send the body without content-encoding'], 415);
}

function conditionsOf(headers: IncomingHttpHeaders): RequestConditions {
  const once = (name: string): string | null => {
    const value = headers[name];
    return typeof value === 'string' ? value : null;
  };
  return {
    idempotencyKey: once('idempotency-key'),
    ifMatch: once('if-match'),
    range: once('range'),
    ifRange: once('if-range'),
  };
}

function goneSignal(response: ServerResponse): AbortSignal {
  const gone = new AbortController();
  if (response.closed) gone.abort();
  else response.once('close', () => gone.abort());
  return gone.signal;
}

function lengthOf(header: string | undefined): number | null {
  return header !== undefined && /^\d{1,15}$/.test(header) ? Number(header) : null;
}

/**
 * Makes Fastify serve the routes of one kind of body. Those of `bytes` and `stream` take any content type
 * and look at it themselves; all others take JSON alone.
 */
export async function addRoutes(
  app: FastifyInstance,
  routes: readonly Route[],
  parts: AuthorizeParts,
): Promise<void> {
  for (const input of ['json', 'bytes', 'stream'] as const) {
    await app.register(async (scope) => {
      scope.removeAllContentTypeParsers();
      if (input === 'json') acceptJson(scope);
      else if (input === 'bytes') {
        scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) =>
          done(null, body),
        );
      } else {
        scope.addContentTypeParser('*', (_request, body, done) => done(null, body));
      }
      for (const route of routes) {
        if ((route.input ?? 'json') === input) addRoute(scope, route, parts);
      }
    });
  }
}

/** Takes a body of no bytes for none: many clients say that it is JSON with every request. */
function acceptJson(scope: FastifyInstance): void {
  const parse = scope.getDefaultJsonParser('error', 'error');
  scope.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'string' },
    (request, body: string, done) => {
      if (body === '') done(null, undefined);
      else void parse(request, body, done);
    },
  );
}

/**
 * Makes every error an `application/problem+json`. Unexpected ones are logged, others are not ours.
 */
export function answerErrors(app: FastifyInstance, log: Logger): void {
  app.setErrorHandler((thrown, request, reply) => sendError(thrown, request, reply, log));
  app.setNotFoundHandler((request) => {
    const path = (request.url.split('?')[0] ?? '').slice(0, 100);
    throw new RouteNotFoundError(request.method, path);
  });
}

/** Answers an error of a request. */
export function sendError(
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  log: Logger,
): FastifyReply {
  const error = toAppError(thrown);
  if (error instanceof InternalError) {
    log.error(
      { err: error.cause, requestId: request.id, method: request.method },
      'request failed',
    );
  }
  const { status, headers, body } = toProblem(error, request.id);
  return sendAnswer(reply, { status, headers, body });
}

/**
 * What Node tells of bytes that are no HTTP request, of headers that are too large or come too
 * slowly.
 */
const PARSER_FAULTS: ReadonlyMap<string, { status: number; line: string; fault: string }> = new Map(
  [
    [
      'ERR_HTTP_REQUEST_TIMEOUT',
      { status: 408, line: '408 Request Timeout', fault: 'the request came too slowly' },
    ],
    [
      'HPE_HEADER_OVERFLOW',
      {
        status: 431,
        line: '431 Request Header Fields Too Large',
        fault: 'the headers are larger than 16 KiB',
      },
    ],
  ],
);
const NO_HTTP = { status: 400, line: '400 Bad Request', fault: 'this is not HTTP' };

/** Answers bytes that did not become a request, and ends the connection. */
export function refuseBytes(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const { status, line, fault } = PARSER_FAULTS.get(error.code ?? '') ?? NO_HTTP;
  const { headers, body } = toProblem(new RequestInvalidError([fault], status), '');
  const text = JSON.stringify(body);
  socket.end(
    [
      `HTTP/1.1 ${line}`,
      `content-type: ${headers['content-type'] ?? ''}`,
      `content-length: ${Buffer.byteLength(text)}`,
      'connection: close',
      '',
      text,
    ].join('\r\n'),
    () => socket.destroy(),
  );
}

function sendAnswer(reply: FastifyReply, { status, headers = {}, body }: Answer): FastifyReply {
  return reply.code(status).headers(headers).send(body);
}
