import type { Transaction } from '../../drizzle/transaction.ts';

/**
 * Where a change of a device's key is. `asked`: the device is to ask for its new key. `issued`: it was given
 * one and has not used it. `retiring`: it uses the new one, and the old one ends soon. `done`: the old one
 * has ended. `expired`: the device did not use a new key in time; the old one stays.
 */
export const ROTATION_STATES = ['asked', 'issued', 'retiring', 'done', 'expired'] as const;
/** One of {@link ROTATION_STATES}. */
export type RotationState = (typeof ROTATION_STATES)[number];

/** A change of a device's key. */
export interface KeyRotation {
  readonly deviceId: number;
  readonly state: RotationState;
  /** The key that is to be replaced. Before the device has asked: the one that it used last. */
  readonly oldKeyId: string;
  /** Null until the device has asked for it. */
  readonly newKeyId: string | null;
  /** Of `sys.rekey`; null for a moment, and when the program died in it. */
  readonly commandId: string | null;
  readonly campaignId: string | null;
  readonly askedAt: Date;
  readonly issuedAt: Date | null;
  readonly activatedAt: Date | null;
  /** When the old key was used last though the new one was in use already; null: it was not. */
  readonly oldKeyUsedAt: Date | null;
  /** When the device has to have used the new key, and from then on when the old one ends. */
  readonly endsAt: Date;
}

/** A row of `key_rotation`, as SQL gives it. */
interface RotationRow {
  device_id: number;
  old_key_id: string;
  new_key_id: string | null;
  command_id: string | null;
  campaign_id: string | null;
  asked_at: Date;
  issued_at: Date | null;
  activated_at: Date | null;
  old_used_at: Date | null;
  ends_at: Date;
}

/** Whether the device may still ask for its new key, or use it for the first time. */
export function isOpen({ state }: KeyRotation): boolean {
  return state === 'asked' || state === 'issued';
}

/**
 * Holds the row of a device until the transaction ends: whoever changes its keys holds it, so that one
 * change sees what the other did.
 * @returns its slugs; null when there is no such device.
 */
export async function lockDevice(
  { client }: Transaction,
  { organizationId, deviceId }: { readonly organizationId: number; readonly deviceId: number },
): Promise<{ readonly device: string; readonly organization: string } | null> {
  const { rows } = await client.query<{ device: string; organization: string }>(
    `SELECT device.slug AS device, organization.slug AS organization
     FROM device JOIN organization USING (organization_id)
     WHERE device_id = $1 AND organization_id = $2 FOR NO KEY UPDATE OF device`,
    [deviceId, organizationId],
  );
  return rows[0] ?? null;
}

/** The rotations of devices, as they are at a time in ms since 1970. */
export async function readRotations(
  { client }: Pick<Transaction, 'client'>,
  organizationId: number,
  deviceIds: readonly number[],
  nowMs: number,
): Promise<KeyRotation[]> {
  const { rows } = await client.query<RotationRow>(
    'SELECT * FROM key_rotation WHERE organization_id = $1 AND device_id = ANY($2)',
    [organizationId, deviceIds],
  );
  return rows.map((row) => rotationOf(row, nowMs));
}

/** The rotation of one device; null when there was none yet, or it was rolled back. */
export async function readRotation(
  transaction: Pick<Transaction, 'client'>,
  organizationId: number,
  deviceId: number,
  nowMs: number,
): Promise<KeyRotation | null> {
  return (await readRotations(transaction, organizationId, [deviceId], nowMs))[0] ?? null;
}

function rotationOf(row: RotationRow, nowMs: number): KeyRotation {
  return {
    deviceId: row.device_id,
    state: stateOf(row, nowMs),
    oldKeyId: row.old_key_id,
    newKeyId: row.new_key_id,
    commandId: row.command_id,
    campaignId: row.campaign_id,
    askedAt: row.asked_at,
    issuedAt: row.issued_at,
    activatedAt: row.activated_at,
    oldKeyUsedAt: row.old_used_at,
    endsAt: row.ends_at,
  };
}

function stateOf(row: RotationRow, nowMs: number): RotationState {
  const isOver = row.ends_at.getTime() <= nowMs;
  if (row.activated_at !== null) return isOver ? 'done' : 'retiring';
  if (isOver) return 'expired';
  return row.issued_at === null ? 'asked' : 'issued';
}
