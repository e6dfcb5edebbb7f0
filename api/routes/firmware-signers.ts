import { z } from 'zod';
import { PUBLIC_KEY_BYTES } from '../../ota/signature.ts';
import type { Signer } from '../../ota/firmware.ts';
import type { Ota } from '../../ota/ota.ts';
import { defineRoute, type Route } from '../route.ts';
import { pageOf, timeAnswer } from '../schemas.ts';
import { authorOf } from './devices.ts';

/** Name of a signer. */
export const signerName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,47}$/)
  .describe('Name of a signer: 1 to 48 letters, digits and _ . -');

const KEY_CHARS_MAX = 1000;
const signerParams = z.strictObject({ signer: z.string().describe('Name of the signer.') });
const signerAnswer = z.object({
  signer: z.string(),
  publicKey: z.string().describe(`Ed25519, ${PUBLIC_KEY_BYTES} bytes in base64.`),
  state: z.enum(['active', 'revoked']),
  createdAt: timeAnswer,
  createdBy: z.string().describe('Id of a key.'),
  revokedAt: timeAnswer.nullable(),
});

/** The routes of who signs firmware images. */
export function firmwareSignerRoutes({ ota }: { readonly ota: Pick<Ota, 'signers'> }): Route[] {
  return [
    defineRoute({
      method: 'GET',
      path: '/api/v1/firmware-signers',
      role: 'admin',
      tag: 'updates',
      summary: 'List the signers of firmware, revoked ones too',
      answers: { 200: { description: 'All of them.', schema: pageOf(signerAnswer) } },
      async handle({ principal: { organizationId } }) {
        const signers = await ota.signers.list(organizationId);
        return { status: 200, body: { data: signers.map(bodyOf), next: null } };
      },
    }),
    defineRoute({
      method: 'POST',
      path: '/api/v1/firmware-signers',
      role: 'admin',
      tag: 'updates',
      summary: 'Make the public key of a signer known',
      body: z.strictObject({
        signer: signerName,
        publicKey: z
          .string()
          .max(KEY_CHARS_MAX)
          .describe('Ed25519: PEM as openssl writes it, or its 32 bytes in base64.'),
      }),
      answers: { 201: { description: 'The signer.', schema: signerAnswer } },
      async handle({ principal, body: { signer, publicKey } }) {
        const made = await ota.signers.create(authorOf(principal), signer, publicKey);
        const location = `/api/v1/firmware-signers/${made.signerId}`;
        return { status: 201, body: bodyOf(made), headers: { location } };
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/api/v1/firmware-signers/{signer}',
      role: 'admin',
      tag: 'updates',
      summary: 'Get a signer',
      params: signerParams,
      answers: { 200: { description: 'The signer.', schema: signerAnswer } },
      async handle({ principal: { organizationId }, params: { signer } }) {
        return { status: 200, body: bodyOf(await ota.signers.get(organizationId, signer)) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/firmware-signers/{signer}',
      role: 'admin',
      tag: 'updates',
      summary: 'Revoke the key of a signer for good',
      description:
        'Images that it signed are offered to nobody any more, and downloads of them end.',
      params: signerParams,
      answers: { 200: { description: 'Revoked, now or before.', schema: signerAnswer } },
      async handle({ principal, params: { signer } }) {
        return { status: 200, body: bodyOf(await ota.signers.revoke(authorOf(principal), signer)) };
      },
    }),
  ];
}

function bodyOf(signer: Signer): z.input<typeof signerAnswer> {
  return {
    signer: signer.signerId,
    publicKey: signer.publicKey.toString('base64'),
    state: signer.revokedAt === null ? 'active' : 'revoked',
    createdAt: signer.createdAt.toISOString(),
    createdBy: signer.createdBy,
    revokedAt: signer.revokedAt?.toISOString() ?? null,
  };
}
