import { existsSync } from 'node:fs';
import { z } from 'zod';
import { ConfigInvalidError, FileUnusableError } from './errors.ts';

const port = z.coerce.number().int().min(0).max(65_535);
const count = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
const optionalText = z.string().trim().default('');

/**
 * Every setting of Puback, by the name of its environment variable. The unit stands last in the name.
 * `.env.example` and the README's table are made from this object (`npm run config:docs`).
 */
export const configSchema = z.strictObject({
  MQTT_HOST: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe(
      'Address that MQTT listens on. Plain MQTT carries keys in clear: give it another address than loopback only inside a trusted network.',
    ),
  MQTT_PORT: port.default(1883).describe('Port of plain MQTT. 0: any free port.'),
  MQTTS_PORT: port
    .default(8883)
    .describe('Port of MQTT over TLS; on when TLS_CERT_FILE and TLS_KEY_FILE are set. 0: any.'),
  TLS_CERT_FILE: optionalText.describe('Certificate chain in PEM for MQTT over TLS.'),
  TLS_KEY_FILE: optionalText.describe(
    'Private key in PEM for MQTT over TLS. P-256 is the cheapest.',
  ),
  HTTP_HOST: z
    .string()
    .min(1)
    .default('127.0.0.1')
    .describe('Address that the HTTP API and MQTT over WebSocket (/mqtt) listen on.'),
  HTTP_PORT: port.default(8080).describe('Port of the HTTP API. 0: any free port.'),
  DATA_DIR: z
    .string()
    .min(1)
    .default('./data')
    .describe('Folder of the embedded database and of credentials.json.'),
  DATABASE_URL: optionalText.describe(
    'PostgreSQL 15 or newer, TimescaleDB welcome: postgres://user:password@host:5432/database. Empty: the embedded PostgreSQL.',
  ),
  DATABASE_CONNECTIONS_MAX: count(2, 200)
    .default(8)
    .describe('Database connections for lookups and the API; the writer has one more of its own.'),
  DATABASE_TIMEOUT_S: count(1, 600)
    .default(10)
    .describe(
      'A statement or a connect that takes longer is given up, and retried where it must be.',
    ),
  LOG_LEVEL: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .default('info')
    .describe('Least level of the JSON lines on stderr.'),
  CONNECTIONS_MAX: count(1, 1_000_000)
    .default(20_000)
    .describe('MQTT connections at once; more are closed before CONNECT.'),
  ADDRESS_CONNECTIONS_MAX: count(0, 1_000_000)
    .default(1000)
    .describe('MQTT connections at once from one address. 0: no limit.'),
  CONNECT_DEADLINE_S: count(1, 300)
    .default(10)
    .describe('A connection without CONNACK is closed after this time, TLS handshake included.'),
  PACKET_BYTES_MAX: count(256, 16_777_216)
    .default(65_536)
    .describe('Largest MQTT packet after CONNACK. Before it the limit is 4096.'),
  DEVICE_MESSAGES_PER_S: count(0, 1_000_000)
    .default(20)
    .describe(
      'Telemetry messages a second from one device; a burst may be five times that. 0: no limit.',
    ),
  DEVICE_POINTS_PER_S: count(0, 10_000_000)
    .default(1000)
    .describe('Values a second from one device; a burst may be five times that. 0: no limit.'),
  DEVICE_METRICS_MAX: count(1, 10_000)
    .default(256)
    .describe('Distinct metrics of one device. A message with one more goes to quarantine.'),
  DEVICE_HELD_BYTES_MAX: count(4096, 1_073_741_824)
    .default(1_048_576)
    .describe(
      'Payload bytes of one device that may wait for the database before its connection is closed.',
    ),
  HELD_BYTES_MAX: count(65_536, 17_179_869_184)
    .default(268_435_456)
    .describe(
      'Payload bytes of all devices that may wait before the queue; beyond it connections are closed.',
    ),
  ORGANIZATION_METRICS_MAX: count(1, 1_000_000)
    .default(10_000)
    .describe('Distinct metric names of one organization.'),
  ORGANIZATION_DEVICES_MAX: count(1, 10_000_000)
    .default(100_000)
    .describe('Devices of one organization.'),
  READING_AGE_MAX_D: count(1, 3650)
    .default(30)
    .describe('Readings older than this many days go to quarantine as too_old.'),
  READING_AHEAD_MAX_S: count(1, 86_400)
    .default(300)
    .describe('A time further ahead than this is replaced by the time of receipt.'),
  BATCH_ROWS_MAX: count(1, 1_000_000)
    .default(20_000)
    .describe('Rows that one COPY carries at most.'),
  BATCH_LINGER_MS: count(0, 50)
    .default(1)
    .describe('Longest wait for more rows under load. An idle writer commits at once.'),
  QUEUE_ROWS_MAX: count(100, 10_000_000)
    .default(100_000)
    .describe('Rows that may wait in memory for COMMIT. Beyond it acknowledgements are held back.'),
  QUEUE_BYTES_MAX: count(65_536, 17_179_869_184)
    .default(67_108_864)
    .describe('Payload bytes that may wait in memory for COMMIT.'),
  QUARANTINE_ROWS_PER_DEVICE_MAX: count(1, 1_000_000)
    .default(100)
    .describe('Messages kept in quarantine for one device; the oldest go first.'),
  QUARANTINE_AGE_MAX_D: count(1, 3650)
    .default(7)
    .describe('Days that a message stays in quarantine.'),
  PAGE_ROWS_MAX: count(1, 100_000)
    .default(10_000)
    .describe('Largest "limit" of an HTTP list. A page says with "next" whether more follows.'),
  SHUTDOWN_TIMEOUT_S: count(1, 600)
    .default(10)
    .describe(
      'Longest wait at shutdown for what is under way. What is not stored by then stays unacknowledged.',
    ),
});

/** All settings, checked and frozen. */
export type Config = Readonly<z.infer<typeof configSchema>>;

/**
 * Reads the settings from environment variables. Unknown variables are left alone; an empty one counts
 * as not set.
 * @throws {ConfigInvalidError} with every fault at once, by key and without values.
 */
export function loadConfig(environment: Record<string, string | undefined>): Config {
  const given = Object.keys(configSchema.shape)
    .filter((key) => environment[key] !== undefined && environment[key]?.trim() !== '')
    .map((key) => [key, environment[key]]);
  const settings = Object.fromEntries(given) as Record<string, string>;
  const parsed = configSchema.safeParse(settings);
  const faults = crossFaults(settings);
  if (parsed.success && faults.length === 0) return Object.freeze(parsed.data);
  const issues = parsed.error?.issues ?? [];
  throw new ConfigInvalidError([
    ...issues.map((issue) => `${issue.path.join('.')}: ${withoutValue(issue)}`),
    ...faults,
  ]);
}

/**
 * Adds what a file `.env` in the working folder says to the environment; what is set already wins.
 * @throws {FileUnusableError} when there is such a file and it cannot be read.
 */
export function loadEnvFile(): void {
  if (!existsSync('.env')) return;
  try {
    process.loadEnvFile('.env');
  } catch (cause) {
    throw new FileUnusableError('the settings file', '.env', cause);
  }
}

/** Faults of several settings together, and those that the schema cannot tell without a value. */
function crossFaults(settings: Record<string, string>): string[] {
  const { TLS_CERT_FILE = '', TLS_KEY_FILE = '', DATABASE_URL = '' } = settings;
  const faults: string[] = [];
  if ((TLS_CERT_FILE === '') !== (TLS_KEY_FILE === '')) {
    faults.push('TLS_CERT_FILE, TLS_KEY_FILE: set both or neither');
  }
  if (DATABASE_URL !== '' && !/^postgres(ql)?:\/\//.test(DATABASE_URL)) {
    faults.push('DATABASE_URL: must start with postgres:// or postgresql://');
  }
  return faults;
}

/** zod's own texts may quote what was received (a URL with a password in it); these do not. */
function withoutValue(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'too_small':
      return `must be at least ${issue.minimum}`;
    case 'too_big':
      return `must be at most ${issue.maximum}`;
    case 'invalid_value':
      return `must be one of ${issue.values.join(', ')}`;
    case 'invalid_type':
      return issue.expected === 'int' ? 'must be a whole number' : `must be a ${issue.expected}`;
    default:
      return 'is not valid';
  }
}
