import { z } from 'zod';
import { MESSAGE_POINTS_MAX, UP_MS_MAX } from './contract.ts';
import { UNIT_BYTES_MAX } from './hello.ts';

/*
 * Payloads that have decoders of their own (senml.ts, event.ts, log-entry.ts), as JSON values: for
 * documents and for tests that hold the decoders against them.
 */

const stamp = {
  ts: z
    .number()
    .exactOptional()
    .describe('When it happened: Unix time, seconds below 1e11, else ms.'),
  age: z
    .number()
    .min(0)
    .exactOptional()
    .describe('Milliseconds between what happened and publish.'),
  up: z
    .number()
    .min(0)
    .max(UP_MS_MAX)
    .exactOptional()
    .describe('Milliseconds from boot to what happened.'),
  seq: z.int().min(0).exactOptional().describe('Number of the message, counted by the device.'),
};

/** The payload of `event/{name}`: an object with what is to be said, or any other JSON value. */
export const eventPayloadSchema = z.union([
  z.object(stamp).catchall(z.json()),
  z.array(z.json()),
  z.string(),
  z.number(),
  z.boolean(),
  z.null(),
]);

/** The payload of `log` when it is an object: one line. */
export const logPayloadSchema = z.object({
  l: z.enum(['E', 'W', 'I', 'D', 'V']).nullish().describe('Level.'),
  tag: z.string().nullish(),
  up: z.int().min(0).nullish().describe('Milliseconds since boot.'),
  msg: z.string(),
});

const number = z.number().exactOptional();
const unit = z.string().max(UNIT_BYTES_MAX).exactOptional();

/** A record of SenML in JSON, RFC 8428, 4. Fields that end in `_` are refused; others are ignored. */
const senmlRecordSchema = z.object({
  bver: z.int().min(1).max(10).exactOptional().describe('Base version.'),
  bn: z.string().exactOptional().describe('Base name.'),
  bt: number.describe('Base time.'),
  bu: unit.describe('Base unit.'),
  bv: number.describe('Base value.'),
  bs: number.describe('Base sum.'),
  n: z.string().exactOptional().describe('Name.'),
  u: unit.describe('Unit.'),
  v: z.number().nullable().exactOptional().describe('Value; null: a missing one.'),
  vs: z.string().exactOptional().describe('Text.'),
  vb: z.boolean().exactOptional().describe('Bool.'),
  s: number.describe('Sum.'),
  t: number.describe('Time.'),
  ut: number.describe('Update time; not used.'),
});

/** The payload of `senml` in JSON. */
export const senmlPayloadSchema = z.array(senmlRecordSchema).max(MESSAGE_POINTS_MAX);
