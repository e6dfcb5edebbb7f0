import { z } from 'zod';
import { AppError } from '../errors.ts';
import { FirmwareNotFoundError, UpdateInvalidError, UpdateRefusedError } from '../ota-errors.ts';
import type { FirmwareRepository } from './firmware.ts';
import type { OtaAuthor } from './ports.ts';
import { assertOffered } from './update-begin.ts';
import type { UpdateStore } from './update-store.ts';
import type { UpdateDesk } from './updates.ts';
import type { CampaignWatch, WatchRequest } from './update-watch.ts';

/** A campaign as this kind needs to know it; as `RunningCampaign` of commands. */
export interface UpdatingCampaign {
  readonly campaignId: string;
  readonly organizationId: number;
  readonly request: Readonly<Record<string, unknown>>;
  readonly createdBy: string;
}

/** A device of it; as `CampaignTarget` of commands. */
export interface UpdatingTarget {
  readonly deviceId: number;
  /** Slug. */
  readonly device: string;
}

/** What became of a device whose turn has come; as `CampaignBegin`. */
export type UpdateBegun =
  | { readonly commandId: string | null; readonly facts: Readonly<Record<string, unknown>> }
  | { readonly skipped: string; readonly detail: string };

/** What has become of a device that was begun with; as `CampaignVerdict`. */
export interface UpdateVerdict {
  readonly deviceId: number;
  readonly state: 'succeeded' | 'failed' | 'skipped';
  readonly code: string;
  readonly detail: string;
}

/** What {@link UpdateCampaign} needs. */
export interface UpdateCampaignDeps {
  readonly repository: Pick<FirmwareRepository, 'get'>;
  readonly updates: Pick<UpdateDesk, 'begin' | 'cancel' | 'end'>;
  readonly store: Pick<UpdateStore, 'ofCampaign'>;
  readonly watch: CampaignWatch;
  readonly isSignatureRequired: boolean;
}

const TTL_MS_MAX = 31_622_400_000;
const WATCH_MS_MAX = 604_800_000;
const UNIT_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const DURATION = /^(\d{1,10})(ms|s|m|h|d)$/;
const duration = (msMin: number, msMax: number) =>
  z.string().refine((text) => {
    const ms = millisOf(text);
    return ms >= msMin && ms <= msMax;
  }, 'must be a duration such as 30s, 5m, 1h, 1d, within its bounds');

/** What a campaign of updates is asked for. */
export const updateRequestSchema = z.strictObject({
  firmware: z.uuid().describe('Id of the image.'),
  force: z.boolean().default(false).describe('Update devices that have not said their model too.'),
  ttl: duration(1000, TTL_MS_MAX)
    .optional()
    .describe('How long the command may wait for a device; COMMAND_TTL_S when left out.'),
  watch: duration(0, WATCH_MS_MAX)
    .default('1m')
    .describe(
      'How long the new image is watched before a device counts as succeeded: alerts, boots, and whether its version stays.',
    ),
  stopOn: z
    .strictObject({
      critical: z.boolean().default(true).describe('Any alert of severity critical.'),
      rules: z.array(z.uuid()).max(100).default([]).describe('Alerts of these rules.'),
    })
    .prefault({})
    .describe('Alerts that make an update fail when they begin to fire for its device.'),
});
/** As {@link updateRequestSchema} reads it. */
export type UpdateRequest = z.output<typeof updateRequestSchema>;

/**
 * Updates as a kind of campaign. A device has succeeded when it greeted with the new version and nothing
 * spoke against it for a while.
 */
export class UpdateCampaign {
  readonly kind = 'update' as const;
  readonly #deps: UpdateCampaignDeps;

  constructor(deps: UpdateCampaignDeps) {
    this.#deps = deps;
  }

  /** @throws {UpdateInvalidError} @throws {FirmwareNotFoundError} @throws {UpdateRefusedError} */
  async prepare(author: OtaAuthor, request: unknown): Promise<UpdateRequest> {
    const { success, data, error } = updateRequestSchema.safeParse(request);
    if (!success) {
      const [issue] = error.issues;
      throw new UpdateInvalidError(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
    }
    const firmware = await this.#deps.repository.get(author.organizationId, data.firmware);
    assertOffered(firmware, this.#deps.isSignatureRequired);
    return data;
  }

  /** Begins with a device; again, after a crash, gives what there is. */
  async begin(campaign: UpdatingCampaign, { device }: UpdatingTarget): Promise<UpdateBegun> {
    const { firmware, force, ttl } = requestOf(campaign);
    const { campaignId, organizationId, createdBy: actor } = campaign;
    const ttlMs = ttl === undefined ? null : millisOf(ttl);
    const wanted = { device, firmwareId: firmware, campaignId, ttlMs, isForced: force };
    try {
      const { update } = await this.#deps.updates.begin({ organizationId, actor }, wanted);
      return { commandId: update.commandId, facts: { updateId: update.updateId } };
    } catch (error) {
      if (error instanceof UpdateRefusedError) {
        return { skipped: error.reason, detail: error.message };
      }
      if (error instanceof FirmwareNotFoundError) {
        return { skipped: 'withdrawn', detail: error.message };
      }
      throw error;
    }
  }

  /** Those of the devices of which it is clear what became of their update. */
  async judge(
    campaign: UpdatingCampaign,
    targets: readonly UpdatingTarget[],
  ): Promise<readonly UpdateVerdict[]> {
    const { organizationId, campaignId } = campaign;
    const { store, watch } = this.#deps;
    const deviceIds = targets.map(({ deviceId }) => deviceId);
    const updates = await store.ofCampaign(organizationId, campaignId, deviceIds);
    const { verdicts, failedByAlert } = await watch.judge(watchOf(campaign), updates);
    for (const { updateId, code, detail } of failedByAlert) {
      await this.#deps.updates.end(updateId, code, detail);
    }
    return verdicts;
  }

  /** Cancels what a device has not installed yet. */
  async withdraw(campaign: UpdatingCampaign, targets: readonly UpdatingTarget[]): Promise<void> {
    const { organizationId, campaignId } = campaign;
    const deviceIds = targets.map(({ deviceId }) => deviceId);
    const updates = await this.#deps.store.ofCampaign(organizationId, campaignId, deviceIds);
    const author = { organizationId, actor: campaign.createdBy };
    for (const { updateId, endedAt, state } of updates) {
      if (endedAt !== null || state === 'installing') continue;
      await this.#deps.updates.cancel(author, updateId).catch((error: unknown) => {
        // It has ended, or has just gone too far.
        if (!(error instanceof AppError) || error.retryable) throw error;
      });
    }
  }
}

function requestOf({ request }: UpdatingCampaign): UpdateRequest {
  return updateRequestSchema.parse(request);
}

function watchOf(campaign: UpdatingCampaign): WatchRequest {
  const { watch, stopOn } = requestOf(campaign);
  return { watchMs: millisOf(watch), stopOn };
}

/** NaN of what is no duration. */
function millisOf(text: string): number {
  const [, count = '', unit = ''] = DURATION.exec(text) ?? [];
  return count === '' ? Number.NaN : Number(count) * (UNIT_MS[unit] ?? Number.NaN);
}
