import type { Refusal, RefusalCode } from '../firmware-protocol/contract.ts';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import type { Lane } from './lane.ts';
import type { DropReason } from './metrics.ts';

/** Where a message came from: what ingest may do with the connection. */
export interface Source {
  /** Tells the device on `in/err` why a message was refused. */
  report(code: RefusalCode, channel: string, detail: string): void;
  /** Called when a message that had to wait before the queue has gone on. */
  resume(): void;
  /** Ends the connection; what is held of it stays unacknowledged. */
  close(reason: DropReason): void;
}

/** What a device published, before it is looked at. */
export interface Publication {
  readonly source: Source;
  /** `data`: a sample, a batch or a series. `scalar`: a value of `metric`. `refused`: by `refusal`. */
  readonly channel: 'data' | 'scalar' | 'refused';
  /** The metric of a scalar. */
  readonly metric: string | null;
  /** Why the broker refused the message; then it goes to quarantine unread. */
  readonly refusal: Refusal | null;
  /** The channel as the device is told of it on `in/err`. */
  readonly word: string;
  /** As published, for quarantine. */
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  /** Whether anybody wants what {@link acknowledge} hands on; asked once, when rows are made of it. */
  readonly isWanted: () => boolean;
  /**
   * Called once, after COMMIT, in order of arrival. Never called for what was not stored.
   * @param canonical the message as integrators see it (`canonicalPayload`); null when nobody wants it,
   * when nothing of it was stored as readings (quarantine, no values), and for a copy told by its `seq`.
   * A copy told by its time alone is handed on again: at least once.
   */
  readonly acknowledge: (canonical: Buffer | null) => void;
}

/** A publication on its way through the pipeline. */
export interface Message {
  readonly publication: Publication;
  readonly lane: Lane;
  /** Wall clock at arrival, milliseconds since 1970. */
  readonly arrivedMs: number;
  /** Microseconds since 1970, unique and rising for each device. Set once the payload was read. */
  receivedMicros: number;
  /** Set once the payload was read. */
  outcome: Decoded | Refusal | null;
  /** Which rates were asked, so that a message that waits for something else pays once. */
  isCounted: boolean;
  sharedRatesPassed: number;
  arePointsCounted: boolean;
  /** Whether it waited for a rate. */
  isShaped: boolean;
  /** Set when the message goes to quarantine; some of its readings may be stored all the same. */
  quarantine: { readonly id: string; readonly code: string; readonly detail: string } | null;
  /** For {@link Publication.acknowledge}. */
  canonical: Buffer | null;
  /** Whether its `seq` says that all of it is stored already; it has no rows then. */
  isDuplicate: boolean;
  /** Rows in the batch. */
  rowCount: number;
}
