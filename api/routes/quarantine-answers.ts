import { isUtf8 } from 'node:buffer';
import { z } from 'zod';
import { findHint } from '../../firmware-protocol/diagnosis.ts';
import type { InspectedMessage } from '../../ingest/quarantine.ts';
import type { QuarantinedMessage } from '../../ingest/quarantine-row.ts';
import type { ReinjectionResult } from '../../ingest/reinjection.ts';
import { timeAnswer } from '../schemas.ts';
import { formatMicros } from '../time-text.ts';

/** How a payload is written. */
export const encoding = z.enum(['text', 'base64']);
/** A message of a list. */
export const messageAnswer = z.object({
  quarantineId: z.string(),
  device: z.string().nullable().describe('Null when the device was deleted since.'),
  receivedAt: timeAnswer,
  topic: z.string(),
  code: z
    .string()
    .describe('Why, as the device was told on in/err; or not_stored, device_quarantined.'),
  detail: z.string(),
  editedAt: timeAnswer.nullable(),
  payload: z.string(),
  payloadEncoding: encoding.describe('text: the payload is printable UTF-8.'),
  payloadBytes: z.number().int(),
});
/** One message. */
export const inspectedAnswer = messageAnswer.extend({
  hint: z.string().nullable().describe('What to change, in a sentence.'),
  originalPayload: z.string().nullable().describe('As sent; null when it was never edited.'),
  originalPayloadEncoding: encoding.nullable(),
  revision: z.string().describe('To be sent with a change of the message.'),
});
const refusedAnswer = z.object({ quarantineId: z.string(), code: z.string(), detail: z.string() });
/** What became of messages that were sent again. */
export const outcomeAnswer = z.object({
  stored: z.number().int().describe('Stored now, and no longer in quarantine.'),
  refused: z.array(refusedAnswer).describe('In quarantine still, with the new reason.'),
});

/** {@link messageAnswer} of a message. */
export function bodyOf(message: QuarantinedMessage): z.input<typeof messageAnswer> {
  return {
    quarantineId: message.quarantineId,
    device: message.device,
    receivedAt: formatMicros(message.receivedMicros),
    topic: message.topic,
    code: message.code,
    detail: message.detail,
    editedAt: message.editedAt?.toISOString() ?? null,
    payload: message.payload.toString(encodingOf(message.payload)),
    payloadEncoding: isPrintable(message.payload) ? 'text' : 'base64',
    payloadBytes: message.payload.length,
  };
}

/** {@link inspectedAnswer} of a message. */
export function inspectedBody(message: InspectedMessage): z.input<typeof inspectedAnswer> {
  const { originalPayload } = message;
  const isText = originalPayload === null || isPrintable(originalPayload);
  return {
    ...bodyOf(message),
    hint: findHint(message.code),
    originalPayload: originalPayload?.toString(encodingOf(originalPayload)) ?? null,
    originalPayloadEncoding: originalPayload === null ? null : isText ? 'text' : 'base64',
    revision: message.revision,
  };
}

/** {@link outcomeAnswer} of a run. */
export function outcomeBody({ stored, refused }: ReinjectionResult): z.input<typeof outcomeAnswer> {
  return { stored, refused: [...refused] };
}

function encodingOf(payload: Buffer): 'utf8' | 'base64' {
  return isPrintable(payload) ? 'utf8' : 'base64';
}

/** UTF-8 without control characters other than tab and line ends. */
function isPrintable(payload: Buffer): boolean {
  return isUtf8(payload) && !/[^\P{Cc}\t\r\n]/u.test(payload.toString('utf8'));
}
