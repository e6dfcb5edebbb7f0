import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { SimulatedFirmware, type FirmwareBehaviour } from '../../bench/simulated-firmware.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { espImage } from '../support/esp-image.ts';

let app: TestApp;
const boards: SimulatedFirmware[] = [];
beforeAll(async () => {
  app = await startTestApp({ UPDATE_BOOTS_MAX: '2' });
});
afterEach(async () => {
  await Promise.all(boards.splice(0).map((board) => board.stop()));
});
afterAll(() => app.stop());

/** Uploads an image of 300 kB. */
async function upload(version: string): Promise<string> {
  const query = `model=thermo-1&version=${version}`;
  const response = await fetch(`${app.addresses.httpUrl}/api/v1/firmware?${query}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${app.adminKey}` },
    body: new Uint8Array(espImage(version, 'thermo-1', 300_000)),
  });
  expect(response.status).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Boards that are connected and have greeted, with a tag of their own. */
async function fleet(
  tag: string,
  count: number,
  behaviour: Partial<FirmwareBehaviour> = {},
): Promise<SimulatedFirmware[]> {
  const made: SimulatedFirmware[] = [];
  for (let number = 1; number <= count; number += 1) {
    const device = `${tag}-${number}`;
    const key = await app.addDevice(device);
    await app.api('PATCH', `/api/v1/devices/${device}`, { tags: [tag] });
    const board = new SimulatedFirmware({
      access: { key },
      mqttUrl: app.addresses.mqttUrl,
      behaviour: { rebootMs: 20, ...behaviour },
    });
    board.start();
    boards.push(board);
    made.push(board);
  }
  await eventually('hellos of all boards', async () => {
    const { rows } = await app.testDatabase.database.pool.query(
      `SELECT FROM device_presence JOIN device USING (device_id)
       WHERE $1 = ANY(tags) AND hello->>'fw' = '1.0.0'`,
      [tag],
    );
    return rows.length === count;
  });
  return made;
}

const quick = {
  canary: 2,
  waves: [50, 100],
  ratePerMinute: 6000,
  concurrent: 50,
  settle: '0s',
  deviceTimeout: '2m',
};

async function campaign(tag: string, firmware: string, policy: object = {}): Promise<string> {
  const { status, body } = await app.api('POST', '/api/v1/campaigns', {
    name: tag,
    kind: 'update',
    targets: { tags: [tag] },
    request: { firmware, watch: '0s' },
    policy: { ...quick, ...policy },
  });
  expect(status, JSON.stringify(body)).toBe(201);
  return body.id as string;
}

async function endOf(campaignId: string): Promise<Record<string, unknown>> {
  let body: Record<string, unknown> = {};
  await eventually(
    'the end of the campaign',
    async () => {
      ({ body } = await app.api('GET', `/api/v1/campaigns/${campaignId}`));
      return body['endedAt'] !== null;
    },
    40_000,
  );
  return body;
}

const devicesOf = async (campaignId: string): Promise<{ state: string; code: string }[]> =>
  (await app.api('GET', `/api/v1/campaigns/${campaignId}/devices?limit=100`)).body.data;

describe('a campaign of updates', () => {
  it('brings twenty boards to a new version, wave by wave', { timeout: 60_000 }, async () => {
    const firmware = await upload('1.1.0');
    const made = await fleet('good', 20, { breakOffBytes: 100_000 });
    const ended = await endOf(await campaign('good', firmware));
    expect(ended).toMatchObject({ state: 'completed', devices: { succeeded: 20, failed: 0 } });
    expect(made.map(({ version }) => version)).toEqual(made.map(() => '1.1.0'));
    // Each connection broke in the middle, and was gone on with.
    expect(made.every(({ requests }) => requests === 2)).toBe(true);
    expect(made.every(({ executed }) => executed.length === 1)).toBe(true);
    const { body } = await app.api('GET', '/api/v1/devices/good-1/updates');
    expect(body.data[0]).toMatchObject({
      state: 'succeeded',
      fromVersion: '1.0.0',
      bytesSent: 300_000,
      boots: 1,
    });
    const command = await app.api('GET', `/api/v1/commands/${body.data[0].command}`);
    expect(command.body).toMatchObject({ state: 'succeeded', command: 'sys.ota' });
  });

  it('stops at the canary when the image is bad', { timeout: 60_000 }, async () => {
    const firmware = await upload('1.2.0');
    const made = await fleet('bad', 20, { image: 'failing' });
    const campaignId = await campaign('bad', firmware);
    const ended = await endOf(campaignId);
    expect(ended['state']).toBe('stopped');
    expect(ended['devices']).toMatchObject({ succeeded: 0, failed: 2 });
    expect(made.filter(({ executed }) => executed.length > 0)).toHaveLength(2);
    expect(made.every(({ version }) => version === '1.0.0')).toBe(true);
    const failed = (await devicesOf(campaignId)).filter(({ state }) => state === 'failed');
    expect(failed.map(({ code }) => code)).toEqual(['verify', 'verify']);
  });

  it('recognises an image that boots again and again', { timeout: 60_000 }, async () => {
    const firmware = await upload('1.3.0');
    const made = await fleet('looping', 6, { image: 'looping', loops: 5 });
    const campaignId = await campaign('looping', firmware, { canary: 1 });
    const ended = await endOf(campaignId);
    expect(ended['state']).toBe('stopped');
    const failed = (await devicesOf(campaignId)).filter(({ state }) => state === 'failed');
    expect(failed.map(({ code }) => code)).toEqual(['crash_loop']);
    await eventually('the old version', () => made.every(({ version }) => version === '1.0.0'));
  });

  it('recognises that the old version is back', { timeout: 60_000 }, async () => {
    const firmware = await upload('1.4.0');
    await fleet('back', 6, { image: 'looping', loops: 1 });
    const campaignId = await campaign('back', firmware, { canary: 1 });
    expect((await endOf(campaignId))['state']).toBe('stopped');
    const failed = (await devicesOf(campaignId)).filter(({ state }) => state === 'failed');
    expect(failed.map(({ code }) => code)).toEqual(['rolled_back']);
  });
});
