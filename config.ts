import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { z } from 'zod';
import { withoutValue } from './config-faults.ts';
import { commandSettings } from './config-commands.ts';
import { ruleSettings } from './config-rules.ts';
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
  TLS_CLIENT_CA_FILE: optionalText.describe(
    'CA in PEM for client certificates, an alternative to keys: common name organization/device. Empty: none are asked for.',
  ),
  TLS_CLIENT_CRL_FILE: optionalText.describe(
    'Revoked client certificates in PEM, a list of every CA in their chain. An expired list refuses all.',
  ),
  TLS_RELOAD_S: count(0, 86_400)
    .default(10)
    .describe('How often the TLS files are looked at for changes. 0: never.'),
  PROXY_PROTOCOL_FROM: optionalText
    .refine(isAddressList)
    .describe(
      'Addresses or networks (10.0.0.0/8, fd00::/8) of proxies. MQTT from them must begin with a PROXY protocol header of version 2, and their X-Forwarded-For is believed.',
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
  ADDRESS_UNAUTHENTICATED_MAX: count(0, 1_000_000)
    .default(500)
    .describe('MQTT connections at once from one address that have no CONNACK yet. 0: no limit.'),
  ADDRESS_CONNECTS_PER_S: count(0, 1_000_000)
    .default(200)
    .describe(
      'New MQTT connections a second from one address; a burst may be ten times that. 0: no limit.',
    ),
  LOGIN_FAILURES_MAX: count(0, 1_000_000)
    .default(50)
    .describe(
      'Different wrong keys from one address within LOGIN_BAN_S before it is banned. 0: no delays and no bans.',
    ),
  LOGIN_BAN_S: count(1, 86_400)
    .default(600)
    .describe('How long an address stays banned, and over how long failures count.'),
  CONNECT_DEADLINE_S: count(1, 300)
    .default(10)
    .describe(
      'A connection without CONNACK is closed after this time, PROXY header and TLS handshake included.',
    ),
  PACKET_BYTES_MAX: count(256, 16_777_216)
    .default(65_536)
    .describe('Largest MQTT packet after CONNACK. Before it the limit is 4096.'),
  DEVICE_CONNECTS_PER_MIN: count(0, 1_000_000)
    .default(60)
    .describe(
      'Connects a minute of one device or integrator key; as many may come at once. More are answered with CONNACK 3. 0: no limit.',
    ),
  DEVICE_MESSAGES_PER_S: count(0, 1_000_000)
    .default(20)
    .describe(
      'Telemetry messages a second from one device; a burst may be five times that. 0: no limit.',
    ),
  DEVICE_POINTS_PER_S: count(0, 10_000_000)
    .default(1000)
    .describe('Values a second from one device; a burst may be five times that. 0: no limit.'),
  DEVICE_LOG_BYTES_PER_S: count(0, 1_000_000_000)
    .default(1024)
    .describe(
      'Bytes a second that one device may log; a burst may be five times that. 0: no limit.',
    ),
  ORGANIZATION_MESSAGES_PER_S: count(0, 10_000_000)
    .default(20_000)
    .describe(
      'Telemetry messages a second from all devices of an organization, shared out evenly when there are more; a burst may be five times that. The default is one message a second from CONNECTIONS_MAX devices. 0: no limit.',
    ),
  ADDRESS_MESSAGES_PER_S: count(0, 10_000_000)
    .default(0)
    .describe(
      'Telemetry messages a second from one remote address, as ORGANIZATION_MESSAGES_PER_S. A whole fleet behind one router has one address. 0: no limit.',
    ),
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
  INTEGRATOR_KEYS_MAX: count(0, 100_000)
    .default(100)
    .describe('Integrator keys of one organization that are neither revoked nor expired.'),
  DEVICE_EVENTS_QUEUE_MAX: count(100, 1_000_000)
    .default(10_000)
    .describe(
      'Connects, disconnects and refusals that may wait in memory to be written; more are counted and dropped.',
    ),
  DEVICE_EVENTS_PER_DEVICE_MAX: count(1, 1_000_000)
    .default(1000)
    .describe('Events kept for one device; the oldest go first.'),
  DEVICE_EVENTS_UNKNOWN_MAX: count(1, 10_000_000)
    .default(100_000)
    .describe(
      'Events kept of connections that no device stands behind, of all addresses together.',
    ),
  DEVICE_EVENT_AGE_MAX_D: count(1, 3650).default(30).describe('Days that an event is kept.'),
  READING_AGE_MAX_D: count(1, 3650)
    .default(30)
    .describe('Readings older than this many days go to quarantine as too_old.'),
  RETENTION_RAW_D: count(1, 36_500)
    .default(30)
    .describe(
      'Days that readings are kept, and the most that an organization may ask for. At least READING_AGE_MAX_D.',
    ),
  RETENTION_1M_D: count(1, 36_500)
    .default(90)
    .describe('The same for aggregates of a minute. At least RETENTION_RAW_D.'),
  RETENTION_1H_D: count(1, 36_500)
    .default(365)
    .describe('The same for aggregates of an hour. At least RETENTION_1M_D.'),
  RETENTION_1D_D: count(1, 36_500)
    .default(3650)
    .describe('The same for aggregates of a day. At least RETENTION_1H_D.'),
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
  DEVICE_QUEUE_PERCENT: count(1, 100)
    .default(12)
    .describe(
      'Part of QUEUE_ROWS_MAX and of QUEUE_BYTES_MAX that one device may fill, so that none fills the queue for all.',
    ),
  SPOOL_BYTES_MAX: count(0, 1_099_511_627_776)
    .default(1_073_741_824)
    .describe(
      'Bytes on disk, below DATA_DIR/spool, of messages that wait for the database. 0: no spool; acknowledgements are held back instead.',
    ),
  SPOOL_SEGMENT_BYTES: count(65_536, 1_073_741_824)
    .default(16_777_216)
    .describe('Size of one file of the spool; at most a quarter of SPOOL_BYTES_MAX is used.'),
  SPOOL_AFTER_MS: count(10, 600_000)
    .default(1000)
    .describe('A message that has waited this long for COMMIT goes to the spool.'),
  QUARANTINE_ROWS_PER_DEVICE_MAX: count(1, 1_000_000)
    .default(100)
    .describe('Messages kept in quarantine for one device; the oldest go first.'),
  QUARANTINE_DEVICE_ROWS_MAX: count(1, 100_000_000)
    .default(100_000)
    .describe(
      'Messages kept of one device while it is in quarantine as a whole; the oldest go first.',
    ),
  QUARANTINE_AGE_MAX_D: count(1, 3650)
    .default(7)
    .describe('Days that a message stays in quarantine.'),
  EVENT_AGE_MAX_D: count(1, 3650)
    .default(90)
    .describe('Days that an event of a device is kept after its receipt.'),
  LOG_AGE_MAX_D: count(1, 3650).default(7).describe('Days that a log line of a device is kept.'),
  KEY_SESSIONS_MAX: count(0, 10_000)
    .default(20)
    .describe('Persistent sessions of one integrator key.'),
  SESSIONS_MAX: count(0, 1_000_000)
    .default(10_000)
    .describe('Sessions kept on disk for clients that connect without clean session.'),
  SESSION_AGE_MAX_D: count(1, 3650)
    .default(7)
    .describe('Days that a session is kept whose client stays away.'),
  SESSION_QUEUE_MESSAGES_MAX: count(1, 1_000_000)
    .default(10_000)
    .describe('Messages that wait on disk for the client of one session; the oldest go first.'),
  SESSION_QUEUE_BYTES_MAX: count(1024, 17_179_869_184)
    .default(16_777_216)
    .describe('Bytes of topics and payloads that wait on disk for the client of one session.'),
  SESSION_QUEUE_AGE_MAX_H: count(1, 87_600)
    .default(24)
    .describe('Hours that a message waits on disk for the client of a session.'),
  RETAINED_MAX: count(0, 100_000_000)
    .default(1_000_000)
    .describe('Retained messages; one of a new topic beyond it is passed on and not kept.'),
  SUBSCRIBER_QUEUE_MESSAGES_MAX: count(1, 1_000_000)
    .default(1000)
    .describe(
      'Messages that wait in memory for one connection that reads too slowly. Beyond it QoS 0 is dropped and counted; for QoS 1 without a persistent session the connection is closed. Telemetry may take four fifths.',
    ),
  SUBSCRIBER_QUEUE_BYTES_MAX: count(1024, 1_073_741_824)
    .default(1_048_576)
    .describe('The same in bytes.'),
  SUBSCRIBERS_QUEUE_BYTES_MAX: count(65_536, 17_179_869_184)
    .default(268_435_456)
    .describe('Bytes that wait in memory for all connections together.'),
  SUBSCRIBER_IN_FLIGHT_MAX: count(1, 65_535)
    .default(100)
    .describe(
      'Messages at QoS 1 that one connection may be sent before it acknowledges the first.',
    ),
  SUBSCRIBER_STUCK_S: count(1, 3600)
    .default(60)
    .describe('A connection that takes nothing of what it is sent for this long is closed.'),
  HTTP_INGEST_TIMEOUT_S: count(1, 120)
    .default(15)
    .describe(
      'Longest wait of a message over HTTP for its COMMIT; then it is answered with 503, and may be stored yet.',
    ),
  IMPORTS_MAX: count(1, 100)
    .default(4)
    .describe('Files imported at once; of one organization there is one at most.'),
  IMPORT_BYTES_MAX: count(1, 1_099_511_627_776)
    .default(10_737_418_240)
    .describe('Largest file of an import.'),
  IMPORT_AGE_MAX_D: count(1, 36_500)
    .default(3650)
    .describe(
      'Oldest reading, in days, that an import or an admin over HTTP may bring; never older than readings are kept (RETENTION_RAW_D).',
    ),
  IMPORT_REFUSALS_MAX: count(0, 1_000_000)
    .default(10_000)
    .describe('Refused lines kept of one import; further ones are only counted.'),
  PAGE_ROWS_MAX: count(1, 100_000)
    .default(10_000)
    .describe('Largest "limit" of an HTTP list. A page says with "next" whether more follows.'),
  SHUTDOWN_TIMEOUT_S: count(1, 600)
    .default(10)
    .describe(
      'Longest wait at shutdown for what is under way; then each part has one second more, and an embedded database that hangs up to 25. What is not stored by then stays unacknowledged.',
    ),
  ...ruleSettings,
  ...commandSettings,
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
  const faults = [
    ...crossFaults(settings),
    ...(parsed.success ? retentionFaults(parsed.data) : []),
  ];
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

/** Addresses and networks with commas between, as `PROXY_PROTOCOL_FROM` has them. */
function isAddressList(text: string): boolean {
  const entries = text.split(/[\s,]+/).filter((entry) => entry !== '');
  return entries.every((entry) => {
    const [address = '', prefix, ...more] = entry.split('/');
    const bitsMax = { 0: -1, 4: 32, 6: 128 }[isIP(address)] ?? -1;
    if (prefix === undefined) return bitsMax > 0;
    return /^\d{1,3}$/.test(prefix) && Number(prefix) <= bitsMax && more.length === 0;
  });
}

/** Faults of several settings together, and those that the schema cannot tell without a value. */
function crossFaults(settings: Record<string, string>): string[] {
  const { TLS_CERT_FILE = '', TLS_KEY_FILE = '', DATABASE_URL = '' } = settings;
  const { TLS_CLIENT_CA_FILE = '', TLS_CLIENT_CRL_FILE = '' } = settings;
  const faults: string[] = [];
  if ((TLS_CERT_FILE === '') !== (TLS_KEY_FILE === '')) {
    faults.push('TLS_CERT_FILE, TLS_KEY_FILE: set both or neither');
  }
  if (TLS_CLIENT_CA_FILE !== '' && TLS_CERT_FILE === '') {
    faults.push('TLS_CLIENT_CA_FILE: needs TLS_CERT_FILE and TLS_KEY_FILE');
  }
  if (TLS_CLIENT_CRL_FILE !== '' && TLS_CLIENT_CA_FILE === '') {
    faults.push('TLS_CLIENT_CRL_FILE: needs TLS_CLIENT_CA_FILE');
  }
  if (DATABASE_URL !== '' && !/^postgres(ql)?:\/\//.test(DATABASE_URL)) {
    faults.push('DATABASE_URL: must start with postgres:// or postgresql://');
  }
  return faults;
}

/**
 * A reading that is taken in must find its day still there, and an aggregate what it is made of: in
 * this order none may be shorter than the one before it.
 */
const RETENTION_ORDER = [
  'READING_AGE_MAX_D',
  'RETENTION_RAW_D',
  'RETENTION_1M_D',
  'RETENTION_1H_D',
  'RETENTION_1D_D',
] as const;

function retentionFaults(config: Config): string[] {
  return RETENTION_ORDER.flatMap((key, index) => {
    const finer = RETENTION_ORDER[index - 1];
    if (finer === undefined || config[key] >= config[finer]) return [];
    return [`${key}: must be at least ${finer}`];
  });
}
