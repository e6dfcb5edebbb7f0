import { z } from 'zod';
import type { Ota } from '../../ota/ota.ts';
import { UPDATE_STATES, type DeviceUpdate } from '../../ota/update.ts';
import { FirmwareNotFoundError, UpdateNotFoundError } from '../../ota-errors.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  deviceParams,
  durationText,
  limitQuery,
  pageOf,
  timeAnswer,
  uuidOf,
} from '../schemas.ts';
import { authorOf } from './devices.ts';

/** What the routes of updates need. */
export interface UpdateRoutesDeps {
  readonly ota: Pick<Ota, 'updates'>;
  /** Largest `limit` of a list. */
  readonly pageRowsMax: number;
}

const TTL_MICROS_MAX = 31_622_400_000_000;
const place = z.tuple([z.uuid()]);
const updateParams = z.strictObject({ updateId: z.string().describe('Id of the update.') });

const updateAnswer = z.object({
  id: z.uuid(),
  device: z.string(),
  firmware: z.uuid(),
  model: z.string(),
  version: z.string().describe('Version that the device is to have.'),
  fromVersion: z.string().nullable().describe('Version that it had.'),
  state: z
    .enum(UPDATE_STATES)
    .describe(
      'installing: it was sent all bytes; the next boots decide. succeeded: it greeted with the new version.',
    ),
  code: z.string().nullable().describe('Why it ended as it did.'),
  detail: z.string().nullable(),
  bytes: z.number().int().describe('Size of the image.'),
  bytesSent: z.number().int(),
  boots: z.number().int().describe('Boots since the device took the image, as far as it counts.'),
  command: z.uuid().nullable().describe('Id of its sys.ota.'),
  campaign: z.uuid().nullable(),
  startedAt: timeAnswer,
  changedAt: timeAnswer.describe('Of the state.'),
  endedAt: timeAnswer.nullable(),
});

/** The routes of updates of devices. */
export function updateRoutes(deps: UpdateRoutesDeps): Route[] {
  return [beginRoute(deps), listRoute(deps), getRoute(deps), cancelRoute(deps)];
}

function beginRoute({ ota }: UpdateRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/devices/{device}/updates',
    role: 'admin',
    tag: 'updates',
    summary: 'Update the firmware of a device',
    description: `Sends it a sys.ota with a link. The update has succeeded when the device greets with the
new version. Asking again for the same image while that is under way gives the same update. Many devices
are updated by a campaign of the kind "update".`,
    params: deviceParams,
    body: z.strictObject({
      firmware: z.string().describe('Id of the image.'),
      ttl: durationText
        .refine((micros) => micros >= 1_000_000 && micros <= TTL_MICROS_MAX, '1s to 366d')
        .optional()
        .describe('How long the command may wait for the device.'),
      force: z.boolean().default(false).describe('Also when the device has not said its model.'),
    }),
    answers: {
      200: { description: 'The update that is under way.', schema: updateAnswer },
      202: { description: 'The update has begun.', schema: updateAnswer },
    },
    async handle({ principal, params: { device }, body: { firmware, ttl, force } }) {
      const { update, isNew } = await ota.updates.begin(authorOf(principal), {
        device,
        firmwareId: uuidOf(firmware, FirmwareNotFoundError),
        campaignId: null,
        ttlMs: ttl === undefined ? null : ttl / 1000,
        isForced: force,
      });
      const location = `/api/v1/updates/${update.updateId}`;
      return { status: isNew ? 202 : 200, body: bodyOf(update), headers: { location } };
    },
  });
}

function listRoute({ ota, pageRowsMax }: UpdateRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/updates',
    role: 'admin',
    tag: 'updates',
    summary: 'List the updates of a device, newest first',
    params: deviceParams,
    query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
    answers: { 200: { description: 'A page of updates.', schema: pageOf(updateAnswer) } },
    async handle({ principal: { organizationId }, params: { device }, query }) {
      const { limit, cursor } = query;
      const filters = ['updates', organizationId, device];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const page = await ota.updates.list({ organizationId, device, limit, after });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.updateId]) : null;
      return { status: 200, body: { data: page.rows.map(bodyOf), next } };
    },
  });
}

function getRoute({ ota }: UpdateRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/updates/{updateId}',
    role: 'admin',
    tag: 'updates',
    summary: 'Get an update',
    params: updateParams,
    answers: { 200: { description: 'The update.', schema: updateAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const updateId = uuidOf(params.updateId, UpdateNotFoundError);
      return { status: 200, body: bodyOf(await ota.updates.get(organizationId, updateId)) };
    },
  });
}

function cancelRoute({ ota }: UpdateRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/updates/{updateId}',
    role: 'admin',
    tag: 'updates',
    summary: 'Cancel an update whose image the device does not have yet',
    description: 'A download ends at once. 409: it has ended, or is being installed.',
    params: updateParams,
    answers: { 200: { description: 'The update, ended.', schema: updateAnswer } },
    async handle({ principal, params }) {
      const updateId = uuidOf(params.updateId, UpdateNotFoundError);
      return { status: 200, body: bodyOf(await ota.updates.cancel(authorOf(principal), updateId)) };
    },
  });
}

function bodyOf(update: DeviceUpdate): z.input<typeof updateAnswer> {
  return {
    id: update.updateId,
    device: update.device,
    firmware: update.firmwareId,
    model: update.model,
    version: update.version,
    fromVersion: update.fromVersion,
    state: update.state,
    code: update.code,
    detail: update.detail,
    bytes: update.byteCount,
    bytesSent: update.bytesSent,
    boots: update.boots,
    command: update.commandId,
    campaign: update.campaignId,
    startedAt: update.startedAt.toISOString(),
    changedAt: update.changedAt.toISOString(),
    endedAt: update.endedAt?.toISOString() ?? null,
  };
}
