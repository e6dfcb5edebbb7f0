import type { Logger } from '../log.ts';
import { reasonOf } from '../errors.ts';
import type { Batch, LatestColumns } from './batch.ts';
import { putAside } from './refusal.ts';
import type { Stored } from './reading-store.ts';
import { classifyStoreFault } from './store-fault.ts';

/** Where batches go; see `ReadingStore`, which is the only one in the program. */
export interface BatchStore {
  insert(batch: Batch, latest: LatestColumns): Promise<Stored>;
  insertNew(batch: Batch, first: number, end: number): Promise<Stored>;
  insertQuarantine(batch: Batch, index: number): Promise<Stored>;
  forgetPartitions(): void;
  close(): Promise<void>;
}

/**
 * Stores a batch whole: by COPY, or, when some of it is there already, what is new of it. A message
 * whose rows the database refuses goes to quarantine, and the others are stored.
 * Rejects with the error of a database that is away; storing the same batch again is harmless then.
 */
export async function commitBatch(
  store: BatchStore,
  batch: Batch,
  latest: LatestColumns,
  log: Logger,
): Promise<Stored> {
  try {
    return await store.insert(batch, latest);
  } catch (cause) {
    const fault = classifyStoreFault(cause);
    if (fault === 'unavailable') throw cause;
    if (fault === 'partition') store.forgetPartitions();
    return storeNew({ store, batch, log }, 0, batch.messages.length);
  }
}

interface Commit {
  readonly store: BatchStore;
  readonly batch: Batch;
  readonly log: Logger;
}

/** Row by row what is new; halves down to the message whose rows the database refuses. */
async function storeNew(commit: Commit, first: number, end: number): Promise<Stored> {
  const { store, batch } = commit;
  try {
    return await store.insertNew(batch, first, end);
  } catch (cause) {
    const fault = classifyStoreFault(cause);
    if (fault !== 'refused') {
      if (fault === 'partition') store.forgetPartitions();
      throw cause;
    }
    if (end - first === 1) return storeAside(commit, first, cause);
  }
  const middle = (first + end) >>> 1;
  const left = await storeNew(commit, first, middle);
  const right = await storeNew(commit, middle, end);
  return {
    insertedRows: left.insertedRows + right.insertedRows,
    duplicateRows: left.duplicateRows + right.duplicateRows,
    quarantinedMessages: left.quarantinedMessages + right.quarantinedMessages,
  };
}

function storeAside({ store, batch, log }: Commit, index: number, cause: unknown): Promise<Stored> {
  const message = batch.messages[index];
  if (message === undefined) throw cause;
  putAside(message, reasonOf(cause));
  log.error({ err: reasonOf(cause) }, 'the database refused a message');
  return store.insertQuarantine(batch, index);
}
