import { Buffer } from 'node:buffer';
import { ACK_STATES, type AckState } from './ack.ts';
import { publishPacketBytes, SYSTEM_COMMANDS, type SystemCommand } from './command.ts';
import { REFUSAL_CODES } from './contract.ts';
import { DIAGNOSIS } from './diagnosis.ts';
import { MACRO_GROUPS, TIMES, VERSIONS, type MacroGroup } from './gen-header.ts';
import { payloadSchema, type JsonSchema } from './gen-schema.ts';
import { KEY_DENIALS, type KeyDenial } from './key-request.ts';
import { PAYLOAD_KINDS, type PayloadKind } from './payloads.ts';

/** Whose packet sizes are shown beside those of `v1/me`. */
const SHOWN_DEVICE = 'acme/boiler-7';

const ACK_MEANINGS: Readonly<Record<AckState, string>> = {
  ok: 'Done. `r` may say what came of it.',
  run: 'Taken, and under way: it frees the slot for the next command. `pct` says how far it is. `ok` or `err` follows.',
  err: 'Taken, and failed. `code` and `msg` say why.',
  no: 'Not taken, and not executed: `code` `unknown` (no such command), `expired`, `args`, or your own.',
  dup: 'Seen before, and the outcome is not known. `last` says which was the last one taken.',
};

const SYSTEM_MEANINGS: Readonly<Record<SystemCommand, readonly [args: string, meaning: string]>> = {
  'sys.reboot': [
    '',
    'Restart. Save it as done, restart, and answer `ok` when it comes again: it stays in the slot. Without storage answer before, or the board restarts again and again.',
  ],
  'sys.ota': ['`ver`, `url`', 'Load and start an image; see [Update](#12-update-over-the-air).'],
  'sys.rekey': ['', 'Ask for a new key on `key`; see [Keys](#11-keys).'],
  'sys.log': ['`level` (`E` to `V`), `for` (seconds)', 'Send log lines on `log` for so long.'],
  'sys.cancel': ['`id`', 'Stop the command of that id if it is running; best effort.'],
  'sys.hello': ['', 'Say `hello`; answer `ok`.'],
};

const DENIAL_MEANINGS: Readonly<Record<KeyDenial, string>> = {
  tls: 'The connection is not encrypted: connect over TLS and ask again.',
  unasked: 'Nobody asked this device to change its key. Keep the one you have.',
  retiring:
    'Another key of this device is in use, and the one that it has connected with ends soon: connect with the other one.',
  claimed: 'The name belongs to a device that has connected. A person has to decide.',
  quota: 'The claim key is used up.',
  expired: 'The claim key has ended.',
  model: 'The claim key is not for this model.',
  denied: 'A person said no.',
  name: 'The user name is no name of a device.',
};

/** The named parts of SPEC.md that are made. */
function parts(): ReadonlyMap<string, string> {
  return new Map([
    ['topics of devices', topicTable(PAYLOAD_KINDS.filter((kind) => sideOf(kind) === 'device'))],
    [
      'topics of integrators',
      topicTable(PAYLOAD_KINDS.filter((kind) => sideOf(kind) !== 'device')),
    ],
    ['stamps of a sample', stampTable()],
    ...[
      'hello',
      'ack',
      'cfg',
      'key',
      'in-cmd',
      'in-cfg',
      'in-hello',
      'in-err',
      'status',
      'cmd',
    ].map(
      (name) =>
        [`members of ${name}`, memberTable(payloadSchema(kindOf(name)), kindOf(name))] as const,
    ),
    ['answers', table(['`st`', 'Meaning'], rows(ACK_STATES, ACK_MEANINGS))],
    [
      'system commands',
      table(
        ['Command', 'Arguments', 'What the firmware does'],
        SYSTEM_COMMANDS.map((name) => [`\`${name}\``, ...SYSTEM_MEANINGS[name]]),
      ),
    ],
    ['denials of a key', table(['`code`', 'Meaning'], rows(KEY_DENIALS, DENIAL_MEANINGS))],
    ['codes', table(['`code`', 'What to do'], rows(REFUSAL_CODES, DIAGNOSIS))],
    ['limits', macroTable(([title]) => title !== TIMES && title !== VERSIONS)],
    ['times', macroTable(([title]) => title === TIMES)],
    ['packet sizes', sizeTable()],
  ]);
}

/**
 * The text of SPEC.md: prose as it stands, with the parts between `<!-- made: name -->` and
 * `<!-- end -->` made from the contract.
 * @throws {Error} for a part that the text lacks, or that there is none of.
 */
export function specText(current: string): string {
  const made = parts();
  const found = new Set<string>();
  const text = current.replace(
    /<!-- made: ([a-z -]+) -->[\s\S]*?<!-- end -->/g,
    (_, name: string) => {
      const part = made.get(name);
      if (part === undefined) throw new Error(`SPEC.md asks for ${name}, which there is none of`);
      found.add(name);
      return `<!-- made: ${name} -->\n<!-- prettier-ignore-start -->\n\n${part}\n\n<!-- prettier-ignore-end -->\n<!-- end -->`;
    },
  );
  const missing = [...made.keys()].filter((name) => !found.has(name));
  if (missing.length > 0) throw new Error(`SPEC.md lacks the made parts: ${missing.join(', ')}`);
  return text;
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`);
  return lines.join('\n');
}

function rows<Key extends string>(
  keys: readonly Key[],
  meanings: Readonly<Record<Key, string>>,
): string[][] {
  return keys.map((key) => [`\`${key}\``, meanings[key]]);
}

function sideOf({ from, to }: PayloadKind): 'device' | 'integrator' {
  return from === 'device' || to === 'device' ? 'device' : 'integrator';
}

function kindOf(name: string): PayloadKind {
  const kind = PAYLOAD_KINDS.find((one) => one.name === name);
  if (kind === undefined) throw new Error(`no payload ${name}`);
  return kind;
}

function topicTable(kinds: readonly PayloadKind[]): string {
  return table(
    ['Topic', 'From', 'QoS', 'Retained', 'Largest payload', 'No payload', 'What'],
    kinds.map((kind) => [
      `\`${sideOf(kind) === 'device' ? 'v1/me' : 'v1/{organization}/{device}'}/${kind.topic}\``,
      kind.from,
      kind.qos,
      kind.isRetained ? 'yes' : 'no',
      kind.bytesMax === null ? '' : `${kind.bytesMax} bytes`,
      kind.empty ?? '',
      kind.what,
    ]),
  );
}

function stampTable(): string {
  const { $defs } = payloadSchema(kindOf('data')) as { $defs: { item: { anyOf: JsonSchema[] } } };
  const [, , series = {}] = $defs.item.anyOf;
  const { values: _, ...properties } = series['properties'] as Record<string, JsonSchema>;
  return memberTable({ properties }, kindOf('data'));
}

function memberTable(schema: JsonSchema, { from }: Pick<PayloadKind, 'from'>): string {
  const { properties, required = [] } = schema as {
    properties: Record<string, JsonSchema>;
    required?: string[];
  };
  return table(
    ['Member', 'Value', 'Meaning'],
    Object.entries(properties).map(([name, property]) => [
      required.includes(name) ? `\`${name}\`, always` : `\`${name}\``,
      // Bounds of what devices send are bytes of UTF-8.
      valueText(property).replace(/(?<=up to \d+ )characters/, from === 'device' ? 'bytes' : '$&'),
      textOf(property['description']),
    ]),
  );
}

/** What a member may be, in a few words. */
function valueText(schema: JsonSchema): string {
  const { anyOf, enum: choices, const: constant, type } = schema;
  if (Array.isArray(anyOf)) {
    const isOther = (one: JsonSchema) => one['type'] !== 'null';
    return (anyOf as JsonSchema[]).filter(isOther).map(valueText).join(' or ');
  }
  if (Array.isArray(choices) && choices.length > 11) return 'one of the codes below';
  if (Array.isArray(choices)) return choices.map((choice) => `\`${String(choice)}\``).join(', ');
  if (constant !== undefined) return `\`${JSON.stringify(constant)}\``;
  if (type === 'integer') return `whole number${rangeText(schema)}`;
  if (type === 'number') return `number${rangeText(schema)}`;
  if (type === 'string') return textText(schema);
  if (type === 'boolean') return '`true` or `false`';
  return type === 'object' ? 'object' : 'any JSON';
}

function textText({ pattern, maxLength }: JsonSchema): string {
  if (typeof pattern === 'string')
    return `text, \`${pattern.slice(1, -1).replaceAll('|', '\\|')}\``;
  return maxLength === undefined ? 'text' : `text, up to ${textOf(maxLength)} characters`;
}

function textOf(value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
}

function rangeText({ minimum, maximum, exclusiveMinimum }: JsonSchema): string {
  const isBounded = typeof maximum === 'number' && maximum < Number.MAX_SAFE_INTEGER;
  if (typeof exclusiveMinimum === 'number') return ` above ${exclusiveMinimum}`;
  if (typeof minimum !== 'number') return '';
  return isBounded ? `, ${minimum} to ${maximum}` : ` from ${minimum}`;
}

/** Numbers of the groups that are wanted. */
function macroTable(isWanted: (group: MacroGroup) => boolean): string {
  const macros = MACRO_GROUPS.filter(isWanted).flatMap(([, group]) => group);
  return table(
    ['Name in `fp_contract.h`', 'Value', 'What'],
    macros
      .filter(([, value]) => typeof value === 'number')
      .map(([name, value, meaning = '']) => [`\`${name}\``, String(value), meaning]),
  );
}

/** Messages whose packets are shown, as a device would send or get them. */
const SIZED: readonly (readonly [what: string, topic: string, payload: string])[] = [
  ['one value', 'data/temp', '21.5'],
  ['three metrics', 'data', '{"temp":21.5,"rh":48.2,"co2":612}'],
  [
    'three metrics, `ts` and `seq`',
    'data',
    '{"ts":1795235431857,"seq":1234,"temp":21.5,"rh":48.2,"co2":612}',
  ],
  ['hello of a board that sleeps', 'hello', '{"mps":256,"boot":7,"last":1795235440,"sleep":600}'],
  ['greeting', 'in/hello', '{"ts":1795235431857,"up":812,"cmd":2,"cfg":7,"seq":1234}'],
  [
    'command',
    'in/cmd',
    '{"id":1795235440,"cmd":"relay","args":{"on":true},"n":2,"exp":1795239040}',
  ],
  [
    'update',
    'in/cmd',
    '{"id":1795235440,"cmd":"sys.ota","args":{"ver":"1.4.3","url":"https://iot.example.com/fw/7f3k9q2m?t=8x1v0c"},"n":1,"exp":1795239040}',
  ],
  ['answer', 'ack', '{"id":1795235440,"st":"ok"}'],
  ['configuration', 'in/cfg', '{"v":7,"cfg":{"every":60,"thr":30.5,"mode":"auto"}}'],
  ['error', 'in/err', '{"code":"bad_json","ch":"data","msg":"Unexpected end at 8","n":1}'],
];

function sizeTable(): string {
  return table(
    ['Message', 'Topic', '`v1/me`', `\`v1/${SHOWN_DEVICE}\``],
    SIZED.map(([what, topic, payload]) => [
      what,
      `\`${topic}\``,
      ...['v1/me', `v1/${SHOWN_DEVICE}`].map((prefix) =>
        String(publishPacketBytes(`${prefix}/${topic}`, Buffer.byteLength(payload))),
      ),
    ]),
  );
}
