import type { Intake } from './authorize.ts';
import type { EngineClient } from './engine.ts';
import type { Framer } from './framer.ts';
import type { CloseReason } from './metrics.ts';
import type { DevicePrincipal } from './principal.ts';
import type { RefusalCode } from '../firmware-protocol/contract.ts';

/** One connection of an authenticated device, and what it is owed. */
export interface Session {
  readonly principal: DevicePrincipal;
  readonly client: EngineClient;
  readonly framer: Framer;
  /** In seconds, as granted: 15 to 1200. */
  readonly keepAliveS: number;
  /** Whether the device spells its topics `v1/me/…` and is answered so. */
  usesAlias: boolean;
  /** Verdicts by topic name, bounded by who fills it. */
  readonly intakes: Map<string, Intake>;
  /** Canonical filters that a filter of the device stands for, to undo it on UNSUBSCRIBE. */
  readonly expandedFilters: Map<string, string[]>;
  /** Publications taken in and not acknowledged yet. */
  heldCount: number;
  /** Since when no acknowledgement has come, in ms of the monotonic clock. */
  heldSince: number;
  /** Longest time in ms that acknowledgements are held: below half of keep alive, by a random part. */
  readonly heldMsMax: number;
  /** Set once the broker has begun to close the connection. */
  isClosing: boolean;
  /** What ingest keeps for the device; opaque here. */
  readonly lane: unknown;
  /** The connection as ingest sees it. */
  readonly source: SessionSource;
  readonly errors: ErrorTally;
}

/** What ingest may do with a connection. */
export interface SessionSource {
  /** Tells the device on `in/err`. */
  readonly report: (code: RefusalCode, channel: string, detail: string) => void;
  /** A message that had to wait has gone on: read on. */
  readonly resume: () => void;
  /** Ends the connection; what is held of it stays unacknowledged. */
  readonly close: (reason: CloseReason) => void;
}

/** What was told, and not told, on `in/err`. */
export interface ErrorTally {
  /** When `in/err` was last sent, in ms of the monotonic clock. */
  sentAt: number;
  /** Occurrences since then. */
  unsent: number;
  /** Start of the minute that is being counted, and its errors. */
  minuteStartedAt: number;
  inMinute: number;
}

/** What a session is made of. */
export type SessionParts = Pick<Session, 'client' | 'framer' | 'principal' | 'keepAliveS' | 'lane'>;

/** A session of a device that has just been let in. */
export function createSession(
  parts: SessionParts,
  sourceOf: (session: Session) => SessionSource,
): Session {
  const { keepAliveS } = parts;
  const session: Session = {
    ...parts,
    usesAlias: true,
    intakes: new Map(),
    expandedFilters: new Map(),
    heldCount: 0,
    heldSince: 0,
    heldMsMax: keepAliveS * 1000 * (0.35 + Math.random() * 0.15),
    isClosing: false,
    get source() {
      return source;
    },
    errors: { sentAt: -Infinity, unsent: 0, minuteStartedAt: 0, inMinute: 0 },
  };
  const source = sourceOf(session);
  return session;
}

/** Notes that a publication was taken in. */
export function holdOne(session: Session): void {
  if (session.heldCount === 0) session.heldSince = performance.now();
  session.heldCount += 1;
}

/** Notes that a publication was acknowledged. */
export function releaseOne(session: Session): void {
  session.heldCount -= 1;
  session.heldSince = performance.now();
}

/** Whether acknowledgements have been held for as long as the device can bear. */
export function isHeldTooLong(session: Session, nowMs: number): boolean {
  return session.heldCount > 0 && nowMs - session.heldSince > session.heldMsMax;
}

/** Whether the device is silent for one and a half times its keep alive [MQTT-3.1.2-24]. */
export function isSilentTooLong(session: Session, nowMs: number): boolean {
  // While its acknowledgements are held it may not be read; how long that lasts is bounded above. One
  // that is not read because it does not read its own acknowledgements is silent like any other.
  if (session.heldCount > 0) return false;
  const heardMs = Math.max(session.framer.lastSeenMs, session.heldSince);
  return nowMs - heardMs > session.keepAliveS * 1500;
}
