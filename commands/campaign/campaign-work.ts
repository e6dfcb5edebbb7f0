import type pg from 'pg';
import { guardStore } from '../../drizzle/sqlstate.ts';
import type { CampaignDeviceState } from './campaign.ts';
import type { CampaignTarget, CampaignVerdict, RunningCampaign } from './campaign-kind.ts';
import { RATE_WINDOW_MS, pacingSpan, type CampaignProgress } from './campaign-policy.ts';
import {
  CAMPAIGN_COLUMNS,
  NO_DEVICES,
  countWaves,
  sumCounts,
  type CampaignRow,
} from './campaign-row.ts';

/** Statements of the engine. They run for all organizations, on the pool or in a transaction. */
type Queries = Pick<pg.PoolClient, 'query'>;

/** `code` of a device whose begin was not heard of to its end. */
export const BEGINNING = 'beginning';

/** A device under way. */
export interface ActiveDevice extends CampaignTarget {
  readonly startedAt: Date;
  /** Its begin was not heard of to its end: it is under way now, or a crash came between. */
  readonly isBeginning: boolean;
  readonly isDisabled: boolean;
}

/** Of those that wait in a wave, so many are looked at for ones that are online. */
const LOOK_AHEAD_DEVICES = 500;

/** Campaigns that have not ended, oldest first. */
export async function listOpen(pool: pg.Pool): Promise<string[]> {
  const { rows } = await guardStore(
    pool.query<{ campaign_id: string }>(
      'SELECT campaign_id FROM campaign WHERE ended_at IS NULL ORDER BY campaign_id',
    ),
  );
  return rows.map((row) => row.campaign_id);
}

/** A campaign that has not ended. */
export interface OpenCampaign extends CampaignRow {
  /** Its organization is: nothing is begun. */
  readonly isSuspended: boolean;
}

/** A campaign that has not ended. @returns null: it has, or is gone. */
export async function findOpen(
  queries: Queries,
  campaignId: string,
  isLocked = false,
): Promise<OpenCampaign | null> {
  const { rows } = await guardStore(
    queries.query<OpenCampaign>(
      `SELECT ${CAMPAIGN_COLUMNS}, (
         SELECT suspended_at IS NOT NULL FROM organization
         WHERE organization.organization_id = campaign.organization_id
       ) AS "isSuspended" FROM campaign WHERE campaign_id = $1 AND ended_at IS NULL
       ${isLocked ? 'FOR NO KEY UPDATE' : ''}`,
      [campaignId],
    ),
  );
  return rows[0] ?? null;
}

/** What its kind needs to know of a campaign. */
export function runningOf(campaign: CampaignRow): RunningCampaign {
  const { campaignId, organizationId, request, createdBy, policy } = campaign;
  const { deviceTimeoutMs } = policy;
  return { campaignId, organizationId, request, createdBy, deviceTimeoutMs };
}

const ACTIVE_COLUMNS = `device.device_id AS "deviceId", device.slug AS device,
  device.device_type AS "deviceType", campaign_device.command_id AS "commandId",
  campaign_device.facts, campaign_device.started_at AS "startedAt",
  coalesce(campaign_device.code = '${BEGINNING}', false) AS "isBeginning",
  device.disabled_at IS NOT NULL AS "isDisabled"`;

/** Devices under way, at most as many as may be at a time. */
export async function listActive(queries: Queries, campaignId: string): Promise<ActiveDevice[]> {
  const { rows } = await guardStore(
    queries.query<ActiveDevice>(
      `SELECT ${ACTIVE_COLUMNS} FROM campaign_device JOIN device USING (device_id)
       WHERE campaign_id = $1 AND state = 'active' ORDER BY position`,
      [campaignId],
    ),
  );
  return rows;
}

interface ProgressRow {
  readonly wave: number;
  readonly state: CampaignDeviceState;
  readonly devices: number;
  readonly lastEndedAt: Date | null;
  readonly inMinute: number;
  readonly inSpan: number;
}

/** Counts a campaign, whose row is held. */
export async function readProgress(
  queries: Queries,
  campaign: OpenCampaign,
  nowMs: number,
): Promise<CampaignProgress> {
  const { campaignId, policy, wave, state, isSuspended } = campaign;
  const { rows } = await queries.query<ProgressRow>(
    `SELECT wave, state, count(*)::int4 AS devices,
       max(ended_at) FILTER (WHERE state IN ('succeeded', 'failed')) AS "lastEndedAt",
       (count(*) FILTER (WHERE started_at > $2 AND started_at <= $4))::int4 AS "inMinute",
       (count(*) FILTER (WHERE started_at > $3 AND started_at <= $4))::int4 AS "inSpan"
     FROM campaign_device WHERE campaign_id = $1 GROUP BY wave, state`,
    [
      campaignId,
      new Date(nowMs - RATE_WINDOW_MS),
      new Date(nowMs - pacingSpan(policy).spanMs),
      // What lies further ahead was begun before the clock was set back.
      new Date(nowMs + RATE_WINDOW_MS),
    ],
  );
  const waves = countWaves(rows);
  const all = sumCounts(waves);
  const later = waves.filter((counts) => counts.wave > wave && counts.waiting > 0);
  const ended = rows.flatMap((row) =>
    row.wave === wave && row.lastEndedAt !== null ? [row.lastEndedAt.getTime()] : [],
  );
  return {
    nowMs,
    isPaused: state === 'paused' || isSuspended,
    wave,
    counts: waves.find((counts) => counts.wave === wave) ?? { wave, ...NO_DEVICES },
    lastEndedMs: ended.length === 0 ? null : Math.max(...ended),
    waitingLater: sumCounts(later).waiting,
    nextWave: later[0]?.wave ?? null,
    active: all.active,
    failed: all.failed,
    begunInMinute: rows.reduce((sum, row) => sum + row.inMinute, 0),
    begunInSpan: rows.reduce((sum, row) => sum + row.inSpan, 0),
  };
}

/**
 * Takes devices of the wave under way whose turn has come, those that are online first. They are active
 * from COMMIT on, and are begun with behind it.
 */
export async function claimDevices(
  queries: Queries,
  { campaignId, wave }: CampaignRow,
  { devices, nowMs, isOnline }: ClaimOrder,
): Promise<ActiveDevice[]> {
  const waiting = await queries.query<{ device_id: number }>(
    `SELECT device_id FROM campaign_device
     WHERE campaign_id = $1 AND state = 'waiting' AND wave = $2 ORDER BY position LIMIT $3`,
    [campaignId, wave, Math.max(LOOK_AHEAD_DEVICES, devices)],
  );
  const ids = waiting.rows.map((row) => row.device_id);
  const ranked = [...ids.filter((id) => isOnline(id)), ...ids.filter((id) => !isOnline(id))];
  const { rows } = await queries.query<ActiveDevice>(
    `UPDATE campaign_device SET state = 'active', code = '${BEGINNING}', started_at = $3
     FROM device
     WHERE campaign_id = $1 AND campaign_device.device_id = ANY($2) AND state = 'waiting'
       AND device.device_id = campaign_device.device_id
     RETURNING ${ACTIVE_COLUMNS}`,
    [campaignId, ranked.slice(0, devices), new Date(nowMs)],
  );
  const places = new Map(ranked.map((id, place) => [id, place]));
  const placeOf = ({ deviceId }: ActiveDevice): number => places.get(deviceId) ?? 0;
  return rows.toSorted((a, b) => placeOf(a) - placeOf(b));
}

/** See {@link claimDevices}. */
export interface ClaimOrder {
  /** At most so many. */
  readonly devices: number;
  readonly nowMs: number;
  readonly isOnline: (deviceId: number) => boolean;
}

/** Makes the first devices of later waves canaries. */
export async function promoteDevices(
  queries: Queries,
  { campaignId }: CampaignRow,
  devices: number,
): Promise<void> {
  await queries.query(
    `UPDATE campaign_device SET wave = 0
     WHERE campaign_id = $1 AND device_id IN (
       SELECT device_id FROM campaign_device WHERE campaign_id = $1 AND state = 'waiting'
       ORDER BY position LIMIT $2)`,
    [campaignId, devices],
  );
}

/** Notes what a kind made when it began with a device. */
export async function noteBegun(
  queries: Queries,
  { campaignId }: RunningCampaign,
  deviceId: number,
  { commandId, facts }: Pick<CampaignTarget, 'commandId' | 'facts'>,
): Promise<void> {
  await guardStore(
    queries.query(
      `UPDATE campaign_device SET command_id = $3, facts = $4, code = NULL
       WHERE campaign_id = $1 AND device_id = $2 AND state = 'active' AND code = '${BEGINNING}'`,
      [campaignId, deviceId, commandId, JSON.stringify(facts)],
    ),
  );
}

/**
 * Ends devices that are under way. One of which its kind had nothing to do does not count for the rate.
 * @returns verdicts that were taken; the others came for devices that had ended.
 */
export async function endDevices(
  queries: Queries,
  campaignId: string,
  verdicts: readonly CampaignVerdict[],
  nowMs: number,
): Promise<CampaignVerdict[]> {
  if (verdicts.length === 0) return [];
  const { rows } = await guardStore(
    queries.query<{ device_id: number }>(
      `UPDATE campaign_device SET state = verdict.state, code = verdict.code,
         detail = verdict.detail, ended_at = $6,
         started_at = CASE WHEN campaign_device.code = '${BEGINNING}' AND verdict.state = 'skipped'
           THEN NULL ELSE started_at END
       FROM unnest($2::int4[], $3::text[], $4::text[], $5::text[])
         AS verdict (device_id, state, code, detail)
       WHERE campaign_id = $1 AND campaign_device.device_id = verdict.device_id
         AND campaign_device.state = 'active'
       RETURNING campaign_device.device_id`,
      [
        campaignId,
        verdicts.map(({ deviceId }) => deviceId),
        verdicts.map(({ state }) => state),
        verdicts.map(({ code }) => code),
        verdicts.map(({ detail }) => detail),
        new Date(nowMs),
      ],
    ),
  );
  const taken = new Set(rows.map((row) => row.device_id));
  return verdicts.filter(({ deviceId }) => taken.has(deviceId));
}
