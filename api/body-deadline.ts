import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { refuseBytes } from './dispatch.ts';

/** Who is answered before the whole file came may go on sending for so long, and find the answer. */
const LINGER_MS = 2000;

/**
 * Bounds the time that the body of a request may take, which Node's own `requestTimeout` does for all
 * requests alike: a file that is imported takes as long as it takes, and its route bounds the silence in
 * it. Headers have their bound in Node.
 */
export function boundBodies(app: FastifyInstance, deadlineMs: number): void {
  app.addHook('onRequest', async (request, reply) => {
    if (hasBody(request) && !isStream(request)) endLater(request, reply, deadlineMs);
  });
  app.addHook('onResponse', async (request, reply) => {
    if (isStream(request) && !request.raw.complete) endLater(request, reply, LINGER_MS);
  });
}

function isStream({ routeOptions }: FastifyRequest): boolean {
  return routeOptions.config.input === 'stream';
}

function hasBody({ headers }: FastifyRequest): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** Ends the connection after that time, unless the body is complete by then. */
function endLater({ raw }: FastifyRequest, reply: FastifyReply, afterMs: number): void {
  const { socket } = raw;
  const timer = setTimeout(() => {
    if (raw.complete || socket.destroyed) return;
    if (reply.raw.headersSent) socket.destroy();
    else refuseBytes(Object.assign(new Error('slow body'), { code: TOO_SLOW }), socket);
  }, afterMs);
  timer.unref();
  raw.once('end', () => clearTimeout(timer));
}

/** As Node calls it. */
const TOO_SLOW = 'ERR_HTTP_REQUEST_TIMEOUT';
