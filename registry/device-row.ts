import { and, eq } from 'drizzle-orm';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import { device } from '../drizzle/schema.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import { DeviceNotFoundError } from '../errors.ts';
import { DEVICE_NAME } from '../firmware-protocol/contract.ts';

/** A row of `device`. */
export type DeviceRow = typeof device.$inferSelect;

/**
 * The row of a device, by its organization and slug.
 * @param isLocked holds the row until the transaction ends, so that what is counted stays true.
 * @throws {DeviceNotFoundError} also for a device of another organization and for a text that
 * cannot be a device's name. @throws {StoreUnavailableError}
 */
export async function getDeviceRow(
  orm: Pick<NodePgDatabase, 'select'>,
  organizationId: number,
  slug: string,
  isLocked = false,
): Promise<DeviceRow> {
  if (!DEVICE_NAME.test(slug)) throw new DeviceNotFoundError(slug);
  const query = orm
    .select()
    .from(device)
    .where(and(eq(device.organizationId, organizationId), eq(device.slug, slug)));
  const [row] = await guardStore(isLocked ? query.for('update') : query);
  if (row === undefined) throw new DeviceNotFoundError(slug);
  return row;
}
