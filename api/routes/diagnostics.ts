import { z } from 'zod';
import { findHint } from '../../firmware-protocol/diagnosis.ts';
import type { Devices } from '../../registry/devices.ts';
import type {
  Diagnostics,
  KnownClock,
  RefusalCount,
  StoredDeviceEvent,
  StoredPresence,
} from '../../registry/diagnostics.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, deviceParams, limitQuery, pageOf, timeAnswer } from '../schemas.ts';

const hint = z.string().nullable().describe('What to change; null for a code of a newer version.');
const code = z.string().describe('Stable; docs/errors.md lists all of them.');
const refusalAnswer = z.object({ code, count: z.number().int(), lastAt: timeAnswer, hint });
const eventAnswer = z.object({
  eventId: z.string(),
  device: z.string().nullable().describe('Null when no device stands behind it.'),
  kind: z
    .enum(['connect', 'disconnect', 'refusal', 'identity'])
    .describe('refusal: of a connection or of a message; identity: two peers with one key.'),
  code,
  detail: z.string(),
  count: z.number().int().describe('Equal events within ten seconds.'),
  at: timeAnswer,
  lastAt: timeAnswer.describe('Of the last of the equal ones.'),
  address: z.string(),
  keyId: z.string().nullable(),
  connectionNumber: z.number().int().nullable(),
  hint,
});
const presenceAnswer = z.object({
  state: z.enum(['online', 'sleeping', 'offline']),
  since: timeAnswer,
  lastContactAt: timeAnswer,
  address: z.string(),
  connectionNumber: z.number().int().describe('Rises with each connection of the device.'),
  hello: z.record(z.string(), z.unknown()).describe('What the device last said of itself.'),
  helloAt: timeAnswer.nullable(),
});
const clockAnswer = z.object({
  offsetMs: z
    .number()
    .int()
    .describe('Milliseconds that the clock of its ts is ahead of the server. Below 0: behind.'),
  driftPpm: z.number().nullable().describe('How fast that grows; null while too little is known.'),
  isCorrected: z.boolean().describe('Times are corrected by it; only of a clock that is ahead.'),
  messages: z.number().int().describe('Messages that say so.'),
  measuredAt: timeAnswer,
});
const deviceAnswer = z.object({
  device: z.string(),
  presence: presenceAnswer.nullable().describe('Null: it has never connected.'),
  clock: clockAnswer
    .nullable()
    .describe('Null: it sends no ts, or too little is known. Up to 15 minutes old.'),
  refusals: z.array(refusalAnswer).describe('Of the last 24 hours, the latest first.'),
  quarantined: z.number().int().describe('Messages in quarantine; GET /api/v1/quarantine?device='),
  events: pageOf(eventAnswer).describe('Newest first.'),
});
const addressAnswer = z.object({
  address: z.string(),
  refusals: z.array(refusalAnswer).describe('Of the last 24 hours, the latest first.'),
  events: pageOf(eventAnswer).describe('Newest first.'),
});
const place = z.tuple([z.uuid()]);

/** The routes that say why a connection or its messages are refused. */
export function diagnosticRoutes(
  diagnostics: Diagnostics,
  devices: Devices,
  pageRowsMax: number,
): Route[] {
  const paging = { limit: limitQuery(50, pageRowsMax), cursor: cursorQuery };
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/diagnostics',
      role: 'admin',
      tag: 'diagnostics',
      summary: 'Why a device does not connect, or its messages are not stored',
      description: '"limit" and "cursor" are for "events".',
      params: deviceParams,
      query: z.strictObject(paging),
      answers: { 200: { description: 'What is known.', schema: deviceAnswer } },
      async handle({ principal: { organizationId }, params, query: { limit, cursor } }) {
        const { deviceId, slug } = await devices.get(organizationId, params.device);
        const filters = ['device events', organizationId, deviceId];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const asked = { organizationId, deviceId, limit, after };
        const page = await diagnostics.listForDevice(asked);
        const presence = await diagnostics.findPresence(asked);
        const clock = await diagnostics.findClock(asked);
        const body: z.input<typeof deviceAnswer> = {
          device: slug,
          presence: presence === null ? null : presenceBodyOf(presence),
          clock: clock === null ? null : clockBodyOf(clock),
          refusals: (await diagnostics.countForDevice(asked)).map(refusalBodyOf),
          quarantined: await diagnostics.countQuarantined(asked),
          events: { data: page.rows.map(eventBodyOf), next: nextOf(page, filters) },
        };
        return { status: 200, body };
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/api/v1/diagnostics',
      role: 'admin',
      tag: 'diagnostics',
      summary: 'Why connections from an address are refused',
      description:
        'For a device that is not recognized: its key is wrong, or its address is banned. Events of other organizations are left out.',
      query: z.strictObject({
        address: z.union([z.ipv4(), z.ipv6()]).describe('IP address that the server sees.'),
        ...paging,
      }),
      answers: { 200: { description: 'What is known.', schema: addressAnswer } },
      async handle({ principal: { organizationId }, query: { address, limit, cursor } }) {
        const filters = ['address events', organizationId, address];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const asked = { organizationId, address, limit, after };
        const page = await diagnostics.listForAddress(asked);
        const body: z.input<typeof addressAnswer> = {
          address,
          refusals: (await diagnostics.countForAddress(asked)).map(refusalBodyOf),
          events: { data: page.rows.map(eventBodyOf), next: nextOf(page, filters) },
        };
        return { status: 200, body };
      },
    }),
  ];
}

function nextOf(
  { rows, hasMore }: { readonly rows: readonly StoredDeviceEvent[]; readonly hasMore: boolean },
  filters: readonly unknown[],
): string | null {
  return hasMore ? writeCursor(filters, [rows.at(-1)?.deviceEventId]) : null;
}

function refusalBodyOf(refusal: RefusalCount): z.input<typeof refusalAnswer> {
  const { code: of, count, lastAt } = refusal;
  return { code: of, count, lastAt: lastAt.toISOString(), hint: findHint(of) };
}

function eventBodyOf(event: StoredDeviceEvent): z.input<typeof eventAnswer> {
  return {
    eventId: event.deviceEventId,
    device: event.device,
    kind: event.kind,
    code: event.code,
    detail: event.detail,
    count: event.count,
    at: event.occurredAt.toISOString(),
    lastAt: event.lastOccurredAt.toISOString(),
    address: event.address,
    keyId: event.keyId,
    connectionNumber: event.connectionNumber,
    hint: findHint(event.code),
  };
}

function clockBodyOf(clock: KnownClock): z.input<typeof clockAnswer> {
  const { offsetMs, driftPpm, isCorrected, samples, measuredAt } = clock;
  const messages = samples;
  return { offsetMs, driftPpm, isCorrected, messages, measuredAt: measuredAt.toISOString() };
}

function presenceBodyOf(presence: StoredPresence): z.input<typeof presenceAnswer> {
  return {
    state: presence.state,
    since: presence.since.toISOString(),
    lastContactAt: presence.lastContactAt.toISOString(),
    address: presence.address,
    connectionNumber: presence.connectionNumber,
    hello: presence.hello,
    helloAt: presence.helloAt?.toISOString() ?? null,
  };
}
