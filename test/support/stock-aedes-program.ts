import { createServer, type AddressInfo } from 'node:net';
import { Aedes } from 'aedes';

/**
 * Aedes as it comes, with its persistence in memory, as a process of its own: what a remote client does to
 * it may end it. Prints the port that it listens on, and then how many clients it counts at each line
 * that it reads. `--heartbeat` ends it when its parent is gone.
 */
const NOSUBSCRIBE = 'test/nosubscribe';

const broker = await Aedes.createBroker({
  // The one refusal that conformance tests need.
  authorizeSubscribe: (_client, subscription, done) => {
    done(null, subscription.topic === NOSUBSCRIBE ? null : subscription);
  },
});
// What has a listener does not end the process by itself.
for (const event of ['clientError', 'connectionError'] as const) broker.on(event, () => undefined);
const server = createServer({ noDelay: true }, (socket) => broker.handle(socket));
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.stdin.on('data', () => {
  const rssMb = Math.round(process.memoryUsage().rss / 2 ** 20);
  process.stdout.write(`${JSON.stringify({ clients: broker.connectedClients, rssMb })}\n`);
});
process.stdin.on('end', () => process.exit(0));
