import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { DeviceLoadMetrics } from '../../rules/evaluation/device-load-metrics.ts';
import type { LoadedDevice, LoadRequest } from '../../rules/evaluation/device-load.ts';
import { createDeviceLoader, type StartLoader } from '../../rules/evaluation/device-loader.ts';
import { EVENTS_MAX } from '../../rules/evaluation/event-history.ts';
import type { Author } from '../../registry/devices.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const S = 1_000_000;

let test: TestDatabase;
let author: Author;
let nowMicros: number;
beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
  nowMicros = Math.floor(Date.now() / 1000) * S;
});
afterAll(() => test.drop());

let devices = 0;
let deviceId: number;
beforeEach(async () => {
  devices += 1;
  const wanted = { slug: `d${devices}` };
  ({ deviceId } = await createTestRegistry(test.database).devices.create(author, wanted));
});

/** Stores an event so many seconds from now, received so many later than it was. */
async function store(name: string, atS: number, delayS = 0, content: unknown = null) {
  const at = nowMicros + atS * S;
  await test.database.pool.query(
    `INSERT INTO event VALUES ($1, to_timestamp($2::float8 / 1000000), $3, $4, $5,
       to_timestamp($6::float8 / 1000000), 0)`,
    [deviceId, at, name, author.organizationId, JSON.stringify(content), at + delayS * S],
  );
}

function loader(startMicros: number | null = null): StartLoader {
  return createDeviceLoader({
    pool: test.database.pool,
    startCheckpointMicros: startMicros,
    checkpointMicros: () => 0,
    windowSamplesMax: 100,
    metrics: new DeviceLoadMetrics(new Registry()),
    log: pino({ level: 'silent' }),
  });
}

async function loadOne(
  events: LoadRequest['events'],
  { by = loader(), ...more }: Partial<LoadRequest> & { by?: StartLoader } = {},
): Promise<LoadedDevice> {
  const metrics = new Map<string, { historyMicros: number }>();
  const request = { deviceId, beforeMicros: Infinity, metrics, events, ...more };
  const [loaded] = await by.load([request as LoadRequest]);
  if (loaded === undefined) throw new Error('not loaded');
  return loaded;
}

const seen = ({ events = [] }: LoadedDevice): string[] =>
  events.map(({ name, timeMicros }) => `${name} ${(timeMicros - nowMicros) / S}`);

describe('events of a device that is loaded', () => {
  it('are those that rules wait for, as far back as they hold, with what was sent', async () => {
    await store('door.open', -500);
    await store('door.open', -50, 0, { door: 'north' });
    await store('door.shut', -40);
    const loaded = await loadOne(new Map([['door.open', 300 * S]]));
    expect(seen(loaded)).toEqual(['door.open -50']);
    expect(loaded.events?.[0]?.content).toEqual({ door: 'north' });
    expect(loaded.catchUpFromMicros).toBe(Infinity);
    expect(seen(await loadOne(undefined))).toEqual([]);
  });

  it('are evaluated again from the first that was received behind the checkpoint', async () => {
    await store('fault', -900, 890);
    await store('fault', -800);
    await store('fault', -5);
    const by = loader(nowMicros - 60 * S);
    expect(await by.devicesToCatchUp()).toContain(deviceId);
    const loaded = await loadOne(new Map([['fault', S]]), { by });
    // The one between was evaluated, and stands behind the first that may not have been.
    expect(seen(loaded)).toEqual(['fault -900', 'fault -800', 'fault -5']);
    expect(loaded.catchUpFromMicros).toBe(nowMicros - 900 * S);
  });

  it('are none that wait themselves, and no more than a bound', async () => {
    await store('fault', -2);
    await store('fault', -1);
    const events = new Map([['fault', 3600 * S]]);
    const receivedBeforeMicros = nowMicros - S;
    expect(seen(await loadOne(events, { receivedBeforeMicros }))).toEqual(['fault -2']);
    for (let second = 10; second < EVENTS_MAX + 20; second += 1) await store('fault', -second);
    expect((await loadOne(events)).events).toHaveLength(EVENTS_MAX);
  });
});
