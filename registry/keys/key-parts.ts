import type { Registry as MetricsRegistry } from 'prom-client';
import type { TenantDatabase } from '../../drizzle/transaction.ts';
import type { Logger } from '../../log.ts';
import type { DeviceChanges } from '../device-changes.ts';
import type { Revocations } from '../revocations.ts';
import type { BrokerAddress } from './broker-address.ts';
import { createClaimKeys, type ClaimKeys } from './claim-keys.ts';
import { createClaims, type Claims } from './claims.ts';
import { createDeviceBatches, type DeviceBatches } from './device-batches.ts';
import { KeyActivation } from './key-activation.ts';
import { createKeyRotations, type KeyRotations, type RekeyWire } from './key-rotations.ts';
import { createKeyMetrics } from './metrics.ts';

/** Bounds and times of keys. */
export interface KeySettings {
  /** Where devices find the broker, for what is flashed into them; null: nobody has said. */
  readonly address: BrokerAddress | null;
  /** How long a new key that a device asked for is good for without being used. */
  readonly pendingMs: number;
  /** How long the old key of a device is good for once it uses the new one. */
  readonly graceMs: number;
  /** A board that asks again is given another key after this time at the soonest. */
  readonly reissueMs: number;
  /** Whether keys are sent on connections without TLS from other machines too. */
  readonly isPlainAllowed: boolean;
  /** Claim keys of one organization that are neither revoked nor expired. */
  readonly claimKeysMax: number;
  /** Boards that may wait for approval with one claim key. */
  readonly claimsWaitingMax: number;
  /** Devices that are made together. */
  readonly batchMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** What there is of keys beside making and revoking them one by one. */
export interface KeyParts {
  readonly settings: KeySettings;
  readonly activation: KeyActivation;
  readonly claimKeys: ClaimKeys;
  readonly batches: DeviceBatches;
  /** Makes the claims. @param isConnected whether a device has a connection to this program. */
  claims(isConnected: (deviceId: number) => boolean): Claims;
  /** Makes the rotations, once commands can be sent. */
  rotations(wire: RekeyWire): KeyRotations;
}

/** What {@link createKeyParts} needs. */
export interface KeyPartsDeps extends KeySettings {
  readonly database: TenantDatabase;
  readonly revocations: Revocations;
  readonly changes: DeviceChanges;
  /** Most devices of one organization. */
  readonly devicesMax: number;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
}

/** Joins the parts of keys. */
export function createKeyParts(deps: KeyPartsDeps): KeyParts {
  const metrics = createKeyMetrics(deps.metricsRegistry);
  const activation = new KeyActivation({ ...deps, metrics });
  return {
    settings: deps,
    activation,
    claimKeys: createClaimKeys({ ...deps, keysMax: deps.claimKeysMax }),
    batches: createDeviceBatches(deps),
    claims: (isConnected) =>
      createClaims({ ...deps, waitingMax: deps.claimsWaitingMax, isConnected, metrics }),
    rotations: (wire) => createKeyRotations({ ...deps, activation, metrics }, wire),
  };
}
