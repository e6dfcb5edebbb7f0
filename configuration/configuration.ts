import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { Page } from '../drizzle/page.ts';
import type { ConfigurationReport } from '../firmware-protocol/configuration.ts';
import type { Hello } from '../firmware-protocol/hello.ts';

/** A JSON object that configures devices. */
export type Document = Readonly<Record<string, unknown>>;

/** In whose name something is done. */
export interface ConfigurationAuthor {
  readonly organizationId: number;
  /** Public id of a key, or `puback`. */
  readonly actor: string;
}

/** Writes to the audit trail in the transaction of the change: `writeAudit` of the registry. */
export type WriteAudit = (
  orm: NodePgDatabase,
  entry: ConfigurationAuthor & {
    readonly action: string;
    readonly subject: string;
    readonly change?: Readonly<Record<string, unknown>>;
  },
) => Promise<void>;

/** A device as its connection knows it. */
export interface ConfiguredDevice {
  readonly organizationId: number;
  readonly organization: string;
  readonly deviceId: number;
  readonly device: string;
}

/**
 * Why what the device is sent is not what it should be by now. `too_big`: the packet has `bytes`, more than
 * the device takes. `invalid`: the schema of its type does not allow it.
 */
export type Held =
  | { readonly code: 'too_big'; readonly bytes: number }
  | { readonly code: 'invalid'; readonly detail: string };

/** What a device said is in effect. */
export interface ReportedConfiguration {
  readonly version: number;
  /** Whether it could apply that version. */
  readonly isApplied: boolean;
  /** Null while nothing is known of it. */
  readonly document: Document | null;
  readonly message: string | null;
  readonly at: Date;
}

/** How a device is configured. */
export interface DeviceConfiguration {
  /** Slug of the device. */
  readonly device: string;
  readonly type: string | null;
  /** Rises with each change; 0: nothing was ever wanted of the device. */
  readonly version: number;
  /** What people set for this device. */
  readonly desired: Document;
  /** What it is sent: the defaults of its type with `desired` over them. */
  readonly document: Document;
  readonly changedAt: Date | null;
  readonly changedBy: string | null;
  /** Null: it has said nothing yet. */
  readonly reported: ReportedConfiguration | null;
  /** Since when it has not had what it should; null: it has. */
  readonly differsSince: Date | null;
  /** Whether that has lasted longer than three times its sleep, and 15 minutes. */
  readonly isDrifting: boolean;
  readonly held: Held | null;
  /** Whether this version is the one in the device's topic. */
  readonly isPublished: boolean;
  /** Size of the packet, and the largest one that the device takes; the latter from its hello, or 256. */
  readonly packet: { readonly bytes: number; readonly bytesMax: number };
}

/** A version of a device's configuration. */
export interface ConfigurationVersion {
  readonly version: number;
  readonly desired: Document;
  readonly document: Document;
  /** See `device_configuration_version`. */
  readonly cause: 'device' | 'type' | 'number';
  readonly createdAt: Date;
  readonly createdBy: string;
}

/** What is to become of what is desired of a device. */
export type ConfigurationChange =
  | { readonly kind: 'put'; readonly desired: Document }
  /** JSON Merge Patch, RFC 7386. */
  | { readonly kind: 'patch'; readonly patch: Document }
  /** What was desired in a version. */
  | { readonly kind: 'restore'; readonly version: number };

/** A change of one device. */
export interface ConfigurationEdit {
  /** Slug. */
  readonly device: string;
  /** Version that the change was made for; null: whichever there is. */
  readonly version: number | null;
  readonly change: ConfigurationChange;
}

/** Which devices are asked for, in the order of their names. */
export interface ConfigurationQuery {
  readonly organizationId: number;
  /** Only those that drift. */
  readonly isDrifting: boolean;
  /** Only those of this type; null: of any. */
  readonly type: string | null;
  readonly limit: number;
  /** Slug. */
  readonly after: string | null;
}

/** What devices of a type are configured with where nothing is set for them. */
export interface TypeConfiguration {
  readonly type: string;
  readonly version: number;
  readonly defaults: Document;
  /** JSON Schema of the whole document; null: anything. */
  readonly schema: Document | null;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

/** What a change of a type did to its devices. */
export interface TypeEffect {
  /** Devices that have a new version. */
  readonly changed: number;
  /** Devices whose document stays as it was, the first 100. */
  readonly held: readonly (Held & { readonly device: string })[];
  readonly heldCount: number;
  /** Whether every device was looked at. The rest follows behind the answer. */
  readonly isComplete: boolean;
}

/** A change of a type. */
export interface TypeEdit {
  readonly type: string;
  readonly defaults: Document;
  readonly schema: Document | null;
  /** Version that the change was made for, 0 for none; null: whichever there is. */
  readonly version: number | null;
}

/**
 * What people do with configuration. Every function asks for the organization and sees no other, and
 * throws {@link StoreUnavailableError} when the database is away.
 */
export interface Configurations {
  /** A device that was never configured has version 0. @throws {DeviceNotFoundError} */
  get(organizationId: number, device: string): Promise<DeviceConfiguration>;
  list(query: ConfigurationQuery): Promise<Page<DeviceConfiguration>>;
  /**
   * Changes what is desired; when it resolves that is committed and about to be published. What is desired
   * already makes no new version. @throws {DeviceNotFoundError} @throws {ConfigurationChangedError}
   * @throws {ConfigurationInvalidError} @throws {ConfigurationTooBigError}
   * @throws {ConfigurationVersionNotFoundError}
   */
  edit(author: ConfigurationAuthor, edit: ConfigurationEdit): Promise<DeviceConfiguration>;
  /** Newest first, those below `before`. @throws {DeviceNotFoundError} */
  versions(query: {
    readonly organizationId: number;
    readonly device: string;
    readonly limit: number;
    readonly before: number | null;
  }): Promise<Page<ConfigurationVersion>>;
  /** @throws {DeviceNotFoundError} @throws {ConfigurationVersionNotFoundError} */
  version(organizationId: number, device: string, version: number): Promise<ConfigurationVersion>;
  /** @throws {ConfigurationTypeNotFoundError} */
  getType(organizationId: number, type: string): Promise<TypeConfiguration>;
  /** In the order of types. */
  listTypes(query: {
    readonly organizationId: number;
    readonly limit: number;
    readonly after: string | null;
  }): Promise<Page<TypeConfiguration>>;
  /**
   * Sets defaults and schema of a type. Every device of the type whose document changes by it has a new
   * version, those too that were never configured; those that cannot take it are held. What is set already
   * changes nothing. @throws {ConfigurationInvalidError} @throws {ConfigurationChangedError}
   * @throws {ConfigurationTypeLimitError}
   */
  putType(
    author: ConfigurationAuthor,
    edit: TypeEdit,
  ): Promise<{ readonly type: TypeConfiguration; readonly effect: TypeEffect }>;
  /** @throws {ConfigurationTypeNotFoundError} @throws {ConfigurationChangedError} */
  removeType(
    author: ConfigurationAuthor,
    type: string,
    version: number | null,
  ): Promise<TypeEffect>;
}

/** What was made of a report; a closed set, for a metric. */
export const REPORT_OUTCOMES = [
  /** It is noted. */
  'applied',
  /** It is noted that the device could not apply it. */
  'refused',
  /** Nothing new. */
  'repeated',
  /** Of a version before the one that was reported last. */
  'outdated',
  /** Of a version that the database does not know yet: it was restored, say. The number is passed. */
  'ahead',
  /** The device is gone. */
  'unknown_device',
  /** Our bug; it is in the log. */
  'failed',
] as const;
/** One of {@link REPORT_OUTCOMES}. */
export type ReportOutcome = (typeof REPORT_OUTCOMES)[number];

/** What devices do, and what becomes of them. */
export interface ConfigurationPeers {
  /**
   * Takes a report. Resolves once it is committed; while the database is away it goes on trying, so that
   * the PUBACK waits. Above the limit of reports that wait it never resolves: the device says it again.
   * Never rejects.
   */
  reported(from: ConfiguredDevice, report: ConfigurationReport): Promise<ReportOutcome>;
  /** A device said hello: which version it applied. Never rejects. */
  greeted(from: ConfiguredDevice, hello: Hello): Promise<void>;
  /** Version in the topic of a device, for its greeting; 0: nothing. From memory. */
  version(from: Pick<ConfiguredDevice, 'organization' | 'device'>): number;
  /** A device is new, or has another type: its document is made anew soon. */
  deviceChanged(deviceId: number): void;
  /** A device is gone: its topic is cleared. */
  forgetDevice(device: Pick<ConfiguredDevice, 'organization' | 'device'>): void;
}

/** How documents reach the broker; {@link CommandWire} has the same functions. */
export interface ConfigurationWire {
  /** Keeps a payload as the retained one of a topic and sends it on; an empty one removes it. */
  publishRetained(topic: string, payload: Buffer): Promise<void>;
  /** What is retained under a topic; null: nothing. */
  retained(topic: string): Buffer | null;
  /** Topics under which something is retained. */
  retainedTopics(filter: string): Iterable<string>;
}

/** Bounds of configuration. */
export interface ConfigurationLimits {
  /** Largest document, as compact JSON. */
  readonly documentBytesMax: number;
  /** Versions of a device that are kept. */
  readonly versionsMax: number;
  /** Types of an organization that may have defaults. */
  readonly typesMax: number;
  /** Reports that may wait for the database. */
  readonly reportsHeldMax: number;
  /** How often topics are compared with the database. */
  readonly sweepMs: number;
}
