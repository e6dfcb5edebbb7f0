import { isCertificateId } from '../../firmware-protocol/keys.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import {
  inOrganization,
  type TenantDatabase,
  type Transaction,
} from '../../drizzle/transaction.ts';
import { AppError } from '../../errors.ts';
import { KeyRotationNotFoundError } from '../../command-errors.ts';
import type { Logger } from '../../log.ts';
import { getDeviceRow } from '../device-row.ts';
import type { Author } from '../devices.ts';
import type { Revocations } from '../revocations.ts';
import type { KeyActivated, KeyActivation } from './key-activation.ts';
import { outcomeOf, type KeyMetrics } from './metrics.ts';
import { askRotation, isAsked, type AskedRotation } from './rotation-ask.ts';
import { issueKey } from './rotation-issue.ts';
import { rollBackRotation } from './rotation-rollback.ts';
import { readRotation, readRotations, type KeyRotation } from './rotation-row.ts';

/** A device that asks for its new key, as its connection knows it. */
export interface AskingDevice {
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device. */
  readonly device: string;
  /** Public part of the key that it has connected with. */
  readonly keyId: string;
}

/** `sys.rekey` for a device. */
export interface RekeyRequest {
  /** Slug. */
  readonly device: string;
  readonly deviceId: number;
  readonly campaignId: string | null;
  /** How long it may wait for the device. */
  readonly ttlMs: number;
  /** Asked again with the same it is the same command. */
  readonly idempotencyKey: string;
}

/** How devices are told to ask for a new key. */
export interface RekeyWire {
  /** @returns the id of the command. @throws an AppError when it cannot be queued. */
  sendRekey(author: Author, request: RekeyRequest): Promise<string>;
  /** Takes the command back; one that has ended is left as it is. */
  cancelRekey(author: Author, commandId: string): Promise<void>;
}

/** A rotation that is asked for. */
export interface RotationRequest {
  /** Slug of the device. */
  readonly device: string;
  readonly campaignId: string | null;
  /** How long the device may take to ask for its new key. */
  readonly ttlMs: number;
}

/**
 * Changes of the keys of devices, over MQTT and with an overlap. Every function but {@link keyRequested}
 * throws {@link StoreUnavailableError} when the database is away.
 */
export interface KeyRotations {
  /**
   * Asks a device to change its key. One of the same campaign that is open already is returned as it is.
   * @throws {DeviceNotFoundError} @throws {KeyRotationOpenError} @throws {DeviceKeylessError}
   * @throws {KeyLimitError} and what {@link RekeyWire.sendRekey} throws; nothing is open then.
   */
  rotate(author: Author, request: RotationRequest): Promise<KeyRotation>;
  /** The last rotation of a device. @throws {DeviceNotFoundError} @throws {KeyRotationNotFoundError} */
  get(organizationId: number, device: string): Promise<KeyRotation>;
  /** The last rotations of devices; those that had none are left out. */
  list(organizationId: number, deviceIds: readonly number[]): Promise<readonly KeyRotation[]>;
  /**
   * Ends the new key and lets the old one stay. While the old one retires it is in use for good again.
   * @throws {DeviceNotFoundError} @throws {KeyRotationNotFoundError} @throws {KeyRotationFinalError}
   */
  rollBack(author: Author, device: string): Promise<void>;
  /** The same of a campaign, where the device has not used its new key; else it does nothing. */
  withdraw(author: Author, device: string, campaignId: string): Promise<void>;
  /**
   * A device asks for its new key. What it is told is committed. Never rejects: while the database is away
   * the device is told to ask again.
   * @param isPrivate whether nobody can read the answer on its way.
   */
  keyRequested(from: AskingDevice, isPrivate: boolean): Promise<KeyAnswer>;
  /** Told after COMMIT of each rotation that has succeeded. Must not throw. */
  onActivated(listener: (activated: KeyActivated) => void): void;
}

/** What rotations need. */
export interface KeyRotationsDeps {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  readonly activation: Pick<KeyActivation, 'onActivated'>;
  /** How long a new key is good for without being used. */
  readonly pendingMs: number;
  /** A device that asks again is given another key after this time at the soonest. */
  readonly reissueMs: number;
  /** Whether keys are sent on any connection. */
  readonly isPlainAllowed: boolean;
  readonly metrics: KeyMetrics;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** Seconds after which a device asks again when nobody could decide. */
export const UNDECIDED_RETRY_S = 30;

/** Makes the rotations once commands can be sent. */
export function createKeyRotations(deps: KeyRotationsDeps, wire: RekeyWire): KeyRotations {
  const { database, activation, now } = deps;
  return {
    rotate: (author, request) => rotate(deps, wire, author, request),

    get: (organizationId, device) =>
      inOrganization(database, organizationId, async (transaction) => {
        const { deviceId } = await getDeviceRow(transaction.orm, organizationId, device);
        const found = await readRotation(transaction, organizationId, deviceId, now());
        if (found === null) throw new KeyRotationNotFoundError(device);
        return found;
      }),

    list: (organizationId, deviceIds) =>
      inOrganization(database, organizationId, (transaction) =>
        readRotations(transaction, organizationId, deviceIds, now()),
      ),

    async rollBack(author, device) {
      await rollBack(deps, wire, author, { device, campaignId: null });
    },

    async withdraw(author, device, campaignId) {
      await rollBack(deps, wire, author, { device, campaignId });
    },

    keyRequested: (from, isPrivate) => keyRequested(deps, from, isPrivate),
    onActivated: (listener) => activation.onActivated(listener),
  };
}

/** The row first: a device that is faster than the rest of this finds that it was asked. */
async function rotate(
  deps: KeyRotationsDeps,
  wire: RekeyWire,
  author: Author,
  request: RotationRequest,
): Promise<KeyRotation> {
  const { database, metrics, now } = deps;
  const { organizationId } = author;
  const within = <T>(work: (transaction: Transaction) => Promise<T>): Promise<T> =>
    inOrganization(database, organizationId, work);
  const asked = await within((transaction) => askRotation(transaction, author, request, now()));
  const { deviceId } = asked;
  if (isAsked(asked)) return asked.rotation;
  metrics.rotation('asked');
  try {
    const commandId = await wire.sendRekey(author, {
      device: request.device,
      deviceId,
      campaignId: request.campaignId,
      ttlMs: asked.ttlMs,
      idempotencyKey: idempotencyKeyOf(request, asked),
    });
    return await within(async (transaction) => {
      await noteCommand(transaction, asked, commandId);
      const found = await readRotation(transaction, organizationId, deviceId, now());
      if (found === null) throw new KeyRotationNotFoundError(request.device);
      return found;
    });
  } catch (error) {
    if (error instanceof AppError && !isUnsettled(error)) {
      await within((transaction) => forgetAsked(transaction, asked));
    }
    throw error;
  }
}

/** Whether it is not known what became of the command: asked again, the rotation goes on. */
function isUnsettled(error: AppError): boolean {
  return error.code === 'STORE_UNAVAILABLE' || error instanceof KeyRotationNotFoundError;
}

function idempotencyKeyOf({ campaignId }: RotationRequest, asked: AskedRotation): string {
  return campaignId === null
    ? `rekey:${asked.deviceId}:${asked.askedAt.getTime()}`
    : `campaign:${campaignId}:${asked.deviceId}`;
}

async function noteCommand(
  { client }: Transaction,
  { deviceId, askedAt }: AskedRotation,
  commandId: string,
): Promise<void> {
  await client.query(
    'UPDATE key_rotation SET command_id = $3 WHERE device_id = $1 AND asked_at = $2',
    [deviceId, askedAt, commandId],
  );
}

async function forgetAsked(
  { client }: Transaction,
  { deviceId, askedAt }: AskedRotation,
): Promise<void> {
  await client.query(
    `DELETE FROM key_rotation WHERE device_id = $1 AND asked_at = $2
       AND command_id IS NULL AND new_key_id IS NULL`,
    [deviceId, askedAt],
  );
}

async function rollBack(
  deps: KeyRotationsDeps,
  wire: RekeyWire,
  author: Author,
  request: { readonly device: string; readonly campaignId: string | null },
): Promise<void> {
  const { database, revocations, metrics, log, now } = deps;
  const rolledBack = await inOrganization(database, author.organizationId, (transaction) =>
    rollBackRotation(transaction, author, request, { revocations, nowMs: now() }),
  );
  if (rolledBack === null) return;
  metrics.rotation('rolled_back');
  for (const keyId of rolledBack.keyIds) revocations.tell({ keyId });
  const { commandId } = rolledBack;
  if (commandId === null) return;
  await wire.cancelRekey(author, commandId).catch((error: unknown) => {
    // The device is told then that nobody asks it to change its key.
    if (!(error instanceof AppError)) throw error;
    log.debug({ code: error.code, commandId }, 'command of a rotation not cancelled');
  });
}

async function keyRequested(
  deps: KeyRotationsDeps,
  from: AskingDevice,
  isPrivate: boolean,
): Promise<KeyAnswer> {
  const { metrics, revocations, log } = deps;
  const denied = deniedWithoutLook(from, isPrivate || deps.isPlainAllowed);
  if (denied !== null) {
    metrics.answered('rotation', outcomeOf(denied));
    return denied;
  }
  try {
    const { answer, endedKeyId } = await inOrganization(
      deps.database,
      from.organizationId,
      (transaction) => issueKey(transaction, from, { ...deps, nowMs: deps.now() }),
    );
    if (endedKeyId !== null) revocations.tell({ keyId: endedKeyId });
    metrics.answered('rotation', outcomeOf(answer));
    if (answer.st === 'ok') metrics.rotation('issued');
    return answer;
  } catch (err) {
    if (!(err instanceof AppError)) log.error({ err, deviceId: from.deviceId }, 'no key was made');
    metrics.answered('rotation', 'unavailable');
    return { st: 'wait', retry: UNDECIDED_RETRY_S };
  }
}

function deniedWithoutLook({ keyId }: AskingDevice, isPrivate: boolean): KeyAnswer | null {
  if (!isPrivate) return { st: 'no', code: 'tls' };
  return isCertificateId(keyId) ? { st: 'no', code: 'unasked' } : null;
}
