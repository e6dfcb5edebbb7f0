import { describe, expect, it } from 'vitest';
import { IdentityWatch } from '../../broker/gate/identity-watch.ts';

const peer = (connection: number, address = '192.0.2.1') => ({
  address,
  clientId: `board-${connection % 2}`,
  connection,
});

function makeWatch(devicesMax = 100) {
  const clock = { ms: 0 };
  return { watch: new IdentityWatch(devicesMax, () => clock.ms), clock };
}

describe('two clients with one key (N-08)', () => {
  it('are found at the fourth take-over in a minute, with both named', () => {
    const { watch, clock } = makeWatch();
    const findings = [1, 2, 3, 4].map((number) => {
      clock.ms += 10_000;
      return watch.takenOver('org/a', peer(number, '192.0.2.1'), peer(number + 1, '198.51.100.7'));
    });
    expect(findings).toEqual([
      null,
      null,
      null,
      {
        code: 'duplicate_identity',
        device: 'org/a',
        peers: [
          { address: '192.0.2.1', clientId: 'board-0', connection: 4 },
          { address: '198.51.100.7', clientId: 'board-1', connection: 5 },
        ],
        count: 4,
        windowS: 60,
      },
    ]);
  });

  it('are told of once in ten minutes for each device', () => {
    const { watch, clock } = makeWatch();
    let found = 0;
    for (let number = 0; number < 121; number += 1) {
      if (watch.takenOver('org/a', peer(number), peer(number + 1)) !== null) found += 1;
      clock.ms += 10_000;
    }
    expect(found).toBe(2);
    for (let number = 0; number < 3; number += 1) watch.takenOver('org/b', peer(1), peer(2));
    expect(watch.takenOver('org/b', peer(1), peer(2))?.device).toBe('org/b');
  });

  it('are not seen in a device that loses its network every 25 s', () => {
    const { watch, clock } = makeWatch();
    for (let number = 0; number < 100; number += 1) {
      clock.ms += 25_000;
      expect(watch.takenOver('org/a', peer(number), peer(number + 1))).toBeNull();
    }
  });
});

describe('a connection that flaps', () => {
  it('is found at the 31st connect in five minutes, once in ten minutes', () => {
    const { watch, clock } = makeWatch();
    const found: number[] = [];
    for (let number = 1; number <= 200; number += 1) {
      const finding = watch.connected('org/a', peer(number));
      if (finding !== null) {
        expect(finding).toMatchObject({ code: 'flapping', peers: [peer(number)], count: 31 });
        found.push(number);
      }
      clock.ms += 5000;
    }
    expect(found).toEqual([31, 151]);
  });

  it('is not one that connects every 11 s', () => {
    const { watch, clock } = makeWatch();
    for (let number = 0; number < 100; number += 1) {
      clock.ms += 11_000;
      expect(watch.connected('org/a', peer(number))).toBeNull();
    }
  });
});

describe('memory', () => {
  it('keeps no more devices than it may and forgets the longest quiet', () => {
    const { watch } = makeWatch(3);
    for (let number = 0; number < 30; number += 1) watch.connected('org/busy', peer(number));
    for (const device of ['org/b', 'org/c']) watch.connected(device, peer(1));
    expect(watch.connected('org/busy', peer(30))?.code).toBe('flapping');
    for (const device of ['org/d', 'org/e', 'org/f']) watch.connected(device, peer(1));
    expect(watch.size).toBe(3);
    for (let number = 0; number < 30; number += 1) {
      expect(watch.connected('org/busy', peer(number))).toBeNull();
    }
  });
});
