import { Readable } from 'node:stream';
import { z } from 'zod';
import type { RefusedLine } from '../../ingest/import/import-store.ts';
import type { Imports, ImportView } from '../../ingest/import/imports.ts';
import { HEAD_BYTES } from '../../ingest/import/line-splitter.ts';
import { readCursor, writeCursor } from '../cursor.ts';
import { defineRoute, type Route } from '../route.ts';
import { cursorQuery, labelText, limitQuery, pageOf, timeAnswer } from '../schemas.ts';
import { authorOf } from './devices.ts';

const format = z.enum(['csv', 'ndjson']);
const sourceText = labelText(200).describe('Name of the file.');

const importAnswer = z.object({
  importId: z.string(),
  source: z.string(),
  format,
  state: z
    .enum(['running', 'done', 'failed'])
    .describe(
      'running: not at its end; when "active" is false it was cut off, and can be resumed.',
    ),
  active: z.boolean().describe('Whether this program is reading the file now.'),
  byteOffset: z.number().int().describe('All of the file before it is stored, or refused.'),
  linesRead: z.number().int().describe('Lines before byteOffset.'),
  linesRefused: z.number().int(),
  fingerprint: z.string().describe('SHA-256 of the first 65536 bytes of the file, hexadecimal.'),
  createdAt: timeAnswer,
  updatedAt: timeAnswer,
});
const refusalAnswer = z.object({
  line: z.number().int().describe('From 1, the header counted.'),
  code: z.string(),
  detail: z.string(),
  content: z.string().describe('The line, cut to 1024 characters.'),
});
const resultAnswer = importAnswer.extend({
  refusals: z.array(refusalAnswer).describe('The first 100 of this request.'),
});

const importParams = z.strictObject({ importId: z.string().describe('Id of the import.') });
const importPlace = z.tuple([z.uuid()]);
const refusalPlace = z.tuple([z.number().int()]);

const COLUMNS_MAX = 100;
const DESCRIPTION = `The body is the file as it is (\`curl -T file.csv\`), of any content type and without
\`content-encoding\`. Lines are stored while it comes, as if the devices had sent them, without rates and
as old as readings are kept; a line that was stored before is not stored again. A line that cannot be
stored is refused, told of, and holds nothing up. GET /api/v1/imports shows how far it is; the answer
comes when every line is stored or refused.

CSV: a header, then one record a line: \`device,time,metric,value\`, or \`device,time\` and a column for
each metric. NDJSON: objects with \`device\` and a sample or a series of \`data\` with its \`ts\`.

After a cut, send the same file with \`resume=true\`: it goes on behind what is stored. To spare the way,
send its first 65536 bytes and then all from byte \`offset\`, which is the \`byteOffset\` of the import.`;

/** The routes of imports. */
export function importRoutes(imports: Imports, pageRowsMax: number): Route[] {
  return [
    startRoute(imports),
    listRoute(imports, pageRowsMax),
    getRoute(imports),
    refusalsRoute(imports, pageRowsMax),
  ];
}

function startRoute(imports: Imports): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/import',
    role: 'admin',
    tag: 'ingest',
    summary: 'Import a file of CSV or NDJSON; 200 means that all of it is stored or refused',
    description: DESCRIPTION,
    input: 'stream',
    query: startQuery(),
    answers: { 200: { description: 'The import at its end.', schema: resultAnswer } },
    async handle({ principal, query, body, bodyBytes }) {
      const { map, device = null, ...wanted } = query;
      // Fastify gives nothing for a body of no bytes.
      const file = body instanceof Readable ? body : Readable.from([]);
      const columns = new Map(map);
      const own = { device, columns, body: file, bodyBytes };
      const result = await imports.import({ ...authorOf(principal), ...wanted, ...own });
      const refusals = result.refusals.map(refusalBody);
      return { status: 200, body: { ...bodyOf(result.import), refusals } };
    },
  });
}

function startQuery() {
  return z.strictObject({
    format,
    source: sourceText,
    resume: z
      .enum(['true', 'false'])
      .default('false')
      .transform((text) => text === 'true')
      .describe('Go on behind what is stored of this file: same source, format and beginning.'),
    offset: z.coerce
      .number()
      .int()
      .min(0)
      .default(0)
      .refine((offset) => offset === 0 || offset > HEAD_BYTES, `must be 0 or above ${HEAD_BYTES}`)
      .describe('Where the file goes on behind its first 65536 bytes. 0: the body is all of it.'),
    device: z.string().min(1).max(48).optional().describe('Device of lines that name none.'),
    map: z
      .union([z.string(), z.array(z.string()).max(COLUMNS_MAX)])
      .default([])
      .transform((given, context) => {
        const pairs = (Array.isArray(given) ? given : [given]).map((text) => {
          const cut = text.lastIndexOf(':');
          return [text.slice(0, cut), text.slice(cut + 1)] as const;
        });
        if (pairs.every(([from, to]) => from !== '' && to !== '')) return pairs;
        context.addIssue('must be COLUMN:NAME');
        return z.NEVER;
      })
      .describe('COLUMN:NAME takes a column of CSV for NAME; may be given several times.'),
  });
}

function listRoute(imports: Imports, pageRowsMax: number): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/imports',
    role: 'admin',
    tag: 'ingest',
    summary: 'Imports and how far they are, newest first; the last hundred are kept',
    query: z.strictObject({
      source: sourceText.optional(),
      limit: limitQuery(100, pageRowsMax),
      cursor: cursorQuery,
    }),
    answers: { 200: { description: 'A page of imports.', schema: pageOf(importAnswer) } },
    async handle({ principal: { organizationId }, query: { source = null, limit, cursor } }) {
      const filters = ['imports', organizationId, source];
      const after = cursor === undefined ? null : readCursor(filters, importPlace, cursor)[0];
      const { rows, hasMore } = await imports.list({ organizationId, source, after, limit });
      const next = hasMore ? writeCursor(filters, [rows.at(-1)?.importId]) : null;
      return { status: 200, body: { data: rows.map(bodyOf), next } };
    },
  });
}

function getRoute(imports: Imports): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/imports/{importId}',
    role: 'admin',
    tag: 'ingest',
    summary: 'One import',
    params: importParams,
    answers: { 200: { description: 'The import.', schema: importAnswer } },
    async handle({ principal: { organizationId }, params: { importId } }) {
      return { status: 200, body: bodyOf(await imports.get(organizationId, importId)) };
    },
  });
}

function refusalsRoute(imports: Imports, pageRowsMax: number): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/imports/{importId}/refusals',
    role: 'admin',
    tag: 'ingest',
    summary: 'Lines that an import refused, in their order; at most IMPORT_REFUSALS_MAX are kept',
    params: importParams,
    query: z.strictObject({ limit: limitQuery(100, pageRowsMax), cursor: cursorQuery }),
    answers: { 200: { description: 'A page of lines.', schema: pageOf(refusalAnswer) } },
    async handle({ principal: { organizationId }, params: { importId }, query }) {
      const { limit, cursor } = query;
      const filters = ['refusals', organizationId, importId];
      const after = cursor === undefined ? null : readCursor(filters, refusalPlace, cursor)[0];
      const page = await imports.refusals({ organizationId, importId, after, limit });
      const next = page.hasMore ? writeCursor(filters, [page.rows.at(-1)?.line]) : null;
      return { status: 200, body: { data: page.rows.map(refusalBody), next } };
    },
  });
}

function bodyOf(view: ImportView): z.input<typeof importAnswer> {
  return {
    importId: view.importId,
    source: view.source,
    format: view.format,
    state: view.state,
    active: view.isActive,
    byteOffset: view.byteOffset,
    linesRead: view.linesRead,
    linesRefused: view.linesRefused,
    fingerprint: view.fingerprint.toString('hex'),
    createdAt: view.createdAt.toISOString(),
    updatedAt: view.updatedAt.toISOString(),
  };
}

function refusalBody({ line, code, detail, content }: RefusedLine): z.input<typeof refusalAnswer> {
  return { line, code, detail, content };
}
