import type pg from 'pg';
import { Counter, Gauge, type Registry } from 'prom-client';
import { guardStore } from '../drizzle/sqlstate.ts';

/** How much quarantine keeps. */
export interface QuarantineBounds {
  readonly ageMaxMs: number;
  /** Messages of one device that were refused. */
  readonly rowsPerDeviceMax: number;
  /** Messages of one device that were kept apart because it is in quarantine as a whole. */
  readonly apartRowsPerDeviceMax: number;
}

/** Why messages are deleted: too old, or too many of those refused, or of those kept apart. */
export const EXPIRY_REASONS = ['age', 'count', 'apart_count'] as const;
/** One of {@link EXPIRY_REASONS}. */
export type ExpiryReason = (typeof EXPIRY_REASONS)[number];

/** Counts of quarantine. */
export class QuarantineMetrics {
  readonly #expired: Counter<'reason'>;
  readonly #messages: Gauge;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#expired = new Counter({
      name: 'puback_quarantine_expired_messages_total',
      help: 'Messages deleted from quarantine because they were too old or too many, by reason.',
      labelNames: ['reason'],
      registers,
    });
    for (const reason of EXPIRY_REASONS) this.#expired.inc({ reason }, 0);
    this.#messages = new Gauge({
      name: 'puback_quarantine_messages',
      help: 'Messages in quarantine, of all organizations, when it was last pruned.',
      registers,
    });
  }

  countExpired(reason: ExpiryReason, messages: number): void {
    this.#expired.inc({ reason }, messages);
  }

  noteMessages(messages: number): void {
    this.#messages.set(messages);
  }
}

/** Rows that one statement deletes, so that it stays far below the statement timeout. */
const DELETE_ROWS_MAX = 5000;
/** Statements of one call; what is left waits for the next call. */
const DELETES_MAX = 100;

/**
 * Deletes what is too old and what is too much for one device, oldest first, in small transactions. To
 * be called every minute or so. @returns how many were deleted. @throws {StoreUnavailableError}
 */
export async function pruneQuarantine(
  pool: pg.Pool,
  bounds: QuarantineBounds,
  metrics: QuarantineMetrics | null = null,
): Promise<number> {
  const budget = { statements: DELETES_MAX };
  const tooOld = await deleteOldest(
    pool,
    `SELECT quarantine_id FROM quarantine
     WHERE received_at < now() - $1 * interval '1 millisecond' ORDER BY received_at LIMIT $2`,
    [bounds.ageMaxMs],
    { rows: Infinity, budget },
  );
  metrics?.countExpired('age', tooOld);
  let deleted = tooOld;
  const groups = await countGroups(pool);
  for (const { deviceId, isApart, messages } of groups) {
    const max = isApart ? bounds.apartRowsPerDeviceMax : bounds.rowsPerDeviceMax;
    if (messages <= max) continue;
    const expired = await deleteOldest(
      pool,
      `SELECT quarantine_id FROM quarantine
       WHERE device_id = $1 AND (code = 'device_quarantined') = $3
       ORDER BY quarantine_id LIMIT $2`,
      [deviceId, isApart],
      { rows: messages - max, budget },
    );
    metrics?.countExpired(isApart ? 'apart_count' : 'count', expired);
    deleted += expired;
  }
  const counted = groups.reduce((sum, { messages }) => sum + messages, 0);
  metrics?.noteMessages(counted + tooOld - deleted);
  return deleted;
}

interface Group {
  readonly deviceId: number;
  readonly isApart: boolean;
  readonly messages: number;
}

async function countGroups(pool: pg.Pool): Promise<Group[]> {
  const { rows } = await guardStore(
    pool.query<{ device_id: number; is_apart: boolean; messages: number }>(
      `SELECT device_id, code = 'device_quarantined' AS is_apart, count(*)::float8 AS messages
       FROM quarantine GROUP BY 1, 2`,
    ),
  );
  return rows.map((row) => ({
    deviceId: row.device_id,
    isApart: row.is_apart,
    messages: row.messages,
  }));
}

/** @param values $1 and from $3 on; $2 is the number of rows. */
async function deleteOldest(
  pool: pg.Pool,
  select: string,
  [first, ...others]: readonly unknown[],
  { rows, budget }: { rows: number; budget: { statements: number } },
): Promise<number> {
  let deleted = 0;
  while (deleted < rows && budget.statements > 0) {
    budget.statements -= 1;
    const most = Math.min(DELETE_ROWS_MAX, rows - deleted);
    const { rowCount } = await guardStore(
      pool.query(`DELETE FROM quarantine WHERE quarantine_id IN (${select})`, [
        first,
        most,
        ...others,
      ]),
    );
    deleted += rowCount ?? 0;
    if ((rowCount ?? 0) < most) break;
  }
  return deleted;
}
