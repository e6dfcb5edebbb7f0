import type { ConnectionState, Silence } from '../compiled-rule.ts';
import type { Outages } from './outages.ts';

const SECOND_MICROS = 1_000_000;
/** Shortest deadline that is found by itself. */
export const AUTO_MICROS_MIN = 10 * SECOND_MICROS;
/** How many usual gaps may pass without a reading. */
const GAPS = 3;

/** What is known of how often a device sends. */
export interface Interval {
  /** Between two readings, as was declared for the device; null when it was not. */
  readonly intervalMicros: number | null;
  /** Seconds between contacts that the device has announced; 0: always on. */
  readonly sleepS: number;
  /** Null: not known yet. */
  readonly gapP99Micros: number | null;
}

/**
 * The longest silence that is not worth a word. Of `auto`: three declared intervals; of a device that
 * sleeps as long as presence waits, 2.5 sleeps and a minute; else three of its usual gaps, and never less
 * than {@link AUTO_MICROS_MIN}. Null while nothing is known of the device: it has no deadline then.
 */
export function afterMicrosOf(asked: number | 'auto', interval: Interval): number | null {
  if (asked !== 'auto') return asked;
  if (interval.intervalMicros === null && interval.sleepS > 0) {
    return (2.5 * interval.sleepS + 60) * SECOND_MICROS;
  }
  const gapMicros = interval.intervalMicros ?? interval.gapP99Micros;
  return gapMicros === null ? null : Math.max(GAPS * gapMicros, AUTO_MICROS_MIN);
}

/** A device that has sent no reading since `sinceMicros`. All times in microseconds since 1970. */
export interface Quiet {
  /** Its last reading; of a device that never sent one its first contact. */
  readonly sinceMicros: number;
  readonly connection: ConnectionState;
  /** When its newest connection began; -Infinity when there was none. */
  readonly connectedMicros: number;
  /** When the connection became what it is. */
  readonly connectionMicros: number;
  /** Its last message that could not be stored; -Infinity: none since `sinceMicros`. */
  readonly refusedMicros: number;
}

/** How long a silence may be. */
export interface Patience {
  readonly afterMicros: number;
  /** Devices have so long to come back to us behind an outage of ours. */
  readonly graceMicros: number;
  readonly outages: Pick<Outages, 'past' | 'isDown' | 'downtimeSince'>;
}

/**
 * When a device becomes silent if nothing comes of it. Without an outage of ours this is `afterMicros`
 * behind its last reading. An outage that begins earlier puts it off until the device has had `afterMicros`
 * again: counted from the end of the outage, or from its new connection; a device that has not come back
 * has at least the grace. What is put off ends where we have listened for twice `afterMicros` and the grace
 * altogether: a program that restarts each night finds devices that are silent for days.
 */
export function silenceDeadline(quiet: Quiet, patience: Patience): number {
  const { afterMicros, graceMicros, outages } = patience;
  const { sinceMicros, connectedMicros, connection } = quiet;
  const contactMicros = Math.max(connectedMicros, quiet.refusedMicros);
  let deadline = sinceMicros + afterMicros;
  for (const { downMicros, backMicros } of outages.past) {
    if (backMicros <= sinceMicros) continue;
    if (downMicros > deadline) break;
    const isBack = contactMicros >= backMicros || connection === 'online';
    const putOff = isBack
      ? Math.max(backMicros, connectedMicros) + afterMicros
      : backMicros + Math.max(afterMicros, graceMicros);
    const downtime = outages.downtimeSince(sinceMicros, backMicros);
    const end = sinceMicros + downtime + 2 * afterMicros + graceMicros;
    deadline = Math.max(deadline, Math.min(putOff, end));
  }
  return deadline;
}

/** What a device is now, and when that may be something else although nothing comes of it. */
export interface Verdict {
  readonly silence: Silence | null;
  /** Infinity: never. */
  readonly nextMicros: number;
}

/**
 * The silence of a device. Pure. Before its deadline there is none. Behind it:
 *
 * - `garbage`: messages come that cannot be stored, one of them within the last `afterMicros`, and not
 *   before a connection ended that is missing now;
 * - `offline`: it is not connected, and it does not sleep either, or is overdue;
 * - `silent`: it is connected, or sleeps as it has announced, and sends nothing.
 */
export function judgeSilence(quiet: Quiet, patience: Patience, nowMicros: number): Verdict {
  const deadline = silenceDeadline(quiet, patience);
  if (nowMicros < deadline) return { silence: null, nextMicros: deadline };
  return kindOfSilence(quiet, patience.afterMicros, nowMicros);
}

/** What kind of silence it is, of a device that is silent. */
export function kindOfSilence(quiet: Quiet, afterMicros: number, nowMicros: number): Verdict {
  const { connection, refusedMicros, connectionMicros } = quiet;
  const isGone = connection === 'offline' || connection === 'never';
  const wornMicros = refusedMicros + afterMicros;
  if (nowMicros <= wornMicros && !(isGone && refusedMicros < connectionMicros)) {
    return { silence: 'garbage', nextMicros: wornMicros };
  }
  return { silence: isGone ? 'offline' : 'silent', nextMicros: Infinity };
}

/**
 * Until when the missing connection of a device says nothing: it ended with an outage of ours, and the
 * device has the grace to come back. -Infinity: it says that the device is offline.
 */
export function mayComeBackUntil(quiet: Quiet, { outages, graceMicros }: Patience): number {
  const backMicros = outages.past.at(-1)?.backMicros ?? -Infinity;
  const { sinceMicros, connectedMicros, refusedMicros } = quiet;
  const isBack = Math.max(sinceMicros, connectedMicros, refusedMicros) >= backMicros;
  return isBack ? -Infinity : backMicros + graceMicros;
}
