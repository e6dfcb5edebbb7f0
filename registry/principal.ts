import type { Scope } from '../firmware-protocol/contract.ts';

/** A device, as one of its keys says. */
export interface DevicePrincipal {
  readonly kind: 'device';
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device. */
  readonly device: string;
  /** Public part of the key; may be logged. */
  readonly keyId: string;
  /**
   * Milliseconds since 1970 at which the key ends by itself, since another has taken its place; null for
   * never. Whoever keeps a connection open for it closes it then: nothing is announced at that moment.
   */
  readonly expiresAt: number | null;
}

/** Somebody with full rights in one organization and none in any other. */
export interface AdminPrincipal {
  readonly kind: 'admin';
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  /** Public part of the key; may be logged, and stands as actor in the audit trail. */
  readonly keyId: string;
}

/** A program of the organization that reads its streams over MQTT. */
export interface IntegratorPrincipal {
  readonly kind: 'integrator';
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  /** Public part of the key; may be logged. */
  readonly keyId: string;
  readonly scopes: readonly Scope[];
  /** Slugs of the only devices that it may see; null for all of the organization. */
  readonly devices: readonly string[] | null;
  /**
   * Milliseconds since 1970 at which the key ends by itself; null for never. Whoever keeps a
   * connection open for it closes it then: nothing is announced at that moment.
   */
  readonly expiresAt: number | null;
}

/** A board that has no name yet, with the claim key of its batch: it may ask for a name and a key. */
export interface ClaimPrincipal {
  readonly kind: 'claim';
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  /** Public part of the key; may be logged. */
  readonly keyId: string;
  /** Milliseconds since 1970 at which the key ends by itself; null for never. */
  readonly expiresAt: number | null;
}

/** Whom a key speaks for. */
export type Principal = DevicePrincipal | AdminPrincipal | IntegratorPrincipal | ClaimPrincipal;

/**
 * Why a key is not accepted. `malformed`: not a key, or mistyped. `unknown`: no such key, or a
 * wrong secret. `revoked`, `expired`, `disabled` (its device), `suspended` (its organization): told
 * only to who has the secret. `unavailable`: nobody can tell now; try again.
 */
export type KeyRefusal =
  'malformed' | 'unknown' | 'revoked' | 'expired' | 'disabled' | 'suspended' | 'unavailable';

/** The outcome of looking a key up. */
export type KeyVerdict =
  | { readonly ok: true; readonly principal: Principal }
  | {
      readonly ok: false;
      readonly reason: KeyRefusal;
      /** Whose key it is, when the secret proves it: the refusal may be shown to its owner. */
      readonly principal?: Principal;
    };
