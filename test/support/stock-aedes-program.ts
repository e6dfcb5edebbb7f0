import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Aedes } from 'aedes';

/**
 * Aedes as it comes, with its persistence in memory, as a process of its own: what a remote client does to
 * it may end it. Prints the port that it listens on. It ends with its parent.
 */
const NOSUBSCRIBE = 'test/nosubscribe';
/** What no subscriber may read, so that its hook withholds it. */
const WITHHELD = 'test/withheld';
/** Clients of whom the store is asked as one over a network is: it takes a while. */
const SLOW = 'slow-';
const SLOW_MS = 20;
/** Each authorization of a message to the first topic is told on the second. */
const COUNTED = 'test/counted';
const COUNT = 'test/count';

const broker = await Aedes.createBroker({
  // The one refusal that conformance tests need.
  authorizeSubscribe: (_client, subscription, done) => {
    done(null, subscription.topic === NOSUBSCRIBE ? null : subscription);
  },
});
// The hooks that an application has: one that withholds messages, and one that stores them.
broker.authorizeForward = (_client, packet) => (packet.topic === WITHHELD ? null : packet);
broker.authorizePublish = (client, packet, done) => {
  if (client !== null && packet.topic === COUNTED) {
    broker.publish({ ...packet, topic: COUNT, qos: 1, dup: false }, () => done(null));
  } else done(null);
};
/** What the declared type of Aedes leaves out. */
interface WithPersistence {
  readonly persistence: { cleanSubscriptions(client: { readonly id: string }): Promise<unknown> };
}
const { persistence } = broker as unknown as WithPersistence;
const cleanSubscriptions = persistence.cleanSubscriptions.bind(persistence);
persistence.cleanSubscriptions = async (client) => {
  if (client.id.startsWith(SLOW)) await delay(SLOW_MS);
  return cleanSubscriptions(client);
};
// What has a listener does not end the process by itself.
for (const event of ['clientError', 'connectionError'] as const) broker.on(event, () => undefined);
const server = createServer({ noDelay: true }, (socket) => broker.handle(socket));
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
process.stdin.resume().on('end', () => process.exit(0));
