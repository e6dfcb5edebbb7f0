import { readFile } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, WebSocketServer, type WebSocket } from 'ws';
import { FileUnusableError, ListenFailedError, reasonOf } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Takes a connection of any transport; see `Broker.accept`. */
export type AcceptConnection = (
  connection: Duplex,
  address: string,
  request?: IncomingMessage,
) => void;

/** A listener that is up. */
export interface Listener {
  readonly port: number;
  /** Takes no more connections. Those that are open stay. */
  close(): Promise<void>;
}

/** Where to listen; `key` is the setting to name when it fails. */
export interface ListenAddress {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly key: string;
}

/**
 * Listens for MQTT over TCP. Without Nagle's delay: a PUBACK must not wait for the device's delayed ACK.
 * @throws {ListenFailedError}
 */
export function listenTcp(
  address: ListenAddress,
  accept: AcceptConnection,
  log: Logger,
): Promise<Listener> {
  const server = createServer({ noDelay: true, keepAlive: true }, (socket) => {
    accept(socket, remoteAddress(socket));
  });
  return listen('MQTT', server, address, log);
}

/**
 * Listens for MQTT over TLS 1.2 or newer. A handshake that does not end within the deadline is cut off.
 * @throws {FileUnusableError} for the certificate or the key. @throws {ListenFailedError}
 */
export async function listenTls(
  address: ListenAddress,
  files: { readonly certFile: string; readonly keyFile: string },
  handshakeMs: number,
  accept: AcceptConnection,
  log: Logger,
): Promise<Listener> {
  const [cert, key] = await Promise.all([
    readPem('the TLS certificate', files.certFile),
    readPem('the TLS key', files.keyFile),
  ]);
  const server = createTls({ cert, key, handshakeMs }, files.certFile, accept);
  server.on('tlsClientError', (err) => log.debug({ err: reasonOf(err) }, 'tls handshake failed'));
  return listen('MQTT over TLS', server, address, log);
}

/**
 * Takes MQTT over WebSocket at `/mqtt` of an HTTP server, sub-protocol `mqtt` [MQTT-6.0.0-3]. Upgrades
 * to any other path are refused.
 */
export function createWebSocketIntake(
  packetBytesMax: number,
  accept: AcceptConnection,
): { upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void; close(): void } {
  const server = new WebSocketServer({
    noServer: true,
    // A frame may hold several packets or a part of one [MQTT-6.0.0-2]; the parser bounds the packets.
    maxPayload: 2 * packetBytesMax,
    perMessageDeflate: false,
    handleProtocols: (protocols) => (protocols.has('mqtt') ? 'mqtt' : false),
  });
  server.on('connection', (socket: WebSocket, request: IncomingMessage) => {
    const stream = createWebSocketStream(socket);
    // [MQTT-6.0.0-1] Packets come in binary frames only.
    socket.on('message', (_content, isBinary) => {
      if (!isBinary) stream.destroy();
    });
    accept(stream, remoteAddress(request.socket), request);
  });
  return {
    upgrade(request, socket, head) {
      const path = (request.url ?? '').split('?', 1)[0];
      const offered = (request.headers['sec-websocket-protocol'] ?? '').split(/\s*,\s*/);
      if (path === '/mqtt' && offered.includes('mqtt')) {
        server.handleUpgrade(request, socket, head, (ws) => server.emit('connection', ws, request));
        return;
      }
      const status = path === '/mqtt' ? '400 Bad Request' : '404 Not Found';
      // The HTTP server has let go of the socket: nobody else hears its errors or closes it.
      socket.on('error', () => socket.destroy());
      socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () =>
        socket.destroy(),
      );
    },
    close: () => server.close(),
  };
}

function createTls(
  options: { cert: Buffer; key: Buffer; handshakeMs: number },
  certFile: string,
  accept: AcceptConnection,
): Server {
  const { cert, key, handshakeMs } = options;
  try {
    return createTlsServer(
      { cert, key, minVersion: 'TLSv1.2', handshakeTimeout: handshakeMs, noDelay: true },
      (socket) => accept(socket, remoteAddress(socket)),
    );
  } catch (cause) {
    throw new FileUnusableError('the TLS certificate', certFile, cause);
  }
}

function listen(
  name: string,
  server: Server,
  { host, port, key }: ListenAddress,
  log: Logger,
): Promise<Listener> {
  const onAcceptError = (err: Error): void => {
    log.warn({ err: reasonOf(err), listener: name }, 'connection not accepted');
  };
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new ListenFailedError(name, `${host}:${port}`, key, cause));
    });
    server.listen({ host, port, backlog: 1024 }, () => {
      // From now on an error is one of accept(), for want of file descriptors: who is in stays in.
      server.on('error', onAcceptError);
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => closeServer(server),
      });
    });
  });
}

/** Resolves at once: `close` of a server would wait for the connections, which have an end of their own. */
async function closeServer(server: Server): Promise<void> {
  server.close();
}

async function readPem(purpose: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new FileUnusableError(purpose, path, cause);
  }
}

/** An IPv4 client of a dual-stack listener counts as its IPv4 address. */
function remoteAddress(socket: Socket): string {
  return (socket.remoteAddress ?? 'unknown').replace(/^::ffff:/, '');
}
