import { z } from 'zod';
import {
  MessageNotStoredError,
  MessageRateError,
  MessageRefusedError,
  RequestInvalidError,
} from '../../errors.ts';
import type {
  HttpChannel,
  HttpDevice,
  HttpMessage,
  HttpOutcome,
} from '../../ingest/http-intake.ts';
import type { Devices } from '../../registry/devices.ts';
import { defineRoute, type Answer, type Route } from '../route.ts';
import { deviceParams, timeAnswer } from '../schemas.ts';

/** Where payloads over HTTP go. Both wait for the COMMIT, for a bounded time. */
export interface IngestPort {
  /** A message of a device, with its rates. Rejects never. @param address of the client, for limits by address. */
  publish(device: HttpDevice, message: HttpMessage, address: string): Promise<HttpOutcome>;
  /** Readings, as old as they are kept, that somebody else brings for a device. @throws {StoreUnavailableError} */
  store(device: HttpDevice, message: HttpMessage): Promise<HttpOutcome>;
}

/** What the routes of payloads need. */
export interface IngestRoutesDeps {
  readonly intake: IngestPort;
  readonly devices: Devices;
  /** Largest payload. */
  readonly packetBytesMax: number;
}

/** JSON or CBOR of `data` is told apart by its first byte, so that either name does. */
const CHANNELS: ReadonlyMap<string, HttpChannel> = new Map([
  ['application/json', 'data'],
  ['application/cbor', 'data'],
  ['application/senml+json', 'senml'],
  ['application/senml+cbor', 'senml'],
]);

const storedAnswer = z.object({
  stored: z.literal(true),
  time: timeAnswer.describe('Of the server, for boards without a clock.'),
});

const FORMS = `The body is what a device may publish on \`data\` (\`application/json\`,
\`application/cbor\`) or on \`senml\` (\`application/senml+json\`, \`application/senml+cbor\`), of at most
PACKET_BYTES_MAX bytes and without \`content-encoding\`.`;
const PROBLEMS = `A message that cannot be stored is kept in quarantine and answered with 422
\`MESSAGE_REFUSED\`, whose \`refusal\` is the code of \`in/err\`; do not send it again. After 503 send it
again with the same \`ts\`: what was stored is not stored twice.`;

/** The routes that take readings over HTTP. */
export function ingestRoutes(deps: IngestRoutesDeps): Route[] {
  return [publishRoute(deps), storeRoute(deps)];
}

function publishRoute({ intake, packetBytesMax }: IngestRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/ingest',
    role: 'device',
    tag: 'ingest',
    summary: 'A message of the device whose key is sent; 200 means it is stored',
    description: `${FORMS} As over MQTT, rates apply: 429 with Retry-After, and the message was not taken.
${PROBLEMS}`,
    input: 'bytes',
    bodyBytesMax: packetBytesMax,
    answers: { 200: { description: 'Committed, or synced to the spool.', schema: storedAnswer } },
    async handle({ principal, body, contentType, address }) {
      const message = messageOf(contentType, body);
      return answerTo(await intake.publish(principal, message, address));
    },
  });
}

function storeRoute({ intake, devices, packetBytesMax }: IngestRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/devices/{device}/readings',
    role: 'admin',
    tag: 'ingest',
    summary: 'Readings of a device, as old as they are kept; 200 means committed',
    description: `${FORMS} No rates apply, and subscribers are not told. Give every sample its
\`ts\`: without one it is dated to now, and stored again with each repetition. A \`ts\` before 2020 or
in the future is answered with 422 \`REQUEST_INVALID\`, and nothing is stored.
${PROBLEMS}`,
    params: deviceParams,
    input: 'bytes',
    bodyBytesMax: packetBytesMax,
    answers: { 200: { description: 'Committed.', schema: storedAnswer } },
    async handle({ principal: { organizationId, organization }, params, body, contentType }) {
      const message = messageOf(contentType, body);
      const { deviceId, slug } = await devices.get(organizationId, params.device);
      const device = { organizationId, organization, deviceId, device: slug };
      return answerTo(await intake.store(device, message));
    },
  });
}

function messageOf(contentType: string, body: unknown): HttpMessage {
  const channel = CHANNELS.get(contentType);
  if (channel === undefined) {
    const types = [...CHANNELS.keys()].join(', ');
    throw new RequestInvalidError([`content-type: must be one of ${types}`], 415);
  }
  if (!Buffer.isBuffer(body) || body.length === 0) {
    throw new RequestInvalidError(['body: there is none']);
  }
  return { channel, payload: body };
}

function answerTo(outcome: HttpOutcome): Answer {
  switch (outcome.kind) {
    case 'stored':
      return { status: 200, body: { stored: true, time: new Date().toISOString() } };
    case 'quarantined':
      throw new MessageRefusedError(outcome.code, outcome.detail);
    case 'refused':
      throw new RequestInvalidError([outcome.detail], 422);
    case 'rate':
      throw new MessageRateError(`the message was not taken: ${outcome.detail}`);
    case 'unavailable':
      throw new MessageNotStoredError(outcome.detail);
  }
}
