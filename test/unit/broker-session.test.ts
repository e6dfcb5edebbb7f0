import { describe, expect, it } from 'vitest';
import { deviceKeepAlive, rewriteWill } from '../../broker/authenticate.ts';
import type { ConnectFields } from '../../broker/connect-fields.ts';
import { ConnectRate } from '../../broker/gate/connect-rate.ts';
import {
  holdOne,
  isHeldTooLong,
  isSilentTooLong,
  releaseOne,
  type Session,
} from '../../broker/session.ts';

const PRINCIPAL = {
  kind: 'device' as const,
  organizationId: 1,
  organization: 'demo',
  deviceId: 1,
  device: 'first',
  keyId: 'A1b2C3d4',
  expiresAt: null,
};

/** The parts of a session that time has to do with. */
function sessionAt(lastSeenMs: number, keepAliveS = 60): Session {
  return {
    access: { keepAliveS },
    heldCount: 0,
    heldSince: 0,
    heldMsMax: keepAliveS * 400,
    oldestPuback: null,
    oldestSince: 0,
    framer: { lastSeenMs, oldestPuback: null },
  } as unknown as Session;
}

function connect(fields: Partial<ConnectFields>): ConnectFields {
  return { clientId: 'x', clean: false, keepalive: 60, ...fields };
}

describe('a session', () => {
  it('is silent too long after one and a half keep alive [MQTT-3.1.2-24] (N-01)', () => {
    expect(isSilentTooLong(sessionAt(0), 89_999)).toBe(false);
    expect(isSilentTooLong(sessionAt(0), 90_001)).toBe(true);
  });

  it('is not called silent while it waits for its acknowledgements, nor right afterwards', () => {
    const waiting = sessionAt(0);
    holdOne(waiting);
    expect(isSilentTooLong(waiting, 1e9)).toBe(false);
    releaseOne(waiting);
    expect(isSilentTooLong(waiting, waiting.heldSince + 89_999)).toBe(false);
    expect(isSilentTooLong(waiting, waiting.heldSince + 90_001)).toBe(true);
  });

  it('is held too long when no acknowledgement has come for its bound, and not before', () => {
    const session = sessionAt(0);
    holdOne(session);
    expect(isHeldTooLong(session, session.heldSince + session.heldMsMax)).toBe(false);
    expect(isHeldTooLong(session, session.heldSince + session.heldMsMax + 1)).toBe(true);
    releaseOne(session);
    expect(isHeldTooLong(session, session.heldSince + 1e9)).toBe(false);
  });
});

describe('acknowledgements', () => {
  it('are held too long when the oldest waits, though later ones are stored meanwhile', () => {
    const session = sessionAt(0);
    const oldest = { packetId: 1, isStored: false };
    const framer = session.framer as unknown as { oldestPuback: typeof oldest | null };
    framer.oldestPuback = oldest;
    holdOne(session);
    holdOne(session);
    expect(isHeldTooLong(session, 1000)).toBe(false);
    releaseOne(session);
    session.heldSince = 1000 + session.heldMsMax;
    expect(isHeldTooLong(session, 1000 + session.heldMsMax)).toBe(false);
    expect(isHeldTooLong(session, 1001 + session.heldMsMax)).toBe(true);
    framer.oldestPuback = { packetId: 2, isStored: false };
    expect(isHeldTooLong(session, 1001 + session.heldMsMax)).toBe(false);
  });
});

describe('a CONNECT', () => {
  it.each([
    [0, 1200],
    [1, 15],
    [15, 15],
    [60, 60],
    [65_535, 1200],
  ])('that asks for keep alive %i gets %i', (asked, granted) => {
    expect(deviceKeepAlive(asked)).toBe(granted);
  });

  it('has its will put under its own name, without retain', () => {
    const will = { topic: 'v1/me/event/gone', payload: Buffer.from('x'), qos: 1, retain: true };
    const packet = connect({ will: will as NonNullable<ConnectFields['will']> });
    expect(rewriteWill(packet, PRINCIPAL)).toBe(true);
    expect(packet.will).toMatchObject({ topic: 'v1/demo/first/event/gone', retain: false });
  });
});

describe('the rate of connects', () => {
  it('lets a minute of them come at once, then one a second, of each identity for itself', () => {
    let nowMs = 0;
    const rate = new ConnectRate({ perMinute: 60, rememberedMax: 2 }, () => nowMs);
    const taken = (identity: string, tries: number): number =>
      Array.from({ length: tries }, () => rate.take(identity)).filter(Boolean).length;
    expect(taken('a', 100)).toBe(60);
    expect(taken('b', 10)).toBe(10);
    nowMs = 5000;
    expect(taken('a', 100)).toBe(5);
    rate.take('c');
    expect(taken('b', 100), 'the longest unseen is forgotten').toBe(60);
  });
});
