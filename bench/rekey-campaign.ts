import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { ToolFailedError } from '../errors.ts';
import type { ApiClient } from './api-client.ts';

/** A campaign over a fleet. */
export interface CampaignPlan {
  readonly tag: string;
  /** Slugs. */
  readonly canaries: readonly string[];
  readonly waves: readonly number[];
  readonly settle: string;
  readonly deviceTimeout: string;
  /** Longest time that it is waited for. */
  readonly timeoutMs: number;
}

/** How fast one wave went; those that failed are not in the times. */
export interface WaveTimes {
  readonly wave: number;
  readonly succeeded: number;
  readonly failed: number;
  /** From the begin of the first device to the success of the last, in seconds. */
  readonly seconds: number;
  /** From the begin of a device to its success, in seconds. */
  readonly p50S: number;
  readonly p99S: number;
  readonly maxS: number;
}

/** What became of a campaign. */
export interface CampaignOutcome {
  readonly state: string;
  readonly stopReason: string | null;
  /** From the request to the end of the last device, in seconds. */
  readonly seconds: number;
  readonly devices: Readonly<Record<string, number>>;
  /** `device code` of those that did not succeed. */
  readonly others: readonly string[];
  readonly waves: readonly WaveTimes[];
  /** States of the commands of the campaign. */
  readonly commands: Readonly<Record<string, number>>;
}

const POLL_MS = 250;
const PER_MINUTE = 6000;
const AT_ONCE = 500;

/** Changes the keys of a fleet with a campaign, and waits for its end. @throws {ToolFailedError} */
export async function runRekeyCampaign(
  api: ApiClient,
  client: pg.Client,
  plan: CampaignPlan,
  advance: (devices: Readonly<Record<string, number>>) => void,
): Promise<CampaignOutcome> {
  const startedMs = performance.now();
  const { id } = await api.make('/api/v1/campaigns', {
    kind: 'rekey',
    name: 'new keys for all',
    targets: { tags: [plan.tag] },
    request: {},
    policy: {
      canary: plan.canaries,
      waves: plan.waves,
      ratePerMinute: PER_MINUTE,
      concurrent: AT_ONCE,
      settle: plan.settle,
      deviceTimeout: plan.deviceTimeout,
    },
  });
  for (;;) {
    const campaign = await api.read(`/api/v1/campaigns/${String(id)}`);
    const devices = campaign['devices'] as Record<string, number>;
    advance(devices);
    const seconds = (performance.now() - startedMs) / 1000;
    if (campaign['endedAt'] !== null) {
      return {
        state: String(campaign['state']),
        stopReason: campaign['stopReason'] as string | null,
        seconds,
        devices,
        others: await readOthers(client, String(id)),
        waves: await readWaves(client, String(id)),
        commands: await readCommands(client, String(id)),
      };
    }
    if (seconds * 1000 > plan.timeoutMs) {
      throw new ToolFailedError(`the campaign does not end: ${JSON.stringify(devices)}`);
    }
    await delay(POLL_MS);
  }
}

async function readOthers(client: pg.Client, campaignId: string): Promise<string[]> {
  const { rows } = await client.query<{ text: string }>(
    `SELECT slug || ' ' || coalesce(code, '') AS text
     FROM campaign_device JOIN device USING (device_id)
     WHERE campaign_id = $1 AND campaign_device.state <> 'succeeded' ORDER BY slug`,
    [campaignId],
  );
  return rows.map(({ text }) => text);
}

async function readWaves(client: pg.Client, campaignId: string): Promise<WaveTimes[]> {
  const { rows } = await client.query<WaveTimes>(
    `WITH one AS (
       SELECT wave, state, started_at, ended_at,
         CASE WHEN state = 'succeeded'
           THEN extract(epoch FROM ended_at - started_at)::float8 END AS took
       FROM campaign_device WHERE campaign_id = $1
     )
     SELECT wave,
       (count(*) FILTER (WHERE state = 'succeeded'))::int4 AS succeeded,
       (count(*) FILTER (WHERE state <> 'succeeded'))::int4 AS failed,
       extract(epoch FROM max(ended_at) FILTER (WHERE state = 'succeeded')
         - min(started_at))::float8 AS seconds,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY took) AS "p50S",
       percentile_cont(0.99) WITHIN GROUP (ORDER BY took) AS "p99S",
       max(took) AS "maxS"
     FROM one GROUP BY wave ORDER BY wave`,
    [campaignId],
  );
  return rows;
}

async function readCommands(
  client: pg.Client,
  campaignId: string,
): Promise<Record<string, number>> {
  const { rows } = await client.query<{ state: string; count: number }>(
    `SELECT command.state, count(*)::int4 AS count
     FROM campaign_device JOIN command USING (command_id)
     WHERE campaign_device.campaign_id = $1 GROUP BY command.state ORDER BY command.state`,
    [campaignId],
  );
  return Object.fromEntries(rows.map(({ state, count }) => [state, count]));
}
