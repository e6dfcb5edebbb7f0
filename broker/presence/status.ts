import { canonicalTopic, type DeviceIdentity } from '../../firmware-protocol/topics.ts';
import { trueAtMs, type DevicePresence } from './presence-state.ts';

/** Topic of a device's retained `status`. */
export function statusTopic(device: DeviceIdentity): string {
  return canonicalTopic(device, 'status');
}

/**
 * The device that a status topic is about.
 * @returns null for any other topic.
 */
export function readStatusTopic(topic: string): DeviceIdentity | null {
  const [version, organization, device, channel, ...rest] = topic.split('/');
  if (version !== 'v1' || channel !== 'status' || rest.length > 0) return null;
  if (organization === undefined || device === undefined) return null;
  return { organization, device };
}

/**
 * Payload of `status`: `{"st":"online","since":…,"ts":…,"fw":"1.4.2","sleep":0,"sid":"k3f9"}`. `ts` is
 * the time of which this was true, `sid` the connection number in base 36; `fw` is left out while it
 * is not known.
 */
export function encodeStatus(presence: DevicePresence): Buffer {
  const { fw, sleep = 0 } = presence.hello;
  const status = {
    st: presence.state,
    since: presence.sinceMs,
    ts: trueAtMs(presence),
    ...(fw === undefined ? {} : { fw }),
    sleep,
    sid: presence.connectionNumber.toString(36),
  };
  return Buffer.from(JSON.stringify(status));
}

/** What a retained `status` says, for a program that starts over or has forgotten the device. */
export function decodeStatus(payload: Buffer): DevicePresence | null {
  const status = readObject(payload);
  const { st, since, ts, fw, sleep, sid } = status ?? {};
  if (st !== 'online' && st !== 'sleeping' && st !== 'offline') return null;
  if (!isCount(since) || !isCount(ts) || !isCount(sleep) || typeof sid !== 'string') return null;
  const connectionNumber = Number.parseInt(sid, 36);
  if (!isCount(connectionNumber)) return null;
  return {
    state: st,
    sinceMs: since,
    lastContactMs: ts,
    connectionNumber,
    address: '',
    hello: { sleep, ...(typeof fw === 'string' ? { fw } : {}) },
    helloMs: null,
  };
}

/** Whether two presences make the same `status`, but for its `ts`. */
export function isSameStatus(left: DevicePresence, right: DevicePresence): boolean {
  return (
    left.state === right.state &&
    left.sinceMs === right.sinceMs &&
    left.connectionNumber === right.connectionNumber &&
    left.hello.fw === right.hello.fw &&
    (left.hello.sleep ?? 0) === (right.hello.sleep ?? 0)
  );
}

function readObject(payload: Buffer): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(payload.toString());
    return typeof value === 'object' ? (value as Record<string, unknown> | null) : null;
  } catch {
    return null;
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
