import type { Firmware } from './firmware.ts';

/** A row of {@link FIRMWARE_FROM}. */
export interface FirmwareRow {
  firmware_id: string;
  model: string;
  version: string;
  state: Firmware['state'];
  byte_count: number;
  sha256: Buffer;
  signature: Buffer | null;
  signer_id: string | null;
  is_signer_revoked: boolean;
  notes: string;
  created_at: Date;
  created_by: string;
}

/** An image with whether its signer's key was revoked. */
export const FIRMWARE_FROM = `firmware_image AS image
  LEFT JOIN firmware_signer AS signer USING (organization_id, signer_id)`;
/** The columns of {@link FirmwareRow}. */
export const FIRMWARE_COLUMNS = `firmware_id, model, version, state, byte_count, sha256, signature,
  signer_id, coalesce(signer.revoked_at IS NOT NULL, false) AS is_signer_revoked, notes,
  image.created_at, image.created_by`;

/** Makes an image of its row. */
export function firmwareOf(row: FirmwareRow): Firmware {
  return {
    firmwareId: row.firmware_id,
    model: row.model,
    version: row.version,
    state: row.state,
    byteCount: row.byte_count,
    sha256: row.sha256,
    signature: row.signature,
    signerId: row.signer_id,
    isSignerRevoked: row.is_signer_revoked,
    notes: row.notes,
    createdAt: row.created_at,
    createdBy: row.created_by,
  };
}
