import { describe, expect, it } from 'vitest';
import type { ToldCommand } from '../../bench/api-client.ts';
import { commandText, DEMO_SLEEP_S, demoHabits } from '../../bench/demo-command.ts';
import {
  SimulatedDownlink,
  WILLING_BOARD,
  type BoardHabits,
} from '../../bench/simulated-downlink.ts';

const WAITING: ToldCommand = {
  id: 'id',
  device: 'demo-008',
  command: 'level',
  args: { percent: 40 },
  state: 'published',
  result: null,
  code: null,
  origin: 'api',
  createdAt: '2026-11-21T12:00:00.000Z',
};

interface Sent {
  channel: string;
  [member: string]: unknown;
}

function board(habits: BoardHabits = WILLING_BOARD): { sent: Sent[]; downlink: SimulatedDownlink } {
  const sent: Sent[] = [];
  const downlink = new SimulatedDownlink(
    {
      send: (channel, payload) => sent.push({ channel, ...payload }),
      reboot: () => sent.push({ channel: 'reboot' }),
      changeKey: (key) => sent.push({ channel: 'changed', key }),
    },
    habits,
  );
  return { sent, downlink };
}

const EXP = 4_000_000_000;

function tell(downlink: SimulatedDownlink, channel: string, message: object): void {
  downlink.receive(channel, Buffer.from(JSON.stringify(message)));
}

async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe('the commands of the demo', () => {
  it('are told of with the time of each step', () => {
    const events = [
      { time: '2026-11-21T12:00:00.000Z', state: 'queued' },
      { time: '2026-11-21T12:00:07.100Z', state: 'sent' },
      { time: '2026-11-21T12:00:07.404Z', state: 'succeeded' },
    ];
    const told = commandText({ ...WAITING, state: 'succeeded', result: { percent: 40 }, events });
    expect(told).toContain('12:00:07  COMMAND level {"percent":40} to demo-008: succeeded {"per');
    expect(told).toContain('queued 0 ms → sent 7.1 s → succeeded 7.4 s');
  });

  it('are told of while they wait, and with who sent them', () => {
    expect(commandText({ ...WAITING, origin: 'rule' })).toContain(
      'level {"percent":40} to demo-008, sent by a rule: published, and waits for the board',
    );
  });

  it('let the last of several boards sleep', () => {
    const sleeps = (boards: number): number[] =>
      Array.from({ length: boards }, (_, index) => demoHabits(boards)(index + 1).sleepS);
    expect(sleeps(1)).toEqual([0]);
    expect(sleeps(2)).toEqual([0, 0]);
    expect(sleeps(4)).toEqual([0, 0, 0, DEMO_SLEEP_S]);
  });
});

describe('a simulated board', () => {
  it('executes a command once, and repeats its answer when it comes again', async () => {
    const { sent, downlink } = board();
    for (let times = 0; times < 2; times += 1) {
      tell(downlink, 'cmd', { id: 7, cmd: 'relay', args: { on: true }, exp: EXP });
      await settled();
    }
    const answer = { channel: 'ack', id: 7, st: 'ok', r: { on: true } };
    expect(sent).toEqual([answer, answer]);
    tell(downlink, 'cmd', { id: 6, cmd: 'relay', args: { on: false }, exp: EXP });
    await settled();
    expect(sent.at(-1)).toEqual({ channel: 'ack', id: 6, st: 'dup', last: 7 });
  });

  it('does not begin what has expired, and says when it cannot do something', async () => {
    const { sent, downlink } = board({ ...WILLING_BOARD, failPercent: 100 });
    tell(downlink, 'cmd', { id: 1, cmd: 'relay', args: {}, exp: 1 });
    tell(downlink, 'cmd', { id: 2, cmd: 'relay', args: {}, exp: EXP });
    await settled();
    expect(sent).toMatchObject([
      { st: 'no', code: 'expired' },
      { st: 'err', code: 'stuck' },
    ]);
  });

  it('boots with a higher number once, and answers before it', async () => {
    const { sent, downlink } = board();
    downlink.greet();
    for (let times = 0; times < 2; times += 1) {
      tell(downlink, 'cmd', { id: 1, cmd: 'sys.reboot', args: {}, exp: EXP });
      await settled();
    }
    downlink.greet();
    expect(sent.map(({ channel }) => channel)).toEqual(['hello', 'ack', 'reboot', 'ack', 'hello']);
    expect(sent[4]?.['boot']).toBe(Number(sent[0]?.['boot']) + 1);
    expect(sent[4]?.['last']).toBe(1);
  });

  it('reports a configuration, and says its version in the next hello', () => {
    const { sent, downlink } = board();
    tell(downlink, 'cfg', { v: 3, cfg: { every: 60 } });
    tell(downlink, 'cfg', { v: 2, cfg: { every: 30 } });
    downlink.greet();
    expect(sent).toMatchObject([
      { channel: 'cfg', v: 3, ok: true },
      { channel: 'hello', cfg: 3 },
    ]);
  });

  it('asks for a key, and takes the one that it is given', async () => {
    const { sent, downlink } = board();
    tell(downlink, 'cmd', { id: 1, cmd: 'sys.rekey', args: {}, exp: EXP });
    await settled();
    tell(downlink, 'key', { st: 'no', code: 'tls' });
    tell(downlink, 'key', { st: 'ok', user: 'demo/first', key: 'pbd_x' });
    expect(sent.map(({ channel }) => channel)).toEqual(['key', 'ack', 'changed']);
  });

  it('may sleep when it was greeted and nothing waits for it', async () => {
    const { downlink } = board();
    downlink.greet();
    expect(downlink.canSleep).toBe(false);
    tell(downlink, 'hello', { ts: 1, cmd: 1, cfg: 2 });
    tell(downlink, 'cmd', { id: 1, cmd: 'relay', args: {}, exp: EXP });
    await settled();
    expect(downlink.canSleep).toBe(false);
    downlink.receive('cmd', Buffer.alloc(0));
    expect(downlink.canSleep).toBe(false);
    tell(downlink, 'cfg', { v: 2, cfg: {} });
    expect(downlink.canSleep).toBe(true);
  });
});
