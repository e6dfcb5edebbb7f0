import type { Access } from './access.ts';
import type { PendingPuback } from './answers.ts';
import type { EngineClient } from './engine.ts';
import type { Framer } from './framer.ts';
import type { CloseReason } from './metrics.ts';
import type { Peer } from './peer.ts';
import type { Principal } from './principal.ts';
import type { Subscriber } from './outgoing/subscriber.ts';

/** One connection of a client that was let in, and what it is owed. */
export interface Session {
  /** Null where nobody logs in. */
  readonly principal: Principal | null;
  readonly access: Access;
  readonly peer: Peer;
  /** The client identifier that the client named itself. */
  readonly namedClientId: string;
  /** Rises with every connection, across restarts too; 0 before CONNACK. */
  connectionNumber: number;
  readonly client: EngineClient;
  readonly framer: Framer;
  /** What the client is sent; null before CONNACK. */
  subscriber: Subscriber | null;
  /** Publications taken in and not acknowledged yet. */
  heldCount: number;
  /** Since when no acknowledgement has come, in ms of the monotonic clock. */
  heldSince: number;
  /** The oldest PUBLISH that waited for its PUBACK when that was last looked at, and since when. */
  oldestPuback: PendingPuback | null;
  oldestSince: number;
  /** Longest time in ms that acknowledgements are held: below half of keep alive, by a random part. */
  readonly heldMsMax: number;
  /** Why the broker has begun to close the connection; null while it has not. */
  closeReason: CloseReason | null;
  /** More of it for a person; empty when there is no more to say. */
  closeDetail: string;
  /** Ends the connection. What is held of it stays unacknowledged. */
  readonly close: (reason: CloseReason) => void;
  /** Writes a message straight to the connection at QoS 0; it needs no subscription. */
  readonly send: (topic: string, message: object) => void;
}

/** What a session is made of. */
export type SessionParts = Omit<
  Session,
  | 'connectionNumber'
  | 'oldestPuback'
  | 'oldestSince'
  | 'subscriber'
  | 'heldCount'
  | 'heldSince'
  | 'heldMsMax'
  | 'closeReason'
  | 'closeDetail'
>;

/** Keep alive that is taken for one of 0, in seconds, where only a bound on holding is wanted. */
const KEEP_ALIVE_S_ASSUMED = 60;

/** A session of a client that has just been let in. */
export function createSession(parts: SessionParts): Session {
  const keepAliveS = parts.access.keepAliveS || KEEP_ALIVE_S_ASSUMED;
  return {
    ...parts,
    connectionNumber: 0,
    subscriber: null,
    heldCount: 0,
    heldSince: 0,
    oldestPuback: null,
    oldestSince: 0,
    heldMsMax: keepAliveS * 1000 * (0.35 + Math.random() * 0.15),
    closeReason: null,
    closeDetail: '',
  };
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

/**
 * Whether acknowledgements have been held for as long as the client can bear: all of them, or the
 * oldest, behind which the others wait.
 */
export function isHeldTooLong(session: Session, nowMs: number): boolean {
  const { oldestPuback } = session.framer;
  if (oldestPuback !== session.oldestPuback) {
    session.oldestPuback = oldestPuback;
    session.oldestSince = nowMs;
  }
  if (oldestPuback !== null && nowMs - session.oldestSince > session.heldMsMax) return true;
  return session.heldCount > 0 && nowMs - session.heldSince > session.heldMsMax;
}

/** Whether the client is silent for one and a half times its keep alive [MQTT-3.1.2-24]. */
export function isSilentTooLong(session: Session, nowMs: number): boolean {
  const { keepAliveS } = session.access;
  // While its acknowledgements are held it may not be read; how long that lasts is bounded above. One
  // that is not read because it does not read its own acknowledgements is silent like any other.
  if (session.heldCount > 0 || keepAliveS === 0) return false;
  const heardMs = Math.max(session.framer.lastSeenMs, session.heldSince);
  return nowMs - heardMs > keepAliveS * 1500;
}
