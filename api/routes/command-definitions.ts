import { z } from 'zod';
import { CommandDefinitionNotFoundError } from '../../command-errors.ts';
import type { CommandDefinition } from '../../commands/definition.ts';
import type { CommandDefinitions } from '../../commands/definitions.ts';
import { durationMs } from '../../commands/duration-text.ts';
import { TTL_MS_MAX } from '../../commands/request-schema.ts';
import { RequestInvalidError } from '../../errors.ts';
import { COMMAND_NAME } from '../../firmware-protocol/command.ts';
import { formatDuration } from '../../duration.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, freeText, limitQuery, pageOf, timeAnswer } from '../schemas.ts';
import { authorOf } from './devices.ts';

/** What the routes of definitions of commands need. */
export interface CommandDefinitionRoutesDeps {
  readonly commandDefinitions: CommandDefinitions;
  readonly pageRowsMax: number;
}

/** Stands for devices of any type. */
const ANY_TYPE = '*';
const DESCRIPTION_CHARS_MAX = 1000;
/** Of the request; the schema itself has bounds of its own. */
const BODY_BYTES_MAX = 65_536;

const params = z.strictObject({
  type: z.string().describe('Type of devices; *: any.'),
  command: z.string().describe('Name of the command.'),
});
/** As devices have them. */
const typeName = z.string().regex(/^(?:\*|[A-Za-z0-9][A-Za-z0-9_.:-]{0,47})$/);
const place = z.tuple([typeName, z.string().regex(COMMAND_NAME)]);
const TYPE_FAULT = 'params.type: must be * or a type of devices: letters, digits and _ . : -';

const definitionAnswer = z.object({
  type: z.string().describe('Type of devices; *: any.'),
  command: z.string(),
  description: z.string(),
  schema: z.looseObject({}).describe('JSON Schema of the arguments.'),
  needsApproval: z.boolean(),
  retry: z.enum(['safe', 'never']),
  ttl: z.string().nullable().describe('Null: COMMAND_TTL_S.'),
  updatedAt: timeAnswer,
  updatedBy: z.string().describe('Id of a key.'),
});

/** The routes of what commands take. */
export function commandDefinitionRoutes(deps: CommandDefinitionRoutesDeps): Route[] {
  return [listRoute(deps), getRoute(deps), putRoute(deps), deleteRoute(deps)];
}

function listRoute({ commandDefinitions, pageRowsMax }: CommandDefinitionRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/command-definitions',
    role: 'admin',
    tag: 'commands',
    summary: 'List what commands take, by type of device; those of any type first',
    query: z.strictObject({
      type: typeName.optional().describe('Only of this type; *: those of any.'),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of definitions.', schema: pageOf(definitionAnswer) } },
    async handle({ principal: { organizationId }, query: { type, limit, cursor } }) {
      const filters = ['command-definitions', organizationId, type];
      const [afterType, name] = cursor === undefined ? [] : readCursor(filters, place, cursor);
      const after =
        afterType === undefined || name === undefined
          ? null
          : { deviceType: deviceTypeOf(afterType), name };
      const types = type === undefined ? null : { deviceType: deviceTypeOf(type) };
      const page = await commandDefinitions.list({ organizationId, types, limit, after });
      const last = page.rows.at(-1);
      const next = page.hasMore
        ? writeCursor(filters, [last?.deviceType ?? ANY_TYPE, last?.name])
        : null;
      return { status: 200, body: { data: page.rows.map(bodyOf), next } };
    },
  });
}

function getRoute({ commandDefinitions }: CommandDefinitionRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/command-definitions/{type}/{command}',
    role: 'admin',
    tag: 'commands',
    summary: 'Get what a command takes',
    params,
    answers: { 200: { description: 'The definition.', schema: definitionAnswer } },
    async handle({ principal: { organizationId }, params: asked }) {
      const { deviceType, name } = named(asked);
      const found = await commandDefinitions.get(organizationId, deviceType, name);
      return { status: 200, body: bodyOf(found) };
    },
  });
}

function putRoute({ commandDefinitions }: CommandDefinitionRoutesDeps): Route {
  return defineRoute({
    method: 'PUT',
    path: '/api/v1/command-definitions/{type}/{command}',
    role: 'admin',
    tag: 'commands',
    summary: 'Say what a command takes',
    description: `Arguments are checked when a command is asked for, over HTTP, MQTT, by rules and by
campaigns. A type of devices that has definitions takes no other commands but those of any type (*) and
sys.reboot, sys.log and sys.hello. The schema is JSON Schema 2020-12 without pattern, patternProperties,
format, and references other than #/$defs/….`,
    params,
    body: z.strictObject({
      schema: z
        .record(z.string(), z.unknown())
        .default({})
        .describe('JSON Schema of the arguments; {}: anything.'),
      description: freeText(DESCRIPTION_CHARS_MAX).default(''),
      needsApproval: z
        .boolean()
        .default(false)
        .describe('A second person has to agree before it is sent.'),
      retry: z.enum(['safe', 'never']).default('never').describe('Where the request does not say.'),
      ttl: durationMs(1000, TTL_MS_MAX)
        .nullable()
        .default(null)
        .describe('Where the request does not say; null: COMMAND_TTL_S.'),
    }),
    bodyBytesMax: BODY_BYTES_MAX,
    answers: {
      200: { description: 'It is another one now.', schema: definitionAnswer },
      201: { description: 'It is new.', schema: definitionAnswer },
    },
    async handle({ principal, params: { type, command: name }, body }) {
      if (!typeName.safeParse(type).success) throw new RequestInvalidError([TYPE_FAULT]);
      const { definition, isNew } = await commandDefinitions.put(authorOf(principal), {
        deviceType: deviceTypeOf(type),
        name,
        description: body.description,
        schema: body.schema,
        needsApproval: body.needsApproval,
        isRetrySafe: body.retry === 'safe',
        ttlMs: body.ttl,
      });
      return { status: isNew ? 201 : 200, body: bodyOf(definition) };
    },
  });
}

function deleteRoute({ commandDefinitions }: CommandDefinitionRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: '/api/v1/command-definitions/{type}/{command}',
    role: 'admin',
    tag: 'commands',
    summary: 'Delete a definition; commands that wait stay as they are',
    params,
    answers: { 204: { description: 'Gone.', schema: null } },
    async handle({ principal, params: asked }) {
      const { deviceType, name } = named(asked);
      await commandDefinitions.remove(authorOf(principal), deviceType, name);
      return { status: 204 };
    },
  });
}

/** What a path names. */
function named({ type, command }: { readonly type: string; readonly command: string }): {
  readonly deviceType: string | null;
  readonly name: string;
} {
  // Neither a type that no device can have nor such a name reaches the database.
  if (!typeName.safeParse(type).success || !COMMAND_NAME.test(command)) {
    throw new CommandDefinitionNotFoundError(command, type);
  }
  return { deviceType: deviceTypeOf(type), name: command };
}

function deviceTypeOf(type: string): string | null {
  return type === ANY_TYPE ? null : type;
}

function bodyOf(definition: CommandDefinition): z.input<typeof definitionAnswer> {
  const { deviceType, name, description, schema, needsApproval, ttlMs } = definition;
  return {
    type: deviceType ?? ANY_TYPE,
    command: name,
    description,
    schema,
    needsApproval,
    retry: definition.isRetrySafe ? 'safe' : 'never',
    ttl: ttlMs === null ? null : formatDuration(ttlMs * 1000),
    updatedAt: definition.updatedAt.toISOString(),
    updatedBy: definition.updatedBy,
  };
}
