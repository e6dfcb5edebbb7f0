import type pg from 'pg';
import { DAY_MS, floorTo } from './levels.ts';
import type { RawCuts } from './materializer.ts';
import { isoTime } from './watermarks.ts';

/** Stands for all organizations in `raw_deletion`: partitions and chunks. */
const EVERYBODY = 0;
/** Where nothing was deleted, ms since 1970: no reading is from before. */
const NOTHING_MS = 0;
const LOCK_KEY = 'puback aggregates raw deletion';

/**
 * Runs work that nobody may do while raw readings are given up for deletion: either a note is worked
 * off before, or the one who deletes sees it and leaves its day alone. A lock of the session, because a
 * refresh of TimescaleDB takes no transaction around it.
 */
export async function withRawLock<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', [LOCK_KEY]);
  try {
    return await work();
  } finally {
    await client
      .query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [LOCK_KEY])
      .catch(() => {
        // The connection is given up, and the lock with it.
      });
  }
}

/** Reads from when on raw readings are whole: not what the settings say, but what was deleted. */
export async function readRawCuts(client: pg.Client): Promise<RawCuts> {
  const { rows } = await client.query<{ of_organization: number; before_ms: number }>(
    `SELECT of_organization, (extract(epoch FROM deleted_before) * 1000)::float8 AS before_ms
     FROM raw_deletion`,
  );
  const cuts = new Map(rows.map(({ of_organization, before_ms }) => [of_organization, before_ms]));
  const ofAll = cuts.get(EVERYBODY) ?? NOTHING_MS;
  return {
    of: (organizationId) =>
      organizationId === null ? Infinity : Math.max(cuts.get(organizationId) ?? ofAll, ofAll),
    latestMs: Math.max(ofAll, ...cuts.values()),
  };
}

/** What is to be deleted, all times in ms since 1970. */
export interface DeletionWish {
  /** Before when nobody wants raw readings any more. */
  readonly allMs: number;
  /** The same of organizations that keep less. */
  readonly ofOrganization: ReadonlyMap<number, number>;
  /** Beginning of the oldest partition of `reading`; infinity when it has none. */
  readonly oldestMs: number;
  /** Whether a refresh makes an hour of all devices at once, so that all share the latest cut. */
  readonly isShared: boolean;
}

/** Before when data of any class may be deleted now, ms since 1970, midnight UTC. */
export interface DeletionCuts {
  readonly allMs: number;
  /** Of an organization; that of all for one that was not named in the wish. */
  of(organizationId: number): number;
}

/**
 * Settles what may be deleted, and writes it down before anything is: from then on no refresh makes
 * anything of before anew. The day of a late row that is noted in `dirty_range` and not worked off is
 * left alone, and all that is newer; notes of days whose raw readings are gone hold nothing up. Reads
 * all notes once, about 0.1 s for a million of them.
 */
export function beginDeletion(client: pg.Client, wish: DeletionWish): Promise<DeletionCuts> {
  return withRawLock(client, async () => {
    const holds = await readHolds(client, wish);
    const heldMs = Math.min(...holds.values());
    const ofOrganization = new Map<number, number>();
    for (const [organizationId, wishedMs] of wish.ofOrganization) {
      const ownMs = wish.isShared ? heldMs : (holds.get(organizationId) ?? Infinity);
      ofOrganization.set(organizationId, floorTo(Math.min(wishedMs, ownMs), DAY_MS));
    }
    const allMs = floorTo(Math.min(wish.allMs, heldMs), DAY_MS);
    const begun = [[EVERYBODY, allMs] as const, ...ofOrganization].filter(
      ([, cutMs]) => wish.oldestMs < cutMs,
    );
    await noteDeleted(client, begun);
    return { allMs, of: (organizationId) => ofOrganization.get(organizationId) ?? allMs };
  });
}

/** The oldest late row of each organization that a refresh will still make an hour of. */
async function readHolds(
  client: pg.Client,
  { allMs, ofOrganization, isShared }: DeletionWish,
): Promise<Map<number, number>> {
  const latestMs = Math.max(allMs, ...ofOrganization.values());
  if (latestMs === -Infinity) return new Map();
  const { rows } = await client.query<{ organization_id: number; oldest_ms: number }>(
    `SELECT device.organization_id, (extract(epoch FROM min(hour)) * 1000)::float8 AS oldest_ms
     FROM dirty_range JOIN device USING (device_id)
     LEFT JOIN raw_deletion AS own ON own.of_organization = device.organization_id
     WHERE hour < $1::timestamptz AND hour >= GREATEST(
       own.deleted_before, 'epoch',
       (SELECT max(deleted_before) FROM raw_deletion WHERE $2 OR of_organization = ${EVERYBODY}))
     GROUP BY 1`,
    [isoTime(latestMs), isShared],
  );
  return new Map(rows.map(({ organization_id, oldest_ms }) => [organization_id, oldest_ms]));
}

/** Never takes a time back: a longer retention brings nothing back either. */
async function noteDeleted(
  client: pg.Client,
  begun: readonly (readonly [number, number])[],
): Promise<void> {
  if (begun.length === 0) return;
  await client.query(
    `INSERT INTO raw_deletion AS old
     SELECT * FROM unnest($1::int4[], $2::timestamptz[])
     ON CONFLICT (of_organization) DO UPDATE SET deleted_before = excluded.deleted_before
     WHERE old.deleted_before < excluded.deleted_before`,
    [begun.map(([owner]) => owner), begun.map(([, cutMs]) => isoTime(cutMs))],
  );
}
