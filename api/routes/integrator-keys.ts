import { z } from 'zod';
import { DEVICE_NAME, KEY_DEVICES_MAX, SCOPES } from '../../firmware-protocol/contract.ts';
import type { IntegratorKey, IntegratorKeys } from '../../registry/integrator-keys.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, labelText, limitQuery, pageOf, timeAnswer, timeText } from '../schemas.ts';
import { authorOf } from './devices.ts';

const keyAnswer = z.object({
  keyId: z.string().describe('Public part of the key: the 8 characters after "pbi_".'),
  name: z.string(),
  scopes: z.array(z.string()),
  devices: z.array(z.string()).nullable().describe('The only devices it may see; null for all.'),
  state: z.enum(['active', 'expired', 'revoked']),
  createdAt: timeAnswer,
  expiresAt: timeAnswer.nullable().describe('Null: never.'),
  lastUsedAt: timeAnswer.nullable().describe('To the minute; null when never.'),
  revokedAt: timeAnswer.nullable(),
});
const newKeyAnswer = keyAnswer.extend({
  key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
});
const keyParams = z.strictObject({ keyId: z.string().describe('Public part of the key.') });
const place = z.tuple([z.string().regex(/^[0-9A-Za-z]{8}$/)]);
const isSet = (all: readonly string[]): boolean => new Set(all).size === all.length;

const scopes = z
  .array(z.enum(SCOPES))
  .min(1)
  .refine(isSet, 'must not name a scope twice')
  .describe(
    'Streams that it may read: data, status (and those of the organization), event, log, alert, cmd, raw (what devices and broker tell each other); cmd:write: give commands.',
  );
const devices = z
  .array(z.string().regex(DEVICE_NAME))
  .min(1)
  .max(KEY_DEVICES_MAX)
  .refine(isSet, 'must not name a device twice')
  .nullable()
  .default(null)
  .describe('Names of the only devices that it may see; null for all.');
const expiresAt = timeText
  .refine((micros) => micros > Date.now() * 1000, 'must be in the future')
  .nullable()
  .default(null)
  .describe('When the key ends by itself, with its connections; null: never.');

/** The routes of the keys of integrators: programs that read streams over MQTT. */
export function integratorKeyRoutes(keys: IntegratorKeys, pageRowsMax: number): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/keys',
      role: 'admin',
      tag: 'keys',
      summary: 'List the keys of integrators, oldest first, revoked and expired ones too',
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of keys.', schema: pageOf(keyAnswer) } },
      async handle({ principal: { organizationId }, query: { limit, cursor } }) {
        const filters = ['integrator keys', organizationId];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await keys.list({ organizationId, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.keyId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/keys',
      role: 'admin',
      tag: 'keys',
      summary: 'Make a key for an integrator',
      description: 'The only answer that has the key itself. Send it as the password over MQTT.',
      body: z.strictObject({ name: labelText(100), scopes, devices, expiresAt }),
      answers: { 201: { description: 'The key.', schema: newKeyAnswer } },
      async handle({ principal, body: { expiresAt: expiresMicros, ...wanted } }) {
        const made = await keys.create(authorOf(principal), {
          ...wanted,
          expiresAt: expiresMicros === null ? null : new Date(Math.floor(expiresMicros / 1000)),
        });
        return {
          status: 201,
          body: { ...bodyOf(made), key: made.key },
          headers: { location: `/api/v1/keys/${made.keyId}` },
        };
      },
    }),
    ...singleKeyRoutes(keys),
  ];
}

function singleKeyRoutes(keys: IntegratorKeys): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Get the key of an integrator, without its secret',
      params: keyParams,
      answers: { 200: { description: 'The key.', schema: keyAnswer } },
      async handle({ principal: { organizationId }, params: { keyId } }) {
        return { status: 200, body: bodyOf(await keys.get(organizationId, keyId)) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Revoke the key of an integrator for good and end its connections',
      params: keyParams,
      answers: { 204: { description: 'Revoked, now or before.', schema: null } },
      async handle({ principal, params: { keyId } }) {
        await keys.revoke(authorOf(principal), keyId);
        return { status: 204 };
      },
    }),
  ];
}

function bodyOf(key: IntegratorKey): z.input<typeof keyAnswer> {
  return {
    keyId: key.keyId,
    name: key.name,
    scopes: [...key.scopes],
    devices: key.devices === null ? null : [...key.devices],
    state: stateOf(key),
    createdAt: key.createdAt.toISOString(),
    expiresAt: key.expiresAt?.toISOString() ?? null,
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
    revokedAt: key.revokedAt?.toISOString() ?? null,
  };
}

function stateOf({ revokedAt, expiresAt }: IntegratorKey): 'active' | 'expired' | 'revoked' {
  if (revokedAt !== null) return 'revoked';
  return expiresAt !== null && expiresAt.getTime() <= Date.now() ? 'expired' : 'active';
}
