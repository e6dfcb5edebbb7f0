import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  ApprovalByAuthorError,
  CommandBacklogError,
  CommandEndedError,
  CommandInvalidError,
  CommandNotFoundError,
  CommandNotWaitingError,
  CommandTooBigError,
  IdempotencyKeyError,
} from '../../command-errors.ts';
import type { CommandQueues } from '../../commands/command-queues.ts';
import {
  commandRequest,
  type AnsweringDevice,
  type CommandRequest,
} from '../../commands/command.ts';
import { DeviceNotFoundError } from '../../errors.ts';
import { createTestCommands, makeDevice, storeHello } from '../support/command-queues.ts';
import { FakeWire } from '../support/command-wire.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
let wire: FakeWire;
let commands: CommandQueues;
let device: AnsweringDevice;
let author: { organizationId: number; actor: string };
let made = 0;
let skewMs = 0;
const now = (): number => Date.now() + skewMs;

beforeAll(async () => {
  test = await createTestDatabase();
  const { author: admin } = await createOrganization(test.database, 'acme');
  author = admin;
  await createOrganization(test.database, 'other');
});
afterAll(() => test.drop());

beforeEach(async () => {
  skewMs = 0;
  wire = new FakeWire();
  commands = createTestCommands(test.database, wire, { now });
  commands.start();
  made += 1;
  const { organizationId } = author;
  device = await makeDevice(test.database, { organizationId, organization: 'acme' }, `d${made}`);
  return () => commands.stop();
});

const send = (name: string, more: Partial<CommandRequest> = {}) =>
  commands.enqueue(author, commandRequest(device.device, name, more));
const slot = () => wire.slot('acme', device.device);
const slotId = async (name: string): Promise<number> => {
  await eventually(`${name} in the slot`, () => slot()?.cmd === name);
  return slot()?.id ?? 0;
};
const stateOf = async (commandId: string) =>
  (await commands.get(author.organizationId, commandId)).state;
async function isSpelledInFull(): Promise<boolean> {
  const { rows } = await test.database.pool.query<{ uses_alias: boolean }>(
    'SELECT uses_alias FROM command_slot WHERE device_id = $1',
    [device.deviceId],
  );
  return rows[0]?.uses_alias === false;
}

describe('the queue of a device', () => {
  it('goes through the slot one by one, and tells each step in order', async () => {
    const first = await send('relay', { args: { on: true }, ref: 'job42' });
    expect(first).toMatchObject({ isNew: true, command: { state: 'published', attempts: 1 } });
    const second = await send('blink');
    expect(second.command.state).toBe('queued');
    const id = await slotId('relay');
    expect(slot()).toMatchObject({ args: { on: true }, n: 1 });
    expect(id).toBeGreaterThanOrEqual(Math.floor(now() / 1000) - 2);
    expect(await commands.waiting(device)).toBe(2);
    expect(await commands.acknowledge(device, { id, st: 'ok', r: { on: true } })).toBe('applied');
    const next = await slotId('blink');
    expect(next).toBeGreaterThan(id);
    await commands.acknowledge(device, { id: next, st: 'err', code: 'valve', msg: 'stuck' });
    await eventually('the slot is empty', () => slot() === null);
    expect(await commands.get(author.organizationId, first.command.commandId)).toMatchObject({
      state: 'succeeded',
      result: { on: true },
      isLate: false,
    });
    expect(await commands.get(author.organizationId, second.command.commandId)).toMatchObject({
      state: 'failed',
      code: 'valve',
      message: 'stuck',
    });
    const { commandId } = first.command;
    await eventually('told', () => wire.told(commandId).length === 3);
    expect(wire.told(commandId)).toEqual(['queued', 'published', 'succeeded']);
    const last = wire.messages.findLast(({ topic }) => topic.endsWith(commandId));
    expect(JSON.parse(last?.payload.toString() ?? '')).toMatchObject({
      id: commandId,
      cmd: 'relay',
      ref: 'job42',
      r: { on: true },
    });
    expect(await commands.waiting(device)).toBe(0);
    const events = await commands.events(author.organizationId, commandId);
    expect(events.map(({ state }) => state)).toEqual(['queued', 'published', 'succeeded']);
    await eventually('noted as told', async () => (await untold()) === 0);
  });

  it('takes no more than may wait, and says when there is room', async () => {
    for (let at = 0; at < 5; at += 1) await send('blink');
    await expect(send('blink')).rejects.toBeInstanceOf(CommandBacklogError);
    await commands.acknowledge(device, { id: await slotId('blink'), st: 'ok' });
    await send('blink');
  });

  it('lets a newer command with the same replace key take the place of a queued one', async () => {
    await send('set', { args: { v: 0 }, replaceKey: 'level' });
    const old = await send('set', { args: { v: 1 }, replaceKey: 'level' });
    const newest = await send('set', { args: { v: 2 }, replaceKey: 'level' });
    expect(await commands.get(author.organizationId, old.command.commandId)).toMatchObject({
      state: 'cancelled',
      code: 'replaced',
    });
    expect(newest.command.state).toBe('queued');
  });

  it('gives the same command for the same idempotency key, and refuses another request', async () => {
    const first = await send('relay', { args: { a: 1, b: 2 }, idempotencyKey: `k${made}` });
    const again = await send('relay', { args: { b: 2, a: 1 }, idempotencyKey: `k${made}` });
    expect(again).toMatchObject({
      isNew: false,
      command: { commandId: first.command.commandId },
    });
    await expect(
      send('relay', { args: { a: 2 }, idempotencyKey: `k${made}` }),
    ).rejects.toBeInstanceOf(IdempotencyKeyError);
    const both = await Promise.all([
      send('blink', { idempotencyKey: `p${made}` }),
      send('blink', { idempotencyKey: `p${made}` }),
    ]);
    expect(both.filter(({ isNew }) => isNew)).toHaveLength(1);
    const { organizationId } = author;
    const place = { organizationId, organization: 'acme' };
    const other = await makeDevice(test.database, place, `other${made}`);
    const asked = await Promise.allSettled(
      [device, other].map((to) =>
        commands.enqueue(
          author,
          commandRequest(to.device, 'blink', { idempotencyKey: `two${made}` }),
        ),
      ),
    );
    const refused = asked.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
    expect(refused).toHaveLength(1);
    expect(refused[0]).toBeInstanceOf(IdempotencyKeyError);
  });

  it('knows a request again whose definition has changed, and no other by what it was filled in with', async () => {
    const asked = commandRequest(device.device, 'relay', { idempotencyKey: `d${made}` });
    const filled = { ...asked, ttlMs: 60_000, isRetrySafe: true };
    const first = await commands.enqueue(author, filled, asked);
    const again = await commands.enqueue(author, { ...asked, ttlMs: 90_000 }, asked);
    expect(again).toMatchObject({
      isNew: false,
      command: { commandId: first.command.commandId },
    });
    for (const other of [filled, { ...asked, ref: 'job42' }, { ...asked, needsApproval: true }]) {
      await expect(commands.enqueue(author, other)).rejects.toBeInstanceOf(IdempotencyKeyError);
    }
  });

  it('refuses what the device cannot receive, and ends it when that becomes so', async () => {
    await expect(send('blink', { args: { text: 'x'.repeat(200) } })).rejects.toBeInstanceOf(
      CommandTooBigError,
    );
    await storeHello(test.database, device, { mps: 1024 });
    await send('blink');
    const long = await send('blink', { args: { text: 'x'.repeat(200) } });
    const after = await send('relay');
    await storeHello(test.database, device, { mps: 256 });
    await commands.acknowledge(device, { id: await slotId('blink'), st: 'ok' });
    await slotId('relay');
    expect(await commands.get(author.organizationId, long.command.commandId)).toMatchObject({
      state: 'rejected',
      code: 'too_big',
    });
    expect(await stateOf(after.command.commandId)).toBe('published');
  });

  it('refuses unknown devices, those of others, and names that are Puback its own', async () => {
    await expect(
      commands.enqueue(author, commandRequest('nobody', 'relay')),
    ).rejects.toBeInstanceOf(DeviceNotFoundError);
    await expect(
      commands.enqueue({ ...author, organizationId: 2 }, commandRequest(device.device, 'relay')),
    ).rejects.toBeInstanceOf(DeviceNotFoundError);
    await expect(send('sys.ota')).rejects.toBeInstanceOf(CommandInvalidError);
    await expect(send('sys.cancel')).rejects.toBeInstanceOf(CommandInvalidError);
    await expect(send('blink', { ttlMs: 10 })).rejects.toBeInstanceOf(CommandInvalidError);
    await send('sys.reboot');
  });

  it('rejects what has a precondition that does not hold when its turn comes', async () => {
    const { organizationId, deviceId } = device;
    await test.database.pool.query(
      `WITH m AS (INSERT INTO metric (organization_id, name, kind) VALUES ($1, $3, 'number') RETURNING metric_id)
       INSERT INTO device_latest (device_id, metric_id, time, value, received_at, quality)
       SELECT $2, metric_id, now(), 21.5, now(), 0 FROM m`,
      [organizationId, deviceId, `temp${made}`],
    );
    const when = (value: number) => ({
      readings: [{ metric: `temp${made}`, op: '<' as const, value, ageMaxMs: 60_000 }],
    });
    const no = await send('heat', { precondition: when(20) });
    expect(no.command).toMatchObject({ state: 'rejected', code: 'precondition_failed' });
    const yes = await send('heat', { precondition: when(25) });
    expect(yes.command.state).toBe('published');
    const never = await send('heat', { precondition: { reported: { mode: 'auto' } } });
    await commands.acknowledge(device, { id: await slotId('heat'), st: 'ok' });
    expect(await stateOf(never.command.commandId)).toBe('rejected');
  });

  it('moves on past more commands that cannot be sent than it reads at a time', async () => {
    const many = createTestCommands(test.database, wire, { now, limits: { backlogMax: 100 } });
    const dry = (more: Partial<CommandRequest>) =>
      many.enqueue(author, commandRequest(device.device, 'drip', more));
    await dry({});
    const precondition = { reported: { mode: 'never' } };
    for (let at = 0; at < 50; at += 1) await dry({ precondition });
    const last = await many.enqueue(author, commandRequest(device.device, 'last'));
    await many.acknowledge(device, { id: await slotId('drip'), st: 'ok' });
    await slotId('last');
    expect(await stateOf(last.command.commandId)).toBe('published');
    await many.stop();
  });
});

describe('the time of a command', () => {
  it('is over in the queue and in the slot, and the queue moves on [L-10]', async () => {
    const first = await send('relay', { ttlMs: 1000 });
    const second = await send('relay', { ttlMs: 2000 });
    const third = await send('blink');
    await slotId('relay');
    skewMs = 5000;
    await slotId('blink');
    expect(await stateOf(first.command.commandId)).toBe('expired');
    expect(await stateOf(second.command.commandId)).toBe('expired');
    expect(await stateOf(third.command.commandId)).toBe('published');
  });

  it('counts what its device did all the same, and says that it came late [L-10]', async () => {
    const { command } = await send('relay', { ttlMs: 1000 });
    const id = await slotId('relay');
    skewMs = 5000;
    await eventually('the slot is empty', () => slot() === null);
    expect(await commands.acknowledge(device, { id, st: 'ok' })).toBe('late');
    expect(await commands.acknowledge(device, { id, st: 'ok' })).toBe('repeated');
    expect(await commands.get(author.organizationId, command.commandId)).toMatchObject({
      state: 'succeeded',
      isLate: true,
    });
  });

  it('is over for its device at the same second', async () => {
    const { command } = await send('relay', { ttlMs: 1500 });
    await slotId('relay');
    expect(slot()?.exp).toBe(command.expiresAt.getTime() / 1000);
  });
});

describe('an answer', () => {
  it('of nobody, of another device or out of order changes nothing [L-11]', async () => {
    const { command } = await send('relay');
    const id = await slotId('relay');
    const { organizationId } = author;
    const other = await makeDevice(
      test.database,
      { organizationId, organization: 'acme' },
      `foreign${made}`,
    );
    expect(await commands.acknowledge(other, { id, st: 'ok' })).toBe('unknown_id');
    expect(await commands.acknowledge(device, { id: 7, st: 'ok' })).toBe('unknown_id');
    expect(await commands.acknowledge(device, { id, st: 'dup', last: id - 1 })).toBe(
      'out_of_order',
    );
    expect(await stateOf(command.commandId)).toBe('published');
    expect(await commands.acknowledge(device, { id, st: 'no', code: 'unknown' })).toBe('applied');
    expect(await commands.acknowledge(device, { id, st: 'ok' })).toBe('repeated');
    expect(await stateOf(command.commandId)).toBe('rejected');
  });

  it('that it works on it frees the slot, and the end comes later', async () => {
    const long = await send('calibrate');
    await send('blink');
    const id = await slotId('calibrate');
    await commands.acknowledge(device, { id, st: 'run', pct: 10 });
    const next = await slotId('blink');
    for (const pct of [11, 12, 13]) await commands.acknowledge(device, { id, st: 'run', pct });
    await commands.acknowledge(device, { id, st: 'run', pct: 60 });
    await commands.acknowledge(device, { id: next, st: 'ok' });
    const { commandId } = long.command;
    expect(await commands.get(author.organizationId, commandId)).toMatchObject({
      state: 'running',
      progress: 60,
    });
    await commands.acknowledge(device, { id, st: 'ok' });
    await eventually('told', () => wire.told(commandId).includes('succeeded'));
    expect(wire.told(commandId)).toEqual([
      'queued',
      'published',
      'running',
      'running',
      'succeeded',
    ]);
  });

  it('that it was taken before ends as unknown, and heals the ids', async () => {
    const { command } = await send('relay');
    const id = await slotId('relay');
    const last = id + 1000;
    expect(await commands.acknowledge(device, { id, st: 'dup', last })).toBe('applied');
    expect(await stateOf(command.commandId)).toBe('unknown');
    await send('blink');
    expect(await slotId('blink')).toBe(last + 1);
  });
});

describe('cancelling', () => {
  it('takes a command out of the queue and out of the slot', async () => {
    const first = await send('relay');
    const second = await send('relay');
    const third = await send('blink');
    const by = { ...author, actor: 'someone' };
    expect((await commands.cancel(by, second.command.commandId)).state).toBe('cancelled');
    expect((await commands.cancel(by, first.command.commandId)).state).toBe('cancelled');
    await slotId('blink');
    expect(await stateOf(third.command.commandId)).toBe('published');
    await expect(commands.cancel(by, first.command.commandId)).rejects.toBeInstanceOf(
      CommandEndedError,
    );
    await expect(commands.cancel(by, 'nonsense')).rejects.toBeInstanceOf(CommandNotFoundError);
    await expect(
      commands.cancel({ ...by, organizationId: 2 }, third.command.commandId),
    ).rejects.toBeInstanceOf(CommandNotFoundError);
  });

  it('asks the device to stop what runs, before all that waits', async () => {
    const long = await send('calibrate');
    const id = await slotId('calibrate');
    await commands.acknowledge(device, { id, st: 'run' });
    await send('blink');
    await send('relay');
    const { commandId } = long.command;
    const cancelled = await commands.cancel(author, commandId);
    expect(cancelled.state).toBe('running');
    expect(cancelled.cancelAskedAt).not.toBeNull();
    await commands.cancel(author, commandId);
    await commands.acknowledge(device, { id: await slotId('blink'), st: 'ok' });
    const ask = await slotId('sys.cancel');
    expect(slot()?.args).toEqual({ id });
    await commands.acknowledge(device, { id: ask, st: 'ok' });
    await slotId('relay');
    await commands.acknowledge(device, { id, st: 'err', code: 'cancelled' });
    expect(await stateOf(commandId)).toBe('failed');
  });
});

describe('approval', () => {
  it('comes from somebody else, before the command enters the queue', async () => {
    const { command } = await send('open', { needsApproval: true });
    expect(command.state).toBe('awaiting_approval');
    expect(await commands.waiting(device)).toBe(0);
    await send('blink');
    await expect(commands.approve(author, command.commandId)).rejects.toBeInstanceOf(
      ApprovalByAuthorError,
    );
    const other = { ...author, actor: 'other' };
    const approved = await commands.approve(other, command.commandId);
    expect(approved).toMatchObject({ state: 'queued', approvedBy: 'other' });
    await send('relay');
    await expect(commands.approve(other, command.commandId)).rejects.toBeInstanceOf(
      CommandNotWaitingError,
    );
    await commands.acknowledge(device, { id: await slotId('blink'), st: 'ok' });
    await slotId('open');
  });

  it('lets the command take the place of queued ones with the same replace key', async () => {
    const level = (v: number, more: Partial<CommandRequest> = {}) =>
      send('set', { args: { v }, replaceKey: 'level', ...more });
    const head = await level(0);
    const held = await level(1, { needsApproval: true });
    const queued = await level(2);
    const unlike = await send('set', { args: { v: 3 }, replaceKey: 'other' });
    const unapproved = await level(4, { needsApproval: true });
    await send('blink');
    await send('blink');
    await commands.approve({ ...author, actor: 'other' }, held.command.commandId);
    expect(await commands.get(author.organizationId, queued.command.commandId)).toMatchObject({
      state: 'cancelled',
      code: 'replaced',
      message: `replaced by ${held.command.commandId}`,
    });
    expect(await stateOf(held.command.commandId)).toBe('queued');
    expect(await stateOf(head.command.commandId)).toBe('published');
    expect(await stateOf(unlike.command.commandId)).toBe('queued');
    expect(await stateOf(unapproved.command.commandId)).toBe('awaiting_approval');
    expect(await commands.waiting(device)).toBe(5);
  });

  it('is bounded as the queue is, and ends with the time of the command', async () => {
    const all = [];
    for (let at = 0; at < 5; at += 1) {
      all.push(await send('open', { needsApproval: true, ttlMs: 1000 }));
    }
    await expect(send('open', { needsApproval: true })).rejects.toBeInstanceOf(CommandBacklogError);
    skewMs = 5000;
    const [first] = all;
    await eventually(
      'expired',
      async () => (await stateOf(first?.command.commandId ?? '')) === 'expired',
    );
  });
});

describe('a reboot', () => {
  it('fails what was running, and sends again what is safe to repeat, so often', async () => {
    await storeHello(test.database, device, { boot: 7 });
    await commands.greeted(device, { boot: 7 });
    const never = await send('calibrate');
    await commands.acknowledge(device, { id: await slotId('calibrate'), st: 'run' });
    const safe = await send('set', { isRetrySafe: true });
    let id = await slotId('set');
    await commands.acknowledge(device, { id, st: 'run' });
    await commands.greeted(device, { boot: 7 });
    expect(await stateOf(never.command.commandId)).toBe('running');
    for (const boot of [8, 9]) {
      await commands.greeted(device, { boot });
      const before = id;
      await eventually('a new id', () => (slot()?.id ?? 0) > before);
      id = slot()?.id ?? 0;
      await commands.acknowledge(device, { id, st: 'run' });
    }
    expect(await commands.get(author.organizationId, never.command.commandId)).toMatchObject({
      state: 'failed',
      code: 'rebooted',
    });
    expect(await commands.get(author.organizationId, safe.command.commandId)).toMatchObject({
      state: 'running',
      attempts: 3,
    });
    await commands.greeted(device, { boot: 10 });
    expect(await stateOf(safe.command.commandId)).toBe('failed');
    expect(await commands.acknowledge(device, { id, st: 'ok' })).toBe('late');
  });

  it('leaves an update over the air and what was not answered alone', async () => {
    await storeHello(test.database, device, { boot: 1 });
    await commands.greeted(device, { boot: 1 });
    const update = await send('sys.ota', { origin: 'update' });
    const id = await slotId('sys.ota');
    await commands.acknowledge(device, { id, st: 'run' });
    // That the image is written does not mean that it runs.
    await commands.acknowledge(device, { id, st: 'ok' });
    const sent = await send('blink');
    await commands.greeted(device, { boot: 2, last: 5 });
    expect(await stateOf(update.command.commandId)).toBe('running');
    expect(await stateOf(sent.command.commandId)).toBe('published');
    await commands.settle(update.command.commandId, 'succeeded', 'updated', 'it greets as 1.4.3');
    await commands.settle(update.command.commandId, 'failed', 'late', 'no');
    expect(await stateOf(update.command.commandId)).toBe('succeeded');
  });
});

describe('a device that receives less than before', () => {
  it('has what does not fit any more rejected, in the slot and behind it, and the queue goes on', async () => {
    await storeHello(test.database, device, { mps: 512, boot: 1 });
    const args = { text: 'x'.repeat(200) };
    const large = [await send('show', { args }), await send('show', { args })];
    const small = await send('relay');
    await slotId('show');
    await commands.greeted(device, { mps: 512 });
    expect(await stateOf(large[0]?.command.commandId ?? '')).toBe('published');
    await commands.greeted(device, { mps: 128 });
    await slotId('relay');
    for (const { command } of large) {
      expect(await commands.get(author.organizationId, command.commandId)).toMatchObject({
        state: 'rejected',
        code: 'too_big',
        message: expect.stringMatching(/^a packet of \d{3} bytes, the device takes 128$/),
      });
    }
    expect(await stateOf(small.command.commandId)).toBe('published');
  });

  it('and has taken it already leaves its outcome unknown', async () => {
    await storeHello(test.database, device, { mps: 512, boot: 1 });
    const { command } = await send('show', { args: { text: 'x'.repeat(200) } });
    const last = await slotId('show');
    await commands.greeted(device, { mps: 128, last });
    expect(await stateOf(command.commandId)).toBe('unknown');
    await eventually('an empty slot', () => slot() === null);
  });
});

describe('a device', () => {
  it('that read its slot has been sent the command', async () => {
    const { command } = await send('relay');
    await slotId('relay');
    commands.sent(device, true);
    await eventually('sent', async () => (await stateOf(command.commandId)) === 'sent');
    await eventually('told', () => wire.told(command.commandId).includes('sent'));
    commands.sent(device, false);
    await eventually('its spelling is known', isSpelledInFull);
  });

  it('that spells its topics in full is known for it, also when its slot was held meanwhile', async () => {
    await send('relay');
    await slotId('relay');
    const holder = await test.database.pool.connect();
    try {
      await holder.query('BEGIN');
      await holder.query('SELECT 1 FROM command_slot WHERE device_id = $1 FOR UPDATE', [
        device.deviceId,
      ]);
      commands.sent(device, false);
      // To prove an absence: the note comes by and has to leave the row out.
      await delay(600);
      expect(await isSpelledInFull()).toBe(false);
      await holder.query('COMMIT');
    } finally {
      holder.release();
    }
    await eventually('its spelling is known', isSpelledInFull);
  });

  it('that polls gets the head of its queue until it answers', async () => {
    expect(await commands.poll(device)).toBeNull();
    const { command } = await send('relay', { args: { on: true } });
    await send('blink');
    const polled = await commands.poll(device);
    expect(polled).toMatchObject({ cmd: 'relay', args: { on: true }, n: 2 });
    expect(await commands.poll(device)).toEqual(polled);
    expect(await stateOf(command.commandId)).toBe('sent');
    await commands.acknowledge(device, { id: polled?.id ?? 0, st: 'ok' });
    expect(await commands.poll(device)).toMatchObject({ cmd: 'blink', n: 1 });
  });

  it('that is deleted takes its commands along, and its slot is cleared', async () => {
    await send('relay');
    await slotId('relay');
    await test.database.pool.query('DELETE FROM device WHERE device_id = $1', [device.deviceId]);
    await commands.forgetDevice('acme', device.device);
    await eventually('the slot is empty', () => slot() === null);
    expect(await commands.acknowledge(device, { id: 1, st: 'ok' })).toBe('unknown_id');
  });

  it('answers to who waits for it', async () => {
    const { command } = await send('relay');
    const { organizationId } = author;
    const soon = await commands.outcome(organizationId, command.commandId, 20);
    expect(soon.state).toBe('published');
    const waiting = commands.outcome(organizationId, command.commandId, 10_000);
    await commands.acknowledge(device, { id: await slotId('relay'), st: 'ok', r: 1 });
    expect(await waiting).toMatchObject({ state: 'succeeded', result: 1 });
  });

  it('answers what its row says, to all who wait, also when an answer comes late', async () => {
    const { organizationId } = author;
    const readings = [{ metric: 'door', op: '==', value: 'shut', ageMaxMs: null }] as const;
    const gated = await send('open', { precondition: { readings } });
    const sent = await send('relay', {
      ...{ args: { b: [1e-7, 1e21, -0], a: { text: 'it\'s \\ "$1"' } }, ref: 'job42' },
      ...{ replaceKey: 'level', isRetrySafe: true, idempotencyKey: `row${made}` },
    });
    const told = async (commandId: string, act: () => Promise<unknown>) => {
      const waits = [1, 2].map(() => commands.outcome(organizationId, commandId, 10_000));
      // They read it before it changes: a read is one way to the database, a change takes two.
      await act();
      const outcomes = await Promise.all(waits);
      const row = await commands.get(organizationId, commandId);
      expect(outcomes).toStrictEqual([row, row]);
      return row;
    };
    const gatedRow = await commands.outcome(organizationId, gated.command.commandId, 10_000);
    expect(gatedRow).toMatchObject({ state: 'rejected', code: 'precondition_failed' });
    const { commandId } = sent.command;
    const id = await slotId('relay');
    await commands.acknowledge(device, { id, st: 'run', pct: 40 });
    const r = { z: 1.5, a: ['\u{1f525}', null, { text: "it's $1 \\" }] };
    const done = await told(commandId, () => commands.acknowledge(device, { id, st: 'ok', r }));
    expect(done).toMatchObject({ state: 'succeeded', result: r, progress: 40 });
    const next = await send('blink');
    const nextId = await slotId('blink');
    const { commandId: nextCommandId } = next.command;
    await told(nextCommandId, () => commands.cancel(author, nextCommandId));
    await commands.acknowledge(device, { id: nextId, st: 'ok' });
    const late = await commands.outcome(organizationId, nextCommandId, 10_000);
    expect(late).toMatchObject({ state: 'succeeded', isLate: true, result: null });
  });
});

describe('the list of commands', () => {
  it('is newest first, in pages, by device and by state', async () => {
    for (const name of ['a', 'b', 'c']) await send(name);
    const query = { organizationId: author.organizationId, device: device.device, states: null };
    const first = await commands.list({ ...query, limit: 2, after: null });
    expect(first.rows.map(({ name }) => name)).toEqual(['c', 'b']);
    const after = first.rows.at(-1)?.commandId ?? null;
    const second = await commands.list({ ...query, limit: 2, after });
    expect(second).toMatchObject({ hasMore: false, rows: [{ name: 'a' }] });
    const queued = await commands.list({ ...query, states: ['published'], limit: 9, after: null });
    expect(queued.rows.map(({ name }) => name)).toEqual(['a']);
    const foreign = await commands.list({ ...query, organizationId: 2, limit: 9, after: null });
    expect(foreign.rows).toEqual([]);
  });
});

async function untold(): Promise<number> {
  const { rows } = await test.database.pool.query<{ untold: number }>(
    'SELECT count(*)::int4 AS untold FROM command_event WHERE told_at IS NULL AND device_id = $1',
    [device.deviceId],
  );
  return rows[0]?.untold ?? 0;
}
