import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import type { ApiClient } from './api-client.ts';
import { withDatabase } from './database-client.ts';
import type { BoardAccess } from './fleet-keys.ts';
import type { BoardPace } from './rekey-board.ts';
import { runRekeyCampaign, type CampaignOutcome } from './rekey-campaign.ts';
import {
  checkOldKeys,
  checkReadings,
  countRows,
  type OldKeyCheck,
  type ReadingCheck,
} from './rekey-check.ts';
import type { PubackTimes, RekeyCounts } from './rekey-counts.ts';
import { RekeyFleet } from './rekey-fleet.ts';

/** The program whose devices change their keys. */
export interface RekeyTarget {
  readonly api: ApiClient;
  readonly mqttUrl: string;
  readonly databaseUrl: string;
}

/** How a fleet changes its keys. */
export interface RekeyPlan {
  /** Of all its devices, and of no other ones. */
  readonly tag: string;
  readonly pace: BoardPace;
  readonly canaries: number;
  readonly waves: readonly number[];
  readonly settle: string;
  readonly deviceTimeout: string;
  /** Longest time that each step is waited for. */
  readonly timeoutMs: number;
}

/** A second load, which runs from before the campaign to its end. */
export interface SecondLoad {
  /** Slugs of its devices. */
  readonly devices: readonly string[];
  /** Starts it. @returns what ends it, and then what it has done. */
  start(): Promise<() => Promise<SecondLoadResult>>;
}

/** What a second load has done. Times are those of PUBACK. */
export interface SecondLoadResult {
  readonly perS: number;
  readonly acknowledged: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** What became of a fleet. */
export interface RekeyOutcome {
  readonly devices: number;
  /** Boards by what happened to them. */
  readonly fates: Readonly<Record<string, number>>;
  readonly campaign: CampaignOutcome;
  readonly counts: RekeyCounts;
  /** Of the boards, during the campaign. */
  readonly puback: PubackTimes;
  readonly readings: ReadingCheck;
  readonly resent: number;
  readonly oldKeys: OldKeyCheck;
  /** Connected with a new key at the end. */
  readonly rekeyed: number;
  /** Boards that do not answer, and are connected with their first key at the end. */
  readonly deafConnected: number;
  readonly load: (SecondLoadResult & { readonly stored: number }) | null;
}

/** Is told what is under way. */
export interface RekeyProgress {
  step(title: string): void;
  show(text: string): void;
}

/**
 * Lets a fleet publish, changes its keys with a campaign while a second load runs, waits for the end of the
 * old keys, and compares what was acknowledged with what is stored.
 * @throws {ToolFailedError} when a step does not end in its time.
 */
export async function rekeyFleet(
  target: RekeyTarget,
  accesses: readonly BoardAccess[],
  { plan, load, progress }: { plan: RekeyPlan; load: SecondLoad | null; progress: RekeyProgress },
): Promise<RekeyOutcome> {
  const fleet = new RekeyFleet(accesses, target.mqttUrl, plan.pace);
  try {
    progress.step('connecting the boards');
    await fleet.open(plan.timeoutMs);
    return await withDatabase(target.databaseUrl, async (client) => {
      const stopLoad = await load?.start();
      progress.step('changing their keys');
      fleet.counts.startMeasuring();
      const campaign = await runRekeyCampaign(
        target.api,
        client,
        { ...plan, canaries: canariesOf(fleet, plan) },
        (devices) => progress.show(JSON.stringify(devices)),
      );
      const puback = fleet.counts.stopMeasuring();
      const loaded = await stopLoad?.();
      progress.step('waiting for the end of the old keys');
      await graceOver(client);
      progress.step('comparing what is stored');
      await fleet.settle(plan.timeoutMs);
      const stored = load === null ? 0 : await countRows(client, load.devices);
      return {
        ...summaryOf(fleet),
        campaign,
        puback,
        readings: await checkReadings(client, fleet.boards),
        oldKeys: await checkOldKeys(
          target.mqttUrl,
          fleet.boards.flatMap(({ endedKeys }) => endedKeys),
        ),
        load: loaded === undefined ? null : { ...loaded, stored },
      };
    });
  } finally {
    await fleet.close();
  }
}

/** A device that fails on purpose is no canary: it would stop the campaign, which is right. */
function canariesOf(fleet: RekeyFleet, { canaries }: RekeyPlan): string[] {
  return fleet
    .of('none')
    .slice(0, canaries)
    .map(({ device }) => device);
}

/** Waits until the last of the old keys has ended, and its connection was closed. */
async function graceOver(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ ms: number | null }>(
    `SELECT extract(epoch FROM max(ends_at) - now())::float8 * 1000 AS ms
     FROM key_rotation WHERE activated_at IS NOT NULL`,
  );
  await delay(Math.max(0, rows[0]?.ms ?? 0) + 1000);
}

function summaryOf(
  fleet: RekeyFleet,
): Pick<RekeyOutcome, 'devices' | 'fates' | 'counts' | 'resent' | 'rekeyed' | 'deafConnected'> {
  const fates: Record<string, number> = {};
  for (const { fate } of fleet.boards) fates[fate] = (fates[fate] ?? 0) + 1;
  return {
    devices: fleet.boards.length,
    fates,
    counts: fleet.counts,
    resent: fleet.boards.reduce((sum, { outbox }) => sum + outbox.resent, 0),
    rekeyed: fleet.boards.filter(({ isRekeyed }) => isRekeyed).length,
    deafConnected: fleet.of('deaf').filter((board) => board.isConnected && !board.isRekeyed).length,
  };
}
