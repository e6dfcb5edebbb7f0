/**
 * What to change, by the code of what went wrong with a connection or a message, in one sentence for
 * the person who reads the diagnostics of a device. A code keeps its meaning for ever; the sentences
 * may become better.
 */
export const DIAGNOSIS = {
  // Messages: what in/err and quarantine say.
  bad_json:
    'The payload is not JSON: look at it in quarantine and mend how the firmware prints it.',
  bad_cbor:
    'The payload begins as CBOR and is none that is read: no tags, byte strings or indefinite lengths, and names as texts.',
  bad_senml:
    'The payload is no SenML pack: an array of records with one value each; see docs/devices.md.',
  bad_name:
    'Name metrics and events [A-Za-z][A-Za-z0-9_.-]{0,63}, and not ts, age, up, dt, seq or values.',
  bad_type:
    'Send numbers, booleans, texts or null as values, and numbers as ts, age, up, dt and seq.',
  bad_series: 'In a series give dt, and all arrays the same length.',
  too_deep: 'Nest objects three names deep at most, or flatten them.',
  too_big: 'Split the message: the packet, the payload or a text is above its limit.',
  too_many: 'Send fewer samples or values in a message, and use fewer metric names.',
  too_old: 'Set the clock of the device, or raise READING_AGE_MAX_D if the readings are that old.',
  clock:
    'Set the clock of the device from "ts" of in/hello, or leave "ts" out and send "up" or "age".',
  rate: 'Send less often or in batches, or raise DEVICE_MESSAGES_PER_S and DEVICE_POINTS_PER_S, for logs DEVICE_LOG_BYTES_PER_S.',
  forbidden: 'Publish only under v1/me/, to a channel of devices.',
  unknown_channel:
    'Publish to a channel that this version reads: data, data/{metric}, senml, event/{name}, log, hello, ack, cfg, key.',
  quota:
    'Send less, or raise ORGANIZATION_MESSAGES_PER_S: the devices of the organization together send too much.',

  // CONNECT packets that were refused.
  key_malformed: 'The password is no key: copy all 46 characters again, with nothing around them.',
  key_unknown: 'No such key, or its secret is wrong: make a key for the device and flash it.',
  key_revoked: 'The key was revoked: make another one for the device and flash it.',
  key_expired: 'The key has reached its expiresAt: make another one.',
  device_disabled: 'The device is disabled: set "disabled" to false to let it in.',
  organization_suspended: 'The organization is suspended: ask whoever runs Puback.',
  identity_mismatch:
    "The user name is another device's: flash the key that belongs to it, or leave the user name out.",
  client_id_rejected: 'Give the client identifier at most 128 characters, or leave it empty.',
  will_refused: "Let the will's topic be one that the device may publish to, or connect without.",
  unavailable: 'Nothing: keys could not be looked up for a moment. Let the client try again.',
  sessions_max: 'Connect with clean session, or end sessions that nobody uses any more.',
  connect_rate:
    'It connects more often than DEVICE_CONNECTS_PER_MIN: back off between attempts, and look for two clients with one key.',
  address_banned:
    'Too many wrong keys came from this address: stop the client that has one, then wait for the ban to pass.',

  // Connections that ended.
  connect_deadline: 'Send CONNECT at once after connecting; look for a slow TLS handshake.',
  protocol_violation:
    'Use MQTT 3.1.1 and a client library that keeps to it; the detail says what broke.',
  packet_too_large:
    'Send smaller packets: up to 4096 bytes of CONNECT, then up to PACKET_BYTES_MAX.',
  hold_timeout:
    'Nothing in the device: the database was too slow to acknowledge. Look at its load.',
  held_bytes: 'Send less while acknowledgements are outstanding: keep fewer messages in flight.',
  errors: 'Mend the messages that are refused: more than 100 in a minute ended the connection.',
  revoked: 'The key, the device or the organization was taken out of service: see the key.',
  keep_alive:
    'Nothing came for one and a half times the keep alive: look at the radio, or raise keep alive.',
  connections_max: 'The server is full: raise CONNECTIONS_MAX, or find who holds connections open.',
  address_connections_max:
    'Too many connections from this address: raise ADDRESS_CONNECTIONS_MAX if many devices share it.',
  address_unauthenticated_max:
    'Too many connections from this address have not sent a valid CONNECT yet: look for a client that only connects.',
  address_rate:
    'Too many new connections from this address: let clients wait longer before they reconnect.',
  proxy_header: 'The PROXY header is missing or broken: let the proxy send version 2.',
  slow_subscriber: 'Read faster, subscribe to less, or divide the filters among several clients.',
  stuck_subscriber: 'The client did not read for too long: look for a callback that blocks.',
  taken_over:
    'The same identity connected again: normal after a lost connection, else see duplicate_identity.',
  duplicate_identity:
    'Two boards use one key, or one board two clients: give each a key of its own.',
  flapping:
    'The client comes and goes: look at its power and radio, and let it wait longer before it reconnects.',
  publish_forbidden: 'An integrator only reads: publish with the key of a device.',
  shutdown: 'Nothing: the server was stopped. Let the client connect again.',
  client_gone: 'The connection broke without DISCONNECT: look at power, radio and NAT timeouts.',
  client_left: 'Nothing: the client said DISCONNECT.',
  connected: 'Nothing: the client was let in.',
} as const;

/** What to change, of codes that quarantine alone knows: the device was not told. */
const QUARANTINE_DIAGNOSIS: Readonly<Record<string, string>> = {
  not_stored: 'Nothing in the device: the database refused the readings. See the detail.',
  device_quarantined:
    'Nothing: the device is in quarantine. Set "quarantined" to false, then send its messages again.',
};

/** A code of {@link DIAGNOSIS}. */
export type DiagnosisCode = keyof typeof DIAGNOSIS;

/** What to change for a code; null for one that this version does not know. */
export function findHint(code: string): string | null {
  if (Object.hasOwn(DIAGNOSIS, code)) return DIAGNOSIS[code as DiagnosisCode];
  return Object.hasOwn(QUARANTINE_DIAGNOSIS, code) ? (QUARANTINE_DIAGNOSIS[code] ?? null) : null;
}
