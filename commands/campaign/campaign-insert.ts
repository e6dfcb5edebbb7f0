import { createHash } from 'node:crypto';
import type { Transaction } from '../../drizzle/transaction.ts';
import { IdempotencyKeyError } from '../../command-errors.ts';
import type { CommandAuthor } from '../command.ts';
import type { NewCampaign, RetryScope } from './campaign.ts';
import type { CampaignRow } from './campaign-row.ts';
import type { PlannedTargets } from './campaign-targets.ts';

/** A campaign that was checked. */
export interface PreparedCampaign {
  readonly wanted: NewCampaign;
  /** As its kind keeps it. */
  readonly request: Readonly<Record<string, unknown>>;
  /** Of all that was asked for, but for the idempotency key. */
  readonly hash: Buffer;
}

/** A campaign that is to be stored. */
export interface CampaignInsert {
  readonly campaignId: string;
  readonly prepared: PreparedCampaign;
  readonly planned: PlannedTargets;
  readonly at: Date;
}

/** SHA-256 of what was asked for. */
export function hashOf(asked: unknown): Buffer {
  return createHash('sha256').update(JSON.stringify(asked)).digest();
}

/** What was asked for before, for some of its devices. */
export function sameAgain(
  { kind, name, request, policy }: CampaignRow,
  devices: readonly string[],
  idempotencyKey: string | null,
): NewCampaign {
  const targets = { devices, tags: null, types: null };
  return { kind, name, targets, request, policy, canaryDevices: [], idempotencyKey };
}

/** Stores a campaign that runs from now on, with its devices. */
export async function insertCampaign(
  transaction: Transaction,
  { organizationId, actor }: CommandAuthor,
  { campaignId, prepared, planned, at }: CampaignInsert,
): Promise<void> {
  const { wanted, request, hash } = prepared;
  await transaction.client.query(
    `INSERT INTO campaign (campaign_id, organization_id, kind, name, state, request, policy,
       wave_started_at, created_at, created_by, updated_at, idempotency_key, request_hash)
     VALUES ($1, $2, $3, $4, 'running', $5, $6, $7, $7, $8, $7, $9, $10)`,
    [
      campaignId,
      organizationId,
      wanted.kind,
      wanted.name,
      JSON.stringify(request),
      JSON.stringify(wanted.policy),
      at,
      actor,
      wanted.idempotencyKey,
      hash,
    ],
  );
  await insertDevices(transaction, organizationId, campaignId, planned);
}

/** What the audit trail says of a new campaign. */
export function auditOf(
  { wanted, request }: PreparedCampaign,
  { waves, skipped }: PlannedTargets,
): Readonly<Record<string, unknown>> {
  const { kind, name, policy, targets } = wanted;
  const devices = waves.reduce((total, wave) => total + wave.length, 0);
  return { kind, name, request, policy, targets, devices, skipped: skipped.length };
}

/** @returns the campaign that the same request made before. @throws {IdempotencyKeyError} of another one. */
export async function findRepeated(
  { client }: Transaction,
  organizationId: number,
  { wanted, hash }: PreparedCampaign,
): Promise<string | null> {
  if (wanted.idempotencyKey === null) return null;
  const { rows } = await client.query<{ campaign_id: string; request_hash: Buffer }>(
    `SELECT campaign_id, request_hash FROM campaign
     WHERE organization_id = $1 AND idempotency_key = $2`,
    [organizationId, wanted.idempotencyKey],
  );
  const [known] = rows;
  if (known === undefined) return null;
  if (!known.request_hash.equals(hash)) throw new IdempotencyKeyError();
  return known.campaign_id;
}

/** Slugs of the devices of a campaign that are to be tried again. */
export async function listUnfinished(
  { client }: Transaction,
  organizationId: number,
  campaignId: string,
  scope: RetryScope,
): Promise<string[]> {
  const { rows } = await client.query<{ slug: string }>(
    `SELECT device.slug FROM campaign_device JOIN device USING (device_id, organization_id)
     WHERE organization_id = $1 AND campaign_id = $2 AND state = ANY($3) ORDER BY position`,
    [
      organizationId,
      campaignId,
      scope === 'failed' ? ['failed'] : ['failed', 'skipped', 'waiting'],
    ],
  );
  return rows.map(({ slug }) => slug);
}

async function insertDevices(
  { client }: Transaction,
  organizationId: number,
  campaignId: string,
  { waves, skipped }: PlannedTargets,
): Promise<void> {
  const placed = waves.flatMap((devices, wave) =>
    devices.map(({ deviceId }) => ({ deviceId, wave, code: null, detail: null })),
  );
  const lastWave = Math.max(waves.length - 1, 0);
  const rows = [
    ...placed,
    ...skipped.map(({ deviceId, code, detail }) => ({ deviceId, wave: lastWave, code, detail })),
  ];
  const column = <K extends keyof (typeof rows)[number]>(name: K) => rows.map((row) => row[name]);
  await client.query(
    `INSERT INTO campaign_device (campaign_id, device_id, organization_id, wave, position, state,
       code, detail, facts)
     SELECT $1, device_id, $2, wave, position - 1,
       CASE WHEN code IS NULL THEN 'waiting' ELSE 'skipped' END, code, detail, '{}'
     FROM unnest($3::int4[], $4::int4[], $5::text[], $6::text[])
       WITH ORDINALITY AS planned (device_id, wave, code, detail, position)`,
    [
      campaignId,
      organizationId,
      column('deviceId'),
      column('wave'),
      column('code'),
      column('detail'),
    ],
  );
}
