import type { Readable } from 'node:stream';
import type { Page } from '../drizzle/page.ts';
import type { OtaAuthor } from './ports.ts';

/** Longest model and version, in bytes: what `esp_app_desc_t` and `hello` hold. */
export const FIRMWARE_TEXT_BYTES_MAX = 31;

/** A firmware image, without its bytes. */
export interface Firmware {
  readonly firmwareId: string;
  /** What devices say as `mdl`. */
  readonly model: string;
  /** What devices say as `fw`. */
  readonly version: string;
  /** `withdrawn`: its bytes are deleted, and nobody is updated with it any more. */
  readonly state: 'ready' | 'withdrawn';
  readonly byteCount: number;
  readonly sha256: Buffer;
  /** Ed25519 over the bytes; null: not signed. */
  readonly signature: Buffer | null;
  readonly signerId: string | null;
  /** The signer's key is believed no more: nobody is updated with the image. */
  readonly isSignerRevoked: boolean;
  readonly notes: string;
  readonly createdAt: Date;
  readonly createdBy: string;
}

/** An image that is uploaded. */
export interface FirmwareUpload {
  readonly model: string;
  readonly version: string;
  readonly notes: string;
  /** Null: not signed. */
  readonly signed: { readonly signerId: string; readonly signature: Buffer } | null;
  readonly body: Readable;
  /** As announced; null when it was not. */
  readonly bodyBytes: number | null;
}

/** Which images a page shows: newest first, those older than the image `after`. */
export interface FirmwareQuery {
  readonly organizationId: number;
  /** Null: of all. */
  readonly model: string | null;
  readonly state: Firmware['state'] | null;
  readonly limit: number;
  readonly after: string | null;
}

/**
 * The firmware images of all organizations. Every function asks for the organization and sees no other,
 * and throws {@link StoreUnavailableError} when the database is away.
 */
export interface FirmwareRepository {
  /**
   * Takes an image; one that breaks off or does not hold leaves nothing.
   * @returns the image, and whether it was there already: same model, version and bytes.
   * @throws {RequestInvalidError} 413 too large, 408 too slow. @throws {FirmwareInvalidError}
   * @throws {FirmwareSignatureError} @throws {FirmwareExistsError} @throws {FirmwareLimitError}
   * @throws {FirmwareBusyError}
   */
  upload(
    author: OtaAuthor,
    upload: FirmwareUpload,
  ): Promise<{ firmware: Firmware; isNew: boolean }>;
  /** @throws {FirmwareNotFoundError} */
  get(organizationId: number, firmwareId: string): Promise<Firmware>;
  list(query: FirmwareQuery): Promise<Page<Firmware>>;
  /**
   * Nobody is updated with it any more, downloads under way included. Its bytes are deleted; what it was
   * stays known, and its version is free again. @throws {FirmwareNotFoundError}
   */
  withdraw(author: OtaAuthor, firmwareId: string): Promise<Firmware>;
}

/** Who signs images. */
export interface Signer {
  readonly signerId: string;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly revokedAt: Date | null;
}

/** The signers of all organizations; at most {@link SIGNERS_MAX} each. As {@link FirmwareRepository}. */
export interface Signers {
  /** In the order of their names, revoked ones too. */
  list(organizationId: number): Promise<readonly Signer[]>;
  /** @throws {SignerNotFoundError} */
  get(organizationId: number, signerId: string): Promise<Signer>;
  /**
   * @param key PEM, or 32 bytes in base64.
   * @throws {SignerInvalidError} @throws {SignerExistsError} @throws {SignerLimitError}
   */
  create(author: OtaAuthor, signerId: string, key: string): Promise<Signer>;
  /** For good. Images that it signed are offered to nobody any more. @throws {SignerNotFoundError} */
  revoke(author: OtaAuthor, signerId: string): Promise<Signer>;
}

/** Most signers of an organization, revoked ones included. */
export const SIGNERS_MAX = 100;
