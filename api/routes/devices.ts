import { z } from 'zod';
import { deviceNameSchema } from '../../firmware-protocol/contract.ts';
import type { AdminPrincipal } from '../../registry/principal.ts';
import type { Author, Device, Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { formatDuration } from '../../duration.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  deviceParams,
  durationText,
  labelText,
  limitQuery,
  pageOf,
  timeAnswer,
} from '../schemas.ts';

const TAGS_MAX = 32;

/** Tags of a device. */
export const deviceTags = z
  .array(labelText(48))
  .max(TAGS_MAX)
  .refine((all) => new Set(all).size === all.length, 'must not name a tag twice')
  .describe('Labels of your own, for example a place or a batch.');
const displayName = labelText(100).describe('Name for people.');
/** The type of a device; null for none. */
export const deviceTypeName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,47}$/)
  .nullable()
  .describe(
    'What kind of device it is, for rules: 1 to 48 letters, digits and _ . : -; null for none.',
  );

const reportInterval = durationText
  .refine((micros) => micros > 0, 'must be longer than 0s')
  .nullable()
  .describe(
    'Longest time that it is meant to let pass between two readings, for rules that look for missing ones: 30s, 5m; null: not declared.',
  );

const deviceAnswer = z.object({
  device: z.string().describe('Name in topics and paths; never changes.'),
  displayName: z.string(),
  tags: z.array(z.string()),
  type: z.string().nullable(),
  reportInterval: z.string().nullable(),
  disabled: z.boolean().describe('Its keys are refused.'),
  quarantined: z.boolean().describe('What it sends goes to quarantine; it stays connected.'),
  createdAt: timeAnswer,
  updatedAt: timeAnswer,
});
const place = z.tuple([z.string()]);

/** Who an admin key acts as. */
export function authorOf(principal: AdminPrincipal): Author {
  return { organizationId: principal.organizationId, actor: principal.keyId };
}

/** The routes of devices. */
export function deviceRoutes(devices: Devices, pageRowsMax: number): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices',
      role: 'admin',
      tag: 'devices',
      summary: 'List devices, in the order of their names',
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of devices.', schema: pageOf(deviceAnswer) } },
      async handle({ principal: { organizationId }, query: { limit, cursor } }) {
        const filters = ['devices', organizationId];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await devices.list({ organizationId, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.slug]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/devices',
      role: 'admin',
      tag: 'devices',
      summary: 'Create a device',
      body: z.strictObject({
        device: deviceNameSchema.describe('1 to 48 letters, digits and _ . : - (a MAC fits).'),
        displayName: displayName.optional(),
        tags: deviceTags.optional(),
        type: deviceTypeName.optional(),
        reportInterval: reportInterval.optional(),
      }),
      answers: { 201: { description: 'The device.', schema: deviceAnswer } },
      async handle({ principal, body: { device: slug, reportInterval: micros, ...rest } }) {
        const wanted = { slug, ...rest, reportIntervalMs: millisOf(micros) };
        const made = await devices.create(authorOf(principal), wanted);
        return { status: 201, body: bodyOf(made), headers: { location: devicePath(slug) } };
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}',
      role: 'admin',
      tag: 'devices',
      summary: 'Get a device',
      params: deviceParams,
      answers: { 200: { description: 'The device.', schema: deviceAnswer } },
      async handle({ principal, params }) {
        return {
          status: 200,
          body: bodyOf(await devices.get(principal.organizationId, params.device)),
        };
      },
    }),
    ...changingRoutes(devices),
  ];
}

function changingRoutes(devices: Devices): Route[] {
  return [
    defineRoute({
      method: 'PATCH',
      path: '/api/v1/devices/{device}',
      role: 'admin',
      tag: 'devices',
      summary: 'Change a device',
      description: `What is left out stays. Disabling refuses its keys and ends its connection. Quarantine
keeps what it sends from now on apart, acknowledged, with the code device_quarantined; once it is let out,
POST /api/v1/quarantine/reinject stores what was kept.`,
      params: deviceParams,
      body: z
        .strictObject({
          displayName: displayName.optional(),
          tags: deviceTags.optional(),
          type: deviceTypeName.optional(),
          reportInterval: reportInterval.optional(),
          disabled: z.boolean().optional(),
          quarantined: z.boolean().optional(),
        })
        .refine((change) => Object.keys(change).length > 0, 'must change something'),
      answers: { 200: { description: 'The device as it is now.', schema: deviceAnswer } },
      async handle({ principal, params, body }) {
        const { disabled, quarantined, reportInterval: micros, ...rest } = body;
        const reportIntervalMs = millisOf(micros);
        const states = { isDisabled: disabled, isQuarantined: quarantined };
        const change = { ...rest, ...states, reportIntervalMs };
        const updated = await devices.update(authorOf(principal), params.device, change);
        return { status: 200, body: bodyOf(updated) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/devices/{device}',
      role: 'admin',
      tag: 'devices',
      summary: 'Delete a device with its keys and its whole history',
      description: 'All or nothing. Takes as long as its history needs. There is no way back.',
      params: deviceParams,
      answers: { 204: { description: 'Gone.', schema: null } },
      async handle({ principal, params }) {
        await devices.remove(authorOf(principal), params.device);
        return { status: 204 };
      },
    }),
  ];
}

function millisOf(micros: number | null | undefined): number | null | undefined {
  return typeof micros === 'number' ? micros / 1000 : micros;
}

/** The path of a device, for `Location`. */
export function devicePath(slug: string): string {
  return `/api/v1/devices/${encodeURIComponent(slug)}`;
}

function bodyOf(device: Device): z.input<typeof deviceAnswer> {
  return {
    device: device.slug,
    displayName: device.displayName,
    tags: [...device.tags],
    type: device.type,
    reportInterval:
      device.reportIntervalMs === null ? null : formatDuration(device.reportIntervalMs * 1000),
    disabled: device.isDisabled,
    quarantined: device.isQuarantined,
    createdAt: device.createdAt.toISOString(),
    updatedAt: device.updatedAt.toISOString(),
  };
}
