import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CommandQueues } from '../../commands/command-queues.ts';
import {
  commandRequest,
  type AnsweringDevice,
  type CommandRequest,
} from '../../commands/command.ts';
import { SLOT_ID_MAX } from '../../firmware-protocol/command.ts';
import { createTestCommands, makeDevice, storeHello } from '../support/command-queues.ts';
import { FakeWire } from '../support/command-wire.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
let author: { organizationId: number; actor: string };
let wire: FakeWire;
let commands: CommandQueues;
let made = 0;
let skewMs = 0;

beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
});
afterAll(() => test.drop());

beforeEach(() => {
  skewMs = 0;
  wire = new FakeWire();
  commands = createTestCommands(test.database, wire, { now: () => Date.now() + skewMs });
  commands.start();
  return () => commands.stop();
});

function nextDevice(): Promise<AnsweringDevice> {
  made += 1;
  const { organizationId } = author;
  return makeDevice(test.database, { organizationId, organization: 'acme' }, `d${made}`);
}

async function send(
  { device }: AnsweringDevice,
  name: string,
  more: Partial<CommandRequest> = {},
): Promise<string> {
  const { command } = await commands.enqueue(author, commandRequest(device, name, more));
  return command.commandId;
}

async function slotId({ device }: AnsweringDevice, name: string): Promise<number> {
  await eventually(`${name} in the slot`, () => wire.slot('acme', device)?.cmd === name);
  return wire.slot('acme', device)?.id ?? 0;
}

const stateOf = async (commandId: string) =>
  (await commands.get(author.organizationId, commandId)).state;

describe('the steps of commands', () => {
  it('are told in order when the answers come while it is noted that many were sent', async () => {
    const devices = await Promise.all(Array.from({ length: 40 }, nextDevice));
    const ids = await Promise.all(devices.map((device) => send(device, 'relay')));
    const wireIds = await Promise.all(devices.map((device) => slotId(device, 'relay')));
    for (const device of devices) commands.sent(device, true);
    const countSent = async (): Promise<number> => {
      const { rows } = await test.database.pool.query<{ sent: number }>(
        `SELECT count(*)::int4 AS sent FROM command WHERE state = 'sent'`,
      );
      return rows[0]?.sent ?? 0;
    };
    while ((await countSent()) < devices.length);
    await Promise.all(
      devices.map((device, at) =>
        commands.acknowledge(device, { id: wireIds[at] ?? 0, st: 'ok' as const }),
      ),
    );
    await eventually('all are told', () => ids.every((id) => wire.told(id).length === 4));
    for (const id of ids) {
      expect(wire.told(id)).toEqual(['queued', 'published', 'sent', 'succeeded']);
    }
  });

  it('are the newest two hundred of a command that says how far it is for hours', async () => {
    const device = await nextDevice();
    const commandId = await send(device, 'calibrate');
    const id = await slotId(device, 'calibrate');
    await commands.acknowledge(device, { id, st: 'run' });
    await test.database.pool.query(
      `INSERT INTO command_event (command_id, organization_id, device_id, occurred_at, state, detail, told_at)
       SELECT $1, $2, $3, now(), 'running', '{}', now() FROM generate_series(1, 250)`,
      [commandId, author.organizationId, device.deviceId],
    );
    await commands.acknowledge(device, { id, st: 'ok' });
    const events = await commands.events(author.organizationId, commandId);
    expect(events).toHaveLength(200);
    expect(events.at(-1)?.state).toBe('succeeded');
    expect(events.at(-2)?.state).toBe('running');
  });
});

describe('a greeting', () => {
  it('counts before what its device says behind it, whatever it has to wait for', async () => {
    const device = await nextDevice();
    await storeHello(test.database, device, { boot: 7 });
    await commands.greeted(device, { boot: 7 });
    const commandId = await send(device, 'set', { isRetrySafe: true });
    const id = await slotId(device, 'set');
    let release: () => void = () => undefined;
    const before = new Promise<void>((resolve) => {
      release = resolve;
    });
    const greeting = commands.greeted(device, { boot: 8 }, before);
    const answer = commands.acknowledge(device, { id, st: 'run' });
    await delay(100);
    expect(await stateOf(commandId)).toBe('published');
    release();
    await Promise.all([greeting, answer]);
    // It began to run in boot 8: it is neither lost nor sent again.
    expect(await stateOf(commandId)).toBe('running');
    await commands.greeted(device, { boot: 8 });
    expect(await stateOf(commandId)).toBe('running');
  });
});

describe('what the device knows better', () => {
  it('is an id that nobody has given: the next one is above it', async () => {
    const device = await nextDevice();
    const used = Math.floor(Date.now() / 1000) + 5000;
    expect(await commands.acknowledge(device, { id: used, st: 'ok' })).toBe('unknown_id');
    await send(device, 'relay');
    expect(await slotId(device, 'relay')).toBe(used + 1);
  });

  it('is not asked again for what it was to stop when it rebooted', async () => {
    const device = await nextDevice();
    await storeHello(test.database, device, { boot: 7 });
    await commands.greeted(device, { boot: 7 });
    const commandId = await send(device, 'set', { isRetrySafe: true });
    await commands.acknowledge(device, { id: await slotId(device, 'set'), st: 'run' });
    await commands.cancel(author, commandId);
    await commands.greeted(device, { boot: 8 });
    expect(await stateOf(commandId)).toBe('failed');
  });
});

describe('the clock of the system', () => {
  it('set back gives rising ids all the same, and beyond the last id gives that one', async () => {
    const device = await nextDevice();
    await send(device, 'one');
    const first = await slotId(device, 'one');
    skewMs = -86_400_000;
    await commands.acknowledge(device, { id: first, st: 'ok' });
    await send(device, 'two');
    const second = await slotId(device, 'two');
    expect(second).toBe(first + 1);
    skewMs = 5_000_000_000_000;
    await commands.acknowledge(device, { id: second, st: 'ok' });
    await send(device, 'three');
    expect(await slotId(device, 'three')).toBe(SLOT_ID_MAX);
  });
});

describe('a queue that cannot be written', () => {
  it('does not keep the time of others from being over', async () => {
    const broken = await Promise.all(Array.from({ length: 25 }, nextDevice));
    const other = await nextDevice();
    for (const device of broken) {
      await send(device, 'relay', { ttlMs: 1000 });
      await send(device, 'next', { ttlMs: 3_600_000 });
    }
    // Somebody has changed rows by hand: the next ids are taken already.
    await test.database.pool.query(
      `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
         expires_at, origin, actor, wire_id, ended_at)
       SELECT gen_random_uuid(), $2, device_id, 'old', '{}', 'succeeded', false, now(), 'api', 'x',
         last_id + n, now()
       FROM command_slot, generate_series(1, 120) AS n WHERE device_id = ANY($1)`,
      [broken.map(({ deviceId }) => deviceId), author.organizationId],
    );
    const commandId = await send(other, 'relay', { ttlMs: 1000 });
    await eventually('the other is over', async () => (await stateOf(commandId)) === 'expired');
  });
});
