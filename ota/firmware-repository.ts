import { cutPage } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import { makeUuidV7 } from '../drizzle/uuid-v7.ts';
import {
  FirmwareBusyError,
  FirmwareExistsError,
  FirmwareInvalidError,
  FirmwareLimitError,
  FirmwareNotFoundError,
  FirmwareSignatureError,
  SignerNotFoundError,
} from '../ota-errors.ts';
import { readAppDescription } from './esp-image.ts';
import type { Firmware, FirmwareRepository, FirmwareUpload, Signers } from './firmware.ts';
import { FIRMWARE_COLUMNS, FIRMWARE_FROM, firmwareOf, type FirmwareRow } from './firmware-row.ts';
import { readImage, tooLarge, type UploadBounds, type UploadedImage } from './image-upload.ts';
import type { OtaMetrics } from './metrics.ts';
import type { OtaAuthor, WriteAudit } from './ports.ts';
import { isSignedBy } from './signature.ts';

/** Bytes of one row of an image. */
export const PART_BYTES = 262_144;

/** What {@link createFirmwareRepository} needs. */
export interface FirmwareRepositoryDeps {
  readonly database: TenantDatabase;
  readonly signers: Pick<Signers, 'get'>;
  readonly writeAudit: WriteAudit;
  readonly bounds: UploadBounds;
  /** Uploads at once. */
  readonly uploadsMax: number;
  /** Images of an organization that are not withdrawn. */
  readonly imagesMax: number;
  /** Refuses images without a signature. */
  readonly isSignatureRequired: boolean;
  readonly metrics: Pick<OtaMetrics, 'uploaded'>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Makes the repository. */
export function createFirmwareRepository(deps: FirmwareRepositoryDeps): FirmwareRepository {
  const { database } = deps;
  let uploads = 0;
  return {
    async upload(author, upload) {
      if (uploads >= deps.uploadsMax) throw new FirmwareBusyError('uploads', deps.uploadsMax);
      uploads += 1;
      try {
        const taken = await take(deps, author, upload);
        deps.metrics.uploaded('taken');
        return taken;
      } catch (error) {
        deps.metrics.uploaded('refused');
        throw error;
      } finally {
        uploads -= 1;
      }
    },

    async get(organizationId, firmwareId) {
      const row = await inOrganization(database, organizationId, (transaction) =>
        findFirmware(transaction, organizationId, firmwareId),
      );
      if (row === null) throw new FirmwareNotFoundError(firmwareId);
      return row;
    },

    async list({ organizationId, model, state, limit, after }) {
      const { rows } = await inOrganization(database, organizationId, ({ client }) =>
        client.query<FirmwareRow>(
          `SELECT ${FIRMWARE_COLUMNS} FROM ${FIRMWARE_FROM}
           WHERE image.organization_id = $1 AND ($2::text IS NULL OR model = $2)
             AND ($3::text IS NULL OR state = $3) AND ($4::uuid IS NULL OR firmware_id < $4)
           ORDER BY firmware_id DESC LIMIT $5`,
          [organizationId, model, state, after, limit + 1],
        ),
      );
      return cutPage(rows.map(firmwareOf), limit);
    },

    withdraw: (author, firmwareId) =>
      inOrganization(database, author.organizationId, (transaction) =>
        withdraw(transaction, author, firmwareId, deps.writeAudit),
      ),
  };
}

/** An image of an organization; null when there is none with this id. */
export async function findFirmware(
  { client }: Transaction,
  organizationId: number,
  firmwareId: string,
): Promise<Firmware | null> {
  const { rows } = await client.query<FirmwareRow>(
    `SELECT ${FIRMWARE_COLUMNS} FROM ${FIRMWARE_FROM}
     WHERE image.organization_id = $1 AND firmware_id = $2`,
    [organizationId, firmwareId],
  );
  return rows[0] === undefined ? null : firmwareOf(rows[0]);
}

async function take(
  deps: FirmwareRepositoryDeps,
  author: OtaAuthor,
  upload: FirmwareUpload,
): Promise<{ firmware: Firmware; isNew: boolean }> {
  const { signed, bodyBytes } = upload;
  const { bounds, isSignatureRequired } = deps;
  if ((bodyBytes ?? 0) > bounds.bytesMax) throw tooLarge(bounds.bytesMax);
  if (signed === null && isSignatureRequired) {
    throw new FirmwareSignatureError(
      'the image must be signed: send "signature" and "signer"; FIRMWARE_SIGNATURE_REQUIRED is yes',
    );
  }
  const publicKey = signed === null ? null : await keyOf(deps, author, signed.signerId);
  const uploaded = await readImage(upload.body, bounds);
  assertIsTheOne(upload, uploaded.image);
  if (signed !== null && publicKey !== null) {
    const isSigned = await isSignedBy(publicKey, uploaded.image, signed.signature);
    if (!isSigned) {
      throw new FirmwareSignatureError(`the signature is not one of ${signed.signerId} for this`);
    }
  }
  return inOrganization(deps.database, author.organizationId, (transaction) =>
    store(transaction, { deps, author, upload, uploaded }),
  );
}

async function keyOf(
  { signers }: FirmwareRepositoryDeps,
  { organizationId }: OtaAuthor,
  signerId: string,
): Promise<Buffer> {
  const signer = await signers.get(organizationId, signerId).catch((error: unknown) => {
    if (!(error instanceof SignerNotFoundError)) throw error;
    throw new FirmwareSignatureError(error.message);
  });
  if (signer.revokedAt === null) return signer.publicKey;
  throw new FirmwareSignatureError(`the key of ${signerId} was revoked`);
}

/** An image of ESP-IDF says itself what it is; of others it is taken as said. */
function assertIsTheOne({ model, version }: FirmwareUpload, image: Buffer): void {
  if (image.length === 0) throw new FirmwareInvalidError('the image is empty');
  const described = readAppDescription(image);
  if (described === null) return;
  if (described.version !== version) throw contradicted('version', described.version, version);
  if (described.projectName !== model) throw contradicted('model', described.projectName, model);
}

function contradicted(what: string, inside: string, said: string): FirmwareInvalidError {
  const [its, yours] = [inside, said].map((text) => JSON.stringify(text.slice(0, 64)));
  return new FirmwareInvalidError(
    `the image says of itself that its ${what} is ${its}, and not ${yours}`,
  );
}

/** What is stored, and by whom. */
interface Storing {
  readonly deps: FirmwareRepositoryDeps;
  readonly author: OtaAuthor;
  readonly upload: FirmwareUpload;
  readonly uploaded: UploadedImage;
}

async function store(
  transaction: Transaction,
  { deps, author, upload, uploaded }: Storing,
): Promise<{ firmware: Firmware; isNew: boolean }> {
  const { client, orm } = transaction;
  const { organizationId, actor } = author;
  const { model, version, notes, signed } = upload;
  const { image, sha256 } = uploaded;
  // One at a time for each organization, so that the count stays true until COMMIT.
  await client.query('SELECT FROM organization WHERE organization_id = $1 FOR NO KEY UPDATE', [
    organizationId,
  ]);
  const there = await findVersion(transaction, organizationId, model, version);
  if (there !== null) {
    if (!there.sha256.equals(sha256)) throw new FirmwareExistsError(model, version);
    return { firmware: there, isNew: false };
  }
  await assertRoom(transaction, organizationId, deps.imagesMax);
  const firmwareId = makeUuidV7(deps.now());
  await client.query(
    `INSERT INTO firmware_image (firmware_id, organization_id, model, version, state, byte_count,
                                 sha256, signature, signer_id, notes, created_by)
     VALUES ($1, $2, $3, $4, 'ready', $5, $6, $7, $8, $9, $10)`,
    [
      ...[firmwareId, organizationId, model, version, image.length, sha256],
      ...[signed?.signature ?? null, signed?.signerId ?? null, notes, actor],
    ],
  );
  for (let start = 0; start < image.length; start += PART_BYTES) {
    await client.query(
      `INSERT INTO firmware_part (firmware_id, part, organization_id, content)
       VALUES ($1, $2, $3, $4)`,
      [firmwareId, start / PART_BYTES, organizationId, image.subarray(start, start + PART_BYTES)],
    );
  }
  const change = { model, version, sha256: sha256.toString('hex'), signer: signed?.signerId };
  const subject = `firmware/${firmwareId}`;
  await deps.writeAudit(orm, { ...author, action: 'firmware.upload', subject, change });
  const made = await findFirmware(transaction, organizationId, firmwareId);
  if (made === null) throw new Error('an image that was just stored is gone');
  return { firmware: made, isNew: true };
}

async function findVersion(
  { client }: Transaction,
  organizationId: number,
  model: string,
  version: string,
): Promise<Firmware | null> {
  const { rows } = await client.query<FirmwareRow>(
    `SELECT ${FIRMWARE_COLUMNS} FROM ${FIRMWARE_FROM}
     WHERE image.organization_id = $1 AND model = $2 AND version = $3 AND state <> 'withdrawn'`,
    [organizationId, model, version],
  );
  return rows[0] === undefined ? null : firmwareOf(rows[0]);
}

async function assertRoom(
  { client }: Transaction,
  organizationId: number,
  imagesMax: number,
): Promise<void> {
  const { rows } = await client.query<{ images: number }>(
    `SELECT count(*)::int4 AS images FROM firmware_image
     WHERE organization_id = $1 AND state <> 'withdrawn'`,
    [organizationId],
  );
  if ((rows[0]?.images ?? 0) >= imagesMax) throw new FirmwareLimitError(imagesMax);
}

async function withdraw(
  transaction: Transaction,
  author: OtaAuthor,
  firmwareId: string,
  writeAudit: WriteAudit,
): Promise<Firmware> {
  const { client, orm } = transaction;
  const { organizationId } = author;
  const { rowCount } = await client.query(
    `UPDATE firmware_image SET state = 'withdrawn'
     WHERE organization_id = $1 AND firmware_id = $2 AND state <> 'withdrawn'`,
    [organizationId, firmwareId],
  );
  const firmware = await findFirmware(transaction, organizationId, firmwareId);
  if (firmware === null) throw new FirmwareNotFoundError(firmwareId);
  if (rowCount === 0) return firmware;
  await client.query('DELETE FROM firmware_part WHERE organization_id = $1 AND firmware_id = $2', [
    organizationId,
    firmwareId,
  ]);
  const subject = `firmware/${firmwareId}`;
  await writeAudit(orm, { ...author, action: 'firmware.withdraw', subject });
  return firmware;
}
