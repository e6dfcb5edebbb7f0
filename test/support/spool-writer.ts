import { writeSync } from 'node:fs';
import { openTestSpool, spoolRecords } from './spool.ts';

/**
 * Appends to a spool until it is killed, and tells on stdout the
 * numbers that are on disk, one line for each append. Drains a part of it meanwhile, and tells that as
 * well. Usage: FOLDER FIRST.
 */
const [, , folder = '', first = ''] = process.argv;
const spool = await openTestSpool(folder, { segmentBytes: 200_000, tidyMs: 5 });
let next = Number(first);
writeSync(1, `opened ${spool.recoveredMessages}\n`);
for (let writer = 0; writer < 4; writer += 1) append();
await drain();

function append(): void {
  const count = 1 + Math.floor(Math.random() * 200);
  const records = spoolRecords(next, count);
  const from = next;
  next += count;
  const onStored = () => {
    writeSync(1, `stored ${from} ${count}\n`);
    append();
  };
  spool.append(records, onStored, (error) => {
    throw error;
  });
}

async function drain(): Promise<never> {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (next - Number(first) < 5000) continue;
    const read = await spool.read(20, 100_000);
    // Told first: what is told may be there still, and what is not told must be.
    const last = read.at(-1)?.record.seqs[0];
    if (last === undefined) continue;
    writeSync(1, `draining ${last}\n`);
    spool.drained(read.map(({ position }) => position));
  }
}
