import { ConfigurationChangedError, ConfigurationVersionNotFoundError } from '../command-errors.ts';
import { cutPage, type Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { DeviceNotFoundError } from '../errors.ts';
import { DEVICE_NAME } from '../firmware-protocol/contract.ts';
import type {
  ConfigurationAuthor,
  ConfigurationEdit,
  ConfigurationQuery,
  Configurations,
  ConfigurationVersion,
  DeviceConfiguration,
  Document,
  WriteAudit,
} from './configuration.ts';
import {
  addRows,
  configurationOf,
  DRIFTS,
  lockRows,
  readRows,
  saveRows,
  type ConfigurationRow,
  type ConfigurationSave,
} from './configuration-row.ts';
import { setDesired } from './configuration-step.ts';
import { assertDocument, readSchema } from './document-check.ts';
import { mergePatch } from './merge-patch.ts';

/** What {@link createDeviceStore} needs. */
export interface DeviceStoreDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly documentBytesMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Told after COMMIT of each new version. */
  readonly onVersion: (save: ConfigurationSave & { readonly row: ConfigurationRow }) => void;
}

/** What people do with the configuration of one device. */
export type DeviceStore = Pick<Configurations, 'get' | 'list' | 'edit' | 'versions' | 'version'>;

/** Makes {@link DeviceStore}. */
export function createDeviceStore(deps: DeviceStoreDeps): DeviceStore {
  const { database } = deps;
  const at = (): Date => new Date(deps.now());
  return {
    get: (organizationId, device) =>
      inOrganization(database, organizationId, async (transaction) =>
        configurationOf(await findRow(transaction, organizationId, device, at())),
      ),
    list: (query) =>
      inOrganization(database, query.organizationId, (transaction) =>
        listRows(transaction, query, at()),
      ),
    edit: (author, edit) => editDevice(deps, author, edit),
    versions: ({ organizationId, device, limit, before }) =>
      inOrganization(database, organizationId, async (transaction) => {
        const row = await findRow(transaction, organizationId, device, at());
        return listVersions(transaction, row, { limit, before });
      }),
    version: (organizationId, device, version) =>
      inOrganization(database, organizationId, async (transaction) => {
        const row = await findRow(transaction, organizationId, device, at());
        return getVersion(transaction, row, version);
      }),
  };
}

async function findRow(
  { client }: Transaction,
  organizationId: number,
  device: string,
  at: Date,
): Promise<ConfigurationRow> {
  if (!DEVICE_NAME.test(device)) throw new DeviceNotFoundError(device);
  const [row] = await readRows(client, 'WHERE device.organization_id = $2 AND device.slug = $3', [
    at,
    organizationId,
    device,
  ]);
  if (row === undefined) throw new DeviceNotFoundError(device);
  return row;
}

async function listRows(
  { client }: Transaction,
  { organizationId, isDrifting, type, limit, after }: ConfigurationQuery,
  at: Date,
): Promise<Page<DeviceConfiguration>> {
  const rows = await readRows(
    client,
    `WHERE device.organization_id = $2 AND stored.organization_id = $2 AND stored.version > 0
       AND ($3::text IS NULL OR device.slug > $3) AND ($4::text IS NULL OR device.device_type = $4)
       ${isDrifting ? `AND ${DRIFTS}` : ''}
     ORDER BY device.slug LIMIT $5`,
    [at, organizationId, after, type, limit + 1],
  );
  return cutPage(rows.map(configurationOf), limit);
}

async function editDevice(
  deps: DeviceStoreDeps,
  author: ConfigurationAuthor,
  { device, version, change }: ConfigurationEdit,
): Promise<DeviceConfiguration> {
  const { organizationId, actor } = author;
  const at = new Date(deps.now());
  const saved = await inOrganization(deps.database, organizationId, async (transaction) => {
    const { client, orm } = transaction;
    const row = await lockRow(transaction, organizationId, device, at);
    if (version !== null && version !== row.version) {
      throw new ConfigurationChangedError(version, row.version);
    }
    const desired = await desiredOf(transaction, row, change);
    assertDocument(desired, 'what is desired', deps.documentBytesMax);
    const stepped = setDesired(row, readSchema(row.schema), desired, { by: actor, at });
    if (stepped.cause === null) return { row, ...stepped };
    assertDocument(stepped.state.document, 'the document', deps.documentBytesMax);
    const save = { row, ...stepped };
    await saveRows(client, [save]);
    await deps.writeAudit(orm, {
      organizationId,
      actor,
      action: change.kind === 'restore' ? 'configuration.restore' : 'configuration.update',
      subject: `device/${device}/configuration`,
      change: {
        version: stepped.state.version,
        desired,
        ...(change.kind === 'restore' ? { restored: change.version } : {}),
      },
    });
    return save;
  });
  if (saved.cause !== null) deps.onVersion(saved);
  const isDrifting = saved.row.isDrifting && saved.state.differsSince !== null;
  return configurationOf({ ...saved.row, ...saved.state, isDrifting });
}

async function lockRow(
  transaction: Transaction,
  organizationId: number,
  device: string,
  at: Date,
): Promise<ConfigurationRow> {
  const { client } = transaction;
  const { deviceId } = await findRow(transaction, organizationId, device, at);
  // Before its configuration, as a deletion does.
  await client.query('SELECT FROM device WHERE device_id = $1 FOR KEY SHARE', [deviceId]);
  await addRows(client, [deviceId], at);
  const [row] = await lockRows(client, [deviceId], at);
  if (row === undefined) throw new DeviceNotFoundError(device);
  return row;
}

async function desiredOf(
  transaction: Transaction,
  row: ConfigurationRow,
  change: ConfigurationEdit['change'],
): Promise<Document> {
  switch (change.kind) {
    case 'put':
      return change.desired;
    case 'patch':
      // Before it is walked through: its depth is whatever somebody sent.
      assertDocument(change.patch, 'the patch', Number.MAX_SAFE_INTEGER);
      return mergePatch(row.desired, change.patch) as Document;
    case 'restore':
      return (await getVersion(transaction, row, change.version)).desired;
  }
}

interface VersionColumns {
  version: number;
  desired: Document;
  document: Document;
  cause: ConfigurationVersion['cause'];
  created_at: Date;
  created_by: string;
}

const VERSIONS = `SELECT version::float8, desired, document, cause, created_at, created_by
  FROM device_configuration_version WHERE organization_id = $1 AND device_id = $2`;

async function listVersions(
  { client }: Transaction,
  { organizationId, deviceId }: ConfigurationRow,
  { limit, before }: { readonly limit: number; readonly before: number | null },
): Promise<Page<ConfigurationVersion>> {
  const { rows } = await client.query<VersionColumns>(
    `${VERSIONS} AND ($3::int8 IS NULL OR version < $3) ORDER BY version DESC LIMIT $4`,
    [organizationId, deviceId, before, limit + 1],
  );
  return cutPage(rows.map(versionOf), limit);
}

async function getVersion(
  { client }: Transaction,
  { organizationId, deviceId, device }: ConfigurationRow,
  version: number,
): Promise<ConfigurationVersion> {
  const { rows } = await client.query<VersionColumns>(`${VERSIONS} AND version = $3`, [
    organizationId,
    deviceId,
    version,
  ]);
  const [row] = rows;
  if (row === undefined) throw new ConfigurationVersionNotFoundError(device, version);
  return versionOf(row);
}

function versionOf(row: VersionColumns): ConfigurationVersion {
  return {
    version: row.version,
    desired: row.desired,
    document: row.document,
    cause: row.cause,
    createdAt: row.created_at,
    createdBy: row.created_by,
  };
}
