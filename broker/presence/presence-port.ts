import type { DeviceIdentity } from '../../firmware-protocol/topics.ts';
import type { DevicePresence } from './presence-state.ts';

/** A row of presence to be written. */
export interface PresenceRow {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly presence: DevicePresence;
}

/** A row as it was read, with the names that topics are made of. Its hello comes without units. */
export interface StoredPresence extends PresenceRow, DeviceIdentity {}

/** A device, and what is stored of its presence. */
export interface FoundDevice extends DeviceIdentity {
  readonly deviceId: number;
  readonly organizationId: number;
  readonly presence: DevicePresence | null;
}

/** Some rows in the order of device ids. */
export interface PresencePage {
  /** Slugs; null for all of the organization. */
  readonly devices: readonly string[] | null;
  readonly organizationId: number;
  /** Only devices whose id is higher; 0 starts at the first. */
  readonly after: number;
  readonly limit: number;
}

/**
 * Where presence is kept for queries and for the next run of the program. Every call rejects with a
 * retryable `AppError` while the database is away.
 */
export interface PresencePort {
  /**
   * Stores these rows, at most 1000 and each device once, in one transaction. A row of an older
   * connection than the stored one is left out; members of `hello` are added to the stored ones.
   * @returns ids of the devices that no longer exist.
   */
  upsertMany(rows: readonly PresenceRow[]): Promise<readonly number[]>;
  /** Rows of all organizations, in the order of device ids. */
  listAll(page: {
    readonly after: number;
    readonly limit: number;
  }): Promise<readonly StoredPresence[]>;
  listOf(page: PresencePage): Promise<readonly StoredPresence[]>;
  /** Devices by name, at most 1000 asked for; those that do not exist are missing. */
  findDevices(names: readonly DeviceIdentity[]): Promise<readonly FoundDevice[]>;
}
