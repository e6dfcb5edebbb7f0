import type { Pool } from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { DeviceClock, StoredClock } from '../firmware-protocol/device-clock.ts';

/** A device whose clock is known, or becomes so. A lane is one. */
export interface ClockOfDevice {
  readonly deviceId: number;
  readonly clock: DeviceClock;
}

/** Rows of one statement. */
const BATCH_ROWS_MAX = 1000;
const INT4_MAX = 2_147_483_647;

/** In the order of ids, so that two programs never wait for each other in a circle. */
const UPSERT = `
  INSERT INTO device_clock AS stored
    (device_id, organization_id, offset_ms, drift_ppm, samples, measured_at)
  SELECT device_id, device.organization_id, offset_ms, drift_ppm, samples,
         to_timestamp(measured_micros / 1000000.0)
  FROM unnest($1::int4[], $2::float8[], $3::float8[], $4::int4[], $5::int8[])
    AS given (device_id, offset_ms, drift_ppm, samples, measured_micros)
  JOIN device USING (device_id)
  ORDER BY device_id
  ON CONFLICT (device_id) DO UPDATE SET
    offset_ms = excluded.offset_ms, drift_ppm = excluded.drift_ppm,
    samples = excluded.samples, measured_at = excluded.measured_at`;

/**
 * Writes the table `device_clock`; lanes read it when they are loaded. It is behind what is known by up to ten minutes and the time between two
 * writings: a crash forgets that much, and nothing else.
 */
export class ClockStore {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /**
   * Writes what is new of these clocks, up to 1000 in a statement; to be called now and then. What could
   * not be written is new the next time. Rows of devices that no longer exist are left out.
   * @returns how many clocks had something new. @throws {StoreUnavailableError}
   */
  async write(clocks: Iterable<ClockOfDevice>): Promise<number> {
    let written = 0;
    let batch: ClockRow[] = [];
    // Asked for before the first statement: lanes come and go while it runs.
    for (const row of [...clocks].flatMap(newRowOf)) {
      batch.push(row);
      if (batch.length < BATCH_ROWS_MAX) continue;
      written += await this.#writeBatch(batch);
      batch = [];
    }
    return written + (batch.length === 0 ? 0 : await this.#writeBatch(batch));
  }

  async #writeBatch(rows: readonly ClockRow[]): Promise<number> {
    await guardStore(
      this.#pool.query(UPSERT, [
        rows.map(({ deviceId }) => deviceId),
        rows.map(({ stored }) => stored.offsetMs),
        rows.map(({ stored }) => stored.driftPpm),
        rows.map(({ stored }) => Math.min(stored.samples, INT4_MAX)),
        rows.map(({ stored }) => Math.round(stored.measuredMicros)),
      ]),
    );
    for (const { clock, stored } of rows) clock.markStored(stored);
    return rows.length;
  }
}

interface ClockRow extends ClockOfDevice {
  readonly stored: StoredClock;
}

function newRowOf({ deviceId, clock }: ClockOfDevice): ClockRow[] {
  const stored = clock.isUnstored ? clock.stored : null;
  return stored === null ? [] : [{ deviceId, clock, stored }];
}
