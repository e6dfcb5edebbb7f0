import { ClaimIssuedError, ClaimNotFoundError } from '../../command-errors.ts';
import { cutPage, type Page } from '../../drizzle/page.ts';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { AppError, DeviceExistsError, DeviceLimitError } from '../../errors.ts';
import { HARDWARE_ID, type KeyAnswer } from '../../firmware-protocol/key-request.ts';
import type { Logger } from '../../log.ts';
import { writeAudit } from '../audit.ts';
import type { DeviceChanges } from '../device-changes.ts';
import type { Author } from '../devices.ts';
import type { Revocations } from '../revocations.ts';
import type { ClaimState } from './claim-decision.ts';
import { settleClaim, type SettledClaim } from './claim-settlement.ts';
import { UNDECIDED_RETRY_S } from './key-rotations.ts';
import { outcomeOf, type KeyMetrics } from './metrics.ts';

/** A board that asks for a name and a key. */
export interface ClaimRequest {
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  /** Public part of the claim key. */
  readonly keyId: string;
  /** What becomes the device's name. */
  readonly hardwareId: string;
  readonly model: string | null;
  /** Of the connection. */
  readonly address: string;
  /** Whether nobody can read the answer on its way. */
  readonly isPrivate: boolean;
}

/** A board that has asked for a name. */
export interface DeviceClaim {
  readonly hardwareId: string;
  /** Public part of the claim key. */
  readonly keyId: string;
  /** Null: it did not say. */
  readonly model: string | null;
  readonly state: ClaimState;
  readonly address: string;
  readonly requestedAt: Date;
  readonly decidedAt: Date | null;
  /** Public part of the key of who decided; null: nobody had to. */
  readonly decidedBy: string | null;
}

/** Boards that claim names. */
export interface Claims {
  /**
   * Decides on a claim. What the board is told is committed. Never rejects: while the database is away the
   * board is told to ask again.
   */
  claim(request: ClaimRequest): Promise<KeyAnswer>;
  /** In the order of hardware ids, those after `after`. @throws {StoreUnavailableError} */
  list(query: {
    organizationId: number;
    /** Null: in any. */
    state: ClaimState | null;
    limit: number;
    after: string | null;
  }): Promise<Page<DeviceClaim>>;
  /**
   * Lets a board have its key when it asks again; one key. @throws {ClaimNotFoundError}
   * @throws {ClaimIssuedError} @throws {StoreUnavailableError}
   */
  approve(author: Author, hardwareId: string): Promise<DeviceClaim>;
  /**
   * Refuses a board whatever claim key it comes with, until it is approved. A device that it is already
   * stays. @throws {ClaimNotFoundError} @throws {StoreUnavailableError}
   */
  deny(author: Author, hardwareId: string): Promise<DeviceClaim>;
}

/** What claims need. */
export interface ClaimsDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  readonly changes: DeviceChanges;
  /** Most devices of one organization. */
  readonly devicesMax: number;
  /** Boards that may wait for approval with one claim key. */
  readonly waitingMax: number;
  /** A board that asks again is given another key after this time at the soonest. */
  readonly reissueMs: number;
  /** Whether keys are sent on any connection. */
  readonly isPlainAllowed: boolean;
  /** Whether a device has a connection now that may not be written down yet. */
  readonly isConnected: (deviceId: number) => boolean;
  readonly metrics: KeyMetrics;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

interface ClaimRow {
  hardware_id: string;
  key_id: string;
  model: string | null;
  state: ClaimState;
  address: string;
  requested_at: Date;
  decided_at: Date | null;
  decided_by: string | null;
}

/** Makes the part of claims. */
export function createClaims(deps: ClaimsDeps): Claims {
  const { database } = deps;
  return {
    async claim(request) {
      const answer = await decide(deps, request);
      deps.metrics.answered('claim', answer === null ? 'unavailable' : outcomeOf(answer));
      return answer ?? { st: 'wait', retry: UNDECIDED_RETRY_S };
    },

    list: ({ organizationId, state, limit, after }) =>
      inOrganization(database, organizationId, async ({ client }) => {
        const { rows } = await client.query<ClaimRow>(
          `SELECT * FROM device_claim
           WHERE organization_id = $1 AND ($2::text IS NULL OR state = $2)
             AND ($3::text IS NULL OR hardware_id > $3)
           ORDER BY hardware_id LIMIT $4`,
          [organizationId, state, after, limit + 1],
        );
        return cutPage(rows.map(claimOf), limit);
      }),

    approve: (author, hardwareId) => judge(database, author, hardwareId, 'approved'),
    deny: (author, hardwareId) => judge(database, author, hardwareId, 'denied'),
  };
}

/** @returns null when nobody can tell now. */
async function decide(deps: ClaimsDeps, request: ClaimRequest): Promise<KeyAnswer | null> {
  if (!request.isPrivate && !deps.isPlainAllowed) return { st: 'no', code: 'tls' };
  if (!HARDWARE_ID.test(request.hardwareId)) return { st: 'no', code: 'name' };
  try {
    const settled = await inOrganization(deps.database, request.organizationId, (transaction) =>
      settleClaim(transaction, request, deps),
    );
    tell(deps, request, settled);
    return settled.answer;
  } catch (err) {
    // Another claim key, or a person, was faster.
    if (err instanceof DeviceExistsError) return { st: 'no', code: 'claimed' };
    if (err instanceof DeviceLimitError) return { st: 'no', code: 'quota' };
    if (!(err instanceof AppError)) deps.log.error({ err, keyId: request.keyId }, 'claim failed');
    return null;
  }
}

function tell(
  { revocations, changes }: ClaimsDeps,
  { organizationId }: ClaimRequest,
  { endedKeyIds, newDeviceId }: SettledClaim,
): void {
  for (const keyId of endedKeyIds) revocations.tell({ keyId });
  if (newDeviceId !== null)
    changes.tell({ organizationId, deviceId: newDeviceId, isDeleted: false });
}

function judge(
  database: TenantDatabase,
  author: Author,
  hardwareId: string,
  state: 'approved' | 'denied',
): Promise<DeviceClaim> {
  const { organizationId, actor } = author;
  return inOrganization(database, organizationId, async ({ client, orm }) => {
    if (!HARDWARE_ID.test(hardwareId)) throw new ClaimNotFoundError(hardwareId);
    const { rows } = await client.query<ClaimRow>(
      'SELECT * FROM device_claim WHERE organization_id = $1 AND hardware_id = $2 FOR UPDATE',
      [organizationId, hardwareId],
    );
    const [before] = rows;
    if (before === undefined) throw new ClaimNotFoundError(hardwareId);
    if (before.state === 'issued' && state === 'approved') throw new ClaimIssuedError(hardwareId);
    if (before.state === state) return claimOf(before);
    const { rows: after } = await client.query<ClaimRow>(
      `UPDATE device_claim SET state = $3, decided_at = now(), decided_by = $4
       WHERE organization_id = $1 AND hardware_id = $2 RETURNING *`,
      [organizationId, hardwareId, state, actor],
    );
    await writeAudit(orm, {
      ...author,
      action: state === 'approved' ? 'claim.approve' : 'claim.deny',
      subject: `claim/${hardwareId}`,
      change: { keyId: before.key_id, model: before.model },
    });
    return claimOf(after[0] ?? before);
  });
}

function claimOf(row: ClaimRow): DeviceClaim {
  return {
    hardwareId: row.hardware_id,
    keyId: row.key_id,
    model: row.model,
    state: row.state,
    address: row.address,
    requestedAt: row.requested_at,
    decidedAt: row.decided_at,
    decidedBy: row.decided_by,
  };
}
