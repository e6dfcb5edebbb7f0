import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hasWildcard, literalPrefix, matchesFilter } from '../../broker/store/topic-filter.ts';

describe('matchesFilter', () => {
  it.each([
    ['a/b', 'a/b', true],
    ['a/b', 'a/c', false],
    ['a/b', 'a/b/c', false],
    ['a/b/c', 'a/b', false],
    ['A/b', 'a/b', false],
    ['/a', 'a', false],
    ['a/', 'a', false],
  ])('compares levels one by one [MQTT-4.7.3-4]: %s %s', (topic, filter, matches) => {
    expect(matchesFilter(topic, filter)).toBe(matches);
  });

  it.each([
    ['a', 'a/#', true],
    ['a/', 'a/#', true],
    ['a/b/c', 'a/#', true],
    ['ab', 'a/#', false],
    ['b', 'a/#', false],
    ['a/b', '#', true],
    ['/', '#', true],
    ['a', '+/#', true],
    ['a/b', 'a/b/#', true],
    ['a', 'a/b/#', false],
    ['', 'a/#', false],
  ])('lets # stand for the level before it and all below [MQTT-4.7.1-2]: %s %s', (...row) => {
    const [topic, filter, matches] = row;
    expect(matchesFilter(topic, filter)).toBe(matches);
  });

  it.each([
    ['a/', 'a/+', true],
    ['/a', '+/a', true],
    ['/', '+/+', true],
    ['a//b', 'a/+/b', true],
    ['a', 'a/+', false],
    ['a/b/c', 'a/+', false],
    ['/finance', '+', false],
    ['/finance', '/+', true],
    ['a/b', '+/b/#', true],
  ])('lets + stand for exactly one level, an empty one too [MQTT-4.7.1-3]: %s %s', (...row) => {
    const [topic, filter, matches] = row;
    expect(matchesFilter(topic, filter)).toBe(matches);
  });

  it.each([
    ['$SYS/a', '#', false],
    ['$SYS/a', '+/a', false],
    ['$SYS', '+', false],
    ['$SYS/a', '$SYS/#', true],
    ['$SYS/a', '$SYS/+', true],
    ['a/$x', 'a/+', true],
  ])('hides $ topics from filters that start with a wildcard [MQTT-4.7.2-1]: %s %s', (...row) => {
    const [topic, filter, matches] = row;
    expect(matchesFilter(topic, filter)).toBe(matches);
  });

  it('says what a comparison level by level says, for any topic and filter', () => {
    const level = fc.constantFrom('', 'a', 'b', '$a', 'ab');
    const topics = fc.array(level, { minLength: 1, maxLength: 5 });
    const filters = fc.tuple(
      fc.array(fc.oneof(level, fc.constant('+')), { minLength: 1, maxLength: 5 }),
      fc.boolean(),
    );
    fc.assert(
      fc.property(topics, filters, (topic, [levels, isOpen]) => {
        const filter = [...levels, ...(isOpen ? ['#'] : [])];
        expect(matchesFilter(topic.join('/'), filter.join('/'))).toBe(isSelected(topic, filter));
      }),
      { numRuns: 3000 },
    );
  });
});

describe('literalPrefix', () => {
  it('starts every topic that the filter selects, but for the parent of #', () => {
    expect(['a/b', 'a/+/c', 'a/b/#', '#', '+/a'].map(literalPrefix)).toEqual([
      'a/b',
      'a/',
      'a/b/',
      '',
      '',
    ]);
    expect(['a/b', 'a/+', '#'].map(hasWildcard)).toEqual([false, true, true]);
  });
});

function isSelected(topic: readonly string[], filter: readonly string[]): boolean {
  const [first = ''] = filter;
  if (topic[0]?.startsWith('$') === true && (first === '+' || first === '#')) return false;
  const isOpen = filter.at(-1) === '#';
  const fixed = isOpen ? filter.slice(0, -1) : filter;
  if (isOpen ? topic.length < fixed.length : topic.length !== fixed.length) return false;
  return fixed.every((level, index) => level === '+' || level === topic[index]);
}
