import { describe, expect, it, vi } from 'vitest';
import { pino } from 'pino';
import { CommandBacklogError, CommandTooBigError } from '../../command-errors.ts';
import type { CommandDesk } from '../../commands/command-desk.ts';
import type { CommandAuthor, CommandRequest } from '../../commands/command.ts';
import {
  IntegratorCommands,
  type CommandingIntegrator,
} from '../../commands/integrator-commands.ts';
import { DeviceNotFoundError, StoreUnavailableError } from '../../errors.ts';
import { eventually } from '../support/eventually.ts';
import { testCommand } from '../support/commands.ts';

const ACME: CommandingIntegrator = {
  organizationId: 1,
  organization: 'acme',
  keyId: 'A1b2C3d4',
  scopes: ['cmd:write'],
  devices: null,
};
const DO = 'v1/acme/boiler-7/do/relay';
const ON = Buffer.from('{"on":true}');

interface Asked {
  readonly author: CommandAuthor;
  readonly request: CommandRequest;
}

function create(enqueue?: (request: CommandRequest) => Promise<void>, waitingMax = 10) {
  const asked: Asked[] = [];
  const told: { topic: string; message: unknown }[] = [];
  const desk: Pick<CommandDesk, 'enqueue'> = {
    async enqueue(author, request) {
      asked.push({ author, request });
      await enqueue?.(request);
      return { command: testCommand(), isNew: true };
    },
  };
  const commands = new IntegratorCommands({
    desk,
    publish: async (topic, payload) => {
      told.push({ topic, message: JSON.parse(payload.toString()) });
    },
    waitingMax,
    log: pino({ level: 'silent' }),
  });
  const publish = (topic = DO, payload = ON, integrator = ACME) => {
    const callbacks = {
      onStored: vi.fn<() => void>(),
      onRoom: vi.fn<() => void>(),
      onRefused: vi.fn<(code: string, detail: string) => void>(),
    };
    return { ...callbacks, isTaken: commands.take(integrator, { topic, payload }, callbacks) };
  };
  return { commands, publish, asked, told };
}

describe('a command of an integrator over MQTT', () => {
  it('is enqueued in the name of its key with its ref, and acknowledged once it is committed', async () => {
    let commit: () => void = () => undefined;
    const committed = new Promise<void>((resolve) => {
      commit = resolve;
    });
    const { publish, asked } = create(() => committed);
    const published = publish(`${DO}/job42`);
    expect(published.isTaken).toBe(true);
    await eventually('that it is asked for', () => asked.length === 1);
    expect(published.onStored).not.toHaveBeenCalled();
    commit();
    await eventually('that it is acknowledged', () => published.onStored.mock.calls.length === 1);
    expect(asked[0]).toMatchObject({
      author: { organizationId: 1, actor: 'A1b2C3d4' },
      request: {
        device: 'boiler-7',
        name: 'relay',
        args: { on: true },
        ref: 'job42',
        origin: 'mqtt',
        idempotencyKey: expect.stringMatching(/^mqtt:/) as string,
      },
    });
  });

  it('is told on cmd/refused when it cannot be taken, and acknowledged so that it is not sent for ever', async () => {
    const { publish, told, commands } = create(async ({ name }) => {
      if (name === 'big') throw new CommandTooBigError(300, 256);
      if (name === 'many') throw new CommandBacklogError('boiler-7', 100);
      if (name === 'gone') throw new DeviceNotFoundError('boiler-7');
    });
    const topic = (command: string) => `v1/acme/boiler-7/do/${command}`;
    for (const [command, payload, code, word] of [
      ['relay', '{', 'bad_json', 'bad_json'],
      ['relay', '[]', 'bad_type', 'bad_type'],
      ['relay', '{"__proto__":1}', 'bad_name', 'bad_name'],
      ['Relay', '', 'bad_name', 'bad_name'],
      ['big/job1', '', 'too_big', 'command_too_big'],
      ['many', '', 'quota', 'command_backlog_full'],
      ['gone', '', 'bad_name', 'device_not_found'],
    ] as const) {
      told.length = 0;
      const published = publish(topic(command), Buffer.from(payload));
      await eventually(`that ${command} ${payload} is told`, () => told.length === 1);
      await eventually('that it is acknowledged', () => published.onStored.mock.calls.length === 1);
      expect(published.onRefused).toHaveBeenCalledWith(code, expect.any(String));
      expect(told[0]).toEqual({
        topic: 'v1/acme/boiler-7/cmd/refused',
        message: {
          cmd: command.split('/')[0],
          ...(command.includes('/') ? { ref: 'job1' } : {}),
          code: word,
          msg: expect.any(String) as string,
        },
      });
    }
    expect(commands.refused.get('bad_name')).toBe(3);
    expect(commands.waiting).toBe(0);
  });

  it('is not told to others when the key has no right to it', async () => {
    const { publish, told, asked } = create();
    for (const integrator of [
      { ...ACME, scopes: ['cmd' as const] },
      { ...ACME, devices: ['boiler-8'] },
      { ...ACME, organization: 'other' },
    ]) {
      const published = publish(DO, ON, integrator);
      expect(published.onRefused).toHaveBeenCalledWith('forbidden', expect.any(String));
      expect(published.onStored).toHaveBeenCalledOnce();
    }
    expect(told).toEqual([]);
    expect(asked).toEqual([]);
  });

  it('is tried again while the database is away, and then those behind it in order', async () => {
    let isAway = true;
    const { publish, asked } = create(async () => {
      if (isAway) throw new StoreUnavailableError();
    });
    const published = ['1', '2', '3'].map((ref) => publish(`${DO}/${ref}`));
    await eventually('that it was tried', () => asked.length >= 1);
    expect(published.some(({ onStored }) => onStored.mock.calls.length > 0)).toBe(false);
    isAway = false;
    await eventually('that all are stored', () =>
      published.every(({ onStored }) => onStored.mock.calls.length === 1),
    );
    const refs = asked
      .map(({ request }) => request.ref)
      .filter((ref, at, all) => all[at - 1] !== ref);
    expect(refs).toEqual(['1', '2', '3']);
  });

  it('is asked for again under the same idempotency key, and another under another [L-11]', async () => {
    let isAway = true;
    const { publish, asked } = create(async () => {
      // COMMIT was sent, and its answer was lost: it may be in the queue.
      if (isAway) throw new StoreUnavailableError(new Error('Connection terminated'));
    });
    const first = publish();
    await eventually('that it is asked for', () => asked.length === 1);
    isAway = false;
    await eventually('that it is acknowledged', () => first.onStored.mock.calls.length === 1);
    const second = publish();
    await eventually('that it is acknowledged', () => second.onStored.mock.calls.length === 1);
    const keys = asked.map(({ request }) => request.idempotencyKey);
    expect(keys).toHaveLength(3);
    expect(keys[0]).toMatch(/^mqtt:/);
    expect(keys[1]).toBe(keys[0]);
    expect(keys[2]).not.toBe(keys[0]);
  });

  it('keeps the order of each device, and does not let one device hold up another', async () => {
    const done: string[] = [];
    const { publish } = create(async ({ device, ref }) => {
      await new Promise((resolve) => setTimeout(resolve, device === 'a' ? 20 : 1));
      done.push(`${device}${ref}`);
    }, 100);
    const published = [1, 2, 3, 4].flatMap((ref) =>
      ['a', 'b'].map((device) => publish(`v1/acme/${device}/do/relay/${ref}`)),
    );
    await eventually('that all are stored', () =>
      published.every(({ onStored }) => onStored.mock.calls.length === 1),
    );
    for (const device of ['a', 'b']) {
      const own = done.filter((one) => one.startsWith(device));
      expect(own).toEqual([1, 2, 3, 4].map((ref) => `${device}${ref}`));
    }
    expect(done.indexOf('b4')).toBeLessThan(done.indexOf('a4'));
  });

  it('lets nothing more be read above the bound, and tells when there is room', async () => {
    let isAway = true;
    const { publish, commands } = create(async () => {
      if (isAway) throw new StoreUnavailableError();
    }, 3);
    const published = [1, 2, 3, 4].map((ref) => publish(`${DO}/${ref}`));
    expect(published.map(({ isTaken }) => isTaken)).toEqual([true, true, true, false]);
    expect(commands.waiting).toBe(4);
    expect(published[3]?.onRoom).not.toHaveBeenCalled();
    isAway = false;
    await eventually('that there is room', () => published[3]?.onRoom.mock.calls.length === 1);
    await eventually('that all are stored', () => commands.waiting === 0);
    expect(published.every(({ onStored }) => onStored.mock.calls.length === 1)).toBe(true);
  });

  it('is not acknowledged when the program stops before it is stored', async () => {
    const { publish, commands, asked } = create(() => Promise.reject(new StoreUnavailableError()));
    const published = [publish(), publish()];
    await eventually('that it was tried', () => asked.length === 1);
    commands.stop();
    published.push(publish());
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(published.some(({ onStored }) => onStored.mock.calls.length > 0)).toBe(false);
    expect(asked.length).toBe(1);
    expect(commands.waiting).toBe(0);
  });

  it('is told as an unexpected error, and stops nothing behind it, when the program has a bug', async () => {
    const { publish, told } = create(({ ref }) =>
      ref === 'bug' ? Promise.reject(new TypeError('x is not a function')) : Promise.resolve(),
    );
    const [bug, next] = [publish(`${DO}/bug`), publish(`${DO}/next`)];
    await eventually('that both are over', () => next.onStored.mock.calls.length === 1);
    expect(bug.onStored).toHaveBeenCalledOnce();
    expect(told[0]?.message).toMatchObject({ ref: 'bug', code: 'internal' });
    expect(JSON.stringify(told)).not.toContain('x is not');
  });
});
