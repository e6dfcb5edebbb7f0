import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { boardClients } from '../support/board.ts';
import {
  AWAKE_MS,
  executed,
  openBoardShelf,
  type BoardOwner,
  type BoardShelf,
} from '../support/board-owner.ts';
import { SleepyDevice } from '../support/sleepy-device.ts';
import { openSlowLink } from '../support/slow-link.ts';

const COMMANDS = Array.from({ length: 20 }, (_, index) => index + 1);
const HOUR_S = 3600;
const WAKES_MAX = 20;
/** Sleeping is the business of who sleeps, and a program on a busy machine is late. */
const LATE_MS = 5000;
/** A round trip of 300 ms, as over LTE-M. */
const SLOW = { latencyMs: 150, bitsPerSecond: 0, loss: 0, retransmitMs: 0 };

const [client] = boardClients().slice(-1);
let app: TestApp;
let shelf: BoardShelf | null = null;
beforeAll(async () => {
  if (client !== undefined) shelf = await openBoardShelf([client]);
  app = await startTestApp();
});
afterAll(async () => {
  await shelf?.powerOff();
  await app.stop();
  await shelf?.remove();
});

/** One that wakes once an hour: how long it was awake, and what it did, by the numbers of the commands. */
interface Sleeper {
  readonly device: string;
  wake(mqttUrl: string): Promise<{ readonly awakeMs: number; readonly executed: unknown[] }>;
}

async function inTypeScript(): Promise<Sleeper> {
  const device = 'sleepy';
  const sleepy = new SleepyDevice(await app.addDevice(device), HOUR_S, AWAKE_MS);
  return { device, wake: (mqttUrl) => sleepy.wake(mqttUrl) };
}

async function inC(): Promise<Sleeper> {
  if (shelf === null || client === undefined) throw new Error('boards were not compiled');
  const owner: BoardOwner = await shelf.owner(app, client);
  return {
    device: owner.device,
    async wake(mqttUrl) {
      const board = await owner.wakeAt(mqttUrl);
      const [sleep] = board.all('sleep');
      return { awakeMs: sleep?.['awake'], executed: executed(board) };
    },
  };
}

/** Wakes it as often as needed for all of its commands. @returns what each wake did. */
async function wakeUntilDone(sleeper: Sleeper, mqttUrl: string, ids: readonly string[]) {
  const wakes: unknown[][] = [];
  const states = async (): Promise<string[]> => {
    const path = `/api/v1/devices/${sleeper.device}/commands?limit=100`;
    const { data } = (await app.api('GET', path)).body;
    return data.map(({ state }: { state: string }) => state);
  };
  while (wakes.length < WAKES_MAX) {
    const { awakeMs, executed: done } = await sleeper.wake(mqttUrl);
    expect(awakeMs).toBeLessThan(AWAKE_MS + LATE_MS);
    wakes.push(done);
    // The hour that it is away, as it looks to Puback.
    await eventually('it is known to sleep', async () => {
      const path = `/api/v1/devices/${sleeper.device}/diagnostics`;
      return (await app.api('GET', path)).body.presence?.state === 'sleeping';
    });
    if ((await states()).filter((state) => state === 'succeeded').length === ids.length) break;
  }
  return wakes;
}

describe('a device that is awake for three seconds an hour', { timeout: 120_000 }, () => {
  it.each([
    ['in TypeScript', 'at once', inTypeScript],
    ['in TypeScript', 'over a slow link', inTypeScript],
    ['in C with a buffer of 128 bytes', 'over a slow link', inC],
  ] as const)('%s gets its 20 queued commands %s, in order and each once', async (...row) => {
    const [, way, make] = row;
    if (make === inC && shelf === null) return;
    const sleeper = await make();
    // What it takes is known from its first contact.
    await sleeper.wake(app.addresses.mqttUrl);
    const ids: string[] = [];
    for (const n of COMMANDS) {
      const asked = { command: 'relay', args: { n } };
      const path = `/api/v1/devices/${sleeper.device}/commands`;
      const { status, body } = await app.api('POST', path, asked);
      expect(status).toBe(202);
      ids.push(body.id);
    }
    const link = way === 'at once' ? null : await openSlowLink(app.addresses.mqttUrl, SLOW);
    try {
      const wakes = await wakeUntilDone(sleeper, link?.url ?? app.addresses.mqttUrl, ids);
      expect(wakes.flat()).toEqual(COMMANDS);
      console.info(`20 commands ${row[0]} ${way}: wakes of ${AWAKE_MS / 1000} s: ${wakes.length}`);
      expect(wakes.length).toBeGreaterThan(way === 'at once' ? 0 : 1);
    } finally {
      await link?.close();
      await app.api('DELETE', `/api/v1/devices/${sleeper.device}`);
    }
  });
});
