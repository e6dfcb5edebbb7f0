import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { DeviceRecord, TimeOver } from '../../bench/conformance/device-record.ts';
import { Platform } from '../../bench/conformance/platform.ts';
import { isConformant, POINTS, type PointId } from '../../bench/conformance/points.ts';
import { reportText } from '../../bench/conformance/report.ts';
import {
  runConformance,
  type ConformanceOptions,
  type ConformanceReport,
} from '../../bench/conformance/run.ts';
import { makeKey } from '../../firmware-protocol/keys.ts';
import { DeviceUnderTest, QUICK_PACE, type DeviceOptions } from '../support/device-under-test.ts';
import { hasHeader, hasProgram, run } from '../support/programs.ts';
import { openRaw, type RawClient } from '../support/raw-client.ts';
import { fixedHeader, frame } from '../support/wire.ts';

hasProgram('gcc', 'the core in C before the conformance kit');
const hasLibmosquitto = hasHeader('mosquitto.h', 'libmosquitto-dev');
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const C_SOURCES = [
  join(ROOT, 'test/firmware/fp_under_test.c'),
  join(ROOT, 'firmware-protocol/src/fp.c'),
  join(ROOT, 'firmware-protocol/src/fp_client.c'),
];
/** Simulated devices at once. */
const WAVE_DEVICES = 12;

/** Examines a simulated device. */
async function examine(
  options: Omit<DeviceOptions, 'url' | 'key'>,
  change: Partial<ConformanceOptions> & { deviceKey?: string } = {},
): Promise<ConformanceReport> {
  const { deviceKey, ...given } = change;
  let device: DeviceUnderTest | null = null;
  try {
    return await play((port, key) => {
      const url = `mqtt://127.0.0.1:${port}`;
      device = new DeviceUnderTest({ url, ...options, key: deviceKey ?? key });
      device.start();
    }, given);
  } finally {
    (device as DeviceUnderTest | null)?.stop();
  }
}

function examineFlawed(flaw: PointId): Promise<ConformanceReport> {
  const sleep = flaw === 'sleep' ? { sleepMs: 100 } : {};
  // Without CONNECT it never gets in.
  return examine({ flaws: [flaw], ...sleep }, flaw === 'connect' ? { forMs: 1000 } : {});
}

/**
 * Examines a program that takes host, port, key, how many times faster than the contract it is to be, and
 * the seconds that it sleeps.
 */
async function examineProgram(
  program: string,
  speed: number,
  sleepS: number,
): Promise<ConformanceReport> {
  let device: ChildProcess | null = null;
  const times = { forMs: 28_000, pace: { ...QUICK_PACE, refusedMs: 60_000 / speed } };
  try {
    return await play((port, key) => {
      device = spawn(program, ['127.0.0.1', String(port), key, String(speed), String(sleepS)], {
        stdio: 'inherit',
      });
    }, times);
  } finally {
    (device as ChildProcess | null)?.kill();
  }
}

function play(
  onListening: (port: number, key: string) => void,
  change: Partial<ConformanceOptions>,
): Promise<ConformanceReport> {
  const { key } = makeKey('device');
  return runConformance({
    host: '127.0.0.1',
    port: 0,
    key,
    forMs: 25_000,
    configuration: { every: 60 },
    refusal: 5,
    mayRestart: true,
    pace: QUICK_PACE,
    stop: new AbortController().signal,
    say: () => undefined,
    onListening: (port) => onListening(port, key),
    ...change,
  });
}

function pointsOf(report: ConformanceReport, verdict: string): string[] {
  return report.points.filter((point) => point.verdict === verdict).map(({ id }) => id);
}

describe.concurrent('the conformance kit', () => {
  it('passes good firmware', async () => {
    const report = await examine({});
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_applicable')).toEqual(['sleep']);
    expect(report.isConformant).toBe(true);
  });

  it('passes good firmware that sleeps', async () => {
    const report = await examine({ sleepMs: 100 });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'passed')).toContain('sleep');
  });

  it('passes firmware at QoS 0 without system commands, and says what it cannot see', async () => {
    const report = await examine({ qos: 0, knowsSystem: false });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_applicable').toSorted()).toEqual(['resend', 'restart', 'sleep']);
    expect(report.isConformant).toBe(true);
  });

  it.skipIf(!hasLibmosquitto).each([
    ['always on', 20, 0],
    ['that sleeps', 10, 4],
  ] as const)('passes the core in C over libmosquitto, %s', async (_, speed, sleepS) => {
    const folder = await mkdtemp(join(tmpdir(), 'puback-under-test-'));
    try {
      const program = join(folder, 'fp_under_test');
      const strict = ['-std=c99', '-Wall', '-Wextra', '-Werror'];
      await run('gcc', [...strict, '-o', program, ...C_SOURCES, '-lmosquitto']);
      const report = await examineProgram(program, speed, sleepS);
      expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
      expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
      expect(pointsOf(report, 'not_applicable')).toEqual(sleepS === 0 ? ['sleep'] : []);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('says of points that were not reached that they were not', async () => {
    const report = await examine({}, { forMs: 600 });
    expect(pointsOf(report, 'passed')).toContain('subscribe');
    expect(pointsOf(report, 'not_reached')).toContain('refused');
    expect(report.isConformant).toBe(false);
    expect(reportText(report)).toMatch(/not reached +must +refused/);
  });

  it('lets in nobody with another key', async () => {
    const report = await examine({}, { forMs: 600, deviceKey: makeKey('device').key });
    expect(pointsOf(report, 'failed')).toEqual(['connect']);
    expect(report.points.find(({ id }) => id === 'connect')?.detail).toContain('another key');
  });

  it('leaves the restart out when told to', async () => {
    const report = await examine({}, { mayRestart: false });
    expect(pointsOf(report, 'not_applicable')).toEqual(['restart', 'sleep']);
    expect(isConformant(report.points)).toBe(true);
  });
});

describe('the conformance kit', () => {
  const flaws = POINTS.map(({ id }) => id);
  const reports = new Map<PointId, Promise<ConformanceReport>>();

  // Nearly all of their time is waiting: many at once are not slower.
  beforeAll(() => {
    let before: Promise<unknown> = Promise.resolve();
    for (let at = 0; at < flaws.length; at += WAVE_DEVICES) {
      const wave = flaws.slice(at, at + WAVE_DEVICES).map((flaw) => {
        const report = before.then(() => examineFlawed(flaw));
        reports.set(flaw, report);
        return report;
      });
      before = Promise.allSettled(wave);
    }
  });

  it.each(flaws)('fails firmware that does one thing wrong, and nothing else: %s', async (flaw) => {
    const report = (await reports.get(flaw)) ?? expect.fail('not examined');
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([flaw]);
    const level = POINTS.find(({ id }) => id === flaw)?.level;
    expect(report.isConformant).toBe(level === 'should');
  });
});

describe('the platform of the kit', () => {
  const { key } = makeKey('device');
  let platform: Platform;
  let url = '';
  const over = new AbortController();
  const open: RawClient[] = [];
  beforeEach(async () => {
    platform = new Platform({
      ...{ host: '127.0.0.1', port: 0, key, over: over.signal },
      onStranger: () => undefined,
    });
    url = `mqtt://127.0.0.1:${await platform.start()}`;
  });
  afterEach(async () => {
    for (const client of open.splice(0)) client.end();
    await platform.stop();
  });

  it('holds 32 connections at most', async () => {
    for (let count = 0; count < 32; count += 1) open.push(await openRaw(url));
    const more = await openRaw(url);
    await more.closed;
    expect(open.filter((client) => client.isClosed())).toEqual([]);
  });

  it('ends a connection whose packet is longer than 1 MiB', async () => {
    const client = await openRaw(url);
    open.push(client);
    client.sendBytes(fixedHeader(0x30, 4_000_000));
    for (let part = 0; part < 17; part += 1) client.sendBytes(Buffer.alloc(65_536));
    await client.closed;
    expect(platform.happenings).toEqual([]);
  });

  it('ends a connection that begins with anything but CONNECT, or is no MQTT', async () => {
    for (const bytes of [frame(0xc0), Buffer.from('GET / HTTP/1.1\r\n\r\n')]) {
      const client = await openRaw(url);
      client.sendBytes(bytes);
      await client.closed;
    }
    expect(platform.happenings).toEqual([]);
  });

  it('ends the run when a device has done more than can be held', async () => {
    const record = new DeviceRecord(new AbortController().signal, () => true);
    for (let count = 0; count <= 100_000; count += 1) {
      record.note({ kind: 'connect', atMs: count, answer: 3 });
    }
    await expect(record.rest(1)).rejects.toThrow('too much');
    await expect(record.waitFor(() => null, 0, 1)).rejects.toThrow(TimeOver);
  });

  it('counts time only while the device is connected', async () => {
    let isConnected = false;
    const record = new DeviceRecord(new AbortController().signal, () => isConnected);
    let isOver = false;
    const waiting = record.waitFor(() => null, 0, 50).then(() => (isOver = true));
    await delay(150);
    expect(isOver).toBe(false);
    isConnected = true;
    record.note({ kind: 'connect', atMs: 0, answer: 0 });
    await waiting;
  });
});

describe('npm run conformance', () => {
  const TOOL = join(ROOT, 'bench/conformance.ts');
  const start = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', TOOL, ...args], { encoding: 'utf8' });

  it('prints the report as JSON, and fails when a point was not reached', () => {
    const { key } = makeKey('device');
    const run = start('--key', key, '--port', '0', '--for', '0.5', '--json', '--device', 'mine');
    expect(run.stderr).toContain(`with key ${key.slice(0, 12)}…`);
    expect(run.stderr).not.toContain(key.slice(13));
    const report = JSON.parse(run.stdout) as ConformanceReport & { device: string };
    expect(report).toMatchObject({ device: 'mine', isConformant: false });
    expect(report.points.map(({ id }) => id)).toEqual(POINTS.map(({ id }) => id));
    expect(new Set(report.points.map(({ verdict }) => verdict))).toEqual(new Set(['not_reached']));
    expect(run.status).toBe(1);
  });

  it('says what is missing or wrong before it listens', () => {
    expect(start().stderr).toContain('say --device NAME or --key KEY');
    const { stderr, status } = start('--key', `${makeKey('device').key.slice(0, -1)}!`);
    expect(stderr).toContain('typing error');
    expect(status).toBe(2);
  });
});
