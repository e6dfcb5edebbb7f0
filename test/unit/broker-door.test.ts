import { once } from 'node:events';
import { PassThrough, type Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { addressGroup, plainAddress } from '../../broker/gate/address-group.ts';
import { Door, type DoorLimits } from '../../broker/gate/door.ts';

const LIMITS: DoorLimits = {
  connectionsMax: 100,
  addressConnectionsMax: 0,
  addressUnauthenticatedMax: 0,
  addressConnectsPerS: 0,
  connectDeadlineMs: 10_000,
};

function makeDoor(limits: Partial<DoorLimits> = {}, banned: readonly string[] = []) {
  const clock = { ms: 0 };
  const refusals: string[] = [];
  const door = new Door({
    limits: { ...LIMITS, ...limits },
    isBanned: (address) => banned.includes(address),
    refused: (reason) => refusals.push(reason),
    now: () => clock.ms,
  });
  return { door, clock, refusals };
}

async function close(connection: Duplex): Promise<void> {
  connection.destroy();
  await once(connection, 'close');
}

describe('the door', () => {
  it('lets in as many connections as there may be, and one more when one has left', async () => {
    const { door, refusals } = makeDoor({ connectionsMax: 2 });
    const [first, second, third] = [new PassThrough(), new PassThrough(), new PassThrough()];
    expect(door.enter(first, '192.0.2.1')).not.toBeNull();
    expect(door.enter(second, '192.0.2.2')).not.toBeNull();
    expect(door.enter(third, '192.0.2.3')).toBeNull();
    expect(third.destroyed).toBe(true);
    expect(refusals).toEqual(['connections_max']);
    await close(first);
    expect(door.connections).toBe(1);
    expect(door.enter(new PassThrough(), '192.0.2.3')).not.toBeNull();
  });

  it('bounds the connections of one address, of a /64 together', () => {
    const { door, refusals } = makeDoor({ addressConnectionsMax: 1 });
    door.enter(new PassThrough(), '2001:db8::1');
    expect(door.enter(new PassThrough(), '2001:db8::2')).toBeNull();
    expect(door.enter(new PassThrough(), '2001:db8:0:1::1')).not.toBeNull();
    expect(refusals).toEqual(['address_connections_max']);
  });

  it('bounds those of one address that have no CONNACK (N-09)', async () => {
    const { door, refusals } = makeDoor({ addressUnauthenticatedMax: 2 });
    const first = new PassThrough();
    const entry = door.enter(first, '192.0.2.1');
    const second = new PassThrough();
    door.enter(second, '192.0.2.1');
    expect(door.enter(new PassThrough(), '192.0.2.1')).toBeNull();
    expect(refusals).toEqual(['address_unauthenticated_max']);
    entry?.authenticated();
    entry?.authenticated();
    expect(door.enter(new PassThrough(), '192.0.2.1')).not.toBeNull();
    await close(second);
    await close(first);
    await new Promise(setImmediate);
    expect(door.connections).toBe(1);
    expect(door.unauthenticated).toBe(1);
    expect(door.enter(new PassThrough(), '192.0.2.1')).not.toBeNull();
    expect(door.enter(new PassThrough(), '192.0.2.1')).toBeNull();
  });

  it('bounds new connections a second, with ten seconds of them at once', async () => {
    const { door, clock, refusals } = makeDoor({ addressConnectsPerS: 2, connectionsMax: 1000 });
    const enter = () => door.enter(new PassThrough(), '192.0.2.1') !== null;
    expect(Array.from({ length: 21 }, enter).filter(Boolean)).toHaveLength(20);
    expect(refusals).toEqual(['address_rate']);
    expect(door.enter(new PassThrough(), '192.0.2.2')).not.toBeNull();
    clock.ms += 1000;
    expect([enter(), enter(), enter()]).toEqual([true, true, false]);
  });

  it('does not let in a banned address', () => {
    const { door, refusals } = makeDoor({}, ['192.0.2.1']);
    expect(door.enter(new PassThrough(), '192.0.2.1')).toBeNull();
    expect(refusals).toEqual(['address_banned']);
  });

  it('judges a proxied connection by the address that the proxy tells', async () => {
    const { door, refusals } = makeDoor({ addressConnectionsMax: 1 }, ['192.0.2.9']);
    const entries = Array.from({ length: 3 }, () => door.enter(new PassThrough(), null));
    expect(entries[0]?.reveal('192.0.2.1')).toBe(true);
    expect(entries[1]?.reveal('192.0.2.1')).toBe(false);
    expect(entries[2]?.reveal('192.0.2.9')).toBe(false);
    expect(refusals).toEqual(['address_connections_max', 'address_banned']);
    await new Promise(setImmediate);
    expect(door.connections).toBe(1);
  });

  it('ends a connection without CONNACK at the deadline, and one with it never', async () => {
    const { door, refusals } = makeDoor({ connectDeadlineMs: 20 });
    const [late, hidden, served] = [new PassThrough(), new PassThrough(), new PassThrough()];
    door.enter(late, '192.0.2.1');
    door.enter(hidden, null);
    door.enter(served, '192.0.2.1')?.authenticated();
    await Promise.all([once(late, 'close'), once(hidden, 'close')]);
    expect(refusals).toEqual(['connect_deadline', 'connect_deadline']);
    expect(served.destroyed).toBe(false);
    expect(door.unauthenticated).toBe(0);
  });
});

describe('an address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:2::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4::/64'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
    ['1::', '1:0:0:0::/64'],
    ['unknown', 'unknown'],
  ])('%s counts as %s', (address, group) => {
    expect(addressGroup(address)).toBe(group);
  });

  it('of IPv4 that came mapped into IPv6 is the one of IPv4', () => {
    expect(plainAddress('::ffff:192.0.2.1')).toBe('192.0.2.1');
    expect(plainAddress('::FFFF:192.0.2.1')).toBe('192.0.2.1');
    expect(plainAddress('::ffff:0:1')).toBe('::ffff:0:1');
    expect(plainAddress(undefined)).toBe('unknown');
  });
});
