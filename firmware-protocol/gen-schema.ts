import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { METRIC_NAME } from './contract.ts';
import { valueSchema } from './payload-schema.ts';
import { PAYLOAD_KINDS, type PayloadKind } from './payloads.ts';

/** A JSON Schema as an object that may be changed. */
export type JsonSchema = Record<string, unknown>;

/** Identifiers of schemas. They are names: nothing is fetched from there. */
const SCHEMA_ROOT = 'urn:puback:v1:';

/**
 * The JSON Schema (draft 2020-12) of a payload, as its sender should write it. What a schema cannot say,
 * such as bytes of UTF-8 or equal lengths of arrays, is left to the description and the decoder.
 */
export function payloadSchema(kind: PayloadKind): JsonSchema {
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    $id: SCHEMA_ROOT + kind.name,
    title: kind.name,
    description: description(kind),
    ...jsonSchema(kind.schema),
  };
  if (kind.isNullLeftOut === true) allowNulls(schema);
  return kind.name === 'data' ? nameParts(schema) : schema;
}

/** The files of `generated/schema/`: their path below this folder, and their text. */
export function schemaFiles(): [path: string, text: string][] {
  return PAYLOAD_KINDS.map((kind) => [
    `generated/schema/${kind.name}.json`,
    `${JSON.stringify(payloadSchema(kind), null, 2)}\n`,
  ]);
}

function jsonSchema(schema: z.ZodType): JsonSchema {
  const made = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema;
  const { $schema: _, $defs, ...rest } = made;
  const anyJson = Object.keys($defs ?? {}).filter((name) => isAnyJson(name, $defs as JsonSchema));
  return simplify(rest, new Set(anyJson.map(refTo))) as JsonSchema;
}

function refTo(name: string): string {
  return `#/$defs/${name}`;
}

/** What zod makes of `z.json()`: six alternatives, the last two of itself. */
function isAnyJson(name: string, definitions: JsonSchema): boolean {
  const { anyOf } = definitions[name] as { anyOf?: unknown[] };
  return isDeepStrictEqual(anyOf?.[4], { type: 'array', items: { $ref: refTo(name) } });
}

/** Any JSON is `{}`; that names of members are texts goes without saying. */
function simplify(node: unknown, anyJson: ReadonlySet<string>): unknown {
  if (Array.isArray(node)) return node.map((item) => simplify(item, anyJson));
  if (typeof node !== 'object' || node === null) return node;
  const { $ref } = node as JsonSchema;
  const members = Object.entries(node).filter(
    ([key, value]) =>
      !(key === '$ref' && anyJson.has(String($ref))) &&
      !(key === 'propertyNames' && isDeepStrictEqual(value, { type: 'string' })),
  );
  return Object.fromEntries(members.map(([key, value]) => [key, simplify(value, anyJson)]));
}

function description({ topic, what, empty, isText, bytesMax }: PayloadKind): string {
  return [
    `${topic}: ${what}`,
    bytesMax === null ? '' : `At most ${bytesMax} bytes.`,
    empty === null ? '' : `No payload at all means: ${empty}.`,
    isText === true ? 'Text that is not JSON is taken as well.' : '',
  ]
    .filter((sentence) => sentence !== '')
    .join(' ');
}

/** Members that may be left out may be null as well. */
function allowNulls(schema: JsonSchema): void {
  const { properties, required = [] } = schema as {
    properties: Record<string, JsonSchema>;
    required?: string[];
  };
  for (const [name, property] of Object.entries(properties)) {
    if (required.includes(name)) continue;
    const { description: about, ...rest } = property;
    // `{}`: null is among what it allows.
    if (Object.keys(rest).length === 0) continue;
    properties[name] = { description: about, anyOf: [rest, { type: 'null' }] };
  }
}

/** Of `data`: what stands in it many times gets a name, and names of members are those of metrics. */
function nameParts(schema: JsonSchema): JsonSchema {
  const [item] = schema['anyOf'] as [{ anyOf: JsonSchema[] }];
  const value = jsonSchema(valueSchema);
  const withNames = item.anyOf.map((form) => ({
    ...form,
    propertyNames: { pattern: METRIC_NAME.source },
  }));
  const $defs = {
    value,
    item: { anyOf: replaceEqual(withNames, value, { $ref: refTo('value') }) },
  };
  return { ...(replaceEqual(schema, item, { $ref: refTo('item') }) as JsonSchema), $defs };
}

function replaceEqual(node: unknown, part: unknown, by: JsonSchema): unknown {
  if (isDeepStrictEqual(node, part)) return by;
  if (Array.isArray(node)) return node.map((one) => replaceEqual(one, part, by));
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => [key, replaceEqual(value, part, by)]),
  );
}
