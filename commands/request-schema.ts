import { z } from 'zod';
import { COMMAND_NAME } from '../firmware-protocol/command.ts';
import {
  findArgumentsFault,
  type CommandArguments,
} from '../firmware-protocol/command-arguments.ts';
import { metricNameSchema, TEXT_BYTES_MAX } from '../firmware-protocol/contract.ts';
import { COMMAND_REF } from '../firmware-protocol/integrator-command.ts';
import { commandRequest, type CommandRequest, type Precondition } from './command.ts';
import { durationMs } from './duration-text.ts';

/** Longest time that a command may wait, in ms: a leap year. */
export const TTL_MS_MAX = 366 * 86_400_000;
const TTL_MS_MIN = 1000;
const READING_CONDITIONS_MAX = 10;

/** Arguments, or another small JSON object, within the bounds of {@link findArgumentsFault}. */
export const argumentsSchema: z.ZodType<CommandArguments> = z
  .record(z.string(), z.unknown())
  .superRefine((value, context) => {
    const fault = findArgumentsFault(value);
    if (fault !== null) context.addIssue(fault.detail);
  });

const readingConditionSchema = z.strictObject({
  metric: metricNameSchema,
  op: z.enum(['>', '>=', '<', '<=', '==', '!=']),
  value: z.union([z.number(), z.boolean(), z.string().max(TEXT_BYTES_MAX)]),
  maxAge: durationMs(1, TTL_MS_MAX).optional().describe('Oldest that the reading may be.'),
});

const preconditionSchema = z.strictObject({
  reported: argumentsSchema
    .optional()
    .describe('Members that the reported configuration must have, with these values.'),
  readings: z
    .array(readingConditionSchema)
    .min(1)
    .max(READING_CONDITIONS_MAX)
    .optional()
    .describe('What the newest readings must be.'),
});

/** What can be asked of a command wherever it is asked for in JSON: in the API, campaigns and rules. */
export const commandSchema = z.strictObject({
  command: z.string().regex(COMMAND_NAME).describe('Name; those that begin with sys. are fixed.'),
  args: argumentsSchema.default({}).describe('What the command takes: a JSON object.'),
  ttl: durationMs(TTL_MS_MIN, TTL_MS_MAX)
    .optional()
    .describe('How long it may wait. Left out: as its definition says, or COMMAND_TTL_S.'),
  replace: z
    .string()
    .regex(COMMAND_REF)
    .optional()
    .describe('Takes the place of a queued one with the same text: for set-points.'),
  retry: z
    .enum(['safe', 'never'])
    .optional()
    .describe('safe: it is sent again when the device reboots in the middle.'),
  if: preconditionSchema
    .optional()
    .describe('What must hold when it is sent; else it is rejected: precondition_failed.'),
  approval: z.boolean().default(false).describe('A second person has to agree.'),
});

/** What {@link commandSchema} reads. */
export type CommandBody = z.output<typeof commandSchema>;

/** The request that a body asks for, for a device. */
export function requestOf(
  device: string,
  body: CommandBody,
  more: Partial<CommandRequest> = {},
): CommandRequest {
  return commandRequest(device, body.command, {
    args: body.args,
    ttlMs: body.ttl ?? null,
    replaceKey: body.replace ?? null,
    isRetrySafe: body.retry === undefined ? null : body.retry === 'safe',
    precondition: preconditionOf(body.if),
    needsApproval: body.approval,
    ...more,
  });
}

function preconditionOf(asked: CommandBody['if']): Precondition | null {
  if (asked === undefined || (asked.reported === undefined && asked.readings === undefined)) {
    return null;
  }
  const { reported, readings } = asked;
  return {
    ...(reported === undefined ? {} : { reported }),
    ...(readings === undefined
      ? {}
      : {
          readings: readings.map(({ maxAge = null, ...rest }) => ({ ...rest, ageMaxMs: maxAge })),
        }),
  };
}
