import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { createWebSocketStream, WebSocketServer, type WebSocket } from 'ws';
import type { Door, DoorEntry } from './door.ts';
import type { AcceptConnection } from './listeners.ts';
import type { TrustedProxies } from './trusted-proxies.ts';

/** What the intake asks of the rest. */
export interface WebSocketParts {
  readonly packetBytesMax: number;
  readonly door: Door;
  readonly proxies: TrustedProxies;
  readonly accept: AcceptConnection;
}

/** Takes the upgrades of an HTTP server. */
export interface WebSocketIntake {
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  close(): void;
}

/**
 * Takes MQTT over WebSocket at `/mqtt` of an HTTP server, sub-protocol `mqtt` [MQTT-6.0.0-3]. Upgrades
 * to any other path are refused.
 */
export function createWebSocketIntake(parts: WebSocketParts): WebSocketIntake {
  const server = new WebSocketServer({
    noServer: true,
    // A frame may hold several packets or a part of one [MQTT-6.0.0-2]; the parser bounds the packets.
    maxPayload: 2 * parts.packetBytesMax,
    perMessageDeflate: false,
    handleProtocols: (protocols) => (protocols.has('mqtt') ? 'mqtt' : false),
  });
  return {
    upgrade(request, socket, head) {
      const status = refusalOf(request);
      if (status !== null) {
        refuse(socket, status);
        return;
      }
      const address = parts.proxies.clientOf(request);
      const entry = parts.door.enter(socket, address);
      if (entry === null) return;
      server.handleUpgrade(request, socket, head, (webSocket) => {
        take(webSocket, request, { address, entry }, parts.accept);
      });
    },
    close: () => server.close(),
  };
}

function take(
  webSocket: WebSocket,
  request: IncomingMessage,
  { address, entry }: { address: string; entry: DoorEntry },
  accept: AcceptConnection,
): void {
  const stream = createWebSocketStream(webSocket);
  // [MQTT-6.0.0-1] Packets come in binary frames only.
  webSocket.on('message', (_content, isBinary) => {
    if (!isBinary) stream.destroy();
  });
  accept(stream, { address, transport: 'ws', clientCertificate: null, request, entry });
}

function refusalOf(request: IncomingMessage): string | null {
  const path = (request.url ?? '').split('?', 1)[0];
  if (path !== '/mqtt') return '404 Not Found';
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(/\s*,\s*/);
  return offered.includes('mqtt') ? null : '400 Bad Request';
}

function refuse(socket: Duplex, status: string): void {
  // The HTTP server has let go of the socket: nobody else hears its errors or closes it.
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () =>
    socket.destroy(),
  );
}
