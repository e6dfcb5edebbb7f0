import type { Intake } from './authorize.ts';
import type { EngineClient } from './engine.ts';
import type { DevicePrincipal } from './principal.ts';

/** One connection of an authenticated device, and what it is owed. */
export interface Session {
  readonly principal: DevicePrincipal;
  readonly client: EngineClient;
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
  readonly errors: ErrorTally;
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

/** A session of a device that has just been let in. */
export function createSession(
  client: EngineClient,
  principal: DevicePrincipal,
  keepAliveS: number,
  lane: unknown,
): Session {
  return {
    principal,
    client,
    keepAliveS,
    usesAlias: true,
    intakes: new Map(),
    expandedFilters: new Map(),
    heldCount: 0,
    heldSince: 0,
    heldMsMax: keepAliveS * 1000 * (0.35 + Math.random() * 0.15),
    isClosing: false,
    lane,
    errors: { sentAt: -Infinity, unsent: 0, minuteStartedAt: 0, inMinute: 0 },
  };
}
