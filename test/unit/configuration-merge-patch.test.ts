import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { effectiveDocument, isSameJson, mergePatch } from '../../configuration/merge-patch.ts';

/** RFC 7386, appendix A: original, patch, result. */
const APPENDIX: readonly (readonly [string, string, string])[] = [
  ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
  ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
  ['{"a":"b"}', '{"a":null}', '{}'],
  ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
  ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
  ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
  ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
  ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
  ['["a","b"]', '["c","d"]', '["c","d"]'],
  ['{"a":"b"}', '["c"]', '["c"]'],
  ['{"a":"foo"}', 'null', 'null'],
  ['{"a":"foo"}', '"bar"', '"bar"'],
  ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
  ['[1,2]', '{"a":"b","c":null}', '{"a":"b"}'],
  ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
];

const json = fc.jsonValue({ maxDepth: 4 });
const document = fc.dictionary(fc.string({ maxLength: 3 }), json, { maxKeys: 5 });

describe('mergePatch', () => {
  it.each(APPENDIX)('does what RFC 7386 shows: %s with %s', (target, patch, result) => {
    expect(mergePatch(JSON.parse(target), JSON.parse(patch))).toEqual(JSON.parse(result));
  });

  it('changes neither argument', () => {
    fc.assert(
      fc.property(json, json, (target, patch) => {
        const before = JSON.stringify([target, patch]);
        mergePatch(target, patch);
        return JSON.stringify([target, patch]) === before;
      }),
    );
  });

  it('gives the same when it is done twice', () => {
    fc.assert(
      fc.property(json, json, (target, patch) => {
        const once = mergePatch(target, patch);
        return isSameJson(mergePatch(once, patch), once);
      }),
    );
  });

  it('takes members called __proto__ and constructor for members', () => {
    const patch: unknown = JSON.parse('{"__proto__":{"x":1},"constructor":{"y":2}}');
    const merged = mergePatch({}, patch);
    expect(JSON.stringify(merged)).toBe('{"__proto__":{"x":1},"constructor":{"y":2}}');
    expect(({} as { x?: number }).x).toBeUndefined();
    const deeper: unknown = JSON.parse('{"__proto__":{"z":3}}');
    expect(JSON.stringify(mergePatch(merged, deeper))).toContain('"__proto__":{"x":1,"z":3}');
  });
});

describe('effectiveDocument', () => {
  const defaults = { every: 60, net: { ssid: 'a', pins: [1, 2] }, mode: 'auto' };

  it('lays what is desired over the defaults, objects member by member, lists whole', () => {
    const desired = { net: { pins: [9] }, thr: 30.5 };
    expect(effectiveDocument(defaults, desired)).toEqual({
      every: 60,
      net: { ssid: 'a', pins: [9] },
      mode: 'auto',
      thr: 30.5,
    });
  });

  it('takes a default away for a null', () => {
    expect(effectiveDocument(defaults, { mode: null, net: { ssid: null } })).toEqual({
      every: 60,
      net: { pins: [1, 2] },
    });
  });

  it('has no null but within lists, whatever defaults and desired say', () => {
    const hasNull = (value: unknown): boolean =>
      value === null ||
      (typeof value === 'object' && !Array.isArray(value) && Object.values(value).some(hasNull));
    fc.assert(
      fc.property(
        document,
        document,
        (some, desired) => !hasNull(effectiveDocument(some, desired)),
      ),
    );
  });

  it('is what is desired, without its nulls, where there are no defaults', () => {
    fc.assert(
      fc.property(document, (desired) =>
        isSameJson(effectiveDocument({}, desired), mergePatch({}, desired)),
      ),
    );
  });
});

describe('isSameJson', () => {
  it('is true of a value and what the database makes of it', () => {
    const inOtherOrder = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(inOtherOrder);
      if (typeof value !== 'object' || value === null) return value;
      const entries = Object.entries(value).toReversed();
      return Object.fromEntries(entries.map(([name, member]) => [name, inOtherOrder(member)]));
    };
    fc.assert(fc.property(json, (value) => isSameJson(value, inOtherOrder(value))));
  });

  it.each([
    ['{"a":1}', '{"a":1,"b":1}'],
    ['{"a":1}', '{"b":1}'],
    ['[]', '{}'],
    ['[1,2]', '[2,1]'],
    ['null', '{}'],
    ['{"toString":1}', '{"a":1}'],
  ])('is false of %s and %s', (left, right) => {
    expect(isSameJson(JSON.parse(left), JSON.parse(right))).toBe(false);
    expect(isSameJson(JSON.parse(right), JSON.parse(left))).toBe(false);
  });
});
