import { z } from 'zod';
import { COMMAND_STATES, type Command, type CommandEvent } from '../../commands/command.ts';
import { formatDuration } from '../../duration.ts';
import { timeAnswer } from '../schemas.ts';

const STATES = `awaiting_approval: a second person has to agree. queued: waits its turn. published: stands
in the device's slot. sent: was written to its connection. running: the device works on it. The others are
ends; unknown: the device does not know what became of it, or has said nothing for too long.`;

const precondition = z.object({
  reported: z.looseObject({}).optional(),
  readings: z
    .array(
      z.object({
        metric: z.string(),
        op: z.string(),
        value: z.union([z.number(), z.boolean(), z.string()]),
        maxAge: z.string().optional(),
      }),
    )
    .optional(),
});

/** A command as the API shows it. */
export const commandAnswer = z.object({
  id: z.uuid(),
  device: z.string(),
  command: z.string(),
  args: z.looseObject({}),
  state: z.enum(COMMAND_STATES).describe(STATES),
  result: z.unknown().describe('What the device answered with; null: nothing.'),
  code: z.string().nullable().describe('Why it ended as it did, for programs.'),
  message: z.string().nullable().describe('Why, for people.'),
  progress: z.number().int().nullable().describe('Percent, while it runs.'),
  late: z.boolean().describe('The answer came after it had expired or been cancelled.'),
  createdAt: timeAnswer,
  expiresAt: timeAnswer.describe('It is not sent from then on, and not executed.'),
  publishedAt: timeAnswer.nullable(),
  sentAt: timeAnswer.nullable(),
  startedAt: timeAnswer.nullable(),
  endedAt: timeAnswer.nullable(),
  wireId: z.number().int().nullable().describe('Its id in the slot, as the device knows it.'),
  attempts: z.number().int().describe('How often it has entered the slot.'),
  retry: z.enum(['safe', 'never']),
  replace: z.string().nullable(),
  if: precondition.nullable(),
  ref: z.string().nullable().describe('What who asked for it calls it.'),
  origin: z.enum(['api', 'mqtt', 'rule', 'campaign', 'key', 'update']),
  actor: z.string().describe('Id of the key that asked for it, or what did so.'),
  campaignId: z.uuid().nullable(),
  approvedBy: z.string().nullable(),
  approvedAt: timeAnswer.nullable(),
  cancelAskedAt: timeAnswer
    .nullable()
    .describe('Of one that runs: the device was asked to end it.'),
});

/** A command with its steps. */
export const commandWithEvents = commandAnswer.extend({
  events: z
    .array(
      z.object({
        time: timeAnswer,
        state: z.enum(COMMAND_STATES),
        code: z.string().optional(),
        message: z.string().optional(),
        progress: z.number().optional(),
        result: z.unknown().optional(),
        late: z.literal(true).optional(),
        actor: z.string().optional(),
      }),
    )
    .describe('Its steps, oldest first; at most 200.'),
});

/** The body for a command. */
export function commandBody(command: Command): z.input<typeof commandAnswer> {
  return {
    id: command.commandId,
    device: command.device,
    command: command.name,
    args: { ...command.args },
    state: command.state,
    result: command.result ?? null,
    code: command.code,
    message: command.message,
    progress: command.progress,
    late: command.isLate,
    ...timesOf(command),
    wireId: command.wireId,
    attempts: command.attempts,
    retry: command.isRetrySafe ? 'safe' : 'never',
    replace: command.replaceKey,
    if: preconditionBody(command.precondition),
    ref: command.ref,
    origin: command.origin,
    actor: command.actor,
    campaignId: command.campaignId,
    approvedBy: command.approvedBy,
  };
}

/** The body for a command with its steps. */
export function commandWithEventsBody(
  command: Command,
  events: readonly CommandEvent[],
): z.input<typeof commandWithEvents> {
  return { ...commandBody(command), events: events.map(eventBody) };
}

type Times = 'createdAt' | 'expiresAt' | 'publishedAt' | 'sentAt' | 'startedAt' | 'endedAt';

function timesOf(
  command: Command,
): Pick<z.input<typeof commandAnswer>, Times | 'approvedAt' | 'cancelAskedAt'> {
  return {
    createdAt: command.createdAt.toISOString(),
    expiresAt: command.expiresAt.toISOString(),
    publishedAt: timeText(command.publishedAt),
    sentAt: timeText(command.sentAt),
    startedAt: timeText(command.startedAt),
    endedAt: timeText(command.endedAt),
    approvedAt: timeText(command.approvedAt),
    cancelAskedAt: timeText(command.cancelAskedAt),
  };
}

function preconditionBody(asked: Command['precondition']): z.input<typeof precondition> | null {
  if (asked === null) return null;
  const { reported, readings } = asked;
  return {
    ...(reported === undefined ? {} : { reported }),
    ...(readings === undefined
      ? {}
      : {
          readings: readings.map(({ ageMaxMs, ...rest }) => ({
            ...rest,
            ...(ageMaxMs === null ? {} : { maxAge: formatDuration(ageMaxMs * 1000) }),
          })),
        }),
  };
}

function eventBody({
  occurredAt,
  state,
  detail,
}: CommandEvent): z.input<typeof commandWithEvents>['events'][number] {
  const { code, msg, pct, r, late, actor } = detail;
  return {
    time: occurredAt.toISOString(),
    state,
    ...(code === undefined ? {} : { code }),
    ...(msg === undefined ? {} : { message: msg }),
    ...(pct === undefined ? {} : { progress: pct }),
    ...(r === undefined ? {} : { result: r }),
    ...(late === undefined ? {} : { late }),
    ...(actor === undefined ? {} : { actor }),
  };
}

function timeText(time: Date | null): string | null {
  return time === null ? null : time.toISOString();
}
