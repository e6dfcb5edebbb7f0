import { z } from 'zod';
import { CommandNotFoundError } from '../../command-errors.ts';
import type { CommandDesk } from '../../commands/command-desk.ts';
import {
  COMMAND_STATES,
  END_STATES,
  type Command,
  type CommandState,
} from '../../commands/command.ts';
import type { Commands } from '../../commands/commands.ts';
import { commandSchema, requestOf } from '../../commands/request-schema.ts';
import type { CommandWaits } from '../../commands/waits.ts';
import { RequestInvalidError } from '../../errors.ts';
import { COMMAND_REF } from '../../firmware-protocol/integrator-command.ts';
import type { Devices } from '../../registry/devices.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Answer, type Route } from '../route.ts';
import {
  cursorQuery,
  deviceParams,
  durationText,
  limitQuery,
  listQuery,
  pageOf,
  uuidOf,
} from '../schemas.ts';
import {
  commandAnswer,
  commandBody,
  commandWithEvents,
  commandWithEventsBody,
} from './command-answers.ts';
import { authorOf } from './devices.ts';

/** What the routes of commands need. */
export interface CommandRoutesDeps {
  readonly commands: Commands;
  readonly commandDesk: CommandDesk;
  readonly commandWaits: Pick<CommandWaits, 'outcome'>;
  readonly devices: Devices;
  readonly pageRowsMax: number;
}

const WAIT_S_MAX = 60;
/** Of the request: arguments of 4 KiB, and the conditions as much. */
const BODY_BYTES_MAX = 16_384;
/** Idempotency keys of requests are told apart from those of campaigns, which stand in the same column. */
const KEY_PREFIX = 'api:';
const KEY_FORM = /^[!-~]{1,100}$/;

const commandParams = z.strictObject({ commandId: z.string().describe('Id of the command.') });
const deviceCommandParams = commandParams.extend(deviceParams.shape);
const place = z.tuple([z.uuid()]);
const listFilters = {
  state: listQuery(COMMAND_STATES).describe(
    'Only in these states, with commas between: queued,published,sent,running.',
  ),
  cursor: cursorQuery,
};
const wholeAnswer = {
  200: { description: 'The command with its steps.', schema: commandWithEvents },
};
const cancelAnswers = {
  200: { description: 'It is cancelled.', schema: commandAnswer },
  202: {
    description: 'It runs: the device was asked to end it, and its answer decides.',
    schema: commandAnswer,
  },
};
const CANCEL = `What waits is cancelled, and what stands in the device's slot is taken out of it: a device
that has read it already may still do it, and an answer that it was done wins (late). One that runs is
asked to end with sys.cancel.`;

/** The routes of commands as people and programs use them. */
export function commandRoutes(deps: CommandRoutesDeps): Route[] {
  return [
    sendRoute(deps),
    deviceListRoute(deps),
    deviceGetRoute(deps),
    deviceCancelRoute(deps),
    listRoute(deps),
    getRoute(deps),
    cancelRoute(deps),
    approveRoute(deps),
  ];
}

function sendRoute({ commandDesk, commandWaits }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/devices/{device}/commands',
    role: 'admin',
    tag: 'commands',
    summary: 'Send a command to a device, now or when it connects',
    description: `Commands of a device are done one after another, in the order in which they were sent.
With the header Idempotency-Key (1 to 100 visible ASCII characters) the same request gives the same command
however often it comes. ?wait=10s waits for the outcome: 200 when there is one, else 202 with the command as
it is; when too many requests wait it is 202 at once. docs/commands.md tells more.`,
    params: deviceParams,
    query: z.strictObject({
      wait: durationText
        .refine((micros) => micros <= WAIT_S_MAX * 1_000_000, `must be at most ${WAIT_S_MAX}s`)
        .optional()
        .describe(`How long to wait for the outcome, at most ${WAIT_S_MAX}s.`),
    }),
    body: commandSchema.extend({
      ref: z.string().regex(COMMAND_REF).optional().describe('What you call it; in events too.'),
    }),
    bodyBytesMax: BODY_BYTES_MAX,
    answers: {
      200: { description: 'It has ended; the result is there.', schema: commandAnswer },
      202: { description: 'It waits, or is under way.', schema: commandAnswer },
    },
    async handle({ principal, params, query, body, conditions, gone }) {
      const idempotencyKey = idempotencyKeyOf(conditions.idempotencyKey);
      const request = requestOf(params.device, body, { ref: body.ref ?? null, idempotencyKey });
      const { command } = await commandDesk.enqueue(authorOf(principal), request);
      const waitMs = (query.wait ?? 0) / 1000;
      const known = await commandWaits.outcome({ command, waitMs, gone: gone() });
      const location = `/api/v1/commands/${known.commandId}`;
      return { ...answerOf(known), headers: { location } };
    },
  });
}

function deviceListRoute({ commands, devices, pageRowsMax }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/commands',
    role: 'admin',
    tag: 'commands',
    summary: 'List the commands of a device, newest first',
    params: deviceParams,
    query: z.strictObject({ ...listFilters, limit: limitQuery(100, pageRowsMax) }),
    answers: { 200: { description: 'A page of commands.', schema: pageOf(commandAnswer) } },
    async handle({ principal: { organizationId }, params, query }) {
      const { slug } = await devices.get(organizationId, params.device);
      return page(commands, { organizationId, device: slug, ...query });
    },
  });
}

function deviceGetRoute({ commands }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/commands/{commandId}',
    role: 'admin',
    tag: 'commands',
    summary: 'Get a command of a device with its steps',
    params: deviceCommandParams,
    answers: wholeAnswer,
    async handle({ principal: { organizationId }, params }) {
      return whole(commands, await ofDevice(commands, organizationId, params));
    },
  });
}

function deviceCancelRoute({ commands }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/devices/{device}/commands/{commandId}',
    role: 'admin',
    tag: 'commands',
    summary: 'Cancel a command of a device',
    description: CANCEL,
    params: deviceCommandParams,
    answers: cancelAnswers,
    async handle({ principal, params }) {
      const { commandId } = await ofDevice(commands, principal.organizationId, params);
      return answerOf(await commands.cancel(authorOf(principal), commandId));
    },
  });
}

function listRoute({ commands, devices, pageRowsMax }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/commands',
    role: 'admin',
    tag: 'commands',
    summary: 'List the commands of all devices, newest first',
    query: z.strictObject({
      device: z.string().optional().describe('Only of this device.'),
      ...listFilters,
      limit: limitQuery(100, pageRowsMax),
    }),
    answers: { 200: { description: 'A page of commands.', schema: pageOf(commandAnswer) } },
    async handle({ principal: { organizationId }, query: { device, ...query } }) {
      const slug = device === undefined ? null : (await devices.get(organizationId, device)).slug;
      return page(commands, { organizationId, device: slug, ...query });
    },
  });
}

function getRoute({ commands }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/commands/{commandId}',
    role: 'admin',
    tag: 'commands',
    summary: 'Get a command with its steps',
    params: commandParams,
    answers: wholeAnswer,
    async handle({ principal: { organizationId }, params }) {
      const commandId = uuidOf(params.commandId, CommandNotFoundError);
      return whole(commands, await commands.get(organizationId, commandId));
    },
  });
}

function cancelRoute({ commands }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/commands/{commandId}',
    role: 'admin',
    tag: 'commands',
    summary: 'Cancel a command',
    description: CANCEL,
    params: commandParams,
    answers: cancelAnswers,
    async handle({ principal, params }) {
      const commandId = uuidOf(params.commandId, CommandNotFoundError);
      return answerOf(await commands.cancel(authorOf(principal), commandId));
    },
  });
}

function approveRoute({ commands }: CommandRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/commands/{commandId}/approve',
    role: 'admin',
    tag: 'commands',
    summary: 'Agree to a command that waits for a second person',
    description:
      'With another key than that of who asked for it. Its time to live runs from when it was asked for.',
    params: commandParams,
    answers: { 200: { description: 'It is queued, or sent.', schema: commandAnswer } },
    async handle({ principal, params }) {
      const commandId = uuidOf(params.commandId, CommandNotFoundError);
      return {
        status: 200,
        body: commandBody(await commands.approve(authorOf(principal), commandId)),
      };
    },
  });
}

interface PageAsked {
  readonly organizationId: number;
  readonly device: string | null;
  readonly state?: readonly CommandState[] | undefined;
  readonly limit: number;
  readonly cursor?: string | undefined;
}

async function page(
  commands: Commands,
  { organizationId, device, state, limit, cursor }: PageAsked,
): Promise<Answer> {
  const states = state ?? null;
  const filters = ['commands', organizationId, device, states];
  const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
  const { rows, hasMore } = await commands.list({ organizationId, device, states, limit, after });
  const next = hasMore ? writeCursor(filters, [rows.at(-1)?.commandId]) : null;
  return { status: 200, body: { data: rows.map(commandBody), next } };
}

async function whole(commands: Commands, command: Command): Promise<Answer> {
  const events = await commands.events(command.organizationId, command.commandId);
  return { status: 200, body: commandWithEventsBody(command, events) };
}

/** A command by the path of its device; that of another device is not found there. */
async function ofDevice(
  commands: Commands,
  organizationId: number,
  params: { readonly device: string; readonly commandId: string },
): Promise<Command> {
  const commandId = uuidOf(params.commandId, CommandNotFoundError);
  const command = await commands.get(organizationId, commandId);
  if (command.device !== params.device) throw new CommandNotFoundError(commandId);
  return command;
}

function answerOf(command: Command): Answer {
  return { status: END_STATES.has(command.state) ? 200 : 202, body: commandBody(command) };
}

/** `Idempotency-Key` of people; apart from those that Puback gives itself. @throws {RequestInvalidError} */
export function idempotencyKeyOf(header: string | null): string | null {
  if (header === null) return null;
  if (KEY_FORM.test(header)) return KEY_PREFIX + header;
  throw new RequestInvalidError(['idempotency-key: must be 1 to 100 visible ASCII characters']);
}
