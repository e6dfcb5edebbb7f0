import { Registry as MetricsRegistry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { CommandQueues } from '../../commands/command-queues.ts';
import { commandRequest, type AnsweringDevice } from '../../commands/command.ts';
import { commandLimits, createTestCommands, makeDevice } from '../support/command-queues.ts';
import { FakeWire } from '../support/command-wire.ts';
import { whileAway, whileLocked } from '../support/database-faults.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { eventually } from '../support/eventually.ts';
import { createOrganization } from '../support/registry.ts';

let test: TestDatabase;
let author: { organizationId: number; actor: string };
let wire: FakeWire;
let device: AnsweringDevice;
let made = 0;
let skewMs = 0;
let open: CommandQueues[] = [];
const now = (): number => Date.now() + skewMs;

beforeAll(async () => {
  test = await createTestDatabase();
  ({ author } = await createOrganization(test.database, 'acme'));
});
afterAll(() => test.drop());

beforeEach(async () => {
  made += 1;
  skewMs = 0;
  wire = new FakeWire();
  open = [];
  const { organizationId } = author;
  device = await makeDevice(test.database, { organizationId, organization: 'acme' }, `d${made}`);
  return async () => {
    await Promise.all(open.map((commands) => commands.stop()));
    await test.database.pool.query('DELETE FROM command; DELETE FROM command_slot');
  };
});

function program(on = wire, metricsRegistry = new MetricsRegistry(), sweepMs = 3_600_000) {
  const commands = createTestCommands(test.database, on, {
    now,
    metricsRegistry,
    limits: { sweepMs },
  });
  open.push(commands);
  return commands;
}

const topic = (): string => `v1/acme/${device.device}/in/cmd`;
const slot = (on = wire) => on.slot('acme', device.device);
const send = (commands: CommandQueues, name: string) =>
  commands.enqueue(author, commandRequest(device.device, name));

/** The program is killed: its broker never answers again, and what was retained is there for the next one. */
function kill(commands: CommandQueues): FakeWire {
  wire.mode = 'lose';
  void commands.stop();
  open = open.filter((one) => one !== commands);
  return new FakeWire(wire.kept);
}

describe('a program that is killed', () => {
  it('between COMMIT and publish publishes when it starts again, and tells all steps in order', async () => {
    const first = program();
    first.start();
    wire.mode = 'lose';
    const { command } = await send(first, 'relay');
    const next = kill(first);
    expect(slot(next)).toBeNull();
    program(next).start();
    await eventually('in the slot', () => slot(next)?.cmd === 'relay');
    await eventually('told', () => next.told(command.commandId).length === 2);
    expect(next.told(command.commandId)).toEqual(['queued', 'published']);
  });

  it('between the COMMIT of an answer and the next slot gives the next one when it starts again', async () => {
    const first = program();
    first.start();
    const { command } = await send(first, 'relay');
    await send(first, 'blink');
    await eventually('in the slot', () => slot()?.cmd === 'relay');
    const id = slot()?.id ?? 0;
    wire.mode = 'lose';
    expect(await first.acknowledge(device, { id, st: 'ok' })).toBe('applied');
    const next = kill(first);
    expect(slot(next)?.cmd).toBe('relay');
    const second = program(next);
    // The device has not been told that its answer arrived, and gives it again.
    expect(await second.acknowledge(device, { id, st: 'ok' })).toBe('repeated');
    second.start();
    await eventually('in the slot', () => slot(next)?.cmd === 'blink');
    await eventually('told', () => next.told(command.commandId).includes('succeeded'));
  });
});

describe('a broker', () => {
  it('that refuses has the slot a second later, and it is the newest', async () => {
    const commands = program();
    commands.start();
    await eventually('swept once', () => true);
    wire.mode = 'refuse';
    const first = await send(commands, 'relay');
    await commands.cancel(author, first.command.commandId);
    await send(commands, 'blink');
    wire.mode = 'work';
    await eventually('in the slot', () => slot()?.cmd === 'blink');
  });

  it('whose retained slots differ has them mended: other, superfluous, of nobody', async () => {
    const metricsRegistry = new MetricsRegistry();
    const commands = program(wire, metricsRegistry, 50);
    const { command } = await send(commands, 'relay');
    await eventually('in the slot', () => slot()?.id === command.wireId);
    const { organizationId } = author;
    const free = await makeDevice(
      test.database,
      { organizationId, organization: 'acme' },
      `free${made}`,
    );
    wire.kept.set(topic(), Buffer.from('{"id":1,"cmd":"relay","args":{},"n":1,"exp":1}'));
    wire.kept.set(`v1/acme/${free.device}/in/cmd`, Buffer.from('{"id":1}'));
    wire.kept.set('v1/acme/gone/in/cmd', Buffer.from('{"id":1}'));
    wire.kept.set('v1/acme/gone/in/cfg', Buffer.from('{}'));
    commands.start();
    await eventually('mended', () => slot()?.id === command.wireId && wire.kept.size === 2);
    wire.kept.delete(topic());
    await eventually('mended again', () => slot()?.id === command.wireId);
    const text = await metricsRegistry.metrics();
    expect(text).toContain('puback_commands_slots_repaired_total{repair="cleared"} 2');
    expect(text).toContain('puback_commands_slots_repaired_total{repair="published"} 2');
  });

  it('that has what the table says is not bothered, though more commands wait by now', async () => {
    const commands = program(wire, new MetricsRegistry(), 20);
    await send(commands, 'relay');
    await send(commands, 'blink');
    await eventually('in the slot', () => slot()?.cmd === 'relay');
    const before = wire.messages.filter((message) => message.topic === topic()).length;
    commands.start();
    // Several sweeps.
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(wire.messages.filter((message) => message.topic === topic())).toHaveLength(before);
  });
});

describe('a database that is away', () => {
  it('has answers wait for it, so many, and takes them all when it is back', async () => {
    const metricsRegistry = new MetricsRegistry();
    const commands = program(wire, metricsRegistry);
    commands.start();
    const { command } = await send(commands, 'relay');
    await eventually('in the slot', () => slot()?.cmd === 'relay');
    const id = slot()?.id ?? 0;
    const answers: Promise<string>[] = [];
    await whileAway(test, async () => {
      await expect(send(commands, 'blink')).rejects.toThrow();
      expect(await commands.waiting(device)).toBe(1);
      for (let at = 0; at < commandLimits.acksHeldMax + 5; at += 1) {
        answers.push(commands.acknowledge(device, { id, st: 'ok' }));
      }
      const text = await metricsRegistry.metrics();
      expect(text).toContain(`puback_commands_held_answers ${commandLimits.acksHeldMax}`);
    });
    const outcomes = await Promise.all(answers);
    expect(outcomes[0]).toBe('applied');
    expect(new Set(outcomes.slice(1))).toEqual(new Set(['repeated']));
    await eventually('told', () => wire.told(command.commandId).includes('succeeded'));
    await eventually('the slot is empty', () => slot() === null);
    expect(await metricsRegistry.metrics()).toContain('puback_commands_held_answers 0');
  });

  it('or slow has devices greeted from what the slot says', async () => {
    const commands = program();
    await send(commands, 'relay');
    await send(commands, 'blink');
    await eventually('in the slot', () => slot()?.cmd === 'relay');
    expect(await commands.waiting(device)).toBe(2);
    await whileLocked(test, 'command_slot', async () => {
      const began = performance.now();
      expect(await commands.waiting(device)).toBe(1);
      expect(performance.now() - began).toBeLessThan(8000);
    });
  });
});

describe('several programs on one database', () => {
  it('give each command one id, and take each answer once', async () => {
    const both = [program(), program()];
    const limits = { backlogMax: 1000 };
    const [one, two] = both.map(() => createTestCommands(test.database, wire, { now, limits }));
    if (one === undefined || two === undefined) throw new Error('no programs');
    const asked = Array.from({ length: 40 }, (_, at) =>
      (at % 2 === 0 ? one : two).enqueue(
        author,
        commandRequest(device.device, 'blink', { args: { at } }),
      ),
    );
    await Promise.all(asked);
    const ids: number[] = [];
    for (let taken = 0; taken < 40; taken += 1) {
      const { rows } = await test.database.pool.query<{ id: number }>(
        `SELECT wire_id::float8 AS id FROM command JOIN command_slot AS slot ON head_command_id = command_id
         WHERE slot.device_id = $1`,
        [device.deviceId],
      );
      const id = rows[0]?.id ?? 0;
      ids.push(id);
      const outcomes = await Promise.all(
        both.map((commands) => commands.acknowledge(device, { id, st: 'ok' })),
      );
      expect(outcomes.toSorted()).toEqual(['applied', 'repeated']);
    }
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b));
    await Promise.all([one.stop(), two.stop()]);
  });
});

describe('upkeep', () => {
  it('ends what runs and is silent, and deletes what is old with its steps', async () => {
    const commands = program();
    const { command } = await send(commands, 'calibrate');
    await eventually('in the slot', () => slot() !== null);
    await commands.acknowledge(device, { id: slot()?.id ?? 0, st: 'run' });
    skewMs = commandLimits.runMsMax + 1000;
    commands.start();
    const { organizationId } = author;
    await eventually('unknown', async () => {
      const { state } = await commands.get(organizationId, command.commandId);
      return state === 'unknown';
    });
    skewMs += commandLimits.ageMaxMs + 1000;
    program().start();
    await eventually('gone', async () => {
      const { rows } = await test.database.pool.query(
        'SELECT FROM command_event WHERE device_id = $1',
        [device.deviceId],
      );
      return rows.length === 0;
    });
  });

  it('ends ten thousand overdue commands in bounded steps [L-13]', async () => {
    await test.database.pool.query(
      `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
         expires_at, origin, actor)
       SELECT gen_random_uuid(), $1, $2, 'old', '{}', 'queued', false, now(), 'api', 'test'
       FROM generate_series(1, 10000)`,
      [author.organizationId, device.deviceId],
    );
    const { command } = await createTestCommands(test.database, wire, {
      now,
      limits: { backlogMax: 20_000 },
    }).enqueue(author, commandRequest(device.device, 'new'));
    program().start();
    await eventually('in the slot', () => slot()?.cmd === 'new', 20_000);
    expect(command.state).toBe('queued');
  });
});
