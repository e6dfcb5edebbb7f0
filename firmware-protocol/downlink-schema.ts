import { z } from 'zod';
import { COMMAND_NAME, SLOT_ID_MAX } from './command.ts';
import { CONFIGURATION_VERSION_MAX } from './configuration.ts';
import { REFUSAL_CODES } from './contract.ts';
import { KEY_DENIALS } from './key-request.ts';

/*
 * What the broker sends to a device, as JSON values. The broker sends no other members; firmware ignores
 * those that it does not know, because a later minor version may have more.
 */

const unixMs = z.int().min(0);

/** The payload of `in/cmd`. No payload at all: nothing waits, and the last answer is stored. */
export const slotCommandSchema = z.object({
  id: z.int().min(1).max(SLOT_ID_MAX).describe('Rises with each command of a device.'),
  cmd: z
    .string()
    .regex(COMMAND_NAME)
    .describe('Name. Those that begin with `sys.` have a fixed meaning.'),
  args: z.record(z.string(), z.json()).describe('Arguments; `{}` when there are none.'),
  n: z.int().min(1).describe('Commands that wait, this one included.'),
  exp: z.int().min(0).describe('Unix seconds from which on it must not be executed.'),
});

/** The payload of `in/cfg`: always the whole document. No payload at all: no configuration is wanted. */
export const desiredConfigurationSchema = z.object({
  v: z.int().min(1).max(CONFIGURATION_VERSION_MAX).describe('Version; rises with each change.'),
  cfg: z.record(z.string(), z.json()).describe('The whole document.'),
});

/** The payload of `in/hello`. */
export const greetingSchema = z.object({
  ts: unixMs.describe("The server's time in milliseconds since 1970."),
  up: z
    .int()
    .min(0)
    .exactOptional()
    .describe('The `up` of the hello that this answers, to take away half of the round trip.'),
  cmd: z.int().min(0).describe('Commands that wait.'),
  cfg: z.int().min(0).describe('Version of the configuration that is wanted; 0: none.'),
  seq: z
    .int()
    .min(0)
    .exactOptional()
    .describe('Up to which `seq` everything of this boot is stored.'),
});

/** The payload of `in/err`. */
export const deviceErrorSchema = z.object({
  code: z.enum(REFUSAL_CODES).describe('For programs.'),
  ch: z
    .string()
    .describe('Channel as the device wrote it; `in` of a SUBSCRIBE that was not granted.'),
  msg: z.string().max(100).describe('For people.'),
  n: z.int().min(1).describe('Errors since the device was last told.'),
  ts: unixMs
    .exactOptional()
    .describe("Of `clock` and `too_old`: the server's time in milliseconds since 1970."),
});

/** The payload of `in/key`. */
export const keyAnswerSchema = z.discriminatedUnion('st', [
  z.object({
    st: z.literal('ok'),
    user: z.string().describe('User name for CONNECT: `organization/device`.'),
    key: z.string().regex(/^pbd_[0-9A-Za-z]{8}_[0-9A-Za-z]{33}$/),
  }),
  z.object({
    st: z.literal('wait'),
    retry: z.int().min(1).describe('Seconds before the device asks again.'),
  }),
  z.object({ st: z.literal('no'), code: z.enum(KEY_DENIALS) }),
]);
