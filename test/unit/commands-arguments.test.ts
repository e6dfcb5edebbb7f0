import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ARGUMENTS_BYTES_MAX,
  ARGUMENTS_VALUES_MAX,
  decodeCommandArguments,
  findArgumentsFault,
} from '../../firmware-protocol/command-arguments.ts';
import { ARGUMENTS_DEPTH_MAX } from '../../firmware-protocol/command.ts';
import { Refusal, type Scope } from '../../firmware-protocol/contract.ts';
import {
  readCommandTopic,
  type CommandRights,
} from '../../firmware-protocol/integrator-command.ts';

const nested = (levels: number): unknown =>
  levels === 0 ? 1 : JSON.parse(`${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`);
const codeOf = (value: unknown): string | null => findArgumentsFault(value)?.code ?? null;

describe('the arguments of a command', () => {
  it('are an object, and nothing else', () => {
    for (const value of [null, 1, 'x', true, [], [1], undefined]) {
      expect(codeOf(value), JSON.stringify(value)).toBe('bad_type');
    }
    expect(codeOf({})).toBeNull();
    expect(codeOf({ on: true, level: 0.5, name: 'ü', list: [1, null, { a: 'b' }] })).toBeNull();
  });

  it('are nested so deep and not deeper, and a hundred thousand levels end no program', () => {
    expect(codeOf(nested(ARGUMENTS_DEPTH_MAX))).toBeNull();
    expect(codeOf(nested(ARGUMENTS_DEPTH_MAX + 1))).toBe('too_deep');
    expect(codeOf({ a: nested(100_000) })).toBe('too_deep');
  });

  it('have so many members and bytes and not more', () => {
    const list = (length: number) => ({ a: Array.from({ length }, () => 1) });
    expect(codeOf(list(ARGUMENTS_VALUES_MAX - 1))).toBeNull();
    expect(codeOf(list(ARGUMENTS_VALUES_MAX))).toBe('too_many');
    const text = (chars: number) => ({ a: 'x'.repeat(chars) });
    expect(codeOf(text(ARGUMENTS_BYTES_MAX - 8))).toBeNull();
    expect(codeOf(text(ARGUMENTS_BYTES_MAX - 7))).toBe('too_big');
    expect(codeOf({ a: 'ü'.repeat(ARGUMENTS_BYTES_MAX / 2) })).toBe('too_big');
  });

  it('have no member called __proto__, no U+0000, no half of a pair, and no number beyond a double', () => {
    expect(codeOf(JSON.parse('{"__proto__":{"admin":true}}'))).toBe('bad_name');
    expect(codeOf(JSON.parse('{"a":[{"__proto__":1}]}'))).toBe('bad_name');
    expect(codeOf(JSON.parse('{"constructor":1,"toString":2}'))).toBeNull();
    for (const text of ['{"a":"\\u0000"}', '{"\\u0000":1}', '{"a":"\\ud800"}', '{"a":1e999}']) {
      expect(codeOf(JSON.parse(text)), text).toBe('bad_type');
    }
  });

  it('are nothing in an empty payload, and in any other exactly its JSON', () => {
    expect(decodeCommandArguments(Buffer.alloc(0))).toEqual({});
    expect(decodeCommandArguments(Buffer.from(' {"on":true}\n'))).toEqual({ on: true });
    for (const [payload, code] of [
      ['{"on":nan}', 'bad_json'],
      ['{', 'bad_json'],
      ['true', 'bad_type'],
      ['[]', 'bad_type'],
      [Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 'bad_json'],
      [`{"a":"${'x'.repeat(ARGUMENTS_BYTES_MAX)}"}`, 'too_big'],
      [`{"a":${'['.repeat(1000)}${']'.repeat(1000)}}`, 'too_deep'],
      ['{"__proto__":{}}', 'bad_name'],
    ] as const) {
      const read = decodeCommandArguments(Buffer.from(payload as string));
      expect(read instanceof Refusal ? read.code : read, String(payload).slice(0, 40)).toBe(code);
    }
  });

  it('come back from any bytes as an object or a refusal, and an object comes back as it was', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const read = decodeCommandArguments(Buffer.from(bytes));
        expect(read instanceof Refusal || findArgumentsFault(read) === null).toBe(true);
      }),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })), (args) => {
        const read = decodeCommandArguments(Buffer.from(JSON.stringify(args)));
        if (!(read instanceof Refusal)) expect(JSON.stringify(read)).toBe(JSON.stringify(args));
      }),
    );
  });
});

const RIGHTS: CommandRights = { organization: 'acme', scopes: ['cmd:write'], devices: null };
const readTopic = (topic: string, rights: Partial<CommandRights> = {}): unknown => {
  const read = readCommandTopic(topic, { ...RIGHTS, ...rights });
  return read instanceof Refusal ? read.code : read;
};

describe('the topic of a command', () => {
  it('names a device, a command and, if it likes, a ref', () => {
    const device = 'boiler-7';
    expect(readTopic('v1/acme/boiler-7/do/relay')).toEqual({ device, command: 'relay', ref: null });
    const job = { device, command: 'relay', ref: 'job42' };
    expect(readTopic('v1/acme/boiler-7/do/relay/job42')).toEqual(job);
    expect(readTopic('v1/acme/boiler-7/do/sys.reboot')).toMatchObject({ command: 'sys.reboot' });
  });

  it('is forbidden in another tree, without the scope, and for devices that the key is not for', () => {
    expect(readTopic('v1/other/boiler-7/do/relay')).toBe('forbidden');
    expect(readTopic('v1/me/boiler-7/do/relay')).toBe('forbidden');
    const scopes: Scope[] = ['data', 'status', 'event', 'log', 'alert', 'cmd', 'raw'];
    expect(readTopic('v1/acme/boiler-7/do/relay', { scopes })).toBe('forbidden');
    const devices = ['boiler-8'];
    expect(readTopic('v1/acme/boiler-7/do/relay', { devices })).toBe('forbidden');
    expect(readTopic('v1/acme/boiler-8/do/relay', { devices })).toMatchObject({
      device: 'boiler-8',
    });
    expect(readTopic('v1/acme/boiler-7/do/relay', { devices: [] })).toBe('forbidden');
  });

  it('is refused when it is something else, or a name is malformed', () => {
    for (const topic of ['v1/acme/boiler-7/data', 'v1/acme/boiler-7/do/relay/a/b', 'v1/acme/x']) {
      expect(readTopic(topic), topic).toBe('unknown_channel');
    }
    for (const topic of [
      'v1/acme/boiler-7/do',
      'v1/acme/boiler-7/do/',
      'v1/acme/boiler-7/do/Relay',
      'v1/acme/boiler-7/do/relay/',
      'v1/acme/boiler-7/do/relay/ä',
      `v1/acme/boiler-7/do/relay/${'x'.repeat(65)}`,
      'v1/acme/_/do/relay',
      'v1/acme//do/relay',
    ]) {
      expect(readTopic(topic), topic).toBe('bad_name');
    }
  });
});
