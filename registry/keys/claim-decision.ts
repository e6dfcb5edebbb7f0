import type { KeyDenial } from '../../firmware-protocol/key-request.ts';

/** What a claim key allows. */
export interface ClaimRules {
  readonly keyId: string;
  /** Devices that may be made with it. */
  readonly quota: number;
  /** Devices that were made with it. */
  readonly claimed: number;
  /** Models that may claim; null: any. */
  readonly models: readonly string[] | null;
  readonly needsApproval: boolean;
}

/** A board that has asked before. */
export interface KnownClaim {
  readonly keyId: string;
  readonly state: ClaimState;
  /** When it asked; of one that was issued, when. In ms since 1970. */
  readonly requestedMs: number;
}

/**
 * Where a claim is. `waiting`: for a person. `approved`: the board gets its key when it asks again. `issued`:
 * it was given one.
 */
export const CLAIM_STATES = ['waiting', 'approved', 'denied', 'issued'] as const;
/** One of {@link CLAIM_STATES}. */
export type ClaimState = (typeof CLAIM_STATES)[number];

/** The device that has the name already. */
export interface NamedDevice {
  readonly isDisabled: boolean;
  /** It has, or has had, a connection. */
  readonly hasConnected: boolean;
  /** A key of it was used, or is not one that this claim key has made. */
  readonly hasForeignKeys: boolean;
  /** Keys that this claim key has made for it, those that have ended too. */
  readonly keys: number;
  /** Those of them that have not ended. */
  readonly openKeys: number;
}

/** All that a claim is decided by. */
export interface ClaimFacts {
  readonly rules: ClaimRules;
  readonly model: string | null;
  readonly claim: KnownClaim | null;
  readonly device: NamedDevice | null;
  /** Other boards that wait for approval with this claim key. */
  readonly waiting: number;
  readonly waitingMax: number;
  /** A board that asks again is given another key after this time at the soonest. */
  readonly reissueMs: number;
  readonly nowMs: number;
}

/** What becomes of a claim. `wait` with `isNoted`: it stands in the list of those that wait for a person. */
export type ClaimDecision =
  | { readonly do: 'create' }
  | { readonly do: 'reissue' }
  | { readonly do: 'wait'; readonly retryS: number; readonly isNoted: boolean }
  | { readonly do: 'deny'; readonly code: KeyDenial };

/** Seconds after which a board asks again whether somebody has approved it. */
export const APPROVAL_RETRY_S = 60;
/** Keys that a claim key makes for one name at most; a board that cannot keep one of so many never will. */
export const KEYS_PER_CLAIM_MAX = 20;

/**
 * Decides on a claim. A name that exists is given away again only while nobody has ever used it and nobody
 * but this very claim key has made it.
 */
export function decideClaim(facts: ClaimFacts): ClaimDecision {
  const { rules, model, claim, device } = facts;
  if (rules.models !== null && (model === null || !rules.models.includes(model))) {
    return { do: 'deny', code: 'model' };
  }
  if (claim?.state === 'denied') return { do: 'deny', code: 'denied' };
  if (device !== null) {
    const refusal = refuseKnown(device, facts);
    if (refusal !== null) return refusal;
  } else if (rules.claimed >= rules.quota) return { do: 'deny', code: 'quota' };
  return waitForPerson(facts) ?? { do: device === null ? 'create' : 'reissue' };
}

function refuseKnown(device: NamedDevice, facts: ClaimFacts): ClaimDecision | null {
  if (device.hasConnected || device.hasForeignKeys) return { do: 'deny', code: 'claimed' };
  // Without a key that is open somebody has revoked it: whoever that was wanted it so.
  if (device.openKeys === 0) return { do: 'deny', code: 'claimed' };
  if (device.isDisabled) return { do: 'deny', code: 'denied' };
  if (device.keys >= KEYS_PER_CLAIM_MAX) return { do: 'deny', code: 'quota' };
  if (facts.claim?.state !== 'issued') return null;
  const leftMs = facts.claim.requestedMs + facts.reissueMs - facts.nowMs;
  return leftMs > 0 ? { do: 'wait', retryS: Math.ceil(leftMs / 1000), isNoted: false } : null;
}

/** One approval is for one key. It is for the claim key that the board has asked with. */
function waitForPerson({ rules, claim, waiting, waitingMax }: ClaimFacts): ClaimDecision | null {
  if (!rules.needsApproval) return null;
  if (claim?.state === 'approved') {
    if (claim.keyId === rules.keyId) return null;
    return { do: 'wait', retryS: APPROVAL_RETRY_S, isNoted: false };
  }
  return waiting >= waitingMax
    ? { do: 'deny', code: 'quota' }
    : { do: 'wait', retryS: APPROVAL_RETRY_S, isNoted: true };
}
