import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { WebSocket } from 'ws';
import { createGateMetrics } from '../../broker/gate/gate-metrics.ts';
import { createGate } from '../../broker/gate/gate.ts';
import { listenTcp, type Listener, type ListenerParts } from '../../broker/gate/listeners.ts';
import { OTHER_FILES } from '../../broker/gate/open-files.ts';
import type { Peer } from '../../broker/peer.ts';
import { listenTls, type TlsSettings } from '../../broker/gate/tls-listener.ts';
import { createWebSocketIntake } from '../../broker/gate/websocket.ts';
import { eventually } from '../support/eventually.ts';
import { makeCa, type CertificateFiles, type TestCa } from '../support/certificates.ts';
import { hasProgram, run } from '../support/programs.ts';
import { proxyHeader } from '../support/proxy-header.ts';

const hasOpenssl = hasProgram('openssl', 'the TLS listener');
const ANY_PORT = { host: '127.0.0.1', port: 0, key: 'TEST_PORT' };

interface Taken {
  readonly connection: Duplex;
  readonly peer: Peer;
}

/** Listeners whose connections nobody reads but the test: what comes is echoed. */
function makeParts(settings: { proxies?: string; deadlineMs?: number; unknownMax?: number } = {}) {
  const registry = new Registry();
  const taken: Taken[] = [];
  const refused: string[] = [];
  const log = pino({ level: 'silent' });
  const gate = createGate({
    door: {
      connectionsMax: 1000,
      addressConnectionsMax: 0,
      addressUnauthenticatedMax: settings.unknownMax ?? 0,
      addressConnectsPerS: 0,
      connectDeadlineMs: settings.deadlineMs ?? 5000,
    },
    logins: { failuresMax: 10, banMs: 60_000 },
    proxies: settings.proxies ?? '',
    openFilesMax: null,
    refused: (reason) => refused.push(reason),
    metrics: createGateMetrics(registry),
    log,
  });
  const parts: ListenerParts = {
    ...gate,
    log,
    accept(connection, peer) {
      taken.push({ connection, peer });
      connection.on('error', () => undefined);
      connection.on('data', (bytes) => connection.write(bytes));
    },
  };
  const metric = async (name: string, outcome?: string): Promise<number> => {
    const { values } = (await registry.getSingleMetric(name)?.get()) ?? { values: [] };
    const found = values.filter(({ labels }) => !outcome || labels['outcome'] === outcome);
    return found.reduce((sum, { value }) => sum + value, 0);
  };
  return { gate, parts, taken, refused, metric };
}

function open(port: number): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  return socket;
}

/** Everything that comes until the connection ends or `bytes` are there. */
async function receive(socket: Duplex, bytes = Infinity): Promise<string> {
  let text = '';
  for await (const chunk of socket) {
    text += (chunk as Buffer).toString('latin1');
    if (text.length >= bytes) break;
  }
  return text;
}

describe('the TCP listener behind a configured proxy', () => {
  let made: ReturnType<typeof makeParts>;
  let listener: Listener;
  beforeAll(async () => {
    made = makeParts({ proxies: '127.0.0.0/8' });
    listener = await listenTcp(ANY_PORT, made.parts);
  });
  afterAll(() => listener.close());

  it('takes the address from the header and leaves what follows whole (N-14)', async () => {
    const socket = open(listener.port);
    socket.write(Buffer.concat([proxyHeader(), Buffer.from('first ')]));
    socket.write('second');
    expect(await receive(socket, 12)).toBe('first second');
    expect(made.taken.at(-1)?.peer).toMatchObject({ address: '192.0.2.7', transport: 'tcp' });
  });

  it('takes a header that comes byte by byte, with a client who waits to speak', async () => {
    const socket = open(listener.port);
    socket.setNoDelay(true);
    for (const byte of proxyHeader({ rest: Buffer.alloc(6) })) {
      socket.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    await eventually('taken', () => made.taken.at(-1)?.connection.destroyed === false);
    socket.write('late');
    expect(await receive(socket, 4)).toBe('late');
  });

  it('keeps the address of the proxy for its health check', async () => {
    const before = made.taken.length;
    const socket = open(listener.port);
    socket.write(proxyHeader({ command: 0 }));
    await eventually('taken', () => made.taken.length > before);
    expect(made.taken.at(-1)?.peer.address).toBe('127.0.0.1');
    socket.destroy();
  });

  it('ends a connection without a header, and counts it', async () => {
    const before = made.taken.length;
    made.refused.length = 0;
    const socket = open(listener.port);
    socket.write(Buffer.from([0x10, 12, 0, 4]));
    await receive(socket);
    expect(made.refused).toEqual(['proxy_header']);
    expect(made.taken.length).toBe(before);
  });

  it('ends a header that does not come to its end at the connect deadline (N-09)', async () => {
    const hasty = makeParts({ proxies: '127.0.0.0/8', deadlineMs: 300 });
    const other = await listenTcp(ANY_PORT, hasty.parts);
    const socket = open(other.port);
    socket.write(proxyHeader().subarray(0, 20));
    const startedAt = performance.now();
    await receive(socket);
    expect(performance.now() - startedAt).toBeLessThan(4000);
    expect(hasty.refused).toEqual(['connect_deadline']);
    await other.close();
  });

  it('judges by the address of the client: a banned one does not get in', async () => {
    for (let index = 0; index < 12; index += 1) {
      made.gate.guard.failed('192.0.2.66', null, `guess ${index}`);
    }
    made.refused.length = 0;
    const socket = open(listener.port);
    socket.write(proxyHeader({ source: [192, 0, 2, 66] }));
    await receive(socket);
    expect(made.refused).toEqual(['address_banned']);
  });
});

describe('the TCP listener without proxies', () => {
  it('hands a PROXY header on as the bytes that it is, with the address of the sender (N-14)', async () => {
    const made = makeParts({ proxies: '192.0.2.0/24' });
    const listener = await listenTcp(ANY_PORT, made.parts);
    const socket = open(listener.port);
    socket.write(proxyHeader());
    expect(await receive(socket, 28)).toBe(proxyHeader().toString('latin1'));
    expect(made.taken[0]?.peer.address).toBe('127.0.0.1');
    await listener.close();
  });

  it('bounds connections without CONNACK of one address, and counts every one out (N-09)', async () => {
    const made = makeParts({ unknownMax: 5 });
    const listener = await listenTcp(ANY_PORT, made.parts);
    const sockets = Array.from({ length: 20 }, () => open(listener.port));
    await eventually('refused', () => made.refused.length === 15);
    expect(made.gate.door.connections).toBeLessThanOrEqual(20);
    for (const { peer } of made.taken) peer.entry?.authenticated();
    const late = open(listener.port);
    await eventually('one more', () => made.taken.length === 6);
    for (const socket of [...sockets, late]) socket.destroy();
    await eventually('all out', () => made.gate.door.connections === 0);
    expect(made.gate.door.unauthenticated).toBe(0);
    await listener.close();
  });
});

describe.skipIf(process.platform !== 'linux')('a process with few file descriptors (N-15)', () => {
  it('refuses new connections, keeps the old ones, logs once, and recovers', async () => {
    const script = fileURLToPath(new URL('../support/listener-program.ts', import.meta.url));
    const command = `ulimit -n ${OTHER_FILES + 60} && exec "$0" --import tsx "$1"`;
    const child = spawn('sh', ['-c', command, process.execPath, script]);
    onTestFinished(() => void child.kill());
    let log = '';
    child.stderr.on('data', (bytes: Buffer) => {
      log += bytes.toString();
    });
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const port = Number(line.toString());
    const sockets = Array.from({ length: 150 }, () => open(port));
    let closed = 0;
    const served = new Set<Socket>();
    for (const socket of sockets) {
      socket.on('close', () => (closed += 1));
      socket.on('data', () => served.add(socket));
      socket.write('hello');
    }
    await eventually('all but 60 are refused', () => served.size === 60 && closed === 90);
    const first = [...served][0] as Socket;
    served.clear();
    first.write('still there');
    await eventually('an old one is served', () => served.has(first));
    for (const socket of sockets) if (socket !== first) socket.destroy();
    await eventually('a new one is served', async () => {
      const late = open(port);
      late.write('late');
      return (await receive(late, 4).catch(() => 'refused')) === 'late';
    });
    expect(log.trim().split('\n')).toHaveLength(1);
    expect(log).toContain('connections bounded by the limit of open files');
    child.kill();
    await once(child, 'exit');
  });
});

describe('MQTT over WebSocket', () => {
  it.each([
    ['', '198.51.100.1', '127.0.0.1'],
    ['127.0.0.1', '6.6.6.6, 198.51.100.1', '198.51.100.1'],
    ['127.0.0.1', '', '127.0.0.1'],
  ])('with proxies "%s" and X-Forwarded-For "%s" comes from %s (N-14)', async (...row) => {
    const [proxies, forwarded, address] = row;
    const made = makeParts({ proxies });
    const server = createServer();
    const intake = createWebSocketIntake({ packetBytesMax: 1000, ...made.parts });
    server.on('upgrade', (...upgrade) => intake.upgrade(...upgrade));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/mqtt`;
    const headers = forwarded === '' ? {} : { 'x-forwarded-for': forwarded };
    const webSocket = new WebSocket(url, 'mqtt', { headers });
    await once(webSocket, 'open');
    expect(made.taken[0]?.peer).toMatchObject({ address, transport: 'ws' });
    expect(made.gate.door.connections).toBe(1);
    webSocket.terminate();
    await eventually('counted out', () => made.gate.door.connections === 0);
    server.close();
  });
});

describe.skipIf(!hasOpenssl)('the TLS listener', () => {
  let ca: TestCa;
  let server: CertificateFiles;
  beforeAll(async () => {
    ca = await makeCa();
    server = await ca.issue('localhost');
  });
  afterAll(() => ca.remove());

  async function listen(
    made: ReturnType<typeof makeParts>,
    settings: Partial<TlsSettings['files']> & { reloadMs?: number } = {},
  ): Promise<Listener> {
    const { reloadMs = 0, ...files } = settings;
    const all = { ...server, clientCaFile: '', clientCrlFile: '', ...files };
    return listenTls(ANY_PORT, { files: all, reloadMs, handshakeMs: 5000 }, made.parts);
  }

  /** Connects, and says something, so that a refusal behind the handshake shows too. */
  async function greet(port: number, options: ConnectionOptions = {}) {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options });
    let session: Buffer | undefined;
    socket.on('session', (ticket) => {
      session = ticket;
    });
    const error = new Promise<never>((_, reject) => {
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('closed')));
    });
    error.catch(() => undefined);
    socket.write('hello');
    await Promise.race([once(socket, 'data'), error]);
    const answer = {
      isResumed: socket.isSessionReused(),
      serial: socket.getPeerX509Certificate()?.serialNumber,
      session,
      socket,
    };
    return answer;
  }

  const bye = ({ socket }: { socket: TLSSocket }) => socket.destroy();

  it.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'resumes sessions of %s, by a ticket that the next key does not take',
    async (version) => {
      const made = makeParts();
      const listener = await listen(made);
      const options = { minVersion: version, maxVersion: version };
      const first = await greet(listener.port, options);
      expect(first.isResumed).toBe(false);
      const withSession = { ...options, session: first.session as Buffer };
      const second = await greet(listener.port, withSession);
      expect(second.isResumed).toBe(true);
      expect(await made.metric('puback_broker_tls_handshakes_total', 'resumed')).toBe(1);
      await listener.close();
      const other = await listen(made);
      const third = await greet(other.port, withSession);
      expect(third.isResumed).toBe(false);
      [first, second, third].forEach(bye);
      await other.close();
    },
  );

  it('speaks TLS behind the header of a proxy, in one piece or in many', async () => {
    const made = makeParts({ proxies: '127.0.0.1' });
    const listener = await listen(made);
    for (const isCut of [false, true]) {
      const socket = open(listener.port);
      socket.setNoDelay(true);
      const header = proxyHeader();
      for (const piece of isCut ? [header.subarray(0, 9), header.subarray(9)] : [header]) {
        socket.write(piece);
        if (isCut) await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const answer = await greet(listener.port, { socket });
      expect(made.taken.at(-1)?.peer).toMatchObject({ address: '192.0.2.7', transport: 'tls' });
      bye(answer);
    }
    // The header and the first record in one segment.
    const direct = open(listener.port);
    const hello = await clientHello();
    direct.write(Buffer.concat([proxyHeader(), hello]));
    expect((await receive(direct, 1)).charCodeAt(0)).toBe(0x16);
    await eventually('counted out', () => made.gate.door.connections === 0);
    await listener.close();
  });

  it('ends a handshake that never ends at the deadline, and counts it out (N-09)', async () => {
    const made = makeParts({ deadlineMs: 300 });
    const listener = await listen(made);
    const silent = open(listener.port);
    const half = open(listener.port);
    half.write((await clientHello()).subarray(0, 50));
    const startedAt = performance.now();
    await Promise.all([receive(silent), receive(half)]);
    expect(performance.now() - startedAt).toBeLessThan(4000);
    expect(made.refused).toEqual(['connect_deadline', 'connect_deadline']);
    await eventually('counted out', () => made.gate.door.connections === 0);
    await listener.close();
  });

  it('does not renegotiate (N-18)', async () => {
    const made = makeParts();
    const listener = await listen(made);
    const options = { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } as const;
    const { socket } = await greet(listener.port, options);
    const handshakes = () => made.metric('puback_broker_tls_handshakes_total');
    const error = await new Promise<Error | null>((resolve) => {
      socket.on('error', resolve);
      socket.renegotiate({}, resolve);
    });
    expect(error?.message).toMatch(/no renegotiation/i);
    expect(await handshakes()).toBe(1);
    await listener.close();
  });

  it('takes changed files for new connections, keeps open ones, and keeps files that fit (N-18)', async () => {
    const made = makeParts();
    const files = { certFile: join(ca.folder, 'live.pem'), keyFile: join(ca.folder, 'live.key') };
    const put = async (source: CertificateFiles) => {
      await copyFile(source.certFile, files.certFile);
      await copyFile(source.keyFile, files.keyFile);
    };
    await put(server);
    const listener = await listen(made, { ...files, reloadMs: 30 });
    const old = await greet(listener.port);
    const next = await ca.issue('next');
    await put(next);
    const reloads = (outcome: string) => made.metric('puback_broker_tls_reloads_total', outcome);
    await eventually('taken', async () => {
      const answer = await greet(listener.port);
      bye(answer);
      return answer.serial !== old.serial;
    });
    const failed = await reloads('failed');
    await writeFile(files.certFile, 'no certificate');
    await eventually('failed', async () => (await reloads('failed')) > failed);
    const still = await greet(listener.port);
    expect(still.serial).not.toBe(old.serial);
    old.socket.write('still there');
    await once(old.socket, 'data');
    await put(server);
    await eventually('back', async () => {
      const answer = await greet(listener.port);
      bye(answer);
      return answer.serial === old.serial;
    });
    [old, still].forEach(bye);
    await listener.close();
  });

  describe('with a CA of clients', () => {
    const pair = async ({ certFile, keyFile }: CertificateFiles) => {
      return { cert: await readFile(certFile), key: await readFile(keyFile) };
    };

    it('tells the identity of a valid certificate, also of a resumed session, and none without', async () => {
      const made = makeParts();
      const listener = await listen(made, { clientCaFile: ca.certFile });
      const options = await pair(await ca.issue('acme/boiler-7'));
      for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
        const versions = { minVersion: version, maxVersion: version };
        const first = await greet(listener.port, { ...options, ...versions });
        const session = first.session as Buffer;
        const second = await greet(listener.port, { ...options, ...versions, session });
        expect(second.isResumed).toBe(true);
        for (const { peer } of made.taken.slice(-2)) {
          expect(peer.clientCertificate?.identity).toBe('acme/boiler-7');
          expect(peer.clientCertificate?.fingerprint).toMatch(/^[0-9a-f]{64}$/);
          const leftMs = (peer.clientCertificate?.notAfterMs ?? 0) - Date.now();
          expect(Math.abs(leftMs - 2 * 86_400_000)).toBeLessThan(3_600_000);
        }
        [first, second].forEach(bye);
      }
      bye(await greet(listener.port));
      expect(made.taken.at(-1)?.peer.clientCertificate).toBeNull();
      await listener.close();
    });

    it.each(['boiler-7', 'ACME/boiler-7', 'acme/boiler/7', 'acme/'])(
      'takes a certificate of "%s" for none',
      async (name) => {
        const made = makeParts();
        const listener = await listen(made, { clientCaFile: ca.certFile });
        bye(await greet(listener.port, await pair(await ca.issue(name))));
        expect(made.taken[0]?.peer.clientCertificate).toBeNull();
        await listener.close();
      },
    );

    it('ends a connection with an expired certificate or one of another CA (N-18)', async () => {
      const made = makeParts();
      const listener = await listen(made, { clientCaFile: ca.certFile });
      const other = await makeCa('other ca');
      const foreign = await other.issue('acme/boiler-7');
      const expired = await ca.issue('acme/boiler-7', -1);
      for (const certificate of [foreign, expired]) {
        for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
          const versions = { minVersion: version, maxVersion: version };
          const shown = await pair(certificate);
          await expect(greet(listener.port, { ...shown, ...versions })).rejects.toThrow();
        }
      }
      expect(made.taken).toEqual([]);
      const outcome = 'certificate_refused';
      expect(await made.metric('puback_broker_tls_handshakes_total', outcome)).toBe(4);
      await other.remove();
      await listener.close();
    });

    it('ends a revoked one once the new list is read, also with a ticket of before (N-18)', async () => {
      const made = makeParts();
      const certificate = await ca.issue('acme/boiler-8');
      const clientCrlFile = await ca.writeCrl();
      const listener = await listen(made, {
        clientCaFile: ca.certFile,
        clientCrlFile,
        reloadMs: 30,
      });
      const shown = await pair(certificate);
      const first = await greet(listener.port, shown);
      await ca.revoke(certificate);
      await ca.writeCrl();
      await eventually(
        'read',
        async () => (await made.metric('puback_broker_tls_reloads_total', 'done')) > 0,
      );
      await expect(greet(listener.port, shown)).rejects.toThrow();
      const session = first.session as Buffer;
      await expect(greet(listener.port, { ...shown, session })).rejects.toThrow();
      bye(first);
      await listener.close();
    });
  });

  it('does not start with files that do not fit each other', async () => {
    const other = await ca.issue('other');
    await expect(listen(makeParts(), { keyFile: other.keyFile })).rejects.toMatchObject({
      code: 'FILE_UNUSABLE',
    });
    await expect(listen(makeParts(), { certFile: '/nowhere.pem' })).rejects.toMatchObject({
      code: 'FILE_UNUSABLE',
    });
  });

  it('refuses TLS 1.1 as openssl speaks it (N-18)', async () => {
    const listener = await listen(makeParts());
    const old = ['-tls1_1', '-cipher', 'DEFAULT@SECLEVEL=0'];
    const target = ['-connect', `127.0.0.1:${listener.port}`];
    await expect(run('openssl', ['s_client', ...target, ...old])).rejects.toThrow();
    await listener.close();
  });
});

/** The first bytes of a TLS client, taken off a server that says nothing. */
async function clientHello(): Promise<Buffer> {
  const server = createTcpServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
  socket.on('error', () => undefined);
  const [incoming] = (await once(server, 'connection')) as [Socket];
  const [bytes] = (await once(incoming, 'data')) as [Buffer];
  socket.destroy();
  server.close();
  return bytes;
}
