import type { Page } from '../drizzle/page.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { GreetingDevice, OfferedCommand, OtaAuthor } from './ports.ts';

/**
 * Where an update is. `offered`: the device has not said or done anything. `downloading`: it has.
 * `installing`: it was sent all bytes, or has said that it has them; now the next boots decide.
 * `rolled_back`: the version from before is back.
 */
export const UPDATE_STATES = [
  'offered',
  'downloading',
  'installing',
  'succeeded',
  'failed',
  'rolled_back',
] as const;
/** One of {@link UPDATE_STATES}. */
export type UpdateState = (typeof UPDATE_STATES)[number];
/** Those of {@link UPDATE_STATES} that an update does not leave. */
export const UPDATE_ENDS = ['succeeded', 'failed', 'rolled_back'] as const;

/** An update of a device. */
export interface DeviceUpdate {
  readonly updateId: string;
  readonly organizationId: number;
  readonly deviceId: number;
  /** Slug. */
  readonly device: string;
  readonly firmwareId: string;
  readonly model: string;
  /** Version that it is to have. */
  readonly version: string;
  readonly byteCount: number;
  /** Null until it is known. */
  readonly commandId: string | null;
  readonly campaignId: string | null;
  /** Version that it had; null when it had not said. */
  readonly fromVersion: string | null;
  readonly state: UpdateState;
  /** So many bytes from the beginning on were sent. */
  readonly bytesSent: number;
  /** Boots since it took the image, as far as it counts them. */
  readonly boots: number;
  /** Boot in which it took the image; null when it does not count. */
  readonly bootBefore: number | null;
  /** Boot in which it greeted with the new version. */
  readonly bootAfter: number | null;
  /** Why it ended as it did, for programs. */
  readonly code: string | null;
  /** The same for people. */
  readonly detail: string | null;
  readonly startedAt: Date;
  readonly changedAt: Date;
  /** When it was sent something last, or said something of it; null: not yet. */
  readonly activeAt: Date | null;
  readonly endedAt: Date | null;
}

/** An update that is asked for. */
export interface NewUpdate {
  /** Slug. */
  readonly device: string;
  readonly firmwareId: string;
  readonly campaignId: string | null;
  /** How long the command may wait for the device, in ms; null: as any command. */
  readonly ttlMs: number | null;
  /** Updates a device that has not said its model. */
  readonly isForced: boolean;
}

/** Which updates a page shows: newest first, those older than the update `after`. */
export interface UpdateQuery {
  readonly organizationId: number;
  /** Slug. */
  readonly device: string;
  readonly limit: number;
  readonly after: string | null;
}

/**
 * Updates of devices. Functions that ask for an organization see no other, and throw
 * {@link StoreUnavailableError} when the database is away.
 */
export interface Updates {
  /**
   * Offers an image to a device. Asking again for the same image while the update is under way gives that
   * one. @returns the update, and whether it is new.
   * @throws {DeviceNotFoundError} @throws {FirmwareNotFoundError} @throws {UpdateRefusedError}, and what
   * the queue of commands throws; nothing has begun then.
   */
  begin(author: OtaAuthor, wanted: NewUpdate): Promise<{ update: DeviceUpdate; isNew: boolean }>;
  /** @throws {DeviceNotFoundError} */
  list(query: UpdateQuery): Promise<Page<DeviceUpdate>>;
  /** @throws {UpdateNotFoundError} */
  get(organizationId: number, updateId: string): Promise<DeviceUpdate>;
  /**
   * Ends an update whose image the device does not have yet.
   * @throws {UpdateNotFoundError} @throws {UpdateNotCancellableError}
   */
  cancel(author: OtaAuthor, updateId: string): Promise<DeviceUpdate>;
  /** A command has changed. Others than those of updates are ignored. Never throws. */
  noteCommand(command: OfferedCommand): void;
  /** A device said hello. Resolves when what follows is committed, or failed; never rejects. */
  greeted(from: GreetingDevice, hello: Hello): Promise<void>;
}
