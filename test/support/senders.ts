import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import {
  connect,
  createServer as createNetServer,
  type AddressInfo,
  type Server,
  type Socket,
} from 'node:net';
import type { NotificationMessage, SenderReceiver, Senders } from '../../rules/notify/message.ts';
import type { ReceiverKind, ReceiverSettings } from '../../rules/notify/receiver-settings.ts';
import { createSenders, type SendersParts } from '../../rules/notify/senders.ts';

/** A server of a test on 127.0.0.1, and what it has received. */
export interface TestReceiver<Received> {
  readonly port: number;
  readonly received: Received[];
  readonly connections: number;
  close(): Promise<void>;
}

/** A request, whole. */
export interface ReceivedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

/** Starts an HTTP server that answers each request as it is told. */
export async function startHttpReceiver(
  answer: (response: ServerResponse, request: ReceivedRequest) => void,
): Promise<TestReceiver<ReceivedRequest>> {
  const received: ReceivedRequest[] = [];
  const server = createHttpServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      const whole = { method, path: url, headers, body: Buffer.concat(chunks).toString() };
      received.push(whole);
      answer(response, whole);
    });
  });
  return listen(server, received);
}

/** Starts a TCP server on 127.0.0.1 that does with each connection as it is told. */
export async function startTcpReceiver(
  accept: (socket: Socket) => void,
): Promise<TestReceiver<string>> {
  const received: string[] = [];
  const server = createNetServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => received.push(bytes.toString('latin1')));
    accept(socket);
  });
  return listen(server, received);
}

/** Starts a listener that takes no connection, with as many waiting as may: one more hangs. */
export async function startFullListener(): Promise<Omit<TestReceiver<never>, 'connections'>> {
  const child = spawn(process.execPath, ['-e', STUCK_LISTENER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  const waiting = [1, 2, 3].map(() =>
    connect({ host: '127.0.0.1', port }).on('error', () => undefined),
  );
  await once(waiting[0] ?? child, 'connect');
  return {
    port,
    received: [],
    async close() {
      for (const socket of waiting) socket.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

const STUCK_LISTENER = `
const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 0 }, () => {
  require('node:fs').writeSync(1, String(server.address().port));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});`;

/** Has a server listen, counts its connections and ends them with it. */
export async function listen<Received>(
  server: Server,
  received: Received[],
): Promise<TestReceiver<Received>> {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on('connection', (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    received,
    get connections() {
      return connections;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Senders that may reach 127.0.0.1, and nothing else that is not public. */
export function makeSenders(parts: Partial<SendersParts> = {}): Senders {
  return createSenders({
    privateAddresses: '127.0.0.1',
    isHttpAllowed: true,
    resolve: (host) => Promise.resolve(host.endsWith('.example.com') ? ['127.0.0.1'] : []),
    mqtt: {
      topics: { repeat: () => Promise.resolve() },
      publisher: { publish: () => Promise.resolve() },
    },
    ...parts,
  });
}

/** A receiver with these settings. */
export function makeReceiver(
  kind: ReceiverKind,
  settings: ReceiverSettings,
  secret: string | null,
): SenderReceiver {
  return { receiverId: RECEIVER_ID, organizationId: 1, name: 'r', kind, settings, secret };
}

/** A message of one firing alert. */
export function makeMessage(change: Partial<NotificationMessage> = {}): NotificationMessage {
  return {
    notificationId: '0199d000-0000-7000-8000-000000000001',
    kind: 'alert',
    organization: 'demo',
    groupKey: '{}:{alertname="boiler too hot"}',
    groupLabels: { alertname: 'boiler too hot' },
    state: 'firing',
    alerts: [
      {
        alertId: '0199d000-0000-7000-8000-000000000002',
        rule: 'boiler too hot',
        ruleId: '0199d000-0000-7000-8000-000000000003',
        device: 'first',
        severity: 'critical',
        state: 'firing',
        value: 81.5,
        labels: { alertname: 'boiler too hot', device: 'first', severity: 'critical' },
        annotations: { summary: 'first is at 81.5 °C' },
        activeAt: '2026-11-21T12:00:00.000Z',
        firedAt: '2026-11-21T12:00:02.000Z',
        resolvedAt: null,
      },
    ],
    truncated: 0,
    digest: null,
    createdAt: '2026-11-21T12:00:03.000Z',
    ...change,
  };
}

const RECEIVER_ID = '0199d000-0000-7000-8000-000000000009';
