import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SCOPES, type Scope } from '../../firmware-protocol/contract.ts';
import {
  authorizeIntegratorFilter,
  EXPANDED_FILTERS_MAX,
  intersectFilters,
} from '../../firmware-protocol/integrator-topics.ts';

const everything = { organization: 'acme', scopes: SCOPES, devices: null };
const only = (...scopes: Scope[]) => ({ organization: 'acme', scopes, devices: null });

/** Whether a topic matches a filter, level by level as MQTT 3.1.1, 4.7 says. */
function isMatch(filter: string, topic: string): boolean {
  const [filters, topics] = [filter.split('/'), topic.split('/')];
  if (topic.startsWith('$') && (filters[0] === '+' || filters[0] === '#')) return false;
  for (const [at, level] of filters.entries()) {
    if (level === '#') return true;
    if (at >= topics.length || (level !== '+' && level !== topics[at])) return false;
    if (at === topics.length - 1 && filters[at + 1] === '#') return true;
  }
  return filters.length === topics.length;
}

const word = fc.constantFrom('a', 'b', '', '$c');
const topicOf = fc.array(word, { minLength: 1, maxLength: 4 }).map((levels) => levels.join('/'));
const filterOf = fc
  .tuple(
    fc.array(fc.oneof(word, fc.constant('+')), { maxLength: 3 }),
    fc.constantFrom('#', 'a', '+', ''),
  )
  .map(([levels, last]) => [...levels, last].join('/'));

describe('intersectFilters', () => {
  it('matches a topic if and only if both filters do [MQTT-4.7.1-2, MQTT-4.7.1-3, MQTT-4.7.2-1]', () => {
    fc.assert(
      fc.property(filterOf, filterOf, topicOf, (left, right, topic) => {
        const both = intersectFilters(left, right);
        const isInBoth = isMatch(left, topic) && isMatch(right, topic);
        expect(both !== null && isMatch(both, topic)).toBe(isInBoth);
        const swapped = intersectFilters(right, left);
        expect(swapped !== null && isMatch(swapped, topic)).toBe(isInBoth);
      }),
      { numRuns: 20_000 },
    );
  });

  it.each([
    ['a/#', 'a', 'a'],
    ['a/#', 'a/+/c', 'a/+/c'],
    ['+/b', 'a/+', 'a/b'],
    ['#', 'a/+', 'a/+'],
    ['a/#', '+/#', 'a/#'],
    ['#', '$SYS/#', null],
    ['+/b', '$a/b', null],
    ['a/b', 'a', null],
    ['a', 'b', null],
  ])('of %j and %j is %j', (left, right, both) => {
    expect(intersectFilters(left, right)).toBe(both);
    expect(intersectFilters(right, left)).toBe(both);
  });
});

describe('authorizeIntegratorFilter', () => {
  it.each([
    '#',
    '+',
    '+/#',
    '$SYS/#',
    '$share/g/v1/acme/+/data',
    '$void',
    'v1/#',
    'v1/+/+/data',
    'v1/+/boiler-7/data',
    'v1/acme',
    'v1/other/+/data',
    'v1/acme-2/+/data',
    'v1/acme2/#',
    'v1/me/data',
    'V1/acme/+/data',
    '/v1/acme/+/data',
    'v1//+/data',
    'v1/__proto__/#',
    'v1/acme/+/da+ta',
    'v1/acme/#/data',
    'v1/acme/\0/data',
    '',
  ])('refuses %j to a key with every scope [I-06, MQTT-3.8.4-5]', (filter) => {
    expect(authorizeIntegratorFilter(filter, everything)).toBeNull();
  });

  it.each([
    'v1/acme/+/key',
    'v1/acme/boiler-7/in/key',
    'v1/acme/boiler-7/in/hello',
    'v1/acme/+/do/relay',
    'v1/acme/+/senml',
    'v1/acme/+/data/temp',
    'v1/acme/+/data/+',
    'v1/acme/+',
  ])('grants nothing of %j, which nobody subscribes', (filter) => {
    expect(authorizeIntegratorFilter(filter, everything)).toBeNull();
  });

  it.each([
    ['data', 'v1/acme/+/data'],
    ['status', 'v1/acme/+/status'],
    ['status', 'v1/acme/_/quarantine'],
    ['status', 'v1/acme/_/ha/#'],
    ['event', 'v1/acme/+/event/+'],
    ['event', 'v1/acme/boiler-7/event/door'],
    ['log', 'v1/acme/+/log'],
    ['alert', 'v1/acme/+/alert/+'],
    ['cmd', 'v1/acme/+/cmd/+'],
    ['raw', 'v1/acme/boiler-7/in/cmd'],
    ['raw', 'v1/acme/+/hello'],
  ] as const)('grants to the scope %s, and to no other, exactly %j', (scope, filter) => {
    expect(authorizeIntegratorFilter(filter, only(scope))).toEqual([filter]);
    expect(authorizeIntegratorFilter(filter, everything)).toEqual([filter]);
    const others = SCOPES.filter((other) => other !== scope);
    expect(authorizeIntegratorFilter(filter, only(...others))).toBeNull();
  });

  it('narrows v1/{organization}/# to what the scopes allow', () => {
    expect(authorizeIntegratorFilter('v1/acme/#', only('data', 'cmd:write', 'event'))).toEqual([
      'v1/acme/+/data',
      'v1/acme/+/event/+',
    ]);
    expect(authorizeIntegratorFilter('v1/acme/#', only('cmd:write'))).toBeNull();
    expect(authorizeIntegratorFilter('v1/acme/#', only('status'))).toEqual([
      'v1/acme/_/#',
      'v1/acme/+/status',
    ]);
    expect(authorizeIntegratorFilter('v1/acme/x/in/+', everything)).toEqual([
      'v1/acme/x/in/cmd',
      'v1/acme/x/in/cfg',
      'v1/acme/x/in/err',
    ]);
  });

  it('gives a key for certain devices these devices, and no stream of the organization', () => {
    const limited = { organization: 'acme', scopes: ['status'] as const, devices: ['a', 'b'] };
    const granted = ['v1/acme/a/status', 'v1/acme/b/status'];
    expect(authorizeIntegratorFilter('v1/acme/#', limited)).toEqual(granted);
    expect(authorizeIntegratorFilter('v1/acme/+/status', limited)).toEqual(granted);
    expect(authorizeIntegratorFilter('v1/acme/a/+', limited)).toEqual(['v1/acme/a/status']);
    for (const filter of ['v1/acme/c/status', 'v1/acme/_/#', 'v1/acme/_/status']) {
      expect(authorizeIntegratorFilter(filter, limited)).toBeNull();
    }
    expect(authorizeIntegratorFilter('v1/acme/#', { ...limited, devices: [] })).toBeNull();
  });

  it('refuses a filter that would stand for more than 1000', () => {
    const devices = Array.from({ length: EXPANDED_FILTERS_MAX + 1 }, (_, at) => `d${at}`);
    const rights = { organization: 'acme', scopes: ['data'] as const, devices };
    expect(authorizeIntegratorFilter('v1/acme/+/data', rights)).toBeNull();
    const fewer = { ...rights, devices: devices.slice(1) };
    expect(authorizeIntegratorFilter('v1/acme/+/data', fewer)).toHaveLength(EXPANDED_FILTERS_MAX);
  });

  it('matches no topic that the requested filter or the scopes leave out', () => {
    const level = fc.constantFrom('a', 'b', '+', '_', 'data', 'key', 'in', 'hello', 'cmd', 'event');
    const request = fc
      .tuple(fc.array(level, { maxLength: 3 }), fc.constantFrom('#', '+', 'data', 'key', 'in'))
      .map(([levels, last]) => ['v1/acme', ...levels, last].join('/'));
    const topic = fc
      .array(fc.constantFrom('a', 'b', 'data', 'key', 'in', 'hello', 'cmd', 'event'), {
        maxLength: 4,
      })
      .map((levels) => ['v1/acme', ...levels].join('/'));
    fc.assert(
      fc.property(request, topic, (filter, name) => {
        const granted = authorizeIntegratorFilter(filter, only('data', 'event', 'raw')) ?? [];
        const isReadable =
          /^v1\/acme\/[^/]*\/(data|event\/[^/]*|hello|ack|cfg|in\/(cmd|cfg|err))$/.test(name);
        const expected = isReadable && isMatch(filter, name) ? 1 : 0;
        expect(granted.filter((one) => isMatch(one, name))).toHaveLength(expected);
      }),
      { numRuns: 10_000 },
    );
  });
});
