import { z } from 'zod';
import { COMMAND_NAME } from './command.ts';

/*
 * What integrators see of a device and send to it, as JSON values. Telemetry is shown in one form,
 * whatever the device sent.
 */

const unixMs = z.int().describe('Milliseconds since 1970.');
const shownSeq = z.int().min(0).exactOptional().describe('Number of the message, from the device.');

/** A sample as integrators see it: `ts`, then metrics under their flat names. */
const shownSampleSchema = z
  .object({ ts: unixMs, seq: shownSeq })
  .catchall(z.union([z.number(), z.boolean(), z.string()]));

/** `P/data` as integrators see it. */
export const shownDataSchema = z.union([shownSampleSchema, z.array(shownSampleSchema).min(2)]);

/** `P/event/{name}` as integrators see it. */
export const shownEventSchema = z.object({ ts: unixMs, seq: shownSeq }).catchall(z.json());

const shownLineSchema = z.object({
  ts: unixMs,
  l: z.enum(['E', 'W', 'I', 'D', 'V']).exactOptional().describe('Level.'),
  tag: z.string().exactOptional(),
  up: z.int().min(0).exactOptional().describe('Milliseconds since boot.'),
  msg: z.string(),
});

/** `P/log` as integrators see it. */
export const shownLogSchema = z.union([shownLineSchema, z.array(shownLineSchema).min(2)]);

/** `P/status`. No payload at all: the device was deleted. */
export const statusSchema = z.object({
  st: z.enum(['online', 'sleeping', 'offline']),
  since: unixMs.describe('When the state began, in milliseconds since 1970.'),
  ts: unixMs.describe('The time of which this was true, in milliseconds since 1970.'),
  fw: z.string().exactOptional().describe('Version of the firmware, from `hello`.'),
  sleep: z.int().min(0).describe('Planned seconds between contacts, from `hello`.'),
  sid: z
    .string()
    .regex(/^[0-9a-z]+$/)
    .describe('Number of the connection, in base 36. It rises with each connection.'),
});

const isoTime = z.iso.datetime();

/** `P/alert/{rule}`. No payload at all: the alert does not fire any more. */
export const alertSchema = z.object({
  alertId: z.uuid(),
  rule: z.string().describe('Name of the rule.'),
  ruleId: z.string().describe('Id of the rule.'),
  device: z.string(),
  severity: z.string(),
  state: z.enum(['firing', 'resolved']),
  value: z.union([z.number(), z.string(), z.null()]).describe('Of the first metric of the rule.'),
  labels: z.record(z.string(), z.string()),
  annotations: z.record(z.string(), z.string()),
  activeAt: isoTime,
  firedAt: isoTime.nullable(),
  resolvedAt: isoTime.nullable(),
  groupKey: z.string().exactOptional().describe('Of a rule that groups.'),
});

/** States of a command, as integrators are told. */
export const SHOWN_COMMAND_STATES = [
  'awaiting_approval',
  'queued',
  'published',
  'sent',
  'running',
  'succeeded',
  'failed',
  'rejected',
  'expired',
  'cancelled',
  'unknown',
] as const;

/** `P/cmd/{id}`: a step in the life of a command. */
export const commandEventSchema = z.object({
  id: z.uuid().describe('Id of the command, the same as over HTTP.'),
  cmd: z.string().regex(COMMAND_NAME),
  st: z.enum(SHOWN_COMMAND_STATES).describe('State that it came into.'),
  ts: unixMs.describe('When, in milliseconds since 1970.'),
  ref: z.string().exactOptional().describe('What the integrator called it: `do/{command}/{ref}`.'),
  pct: z.number().min(0).max(100).exactOptional().describe('How far it is, in percent.'),
  r: z.json().exactOptional().describe('Result, from the device.'),
  code: z.string().exactOptional().describe('Why it failed or was not taken, for programs.'),
  msg: z.string().exactOptional().describe('Why, for people.'),
  late: z
    .literal(true)
    .exactOptional()
    .describe('The answer came after the command had expired or been cancelled.'),
});

/** `P/cmd/refused`: a publication on `do/…` that became no command. */
export const refusedCommandSchema = z.object({
  cmd: z.string().describe('Name, as it stood in the topic.'),
  ref: z.string().exactOptional().describe('What the integrator called it.'),
  code: z
    .string()
    .describe('Why, for programs: as the code of the API in lower case, or as on `in/err`.'),
  msg: z.string().describe('Why, for people.'),
});

/** `P/do/{command}` and `P/do/{command}/{ref}`: the arguments. No payload is the same as `{}`. */
export const commandArgumentsSchema = z.record(z.string(), z.json());
