import { z } from 'zod';
import { KeyNotFoundError } from '../../errors.ts';
import type { AdminKeys } from '../../registry/admin-keys.ts';
import type { ApiKey } from '../../registry/api-keys.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, labelText, limitQuery, pageOf, timeAnswer } from '../schemas.ts';
import { authorOf } from './devices.ts';

const KEY_ID = /^[0-9A-Za-z]{8}$/;
const place = z.tuple([z.string().regex(KEY_ID)]);

const keyAnswer = z.object({
  keyId: z.string().describe('Public part of the key: the 8 characters after "pba_".'),
  name: z.string().describe('Whose it is.'),
  createdAt: timeAnswer,
  lastUsedAt: timeAnswer.nullable().describe('To the minute; null when never.'),
  revokedAt: timeAnswer.nullable(),
});
const newKeyAnswer = keyAnswer.extend({
  key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
});

/** The routes of the keys of admins: people and programs with all rights in their organization. */
export function adminKeyRoutes(keys: AdminKeys, pageRowsMax: number): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/admin-keys',
      role: 'admin',
      tag: 'keys',
      summary: 'List the keys of admins, oldest first, revoked ones too',
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of keys.', schema: pageOf(keyAnswer) } },
      async handle({ principal: { organizationId }, query: { limit, cursor } }) {
        const filters = ['admin keys', organizationId];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await keys.list({ organizationId, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.keyId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/admin-keys',
      role: 'admin',
      tag: 'keys',
      summary: 'Make a key for another person, with all rights in the organization',
      description: `The only answer that has the key itself. What is done with it stands under its id in the
audit trail; a command that needs a second person needs a second key.`,
      body: z.strictObject({ name: labelText(100).describe('Whose it is.') }),
      answers: { 201: { description: 'The key.', schema: newKeyAnswer } },
      async handle({ principal, body: { name } }) {
        const made = await keys.create(authorOf(principal), name);
        return { status: 201, body: { ...bodyOf(made), key: made.key } };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/admin-keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Revoke the key of an admin for good; the last one stays',
      params: z.strictObject({ keyId: z.string().describe('Public part of the key.') }),
      answers: { 204: { description: 'Revoked, now or before.', schema: null } },
      async handle({ principal, params: { keyId } }) {
        if (!KEY_ID.test(keyId)) throw new KeyNotFoundError(keyId);
        await keys.revoke(authorOf(principal), keyId);
        return { status: 204 };
      },
    }),
  ];
}

function bodyOf(key: ApiKey): z.input<typeof keyAnswer> {
  return {
    keyId: key.keyId,
    name: key.name,
    createdAt: key.createdAt.toISOString(),
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
    revokedAt: key.revokedAt?.toISOString() ?? null,
  };
}
