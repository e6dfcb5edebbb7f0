import type { z } from 'zod';
import { ACK_BYTES_MAX, ackSchema } from './ack.ts';
import { ARGUMENTS_BYTES_MAX } from './command-arguments.ts';
import { CONFIGURATION_REPORT_BYTES_MAX, configurationReportSchema } from './configuration.ts';
import { PACKET_BYTES_MAX } from './contract.ts';
import {
  desiredConfigurationSchema,
  deviceErrorSchema,
  greetingSchema,
  keyAnswerSchema,
  slotCommandSchema,
} from './downlink-schema.ts';
import { EVENT_BYTES_MAX } from './event.ts';
import { HELLO_BYTES_MAX, helloSchema } from './hello.ts';
import {
  alertSchema,
  commandArgumentsSchema,
  commandEventSchema,
  refusedCommandSchema,
  shownDataSchema,
  shownEventSchema,
  shownLogSchema,
  statusSchema,
} from './integrator-schema.ts';
import { KEY_REQUEST_BYTES_MAX, keyRequestSchema } from './key-request.ts';
import { LOG_BYTES_MAX } from './log-entry.ts';
import { dataPayloadSchema, scalarPayloadSchema } from './payload-schema.ts';
import { eventPayloadSchema, logPayloadSchema, senmlPayloadSchema } from './uplink-schema.ts';

/** One kind of message of the contract: what `gen.ts` makes schemas, AsyncAPI and tables of. */
export interface PayloadKind {
  /** Name of its schema, unique. */
  readonly name: string;
  /** Behind `v1/me/` or `v1/{organization}/{device}/`; levels in braces are parameters. */
  readonly topic: string;
  readonly from: 'device' | 'broker' | 'integrator';
  /** Who gets it; of an uplink the broker, which shows telemetry to integrators in one form. */
  readonly to: 'device' | 'broker' | 'integrator';
  readonly qos: '0' | '1' | '0 or 1';
  readonly isRetained: boolean;
  /** Largest payload, in bytes; null: what the client can receive. */
  readonly bytesMax: number | null;
  /** What a payload of no bytes means; null: it is not sent, or refused. */
  readonly empty: string | null;
  readonly schema: z.ZodType;
  /** Whether a member that is null counts as left out. */
  readonly isNullLeftOut?: boolean;
  /** Whether the payload may be another text than JSON; the schema speaks of JSON only. */
  readonly isText?: boolean;
  /** One sentence. */
  readonly what: string;
  /** File of golden payloads, and the channel of its cases. */
  readonly golden: readonly [file: string, channel: string];
}

const up = { from: 'device', to: 'broker', qos: '0 or 1', isRetained: false } as const;
const down = { from: 'broker', to: 'device', qos: '0', isRetained: false, bytesMax: null } as const;
const slot = { ...down, qos: '1', isRetained: true } as const;
const seen = { from: 'broker', to: 'integrator', qos: '1', isRetained: false } as const;

const TELEMETRY: readonly PayloadKind[] = [
  {
    ...up,
    name: 'data',
    topic: 'data',
    bytesMax: PACKET_BYTES_MAX,
    empty: null,
    schema: dataPayloadSchema,
    what: 'Samples and series, in JSON or CBOR.',
    golden: ['data-json.json', 'data'],
  },
  {
    ...up,
    name: 'data-metric',
    topic: 'data/{metric}',
    bytesMax: 2048,
    empty: 'a missing value',
    schema: scalarPayloadSchema,
    isText: true,
    what: 'One value.',
    golden: ['scalar.json', 'scalar'],
  },
  {
    ...up,
    name: 'senml',
    topic: 'senml',
    bytesMax: PACKET_BYTES_MAX,
    empty: null,
    schema: senmlPayloadSchema,
    what: 'Samples as SenML (RFC 8428), in JSON or CBOR.',
    golden: ['senml-json.json', 'senml'],
  },
  {
    ...up,
    name: 'event',
    topic: 'event/{name}',
    bytesMax: EVENT_BYTES_MAX,
    empty: 'it happened',
    schema: eventPayloadSchema,
    what: 'Something that happened.',
    golden: ['event.json', 'event'],
  },
  {
    ...up,
    name: 'log',
    topic: 'log',
    bytesMax: LOG_BYTES_MAX,
    empty: 'nothing',
    schema: logPayloadSchema,
    isText: true,
    what: 'Log lines, as text or as an object.',
    golden: ['log.json', 'log'],
  },
];

const EXCHANGE: readonly PayloadKind[] = [
  {
    ...up,
    name: 'hello',
    topic: 'hello',
    bytesMax: HELLO_BYTES_MAX,
    empty: 'a greeting is wanted',
    schema: helloSchema,
    isNullLeftOut: true,
    what: 'What the device says of itself.',
    golden: ['hello.json', 'hello'],
  },
  {
    ...up,
    name: 'ack',
    topic: 'ack',
    bytesMax: ACK_BYTES_MAX,
    empty: null,
    schema: ackSchema,
    isNullLeftOut: true,
    what: 'The answer to a command.',
    golden: ['ack.json', 'ack'],
  },
  {
    ...up,
    name: 'cfg',
    topic: 'cfg',
    bytesMax: CONFIGURATION_REPORT_BYTES_MAX,
    empty: null,
    schema: configurationReportSchema,
    isNullLeftOut: true,
    what: 'The answer to a configuration.',
    golden: ['configuration.json', 'cfg'],
  },
  {
    ...up,
    name: 'key',
    topic: 'key',
    bytesMax: KEY_REQUEST_BYTES_MAX,
    empty: 'the same as `{}`',
    schema: keyRequestSchema,
    isNullLeftOut: true,
    what: 'The device asks for a key.',
    golden: ['key-request.json', 'key'],
  },
  {
    ...slot,
    name: 'in-cmd',
    topic: 'in/cmd',
    empty: 'nothing waits, and the last answer is stored',
    schema: slotCommandSchema,
    what: 'The command that is next.',
    golden: ['downlink.json', 'in/cmd'],
  },
  {
    ...slot,
    name: 'in-cfg',
    topic: 'in/cfg',
    empty: 'no configuration is wanted',
    schema: desiredConfigurationSchema,
    what: 'The configuration that is wanted, whole.',
    golden: ['downlink.json', 'in/cfg'],
  },
  {
    ...down,
    name: 'in-hello',
    topic: 'in/hello',
    empty: null,
    schema: greetingSchema,
    what: 'The greeting: time, waiting commands, version of the configuration.',
    golden: ['downlink.json', 'in/hello'],
  },
  {
    ...down,
    name: 'in-err',
    topic: 'in/err',
    empty: null,
    schema: deviceErrorSchema,
    what: 'Why something was refused.',
    golden: ['downlink.json', 'in/err'],
  },
  {
    ...down,
    name: 'in-key',
    topic: 'in/key',
    empty: null,
    schema: keyAnswerSchema,
    what: 'A new key, or why there is none; over TLS only.',
    golden: ['downlink.json', 'in/key'],
  },
];

const INTEGRATION: readonly PayloadKind[] = [
  {
    ...seen,
    name: 'shown-data',
    topic: 'data',
    bytesMax: null,
    empty: null,
    schema: shownDataSchema,
    what: 'What was accepted on `data`, `data/{metric}` and `senml`, in one form.',
    golden: ['data-json.json', 'data'],
  },
  {
    ...seen,
    name: 'shown-event',
    topic: 'event/{name}',
    bytesMax: null,
    empty: null,
    schema: shownEventSchema,
    what: 'An event with its time.',
    golden: ['event.json', 'event'],
  },
  {
    ...seen,
    name: 'shown-log',
    topic: 'log',
    bytesMax: null,
    empty: null,
    schema: shownLogSchema,
    what: 'Log lines, taken apart.',
    golden: ['log.json', 'log'],
  },
  {
    ...seen,
    name: 'status',
    topic: 'status',
    isRetained: true,
    bytesMax: null,
    empty: 'the device was deleted',
    schema: statusSchema,
    what: 'Presence of the device; it may read its own.',
    golden: ['integrator.json', 'status'],
  },
  {
    ...seen,
    name: 'cmd',
    topic: 'cmd/{id}',
    bytesMax: null,
    empty: null,
    schema: commandEventSchema,
    what: 'A step in the life of a command.',
    golden: ['integrator.json', 'cmd'],
  },
  {
    ...seen,
    name: 'cmd-refused',
    topic: 'cmd/refused',
    bytesMax: null,
    empty: null,
    schema: refusedCommandSchema,
    what: 'What was published on `do/…` became no command.',
    golden: ['integrator.json', 'cmd/refused'],
  },
  {
    ...seen,
    name: 'alert',
    topic: 'alert/{rule}',
    isRetained: true,
    bytesMax: null,
    empty: 'it does not fire any more',
    schema: alertSchema,
    what: 'An alert, retained while it fires.',
    golden: ['integrator.json', 'alert'],
  },
  {
    name: 'do',
    topic: 'do/{command}',
    from: 'integrator',
    to: 'broker',
    qos: '0 or 1',
    isRetained: false,
    bytesMax: ARGUMENTS_BYTES_MAX,
    empty: 'the same as `{}`',
    schema: commandArgumentsSchema,
    what: 'Arguments of a command to be queued; a level `{ref}` may follow.',
    golden: ['integrator.json', 'do'],
  },
];

/** Every kind of message: telemetry, what device and broker tell each other, what integrators see and send. */
export const PAYLOAD_KINDS: readonly PayloadKind[] = [...TELEMETRY, ...EXCHANGE, ...INTEGRATION];
