import type { CommandAuthor } from '../command.ts';

/** What campaigns can do to devices: send a command, change their keys, update their firmware. */
export const CAMPAIGN_KINDS = ['command', 'rekey', 'update'] as const;
/** One of {@link CAMPAIGN_KINDS}. */
export type CampaignKindName = (typeof CAMPAIGN_KINDS)[number];

/** A campaign as its kind needs to know it. */
export interface RunningCampaign {
  readonly campaignId: string;
  readonly organizationId: number;
  /** As {@link CampaignKind.prepare} made it. */
  readonly request: Readonly<Record<string, unknown>>;
  /** Who began it; commands go in this name. */
  readonly createdBy: string;
  /** Longest time that a device may take from its begin on; then it is withdrawn and counts as failed. */
  readonly deviceTimeoutMs: number;
}

/** A device of a campaign. */
export interface CampaignTarget {
  readonly deviceId: number;
  /** Slug. */
  readonly device: string;
  /** Null when nobody has said. */
  readonly deviceType: string | null;
  /** What {@link CampaignKind.begin} returned; null before. */
  readonly commandId: string | null;
  /** What {@link CampaignKind.begin} returned; `{}` before. */
  readonly facts: Readonly<Record<string, unknown>>;
  readonly startedAt: Date | null;
}

/**
 * What became of a device whose turn has come. `skipped` is a code for programs: there is nothing to do
 * for this device; it counts neither as succeeded nor as failed.
 */
export type CampaignBegin =
  | { readonly commandId: string | null; readonly facts: Readonly<Record<string, unknown>> }
  | { readonly skipped: string; readonly detail: string };

/**
 * What has become of a device that was begun with. `code` is for programs, `detail` for people. `skipped`:
 * it was withdrawn, by the campaign or by people, and is no failure of the device.
 */
export interface CampaignVerdict {
  readonly deviceId: number;
  readonly state: 'succeeded' | 'failed' | 'skipped';
  readonly code: string;
  readonly detail: string;
}

/** One kind of campaign: how a device is begun with, and how it is judged. */
export interface CampaignKind {
  readonly kind: CampaignKindName;
  /** Checks a request as the API has it. @returns what is kept of it. @throws an AppError of status 4xx. */
  prepare(author: CommandAuthor, request: unknown): Promise<Readonly<Record<string, unknown>>>;
  /**
   * Checks what was prepared for the types of the devices that match; null: of devices without one. Left
   * out: it holds for all. @throws an AppError of status 4xx.
   */
  checkTypes?(
    author: CommandAuthor,
    request: Readonly<Record<string, unknown>>,
    types: readonly (string | null)[],
  ): Promise<void>;
  /**
   * Begins with a device. May be called again after a crash: it must do nothing twice (idempotency key
   * {@link beginKey}). @throws {StoreUnavailableError} and is asked again later; any other AppError is a
   * failure of this device, with its code in lower case, as any other fault is with `internal_error`.
   */
  begin(campaign: RunningCampaign, target: CampaignTarget): Promise<CampaignBegin>;
  /**
   * Those of the devices under way that have ended; asked every second, and at once when a command of the
   * campaign has ended. Devices whose begin was not heard of to its end are not asked about.
   */
  judge(
    campaign: RunningCampaign,
    targets: readonly CampaignTarget[],
  ): Promise<readonly CampaignVerdict[]>;
  /**
   * Undoes what can be undone of devices that are under way: the campaign was stopped or cancelled, or they
   * took too long. May be called again. A target without a command and facts is one whose begin was not
   * heard of to its end: what it may have made is withdrawn too. Who cannot be undone goes on and is judged.
   */
  withdraw(campaign: RunningCampaign, targets: readonly CampaignTarget[]): Promise<void>;
}

/** The idempotency key of what a campaign does to a device. */
export function beginKey(campaignId: string, deviceId: number): string {
  return `campaign:${campaignId}:${deviceId}`;
}
