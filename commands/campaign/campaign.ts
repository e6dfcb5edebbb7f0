import type { Page } from '../../drizzle/page.ts';
import type { Command, CommandAuthor } from '../command.ts';
import type { CampaignKindName } from './campaign-kind.ts';
import type { CampaignPolicy } from './campaign-policy.ts';

/**
 * Where a campaign is. `stopped`: too many devices failed, nothing is begun any more. `cancelled`: people
 * ended it. Both may still have devices under way until `endedAt` is set.
 */
export const CAMPAIGN_STATES = ['running', 'paused', 'stopped', 'completed', 'cancelled'] as const;
/** One of {@link CAMPAIGN_STATES}. */
export type CampaignState = (typeof CAMPAIGN_STATES)[number];

/**
 * Where a device of a campaign is. `active`: it has been begun with; `beginning` as its code: that is not
 * known yet. `skipped`: nothing was done to it, or it was withdrawn; its code says why.
 */
export const CAMPAIGN_DEVICE_STATES = [
  'waiting',
  'active',
  'succeeded',
  'failed',
  'skipped',
] as const;
/** One of {@link CAMPAIGN_DEVICE_STATES}. */
export type CampaignDeviceState = (typeof CAMPAIGN_DEVICE_STATES)[number];

/** Number of devices by state. */
export type DeviceCounts = Readonly<Record<CampaignDeviceState, number>>;

/** Counts of one wave; wave 0 is the canary. */
export interface WaveCounts extends DeviceCounts {
  readonly wave: number;
}

/** A campaign as people know it. */
export interface Campaign {
  readonly campaignId: string;
  readonly organizationId: number;
  readonly kind: CampaignKindName;
  readonly name: string;
  readonly state: CampaignState;
  /** As its kind keeps it. */
  readonly request: Readonly<Record<string, unknown>>;
  readonly policy: CampaignPolicy;
  /** The wave under way. */
  readonly wave: number;
  readonly waveStartedAt: Date | null;
  /** Why it was stopped, for programs and for people. */
  readonly stopCode: string | null;
  readonly stopReason: string | null;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly endedAt: Date | null;
  /** Of all its devices. */
  readonly counts: DeviceCounts;
}

/** A campaign with the counts of each of its waves that has devices. */
export interface CampaignDetail extends Campaign {
  readonly waves: readonly WaveCounts[];
}

/** A device of a campaign as people know it. */
export interface CampaignDevice {
  readonly deviceId: number;
  /** Slug. */
  readonly device: string;
  readonly wave: number;
  /** Order in the campaign, from 0. */
  readonly position: number;
  readonly state: CampaignDeviceState;
  readonly commandId: string | null;
  readonly code: string | null;
  readonly detail: string | null;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
}

/**
 * Which devices, as the scope of a rule says it: a device must match every member that is not null; all of
 * them null: every device of the organization.
 */
export interface CampaignTargets {
  /** Slugs; each must be a device. */
  readonly devices: readonly string[] | null;
  /** A device has one of them. */
  readonly tags: readonly string[] | null;
  /** A device is of one of them. */
  readonly types: readonly string[] | null;
}

/** A campaign that is asked for. */
export interface NewCampaign {
  readonly kind: CampaignKindName;
  readonly name: string;
  readonly targets: CampaignTargets;
  /** As its kind takes it. */
  readonly request: unknown;
  readonly policy: CampaignPolicy;
  /** Slugs that are canaries before all others; at most `policy.canary`. */
  readonly canaryDevices: readonly string[];
  /** Asking again with the same key gives the same campaign. At most 128 characters. */
  readonly idempotencyKey: string | null;
}

/** What a campaign would do. */
export interface CampaignPlan {
  readonly kind: CampaignKindName;
  /** As its kind would keep it. */
  readonly request: Readonly<Record<string, unknown>>;
  readonly policy: CampaignPolicy;
  /** Devices of each wave, in their order; wave 0 is the canary. */
  readonly waves: readonly { readonly wave: number; readonly devices: readonly string[] }[];
  /** Devices that match and are left out. */
  readonly skipped: readonly SkippedTarget[];
}

/** A device that matches and is left out from the beginning. */
export interface SkippedTarget {
  readonly device: string;
  /** `device_disabled`, or `in_other_campaign`. */
  readonly code: string;
  readonly detail: string;
}

/** Which campaigns are asked for. Newest first, those older than the campaign `after`. */
export interface CampaignQuery {
  readonly organizationId: number;
  readonly kind: CampaignKindName | null;
  /** Null: in any. */
  readonly states: readonly CampaignState[] | null;
  readonly limit: number;
  readonly after: string | null;
}

/** Which devices of a campaign are asked for. In their order, those behind the position `after`. */
export interface CampaignDeviceQuery {
  readonly organizationId: number;
  readonly campaignId: string;
  /** Null: in any. */
  readonly states: readonly CampaignDeviceState[] | null;
  readonly limit: number;
  readonly after: number | null;
}

/** Which devices a campaign that takes up another one has: those that failed, or all that did not succeed. */
export type RetryScope = 'failed' | 'unfinished';

/**
 * What people and programs do with campaigns. Every function asks for the organization and sees no other,
 * and throws {@link StoreUnavailableError} when the database is away.
 */
export interface Campaigns {
  /**
   * Begins a campaign. Its devices are those that match now; who comes later is not part of it.
   * @returns the campaign, and whether it was there already under its idempotency key.
   * @throws {CampaignInvalidError} @throws {CampaignLimitError} @throws {IdempotencyKeyError}, and what its
   * kind throws.
   */
  create(
    author: CommandAuthor,
    wanted: NewCampaign,
  ): Promise<{ campaign: CampaignDetail; isNew: boolean }>;
  /**
   * What {@link Campaigns.create} would do now. The same campaign has the same order, unless devices came or
   * went. @throws as `create`, but for limits.
   */
  plan(author: CommandAuthor, wanted: NewCampaign): Promise<CampaignPlan>;
  /** @throws {CampaignNotFoundError} */
  get(organizationId: number, campaignId: string): Promise<CampaignDetail>;
  list(query: CampaignQuery): Promise<Page<Campaign>>;
  /** @throws {CampaignNotFoundError} */
  devices(query: CampaignDeviceQuery): Promise<Page<CampaignDevice>>;
  /**
   * Begins with no more devices until it is resumed; those under way go on. One that is paused stays so.
   * @throws {CampaignNotFoundError} @throws {CampaignStateError}
   */
  pause(author: CommandAuthor, campaignId: string): Promise<CampaignDetail>;
  /** One that runs goes on. @throws {CampaignNotFoundError} @throws {CampaignStateError} */
  resume(author: CommandAuthor, campaignId: string): Promise<CampaignDetail>;
  /**
   * Ends it: nothing is begun any more, and what can be withdrawn is. One that was cancelled stays so.
   * @throws {CampaignNotFoundError} @throws {CampaignStateError}
   */
  cancel(author: CommandAuthor, campaignId: string): Promise<CampaignDetail>;
  /**
   * Begins a campaign that does the same to devices of one that has ended. Canary and waves are made anew.
   * @throws {CampaignNotFoundError} @throws {CampaignStateError} of one that has not ended.
   * @throws {CampaignInvalidError} no device is left. @throws {CampaignLimitError}
   * @throws {IdempotencyKeyError}
   */
  retry(
    author: CommandAuthor,
    campaignId: string,
    how: { readonly scope: RetryScope; readonly idempotencyKey: string | null },
  ): Promise<{ campaign: CampaignDetail; isNew: boolean }>;
}

/** Campaigns with what runs them. */
export interface CampaignParts {
  readonly campaigns: Campaigns;
  /** Goes on with the campaigns that have not ended. */
  start(): void;
  /** Resolves behind the work under way. What is left goes on at the next start. */
  stop(): Promise<void>;
  /** A command has changed; for `Commands.onChanged`. */
  noteCommand(command: Pick<Command, 'campaignId' | 'state'>): void;
}
