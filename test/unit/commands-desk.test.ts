import { describe, expect, it } from 'vitest';
import {
  CommandInvalidError,
  CommandUndefinedError,
  CommandNotFoundError,
} from '../../command-errors.ts';
import { createCommandDesk } from '../../commands/command-desk.ts';
import { commandRequest, type Command, type CommandRequest } from '../../commands/command.ts';
import type { AppliedDefinition } from '../../commands/definition.ts';
import { DevicePolls } from '../../commands/device-polls.ts';
import { commandSchema, requestOf, TTL_MS_MAX } from '../../commands/request-schema.ts';
import { CommandWaits } from '../../commands/waits.ts';
import { compileSchema } from '../../firmware-protocol/json-schema-check.ts';
import { testCommand } from '../support/commands.ts';

const AUTHOR = { organizationId: 1, actor: 'A1b2C3d4' };
const SCHEMA = {
  type: 'object',
  properties: { on: { type: 'boolean' } },
  required: ['on'],
  additionalProperties: false,
};
const NOTHING: AppliedDefinition = {
  deviceType: null,
  definition: null,
  compiled: null,
  defined: [],
};
const DEFINED: AppliedDefinition = {
  deviceType: 'boiler',
  definition: {
    deviceType: 'boiler',
    name: 'relay',
    description: '',
    schema: SCHEMA,
    needsApproval: true,
    isRetrySafe: true,
    ttlMs: 5000,
    updatedAt: new Date(0),
    updatedBy: 'x',
  },
  compiled: compileSchema(SCHEMA),
  defined: [],
};

function deskWith(applied: AppliedDefinition) {
  const enqueued: CommandRequest[] = [];
  const desk = createCommandDesk({
    commands: {
      async enqueue(_author, request) {
        enqueued.push(request);
        return { command: testCommand(), isNew: true };
      },
    },
    definitions: { forDevice: async () => applied, forType: async () => applied },
  });
  return { desk, enqueued };
}

describe('the desk of commands', () => {
  it('lets a command pass as it is where nothing is defined', async () => {
    const { desk, enqueued } = deskWith(NOTHING);
    const request = commandRequest('boiler-7', 'relay', { args: { on: 1 } });
    await desk.enqueue(AUTHOR, request);
    expect(enqueued).toEqual([request]);
  });

  it('refuses arguments that break their definition, and says which and where', async () => {
    const { desk, enqueued } = deskWith(DEFINED);
    const wrong = commandRequest('boiler-7', 'relay', { args: { on: 1, off: 2 } });
    const refused = desk.enqueue(AUTHOR, wrong);
    await expect(refused).rejects.toThrow(CommandInvalidError);
    await expect(refused).rejects.toThrow(/relay do not hold: args\/on: /);
    await expect(desk.enqueue(AUTHOR, commandRequest('boiler-7', 'relay'))).rejects.toThrow(/on/);
    expect(enqueued).toEqual([]);
  });

  it('takes time, retries and approval from the definition, where the request does not say', async () => {
    const { desk } = deskWith(DEFINED);
    const args = { on: true };
    const silent = commandRequest('boiler-7', 'relay', { args });
    expect(await desk.checkedRequest(1, 'boiler', silent)).toEqual({
      ...silent,
      ttlMs: 5000,
      isRetrySafe: true,
      needsApproval: true,
    });
    const said = { ...silent, ttlMs: 9000, isRetrySafe: false };
    expect(await desk.checkedRequest(1, 'boiler', said)).toEqual({ ...said, needsApproval: true });
  });

  it('refuses arguments whose check would keep everybody waiting', async () => {
    const anyOf = Array.from({ length: 700 }, (_, index) => ({ const: index + 5 }));
    const schema = { properties: { list: { contains: { anyOf } } } };
    const { desk, enqueued } = deskWith({ ...DEFINED, compiled: compileSchema(schema) });
    const listOf = (length: number) => ({ list: Array.from({ length }, () => 5) });
    const wide = commandRequest('boiler-7', 'relay', { args: listOf(500) });
    await expect(desk.enqueue(AUTHOR, wide)).rejects.toThrow(
      /than a schema of this size can check/,
    );
    await desk.enqueue(AUTHOR, { ...wide, args: listOf(40) });
    expect(enqueued.length).toBe(1);
  });

  it('refuses what is not defined for a type that has definitions, and lists what is', async () => {
    const { desk } = deskWith({ ...NOTHING, deviceType: 'boiler', defined: ['relay', 'valve'] });
    const refused = desk.enqueue(AUTHOR, commandRequest('boiler-7', 'dance'));
    await expect(refused).rejects.toThrow(CommandUndefinedError);
    await expect(refused).rejects.toThrow(/type "boiler" have no command "dance".*relay, valve/);
    await desk.enqueue(AUTHOR, commandRequest('boiler-7', 'sys.reboot'));
  });

  it("sends Puback's own commands for the parts that own them, and for nobody else", async () => {
    const { desk, enqueued } = deskWith(DEFINED);
    for (const [name, origin, isSent] of [
      ['sys.ota', 'update', true],
      ['sys.rekey', 'key', true],
      ['sys.ota', 'key', false],
      ['sys.rekey', 'update', false],
      ['sys.ota', 'api', false],
      ['sys.rekey', 'campaign', false],
      ['sys.cancel', 'api', false],
      ['sys.cancel', 'key', false],
      ['sys.format', 'rule', false],
    ] as const) {
      enqueued.length = 0;
      const asked = desk.enqueue(AUTHOR, commandRequest('boiler-7', name, { origin }));
      const refusal = await asked.then(
        () => null,
        (error: Error) => error.message,
      );
      if (isSent) expect(refusal).toBeNull();
      else expect(refusal).toMatch(/is not for you/);
      expect(enqueued.length, `${name} of ${origin}`).toBe(isSent ? 1 : 0);
    }
  });

  it('refuses names and arguments that no command has, whoever asks', async () => {
    const { desk, enqueued } = deskWith(NOTHING);
    for (const name of ['', 'Relay', 'a b', 'x'.repeat(33), '1st', '__proto__']) {
      const asked = desk.enqueue(AUTHOR, commandRequest('boiler-7', name));
      await expect(asked, name).rejects.toThrow(CommandInvalidError);
    }
    const args = JSON.parse('{"__proto__":{}}');
    const polluted = commandRequest('boiler-7', 'relay', { args, origin: 'rule' });
    await expect(desk.enqueue(AUTHOR, polluted)).rejects.toThrow(/__proto__/);
    expect(enqueued).toEqual([]);
  });
});

describe('the body of a command', () => {
  const read = (body: object) => requestOf('boiler-7', commandSchema.parse(body));
  const isRead = (body: object) => commandSchema.safeParse(body).success;

  it('becomes a request, with null for what it does not say', () => {
    expect(read({ command: 'relay' })).toEqual(commandRequest('boiler-7', 'relay'));
    const readings = [{ metric: 'door', op: '==', value: 'closed', maxAge: '5m' }];
    expect(
      read({
        command: 'relay',
        args: { on: true },
        ttl: '1h30m',
        replace: 'relay',
        retry: 'safe',
        if: { reported: { mode: 'auto' }, readings },
        approval: true,
      }),
    ).toEqual(
      commandRequest('boiler-7', 'relay', {
        args: { on: true },
        ttlMs: 5_400_000,
        replaceKey: 'relay',
        isRetrySafe: true,
        needsApproval: true,
        precondition: {
          reported: { mode: 'auto' },
          readings: [{ metric: 'door', op: '==', value: 'closed', ageMaxMs: 300_000 }],
        },
      }),
    );
    expect(read({ command: 'relay', if: {} }).precondition).toBeNull();
    const anyAge = { readings: [{ metric: 'door', op: '==', value: 1 }] };
    expect(read({ command: 'relay', if: anyAge }).precondition?.readings?.[0]?.ageMaxMs).toBeNull();
  });

  it('has bounds in every member', () => {
    for (const body of [
      {},
      { command: 'Relay' },
      { command: 'relay', ttl: '0s' },
      { command: 'relay', ttl: '999ms' },
      { command: 'relay', ttl: `${TTL_MS_MAX + 1}ms` },
      { command: 'relay', ttl: '1h1d' },
      { command: 'relay', ttl: 60 },
      { command: 'relay', replace: '' },
      { command: 'relay', replace: 'x'.repeat(65) },
      { command: 'relay', retry: 'always' },
      { command: 'relay', args: [] },
      { command: 'relay', args: 1 },
      { command: 'relay', if: { readings: [] } },
      { command: 'relay', if: { readings: [{ metric: 'ts', op: '==', value: 1 }] } },
      { command: 'relay', if: { readings: [{ metric: 'a', op: '=', value: 1 }] } },
      { command: 'relay', if: { readings: [{ metric: 'a', op: '==', value: null }] } },
      { command: 'relay', if: { reported: 1 } },
      { command: 'relay', when: {} },
      {
        command: 'relay',
        if: { readings: Array.from({ length: 11 }, () => ({ metric: 'a', op: '<', value: 1 })) },
      },
    ]) {
      expect(isRead(body), JSON.stringify(body).slice(0, 100)).toBe(false);
    }
    expect(isRead({ command: 'relay', ttl: `${TTL_MS_MAX}ms` })).toBe(true);
  });
});

describe('waiting for the outcome of a command', () => {
  const ended = testCommand({ state: 'succeeded', result: { on: true } });
  const never = new AbortController().signal;

  function pendingWaits(waitsMax: number) {
    const asked: { resolve: (command: Command) => void; noLonger: AbortSignal | undefined }[] = [];
    const waits = new CommandWaits({
      waitsMax,
      commands: {
        outcome: (_organizationId, _commandId, _waitMs, noLonger) =>
          new Promise((resolve) => {
            asked.push({ resolve, noLonger });
            noLonger?.addEventListener('abort', () => resolve(testCommand()));
          }),
      },
    });
    return { waits, asked };
  }

  it('is not begun for one that has ended, nor without a time to wait', async () => {
    const { waits, asked } = pendingWaits(1);
    expect(await waits.outcome({ command: ended, waitMs: 1000, gone: never })).toBe(ended);
    const queued = testCommand();
    expect(await waits.outcome({ command: queued, waitMs: 0, gone: never })).toBe(queued);
    expect(asked).toEqual([]);
  });

  it('ends with the outcome', async () => {
    const { waits, asked } = pendingWaits(1);
    const outcome = waits.outcome({ command: testCommand(), waitMs: 1000, gone: never });
    expect(waits.waiting).toBe(1);
    asked[0]?.resolve(ended);
    expect(await outcome).toBe(ended);
    expect(waits.waiting).toBe(0);
  });

  it('is answered at once, and counted, when too many wait', async () => {
    const { waits, asked } = pendingWaits(1);
    const first = waits.outcome({ command: testCommand(), waitMs: 1000, gone: never });
    const second = testCommand({ commandId: '01991e6c-0000-7000-8000-000000000002' });
    expect(await waits.outcome({ command: second, waitMs: 1000, gone: never })).toBe(second);
    expect(waits).toMatchObject({ waiting: 1, refused: 1 });
    asked[0]?.resolve(ended);
    await first;
    const third = waits.outcome({ command: second, waitMs: 1000, gone: never });
    asked[1]?.resolve(ended);
    expect(await third).toBe(ended);
  });

  it('ends when the client goes away, and leaves nobody waiting', async () => {
    const { waits, asked } = pendingWaits(1);
    const gone = new AbortController();
    const outcome = waits.outcome({ command: testCommand(), waitMs: 60_000, gone: gone.signal });
    gone.abort();
    expect((await outcome).state).toBe('queued');
    expect(asked[0]?.noLonger?.aborted).toBe(true);
    expect(waits.waiting).toBe(0);
  });

  it('ends when the program stops, and is not begun any more', async () => {
    const { waits } = pendingWaits(10);
    const waiting = [1, 2, 3].map(() =>
      waits.outcome({ command: testCommand(), waitMs: 60_000, gone: never }),
    );
    waits.stop();
    expect((await Promise.all(waiting)).map(({ state }) => state)).toEqual([
      'queued',
      'queued',
      'queued',
    ]);
    expect(
      (await waits.outcome({ command: testCommand(), waitMs: 60_000, gone: never })).state,
    ).toBe('queued');
    expect(waits.waiting).toBe(0);
  });

  it('says so when the command is deleted meanwhile', async () => {
    const commands = { outcome: async () => Promise.reject(new CommandNotFoundError('x')) };
    const waits = new CommandWaits({ commands, waitsMax: 1 });
    const outcome = waits.outcome({ command: testCommand(), waitMs: 1000, gone: never });
    await expect(outcome).rejects.toThrow(CommandNotFoundError);
    expect(waits.waiting).toBe(0);
  });
});

describe('a device that polls', () => {
  const from = { organizationId: 1, organization: 'acme', deviceId: 7, device: 'boiler-7' };
  const ack = { id: 1, st: 'ok' } as const;

  function polls(settings: { isQuarantined?: boolean; stored?: Promise<'applied'> } = {}) {
    const { isQuarantined = false, stored = Promise.resolve('applied' as const) } = settings;
    const clock = { ms: 0 };
    const devicePolls = new DevicePolls({
      peers: { poll: async () => null, acknowledge: () => stored },
      isQuarantined: async () => isQuarantined,
      timeoutMs: 10,
      now: () => clock.ms,
    });
    return { devicePolls, clock };
  }

  it('may ask a hundred times at once and twenty times a second, as over MQTT', async () => {
    const { devicePolls, clock } = polls();
    for (let count = 0; count < 100; count += 1) expect(await devicePolls.next(from)).toBeNull();
    expect(await devicePolls.next(from)).toBe('rate');
    expect(await devicePolls.acknowledge(from, ack)).toBe('rate');
    expect(await devicePolls.next({ ...from, deviceId: 8 })).toBeNull();
    clock.ms += 50;
    expect(await devicePolls.acknowledge(from, ack)).toBe('stored');
    expect(await devicePolls.next(from)).toBe('rate');
  });

  it('is not believed in quarantine', async () => {
    const { devicePolls } = polls({ isQuarantined: true });
    expect(await devicePolls.acknowledge(from, ack)).toBe('quarantined');
  });

  it('is told that an answer is not stored, and has one answer on its way at a time', async () => {
    let store: (outcome: 'applied') => void = () => undefined;
    const stored = new Promise<'applied'>((resolve) => {
      store = resolve;
    });
    const { devicePolls } = polls({ stored });
    expect(await devicePolls.acknowledge(from, ack)).toBe('unavailable');
    expect(await devicePolls.acknowledge(from, ack)).toBe('unavailable');
    store('applied');
    await stored;
    expect(await devicePolls.acknowledge(from, ack)).toBe('stored');
  });
});
