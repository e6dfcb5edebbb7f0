import type { DeviceIdentity } from '../../firmware-protocol/topics.ts';
import type { FoundDevice, PresencePort } from './presence-port.ts';
import { stepPresence, trueAtMs, type DevicePresence } from './presence-state.ts';
import {
  decodeStatus,
  encodeStatus,
  isSameStatus,
  readStatusTopic,
  statusTopic,
} from './status.ts';

/** What {@link recoverPresence} needs. */
export interface RecoveryDeps {
  readonly store: PresencePort;
  /** Topics of all retained `status` messages, of all organizations. */
  readonly retainedTopics: () => Iterable<string>;
  readonly readStatus: (topic: string) => Buffer | null;
  /** Resolves when the message is kept; an empty payload removes what is kept. */
  readonly publish: (topic: string, payload: Buffer) => Promise<void>;
  readonly nowMs: number;
  /** Told of each device that sleeps. */
  readonly onSleeping: (device: FoundDevice, presence: DevicePresence) => void;
  /** Told of connection numbers that were given before. */
  readonly onNumber: (connectionNumber: number) => void;
}

/** What {@link recoverPresence} has done. */
export interface RecoveryCounts {
  /** Devices looked at. */
  devices: number;
  /** Status messages published. */
  published: number;
  /** Rows written. */
  written: number;
}

const PAGE_ROWS = 1000;

/**
 * Puts presence right when the program starts: of all that says `online`, in the database or in a
 * retained message, nothing is. A run that ended without notice may have left either of them behind the
 * other, or one of them may be lost or of an old backup, so both are read whole; for each device what
 * the newer one says counts. A message is published before its row is written: should this be cut
 * short, the next start does it again.
 * @throws {AppError} when the database is away.
 */
export async function recoverPresence(deps: RecoveryDeps): Promise<RecoveryCounts> {
  const counts: RecoveryCounts = { devices: 0, published: 0, written: 0 };
  const seen = new Set<string>();
  for (let after = 0; ;) {
    const rows = await deps.store.listAll({ after, limit: PAGE_ROWS });
    for (const row of rows) seen.add(statusTopic(row));
    await settle(deps, rows, counts);
    after = rows.at(-1)?.deviceId ?? 0;
    if (rows.length < PAGE_ROWS) break;
  }
  const unseen: DeviceIdentity[] = [];
  for (const topic of deps.retainedTopics()) {
    const device = seen.has(topic) ? null : readStatusTopic(topic);
    if (device !== null) unseen.push(device);
  }
  await settleUnlisted(deps, unseen, counts);
  return counts;
}

/** Devices whose row was not written any more when the program ended, and devices that were deleted. */
async function settleUnlisted(
  deps: RecoveryDeps,
  names: readonly DeviceIdentity[],
  counts: RecoveryCounts,
): Promise<void> {
  for (let start = 0; start < names.length; start += PAGE_ROWS) {
    const page = names.slice(start, start + PAGE_ROWS);
    const found = await deps.store.findDevices(page);
    await settle(deps, found, counts);
    const known = new Set(found.map(statusTopic));
    const gone = page.map(statusTopic).filter((topic) => !known.has(topic));
    counts.published += gone.length;
    await Promise.all(gone.map((topic) => deps.publish(topic, Buffer.alloc(0))));
  }
}

async function settle(
  deps: RecoveryDeps,
  devices: readonly FoundDevice[],
  counts: RecoveryCounts,
): Promise<void> {
  const rows: { deviceId: number; organizationId: number; presence: DevicePresence }[] = [];
  const published: Promise<void>[] = [];
  for (const device of devices) {
    const topic = statusTopic(device);
    const payload = deps.readStatus(topic);
    const retained = payload === null ? null : decodeStatus(payload);
    const known = newerOf(device.presence, retained);
    const presence = stepPresence(known, { kind: 'orphan', atMs: deps.nowMs });
    if (presence === null) continue;
    deps.onNumber(presence.connectionNumber);
    if (retained === null || !isSameStatus(retained, presence)) {
      published.push(deps.publish(topic, encodeStatus(presence)));
    }
    const { deviceId, organizationId } = device;
    if (presence !== device.presence) rows.push({ deviceId, organizationId, presence });
    if (presence.state === 'sleeping') deps.onSleeping(device, presence);
  }
  counts.devices += devices.length;
  counts.published += published.length;
  counts.written += rows.length;
  await Promise.all(published);
  if (rows.length > 0) await deps.store.upsertMany(rows);
}

const ORDER = { online: 0, sleeping: 1, offline: 2 } as const;

/** What was written last. Members of the hello that only the row has are taken from it. */
function newerOf(
  row: DevicePresence | null,
  retained: DevicePresence | null,
): DevicePresence | null {
  if (row === null || retained === null) return row ?? retained;
  if (!isNewer(retained, row)) return row;
  const { helloMs, address } = row;
  return { ...retained, hello: { ...row.hello, ...retained.hello }, helloMs, address };
}

function isNewer(left: DevicePresence, right: DevicePresence): boolean {
  if (left.connectionNumber !== right.connectionNumber) {
    return left.connectionNumber > right.connectionNumber;
  }
  // With one connection the states come in this order.
  if (left.state !== right.state) return ORDER[left.state] > ORDER[right.state];
  return trueAtMs(left) > trueAtMs(right);
}
