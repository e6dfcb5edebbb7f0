import { z } from 'zod';
import { ConfigurationVersionRequiredError } from '../../command-errors.ts';
import type {
  ConfigurationVersion,
  DeviceConfiguration,
  Held,
  TypeConfiguration,
  TypeEffect,
} from '../../configuration/configuration.ts';
import { RequestInvalidError } from '../../errors.ts';
import { timeAnswer } from '../schemas.ts';

const document = z.looseObject({});

const heldAnswer = z
  .object({
    code: z.enum(['too_big', 'invalid']),
    detail: z.string(),
  })
  .describe('Why the document is not what it should be by now.');

/** The configuration of a device. */
export const configurationAnswer = z.object({
  device: z.string(),
  type: z.string().nullable(),
  version: z.int().describe('Of the document; 0: nothing was ever wanted. Also the ETag.'),
  desired: document.describe('What is set for this device.'),
  document: document.describe(
    'What it is sent: the defaults of its type with "desired" over them.',
  ),
  changedAt: timeAnswer.nullable(),
  changedBy: z.string().nullable().describe('Id of a key, device-type/… or puback.'),
  published: z.boolean().describe('Whether this version is in the topic of the device.'),
  packet: z
    .object({ bytes: z.int(), bytesMax: z.int() })
    .describe('Size of the packet, and the largest that the device takes.'),
  reported: z
    .object({
      version: z.int(),
      ok: z.boolean(),
      document: document.nullable().describe('What is in effect, as far as the device said.'),
      message: z.string().nullable(),
      at: timeAnswer,
    })
    .nullable()
    .describe('Null: the device has said nothing yet.'),
  drift: z.object({
    drifting: z
      .boolean()
      .describe('It differs for longer than 15 minutes, and than three times its sleep.'),
    since: timeAnswer.nullable().describe('Null: the device has what it should.'),
  }),
  held: heldAnswer.nullable(),
});

/** A version in the history of a device. */
export const configurationVersionAnswer = z.object({
  version: z.int(),
  desired: document,
  document,
  cause: z
    .enum(['device', 'type', 'number'])
    .describe('Set for the device; by its type; nothing but a higher number.'),
  createdAt: timeAnswer,
  createdBy: z.string(),
});

/** What is set for a type. */
export const typeConfigurationAnswer = z.object({
  type: z.string(),
  version: z.int().describe('Also the ETag.'),
  defaults: document,
  schema: document.nullable(),
  updatedAt: timeAnswer,
  updatedBy: z.string(),
});

/** What a change of a type did to its devices. */
export const typeEffectAnswer = z.object({
  changed: z.int().describe('Devices that have a new version.'),
  heldCount: z.int(),
  held: z
    .array(heldAnswer.extend({ device: z.string() }))
    .describe('Devices whose document stays as it was, the first 100.'),
  complete: z.boolean().describe('False: the rest follows within seconds.'),
});

/** A configuration in an answer. */
export function configurationBody(found: DeviceConfiguration): z.input<typeof configurationAnswer> {
  const { reported, differsSince, packet, held } = found;
  return {
    device: found.device,
    type: found.type,
    version: found.version,
    desired: found.desired,
    document: found.document,
    changedAt: found.changedAt?.toISOString() ?? null,
    changedBy: found.changedBy,
    published: found.isPublished,
    packet: { bytes: packet.bytes, bytesMax: packet.bytesMax },
    reported:
      reported === null
        ? null
        : {
            version: reported.version,
            ok: reported.isApplied,
            document: reported.document,
            message: reported.message,
            at: reported.at.toISOString(),
          },
    drift: { drifting: found.isDrifting, since: differsSince?.toISOString() ?? null },
    held: held === null ? null : heldBody(held),
  };
}

/** A version in an answer. */
export function versionBody(
  found: ConfigurationVersion,
): z.input<typeof configurationVersionAnswer> {
  return { ...found, createdAt: found.createdAt.toISOString() };
}

/** A type in an answer. */
export function typeBody(found: TypeConfiguration): z.input<typeof typeConfigurationAnswer> {
  return { ...found, updatedAt: found.updatedAt.toISOString() };
}

/** An effect in an answer. */
export function effectBody(effect: TypeEffect): z.input<typeof typeEffectAnswer> {
  return {
    changed: effect.changed,
    heldCount: effect.heldCount,
    held: effect.held.map((each) => ({ device: each.device, ...heldBody(each) })),
    complete: effect.isComplete,
  };
}

/** A version as the header of an answer. */
export function etagOf(version: number): { readonly etag: string } {
  return { etag: `"${version}"` };
}

/**
 * The version that `If-Match` names; null: whichever there is (`*`).
 * @throws {ConfigurationVersionRequiredError} without the header. @throws {RequestInvalidError}
 */
export function versionAsked(ifMatch: string | null): number | null {
  const text = ifMatch?.trim() ?? '';
  if (text === '') throw new ConfigurationVersionRequiredError();
  if (text === '*') return null;
  const asked = /^(?:"(\d{1,10})"|(\d{1,10}))$/.exec(text);
  if (asked === null) {
    throw new RequestInvalidError(['headers.if-match: must be one version, as in "7", or *']);
  }
  return Number(asked[1] ?? asked[2]);
}

function heldBody(held: Held): z.input<typeof heldAnswer> {
  const { code } = held;
  const detail =
    held.code === 'invalid'
      ? held.detail
      : `the packet would have ${held.bytes} bytes; shorten the document, or let the firmware say a larger "mps" in its hello`;
  return { code, detail };
}
