import { z } from 'zod';
import { ConfigurationVersionNotFoundError } from '../../command-errors.ts';
import type {
  ConfigurationChange,
  Configurations,
  DeviceConfiguration,
} from '../../configuration/configuration.ts';
import { CONFIGURATION_VERSION_MAX } from '../../firmware-protocol/configuration.ts';
import type { AdminPrincipal } from '../../registry/principal.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Answer, type RequestConditions, type Route } from '../route.ts';
import { cursorQuery, deviceParams, flagQuery, limitQuery, pageOf } from '../schemas.ts';
import {
  configurationAnswer,
  configurationBody,
  configurationVersionAnswer,
  etagOf,
  versionAsked,
  versionBody,
} from './configuration-answers.ts';
import { authorOf } from './devices.ts';

/** What the routes of configuration need. */
export interface ConfigurationRoutesDeps {
  readonly configurations: Configurations;
  readonly pageRowsMax: number;
}

/** Documents may be long: at most so many on a page. */
const PAGE_DOCUMENTS_MAX = 200;

const versionParams = deviceParams.extend({
  version: z.string().describe('Number of the version.'),
});
const devicePlace = z.tuple([z.string()]);
const versionPlace = z.tuple([z.int().min(1).max(CONFIGURATION_VERSION_MAX)]);
const documentBody = z.record(z.string(), z.unknown());

/** `{type}` of devices in a query, as devices have them. */
const typeQuery = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,47}$/)
  .optional()
  .describe('Only devices of this type.');

const CONDITION = `Send the version that the change is made for, If-Match: "7", or If-Match: * for
whichever there is: 428 without, 412 when it is another one by now. What is wanted already makes no new
version. 422 when the schema of the type does not allow the document, and when its packet would be larger
than the device takes.`;

/** The routes of the configuration of devices. */
export function configurationRoutes(deps: ConfigurationRoutesDeps): Route[] {
  return [
    listRoute(deps),
    getRoute(deps),
    putRoute(deps),
    patchRoute(deps),
    versionsRoute(deps),
    versionRoute(deps),
    restoreRoute(deps),
  ];
}

function listRoute({ configurations, pageRowsMax }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/configurations',
    role: 'admin',
    tag: 'configuration',
    summary: 'List devices that are configured, in the order of their names',
    query: z.strictObject({
      drift: flagQuery.describe('true: only those that drift.'),
      type: typeQuery,
      limit: limitQuery(50, Math.min(PAGE_DOCUMENTS_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of devices.', schema: pageOf(configurationAnswer) } },
    async handle({ principal: { organizationId }, query }) {
      const { drift: isDrifting = false, type = null, limit, cursor } = query;
      const filters = ['configurations', organizationId, isDrifting, type];
      const after = cursor === undefined ? null : readCursor(filters, devicePlace, cursor)[0];
      const asked = { organizationId, isDrifting, type, limit, after };
      const { rows, hasMore } = await configurations.list(asked);
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.device]) : null;
      return { status: 200, body: { data: rows.map(configurationBody), next } };
    },
  });
}

function getRoute({ configurations }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/configuration',
    role: 'admin',
    tag: 'configuration',
    summary: 'Get how a device is configured, and what it says of it',
    params: deviceParams,
    answers: { 200: { description: 'Its configuration.', schema: configurationAnswer } },
    async handle({ principal: { organizationId }, params: { device } }) {
      return answerOf(await configurations.get(organizationId, device));
    },
  });
}

function putRoute(deps: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'PUT',
    path: '/api/v1/devices/{device}/configuration',
    role: 'admin',
    tag: 'configuration',
    summary: 'Set what is desired of a device, whole',
    description: `A null takes a default of its type away. ${CONDITION}`,
    params: deviceParams,
    body: documentBody.meta({ examples: [{ every: 60, mode: 'auto' }] }),
    answers: { 200: { description: 'As it is now.', schema: configurationAnswer } },
    handle: ({ principal, params: { device }, body, conditions }) =>
      edit(deps, { principal, device, conditions }, { kind: 'put', desired: body }),
  });
}

function patchRoute(deps: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'PATCH',
    path: '/api/v1/devices/{device}/configuration',
    role: 'admin',
    tag: 'configuration',
    summary: 'Change some of what is desired of a device',
    description: `The body is a JSON Merge Patch (RFC 7386) of "desired": null takes a member away, so that
the default of the type, if there is one, holds again. application/merge-patch+json or application/json.
${CONDITION}`,
    params: deviceParams,
    body: documentBody.meta({ examples: [{ every: 30, mode: null }] }),
    answers: { 200: { description: 'As it is now.', schema: configurationAnswer } },
    handle: ({ principal, params: { device }, body, conditions }) =>
      edit(deps, { principal, device, conditions }, { kind: 'patch', patch: body }),
  });
}

function versionsRoute({ configurations, pageRowsMax }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/configuration/versions',
    role: 'admin',
    tag: 'configuration',
    summary: 'List what a device was configured with, newest first',
    params: deviceParams,
    query: z.strictObject({
      limit: limitQuery(20, Math.min(PAGE_DOCUMENTS_MAX, pageRowsMax)),
      cursor: cursorQuery,
    }),
    answers: {
      200: { description: 'A page of versions.', schema: pageOf(configurationVersionAnswer) },
    },
    async handle({ principal: { organizationId }, params: { device }, query }) {
      const { limit, cursor } = query;
      const filters = ['configuration-versions', organizationId, device];
      const before = cursor === undefined ? null : readCursor(filters, versionPlace, cursor)[0];
      const asked = { organizationId, device, limit, before };
      const { rows, hasMore } = await configurations.versions(asked);
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.version]) : null;
      return { status: 200, body: { data: rows.map(versionBody), next } };
    },
  });
}

function versionRoute({ configurations }: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/devices/{device}/configuration/versions/{version}',
    role: 'admin',
    tag: 'configuration',
    summary: 'Get a version of the configuration of a device',
    params: versionParams,
    answers: { 200: { description: 'The version.', schema: configurationVersionAnswer } },
    async handle({ principal: { organizationId }, params }) {
      const { device } = params;
      const found = await configurations.version(organizationId, device, versionOf(params));
      return { status: 200, body: versionBody(found) };
    },
  });
}

function restoreRoute(deps: ConfigurationRoutesDeps): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/devices/{device}/configuration/versions/{version}/restore',
    role: 'admin',
    tag: 'configuration',
    summary: 'Desire of a device again what was desired in a version',
    description: `It becomes a new version, with the defaults of the type as they are now. ${CONDITION}`,
    params: versionParams,
    answers: { 200: { description: 'As it is now.', schema: configurationAnswer } },
    handle: ({ principal, params, conditions }) =>
      edit(
        deps,
        { principal, device: params.device, conditions },
        { kind: 'restore', version: versionOf(params) },
      ),
  });
}

/** Whose change it is, of which device, made for which version. */
interface Edited {
  readonly principal: AdminPrincipal;
  readonly device: string;
  readonly conditions: RequestConditions;
}

async function edit(
  { configurations }: ConfigurationRoutesDeps,
  { principal, device, conditions }: Edited,
  change: ConfigurationChange,
): Promise<Answer> {
  const version = versionAsked(conditions.ifMatch);
  return answerOf(await configurations.edit(authorOf(principal), { device, version, change }));
}

function answerOf(found: DeviceConfiguration): Answer {
  return { status: 200, body: configurationBody(found), headers: etagOf(found.version) };
}

/** @throws {ConfigurationVersionNotFoundError} for a text that cannot be one. */
function versionOf({ device, version }: z.output<typeof versionParams>): number {
  const number = /^[1-9]\d{0,9}$/.test(version) ? Number(version) : 0;
  if (number < 1 || number > CONFIGURATION_VERSION_MAX) {
    throw new ConfigurationVersionNotFoundError(device.slice(0, 64), number);
  }
  return number;
}
