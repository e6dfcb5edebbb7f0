import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InterestTable } from '../../broker/outgoing/interest-table.ts';

interface Name {
  readonly name: string;
}

const A: Name = { name: 'a' };
const B: Name = { name: 'b' };
const C: Name = { name: 'c' };

/** Who gets a topic, as `name/qos`, sorted. */
function matched(table: InterestTable<Name>, topic: string): string[] {
  return table
    .match(topic)
    .map(({ subscriber, qos }) => `${subscriber.name}/${qos}`)
    .toSorted();
}

function tableOf(...filters: string[]): InterestTable<Name> {
  const table = new InterestTable<Name>();
  for (const filter of filters) table.add(filter, A, 0);
  return table;
}

/** Chapter 4.7 of the standard, word by word. */
function matchesNaively(filter: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false;
  const wanted = filter.split('/');
  const levels = topic.split('/');
  const isOpen = wanted.at(-1) === '#';
  if (isOpen) wanted.pop();
  if (isOpen ? levels.length < wanted.length : levels.length !== wanted.length) return false;
  return wanted.every((level, index) => level === '+' || level === levels[index]);
}

const LEVELS = ['', 'a', 'b', '$SYS', '$', '__proto__', 'constructor', 'é'];
const topicName = fc
  .array(fc.constantFrom(...LEVELS), { minLength: 1, maxLength: 5 })
  .map((levels) => levels.join('/'));
const topicFilter = fc
  .tuple(fc.array(fc.constantFrom(...LEVELS, '+', '+'), { maxLength: 4 }), fc.boolean())
  .map(([levels, isOpen]) => [...levels, ...(isOpen ? ['#'] : levels.length > 0 ? [] : ['+'])])
  .map((levels) => levels.join('/'));

describe('InterestTable', () => {
  it.each([
    ['a/b', 'a/b', true],
    ['a/b', 'a/b/', false],
    ['a/+', 'a/b', true],
    ['a/+', 'a/', true],
    ['a/+', 'a', false],
    ['+/+', '/a', true],
    ['/+', '/a', true],
    ['+', '/a', false],
    ['a/#', 'a', true],
    ['a/#', 'a/b/c', true],
    ['a/+/c', 'a//c', true],
    ['#', '/', true],
    ['A', 'a', false],
  ])('holds %s against %s: %s [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.3-4]', (filter, topic, is) => {
    expect(tableOf(filter).isWanted(topic)).toBe(is);
  });

  it('keeps topics that start with $ from filters that start with a wildcard [MQTT-4.7.2-1]', () => {
    const table = tableOf('#', '+/monitor', '+/#');
    expect(table.isWanted('$SYS/monitor')).toBe(false);
    table.add('$SYS/#', B, 0);
    table.add('$SYS/monitor/+', C, 0);
    expect(matched(table, '$SYS/monitor')).toEqual(['b/0']);
    expect(matched(table, '$SYS')).toEqual(['b/0']);
    expect(matched(table, '$SYS/monitor/x')).toEqual(['b/0', 'c/0']);
  });

  it('names a subscriber once, at the highest QoS of its filters [MQTT-3.3.5-1]', () => {
    const table = tableOf('a/b', 'a/+', '#');
    table.add('a/#', A, 1);
    table.add('a/+', B, 1);
    table.add('a/b', B, 0);
    expect(matched(table, 'a/b')).toEqual(['a/1', 'b/1']);
    table.remove('a/#', A);
    table.remove('a/+', B);
    expect(matched(table, 'a/b')).toEqual(['a/0', 'b/0']);
  });

  it('replaces the QoS of a filter that is added again [MQTT-3.8.4-3]', () => {
    const table = tableOf('a', 'b/+');
    expect(matched(table, 'b/x')).toEqual(['a/0']);
    table.add('a', A, 1);
    table.add('b/+', A, 1);
    expect(matched(table, 'a')).toEqual(['a/1']);
    expect(matched(table, 'b/x')).toEqual(['a/1']);
    expect(table.filterCount).toBe(2);
  });

  it('takes levels named like members of objects for ordinary ones (I-11)', () => {
    const table = tableOf('__proto__/+', 'constructor', '+/toString');
    expect(table.isWanted('__proto__/x')).toBe(true);
    expect(table.isWanted('constructor')).toBe(true);
    expect(table.isWanted('hasOwnProperty/toString')).toBe(true);
    expect(table.isWanted('hasOwnProperty')).toBe(false);
    expect(table.isWanted('valueOf/x')).toBe(false);
  });

  it('raises its generation with each change, and only then', () => {
    const table = tableOf('a');
    const before = table.generation;
    table.add('a', A, 0);
    table.remove('b', A);
    table.remove('a', B);
    table.removeAll(B);
    table.match('a');
    expect(table.generation).toBe(before);
    table.add('a', A, 1);
    table.removeAll(A);
    expect(table.generation).toBe(before + 2);
    expect(table.filterCount).toBe(0);
  });

  it('remembers a bounded number of matches and answers rightly beyond it', () => {
    const table = tableOf('+/x');
    for (let index = 0; index < 20_000; index += 1) {
      expect(table.isWanted(`${index}/x`)).toBe(true);
      expect(table.isWanted(`${index}/y`)).toBe(false);
    }
    table.add('7/y', B, 0);
    expect(matched(table, '7/y')).toEqual(['b/0']);
  });

  it('finds what a comparison of every filter finds, after any changes', () => {
    const change = fc.record({
      kind: fc.constantFrom('add', 'add', 'add', 'remove', 'removeAll'),
      filter: topicFilter,
      subscriber: fc.constantFrom(A, B, C),
      qos: fc.constantFrom(0 as const, 1 as const),
    });
    fc.assert(
      fc.property(
        fc.array(change, { maxLength: 30 }),
        fc.array(topicName, { minLength: 1, maxLength: 10 }),
        (changes, topics) => {
          const table = new InterestTable<Name>();
          const model = new Map<Name, Map<string, 0 | 1>>([A, B, C].map((one) => [one, new Map()]));
          for (const { kind, filter, subscriber, qos } of changes) {
            const filters = model.get(subscriber);
            if (kind === 'add') {
              table.add(filter, subscriber, qos);
              filters?.set(filter, qos);
            } else if (kind === 'remove') {
              table.remove(filter, subscriber);
              filters?.delete(filter);
            } else {
              table.removeAll(subscriber);
              filters?.clear();
            }
            // Fills the memory of matches, which the next change has to correct.
            for (const topic of topics) table.match(topic);
          }
          for (const topic of topics) {
            const expected = [...model].flatMap(([{ name }, filters]) => {
              const found = [...filters].filter(([filter]) => matchesNaively(filter, topic));
              return found.length === 0 ? [] : [`${name}/${Math.max(...found.map(([, q]) => q))}`];
            });
            expect(matched(table, topic), topic).toEqual(expected.toSorted());
          }
          expect(table.filterCount).toBe(
            [...model.values()].reduce((sum, filters) => sum + filters.size, 0),
          );
          for (const subscriber of [A, B, C]) table.removeAll(subscriber);
          for (const topic of topics) expect(table.isWanted(topic)).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});
