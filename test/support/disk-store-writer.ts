import { writeSync } from 'node:fs';
import { createDiskPersistence } from '../../broker/store/disk-persistence.ts';
import { openTestStore } from './disk-store.ts';

/**
 * Writes to a session store until it is killed and tells on stdout, one line each, what the store says
 * is on disk. Usage: FOLDER ROUND.
 */
const [, , folder = '', round = ''] = process.argv;
const store = await openTestStore(folder);
const persistence = createDiskPersistence(store);
await persistence.setup({ id: 'broker' });
/** Writers at once; each waits for its own promise. */
const WRITERS = 8;

await Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(`${round}-${writer}`)));

async function write(name: string): Promise<never> {
  await store.openSession(name);
  tell(`session ${name}`);
  for (let n = 1; ; n += 1) {
    const text = `${name}/${n}`;
    const payload = Buffer.from(text.padEnd(20 + ((n * 37) % 900), '.'));
    const packet = { cmd: 'publish', topic: text, payload, qos: 2 as const };
    await store.enqueue([name], { topic: text, payload, qos: 1, retain: false });
    tell(`queued ${text}`);
    await store.putRetained({ topic: text, payload, qos: 1, retain: true });
    tell(`retained ${text}`);
    await store.addSubscriptions(name, [{ filter: text, qos: 1 }]);
    tell(`subscribed ${text}`);
    await persistence.incomingStorePacket({ id: name }, { ...packet, messageId: n % 65_536 });
    tell(`incoming ${text}`);
    await persistence.putWill({ id: text }, packet);
    tell(`will ${text}`);
    store.markSent(name, n, n % 65_536);
  }
}

function tell(line: string): void {
  writeSync(1, `${line}\n`);
}
