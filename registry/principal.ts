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

/** Whom a key speaks for. */
export type Principal = DevicePrincipal | AdminPrincipal;

/**
 * Why a key is not accepted. `malformed`: not a key, or mistyped. `unknown`: no such key, or a
 * wrong secret. `revoked`, `disabled` (its device), `suspended` (its organization): told only to
 * who has the secret. `unavailable`: nobody can tell now; try again.
 */
export type KeyRefusal =
  'malformed' | 'unknown' | 'revoked' | 'disabled' | 'suspended' | 'unavailable';

/** The outcome of looking a key up. */
export type KeyVerdict =
  | { readonly ok: true; readonly principal: Principal }
  | { readonly ok: false; readonly reason: KeyRefusal };
