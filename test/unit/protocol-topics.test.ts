import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RESERVED_MEMBERS } from '../../firmware-protocol/contract.ts';
import {
  aliasOf,
  aliasTopic,
  authorizeDeviceFilter,
  canonicalTopic,
  readUplinkTopic,
  topicFilterFault,
  topicNameFault,
} from '../../firmware-protocol/topics.ts';

const own = { organization: 'acme', device: 'boiler-7' };
const hostile = [
  ['a NUL', 'v1/me/da\0ta'],
  ['a line feed', 'v1/me/data\n'],
  ['an escape', 'v1/me/\x1b[31m'],
  ['DEL', 'v1/me/\x7f'],
  ['a C1 control', 'v1/me/\x85'],
  ['U+FFFD, which broken UTF-8 decodes to', 'v1/me/\uFFFD'],
  ['half of a surrogate pair', 'v1/me/\ud83d/x'],
  ['a low surrogate alone', 'v1/me/\ude00'],
  ['a high surrogate at the end', 'v1/me/\ud83d'],
  ['nothing', ''],
  ['129 bytes', 'v1/'.padEnd(129, 'x')],
  ['129 bytes in fewer characters', `v1/${'é'.repeat(63)}`],
  ['7 levels', '1/2/3/4/5/6/7'],
] as const;

describe('topic names and filters', () => {
  it.each(hostile)('[I-03] refuses %s', (_, topic) => {
    expect(topicNameFault(topic)).toBeTypeOf('string');
    expect(topicFilterFault(topic)).toBeTypeOf('string');
    expect(authorizeDeviceFilter(topic, own)).toBeNull();
  });

  it.each(['v1/me/data', '/', '1/2/3/4/5/6', 'x'.repeat(128), 'ü/😀', '😀'.repeat(32)])(
    'takes %j as a name and as a filter',
    (topic) => {
      expect(topicNameFault(topic)).toBeNull();
      expect(topicFilterFault(topic)).toBeNull();
    },
  );

  it.each(['+', '#', 'v1/+/data', 'v1/#', 'a+', 'a/b#'])(
    'refuses the wildcards of %j in a name [MQTT-3.3.2-2]',
    (topic) => {
      expect(topicNameFault(topic)).toBeTypeOf('string');
    },
  );

  it.each(['a+', '+a', 'a/b+/c', 'a#', '#/a', 'a/#/b', '##', '++', '+#', '$share/g/v1/me/in/+'])(
    'refuses the filter %j [MQTT-4.7.1-2]',
    (filter) => {
      expect(topicFilterFault(filter)).toBeTypeOf('string');
    },
  );

  it.each(['#', '+', '+/+', 'a/+/b', 'a/#', '+/#', '/#'])(
    'takes the filter %j [MQTT-4.7.1-3]',
    (filter) => {
      expect(topicFilterFault(filter)).toBeNull();
    },
  );

  it('refuses filters that start with $', () => {
    for (const filter of ['$SYS/#', '$share/g/#', '$', '$void']) {
      expect(topicFilterFault(filter)).toBe('starts with $');
    }
  });
});

describe('uplink topics', () => {
  it.each(['data', 'senml', 'log', 'hello', 'ack', 'cfg', 'key'])('reads %s', (channel) => {
    expect(readUplinkTopic(`v1/me/${channel}`, own)).toEqual({ channel, name: null, alias: true });
    expect(readUplinkTopic(`v1/acme/boiler-7/${channel}`, own)).toEqual({
      channel,
      name: null,
      alias: false,
    });
  });

  it('reads a metric and an event with their names', () => {
    expect(readUplinkTopic('v1/me/data/temp', own)).toEqual({
      channel: 'scalar',
      name: 'temp',
      alias: true,
    });
    expect(readUplinkTopic('v1/acme/boiler-7/event/door.open', own)).toEqual({
      channel: 'event',
      name: 'door.open',
      alias: false,
    });
  });

  it.each([
    'data/1st',
    'data/_x',
    'data/$x',
    'data/a b',
    'data/',
    'data/a/b',
    'data/ä',
    `data/${'x'.repeat(65)}`,
    'event',
    'event/',
    'event/a/b',
    ...RESERVED_MEMBERS.map((member) => `data/${member}`),
  ])('answers bad_name to %s', (rest) => {
    expect(readUplinkTopic(`v1/me/${rest}`, own)).toEqual({ code: 'bad_name' });
  });

  it.each([
    '',
    'dat',
    'DATA',
    'data2',
    'log/x',
    'hello/',
    'tele/SENSOR',
    'constructor',
    '__proto__',
  ])('[I-11] answers unknown_channel to "%s"', (rest) => {
    expect(readUplinkTopic(`v1/me/${rest}`, own)).toEqual({ code: 'unknown_channel' });
  });

  it.each([
    'v1/me',
    'v1/acme/boiler-7',
    'v1/acme/boiler-70/data',
    'v1/acme/boiler-/data',
    'v1/acme/boiler-8/data',
    'v1/acm/boiler-7/data',
    'v1/acmee/boiler-7/data',
    'v1/other/boiler-7/data',
    'V1/me/data',
    'v2/me/data',
    '/v1/me/data',
    'v1//me/data',
    '$SYS/broker',
    'data',
    'v1/me/in/cmd',
    'v1/me/in',
    'v1/me/status',
    'v1/me/cmd/1',
    'v1/me/alert/x',
    'v1/me/do/relay',
    'v1/acme/boiler-7/in/cmd',
    'v1/acme/_/ha/x',
  ])('[I-05] forbids %s', (topic) => {
    expect(readUplinkTopic(topic, own)).toEqual({ code: 'forbidden' });
  });

  it('spells topics both ways', () => {
    expect(canonicalTopic(own, 'in/cmd')).toBe('v1/acme/boiler-7/in/cmd');
    expect(aliasTopic('in/cmd')).toBe('v1/me/in/cmd');
    expect(aliasOf('v1/acme/boiler-7/in/cmd', own)).toBe('v1/me/in/cmd');
    expect(aliasOf('v1/acme/boiler-8/in/cmd', own)).toBe('v1/acme/boiler-8/in/cmd');
  });
});

describe('subscriptions of a device', () => {
  const P = 'v1/acme/boiler-7/';
  it.each([
    ['in/+', ['in/cmd', 'in/cfg']],
    ['in/#', ['in/cmd', 'in/cfg']],
    ['in/cmd', ['in/cmd']],
    ['in/err', ['in/err']],
    ['in/hello', ['in/hello']],
    ['in/key', ['in/key']],
    ['in/later', ['in/later']],
    ['status', ['status']],
  ])('grants %s as exact canonical topics', (rest, exact) => {
    const topics = exact.map((topic) => P + topic);
    expect(authorizeDeviceFilter(`v1/me/${rest}`, own)).toEqual({ alias: true, topics });
    expect(authorizeDeviceFilter(P + rest, own)).toEqual({ alias: false, topics });
  });

  it.each([
    '#',
    '+/#',
    '$SYS/#',
    '$share/g/#',
    '$share/g/v1/me/in/+',
    'v1/#',
    'v1/+/+/in/cmd',
    'v1/acme/+/in/cmd',
    'v1/+/boiler-7/in/cmd',
    'v1/acme/boiler-8/in/+',
    'v1/me/#',
    'v1/me/+',
    'v1/me/+/cmd',
    'v1/me/in',
    'v1/me/in/',
    'v1/me/in/cmd/#',
    'v1/me/in/+/+',
    'v1/me/in/CMD',
    'v1/me/data',
    'v1/me/cmd/+',
    'v1/me/alert/#',
    'v1/me/status/#',
  ])('[I-06] does not grant %s', (filter) => {
    expect(authorizeDeviceFilter(filter, own)).toBeNull();
  });
});

describe('10 000 generated topics', () => {
  const identities = [
    own,
    { organization: 'me2', device: 'in' },
    { organization: 'a-', device: 'v1' },
  ];
  const level = fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom('v1', 'me', 'acme', 'boiler-7', 'me2', 'a-', 'in') },
    {
      weight: 8,
      arbitrary: fc.constantFrom('in', 'cmd', 'cfg', 'status', 'data', 'event', 'temp'),
    },
    {
      weight: 4,
      arbitrary: fc.constantFrom('+', '#', '$share', '$SYS', '', '__proto__', 'boiler-8'),
    },
    { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 6 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('\0', 'a\0', '\u0085', '\uFFFD', '\ud800', 'x'.repeat(130)),
    },
  );
  const ownPrefix = fc.constantFrom('v1/me/', 'v1/acme/boiler-7/', 'v1/me2/in/', 'v1/a-/v1/', '');
  const topics = fc
    .tuple(
      ownPrefix,
      fc.oneof(
        fc.array(level, { minLength: 1, maxLength: 2 }),
        fc.array(level, { minLength: 1, maxLength: 8 }),
      ),
    )
    .map(([prefix, levels]) => prefix + levels.join('/'));

  it('publish nothing outside the own uplink channels', () => {
    let granted = 0;
    fc.assert(
      fc.property(topics, fc.constantFrom(...identities), (topic, identity) => {
        const read = readUplinkTopic(topic, identity);
        const isGranted = topicNameFault(topic) === null && 'channel' in read;
        granted += isGranted ? 1 : 0;
        expect(isGranted).toBe(mayPublish(topic, identity));
      }),
      { numRuns: 10_000 },
    );
    expect(granted).toBeGreaterThan(100);
  });

  it('subscribe to nothing outside the own inbox and status', () => {
    let granted = 0;
    fc.assert(
      fc.property(topics, fc.constantFrom(...identities), (filter, identity) => {
        const grant = authorizeDeviceFilter(filter, identity);
        granted += grant === null ? 0 : 1;
        expect(grant !== null).toBe(maySubscribe(filter, identity));
        for (const topic of grant?.topics ?? []) {
          expect(topicNameFault(topic)).toBeNull();
          expect(isReadable(topic.split('/'), identity)).toBe(true);
        }
      }),
      { numRuns: 10_000 },
    );
    expect(granted).toBeGreaterThan(100);
  });
});

// The slow reference: levels and sets, no shared code with the product.
type Identity = typeof own;

function restOf(topic: string, identity: Identity): string[] | null {
  const [version, first, second, ...rest] = topic.split('/');
  if (version !== 'v1') return null;
  if (first === 'me') return second === undefined ? null : [second, ...rest];
  const isOwn = first === identity.organization && second === identity.device && rest.length > 0;
  return isOwn ? rest : null;
}

function isSound(topic: string): boolean {
  const bytes = Buffer.from(topic);
  const isText = [...topic].every((char) => !/\p{Cc}|\p{Cs}|\uFFFD/u.test(char));
  return isText && topic !== '' && bytes.length <= 128 && topic.split('/').length <= 6;
}

function mayPublish(topic: string, identity: Identity): boolean {
  const rest = restOf(topic, identity);
  if (rest === null || !isSound(topic) || /[+#]/.test(topic)) return false;
  if (rest.length === 1) {
    return ['data', 'senml', 'log', 'hello', 'ack', 'cfg', 'key'].includes(rest[0] ?? '');
  }
  const isName = /^[A-Za-z][\w.-]*$/.test(rest[1] ?? '') && (rest[1] ?? '').length <= 64;
  if (rest.length !== 2 || !isName) return false;
  if (rest[0] === 'data') return !(RESERVED_MEMBERS as readonly string[]).includes(rest[1] ?? '');
  return rest[0] === 'event';
}

function maySubscribe(filter: string, identity: Identity): boolean {
  const rest = restOf(filter, identity);
  if (rest === null || !isSound(filter)) return false;
  if (rest.length === 1) return rest[0] === 'status';
  const isWord =
    rest[1] === '+' || rest[1] === '#' || /^[a-z][a-z0-9_.-]{0,31}$/.test(rest[1] ?? '');
  return rest.length === 2 && rest[0] === 'in' && isWord;
}

function isReadable(levels: string[], identity: Identity): boolean {
  const [version, organization, device, word, ...rest] = levels;
  const isOwn =
    version === 'v1' && organization === identity.organization && device === identity.device;
  return (
    isOwn && ((word === 'status' && rest.length === 0) || (word === 'in' && rest.length === 1))
  );
}
