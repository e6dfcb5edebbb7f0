/** A device was made, deleted, or has other tags, another type or another interval. */
export interface ChangedDevice {
  readonly organizationId: number;
  readonly deviceId: number;
  readonly isDeleted: boolean;
  /** See `Device`; undefined of one that is new or gone. */
  readonly reportIntervalMs?: number | null;
}

/**
 * Tells who keeps in memory which devices there are, and what they are, of this program's own changes.
 * Those of other programs must be looked for in the database: `device.updated_at` rises with each.
 */
export class DeviceChanges {
  readonly #listeners = new Set<(change: ChangedDevice) => void>();

  /** After COMMIT, in the order of the changes. @returns a function that stops it. Must not throw. */
  onChanged(listener: (change: ChangedDevice) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells of a change, before the function returns. To be called after its COMMIT. */
  tell(change: ChangedDevice): void {
    for (const listener of this.#listeners) listener(change);
  }
}
