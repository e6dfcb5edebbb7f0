import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance, FastifySchema } from 'fastify';
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { PROBLEM_TYPE, problemSchema } from './problem.ts';
import { NO_BODY, NOTHING, type Route } from './route.ts';

const DESCRIPTION = `Configuration and history of a fleet of MQTT devices.

- Send an admin key: \`Authorization: Bearer pba_…\`. It acts within its own organization. A device
  sends its own key, \`pbd_…\`, to \`POST /api/v1/ingest\`.
- Lists are pages: \`limit\` rows at most; \`next\` is the \`cursor\` of the next page, or null.
- Times are ISO 8601 in UTC.
- Errors are \`application/problem+json\` (RFC 9457) with a stable \`code\`.`;

/**
 * Everything is served from here. Swagger UI sets styles on elements, which is why styles may be
 * inline; scripts may not.
 */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

/**
 * Collects the routes that are registered after it into an OpenAPI 3.1 document, readable at
 * `/docs`.
 */
export async function registerDocumentation(app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Puback', version, description: DESCRIPTION },
      components: {
        securitySchemes: {
          adminKey: { type: 'http', scheme: 'bearer', description: 'An admin key: pba_…' },
          deviceKey: { type: 'http', scheme: 'bearer', description: 'A key of a device: pbd_…' },
        },
      },
    },
    transform: jsonSchemaTransform,
  });
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: CONTENT_SECURITY_POLICY,
    uiConfig: { docExpansion: 'list', deepLinking: false },
    theme: {
      title: 'Puback API',
      css: [{ filename: 'puback.css', content: '.swagger-ui .topbar { display: none; }' }],
    },
  });
}

/** What Fastify and the OpenAPI document need to know of a route. */
export function schemaOf(route: Route): FastifySchema {
  const responses: Record<string, unknown> = {};
  for (const [status, { description, schema, contentType }] of Object.entries(route.answers)) {
    responses[status] =
      schema === null
        ? z.null().describe(description)
        : { description, content: { [contentType ?? 'application/json']: { schema } } };
  }
  if (route.role !== 'public') {
    responses['default'] = {
      description: 'The request was refused or failed.',
      content: { [PROBLEM_TYPE]: { schema: problemSchema } },
    };
  }
  return {
    tags: [route.tag],
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
    ...(route.role === 'public' ? {} : { security: [{ [`${route.role}Key`]: [] }] }),
    ...(route.params === NOTHING ? {} : { params: route.params }),
    // Also when it takes nothing: then a query is refused.
    querystring: route.query,
    ...(route.body === NO_BODY ? {} : { body: route.body }),
    response: responses,
  };
}
