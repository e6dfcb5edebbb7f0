import { openTestStore } from './disk-store.ts';

/**
 * Fills a session store on a disk that takes no more (a limit on file size stands for it), makes room,
 * and prints what happened as JSON. Usage: FOLDER.
 */
const [, , folder = ''] = process.argv;
let unhandled = 0;
process.on('unhandledRejection', () => {
  unhandled += 1;
});
const store = await openTestStore(folder, { queueMessagesMax: 100_000 });
await store.openSession('c');
const payload = Buffer.alloc(3000);
const codes = new Set<unknown>();
let stored = 0;
for (let n = 0; n < 3000; n += 1) {
  await store.enqueue(['c'], { topic: 't', payload, qos: 1, retain: false }).then(
    () => (stored += 1),
    (cause: { code?: unknown }) => codes.add(cause.code),
  );
}
const { messages } = store.queueSize('c');
const readable = store.queued('c', 0, 100_000).length;
// Its removal takes back the pages of what is on disk; all that was refused for want of room is gone too.
await store.dropSession('c').catch((cause: { code?: unknown }) => codes.add(cause.code));
const failures = store.parts.totals.writeFailures;
await new Promise((resolve) => setTimeout(resolve, 1500));
const isMended = await store.openSession('d').catch(() => false);
await store.close();
const result = { stored, codes: [...codes], messages, readable, failures, isMended, unhandled };
process.stdout.write(`${JSON.stringify(result)}\n`);
