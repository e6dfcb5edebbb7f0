import { z } from 'zod';

/** Largest MQTT packet after CONNACK, and so the largest payload, in bytes. Firmware should stay below 4096. */
export const PACKET_BYTES_MAX = 65_536;
/** Most metrics in one sample, missing values included. */
export const SAMPLE_METRICS_MAX = 64;
/** Most samples in one message. */
export const MESSAGE_SAMPLES_MAX = 500;
/** Most values in one message, missing values included. */
export const MESSAGE_POINTS_MAX = 2000;
/** Most distinct metrics of one device, unless the configuration says otherwise. */
export const DEVICE_METRICS_MAX = 256;
/**
 * Largest number that is stored, either side of zero; what is beyond it is a missing value, as what is
 * beyond a double is. So the sum of a million million readings is a double still: an aggregate that
 * overflows is an error of the database, and would stop the aggregates of everybody.
 */
export const VALUE_MAX = 1e290;
/** Longest text value, in bytes of UTF-8. */
export const TEXT_BYTES_MAX = 256;
/** Most levels of a metric name that nested objects may spell: `{"a":{"b":{"c":1}}}` is `a.b.c`. */
export const NESTING_MAX = 3;
/** Longest topic name or filter, in bytes of UTF-8 (what espMqttClient can hold). */
export const TOPIC_BYTES_MAX = 128;
/** Most levels of a topic name or filter. */
export const TOPIC_LEVELS_MAX = 6;
/** Longest time since boot that a device may state, in milliseconds: 31 years. */
export const UP_MS_MAX = 1e12;
/** A device time before 2020-01-01T00:00:00Z comes from a clock that was never set. Microseconds. */
export const CLOCK_SET_MICROS = 1_577_836_800_000_000;

/** Minor version of this contract, `p` of `hello`; the major one is the `v1` of the topics. */
export const CONTRACT_MINOR = 1;

/** Every code that `in/err` and quarantine may carry. */
export const REFUSAL_CODES = [
  'bad_json',
  'bad_cbor',
  'bad_senml',
  'bad_name',
  'bad_type',
  'bad_series',
  'too_deep',
  'too_big',
  'too_many',
  'too_old',
  'clock',
  'rate',
  'forbidden',
  'unknown_channel',
  'quota',
] as const;
/** Why something was refused, for firmware to act on. */
export type RefusalCode = (typeof REFUSAL_CODES)[number];

/** A message that was not accepted. `detail` is one line of at most 100 characters for a person. */
export class Refusal {
  readonly code: RefusalCode;
  readonly detail: string;
  constructor(code: RefusalCode, detail: string) {
    this.code = code;
    this.detail = detail.length > 100 ? detail.slice(0, 100) : detail;
  }
}

/**
 * Where the time of a reading comes from, as stored: the device's `ts`; receipt minus `age`, or the boot
 * plus `up`; receipt, for want of all; receipt, because the device's `ts` cannot be right; the device's
 * `ts` less what its clock is known to be ahead.
 */
export const QUALITY = { device: 0, age: 1, receipt: 2, serverTs: 3, corrected: 4 } as const;
/** One of the values of {@link QUALITY}. */
export type Quality = (typeof QUALITY)[keyof typeof QUALITY];
/** What {@link QUALITY} is called in the API and in metrics, by its value. */
export const QUALITY_NAMES = ['device', 'age', 'receipt', 'server_ts', 'corrected'] as const;

/** First word of the topics that a device may publish, after its prefix. */
export const UPLINK_CHANNELS = [
  'data',
  'senml',
  'event',
  'log',
  'hello',
  'ack',
  'cfg',
  'key',
] as const;
/** The downlink topics under `in/` that are retained: what `in/+` and `in/#` stand for. */
export const RETAINED_INBOX_TOPICS = ['in/cmd', 'in/cfg'] as const;
/** First words of a device's tree that only the broker or an integrator may publish. */
export const FOREIGN_CHANNELS = ['in', 'status', 'cmd', 'alert', 'do'] as const;

/**
 * What an integrator's key may do: read a kind of stream (`status` includes the organization's own
 * streams, `raw` what devices and broker tell each other) or, with `cmd:write`, give commands.
 */
export const SCOPES = [
  'data',
  'status',
  'event',
  'log',
  'alert',
  'cmd',
  'cmd:write',
  'raw',
] as const;
/** One of {@link SCOPES}. */
export type Scope = (typeof SCOPES)[number];
/** Most devices that an integrator's key can be limited to by name. */
export const KEY_DEVICES_MAX = 100;
/** Level of a topic where a device's name would be: streams of the organization itself. */
export const ORGANIZATION_STREAMS = '_';

/** Names that no organization may take, because the topic tree gives them a meaning. */
export const RESERVED_ORGANIZATIONS = ['me', 'devices', 'gateway', 'claim', 'sys', '_'] as const;
/** Members of a sample that are not metrics. No metric may be called so. */
export const RESERVED_MEMBERS = ['ts', 'age', 'up', 'dt', 'seq', 'values'] as const;

/** Shape of an organization's name. {@link RESERVED_ORGANIZATIONS} are excluded besides. */
export const ORGANIZATION_NAME = /^[a-z0-9][a-z0-9-]{1,23}$/;
/** Shape of a device's name; a MAC address fits. */
export const DEVICE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,47}$/;
/** Shape of a metric's name after flattening. {@link RESERVED_MEMBERS} are excluded besides. */
export const METRIC_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
/** Shape of an event's name. */
export const EVENT_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;

const reservedOrganizations: ReadonlySet<string> = new Set(RESERVED_ORGANIZATIONS);
const reservedMembers: ReadonlySet<string> = new Set(RESERVED_MEMBERS);

/** An organization's name: 2 to 24 lower-case letters, digits and `-`. Immutable. */
export const organizationNameSchema = z
  .string()
  .regex(ORGANIZATION_NAME)
  .refine((name) => !reservedOrganizations.has(name), 'is reserved');
/** A device's name: 1 to 48 letters, digits and `_ . : -`. Immutable. */
export const deviceNameSchema = z.string().regex(DEVICE_NAME);
/** A metric's name: 1 to 64 letters, digits and `_ . -`, a letter first. */
export const metricNameSchema = z
  .string()
  .regex(METRIC_NAME, 'bad_name')
  .refine((name) => !reservedMembers.has(name), 'bad_name');
