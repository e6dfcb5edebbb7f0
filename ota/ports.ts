import type { NodePgDatabase } from 'drizzle-orm/node-postgres';

/** In whose name something is done, as `Author` of the registry. */
export interface OtaAuthor {
  readonly organizationId: number;
  /** Public id of a key, or `puback`. */
  readonly actor: string;
}

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (
  orm: NodePgDatabase,
  entry: OtaAuthor & {
    readonly action: string;
    readonly subject: string;
    readonly change?: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

/** A `sys.ota` for a device. */
export interface UpdateOffer {
  /** Slug. */
  readonly device: string;
  readonly args: { readonly ver: string; readonly url: string };
  /** Id of the update; comes back as `ref` of the command. */
  readonly ref: string;
  /** How long it may wait for the device, in ms; null: as any command. */
  readonly ttlMs: number | null;
  /** Asking again with the same key gives the same command. */
  readonly idempotencyKey: string;
  readonly campaignId: string | null;
}

/** What updates need of commands. */
export interface UpdateCommands {
  /**
   * Puts `sys.ota` into the queue of the device, of origin `update`. @returns the id of the command.
   * @throws {AppError} of the queue: too big, too many waiting. @throws {StoreUnavailableError}
   */
  offer(author: OtaAuthor, offer: UpdateOffer): Promise<string>;
  /** Cancels it, or asks the device to; one that has ended is left alone. @throws {StoreUnavailableError} */
  cancel(author: OtaAuthor, commandId: string): Promise<void>;
  /** Ends it; one that has ended stays as it is. @throws {StoreUnavailableError} */
  settle(
    commandId: string,
    state: 'succeeded' | 'failed',
    code: string,
    message: string,
  ): Promise<void>;
}

/** What updates want to know of a `sys.ota`; a `Command` has it. */
export interface OfferedCommand {
  readonly commandId: string;
  readonly name: string;
  readonly origin: string;
  readonly state: string;
  /** Id of the update. */
  readonly ref: string | null;
  readonly progress: number | null;
  readonly code: string | null;
  readonly message: string | null;
}

/** A device that greets. */
export interface GreetingDevice {
  readonly organizationId: number;
  readonly deviceId: number;
}

/** An alert that fires for a device. */
export interface FiringAlert {
  readonly deviceId: number;
  /** Id of the rule in the API. */
  readonly ruleId: string;
  readonly rule: string;
  readonly severity: string;
  /** When it began to fire, in ms since 1970. */
  readonly firedMs: number;
}

/** Alerts of an organization that began to fire for one of the devices at or after a time and fire now. */
export type FiringAlerts = (
  organizationId: number,
  deviceIds: readonly number[],
  sinceMs: number,
) => Promise<readonly FiringAlert[]>;
