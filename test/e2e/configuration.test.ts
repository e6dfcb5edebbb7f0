import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type ApiAnswer, type TestApp } from '../support/app.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

interface Desired {
  readonly v: number;
  readonly cfg: Record<string, unknown>;
}

/** A device as firmware has it: applies what it reads when the version is another one, and reports. */
class Board {
  readonly applied: Desired[] = [];
  readonly greetings: { readonly cfg: number }[] = [];
  version = 0;
  readonly client: MqttClient;
  private constructor(client: MqttClient) {
    this.client = client;
  }

  static async connect(key: string, version = 0): Promise<Board> {
    const board = new Board(await app.connect(key));
    board.version = version;
    board.client.on('message', (topic, payload) => {
      const message = JSON.parse(payload.toString() || '{}') as Desired & { cfg: number };
      if (topic === 'v1/me/in/hello') board.greetings.push(message as never);
      if (topic !== 'v1/me/in/cfg' || message.v === undefined) return;
      if (message.v !== board.version) board.applied.push(message);
      board.version = message.v;
      const report = { v: message.v, ok: true };
      // A restart of the program may end the connection before it is acknowledged.
      board.client.publish('v1/me/cfg', JSON.stringify(report), { qos: 1 }, () => undefined);
    });
    await board.client.subscribeAsync('v1/me/in/+', { qos: 1 });
    return board;
  }
}

/** A change with `If-Match: *`. */
async function change(method: string, path: string, body: object): Promise<ApiAnswer> {
  const answer = await fetch(`${app.addresses.httpUrl}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${app.adminKey}`,
      'content-type': 'application/json',
      'if-match': '*',
    },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: await answer.json() };
}

const pathOf = (device: string): string => `/api/v1/devices/${device}/configuration`;

describe('the configuration of a device', () => {
  it('reaches a connected device, which reports it', async () => {
    const board = await Board.connect(await app.addDevice('cfg-1'));
    expect((await change('PUT', pathOf('cfg-1'), { every: 60 })).body.version).toBe(1);
    await eventually('it is applied', () => board.version === 1);
    await eventually('it is reported', async () => {
      const { body } = await app.api('GET', pathOf('cfg-1'));
      return body.reported?.ok === true && body.drift.since === null && body.published;
    });
    expect(board.applied).toEqual([{ v: 1, cfg: { every: 60 } }]);
  });

  it('waits whole for a device that sleeps, and is told in its greeting', async () => {
    const key = await app.addDevice('cfg-2');
    await change('PUT', pathOf('cfg-2'), { every: 60, mode: 'auto' });
    await change('PATCH', pathOf('cfg-2'), { every: 30 });
    await change('PATCH', pathOf('cfg-2'), { mode: null });
    await eventually('it is published', async () => {
      return (await app.api('GET', pathOf('cfg-2'))).body.published;
    });
    const board = await Board.connect(key);
    await eventually('it is applied', () => board.version === 3);
    expect(board.applied).toEqual([{ v: 3, cfg: { every: 30 } }]);
    await eventually('it is greeted', () => board.greetings.some(({ cfg }) => cfg === 3));
  });

  it('is taken from the hello of a device that has it already', async () => {
    const key = await app.addDevice('cfg-3');
    await change('PUT', pathOf('cfg-3'), { a: 1 });
    const client = await app.connect(key);
    await client.publishAsync('v1/me/hello', '{"cfg":1,"mps":512}', { qos: 1 });
    await eventually('it is known', async () => {
      const { body } = await app.api('GET', pathOf('cfg-3'));
      return body.reported?.version === 1 && body.packet.bytesMax === 512;
    });
  });

  it('says why a device could not apply it', async () => {
    const client = await app.connect(await app.addDevice('cfg-4'));
    await change('PUT', pathOf('cfg-4'), { every: 1 });
    await client.publishAsync('v1/me/cfg', '{"v":1,"ok":false,"msg":"every<10"}', { qos: 1 });
    const { body } = await app.api('GET', pathOf('cfg-4'));
    expect(body.reported).toMatchObject({ version: 1, ok: false, message: 'every<10' });
    expect(body.drift.since).not.toBeNull();
  });

  it('follows the type of its device', async () => {
    const board = await Board.connect(await app.addDevice('cfg-5'));
    const type = '/api/v1/device-types/valve/configuration';
    await change('PUT', type, { defaults: { every: 60 } });
    await app.api('PATCH', '/api/v1/devices/cfg-5', { type: 'valve' });
    await eventually('defaults are applied', () => board.version === 1);
    await change('PUT', type, { defaults: { every: 30 } });
    await eventually('other defaults are applied', () => board.version === 2);
    expect(board.applied.map(({ cfg }) => cfg)).toEqual([{ every: 60 }, { every: 30 }]);
  });

  it('goes with its device, and nothing of it reaches one of the same name', async () => {
    const key = await app.addDevice('cfg-6');
    await change('PUT', pathOf('cfg-6'), { a: 1 });
    const board = await Board.connect(key);
    await eventually('it is applied', () => board.version === 1);
    await app.api('DELETE', '/api/v1/devices/cfg-6');
    const next = await Board.connect(await app.addDevice('cfg-6'));
    await next.client.publishAsync('v1/me/hello', '{}', { qos: 1 });
    await eventually('it is greeted', () => next.greetings.some(({ cfg }) => cfg === 0));
    expect(next.applied).toEqual([]);
  });

  it('is there after a restart', async () => {
    const key = await app.addDevice('cfg-7');
    await change('PUT', pathOf('cfg-7'), { a: 1 });
    await app.restart();
    const board = await Board.connect(key);
    await eventually('it is applied', () => board.version === 1);
    expect(board.applied).toEqual([{ v: 1, cfg: { a: 1 } }]);
  });
});

describe('ten thousand devices of a type', () => {
  it('have their new versions on the disk of the broker within the time of an answer', async () => {
    await app.testDatabase.database.pool.query(
      `INSERT INTO device (organization_id, slug, display_name, device_type)
       SELECT organization_id, 'many-' || number, 'many', 'many'
       FROM organization, generate_series(1, 10000) AS number`,
    );
    const startedMs = performance.now();
    const { body } = await change('PUT', '/api/v1/device-types/many/configuration', {
      defaults: { every: 60, mode: 'auto' },
    });
    expect(body.effect).toMatchObject({ changed: 10_000, complete: true });
    expect(performance.now() - startedMs).toBeLessThan(20_000);
    if (process.env['SHOW_FIGURES'] !== undefined) console.error(performance.now() - startedMs);
  });
});
