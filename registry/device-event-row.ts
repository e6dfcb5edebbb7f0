import { isIPv6, SocketAddress } from 'node:net';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';

/** What happened to a connection; `identity`: two peers with one key. */
export type DeviceEventKind = 'connect' | 'disconnect' | 'refusal' | 'identity';

/** Something that happened to a connection, as the broker tells it. */
export interface DeviceEvent {
  readonly kind: DeviceEventKind;
  /** A code of `DIAGNOSIS`. */
  readonly code: string;
  /** For a person: at most 100 characters are kept, without control characters. */
  readonly detail: string;
  /** The peer's IP address; `::ffff:192.0.2.1` counts as `192.0.2.1`. */
  readonly address: string;
  /** Null while nobody has proved whose connection it is. */
  readonly organizationId: number | null;
  /** Null for an integrator and while nobody has proved whose connection it is. */
  readonly deviceId: number | null;
  /** Public part of the key that was given, proved or not. */
  readonly keyId: string | null;
  readonly connectionNumber: number | null;
  readonly occurredAtMs: number;
}

/** A row of `device_event` that still changes in memory. */
export interface DeviceEventRow extends DeviceEvent {
  /** Sorts by time, and within a millisecond by the order of making. */
  readonly id: string;
  /** Equal events that it stands for. */
  count: number;
  lastOccurredAtMs: number;
  /** Of `count`, what the database knows. */
  countWritten: number;
  /** Equal events are added to this row until then. */
  readonly openUntil: number;
  isOpen: boolean;
}

const DETAIL_CHARS_MAX = 100;
const ADDRESS_CHARS_MAX = 45;
const PRINTABLE_ASCII = /^[ -~]*$/;
/** The year 2223; a UUID of version 7 holds a little more. */
const TIME_MS_MAX = 8e12;

/** Makes the rows of one program. */
export class DeviceEventRows {
  #lastMs = 0;
  #micros = 0;

  /** A row for an event, cleaned so that no text of a client makes the statement fail. */
  make(event: DeviceEvent, openUntil: number): DeviceEventRow {
    const { keyId } = event;
    const occurredAtMs = plainTime(event.occurredAtMs);
    this.#micros = occurredAtMs === this.#lastMs ? Math.min(999, this.#micros + 1) : 0;
    this.#lastMs = occurredAtMs;
    return {
      ...event,
      id: makeUuidV7(occurredAtMs, this.#micros),
      code: plainText(event.code),
      detail: plainText(event.detail),
      address: plainAddress(event.address),
      keyId: keyId === null ? null : plainText(keyId),
      occurredAtMs,
      count: 1,
      lastOccurredAtMs: occurredAtMs,
      countWritten: 0,
      openUntil,
      isOpen: openUntil > 0,
    };
  }
}

/** An IP address as rows have it: IPv4 in its own form, IPv6 as short as can be. */
export function plainAddress(text: string): string {
  if (!isIPv6(text)) return plainText(text).slice(0, ADDRESS_CHARS_MAX);
  const { address } = new SocketAddress({ address: text, family: 'ipv6' });
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}

/** A time that SQL takes, in whole milliseconds since 1970; now for one that is none. */
export function plainTime(timeMs: number): number {
  return timeMs > 0 && timeMs < TIME_MS_MAX ? Math.trunc(timeMs) : Date.now();
}

/**
 * The statement that writes rows. Again with the same rows it brings their counts up to date, so that
 * it may be repeated when nobody knows whether it was committed.
 */
export function insertRows(rows: readonly DeviceEventRow[]): {
  name: string;
  text: string;
  values: unknown[];
} {
  return {
    name: 'write_device_events',
    text: `INSERT INTO device_event
             (device_event_id, organization_id, device_id, occurred_at, last_occurred_at, kind,
              code, detail, count, address, key_id, connection_number)
           SELECT id, organization_id, device_id, to_timestamp(at / 1000.0),
                  to_timestamp(last_at / 1000.0), kind, code, detail, count, address, key_id, number
           FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::float8[], $5::float8[], $6::text[],
                       $7::text[], $8::text[], $9::int4[], $10::text[], $11::text[], $12::int8[])
             AS t (id, organization_id, device_id, at, last_at, kind, code, detail, count, address,
                   key_id, number)
           ON CONFLICT (device_event_id) DO UPDATE
             SET count = excluded.count, last_occurred_at = excluded.last_occurred_at`,
    values: [
      rows.map((row) => row.id),
      rows.map((row) => row.organizationId),
      rows.map((row) => row.deviceId),
      rows.map((row) => row.occurredAtMs),
      rows.map((row) => row.lastOccurredAtMs),
      rows.map((row) => row.kind),
      rows.map((row) => row.code),
      rows.map((row) => row.detail),
      rows.map((row) => row.count),
      rows.map((row) => row.address),
      rows.map((row) => row.keyId),
      rows.map((row) => row.connectionNumber),
    ],
  };
}

/** SQL takes neither U+0000 nor halves of surrogate pairs; a log none of the other controls. */
function plainText(text: string): string {
  const cut = text.length > DETAIL_CHARS_MAX ? text.slice(0, DETAIL_CHARS_MAX) : text;
  return PRINTABLE_ASCII.test(cut) ? cut : cut.replaceAll(/\p{Cc}|\p{Cs}/gu, '?');
}
