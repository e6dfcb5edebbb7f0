import { Buffer } from 'node:buffer';
import { z } from 'zod';
import { METRIC_NAME, Refusal, SAMPLE_METRICS_MAX, type RefusalCode } from './contract.ts';
import { withoutNulls } from './json-object.ts';
import { readJson } from './json-text.ts';
import { shown } from './metric-name.ts';

/** Largest payload of channel `hello`, in bytes: 64 units of metrics with the longest names have room. */
export const HELLO_BYTES_MAX = 8192;
/** Longest text of a `hello`, in bytes: what `esp_app_desc_t` holds. */
export const HELLO_TEXT_BYTES_MAX = 31;
/** Longest unit code, in bytes. */
export const UNIT_BYTES_MAX = 15;
/** States of an image that `hello` may name. */
export const OTA_STATES = ['new', 'pending', 'valid', 'invalid', 'aborted'] as const;
/** Longest planned time between contacts, in seconds: a year. */
export const SLEEP_S_MAX = 31_622_400;

const UINT32_MAX = 4_294_967_295;
/** Largest remaining length of MQTT, and its fixed header. */
const MQTT_PACKET_BYTES_MAX = 268_435_460;
/** Below this not even the greeting fits. */
const CLIENT_PACKET_BYTES_MIN = 64;

const code = (refusal: RefusalCode): RefusalCode => refusal;
const textUpTo = (bytesMax: number) =>
  z
    .string()
    .max(bytesMax, code('too_big'))
    .refine((text) => Buffer.byteLength(text) <= bytesMax, code('too_big'))
    .refine((text) => !/\p{Cc}|\p{Surrogate}/u.test(text), code('bad_type'));
const word = textUpTo(HELLO_TEXT_BYTES_MAX).exactOptional();
const integer = (min: number, max: number) => z.int().min(min).max(max).exactOptional();

const membersSchema = z.object({
  fw: word.describe('Version of the firmware, `esp_app_desc_t.version`.'),
  hw: word.describe('Chip.'),
  mdl: word.describe('Model, `esp_app_desc_t.project_name`.'),
  mps: integer(CLIENT_PACKET_BYTES_MIN, MQTT_PACKET_BYTES_MAX).describe(
    'Largest MQTT packet that the client can receive, in bytes. Until it is said it is taken as 256.',
  ),
  boot: integer(0, UINT32_MAX).describe('Boot counter, kept in flash.'),
  last: integer(0, UINT32_MAX).describe('Id of the last command taken; 0: none yet.'),
  cfg: integer(0, Number.MAX_SAFE_INTEGER).describe(
    'Version of the configuration that is applied; 0: none.',
  ),
  sleep: integer(0, SLEEP_S_MAX).describe('Planned seconds between contacts; 0: always on.'),
  rst: z
    .union([textUpTo(HELLO_TEXT_BYTES_MAX), z.int().min(0).max(255)])
    .exactOptional()
    .describe('Reset reason: its name, or the number that `esp_reset_reason` returns.'),
  ota: z
    .enum(OTA_STATES)
    .exactOptional()
    .describe('State of the running image, as `esp_ota_get_state_partition` says.'),
  up: integer(0, Number.MAX_SAFE_INTEGER).describe('Milliseconds since boot, echoed.'),
  p: integer(0, 65_535).describe('Minor version of this contract that the firmware is made for.'),
  u: z
    .record(z.string().regex(METRIC_NAME, code('bad_name')), textUpTo(UNIT_BYTES_MAX))
    .refine((units) => Object.keys(units).length <= SAMPLE_METRICS_MAX, code('too_many'))
    .transform(withoutPrototype)
    .exactOptional()
    .describe('Units by metric, as codes of RFC 8428 and RFC 8798.'),
});

/** What a device said of itself. Members it did not say are absent. */
export type Hello = z.infer<typeof membersSchema>;

/**
 * The payload of channel `hello` as a JSON value. Unknown members are ignored; null counts as not said.
 * The message of an issue is a RefusalCode; an issue of zod's own means `bad_type`.
 */
export const helloSchema = z.preprocess(withoutNulls, membersSchema);

const codes: ReadonlySet<string> = new Set<RefusalCode>([
  'bad_type',
  'bad_name',
  'too_big',
  'too_many',
]);

/**
 * Decodes a message of channel `hello`. No payload is the same as `{}`: the device says nothing and
 * wants a fresh greeting. Never throws.
 * @returns a {@link Refusal} that names the member at fault.
 */
export function decodeHello(payload: Buffer): Hello | Refusal {
  if (payload.length === 0) return {};
  if (payload.length > HELLO_BYTES_MAX) {
    return new Refusal('too_big', `${payload.length} bytes, ${HELLO_BYTES_MAX} allowed`);
  }
  const value = readJson(payload);
  if (value instanceof Refusal) return value;
  const { success, data, error } = helloSchema.safeParse(value);
  return success ? data : refusalOf(error.issues[0]);
}

/** Tells a {@link Refusal} from a hello. */
export function isHelloRefusal(outcome: Hello | Refusal): outcome is Refusal {
  return outcome instanceof Refusal;
}

function refusalOf(issue: z.core.$ZodIssue | undefined): Refusal {
  const [member, metric] = issue?.path ?? [];
  if (issue === undefined || member === undefined) {
    return new Refusal('bad_type', 'the payload is not an object');
  }
  const name = metric === undefined ? String(member) : `${String(member)} ${shown(String(metric))}`;
  if (issue.code === 'invalid_key') return new Refusal('bad_name', `${name}: not a metric name`);
  if (!codes.has(issue.message)) return new Refusal('bad_type', `${name}: ${issue.message}`);
  return new Refusal(issue.message as RefusalCode, `${name}: ${FAULTS[issue.message] ?? ''}`);
}

const FAULTS: Readonly<Record<string, string>> = {
  bad_type: 'not a text of one line',
  bad_name: 'not a metric name',
  too_big: 'too long',
  too_many: `more than ${SAMPLE_METRICS_MAX} metrics`,
};

/** Metrics may be called `constructor`: looking one up must not find what every object has. */
function withoutPrototype(units: Record<string, string>): Record<string, string> {
  return Object.assign(Object.create(null) as Record<string, string>, units);
}
