import mqtt from 'mqtt';
import type pg from 'pg';
import { inParallel } from './fleet-keys.ts';
import type { RekeyBoard } from './rekey-board.ts';

/** What the database has of the readings of a fleet. */
export interface ReadingCheck {
  /** Readings that were acknowledged and are there. */
  readonly acknowledged: number;
  /** Readings that were acknowledged and are not there. */
  readonly missing: number;
  /** Rows of a reading that is there once already, at whatever time. */
  readonly twice: number;
  /** Rows at another time than the reading was made. */
  readonly different: number;
  /** Readings without PUBACK. */
  readonly unacknowledged: number;
}

/** What keys that must have ended open. */
export interface OldKeyCheck {
  readonly tried: number;
  /** Answered with CONNACK 5. */
  readonly refused: number;
  /** What the others were answered with. */
  readonly others: readonly string[];
}

const BOARDS_AT_ONCE = 100;
const CONNECTS_AT_ONCE = 20;
const OTHERS_MAX = 5;
const NOT_AUTHORIZED = 5;

/** Compares each reading of each board, by its number and time, with the rows of the database. */
export async function checkReadings(
  client: pg.Client,
  boards: readonly RekeyBoard[],
): Promise<ReadingCheck> {
  const total = { acknowledged: 0, missing: 0, twice: 0, different: 0, unacknowledged: 0 };
  for (let from = 0; from < boards.length; from += BOARDS_AT_ONCE) {
    const some = boards.slice(from, from + BOARDS_AT_ONCE);
    const rows = await readRows(client, some);
    for (const board of some) compare(board, rows.get(board.device) ?? [], total);
  }
  return total;
}

function compare(
  { outbox }: RekeyBoard,
  rows: readonly NumberedRow[],
  total: { -readonly [Count in keyof ReadingCheck]: number },
): void {
  const seen = new Set<number>();
  for (const { n, ms } of rows) {
    if (seen.has(n)) total.twice += 1;
    seen.add(n);
    if (outbox.timesMs[n - 1] !== ms) total.different += 1;
  }
  outbox.timesMs.forEach((timeMs, index) => {
    if (outbox.isWaiting(timeMs)) total.unacknowledged += 1;
    else if (seen.has(index + 1)) total.acknowledged += 1;
    else total.missing += 1;
  });
}

/** Rows of these devices in the database. */
export async function countRows(client: pg.Client, devices: readonly string[]): Promise<number> {
  const { rows } = await client.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM reading JOIN device USING (device_id)
     WHERE slug = ANY($1)`,
    [devices],
  );
  return rows[0]?.count ?? NaN;
}

/** Tries to connect with each of the keys. */
export async function checkOldKeys(mqttUrl: string, keys: readonly string[]): Promise<OldKeyCheck> {
  const others: string[] = [];
  let refused = 0;
  await inParallel(keys, CONNECTS_AT_ONCE, async (key) => {
    const answer = await connackOf(mqttUrl, key);
    if (answer === NOT_AUTHORIZED) refused += 1;
    else if (others.length < OTHERS_MAX) others.push(`${key.slice(0, 12)}: ${answer}`);
  });
  return { tried: keys.length, refused, others };
}

/** @returns the code of CONNACK; -1: closed without one. */
async function connackOf(mqttUrl: string, key: string): Promise<number> {
  try {
    const client = await mqtt.connectAsync(mqttUrl, {
      username: 'device',
      password: key,
      protocolVersion: 4,
      reconnectPeriod: 0,
    });
    await client.endAsync();
    return 0;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    return typeof code === 'number' ? code : -1;
  }
}

interface NumberedRow {
  readonly n: number;
  readonly ms: number;
}

async function readRows(
  client: pg.Client,
  boards: readonly RekeyBoard[],
): Promise<Map<string, NumberedRow[]>> {
  const { rows } = await client.query<NumberedRow & { device: string }>(
    `SELECT slug AS device, value AS n, round(extract(epoch FROM time) * 1000)::float8 AS ms
     FROM reading JOIN device USING (device_id) JOIN metric USING (metric_id)
     WHERE slug = ANY($1) AND metric.name = 'n'`,
    [boards.map(({ device }) => device)],
  );
  const byDevice = new Map<string, NumberedRow[]>();
  for (const row of rows) {
    const own = byDevice.get(row.device);
    if (own === undefined) byDevice.set(row.device, [row]);
    else own.push(row);
  }
  return byDevice;
}
