import { z } from 'zod';
import type { BrokerAddress } from '../../registry/keys/broker-address.ts';
import type { ClaimKey, ClaimKeys } from '../../registry/keys/claim-keys.ts';
import { qrOf } from '../../registry/keys/key-carrier.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, labelText, limitQuery, pageOf, timeAnswer, timeText } from '../schemas.ts';
import { authorOf, deviceTags, deviceTypeName } from './devices.ts';
import { qrAnswer, qrQuery } from './keys.ts';

const MODELS_MAX = 50;
const QUOTA_MAX = 1_000_000;

const claimKeyAnswer = z.object({
  keyId: z.string().describe('Public part of the key: the 8 characters after "pbc_".'),
  name: z.string(),
  state: z.enum(['active', 'expired', 'revoked']),
  quota: z.number(),
  claimed: z.number().describe('Devices that were made with it.'),
  type: z.string().nullable(),
  tags: z.array(z.string()),
  models: z.array(z.string()).nullable(),
  approval: z.enum(['auto', 'manual']),
  createdAt: timeAnswer,
  expiresAt: timeAnswer,
  lastUsedAt: timeAnswer.nullable().describe('To the minute; null when never.'),
  revokedAt: timeAnswer.nullable(),
});
const newClaimKeyAnswer = claimKeyAnswer.extend({
  key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
  qr: qrAnswer,
});
const keyParams = z.strictObject({ keyId: z.string().describe('Public part of the key.') });
const place = z.tuple([z.string().regex(/^[0-9A-Za-z]{8}$/)]);

const quota = z.int().min(1).max(QUOTA_MAX).describe('Devices that may be made with it.');
const approval = z
  .enum(['auto', 'manual'])
  .describe('manual: each board waits until somebody approves it under /api/v1/claims.');
const expiresAt = timeText
  .refine((micros) => micros > Date.now() * 1000, 'must be in the future')
  .describe('When the key ends by itself.');
const models = z
  .array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,30}$/))
  .min(1)
  .max(MODELS_MAX)
  .refine((all) => new Set(all).size === all.length, 'must not name a model twice')
  .nullable()
  .default(null)
  .describe('Models ("mdl") that may claim; null: any. A board says itself what it is.');

/** What the routes of claim keys need. */
export interface ClaimKeyRoutesDeps {
  readonly claimKeys: ClaimKeys;
  readonly address: BrokerAddress | null;
  readonly pageRowsMax: number;
}

/** The routes of claim keys: what firmware of a whole batch carries. */
export function claimKeyRoutes({ claimKeys, address, pageRowsMax }: ClaimKeyRoutesDeps): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/claim-keys',
      role: 'admin',
      tag: 'keys',
      summary: 'List claim keys, oldest first, revoked and expired ones too',
      query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
      answers: { 200: { description: 'A page of claim keys.', schema: pageOf(claimKeyAnswer) } },
      async handle({ principal: { organizationId }, query: { limit, cursor } }) {
        const filters = ['claim keys', organizationId];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await claimKeys.list({ organizationId, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.keyId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/claim-keys',
      role: 'admin',
      tag: 'keys',
      summary: 'Make a claim key for the firmware of a batch',
      description: `Boards connect with their hardware id as user name and this key as password, and may do nothing but
ask for a key of their own. The only answer that has the key itself.`,
      query: qrQuery,
      body: z.strictObject({
        name: labelText(100),
        quota,
        expiresAt,
        type: deviceTypeName.default(null),
        tags: deviceTags.default([]),
        models,
        approval: approval.default('auto'),
      }),
      answers: { 201: { description: 'The claim key.', schema: newClaimKeyAnswer } },
      async handle({ principal, query: { qr }, body }) {
        const { type, approval: asked, expiresAt: micros, ...rest } = body;
        const code = qr === undefined ? null : qrOf(address);
        const made = await claimKeys.create(authorOf(principal), {
          ...rest,
          deviceType: type,
          needsApproval: asked === 'manual',
          expiresAt: dateOf(micros),
        });
        const { key, keyId, organization } = made;
        const drawn = code === null ? {} : { qr: await code(organization, key) };
        return {
          status: 201,
          body: { ...bodyOf(made), key, ...drawn },
          headers: { location: `/api/v1/claim-keys/${keyId}` },
        };
      },
    }),
    ...singleRoutes(claimKeys),
  ];
}

function singleRoutes(claimKeys: ClaimKeys): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/claim-keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Get a claim key, without its secret',
      params: keyParams,
      answers: { 200: { description: 'The claim key.', schema: claimKeyAnswer } },
      async handle({ principal: { organizationId }, params: { keyId } }) {
        return { status: 200, body: bodyOf(await claimKeys.get(organizationId, keyId)) };
      },
    }),
    defineRoute({
      method: 'PATCH',
      path: '/api/v1/claim-keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Change what a claim key allows',
      description: 'What is left out stays. Boards that are connected with it connect again.',
      params: keyParams,
      body: z
        .strictObject({
          quota: quota.optional(),
          expiresAt: expiresAt.optional(),
          approval: approval.optional(),
        })
        .refine((change) => Object.keys(change).length > 0, 'must change something'),
      answers: { 200: { description: 'The claim key as it is now.', schema: claimKeyAnswer } },
      async handle({ principal, params: { keyId }, body }) {
        const after = await claimKeys.update(authorOf(principal), keyId, {
          quota: body.quota,
          expiresAt: body.expiresAt === undefined ? undefined : dateOf(body.expiresAt),
          needsApproval: body.approval === undefined ? undefined : body.approval === 'manual',
        });
        return { status: 200, body: bodyOf(after) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/claim-keys/{keyId}',
      role: 'admin',
      tag: 'keys',
      summary: 'Revoke a claim key for good; devices that were made with it stay',
      params: keyParams,
      answers: { 204: { description: 'Revoked, now or before.', schema: null } },
      async handle({ principal, params: { keyId } }) {
        await claimKeys.revoke(authorOf(principal), keyId);
        return { status: 204 };
      },
    }),
  ];
}

function dateOf(micros: number): Date {
  return new Date(Math.floor(micros / 1000));
}

function bodyOf(key: ClaimKey): z.input<typeof claimKeyAnswer> {
  return {
    keyId: key.keyId,
    name: key.name,
    state: stateOf(key),
    quota: key.quota,
    claimed: key.claimed,
    type: key.deviceType,
    tags: [...key.tags],
    models: key.models === null ? null : [...key.models],
    approval: key.needsApproval ? 'manual' : 'auto',
    createdAt: key.createdAt.toISOString(),
    expiresAt: key.expiresAt.toISOString(),
    lastUsedAt: key.lastUsedAt?.toISOString() ?? null,
    revokedAt: key.revokedAt?.toISOString() ?? null,
  };
}

function stateOf({ revokedAt, expiresAt: end }: ClaimKey): 'active' | 'expired' | 'revoked' {
  if (revokedAt !== null) return 'revoked';
  return end.getTime() <= Date.now() ? 'expired' : 'active';
}
