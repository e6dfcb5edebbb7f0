import type { Scope } from '../firmware-protocol/contract.ts';

/** The device behind a connection, as its key or certificate says. The client identifier says nothing. */
export interface DevicePrincipal {
  readonly kind: 'device';
  readonly organizationId: number;
  /** Slug of the organization, as it stands in topics. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device, as it stands in topics. */
  readonly device: string;
  /** Public part of the key; may be logged. */
  readonly keyId: string;
  /** Milliseconds since 1970 at which its key ends, since another has taken its place; null: never. */
  readonly expiresAt: number | null;
}

/** A program that reads streams of one organization. */
export interface IntegratorPrincipal {
  readonly kind: 'integrator';
  readonly organizationId: number;
  readonly organization: string;
  readonly keyId: string;
  readonly scopes: readonly Scope[];
  /** Slugs of the devices that the key is limited to; null for all. */
  readonly devices: readonly string[] | null;
  /** Milliseconds since 1970; null: never. */
  readonly expiresAt: number | null;
}

/** A board with a claim key: it has no name of its own yet. */
export interface ClaimPrincipal {
  readonly kind: 'claim';
  readonly organizationId: number;
  readonly organization: string;
  readonly keyId: string;
  /** Milliseconds since 1970; null: never. */
  readonly expiresAt: number | null;
}

/** Whom a connection speaks for. */
export type Principal = DevicePrincipal | IntegratorPrincipal | ClaimPrincipal;

/** Why a connection was refused; a closed set, for the metric's label. */
export type ConnectRefusal =
  | 'key_malformed'
  | 'key_unknown'
  | 'key_revoked'
  | 'key_expired'
  | 'device_disabled'
  | 'organization_suspended'
  | 'identity_mismatch'
  | 'client_id_rejected'
  | 'will_refused'
  | 'sessions_max'
  | 'connect_rate'
  | 'unavailable';

/** What the registry says of a credential. */
export type KeyVerdict =
  | { readonly ok: true; readonly principal: Principal }
  | {
      readonly ok: false;
      readonly refusal: ConnectRefusal;
      /** Whose credential it is, when that is proved: its owner may be told of the refusal. */
      readonly principal?: Principal;
    };

/** Looks a key up. Rejects never: a database that is away is the refusal `unavailable`. */
export type VerifyKey = (key: string) => Promise<KeyVerdict>;

/** Looks up the device that a client certificate names as `organization/device`. Rejects never. */
export type VerifyCertificate = (identity: string, fingerprint: string) => Promise<KeyVerdict>;
