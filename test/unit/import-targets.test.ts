import { describe, expect, it } from 'vitest';
import type { ReadLine } from '../../ingest/import/import-line.ts';
import { ImportTargets, TARGETS_MAX, type Target } from '../../ingest/import/import-targets.ts';

const ORGANIZATION = 7;
const AGE_MAX_MS = 1000;

/** Devices are called `d` and their id. */
function createTargets() {
  const asked: (readonly string[])[] = [];
  let open = 0;
  const targets = new ImportTargets(ORGANIZATION, {
    ageMaxMs: AGE_MAX_MS,
    ingest: {
      openReplay(organizationId, deviceId, options) {
        expect([organizationId, options]).toEqual([ORGANIZATION, { ageMaxMs: AGE_MAX_MS }]);
        open += 1;
        return { deviceId } as never;
      },
      closeReplay: () => {
        open -= 1;
      },
      acceptReplay: () => true,
    },
    store: {
      async findDevices(_, devices) {
        asked.push(devices);
        const known = devices.filter((device) => /^d\d+$/.test(device));
        return new Map(known.map((device) => [device, Number(device.slice(1))]));
      },
    },
  });
  return { targets, asked, openLanes: () => open };
}

const linesOf = (devices: readonly string[]): ReadLine[] =>
  devices.map((device) => ({
    line: {} as ReadLine['line'],
    outcome: { device, payload: Buffer.alloc(0) },
  }));

const names = (prefix: string, from: number, count: number): string[] =>
  Array.from({ length: count }, (_, at) => `${prefix}${from + at}`);

describe('the devices of a file', () => {
  it('are looked up together, each once, whether there is one of the name or not', async () => {
    const { targets, asked } = createTargets();
    await targets.find(linesOf(['d1', 'x1', 'd2', 'd1', 'x1']));
    await targets.find(linesOf(['d2', 'x1']));
    expect(asked).toEqual([['d1', 'x1', 'd2']]);
    expect(targets.get('d1')).toMatchObject({ deviceId: 1, onWay: 0 });
    expect(targets.get('x1')).toMatchObject({ code: 'unknown_device' });
    expect(targets.get('d3')).toBeNull();
  });

  it('are not asked for by a name that no device can have, of any length', async () => {
    const { targets, asked } = createTargets();
    const bad = ['-d1', 'a b', 'd\0', 'x'.repeat(60_000)];
    await targets.find(linesOf(bad));
    expect(asked).toEqual([]);
    for (const device of bad) expect(targets.get(device)).toMatchObject({ code: 'unknown_device' });
  });

  it('beyond the bound are forgotten in the order of their last use, unless lines are on their way', async () => {
    const { targets, asked, openLanes } = createTargets();
    for (let from = 0; from < TARGETS_MAX; from += 250) {
      await targets.find(linesOf([...names('d', from, 250), ...names('x', from, 250)]));
    }
    const busy = targets.get('d1') as Target;
    busy.onWay = 1;
    for (let at = 2; at < 100; at += 1) targets.get(`d${at}`);
    targets.get('x0');
    // d1 was used before those behind it, and stays.
    await targets.find(linesOf(names('d', TARGETS_MAX, TARGETS_MAX - 50).slice(0, 256)));
    for (let from = 256; from < TARGETS_MAX - 50; from += 256) {
      await targets.find(linesOf(names('d', TARGETS_MAX + from, 256)));
    }
    await targets.find(linesOf(names('x', TARGETS_MAX, 256)));
    expect(openLanes()).toBeLessThanOrEqual(TARGETS_MAX);
    expect(targets.get('d1')).toBe(busy);
    expect(targets.get('d0')).toBeNull();
    expect(targets.get('x0')).not.toBeNull();
    expect(targets.get('x1')).toBeNull();
    expect(asked.length).toBeLessThan(130);
    targets.close();
    expect(openLanes()).toBe(0);
  });

  it('are looked up anew after one was deleted', async () => {
    const { targets, openLanes } = createTargets();
    await targets.find(linesOf(['d1', 'd2']));
    targets.forget(1);
    expect(openLanes()).toBe(1);
    expect(targets.get('d1')).toBeNull();
    expect(await targets.lookUp('d1')).toMatchObject({ deviceId: 1 });
    expect(await targets.lookUp('x9')).toMatchObject({ code: 'unknown_device' });
  });
});
