import type { Message } from './message.ts';

/** Bounds of the writer. */
export interface WriterLimits {
  /** Rows that one batch holds; the message that reaches it is the last. */
  readonly batchRowsMax: number;
  /** Longest wait for more messages while the database is kept busy. */
  readonly lingerMs: number;
  /** Beyond either, {@link BatchWriter.hasRoom} is false. */
  readonly queueRowsMax: number;
  readonly queueBytesMax: number;
  /** The part of the queue's rows and bytes that one device may fill: above 0, 1 for all of it. */
  readonly deviceShare?: number;
  /** What has waited so long for COMMIT goes to the spool. */
  readonly spoolAfterMs?: number;
}

/** Where messages go that the database does not take in time; see `MessageSpool`. */
export interface BatchSpool {
  /** False while it is full or fails. */
  readonly isUsable: boolean;
  /** Calls one of the two, once: `onStored` when all of them are synced to disk. */
  append(messages: readonly Message[], onStored: () => void, onFailed: () => void): void;
}
