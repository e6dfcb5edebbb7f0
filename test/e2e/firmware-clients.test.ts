import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { slotPacketBytesMax } from '../../firmware-protocol/command.ts';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { boardClients, type Board, type Happening } from '../support/board.ts';
import {
  AWAKE_MS,
  executed,
  openBoardShelf,
  saidOn,
  type BoardOwner,
  type BoardShelf,
} from '../support/board-owner.ts';

/** One digit, so that a packet is never larger on the way than it was counted. */
const BACKLOG = 9;

const clients = boardClients();
/** Small ones differ in what they do with what is too big; elsewhere one of each size is enough. */
const different = clients.filter(({ packetBytes, options }) => {
  return options.includes('--close-on-overflow') ? packetBytes === 128 : packetBytes !== 128;
});
let app: TestApp;
let shelf: BoardShelf;

beforeAll(async () => {
  shelf = await openBoardShelf(clients);
  app = await startTestApp({ COMMAND_BACKLOG_MAX: String(BACKLOG) });
});
afterEach(() => shelf.powerOff());
afterAll(async () => {
  await app.stop();
  await shelf.remove();
});

describe.each(different)('a board over $name', (client) => {
  it('is greeted with the time, and has its telemetry stored', async () => {
    const owner = await shelf.owner(app, client);
    const board = owner.start();
    const { clock } = await board.until('greeted');
    expect(Math.abs(Date.now() - clock)).toBeLessThan(10_000);
    board.tell('publish v1/me/data 1 {"seq":1,"temp":21.5}');
    board.tell('publish v1/me/data 1 {"seq":2,"temp":22.5}');
    board.tell('publish v1/me/data/door 0 "open"');
    await eventually('it is stored', async () => (await owner.values('temp')).length === 2);
    expect(await owner.values('temp')).toEqual([21.5, 22.5]);
    await eventually('the scalar', async () => (await owner.values('door'))[0] === 'open');
    // What a board without PUBACK knows it by.
    board.tell('hello');
    const isCounted = ({ ev, topic, body }: Happening) =>
      ev === 'in' && topic === 'v1/me/in/hello' && body.seq === 2;
    await board.until('a greeting with the stored seq', isCounted);
    expect(saidOn(board, 'v1/me/hello')[0].mps).toBe(client.packetBytes);
    expect(board.all('out').every(({ qos }) => qos <= client.qos)).toBe(true);
  });

  it('executes a command once and says what came of it', async () => {
    const owner = await shelf.owner(app, client);
    const board = owner.start();
    await board.until('greeted');
    expect(await owner.commandAndWait('relay', { n: 1 })).toMatchObject({
      state: 'succeeded',
      result: { n: 1 },
    });
    expect(await owner.commandAndWait('jam', { n: 2 })).toMatchObject({
      state: 'failed',
      code: 'valve',
      message: 'stuck',
    });
    expect(await owner.commandAndWait('slow', { n: 3 })).toMatchObject({
      state: 'succeeded',
      result: { slow: true },
    });
    expect(await owner.commandAndWait('dance')).toMatchObject({
      state: 'rejected',
      code: 'unknown',
    });
    board.tell('drop');
    await board.until('lost');
    expect(await owner.commandAndWait('relay', { n: 4 })).toMatchObject({ state: 'succeeded' });
    expect(executed(board)).toEqual([1, 2, 3, 4]);
  });

  it('executes what was queued while it slept for an hour, in order, and sleeps again', async () => {
    const owner = await shelf.owner(app, client);
    const first = await owner.wake('--do', 'publish v1/me/data 1 {"temp":1}');
    expect(first.all('sleep')[0]?.['awake']).toBeLessThan(AWAKE_MS);
    expect(first.all('sleep')[0]).toMatchObject({ may: true, waiting: 0 });
    await eventually('it is known to sleep', async () => {
      return (await owner.get('/diagnostics')).presence?.state === 'sleeping';
    });
    const ids: string[] = [];
    for (const n of [1, 2, 3]) ids.push(await owner.command('relay', { n }));
    const second = await owner.wake('--do', 'publish v1/me/data 1 {"temp":2}');
    expect(executed(second)).toEqual([1, 2, 3]);
    expect(second.all('sleep')[0]).toMatchObject({ may: true, waiting: 0 });
    // Confirmed to the board: the slot is empty, so no answer was lost.
    const slots = second.all('in').filter(({ topic }) => topic === 'v1/me/in/cmd');
    expect(slots.map(({ body }) => body?.args.n ?? null)).toEqual([1, 2, 3, null]);
    for (const id of ids) expect((await owner.outcome(id)).state).toBe('succeeded');
    await eventually('both readings', async () => (await owner.values('temp')).length === 2);
    const third = await owner.wake();
    expect(executed(third)).toEqual([]);
    expect(third.all('greeted')[0]).toMatchObject({ waiting: 0 });
  });

  it.each(['saved', 'executed', 'kept'])(
    'does not execute a command twice when it loses power once it is %s (L-12)',
    async (point) => {
      const owner = await shelf.owner(app, client);
      const ids = [await owner.command('relay', { n: 1 }), await owner.command('relay', { n: 2 })];
      const before = owner.start('--halt', point);
      await before.until('halted');
      await before.kill();
      const after = owner.start();
      await owner.untilState(ids[1] ?? '', 'succeeded');
      // Only a board whose outcome was saved knows it.
      await owner.untilState(ids[0] ?? '', point === 'kept' ? 'succeeded' : 'unknown');
      expect(executed(before, after)).toEqual(point === 'saved' ? [2] : [1, 2]);
      expect(saidOn(after, 'v1/me/ack')[0].st).toBe(point === 'kept' ? 'ok' : 'dup');
      expect(after.all('begun')[0]).toMatchObject({ record: 'found', boot: 2 });
    },
  );

  it('executes a command at least once when it saves it afterwards', async () => {
    const owner = await shelf.owner(app, client);
    const id = await owner.command('relay', { n: 1 });
    const before = owner.start('--save-after', '--halt', 'executed');
    await before.until('halted');
    await before.kill();
    const after = owner.start('--save-after');
    await owner.untilState(id, 'succeeded');
    expect(executed(before, after)).toEqual([1, 1]);
  });

  it('reboots when it is told to, and says so once it is back', async () => {
    const owner = await shelf.owner(app, client);
    const id = await owner.command('sys.reboot');
    const before = owner.start();
    expect(await before.ended()).toBe(0);
    expect(before.all('restart').length).toBe(1);
    const after = owner.start();
    await owner.untilState(id, 'succeeded');
    expect(after.all('restart').length).toBe(0);
  });

  it('applies a configuration once and reports it', async () => {
    const owner = await shelf.owner(app, client);
    expect(await owner.configure({ every: 60 })).toBe(1);
    expect((await owner.get('/configuration')).drift.since).not.toBeNull();
    const board = await owner.wake('--keeps-config');
    expect(board.all('applied').map(({ cfg }) => cfg)).toEqual([{ every: 60 }]);
    await eventually('it is in line', async () => {
      const { reported, drift } = await owner.get('/configuration');
      return reported?.version === 1 && reported.ok === true && drift.since === null;
    });
    const again = owner.start('--keeps-config');
    await again.until('a report', ({ topic }) => topic === 'v1/me/cfg');
    again.tell('drop');
    await again.until('lost');
    await owner.configure({ every: 5 });
    await again.until('applied');
    expect(again.all('applied').map(({ cfg }) => cfg)).toEqual([{ every: 5 }]);
    await eventually('its refusal is told', async () => {
      const { reported } = await owner.get('/configuration');
      return reported.version === 2 && reported.ok === false && reported.message === 'every<10';
    });
  });

  it('is told what was refused', async () => {
    const board = (await shelf.owner(app, client)).start();
    await board.until('greeted');
    board.tell('publish v1/me/data 1 {"temp":');
    expect(await board.until('err')).toMatchObject({ code: 'bad_json', ch: 'data' });
    board.tell('publish v1/me/data 1 {"temp":3}');
    expect(board.all('lost')).toEqual([]);
  });

  it('changes its key when it is asked to', async () => {
    const owner = await shelf.owner(app, client);
    const board = owner.start();
    await board.until('greeted');
    const path = `/api/v1/devices/${owner.device}`;
    const { commandId } = (await app.api('POST', `${path}/keys/rotate`, {})).body;
    await board.until('the new key', ({ ev, key }) => ev === 'connected' && key === 1);
    await owner.untilState(commandId, 'succeeded');
    expect(board.all('key')).toMatchObject([{ slot: 1, user: `demo/${owner.device}` }]);
    expect((await owner.get('/rotation')).state).toBe('retiring');
    await board.kill();
    const after = owner.start();
    expect(await after.until('connected')).toMatchObject({ key: 1 });
  });
});

describe.each([...clients.slice(0, 1), ...clients.slice(-1)])('the clock of $name', (client) => {
  it('refuses a command whose time is over by its own clock', async () => {
    const owner = await shelf.owner(app, client);
    const board = owner.start('--busy', '5000');
    await board.until('greeted');
    const id = await owner.command('relay', { n: 1 }, { ttl: '1s' });
    await board.until('an answer', ({ ev, topic }) => ev === 'out' && topic === 'v1/me/ack');
    expect(saidOn(board, 'v1/me/ack')).toMatchObject([{ st: 'no', code: 'expired' }]);
    await owner.untilState(id, 'expired');
    expect(executed(board)).toEqual([]);
  });
});

describe.each(clients.filter(({ qos }) => qos === 0))('the buffer of $name', (client) => {
  /** Arguments that make a packet of so many bytes. */
  function argsOf(bytes: number): { n: number; p: string } {
    for (let length = 0; ; length += 1) {
      const args = { n: 1, p: 'x'.repeat(length) };
      const command = { cmd: 'relay', args, exp: Math.floor(Date.now() / 1000) };
      if (slotPacketBytesMax('v1/me/in/cmd', command, BACKLOG) === bytes) return args;
    }
  }

  /** One that was larger, and had much sent. */
  async function shrunk(): Promise<BoardOwner> {
    const owner = await shelf.owner(app, client);
    await owner.start('--packet', '512', '--do', 'bye').ended();
    await knows(owner, 512);
    return owner;
  }

  async function knows(owner: BoardOwner, bytes: number): Promise<void> {
    await eventually(
      `it is known to take ${bytes} bytes`,
      async () => (await owner.get('/configuration')).packet.bytesMax === bytes,
    );
  }

  /** It stays connected. */
  async function staysIn(board: Board): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(board.all('lost').length).toBeLessThanOrEqual(2);
  }

  it('takes a command of exactly its size, and one byte more is refused where it is sent', async () => {
    const owner = await shelf.owner(app, client);
    const board = owner.start();
    await knows(owner, client.packetBytes);
    const tooBig = { command: 'relay', args: argsOf(client.packetBytes + 1) };
    const path = `/api/v1/devices/${owner.device}/commands`;
    const { status, body } = await app.api('POST', path, tooBig);
    expect({ status, code: body.code }).toEqual({ status: 422, code: 'COMMAND_TOO_BIG' });
    const sizes = `packet of ${client.packetBytes + 1} bytes, the device takes ${client.packetBytes}`;
    expect(body.detail).toContain(sizes);
    const args = argsOf(client.packetBytes);
    expect(await owner.commandAndWait('relay', args)).toMatchObject({ state: 'succeeded' });
    const [slot] = board.all('in').filter(({ topic }) => topic === 'v1/me/in/cmd');
    expect(slot?.['bytes']).toBe(client.packetBytes);
    expect(board.all('overflow')).toEqual([]);
  });

  it('is not locked out by what was sent when it was larger', async () => {
    const owner = await shrunk();
    const ids = [
      await owner.command('relay', { n: 1, p: 'x'.repeat(300) }),
      await owner.command('relay', { n: 2, p: 'x'.repeat(300) }),
      await owner.command('relay', { n: 3 }),
    ];
    const board = owner.start();
    await owner.untilState(ids[2] ?? '', 'succeeded');
    for (const id of ids.slice(0, 2)) {
      expect(await owner.outcome(id)).toMatchObject({ state: 'rejected', code: 'too_big' });
    }
    expect(executed(board)).toEqual([3]);
    await staysIn(board);
  });

  it('is not locked out by a configuration that was sent when it was larger', async () => {
    const owner = await shrunk();
    await owner.configure({ every: 60, text: 'x'.repeat(300) });
    const board = owner.start();
    await board.until('greeted');
    await staysIn(board);
    const { published, packet } = await owner.get('/configuration');
    expect(published).toBe(false);
    expect(packet.bytes).toBeGreaterThan(packet.bytesMax);
    await owner.configure({ every: 30 });
    await board.until('applied');
    expect(board.all('applied').map(({ cfg }) => cfg)).toEqual([{ every: 30 }]);
    await staysIn(board);
  });
});
