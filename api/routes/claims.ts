import { z } from 'zod';
import { CLAIM_STATES } from '../../registry/keys/claim-decision.ts';
import type { Claims, DeviceClaim } from '../../registry/keys/claims.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf, timeAnswer } from '../schemas.ts';
import { authorOf } from './devices.ts';

const claimAnswer = z.object({
  hardwareId: z.string().describe('What the board calls itself; the name of its device.'),
  claimKeyId: z.string().describe('Public part of the claim key that it came with.'),
  model: z.string().nullable(),
  state: z.enum(CLAIM_STATES),
  address: z.string().describe('Of its connection.'),
  requestedAt: timeAnswer,
  decidedAt: timeAnswer.nullable(),
  decidedBy: z.string().nullable().describe('Public part of the key of who decided.'),
});
const claimParams = z.strictObject({ hardwareId: z.string().describe('Of the board.') });
const place = z.tuple([z.string()]);

/** The routes of boards that have asked for a name. */
export function claimRoutes(claims: Claims, pageRowsMax: number): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/claims',
      role: 'admin',
      tag: 'keys',
      summary: 'List boards that have claimed a name, in the order of their hardware ids',
      query: z.strictObject({
        state: z.enum(CLAIM_STATES).optional().describe('Only in this state.'),
        limit: limitQuery(100, pageRowsMax),
        cursor: cursorQuery,
      }),
      answers: { 200: { description: 'A page of claims.', schema: pageOf(claimAnswer) } },
      async handle({ principal: { organizationId }, query: { state = null, limit, cursor } }) {
        const filters = ['claims', organizationId, state];
        const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
        const { rows, hasMore } = await claims.list({ organizationId, state, limit, after });
        const next = hasMore ? writeCursor(filters, [rows.at(-1)?.hardwareId]) : null;
        return { status: 200, body: { data: rows.map(bodyOf), next } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/claims/{hardwareId}/approve',
      role: 'admin',
      tag: 'keys',
      summary: 'Let a board have its key when it asks again',
      description: 'For one key, with the claim key that the board has come with.',
      params: claimParams,
      answers: { 200: { description: 'The claim.', schema: claimAnswer } },
      async handle({ principal, params: { hardwareId } }) {
        return { status: 200, body: bodyOf(await claims.approve(authorOf(principal), hardwareId)) };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/claims/{hardwareId}/deny',
      role: 'admin',
      tag: 'keys',
      summary: 'Refuse a board, whatever claim key it comes with, until it is approved',
      description: 'A device that it has become stays as it is: disable or delete that.',
      params: claimParams,
      answers: { 200: { description: 'The claim.', schema: claimAnswer } },
      async handle({ principal, params: { hardwareId } }) {
        return { status: 200, body: bodyOf(await claims.deny(authorOf(principal), hardwareId)) };
      },
    }),
  ];
}

function bodyOf(claim: DeviceClaim): z.input<typeof claimAnswer> {
  const { hardwareId, keyId, model, state, address, decidedBy } = claim;
  return {
    ...{ hardwareId, model, state, address, decidedBy },
    claimKeyId: keyId,
    requestedAt: claim.requestedAt.toISOString(),
    decidedAt: claim.decidedAt?.toISOString() ?? null,
  };
}
