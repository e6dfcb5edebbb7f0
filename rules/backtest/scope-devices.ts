import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import type { RuleDevice } from '../evaluation/device-load.ts';
import type { RuleScope } from '../rule.ts';

/** A device that a rule is for, with what is known of how often it sends. */
export interface ScopeDevice extends RuleDevice {
  /** Usual longest gap between two of its messages; null while not known. */
  readonly gapP99Micros: number | null;
}

const SELECTED = `
  SELECT device.device_id, device.slug, device.tags, device.device_type, device_cadence.gap_p99_ms
  FROM device LEFT JOIN device_cadence USING (device_id)
  WHERE device.organization_id = $1`;
const DEVICES = `${SELECTED}
    AND ($2::text[] IS NULL OR device.slug = ANY($2))
    AND ($3::text[] IS NULL OR device.tags && $3)
    AND ($4::text[] IS NULL OR device.device_type = ANY($4))
  ORDER BY device.device_id`;

/** The devices of an organization that are in the scope of a rule, by id. @throws {StoreUnavailableError} */
export async function readScope(
  database: TenantDatabase,
  organizationId: number,
  { devices, tags, types }: RuleScope,
): Promise<ScopeDevice[]> {
  const values = [organizationId, devices ?? null, tags ?? null, types ?? null];
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<DeviceRow>(DEVICES, values),
  );
  return rows.map((row) => deviceOf(organizationId, row));
}

/** One device; null when it was deleted. @throws {StoreUnavailableError} */
export async function readScopeById(
  database: TenantDatabase,
  organizationId: number,
  deviceId: number,
): Promise<ScopeDevice | null> {
  const { rows } = await inOrganization(database, organizationId, ({ client }) =>
    client.query<DeviceRow>(`${SELECTED} AND device.device_id = $2`, [organizationId, deviceId]),
  );
  const [row] = rows;
  return row === undefined ? null : deviceOf(organizationId, row);
}

function deviceOf(organizationId: number, row: DeviceRow): ScopeDevice {
  return {
    deviceId: row.device_id,
    organizationId,
    slug: row.slug,
    tags: row.tags,
    type: row.device_type,
    gapP99Micros: row.gap_p99_ms === null ? null : row.gap_p99_ms * 1000,
  };
}

interface DeviceRow {
  device_id: number;
  slug: string;
  tags: string[];
  device_type: string | null;
  gap_p99_ms: number | null;
}
