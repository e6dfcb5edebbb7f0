import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** Opens this many TCP connections, at most 200 at a time. Errors of them are theirs. */
export async function openSockets(url: string, count: number): Promise<Socket[]> {
  const { hostname, port } = new URL(url);
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const batch = Array.from({ length: Math.min(200, count - sockets.length) }, () => {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => undefined);
      return socket;
    });
    await Promise.all(batch.map((socket) => once(socket, 'connect')));
    sockets.push(...batch);
  }
  return sockets;
}

/** Resolves when all have ended; rejects with the number of those that have not after the deadline. */
export async function allClosed(sockets: readonly Socket[], deadlineMs: number): Promise<void> {
  const end = performance.now() + deadlineMs;
  for (const socket of sockets) socket.resume();
  for (;;) {
    const open = sockets.filter((socket) => !socket.closed).length;
    if (open === 0) return;
    if (performance.now() > end) throw new Error(`${open} of ${sockets.length} are still open`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
