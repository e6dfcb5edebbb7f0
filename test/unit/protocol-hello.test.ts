import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Refusal } from '../../firmware-protocol/contract.ts';
import {
  decodeHello,
  HELLO_BYTES_MAX,
  HELLO_TEXT_BYTES_MAX,
  isHelloRefusal,
  SLEEP_S_MAX,
  UNIT_BYTES_MAX,
  type Hello,
} from '../../firmware-protocol/hello.ts';

const decode = (text: string) => decodeHello(Buffer.from(text));
function accepted(text: string): Hello {
  const outcome = decode(text);
  if (isHelloRefusal(outcome)) throw new Error(outcome.detail);
  return outcome;
}
function refused(text: string): string {
  const outcome = decode(text);
  if (!isHelloRefusal(outcome)) throw new Error(`accepted: ${text}`);
  return `${outcome.code} ${outcome.detail}`;
}
const units = (count: number, unit = 'Cel') =>
  JSON.stringify({
    u: Object.fromEntries(Array.from({ length: count }, (_, at) => [`m${at}`, unit])),
  });

describe('decodeHello', () => {
  it('reads every member of the contract', () => {
    const hello = {
      fw: '1.4.2',
      hw: 'esp32c3',
      mdl: 'thermo-1',
      mps: 1024,
      boot: 4_294_967_295,
      last: 1_795_235_440,
      cfg: 7,
      sleep: 300,
      rst: 'deepsleep',
      ota: 'valid',
      up: 812,
      p: 0,
      u: { temp: 'Cel', rh: '%RH' },
    };
    expect(accepted(JSON.stringify(hello))).toEqual(hello);
  });

  it('reads no payload as {}: a device that wants a fresh greeting', () => {
    expect(accepted('')).toEqual({});
    expect(accepted('{}')).toEqual({});
  });

  it('ignores unknown members, and null as a member that was not said', () => {
    expect(accepted('{"fw":null,"new":{"deep":[1]},"sleep":nan,"hw":"c3"}')).toEqual({ hw: 'c3' });
  });

  it('takes a reset reason by name and by number', () => {
    expect(accepted('{"rst":"panic"}')).toEqual({ rst: 'panic' });
    expect(accepted('{"rst":4}')).toEqual({ rst: 4 });
    expect(refused('{"rst":256}')).toMatch(/^bad_type rst/);
    expect(refused('{"rst":true}')).toMatch(/^bad_type rst/);
  });

  it.each([
    ['fw', '3'],
    ['hw', '["a"]'],
    ['mdl', '"two\\nlines"'],
    ['mdl', '"\\u0000"'],
    ['mdl', '"\\ud800"'],
    ['mps', '"256"'],
    ['mps', '63'],
    ['mps', '268435461'],
    ['boot', '-1'],
    ['boot', '4294967296'],
    ['last', '1.5'],
    ['last', '4294967296'],
    ['cfg', '1e16'],
    ['sleep', '-1'],
    ['sleep', '0.5'],
    ['sleep', `${SLEEP_S_MAX + 1}`],
    ['sleep', '1e999'],
    ['ota', '"broken"'],
    ['up', '"1"'],
    ['p', '65536'],
    ['u', '["Cel"]'],
    ['u', '{"temp":1}'],
  ])('refuses %s %s as bad_type and names the member', (member, value) => {
    expect(refused(`{"${member}":${value}}`)).toMatch(new RegExp(`^bad_type ${member}\\b`));
  });

  it.each(['[]', '3', '"hello"', 'null', 'true'])('refuses %s: not an object', (text) => {
    expect(refused(text)).toBe('bad_type the payload is not an object');
  });

  it('refuses what is not JSON', () => {
    expect(refused('{"fw":1.4.2}')).toMatch(/^bad_json/);
    expect(decodeHello(Buffer.from([0x7b, 0xff, 0x7d]))).toMatchObject({ code: 'bad_json' });
  });

  it('bounds texts in bytes', () => {
    for (const member of ['fw', 'hw', 'mdl', 'rst']) {
      const text = 'ä'.repeat((HELLO_TEXT_BYTES_MAX - 1) / 2);
      expect(accepted(`{"${member}":"${text}x"}`)).toEqual({ [member]: `${text}x` });
      expect(refused(`{"${member}":"${text}xx"}`)).toMatch(
        new RegExp(`^(too_big|bad_type) ${member}`),
      );
    }
    expect(refused(units(1, 'x'.repeat(UNIT_BYTES_MAX + 1)))).toBe('too_big u m0: too long');
  });

  it('bounds the number of units and the payload', () => {
    expect(Object.keys(accepted(units(64)).u ?? {})).toHaveLength(64);
    expect(refused(units(65))).toBe('too_many u: more than 64 metrics');
    expect(refused(`{${' '.repeat(HELLO_BYTES_MAX)}}`)).toMatch(/^too_big/);
  });

  it('refuses units of names that no metric can have', () => {
    expect(refused('{"u":{"0":"Cel"}}')).toBe('bad_name u 0: not a metric name');
    expect(refused('{"u":{"a b\\u001b[31m":"Cel"}}')).toBe(
      'bad_name u a?b?[31m: not a metric name',
    );
  });

  it('takes names of object members for what they are: I-11', () => {
    const hello = accepted(
      '{"__proto__":{"fw":"evil","polluted":1},"constructor":{"prototype":{"polluted":1}},' +
        '"u":{"constructor":"Cel","toString":"m"}}',
    );
    expect(Object.keys(hello)).toEqual(['u']);
    expect(hello.fw).toBeUndefined();
    expect(hello.u?.['constructor']).toBe('Cel');
    expect(hello.u?.['hasOwnProperty']).toBeUndefined();
    expect(({} as { polluted?: number }).polluted).toBeUndefined();
    expect(JSON.parse(JSON.stringify(hello))).toEqual({ u: { constructor: 'Cel', toString: 'm' } });
  });

  it('never throws, whatever comes', () => {
    const outcomes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      fc.json().map((text) => Buffer.from(text)),
      fc
        .dictionary(
          fc.constantFrom('fw', 'mps', 'sleep', 'rst', 'ota', 'u', '__proto__', 'x'),
          fc.jsonValue(),
        )
        .map((value) => Buffer.from(JSON.stringify(value))),
    );
    fc.assert(
      fc.property(outcomes, (payload) => {
        const outcome = decodeHello(payload);
        expect(typeof outcome).toBe('object');
        if (!(outcome instanceof Refusal)) JSON.stringify(outcome);
      }),
      { numRuns: 500 },
    );
  });
});
