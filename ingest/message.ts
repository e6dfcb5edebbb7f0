import type { Refusal, RefusalCode } from '../firmware-protocol/contract.ts';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import type { Arrival, NewestTimes, TimeBasis } from '../firmware-protocol/time.ts';
import type { Lane } from './lane.ts';
import type { DropReason } from './metrics.ts';
import type { DatedOccurrence } from './occurrence-rows.ts';

/** Where a message came from: what ingest may do with the connection. */
export interface Source {
  /** Tells the device on `in/err` why a message was refused. */
  report(code: RefusalCode, channel: string, detail: string): void;
  /** Called when a message that had to wait before the queue has gone on. */
  resume(): void;
  /** Ends the connection; what is held of it stays unacknowledged. */
  close(reason: DropReason): void;
}

/**
 * How a payload is read. `data`: a sample, a batch or a series. `scalar`: a value of one metric. `senml`:
 * a pack of RFC 8428. `event`: something happened. `log`: lines of text. `refused`: not at all.
 */
export type Channel = 'data' | 'scalar' | 'senml' | 'event' | 'log' | 'refused';

/** What a device published, before it is looked at. */
export interface Publication {
  readonly source: Source;
  readonly channel: Channel;
  /** The metric of a scalar, the name of an event, else null. */
  readonly name: string | null;
  /** Why the broker refused the message; then it goes to quarantine unread. */
  readonly refusal: Refusal | null;
  /** Whether it goes to quarantine because its device was there when it came; of what is fed in again. */
  readonly isKeptApart?: boolean;
  /** The channel as the device is told of it on `in/err`. */
  readonly word: string;
  /** As published, for quarantine. */
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  /** Whether anybody wants what {@link acknowledge} hands on; asked once, when rows are made of it. */
  readonly isWanted: () => boolean;
  /**
   * Called once, when it is stored: after COMMIT, or, while the database is away, once it is synced to the
   * spool. In order of arrival. Never called for what was not stored.
   * @param canonical the message as integrators see it (`canonicalPayload`); null when nobody wants it,
   * when nothing of it was stored as readings (quarantine, no values), and for a copy told by its `seq`.
   * A copy told by its time alone is handed on again: at least once.
   * @param keptApart why it is in quarantine, or a part of it, as far as is known; null when it is not.
   */
  readonly acknowledge: (canonical: Buffer | null, keptApart: KeptApart | null) => void;
}

/**
 * A code of the wire contract; `not_stored`: the database refused it; `device_quarantined`: the device is
 * in quarantine as a whole.
 */
export type KeptApartCode = RefusalCode | 'not_stored' | 'device_quarantined';

/** Why a message is in quarantine, or a part of it. */
export interface KeptApart {
  readonly code: KeptApartCode;
  readonly detail: string;
}

/** How a message that comes again was received the first time: it is given the same times. */
export interface Receipt {
  /** Microseconds since 1970. */
  readonly receivedMicros: number;
  readonly basis: TimeBasis;
}

/** A publication on its way through the pipeline. */
export interface Message extends Arrival {
  readonly publication: Publication;
  readonly lane: Lane;
  /** Wall clock at arrival, milliseconds since 1970. */
  readonly arrivedMs: number;
  /** Microseconds since 1970, unique and rising for each device. Set once the payload was read. */
  receivedMicros: number;
  /** What was known of the device's clock. Set once the payload was read. */
  basis: TimeBasis;
  /** Set once the payload was read. */
  newest: NewestTimes;
  /** Set once the payload was read. */
  outcome: Decoded | Refusal | null;
  /** Which rates were asked, so that a message that waits for something else pays once. */
  isCounted: boolean;
  isLogCounted: boolean;
  sharedRatesPassed: number;
  arePointsCounted: boolean;
  /** Set when the message goes to quarantine; some of its readings may be stored all the same. */
  quarantine: (KeptApart & { readonly id: string }) | null;
  /** Of an event or a log what is to be stored of it; null before it is dated, and of readings. */
  dated: DatedOccurrence | null;
  /** For {@link Publication.acknowledge}. */
  canonical: Buffer | null;
  /** Whether its `seq` says that all of it is stored already; it has no rows then. */
  isDuplicate: boolean;
  /** Rows in the batch. */
  rowCount: number;
}
