import type { Server } from 'node:http';
import type { Socket } from 'node:net';

/** Bounds and ends the connections of an HTTP server. */
export interface ConnectionBounds {
  /** Plain HTTP connections now; those that became WebSockets are not among them. */
  count(): number;
  /** Waits until no HTTP connection is open, and destroys what is still open after that time. */
  drain(graceMs: number): Promise<void>;
}

/**
 * Keeps the number of plain HTTP connections at or below `max`: one more is closed at once. A
 * connection that is upgraded leaves the count, and whoever took it over bounds and closes it.
 */
export function boundConnections(server: Server, max: number): ConnectionBounds {
  const sockets = new Set<Socket>();
  let onEmpty: (() => void) | null = null;
  const forget = (socket: Socket): void => {
    sockets.delete(socket);
    if (sockets.size === 0) onEmpty?.();
  };
  server.on('connection', (socket) => {
    if (sockets.size >= max) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => forget(socket));
  });
  server.prependListener('upgrade', (_request, socket) => {
    forget(socket as Socket);
    // With this listener alone nobody would ever answer.
    if (server.listenerCount('upgrade') === 1) socket.end('HTTP/1.1 404 Not Found\r\n\r\n');
  });
  return {
    count: () => sockets.size,
    async drain(graceMs) {
      if (sockets.size === 0) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        onEmpty = resolve;
        timer = setTimeout(resolve, graceMs);
      });
      clearTimeout(timer);
      for (const socket of sockets) socket.destroy();
    },
  };
}
