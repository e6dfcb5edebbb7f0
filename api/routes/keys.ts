import { z } from 'zod';
import { keyStateOf, type ApiKey, type ApiKeys } from '../../registry/api-keys.ts';
import type { BrokerAddress } from '../../registry/keys/broker-address.ts';
import { qrOf } from '../../registry/keys/key-carrier.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  deviceParams,
  labelText,
  limitQuery,
  pageOf,
  timeAnswer,
} from '../schemas.ts';
import { authorOf, devicePath } from './devices.ts';

const keyAnswer = z.object({
  keyId: z.string().describe('Public part of the key: the 8 characters after "pbd_".'),
  name: z.string(),
  state: z
    .enum(['pending', 'active', 'retiring', 'expired', 'revoked'])
    .describe(
      'pending: never used, to replace another; retiring: was replaced, ends at expiresAt.',
    ),
  createdAt: timeAnswer,
  lastUsedAt: timeAnswer.nullable().describe('To the minute; null when never.'),
  expiresAt: timeAnswer.nullable().describe('When it ends by itself; null: never.'),
  activatedAt: timeAnswer.nullable().describe('Of one that replaces another: its first use.'),
  replacesKeyId: z
    .string()
    .nullable()
    .describe('The key whose place it takes: of this device, or a claim key.'),
  revokedAt: timeAnswer.nullable(),
});
/** `?qr=svg` where a key is made. */
export const qrQuery = z.strictObject({
  qr: z.enum(['svg']).optional().describe('A QR code of the key too, as an SVG image.'),
});
/** The QR code that was asked for. */
export const qrAnswer = z.string().optional().describe('SVG; only with ?qr=svg. Shows the key.');
const newKeyAnswer = keyAnswer.extend({
  key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
  qr: qrAnswer,
});
const keyParams = deviceParams.extend({ keyId: z.string().describe('Public part of the key.') });
const place = z.tuple([z.string()]);

/** The routes of the keys of a device. */
export function keyRoutes(
  apiKeys: ApiKeys,
  address: BrokerAddress | null,
  pageRowsMax: number,
): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/keys',
      role: 'admin',
      tag: 'keys',
      summary: 'List the keys of a device, oldest first, revoked ones too',
      params: deviceParams,
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of keys.', schema: pageOf(keyAnswer) } },
      async handle({ principal: { organizationId }, params: { device }, query }) {
        const { limit, cursor } = query;
        const filters = ['keys', organizationId, device];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await apiKeys.list({ organizationId, device, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.keyId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/devices/{device}/keys',
      role: 'admin',
      tag: 'keys',
      summary: 'Make a key for a device',
      description: 'The only answer that has the key itself. A device has at most 10 active keys.',
      params: deviceParams,
      query: qrQuery,
      body: z.strictObject({ name: labelText(100).default('key') }).nullish(),
      answers: { 201: { description: 'The key.', schema: newKeyAnswer } },
      async handle({ principal, params: { device }, query: { qr }, body }) {
        const name = body?.name ?? 'key';
        const code = qr === undefined ? null : qrOf(address);
        const made = await apiKeys.createForDevice(authorOf(principal), device, name);
        const user = `${principal.organization}/${device}`;
        const drawn = code === null ? {} : { qr: await code(user, made.key) };
        return {
          status: 201,
          body: { ...bodyOf(made), key: made.key, ...drawn },
          headers: { location: `${devicePath(device)}/keys/${made.keyId}` },
        };
      },
    }),
    ...singleKeyRoutes(apiKeys),
  ];
}

function singleKeyRoutes(apiKeys: ApiKeys): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Get a key, without its secret',
      params: keyParams,
      answers: { 200: { description: 'The key.', schema: keyAnswer } },
      async handle({ principal: { organizationId }, params: { device, keyId } }) {
        const found = await apiKeys.get({ organizationId, device }, keyId);
        return { status: 200, body: bodyOf(found) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/devices/{device}/keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Revoke a key for good and end its connection',
      params: keyParams,
      answers: { 204: { description: 'Revoked, now or before.', schema: null } },
      async handle({ principal, params: { device, keyId } }) {
        await apiKeys.revoke(authorOf(principal), device, keyId);
        return { status: 204 };
      },
    }),
  ];
}

function bodyOf(key: ApiKey): z.input<typeof keyAnswer> {
  return {
    keyId: key.keyId,
    name: key.name,
    state: keyStateOf(key, Date.now()),
    createdAt: key.createdAt.toISOString(),
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
    expiresAt: key.expiresAt?.toISOString() ?? null,
    activatedAt: key.activatedAt?.toISOString() ?? null,
    replacesKeyId: key.replacesKeyId,
    revokedAt: key.revokedAt?.toISOString() ?? null,
  };
}
