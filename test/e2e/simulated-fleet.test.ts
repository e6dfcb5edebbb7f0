import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ApiClient } from '../../bench/api-client.ts';
import { CommandTeller, demoHabits } from '../../bench/demo-command.ts';
import { provisionFleet, revokeFleetKeys, type BoardAccess } from '../../bench/fleet-keys.ts';
import { Fleet } from '../../bench/fleet.ts';
import { startTestApp, type TestApp } from '../support/app.ts';

const NAME = { prefix: 'sim', keyName: 'simulator', tags: ['simulated'] };
const WAIT = { timeout: 20_000 };

let app: TestApp;
let boards: BoardAccess[];
let fleet: Fleet;
beforeAll(async () => {
  app = await startTestApp();
  const api = new ApiClient(app.addresses.httpUrl, app.adminKey);
  boards = await provisionFleet(api, NAME, 3);
  fleet = new Fleet({
    mqttUrl: app.addresses.mqttUrl,
    boards,
    ratePerS: 5,
    habitsOf: (board) => ({ ...demoHabits(3)(board), sleepS: board === 3 ? 1 : 0 }),
  });
  fleet.start();
});
afterAll(async () => {
  await fleet.close();
  await app.stop();
});

async function lastBoot(device: string): Promise<{ boot: number; state: string }> {
  const { body } = await app.api('GET', `/api/v1/devices/${device}/diagnostics?limit=1`);
  return { boot: body.presence.hello?.boot ?? 0, state: body.presence.state };
}

describe('a simulated fleet', { timeout: 60_000 }, () => {
  it('answers commands, awake and asleep, and the demo tells of both', async () => {
    const written: string[] = [];
    const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
      written.push(String(text));
      return true;
    });
    const stop = new AbortController();
    const api = new ApiClient(app.addresses.httpUrl, app.adminKey);
    const devices = boards.map(({ device }) => device);
    const teller = new CommandTeller({ api, curl: 'curl URL', devices, startMs: Date.now() });
    const running = teller.run(stop.signal);
    try {
      await vi.waitFor(() => {
        const told = written.join('');
        expect(told).toContain('COMMAND relay {"on":true} to sim-002: succeeded {"on":true}');
        expect(told).toContain('COMMAND level {"percent":40} to sim-003: succeeded');
      }, WAIT);
    } finally {
      stop.abort();
      await running;
      spy.mockRestore();
    }
    expect(written.join('')).toContain('curl URL"/devices/sim-002/commands?wait=5s"');
    expect(written.join('')).toMatch(/queued 0 ms → published .* → sent .* → succeeded/);
  });

  it('reports configurations and reboots when it is told to', async () => {
    const put = await fetch(`${app.addresses.httpUrl}/api/v1/devices/sim-001/configuration`, {
      method: 'PUT',
      headers: {
        authorization: `Bearer ${app.adminKey}`,
        'content-type': 'application/json',
        'if-match': '*',
      },
      body: '{"every":60}',
    });
    expect(put.status).toBe(200);
    await vi.waitFor(async () => {
      const { body } = await app.api('GET', '/api/v1/devices/sim-001/configuration');
      expect(body.reported).toMatchObject({ version: 1, ok: true });
    }, WAIT);
    const before = await lastBoot('sim-001');
    await app.api('POST', '/api/v1/devices/sim-001/commands', { command: 'sys.reboot' });
    await vi.waitFor(async () => {
      const { boot, state } = await lastBoot('sim-001');
      expect({ boot, state }).toEqual({ boot: before.boot + 1, state: 'online' });
    }, WAIT);
    expect(fleet.counts.connectionsLost).toBe(0);
  });

  it('takes a new key, and has all its keys revoked in the end', async () => {
    const [board] = boards;
    const before = board?.key;
    await app.api('POST', '/api/v1/devices/sim-001/keys/rotate');
    await vi.waitFor(async () => {
      const { body } = await app.api('GET', '/api/v1/devices/sim-001/rotation');
      expect(body.state).toBe('retiring');
      expect((await lastBoot('sim-001')).state).toBe('online');
    }, WAIT);
    expect(board?.key).not.toBe(before);
    await fleet.close();
    await revokeFleetKeys(new ApiClient(app.addresses.httpUrl, app.adminKey), boards);
    const { body } = await app.api('GET', '/api/v1/devices/sim-001/keys');
    expect(body.data.map(({ state }: { state: string }) => state)).toEqual(['revoked', 'revoked']);
  });
});
