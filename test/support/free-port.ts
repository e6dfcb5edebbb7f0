import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * A port that is free now, for a program that is to come back on it. Below those that the system gives to
 * connections: none of them takes it while the program is down.
 */
export async function freePort(): Promise<string> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, 'close');
    return String(port);
  }
}
