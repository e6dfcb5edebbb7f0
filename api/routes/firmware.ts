import { Readable } from 'node:stream';
import { z } from 'zod';
import { FIRMWARE_TEXT_BYTES_MAX, type Firmware } from '../../ota/firmware.ts';
import type { Ota } from '../../ota/ota.ts';
import { fromBase64, SIGNATURE_BYTES } from '../../ota/signature.ts';
import { FirmwareNotFoundError } from '../../ota-errors.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import {
  cursorQuery,
  freeText,
  labelText,
  limitQuery,
  pageOf,
  timeAnswer,
  uuidOf,
} from '../schemas.ts';
import { authorOf } from './devices.ts';
import { signerName } from './firmware-signers.ts';

/** What the routes of firmware need. */
export interface FirmwareRoutesDeps {
  readonly ota: Pick<Ota, 'firmware'>;
  /** Largest `limit` of a list. */
  readonly pageRowsMax: number;
}

const NOTES_CHARS_MAX = 1000;
const place = z.tuple([z.uuid()]);
const firmwareParams = z.strictObject({ firmwareId: z.string().describe('Id of the image.') });
const state = z.enum(['ready', 'withdrawn']);
const word = labelText(FIRMWARE_TEXT_BYTES_MAX).refine(
  (text) => Buffer.byteLength(text) <= FIRMWARE_TEXT_BYTES_MAX,
  `must have at most ${FIRMWARE_TEXT_BYTES_MAX} bytes`,
);
const model = word.describe('What devices say as "mdl" of hello: project_name of esp_app_desc_t.');
const version = word.describe('What devices say as "fw" of hello: version of esp_app_desc_t.');

const firmwareAnswer = z.object({
  id: z.uuid(),
  model: z.string(),
  version: z.string(),
  state: state.describe('withdrawn: its bytes are deleted, no device is updated with it any more.'),
  bytes: z.number().int(),
  sha256: z.string().describe('Hexadecimal.'),
  signature: z.string().nullable().describe('Ed25519 over the bytes, base64; null: not signed.'),
  signer: z.string().nullable(),
  signerRevoked: z.boolean().describe('Nobody is updated with the image then.'),
  notes: z.string(),
  createdAt: timeAnswer,
  createdBy: z.string().describe('Id of a key.'),
});

const UPLOAD_DESCRIPTION = `The body is the image as it is (\`curl -T app.bin -X POST\`), of any content type. An image of
ESP-IDF says itself what it is: model and version that contradict it are refused; of others they are
taken as said. Of each model there is one image of a version. The same image again answers 200.
\`signature\` is Ed25519 over the bytes of the file, in base64 of either alphabet.`;

/** The routes of firmware images. */
export function firmwareRoutes(deps: FirmwareRoutesDeps): Route[] {
  return [uploadRoute(deps), listRoute(deps), getRoute(deps), withdrawRoute(deps)];
}

function uploadRoute({ ota }: FirmwareRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/firmware',
    role: 'admin',
    tag: 'updates',
    summary: 'Upload a firmware image',
    description: UPLOAD_DESCRIPTION,
    input: 'stream',
    query: z
      .strictObject({
        model,
        version,
        notes: freeText(NOTES_CHARS_MAX).default(''),
        signature: z
          .string()
          .transform((text, context) => {
            const bytes = fromBase64(text);
            if (bytes?.length === SIGNATURE_BYTES) return bytes;
            context.addIssue(`must be ${SIGNATURE_BYTES} bytes in base64`);
            return z.NEVER;
          })
          .optional(),
        signer: signerName.optional(),
      })
      .refine(
        (query) => (query.signature === undefined) === (query.signer === undefined),
        'send "signature" and "signer" together, or neither',
      ),
    answers: {
      200: { description: 'It is there already.', schema: firmwareAnswer },
      201: { description: 'The image is stored.', schema: firmwareAnswer },
    },
    async handle({ principal, query, body, bodyBytes }) {
      const { signature, signer, ...described } = query;
      const isSigned = signature !== undefined && signer !== undefined;
      const { firmware, isNew } = await ota.firmware.upload(authorOf(principal), {
        ...described,
        signed: isSigned ? { signerId: signer, signature } : null,
        // Fastify gives nothing for a body of no bytes.
        body: body instanceof Readable ? body : Readable.from([]),
        bodyBytes,
      });
      const location = `/api/v1/firmware/${firmware.firmwareId}`;
      return { status: isNew ? 201 : 200, body: bodyOf(firmware), headers: { location } };
    },
  });
}

function listRoute({ ota, pageRowsMax }: FirmwareRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/firmware',
    role: 'admin',
    tag: 'updates',
    summary: 'List firmware images, newest first',
    query: z.strictObject({
      model: model.optional(),
      state: state.optional().describe('Only in this state.'),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of images.', schema: pageOf(firmwareAnswer) } },
    async handle({ principal: { organizationId }, query }) {
      const { model: ofModel = null, state: inState = null, limit, cursor } = query;
      const filters = ['firmware', organizationId, ofModel, inState];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const asked = { organizationId, model: ofModel, state: inState, limit, after };
      const { rows, hasMore } = await ota.firmware.list(asked);
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.firmwareId]) : null;
      return { status: 200, body: { data: rows.map(bodyOf), next } };
    },
  });
}

function getRoute({ ota }: FirmwareRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/firmware/{firmwareId}',
    role: 'admin',
    tag: 'updates',
    summary: 'Get a firmware image, without its bytes',
    params: firmwareParams,
    answers: { 200: { description: 'The image.', schema: firmwareAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const firmwareId = uuidOf(params.firmwareId, FirmwareNotFoundError);
      return { status: 200, body: bodyOf(await ota.firmware.get(organizationId, firmwareId)) };
    },
  });
}

function withdrawRoute({ ota }: FirmwareRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/firmware/{firmwareId}',
    role: 'admin',
    tag: 'updates',
    summary: 'Withdraw a firmware image and delete its bytes',
    description: `Downloads of it end, and no device is updated with it any more. Devices that run it
are not touched. Its version is free again.`,
    params: firmwareParams,
    answers: {
      200: { description: 'The image, withdrawn now or before.', schema: firmwareAnswer },
    },
    async handle({ principal, params }) {
      const firmwareId = uuidOf(params.firmwareId, FirmwareNotFoundError);
      const withdrawn = await ota.firmware.withdraw(authorOf(principal), firmwareId);
      return { status: 200, body: bodyOf(withdrawn) };
    },
  });
}

function bodyOf(firmware: Firmware): z.input<typeof firmwareAnswer> {
  return {
    id: firmware.firmwareId,
    model: firmware.model,
    version: firmware.version,
    state: firmware.state,
    bytes: firmware.byteCount,
    sha256: firmware.sha256.toString('hex'),
    signature: firmware.signature?.toString('base64') ?? null,
    signer: firmware.signerId,
    signerRevoked: firmware.isSignerRevoked,
    notes: firmware.notes,
    createdAt: firmware.createdAt.toISOString(),
    createdBy: firmware.createdBy,
  };
}
