import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { closeProbes, Probe, unique } from '../support/probe.ts';
import { startTarget, type Target } from '../support/target.ts';
import { connectFrame } from '../support/wire.ts';

let target: Target;
let child: ChildProcess | null = null;
beforeAll(async () => {
  target = await startTarget();
});
afterEach(() => {
  child?.kill('SIGKILL');
  closeProbes();
});
afterAll(() => target.stop());

it.skipIf(process.platform === 'win32')(
  'a peer that stops without a word is gone after one and a half keep alive, and its will is published (N-01)',
  async () => {
    const topic = unique('half-open');
    const subscriber = await Probe.connect(target.url);
    await subscriber.subscribe(topic);
    const connect = connectFrame({
      flags: 0x06,
      keepAliveS: 1,
      payload: [unique('stopped'), topic, 'gone'],
    });
    const { port } = new URL(target.url);
    const script = `
      const socket = require('net').connect(${port}, '127.0.0.1');
      socket.write(Buffer.from('${connect.toString('hex')}', 'hex'));
      socket.on('data', () => process.stdout.write('connected'));
      setInterval(() => socket.write(Buffer.from([0xc0, 0])), 300);`;
    child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    if (child.stdout !== null) await once(child.stdout, 'data');
    await subscriber.ping();
    expect(subscriber.raw.received).toEqual([]);
    child.kill('SIGSTOP');
    const stoppedAt = performance.now();
    expect((await subscriber.message()).payload).toBe('gone');
    expect(performance.now() - stoppedAt).toBeLessThan(6000);
  },
);
