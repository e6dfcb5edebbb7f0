import type { Registry as MetricsRegistry } from 'prom-client';
import type { TenantDatabase } from '../drizzle/transaction.ts';
import type { Logger } from '../log.ts';
import { Downloads } from './downloads.ts';
import { createFirmwareRepository } from './firmware-repository.ts';
import { createSigners } from './firmware-signers.ts';
import type { FirmwareRepository, Signers } from './firmware.ts';
import { OtaMetrics } from './metrics.ts';
import type { FiringAlerts, UpdateCommands, WriteAudit } from './ports.ts';
import { UpdateCampaign } from './update-campaign.ts';
import { UpdateStore } from './update-store.ts';
import type { UpdateLimits } from './update-sweep.ts';
import { CampaignWatch } from './update-watch.ts';
import type { Updates } from './update.ts';
import { UpdateDesk } from './updates.ts';

/** Bounds of firmware and updates. */
export interface OtaLimits extends UpdateLimits {
  readonly imageBytesMax: number;
  /** Images of an organization that are not withdrawn. */
  readonly imagesMax: number;
  /** Uploads at once. */
  readonly uploadsMax: number;
  /** Downloads at once. */
  readonly downloadsMax: number;
  /** Bytes a second of all downloads together; 0: no bound. */
  readonly downloadBytesPerS: number;
  /** How long after a device was last heard of its link is open. */
  readonly linkMs: number;
  readonly isSignatureRequired: boolean;
  /** How often open updates are looked at. */
  readonly sweepMs: number;
}

/** What {@link createOta} needs. */
export interface OtaDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly commands: UpdateCommands;
  readonly firingAlerts: FiringAlerts;
  /** Secret for the links, at least 32 bytes; links that were made with another one do not hold. */
  readonly signingKey: Buffer;
  /** Address under which devices reach HTTP; asked for each update. */
  readonly publicUrl: () => string;
  readonly limits: OtaLimits;
  readonly metricsRegistry: MetricsRegistry;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
}

/** Firmware and updates of all organizations. */
export interface Ota {
  readonly firmware: FirmwareRepository;
  readonly signers: Signers;
  readonly updates: Updates;
  readonly downloads: Downloads;
  /** The kind `update` of campaigns. */
  readonly campaignKind: UpdateCampaign;
  /** Goes on with the updates that have not ended. @throws {StoreUnavailableError} */
  start(): Promise<void>;
  /** Ends downloads, and resolves behind the work under way. */
  stop(): Promise<void>;
}

/** Longest wait for the next bytes of an upload. */
const UPLOAD_IDLE_MS = 30_000;
/** Longest upload. */
const UPLOAD_MS_MAX = 600_000;

/** Joins the parts of firmware and updates. Nothing happens before {@link Ota.start}. */
export function createOta(deps: OtaDeps): Ota {
  const { database, limits, now, writeAudit, signingKey } = deps;
  const { isSignatureRequired } = limits;
  const metrics = new OtaMetrics(deps.metricsRegistry, () => ({
    downloads: downloads.count,
    downloadsMax: limits.downloadsMax,
    openUpdates: updates.openCount,
  }));
  const signers = createSigners(database, writeAudit);
  const bounds = {
    bytesMax: limits.imageBytesMax,
    idleMs: UPLOAD_IDLE_MS,
    wholeMs: UPLOAD_MS_MAX,
  };
  const { uploadsMax, imagesMax } = limits;
  const taking = { bounds, uploadsMax, imagesMax, isSignatureRequired };
  const shared = { database, writeAudit, metrics, now };
  const firmware = createFirmwareRepository({ ...shared, ...taking, signers });
  const store = new UpdateStore(database, now);
  const updates = new UpdateDesk({
    ...deps,
    ...limits,
    store,
    metrics,
    closeDownload: (updateId) => downloads.close(updateId),
  });
  const downloads = new Downloads({
    pool: database.pool,
    signingKey,
    downloadsMax: limits.downloadsMax,
    bytesPerS: limits.downloadBytesPerS,
    linkMs: limits.linkMs,
    metrics,
    noteSent: (updateId, range) => updates.noteSent(updateId, range),
    now,
  });
  const watch = new CampaignWatch({ ...deps, ...limits, pool: database.pool });
  const parts = { repository: firmware, updates, store, watch };
  const campaignKind = new UpdateCampaign({ ...deps, ...parts, isSignatureRequired });
  return {
    firmware,
    signers,
    updates,
    downloads,
    campaignKind,
    start: () => updates.start(),
    async stop() {
      downloads.stop();
      await updates.stop();
    },
  };
}
