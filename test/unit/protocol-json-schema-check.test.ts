import { describe, expect, it } from 'vitest';
import {
  CHECKED_NODES_MAX,
  checkSchema,
  compileSchema,
  SCHEMA_BYTES_MAX,
  SCHEMA_DEPTH_MAX,
  SCHEMA_EXPANDED_BYTES_MAX,
  SCHEMA_UNIQUE_MAX,
  VALUE_FAULTS_MAX,
} from '../../firmware-protocol/json-schema-check.ts';

const LAMP = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'lamp',
  type: 'object',
  properties: {
    every: { type: 'integer', minimum: 10, default: 60 },
    mode: { enum: ['auto', 'on', 'off'] },
    color: { $ref: '#/$defs/color' },
    steps: { type: 'array', items: { type: 'number' }, maxItems: 3, uniqueItems: true },
  },
  required: ['every'],
  additionalProperties: false,
  $defs: { color: { type: 'object', properties: { r: { maximum: 255 } } } },
};

describe('checkSchema', () => {
  it('takes a schema of the common keywords', () => {
    expect(checkSchema(LAMP)).toBeNull();
    expect(checkSchema({})).toBeNull();
  });

  it.each([
    [null, 'not an object'],
    [true, 'not an object'],
    [[], 'not an object'],
    [{ minmum: 1 }, '/minmum: not a keyword'],
    [{ properties: { a: { pattern: '^(a+)+$' } } }, '/properties/a/pattern: a pattern can take'],
    [{ patternProperties: {} }, '/patternProperties'],
    [{ format: 'email' }, '/format: formats are not checked'],
    [{ $id: 'https://example.com/x' }, '/$id'],
    [{ $ref: 'https://example.com/x' }, '/$ref: only'],
    [{ $ref: '#' }, '/$ref: only'],
    [{ $ref: '#/$defs/a' }, 'is not defined'],
    [{ $ref: '#/$defs/constructor' }, 'is not defined'],
    [{ $defs: { a: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }, 'refers to itself'],
    [
      { $defs: { a: { not: { $ref: '#/$defs/b' } }, b: { not: { $ref: '#/$defs/a' } } } },
      'refers to itself',
    ],
    [{ properties: { a: { $defs: {} } } }, 'stands at the top'],
    [{ $defs: { 'a/b': {} } }, '/$defs: names'],
    [{ type: 'float' }, '/type: not a type'],
    [{ required: 'a' }, '/required: not a list of names'],
    [{ minimum: '1' }, '/minimum: not a number'],
    [{ multipleOf: 0 }, '/multipleOf: not a number above 0'],
    [{ maxLength: -1 }, '/maxLength: not a whole number'],
    [{ enum: 'a' }, '/enum: not a list'],
    [{ anyOf: [] }, '/anyOf: not a list of schemas'],
    [{ items: [{}] }, '/items: not a schema'],
    [{ properties: [] }, '/properties: not an object'],
  ])('refuses %j: %s', (schema, reason) => {
    expect(checkSchema(schema)).toContain(reason);
    expect(() => compileSchema(schema)).toThrow(/./);
  });

  it('is bounded in bytes', () => {
    const description = 'x'.repeat(SCHEMA_BYTES_MAX);
    expect(checkSchema({ description })).toContain(`${SCHEMA_BYTES_MAX} allowed`);
  });

  it('is bounded in depth, also where nothing is checked', () => {
    const nested = (levels: number): unknown =>
      levels === 0 ? {} : { properties: { a: nested(levels - 1) } };
    expect(checkSchema(nested(SCHEMA_DEPTH_MAX - 1))).toBeNull();
    expect(checkSchema(nested(SCHEMA_DEPTH_MAX))).toContain('levels');
    let examples: unknown = [];
    for (let level = 0; level < 200_000; level += 1) examples = [examples];
    expect(checkSchema({ examples })).toContain('levels');
  });

  it('is bounded in what its references make of it', () => {
    const $defs: Record<string, unknown> = { d0: { type: 'string', maxLength: 10 } };
    for (let level = 1; level < 14; level += 1) {
      const $ref = `#/$defs/d${level - 1}`;
      $defs[`d${level}`] = { allOf: [{ $ref }, { $ref }, { $ref }] };
    }
    const fault = checkSchema({ $defs, $ref: '#/$defs/d13' });
    expect(fault).toContain(String(SCHEMA_EXPANDED_BYTES_MAX));
    const unique = { uniqueItems: true };
    const allOf = Array.from({ length: SCHEMA_UNIQUE_MAX }, () => unique);
    expect(checkSchema({ allOf })).toBeNull();
    expect(checkSchema({ allOf: [...allOf, unique] })).toContain('uniqueItems');
  });
});

describe('compileSchema', () => {
  const lamp = compileSchema(LAMP);

  it('finds no fault in what the schema says', () => {
    expect(lamp.validate({ every: 10, mode: 'on', color: { r: 7 }, steps: [1, 2] })).toEqual([]);
  });

  it.each([
    [{}, '', 'required property "every"'],
    [{ every: 9 }, '/every', '9 is less than 10'],
    [{ every: 10.5 }, '/every', 'integer'],
    [{ every: 10, color: { r: 256 } }, '/color/r', 'greater than 255'],
    [{ every: 10, steps: [1, 1] }, '/steps', 'Duplicate'],
    [{ every: 10, typo: 1 }, '/typo', 'not allowed here'],
    ['text', '', 'Expected "object"'],
  ])('says where %j is not so: %s', (value, path, message) => {
    const faults = lamp.validate(value);
    expect(faults).toContainEqual({ path, message: expect.stringContaining(message) });
  });

  it('does not take what every object has for members', () => {
    const schema = compileSchema({ required: ['toString'], properties: { constructor: false } });
    expect(schema.validate({})).toHaveLength(1);
    expect(schema.validate(JSON.parse('{"toString":1}'))).toEqual([]);
    expect(schema.validate(JSON.parse('{"toString":1,"constructor":1}'))).toHaveLength(1);
    const closed = compileSchema({ additionalProperties: false });
    expect(closed.validate(JSON.parse('{"__proto__":1}'))).toHaveLength(1);
  });

  it('bounds what is checked, and what is told', () => {
    const any = compileSchema({});
    expect(any.validate(Array.from({ length: CHECKED_NODES_MAX }, () => 1))[0]?.message).toContain(
      `${CHECKED_NODES_MAX}`,
    );
    let deep: unknown = 1;
    for (let level = 0; level < 100_000; level += 1) deep = [deep];
    expect(any.validate(deep)[0]?.message).toContain('levels');
    expect(any.validate(Number.NaN)).toHaveLength(1);
    const required = Array.from({ length: 50 }, (_, index) => `m${index}`);
    expect(compileSchema({ required }).validate({})).toHaveLength(VALUE_FAULTS_MAX);
  });

  it('refuses a value that a schema of its size would take too long to check', () => {
    const items = { anyOf: Array.from({ length: 250 }, (_, index) => ({ const: [index] })) };
    const worst = compileSchema({ items });
    const values = (count: number): string[] => Array.from({ length: count }, () => 'x');
    expect(worst.validate(values(10))[0]?.path).toBe('/0');
    expect(worst.validate(values(CHECKED_NODES_MAX - 1))).toEqual([
      { path: '', message: 'more members and items than a schema of this size can check' },
    ]);
    expect(compileSchema({ items: { type: 'string' } }).validate(values(900))).toEqual([]);
  });

  it('leaves the schema as it was', () => {
    const schema = structuredClone(LAMP);
    compileSchema(schema).validate({ every: 1 });
    expect(schema).toEqual(LAMP);
    expect(Object.getOwnPropertyNames(schema)).toEqual(Object.keys(LAMP));
  });
});
