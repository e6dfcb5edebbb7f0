import { Buffer } from 'node:buffer';
import { z } from 'zod';
import { SLOT_ID_MAX } from './command.ts';
import type { Refusal } from './contract.ts';
import { readObject, shortText } from './json-object.ts';
import { findStorageFault } from './storable-json.ts';

/** Largest payload of channel `ack`, in bytes. */
export const ACK_BYTES_MAX = 2048;
/** Largest result `r` of an answer, in bytes of JSON. */
export const ACK_RESULT_BYTES_MAX = 1024;
/** Longest `code` and `msg` of an answer, in bytes; longer ones are cut. */
export const ACK_CODE_BYTES_MAX = 32;
/** See {@link ACK_CODE_BYTES_MAX}. */
export const ACK_MESSAGE_BYTES_MAX = 200;

/**
 * What a device says of a command: done, under way, failed, not taken (unknown, expired, bad arguments),
 * or seen before with an outcome that it no longer knows.
 */
export const ACK_STATES = ['ok', 'run', 'err', 'no', 'dup'] as const;
/** One of {@link ACK_STATES}. */
export type AckState = (typeof ACK_STATES)[number];

/** The payload of channel `ack` as a JSON value. */
export const ackSchema = z.object({
  id: z.int().min(1).max(SLOT_ID_MAX).describe('Of the command, as it stood in the slot.'),
  st: z.enum(ACK_STATES).describe('What became of it.'),
  r: z
    .json()
    .refine((r) => Buffer.byteLength(JSON.stringify(r)) <= ACK_RESULT_BYTES_MAX, 'too_big')
    .refine((r) => findStorageFault(r) === null, 'r: U+0000 or half of a surrogate pair')
    .exactOptional()
    .describe('Result of a command that is done: any JSON, up to 1024 bytes.'),
  pct: z
    .number()
    .min(0)
    .max(100)
    .transform(Math.round)
    .exactOptional()
    .describe('How far a command is that runs, in percent.'),
  code: shortText(ACK_CODE_BYTES_MAX)
    .exactOptional()
    .describe('Why it failed or was not taken, for programs: `valve`, `unknown`, `expired`.'),
  msg: shortText(ACK_MESSAGE_BYTES_MAX).exactOptional().describe('Why, for people.'),
  last: z
    .int()
    .min(0)
    .max(SLOT_ID_MAX)
    .exactOptional()
    .describe('Of `dup`: id of the last command that the device took.'),
});

/** What a device answered to a command. */
export type Ack = z.infer<typeof ackSchema>;

/** Decodes a message of channel `ack`. Never throws. */
export function decodeAck(payload: Buffer): Ack | Refusal {
  return readObject(payload, ackSchema, ACK_BYTES_MAX);
}
