import { CONTRACT_MINOR } from './contract.ts';
import { payloadSchema, type JsonSchema } from './gen-schema.ts';
import { PAYLOAD_KINDS, type PayloadKind } from './payloads.ts';

/** Reads a file of golden payloads by its name. */
export type GoldenReader = (file: string) => unknown;

interface GoldenCase {
  readonly what: string;
  readonly channel: string;
  readonly text?: string;
  readonly refused?: string;
  readonly shown?: unknown;
}

const EXAMPLES_MAX = 3;
const PARAMETERS: Readonly<Record<string, string>> = {
  organization:
    'Name of the organization. A device may write `v1/me` for `v1/{organization}/{device}`.',
  device: 'Name of the device.',
  metric: 'Name of the metric.',
  name: 'Name of the event.',
  id: 'Id of the command, a UUID.',
  rule: 'Name of the rule, as one word.',
  command: 'Name of the command.',
};

/**
 * The text of `generated/asyncapi.json` (AsyncAPI 3.0.0). Operations are those of firmware, whose names
 * begin with `device`, and those of integrators: what they send and what they receive.
 */
export function asyncapiText(readGolden: GoldenReader): string {
  const document = {
    asyncapi: '3.0.0',
    info: {
      title: 'Puback',
      version: `1.${CONTRACT_MINOR}.0`,
      description:
        'Messages between ESP32 firmware, Puback and integrators over MQTT 3.1.1. firmware-protocol/SPEC.md explains them.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    defaultContentType: 'application/json',
    servers: {
      tls: {
        host: 'localhost:8883',
        protocol: 'secure-mqtt',
        protocolVersion: '3.1.1',
        description: 'Password: the key, pbd_… of a device or pbi_… of an integrator.',
      },
      plain: {
        host: 'localhost:1883',
        protocol: 'mqtt',
        protocolVersion: '3.1.1',
        description: 'For a trusted network only.',
      },
    },
    channels: channels(),
    operations: Object.fromEntries(
      PAYLOAD_KINDS.map((kind) => [operationName(kind), operation(kind)]),
    ),
    components: {
      messages: Object.fromEntries(
        PAYLOAD_KINDS.map((kind) => [kind.name, message(kind, examplesOf(kind, readGolden))]),
      ),
      schemas: componentSchemas(),
    },
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

function channels(): Record<string, object> {
  const topics = [...new Set(PAYLOAD_KINDS.map(({ topic }) => topic))];
  return Object.fromEntries(
    topics.map((topic) => {
      const address = `v1/{organization}/{device}/${topic}`;
      const names = [...address.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name);
      const kinds = PAYLOAD_KINDS.filter((kind) => kind.topic === topic);
      return [
        channelName(topic),
        {
          address,
          parameters: Object.fromEntries(
            names.map((name) => [name, { description: PARAMETERS[name] }]),
          ),
          messages: Object.fromEntries(
            kinds.map(({ name }) => [name, { $ref: `#/components/messages/${name}` }]),
          ),
        },
      ];
    }),
  );
}

/** What the side that is not the broker does. */
function operation({ name, topic, from, what, qos, isRetained }: PayloadKind): object {
  const channel = `#/channels/${channelName(topic)}`;
  return {
    action: from === 'broker' ? 'receive' : 'send',
    channel: { $ref: channel },
    summary: what,
    messages: [{ $ref: `${channel}/messages/${name}` }],
    bindings: {
      mqtt: { qos: qos === '0' ? 0 : 1, retain: isRetained, bindingVersion: '0.2.0' },
    },
  };
}

function operationName({ name, from, to }: PayloadKind): string {
  const side = from === 'device' || to === 'device' ? 'device' : 'integrator';
  return `${side}-${from === 'broker' ? 'receives' : 'sends'}-${name}`;
}

function channelName(topic: string): string {
  return topic.replaceAll('/', '-').replaceAll(/[{}]/g, '');
}

function message(kind: PayloadKind, examples: object[]): object {
  return {
    name: kind.name,
    summary: kind.what,
    payload: { $ref: `#/components/schemas/${kind.name}` },
    ...(examples.length === 0 ? {} : { examples }),
  };
}

/** Schemas without their identifiers, with `$defs` as components of their own. */
function componentSchemas(): Record<string, unknown> {
  const all: Record<string, unknown> = {};
  for (const kind of PAYLOAD_KINDS) {
    const { $schema: _, $id: __, $defs = {}, ...schema } = payloadSchema(kind);
    all[kind.name] = moveRefs(schema, kind.name);
    for (const [name, part] of Object.entries($defs as JsonSchema)) {
      all[`${kind.name}-${name}`] = moveRefs(part, kind.name);
    }
  }
  return all;
}

function moveRefs(node: unknown, kind: string): unknown {
  if (Array.isArray(node)) return node.map((item) => moveRefs(item, kind));
  if (typeof node !== 'object' || node === null) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => [
      key,
      key === '$ref'
        ? String(value).replace('#/$defs/', `#/components/schemas/${kind}-`)
        : moveRefs(value, kind),
    ]),
  );
}

function examplesOf(kind: PayloadKind, readGolden: GoldenReader): object[] {
  const [file, channel] = kind.golden;
  const cases = (readGolden(file) as GoldenCase[]).filter((one) => one.channel === channel);
  const isShown = kind.name.startsWith('shown-');
  return (
    cases
      .map((one) => ({ name: one.what, payload: isShown ? one.shown : sentOf(one) }))
      .filter(({ payload }) => payload !== undefined && payload !== null)
      // JSON that is taken as the text that it is fits no schema.
      .filter(({ payload }) => kind.schema.safeParse(payload).success)
      .slice(0, EXAMPLES_MAX)
  );
}

/** What was sent, where it is JSON that was accepted. */
function sentOf({ text = '', refused }: GoldenCase): unknown {
  if (refused !== undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
