/** The device behind a connection, as its key says. The client identifier says nothing. */
export interface DevicePrincipal {
  readonly organizationId: number;
  /** Slug of the organization, as it stands in topics. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device, as it stands in topics. */
  readonly device: string;
  /** Public part of the key; may be logged. */
  readonly keyId: string;
}

/** Why a connection was refused; a closed set, for the metric's label. */
export type ConnectRefusal =
  | 'key_malformed'
  | 'key_unknown'
  | 'key_revoked'
  | 'device_disabled'
  | 'organization_suspended'
  | 'identity_mismatch'
  | 'will_refused'
  | 'unavailable';

/** What the registry says of a key that was given as the password of a CONNECT. */
export type KeyVerdict =
  | { readonly ok: true; readonly principal: DevicePrincipal }
  | { readonly ok: false; readonly refusal: ConnectRefusal };

/** Looks a key up. Rejects never: a database that is away is the refusal `unavailable`. */
export type VerifyKey = (key: string) => Promise<KeyVerdict>;
