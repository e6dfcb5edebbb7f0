import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  issueCertificate,
  makeAuthority,
  type Certificate,
} from '../../bench/conformance/certificate.ts';
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
import { eventually } from '../support/eventually.ts';
import { hasHeader, hasProgram, run } from '../support/programs.ts';
import { openRaw, type RawClient } from '../support/raw-client.ts';
import { fixedHeader, frame } from '../support/wire.ts';

hasProgram('gcc', 'the core in C before the conformance kit');
const hasMosquitto = hasProgram('mosquitto_pub', 'a client that sends alerts of TLS');
const hasOpenssl = hasProgram('openssl', 'a strict look at certificates of the conformance kit');
const hasLibmosquitto = hasHeader('mosquitto.h', 'libmosquitto-dev');
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const C_SOURCES = [
  join(ROOT, 'test/firmware/fp_under_test.c'),
  join(ROOT, 'firmware-protocol/src/fp.c'),
  join(ROOT, 'firmware-protocol/src/fp_client.c'),
];
const authority = makeAuthority();
const certificate = issueCertificate(authority, ['localhost', '127.0.0.1', '::1']);
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
      const url = `${given.tls === undefined ? 'mqtt' : 'mqtts'}://127.0.0.1:${port}`;
      device = new DeviceUnderTest({ url, ...options, key: deviceKey ?? key });
      device.start();
    }, given);
  } finally {
    (device as DeviceUnderTest | null)?.stop();
  }
}

interface BoardOptions {
  readonly speed: number;
  readonly sleepS: number;
  readonly tls: Certificate | null;
  /** File of the CA, or nothing. */
  readonly ca: readonly string[];
}

function examineFlawed(flaw: PointId): Promise<ConformanceReport> {
  const sleep = flaw === 'sleep' ? { sleepMs: 100 } : {};
  if (flaw === 'rekey') {
    return examine({ flaws: [flaw], ca: authority.cert }, { tls: certificate });
  }
  // Without CONNECT it never gets in.
  return examine({ flaws: [flaw], ...sleep }, flaw === 'connect' ? { forMs: 1000 } : {});
}

/**
 * Examines a program that takes host, port, key, how many times faster than the contract it is to be, the
 * seconds that it sleeps, and for TLS the file of a CA.
 */
async function examineProgram(
  program: string,
  { speed, sleepS, tls, ca }: BoardOptions,
): Promise<ConformanceReport> {
  let device: ChildProcess | null = null;
  const times = { forMs: 28_000, pace: { ...QUICK_PACE, refusedMs: 60_000 / speed }, tls };
  try {
    return await play((port, key) => {
      const args = ['127.0.0.1', String(port), key, String(speed), String(sleepS), ...ca];
      device = spawn(program, args, { stdio: 'inherit' });
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
    tls: null,
    forMs: 25_000,
    configuration: { every: 60 },
    refusal: 5,
    mayRestart: true,
    mayRekey: true,
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
    expect(pointsOf(report, 'not_applicable')).toEqual(['rekey', 'sleep']);
    expect(report.isConformant).toBe(true);
  });

  it('passes good firmware that sleeps', async () => {
    const report = await examine({ sleepMs: 100 });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'passed')).toContain('sleep');
  });

  it('passes good firmware over TLS', async () => {
    const report = await examine({ ca: authority.cert }, { tls: certificate });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_applicable')).toEqual(['sleep']);
    expect(report.isConformant).toBe(true);
  });

  it.each([
    ['trusts another CA', makeAuthority().cert, certificate],
    ['knows it by another name', authority.cert, issueCertificate(authority, ['board.example'])],
  ])('does not wait in vain for firmware that %s, but says so', async (_, ca, tls) => {
    const report = await examine({ ca }, { tls, forMs: 600 });
    expect(pointsOf(report, 'failed')).toEqual(['connect']);
    expect(report.points[0]?.detail).toContain('does it take the certificate');
  });

  it('passes firmware at QoS 0 without system commands, and says what it cannot see', async () => {
    const report = await examine({ qos: 0, knowsSystem: false });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'not_applicable').toSorted()).toEqual([
      'rekey',
      'resend',
      'restart',
      'sleep',
    ]);
    expect(report.isConformant).toBe(true);
  });

  it.skipIf(!hasLibmosquitto).each([
    ['always on', 20, 0, false],
    ['that sleeps', 10, 4, false],
    ['over TLS', 20, 0, true],
  ] as const)('passes the core in C over libmosquitto, %s', async (_, speed, sleepS, isTls) => {
    const folder = await mkdtemp(join(tmpdir(), 'puback-under-test-'));
    try {
      const program = join(folder, 'fp_under_test');
      const strict = ['-std=c99', '-Wall', '-Wextra', '-Werror'];
      await run('gcc', [...strict, '-o', program, ...C_SOURCES, '-lmosquitto']);
      const caFile = join(folder, 'ca.pem');
      await writeFile(caFile, authority.cert);
      const secure = isTls ? { tls: certificate, ca: [caFile] } : { tls: null, ca: [] };
      const report = await examineProgram(program, { speed, sleepS, ...secure });
      expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
      expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
      const without = [...(isTls ? [] : ['rekey']), ...(sleepS === 0 ? ['sleep'] : [])];
      expect(pointsOf(report, 'not_applicable')).toEqual(without);
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

  it('passes good firmware over TLS that sleeps', async () => {
    const report = await examine({ ca: authority.cert, sleepMs: 100 }, { tls: certificate });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual([]);
    expect(pointsOf(report, 'passed')).toContain('rekey');
  });

  it('fails firmware that cannot go back to its key, and examines the rest of it', async () => {
    const device = { ca: authority.cert, losesOldKey: true };
    const report = await examine(device, { tls: certificate });
    expect(pointsOf(report, 'failed'), reportText(report)).toEqual(['rekey']);
    expect(pointsOf(report, 'not_reached'), reportText(report)).toEqual([]);
  });

  it('leaves the change of the key out when told to, or when it is not known', async () => {
    const [toldTo, unknown] = await Promise.all([
      examine({ ca: authority.cert }, { tls: certificate, mayRekey: false }),
      examine({ ca: authority.cert, knowsSystem: false }, { tls: certificate }),
    ]);
    expect(pointsOf(toldTo, 'not_applicable')).toEqual(['rekey', 'sleep']);
    expect(pointsOf(unknown, 'not_applicable')).toEqual(['restart', 'rekey', 'sleep']);
  });

  it('leaves the restart out when told to', async () => {
    const report = await examine({}, { mayRestart: false });
    expect(pointsOf(report, 'not_applicable')).toEqual(['restart', 'rekey', 'sleep']);
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
      ...{ host: '127.0.0.1', port: 0, key, tls: null, over: over.signal },
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
      record.note({ kind: 'connect', atMs: count, answer: 3, hasNewKey: false });
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
    record.note({ kind: 'connect', atMs: 0, answer: 0, hasNewKey: false });
    await waiting;
  });
});

describe('the platform of the kit over TLS', () => {
  const refusals: string[] = [];
  const started: Platform[] = [];
  const start = async (tls: Certificate | null): Promise<number> => {
    const platform = new Platform({
      ...{ host: '127.0.0.1', port: 0, key: makeKey('device').key, tls },
      over: new AbortController().signal,
      onStranger: (why) => refusals.push(why),
    });
    started.push(platform);
    return platform.start();
  };
  const refusal = async () => {
    await eventually('a refusal', () => refusals.length > 0);
    return refusals.at(-1);
  };
  beforeEach(() => refusals.splice(0));
  afterEach(async () => {
    for (const platform of started.splice(0)) await platform.stop();
  });

  it('says of a client that speaks TLS where there is none what to start', async () => {
    const port = await start(null);
    const client = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    client.on('error', () => undefined);
    expect(await refusal()).toBe('it speaks TLS, and this is MQTT without: --tls');
  });

  it('says of a client without TLS that it has none', async () => {
    const client = await openRaw(`mqtt://127.0.0.1:${await start(certificate)}`);
    client.sendBytes(Buffer.from('101000044d51545404020000000474657374', 'hex'));
    expect(await refusal()).toBe('it speaks without TLS');
    await client.closed;
  });

  it.skipIf(!hasMosquitto)('tells the alert of a client that does not trust it', async () => {
    const port = String(await start(certificate));
    const folder = await mkdtemp(join(tmpdir(), 'puback-other-ca-'));
    const ca = join(folder, 'ca.pem');
    await writeFile(ca, makeAuthority().cert);
    const args = ['-h', 'localhost', '-p', port, '--cafile', ca, '-t', 'a', '-m', 'b'];
    await expect(run('mosquitto_pub', args)).rejects.toThrow();
    expect(await refusal()).toMatch(/does not take the certificate .*UNKNOWN_CA/);
    await rm(folder, { recursive: true });
  });

  it('holds 32 connections at most, those in their handshake included, and ends them all', async () => {
    const port = await start(certificate);
    const sockets = await Promise.all(
      Array.from({ length: 16 }, async () => {
        const tcp = await openRaw(`mqtt://127.0.0.1:${port}`);
        const tls = connectTls({ host: '127.0.0.1', port, ca: authority.cert });
        await once(tls, 'secureConnect');
        return { tcp, tls };
      }),
    );
    const more = await openRaw(`mqtt://127.0.0.1:${port}`);
    await more.closed;
    const closings = sockets.map(({ tcp, tls }) => [tcp.closed, once(tls, 'close')]).flat();
    await started.pop()?.stop();
    await Promise.all(closings);
  });
});

describe('a certificate of the kit', () => {
  const names = [
    'board.example',
    '192.168.4.1',
    'fd00::1:2',
    '::ffff:10.0.0.1',
    '2001:db8::',
    'fe80::1%eth0',
  ];
  const { cert } = issueCertificate(authority, names);

  it('is for its names and addresses, and has addresses of IPv4 as names too', () => {
    expect(new X509Certificate(cert).subjectAltName?.split(', ')).toEqual([
      ...['DNS:board.example', 'DNS:192.168.4.1'],
      ...['IP Address:192.168.4.1', 'IP Address:FD00:0:0:0:0:0:1:2'],
      ...[
        'IP Address:0:0:0:0:0:FFFF:A00:1',
        'IP Address:2001:DB8:0:0:0:0:0:0',
        'IP Address:FE80:0:0:0:0:0:0:1',
      ],
    ]);
  });

  it.skipIf(!hasOpenssl)('stands up to openssl at its strictest', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'puback-strict-'));
    await writeFile(join(folder, 'ca.pem'), authority.cert);
    await writeFile(join(folder, 'cert.pem'), cert);
    const strict = ['verify', '-x509_strict', '-purpose', 'sslserver'];
    const files = ['-CAfile', join(folder, 'ca.pem'), join(folder, 'cert.pem')];
    for (const name of [
      ['-verify_hostname', '192.168.4.1'],
      ['-verify_ip', 'fd00::1:2'],
    ]) {
      expect((await run('openssl', [...strict, ...name, ...files])).stdout).toContain('OK');
    }
    await rm(folder, { recursive: true });
  });

  it('has years of four digits from 2050 on', () => {
    const later = makeAuthority(Date.UTC(2045, 0, 1));
    expect(new X509Certificate(later.cert).validTo).toContain('2054');
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

  it('makes a CA that stays the same, and prints it and not its key', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'puback-kit-'));
    const args = ['--key', makeKey('device').key, '--port', '0', '--for', '0.2', '--tls'];
    args.push('--data-dir', join(folder, 'data'), '--tls-name', 'board.example');
    const printed = [start(...args), start(...args, '--host', '0.0.0.0')].map(({ stderr }) => {
      expect(stderr).toMatch(/listening on mqtts:.*\nIts certificate is for board\.example, /);
      expect(stderr).not.toContain('PRIVATE');
      return /-----BEGIN[^]*END CERTIFICATE-----\n/.exec(stderr)?.[0];
    });
    const ca = join(folder, 'data', 'conformance-ca.pem');
    expect(printed).toEqual(Array(2).fill(await readFile(ca, 'utf8')));
    expect((await stat(ca.replace('ca', 'ca-key'))).mode & 0o077).toBe(0);
    await writeFile(ca, authority.cert);
    expect(start(...args).stderr).toContain('they do not fit each other. Delete both');
    await rm(folder, { recursive: true });
  });

  it('takes the certificate that it is given', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'puback-kit-'));
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    const args = ['--key', makeKey('device').key, '--port', '0', '--for', '0.2'];
    args.push('--tls-cert', cert, '--tls-key', key);
    expect(start(...args).stderr).toContain('cert.pem');
    await writeFile(cert, certificate.cert);
    await writeFile(key, certificate.key);
    const { stderr, status } = start(...args);
    expect(stderr).toContain('listening on mqtts://');
    expect(stderr).not.toContain('BEGIN');
    expect(status).toBe(1);
    await rm(folder, { recursive: true });
  });

  it.each([
    [['--tls-cert', 'a.pem'], '--tls-cert and --tls-key go together'],
    [['--tls-name', 'a'], '--tls-name goes with --tls'],
    [['--tls', '--tls-name', 'a b'], '--tls-name a b is no host name'],
    [
      ['--tls-cert', 'a', '--tls-key', 'b', '--tls-name', 'c'],
      '--tls-name is for a certificate of --tls',
    ],
  ])('refuses options of TLS that do not go together: %s', (args, why) => {
    const { stderr, status } = start('--key', makeKey('device').key, ...args);
    expect(stderr).toContain(why);
    expect(status).toBe(2);
  });

  it('says what is missing or wrong before it listens', () => {
    expect(start().stderr).toContain('say --device NAME or --key KEY');
    const { stderr, status } = start('--key', `${makeKey('device').key.slice(0, -1)}!`);
    expect(stderr).toContain('typing error');
    expect(status).toBe(2);
  });
});
