import { z } from 'zod';
import type { ApiKey, ApiKeys } from '../../registry/api-keys.ts';
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
  state: z.enum(['active', 'revoked']),
  createdAt: timeAnswer,
  lastUsedAt: timeAnswer.nullable().describe('To the minute; null when never.'),
  revokedAt: timeAnswer.nullable(),
});
const newKeyAnswer = keyAnswer.extend({
  key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
});
const keyParams = deviceParams.extend({ keyId: z.string().describe('Public part of the key.') });
const place = z.tuple([z.string()]);

/** The routes of the keys of a device. */
export function keyRoutes(apiKeys: ApiKeys, pageRowsMax: number): Route[] {
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
      body: z.strictObject({ name: labelText(100).default('key') }).nullish(),
      answers: { 201: { description: 'The key.', schema: newKeyAnswer } },
      async handle({ principal, params: { device }, body }) {
        const name = body?.name ?? 'key';
        const made = await apiKeys.createForDevice(authorOf(principal), device, name);
        return {
          status: 201,
          body: { ...bodyOf(made), key: made.key },
          headers: { location: `${devicePath(device)}/keys/${made.keyId}` },
        };
      },
    }),
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
    state: key.revokedAt === null ? 'active' : 'revoked',
    createdAt: key.createdAt.toISOString(),
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
    revokedAt: key.revokedAt?.toISOString() ?? null,
  };
}
