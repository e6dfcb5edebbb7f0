import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { SimulatedFirmware } from '../../bench/simulated-firmware.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { espImage } from '../support/esp-image.ts';

let app: TestApp;
const boards: SimulatedFirmware[] = [];
beforeAll(async () => {
  app = await startTestApp();
});
afterEach(async () => {
  await Promise.all(boards.splice(0).map((board) => board.stop()));
});
afterAll(() => app.stop());

async function upload(version: string): Promise<string> {
  const query = `model=thermo-1&version=${version}`;
  const response = await fetch(`${app.addresses.httpUrl}/api/v1/firmware?${query}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${app.adminKey}` },
    body: new Uint8Array(espImage(version, 'thermo-1', 100_000)),
  });
  expect(response.status).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Boards that have greeted, with a tag of their own. */
async function fleet(tag: string, count: number): Promise<void> {
  for (let number = 1; number <= count; number += 1) {
    const device = `${tag}-${number}`;
    const key = await app.addDevice(device);
    await app.api('PATCH', `/api/v1/devices/${device}`, { tags: [tag] });
    const { mqttUrl } = app.addresses;
    const board = new SimulatedFirmware({ access: { key }, mqttUrl, behaviour: { rebootMs: 20 } });
    board.start();
    boards.push(board);
  }
  await eventually('hellos of all boards', async () => {
    const { rows } = await app.testDatabase.database.pool.query(
      `SELECT FROM device_presence JOIN device USING (device_id)
       WHERE $1 = ANY(tags) AND hello->>'fw' = '1.0.0'`,
      [tag],
    );
    return rows.length === count;
  });
}

async function rule(tag: string, severity: string): Promise<string> {
  const { status, body } = await app.api('POST', '/api/v1/rules', {
    name: `hot ${tag}`,
    severity,
    scope: { tags: [tag] },
    when: { metric: 'temp', op: '>', value: 80 },
    for: '0s',
  });
  expect(status, JSON.stringify(body)).toBe(201);
  return body.id as string;
}

async function campaign(tag: string, request: object): Promise<string> {
  const { status, body } = await app.api('POST', '/api/v1/campaigns', {
    name: tag,
    kind: 'update',
    targets: { tags: [tag] },
    request: { watch: '30s', ...request },
    policy: { canary: 1, waves: [100], ratePerMinute: 6000, settle: '0s', deviceTimeout: '2m' },
  });
  expect(status, JSON.stringify(body)).toBe(201);
  return body.id as string;
}

/** Waits for boards with a version, and lets each of them say how hot it is. */
async function heat(version: string, temp: number): Promise<void> {
  await eventually('a board with the new version', () =>
    boards.some((board) => board.version === version && board.isConnected),
  );
  for (const board of boards) if (board.version === version) board.publish({ temp });
}

it.each([
  { tag: 'critical', version: '1.1.0', severity: 'critical', isNamed: false },
  { tag: 'named', version: '1.2.0', severity: 'info', isNamed: true },
])(
  'a campaign stops at the canary for which an alert begins to fire: $tag',
  { timeout: 60_000 },
  async ({ tag, version, severity, isNamed }) => {
    await fleet(tag, 4);
    const ruleId = await rule(tag, severity);
    const stopOn = isNamed ? { critical: false, rules: [ruleId] } : {};
    const campaignId = await campaign(tag, { firmware: await upload(version), stopOn });
    await heat(version, 95);
    let ended: Record<string, unknown> = {};
    await eventually(
      'the end of the campaign',
      async () => {
        ({ body: ended } = await app.api('GET', `/api/v1/campaigns/${campaignId}`));
        return ended['endedAt'] !== null;
      },
      25_000,
    );
    expect(ended).toMatchObject({ state: 'stopped', devices: { succeeded: 0, failed: 1 } });
    const { body } = await app.api('GET', `/api/v1/campaigns/${campaignId}/devices`);
    expect(body.data.filter(({ state }: { state: string }) => state === 'failed')).toMatchObject([
      { code: 'alert' },
    ]);
    expect(boards.filter((board) => board.version === version)).toHaveLength(1);
  },
);

it('an alert that does not count lets a campaign go on', { timeout: 60_000 }, async () => {
  await fleet('warned', 2);
  await rule('warned', 'high');
  const firmware = await upload('1.3.0');
  const campaignId = await campaign('warned', { firmware, watch: '1s' });
  await heat('1.3.0', 95);
  await eventually(
    'the end of the campaign',
    async () => (await app.api('GET', `/api/v1/campaigns/${campaignId}`)).body.endedAt !== null,
    30_000,
  );
  const { body } = await app.api('GET', `/api/v1/campaigns/${campaignId}`);
  expect(body).toMatchObject({ state: 'completed', devices: { succeeded: 2, failed: 0 } });
});
