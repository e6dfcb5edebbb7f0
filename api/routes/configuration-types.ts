import { z } from 'zod';
import { ConfigurationTypeNotFoundError } from '../../command-errors.ts';
import { RequestInvalidError } from '../../errors.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, limitQuery, pageOf } from '../schemas.ts';
import type { ConfigurationRoutesDeps } from './configuration.ts';
import {
  effectBody,
  etagOf,
  typeBody,
  typeConfigurationAnswer,
  typeEffectAnswer,
  versionAsked,
} from './configuration-answers.ts';
import { authorOf } from './devices.ts';

const typeParams = z.strictObject({
  type: z.string().describe('Type of devices.'),
});
/** As devices have them. */
const TYPE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,47}$/;
const TYPE_FAULT = 'params.type: must be a type of devices: letters, digits and _ . : -';
const PATH = '/api/v1/device-types/{type}/configuration';
const place = z.tuple([z.string().regex(TYPE_NAME)]);

const PAGE_TYPES_MAX = 200;

const documentBody = z.record(z.string(), z.unknown());

/** The routes of what is set for types of devices. */
export function configurationTypeRoutes(deps: ConfigurationRoutesDeps): Route[] {
  return [listRoute(deps), getRoute(deps), putRoute(deps), deleteRoute(deps)];
}

function listRoute({ configurations, pageRowsMax }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/configuration-types',
    role: 'admin',
    tag: 'configuration',
    summary: 'List types of devices for which something is set',
    query: z.strictObject({
      limit: limitQuery(50, Math.min(PAGE_TYPES_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of types.', schema: pageOf(typeConfigurationAnswer) } },
    async handle({ principal: { organizationId }, query: { limit, cursor } }) {
      const filters = ['configuration-types', organizationId];
      const after = cursor === undefined ? null : readCursor(filters, place, cursor)[0];
      const { rows, hasMore } = await configurations.listTypes({ organizationId, limit, after });
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.type]) : null;
      return { status: 200, body: { data: rows.map(typeBody), next } };
    },
  });
}

function getRoute({ configurations }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: PATH,
    role: 'admin',
    tag: 'configuration',
    summary: 'Get the defaults and the schema of a type of devices',
    params: typeParams,
    answers: { 200: { description: 'What is set.', schema: typeConfigurationAnswer } },
    async handle({ principal: { organizationId }, params: { type } }) {
      assertKnowable(type);
      const found = await configurations.getType(organizationId, type);
      return { status: 200, body: typeBody(found), headers: etagOf(found.version) };
    },
  });
}

function putRoute({ configurations }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'PUT',
    path: PATH,
    role: 'admin',
    tag: 'configuration',
    summary: 'Set the defaults and the schema of a type of devices',
    description: `Every device of the type whose document changes by it has a new version, those too for
which nothing was ever set. Those that cannot take it, because it is too big for them or not as the schema
says, keep what they have and are listed. The schema is JSON Schema 2020-12 of the whole document, without
pattern, patternProperties, format, and references other than #/$defs/…. If-Match: the version that the
change is made for, "0" for a type for which nothing is set, or *.`,
    params: typeParams,
    body: z
      .strictObject({
        defaults: documentBody.default({}),
        schema: documentBody.nullable().default(null).describe('Null: anything.'),
      })
      .meta({
        examples: [
          {
            defaults: { every: 60, mode: 'auto' },
            schema: { properties: { every: { type: 'integer', minimum: 10 } } },
          },
        ],
      }),
    answers: {
      200: {
        description: 'What is set now, and what it did to devices.',
        schema: typeConfigurationAnswer.extend({ effect: typeEffectAnswer }),
      },
    },
    async handle({ principal, params: { type }, body, conditions }) {
      if (!TYPE_NAME.test(type)) throw new RequestInvalidError([TYPE_FAULT]);
      const version = versionAsked(conditions.ifMatch);
      const saved = await configurations.putType(authorOf(principal), { type, ...body, version });
      return {
        status: 200,
        body: { ...typeBody(saved.type), effect: effectBody(saved.effect) },
        headers: etagOf(saved.type.version),
      };
    },
  });
}

function deleteRoute({ configurations }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'DELETE',
    path: PATH,
    role: 'admin',
    tag: 'configuration',
    summary: 'Remove the defaults and the schema of a type of devices',
    description: `Its devices keep what is desired of them and lose the defaults, in a new version. If-Match:
the version that is to be removed, or *.`,
    params: typeParams,
    answers: { 200: { description: 'What it did to devices.', schema: typeEffectAnswer } },
    async handle({ principal, params: { type }, conditions }) {
      assertKnowable(type);
      const version = versionAsked(conditions.ifMatch);
      const effect = await configurations.removeType(authorOf(principal), type, version);
      return { status: 200, body: effectBody(effect) };
    },
  });
}

/** A text that no device can have as its type never reaches the database. */
function assertKnowable(type: string): void {
  if (!TYPE_NAME.test(type)) throw new ConfigurationTypeNotFoundError(type);
}
