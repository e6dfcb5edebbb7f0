import { isUtf8 } from 'node:buffer';
import { z } from 'zod';
import type { Quarantine, QuarantinedMessage } from '../../ingest/quarantine.ts';
import type { Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, timeAnswer } from '../schemas.ts';

const messageAnswer = z.object({
  quarantineId: z.string(),
  device: z.string().nullable().describe('Null when the device was deleted since.'),
  receivedAt: timeAnswer,
  topic: z.string(),
  code: z.string().describe('Why, as the device was told on in/err.'),
  detail: z.string(),
  payload: z.string(),
  payloadEncoding: z.enum(['text', 'base64']).describe('text: the payload is printable UTF-8.'),
  payloadBytes: z.number().int(),
});
const place = z.tuple([z.uuid()]);

/** The route of messages that could not be stored. */
export function quarantineRoutes(
  quarantine: Quarantine,
  devices: Devices,
  pageRowsMax: number,
): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/quarantine',
      role: 'admin',
      tag: 'quarantine',
      summary: 'Messages that were acknowledged but could not be stored, newest first',
      description: 'A page also ends when its payloads reach 8 MiB; "next" tells as always.',
      query: z.strictObject({
        device: z.string().optional().describe('Only of this device.'),
        code: z
          .string()
          .regex(/^[a-z_]{1,40}$/)
          .optional()
          .describe('Only with this code.'),
        limit: limitQuery(100, pageRowsMax),
        cursor: cursorQuery,
      }),
      answers: { 200: { description: 'A page of messages.', schema: pageOf(messageAnswer) } },
      async handle({ principal: { organizationId }, query }) {
        const { device, code = null, limit, cursor } = query;
        const deviceId =
          device === undefined ? null : (await devices.get(organizationId, device)).deviceId;
        const filters = ['quarantine', organizationId, deviceId, code];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const page = await quarantine.list({ organizationId, deviceId, code, limit, after });
        const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.quarantineId]) : null;
        return { status: 200, body: { data: page.rows.map(bodyOf), next } };
      },
    }),
  ];
}

function bodyOf(message: QuarantinedMessage): z.input<typeof messageAnswer> {
  const isText = isPrintable(message.payload);
  return {
    quarantineId: message.quarantineId,
    device: message.device,
    receivedAt: message.receivedAt.toISOString(),
    topic: message.topic,
    code: message.code,
    detail: message.detail,
    payload: message.payload.toString(isText ? 'utf8' : 'base64'),
    payloadEncoding: isText ? 'text' : 'base64',
    payloadBytes: message.payload.length,
  };
}

/** UTF-8 without control characters other than tab and line ends. */
function isPrintable(payload: Buffer): boolean {
  return isUtf8(payload) && !/[^\P{Cc}\t\r\n]/u.test(payload.toString('utf8'));
}
