import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Parser } from '@asyncapi/parser';
import { Validator, type Schema } from '@cfworker/json-schema';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeviceErrors } from '../../broker/device-errors.ts';
import { Greetings } from '../../broker/greeting.ts';
import { COMMAND_STATES } from '../../commands/command.ts';
import { encodeEvent } from '../../commands/events.ts';
import { decodeAck } from '../../firmware-protocol/ack.ts';
import { encodeSlotCommand, SYSTEM_COMMANDS } from '../../firmware-protocol/command.ts';
import {
  decodeConfigurationReport,
  encodeDesiredConfiguration,
} from '../../firmware-protocol/configuration.ts';
import {
  CONTRACT_MINOR,
  DEVICE_NAME,
  METRIC_NAME,
  ORGANIZATION_NAME,
  PACKET_BYTES_MAX,
  Refusal,
  REFUSAL_CODES,
  RETAINED_INBOX_TOPICS,
  UPLINK_CHANNELS,
} from '../../firmware-protocol/contract.ts';
import { decodeEvent } from '../../firmware-protocol/event.ts';
import { contractDocuments, staleDocuments } from '../../firmware-protocol/gen.ts';
import { MACRO_GROUPS } from '../../firmware-protocol/gen-header.ts';
import { payloadSchema } from '../../firmware-protocol/gen-schema.ts';
import { specText } from '../../firmware-protocol/gen-spec.ts';
import { decodeHello } from '../../firmware-protocol/hello.ts';
import { SHOWN_COMMAND_STATES } from '../../firmware-protocol/integrator-schema.ts';
import { decodeKeyRequest } from '../../firmware-protocol/key-request.ts';
import { KEY_CHARS, makeKey } from '../../firmware-protocol/keys.ts';
import { PAYLOAD_KINDS, type PayloadKind } from '../../firmware-protocol/payloads.ts';
import { decodeData } from '../../firmware-protocol/telemetry.ts';
import { authorizeDeviceFilter, readUplinkTopic } from '../../firmware-protocol/topics.ts';
import { alertTopic } from '../../rules/notify/alert-topic.ts';
import { hasProgram } from '../support/programs.ts';
import { makeMessage } from '../support/senders.ts';

const FOLDER = fileURLToPath(new URL('../../firmware-protocol/', import.meta.url));
const HEADER = join(FOLDER, 'generated/fp_contract.h');
const hasCompiler = hasProgram('gcc', 'compiling the header of the contract');

interface GoldenCase {
  readonly what: string;
  readonly channel: string;
  readonly text?: string;
  readonly refused?: string;
  readonly shown?: unknown;
}

function kindOf(name: string): PayloadKind {
  const kind = PAYLOAD_KINDS.find((one) => one.name === name);
  if (kind === undefined) throw new Error(`no payload ${name}`);
  return kind;
}

function validatorOf(kind: PayloadKind): Validator {
  return new Validator(payloadSchema(kind) as Schema, '2020-12', false);
}

/** Faults of a value by the schema of a payload, and members that the schema does not name. */
function faultsOf(name: string, value: unknown): unknown[] {
  const { valid, errors } = validatorOf(kindOf(name)).validate(value);
  return valid ? [] : errors;
}

function golden({ golden: [file, channel] }: PayloadKind): GoldenCase[] {
  const cases = JSON.parse(readFileSync(join(FOLDER, 'golden', file), 'utf8')) as GoldenCase[];
  return cases.filter((one) => one.channel === channel);
}

function jsonOf(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '') as unknown;
  } catch {
    return undefined;
  }
}

/** What a schema cannot say: sums, bytes of UTF-8, equal lengths, names across levels, a record's choice. */
const BEYOND_SCHEMAS: ReadonlySet<string> = new Set(['too_many', 'bad_series', 'too_deep']);

describe('generated documents', () => {
  it('are what the contract says: run npm run protocol:gen', () => {
    expect(staleDocuments(contractDocuments())).toEqual([]);
  });

  it('are found stale when one byte differs', () => {
    const [first, ...rest] = contractDocuments();
    if (first === undefined) throw new Error('no documents');
    const changed = { path: first.path, render: (text: string) => `${first.render(text)} ` };
    expect(staleDocuments([changed, ...rest])).toEqual([first.path]);
  });

  it('are found stale when a file is left of a payload that is gone', () => {
    const left = contractDocuments().filter(({ path }) => !path.endsWith('/ack.json'));
    expect(staleDocuments(left)).toEqual(['generated/schema/ack.json']);
  });

  it('refuse a specification that lacks a part or asks for one that there is none of', () => {
    const text = readFileSync(join(FOLDER, 'SPEC.md'), 'utf8');
    expect(() => specText(text.replace('<!-- made: codes -->', ''))).toThrow('lacks');
    expect(() => specText(`${text}<!-- made: cods --><!-- end -->`)).toThrow('cods');
  });
});

describe('payloads', () => {
  it('are those of the channels that devices may publish and read', () => {
    const me = { organization: 'acme', device: 'boiler-7' };
    const words = PAYLOAD_KINDS.filter(({ from }) => from === 'device').map(({ topic }) => topic);
    expect(new Set(words.map((topic) => topic.split('/')[0]))).toEqual(new Set(UPLINK_CHANNELS));
    for (const topic of words) {
      const filled = `v1/me/${topic.replace(/\{\w+\}/, 'temp')}`;
      expect(readUplinkTopic(filled, me)).not.toHaveProperty('code');
    }
    const down = PAYLOAD_KINDS.filter(({ to }) => to === 'device');
    for (const { topic } of down)
      expect(authorizeDeviceFilter(`v1/me/${topic}`, me)).not.toBeNull();
    const retained = down.filter(({ isRetained }) => isRetained).map(({ topic }) => topic);
    expect(retained).toEqual(RETAINED_INBOX_TOPICS);
  });

  it('have a name of their own', () => {
    const names = PAYLOAD_KINDS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe.each(PAYLOAD_KINDS.map((kind) => [kind.name, kind] as const))(
  'the schema %s',
  (name, kind) => {
    const validator = validatorOf(kind);
    const isShown = name.startsWith('shown-');

    it('is of draft 2020-12 and refers to nothing outside of itself', () => {
      const text = JSON.stringify(payloadSchema(kind));
      expect(text).toContain('"$schema":"https://json-schema.org/draft/2020-12/schema"');
      const refs = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, ref = '']) => ref);
      expect(refs.filter((ref) => !ref.startsWith('#/$defs/'))).toEqual([]);
    });

    it('takes what golden payloads say is accepted', () => {
      const accepted = golden(kind).filter(
        ({ what, refused }) => refused === undefined && !AS_TEXT.has(what),
      );
      const values = accepted.map(({ what, text, shown }) => [
        what,
        isShown ? shown : jsonOf(text),
      ]);
      const present = values.filter(([, value]) => value !== undefined && value !== null);
      expect(present.length).toBeGreaterThan(0);
      for (const [what, value] of present) {
        expect(validator.validate(value).errors, String(what)).toEqual([]);
      }
    });

    it('refuses what golden payloads say is refused, where it is JSON and a schema can say why', () => {
      if (isShown) return;
      const refused = golden(kind).filter(({ refused: code }) => code !== undefined);
      for (const { what, text, refused: code = '' } of refused) {
        const value = jsonOf(text);
        if (value === undefined || BEYOND_SCHEMAS.has(code) || name === 'senml') continue;
        if (UNSAID.has(what)) continue;
        expect(validator.validate(value).valid, what).toBe(false);
      }
    });
  },
);

/** Golden payloads that are JSON and are taken as the text that they are. */
const AS_TEXT: ReadonlySet<string> = new Set(['an object without msg']);
/** Refused golden payloads of which a schema cannot say what is wrong. */
const UNSAID: ReadonlySet<string> = new Set(['a result of more than 1024 bytes', 'U+0000']);

/** Decoders of what devices send, with members that payloads of each are made of, and what always is one. */
const DECODERS: Readonly<
  Record<string, readonly [decode: (payload: Buffer) => object, members: string, given: object]>
> = {
  hello: [decodeHello, 'fw hw mdl mps boot last cfg sleep rst ota up p u color', {}],
  ack: [decodeAck, 'r pct code msg last took', { id: 7, st: 'ok' }],
  cfg: [decodeConfigurationReport, 'msg cfg took', { v: 7, ok: true }],
  key: [decodeKeyRequest, 'mdl why', {}],
  data: [decodeData, 'ts age up seq dt values temp rh bme 1', {}],
  event: [(payload) => decodeEvent('door', payload), 'ts age up seq open by', {}],
};

describe('schemas of what devices send', () => {
  const value = fc.oneof(
    fc.constantFrom<unknown>(
      null,
      0,
      1,
      7,
      100,
      1e12,
      4_294_967_295,
      true,
      'valid',
      'thermo-1',
      '',
    ),
    fc.jsonValue({ maxDepth: 3 }),
    fc.dictionary(fc.constantFrom('temp', 'a.b', '1x', ''), fc.oneof(fc.integer(), fc.string())),
    fc.array(fc.oneof(fc.integer(), fc.constant(null))),
  );

  it.each(Object.entries(DECODERS))('refuse nothing that is accepted: %s', (name, parts) => {
    const [decode, members, given] = parts;
    const validator = validatorOf(kindOf(name));
    const object = fc.dictionary(fc.constantFrom(...members.split(' ')), value, { maxKeys: 4 });
    fc.assert(
      fc.property(object, (said) => {
        const json = JSON.stringify({ ...given, ...said });
        if (decode(Buffer.from(json)) instanceof Refusal) return;
        expect(validator.validate(JSON.parse(json)).errors, json).toEqual([]);
      }),
      { numRuns: 500 },
    );
  });
});

describe('what the program sends', () => {
  it('fits the schema of the greeting', async () => {
    const sent: object[] = [];
    const device = {
      principal: { organization: 'acme', device: 'boiler-7' },
      session: { send: (_: string, message: object) => void sent.push(message) },
      storedSequence: 1234,
    };
    const greetings = new Greetings(() => Promise.resolve({ commands: 2, configVersion: 7 }));
    greetings.heard(device as never, { up: 812 });
    const silent = { ...device, storedSequence: null };
    void greetings.subscribed(silent as never);
    await expect.poll(() => sent.length).toBe(2);
    for (const message of sent) expectToFit('in-hello', message);
    expect(sent.map((message) => Object.keys(message).length)).toEqual([5, 3]);
  });

  it('fits the schema of errors, for every code', () => {
    for (const code of REFUSAL_CODES) {
      const errors = new DeviceErrors(
        { close: () => undefined } as never,
        () => 1_795_235_431_857,
        (message) => expectToFit('in-err', message),
      );
      errors.report(code, 'data', 'x'.repeat(100));
    }
    expect.assertions(REFUSAL_CODES.length * 2);
  });

  it('fits the schemas of slots and configurations', () => {
    const slot = encodeSlotCommand({ id: 1, cmd: 'relay', args: { on: [true] }, n: 1, exp: 2 });
    expectToFit('in-cmd', JSON.parse(slot.toString()) as object);
    const desired = encodeDesiredConfiguration(1, { every: 60 });
    expectToFit('in-cfg', JSON.parse(desired.toString()) as object);
  });

  it('fits the schema of new keys', () => {
    expectToFit('in-key', { st: 'ok', user: 'acme/boiler-7', key: makeKey('device').key });
    expect(faultsOf('in-key', { st: 'ok', user: 'a', key: makeKey('claim').key })).not.toEqual([]);
  });

  it('fits the schema of alerts', () => {
    const alerts = makeMessage().alerts.map((alert) => ({ ...alert, groupKey: 'door' }));
    expect(alerts.length).toBeGreaterThan(0);
    for (const alert of alerts) expectToFit('alert', alert);
    const names = { organization: 'acme', device: 'd', rule: 'too hot', groupKey: '' };
    expect(alertTopic(names)).toBe('v1/acme/d/alert/too-hot');
  });

  it('fits the schema of the steps of commands', () => {
    const told = { commandId: '0199d000-0000-7000-8000-000000000001', name: 'relay', ref: 'job42' };
    const occurredAt = new Date(1_795_235_431_857);
    const detail = { code: 'valve', msg: 'stuck', pct: 40, r: { on: [true] }, actor: 'A1b2C3d4' };
    for (const state of COMMAND_STATES) {
      const command = { ...told, organization: 'acme', device: 'boiler-7' };
      const step = encodeEvent(command, { state, occurredAt, detail: { ...detail, late: true } });
      expectToFit('cmd', JSON.parse(step.toString()) as object);
      const bare = encodeEvent({ ...command, ref: null }, { state, occurredAt, detail: {} });
      expectToFit('cmd', JSON.parse(bare.toString()) as object);
    }
  });

  it('tells integrators the states that commands have', () => {
    expect(SHOWN_COMMAND_STATES).toEqual(COMMAND_STATES);
  });
});

/** Valid, and without members that the schema does not name. */
function expectToFit(name: string, message: object): void {
  expect(faultsOf(name, message)).toEqual([]);
  const schema = payloadSchema(kindOf(name)) as { properties?: object; oneOf?: object[] };
  const forms = (schema.oneOf ?? [schema]) as { properties: object }[];
  const isNamed = forms.some(({ properties }) =>
    Object.keys(message).every((key) => Object.hasOwn(properties, key)),
  );
  expect(isNamed, JSON.stringify(message)).toBe(true);
}

describe('the AsyncAPI document', () => {
  const text = readFileSync(join(FOLDER, 'generated/asyncapi.json'), 'utf8');

  it('is valid for the parser of AsyncAPI, examples included', async () => {
    const { document, diagnostics } = await new Parser().parse(text);
    // 0 error, 1 warning; information that 3.1.0 exists is none.
    const faults = diagnostics.filter(({ severity }) => severity <= 1);
    expect(faults.map(({ message, path }) => `${path.join('.')}: ${message}`)).toEqual([]);
    expect(document?.version()).toBe('3.0.0');
    expect(document?.operations().all()).toHaveLength(PAYLOAD_KINDS.length);
    expect(document?.messages().all().length).toBe(PAYLOAD_KINDS.length);
  });

  it('is found faulty when a channel has no address', async () => {
    const broken = text.replace('"address"', '"adress"');
    const { diagnostics } = await new Parser().parse(broken);
    expect(diagnostics.some(({ severity }) => severity === 0)).toBe(true);
  });

  it('has examples for every message, which fit it by its own schemas', () => {
    const { components } = JSON.parse(text) as {
      components: { messages: Record<string, { examples?: { payload: unknown }[] }> };
    };
    for (const [name, { examples = [] }] of Object.entries(components.messages)) {
      expect(examples.length, name).toBeGreaterThan(0);
      const $ref = `#/components/schemas/${name}`;
      const validator = new Validator({ $ref, components } as Schema, '2020-12', false);
      for (const { payload } of examples) {
        expect(validator.validate(payload).errors, name).toEqual([]);
      }
      if (name === 'ack') expect(validator.validate({ id: 1, st: 'okay' }).valid).toBe(false);
    }
  });
});

describe('the header for C', () => {
  const macros = MACRO_GROUPS.flatMap(([, group]) => group);

  it('names each macro once and only defines', () => {
    const names = macros.map(([name]) => name);
    expect(new Set(names).size).toBe(names.length);
    expect(names.filter((name) => !/^FP_[A-Z0-9_]+$/.test(name))).toEqual([]);
    const lines = readFileSync(HEADER, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
    const other = lines.filter(
      (line) => !/^(#define FP_\w+( |$)|\/\* .* \*\/$|#ifndef|#endif)/.test(line),
    );
    expect(other).toEqual([]);
  });

  it('says what the contract says', () => {
    const values = new Map<string, unknown>(macros.map(([name, value]) => [name, value]));
    expect(values.get('FP_PROTOCOL_MINOR')).toBe(CONTRACT_MINOR);
    expect(values.get('FP_PACKET_MAX')).toBe(PACKET_BYTES_MAX);
    expect(values.get('FP_KEY_CHARS')).toBe(KEY_CHARS);
    expect(makeKey('device').key).toHaveLength(KEY_CHARS);
    const longest = (name: RegExp) => Number(/,(\d+)\}\$$/.exec(name.source)?.[1]) + 1;
    expect(values.get('FP_METRIC_NAME_MAX')).toBe(longest(METRIC_NAME));
    expect(values.get('FP_USER_MAX')).toBe(longest(ORGANIZATION_NAME) + 1 + longest(DEVICE_NAME));
    for (const code of REFUSAL_CODES) expect([...values.values()]).toContain(code);
    for (const name of SYSTEM_COMMANDS) expect([...values.values()]).toContain(name);
  });

  it.skipIf(!hasCompiler)('compiles on its own, and a program of C sees the same values', () => {
    const folder = mkdtempSync(join(tmpdir(), 'puback-header-'));
    try {
      const shown = macros.map(([name, value]) =>
        typeof value === 'number'
          ? `printf("${name} %llu\\n", (unsigned long long)${name});`
          : `printf("${name} %s\\n", "" ${name} "");`,
      );
      const source = join(folder, 'shown.c');
      writeFileSync(
        source,
        `#include "${HEADER}"\n#include "${HEADER}"\n#include <stdio.h>\nint main(void) {\n${shown.join('\n')}\nreturn 0; }\n`,
      );
      const flags = ['-std=c99', '-Wall', '-Wextra', '-Wpedantic', '-Werror'];
      execFileSync('gcc', [...flags, '-o', join(folder, 'shown'), source]);
      const seen = execFileSync(join(folder, 'shown'), { encoding: 'utf8' });
      expect(seen.trimEnd().split('\n')).toEqual(macros.map(([name, value]) => `${name} ${value}`));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
