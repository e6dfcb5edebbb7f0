import { afterEach, beforeEach, expect, it } from 'vitest';
import { SimulatedFirmware } from '../../bench/simulated-firmware.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { freePort } from '../support/free-port.ts';
import { espImage } from '../support/esp-image.ts';

const IMAGE_BYTES = 5_000_000;

let app: TestApp;
let board: SimulatedFirmware;
beforeEach(async () => {
  // A board knows one address, before the restart and after it.
  const [HTTP_PORT, MQTT_PORT] = [await freePort(), await freePort()];
  app = await startTestApp({ HTTP_PORT, MQTT_PORT, FIRMWARE_BYTES_PER_S: '500000' });
  const key = await app.addDevice('board');
  board = new SimulatedFirmware({ access: { key }, mqttUrl: app.addresses.mqttUrl });
  board.start();
});
afterEach(async () => {
  await board.stop();
  await app.stop();
});

async function upload(version: string): Promise<string> {
  const query = `model=thermo-1&version=${version}`;
  const response = await fetch(`${app.addresses.httpUrl}/api/v1/firmware?${query}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${app.adminKey}` },
    body: new Uint8Array(espImage(version, 'thermo-1', IMAGE_BYTES)),
  });
  expect(response.status).toBe(201);
  return ((await response.json()) as { id: string }).id;
}

/** Offers an image as soon as the board has greeted. @returns the path of the update. */
async function update(firmware: string): Promise<string> {
  let path = '';
  await eventually('the update begins', async () => {
    const { status, body } = await app.api('POST', '/api/v1/devices/board/updates', { firmware });
    path = `/api/v1/updates/${body.id}`;
    return status === 202;
  });
  return path;
}

it(
  'goes on with a download in the middle of which the program was started anew',
  { timeout: 60_000 },
  async () => {
    const path = await update(await upload('1.1.0'));
    await eventually(
      'some of the image',
      async () => {
        const { rows } = await app.testDatabase.database.pool.query<{ progress: number }>(
          'SELECT progress FROM command WHERE progress > 0',
        );
        return rows.length > 0;
      },
      20_000,
    );
    await app.restart();
    const { body: before } = await app.api('GET', path);
    expect(before).toMatchObject({ state: 'downloading', endedAt: null });
    expect(before.bytesSent).toBeGreaterThan(0);
    expect(before.bytesSent).toBeLessThan(IMAGE_BYTES);
    await eventually(
      'the end',
      async () => (await app.api('GET', path)).body.endedAt !== null,
      30_000,
    );
    expect((await app.api('GET', path)).body).toMatchObject({
      state: 'succeeded',
      code: 'greeted',
      bytesSent: IMAGE_BYTES,
    });
    expect(board.version).toBe('1.1.0');
    // It took the command once, and went on behind what it had.
    expect(board.executed).toHaveLength(1);
    expect(board.requests).toBeGreaterThan(1);
  },
);
