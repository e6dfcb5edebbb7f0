// HOT PATH: once per message while the database is away
import { Refusal } from '../firmware-protocol/contract.ts';
import type { Decoded } from '../firmware-protocol/telemetry.ts';
import type { Logger } from '../log.ts';
import type { BatchSpool } from './batch-writer.ts';
import type { Message } from './message.ts';
import { spoolBytes, type SpoolRecord } from './spool/spool-record.ts';
import type { Spool } from './spool/spool.ts';

/** Messages in, records out: the spool as the pipeline and the writer use it. */
export class MessageSpool implements BatchSpool {
  readonly #spool: Spool;
  readonly #log: Logger;
  /** Told after each append, and when messages were there from the start. */
  readonly #onPending: () => void;
  #isRefusing = false;

  constructor(spool: Spool, onPending: () => void, log: Logger) {
    this.#spool = spool;
    this.#onPending = onPending;
    this.#log = log;
  }

  get isUsable(): boolean {
    return this.#spool.hasRoomFor(1);
  }

  append(messages: readonly Message[], onStored: () => void, onFailed: () => void): void {
    const records = messages.map(recordOf);
    this.#spool.append(
      records,
      () => {
        onStored();
        if (this.#isRefusing) this.#log.info('spool takes messages again');
        this.#isRefusing = false;
        this.#onPending();
      },
      (err) => {
        if (!this.#isRefusing)
          this.#log.warn({ err: err.message, bytes: bytesOf(records) }, 'spool takes no messages');
        this.#isRefusing = true;
        onFailed();
      },
    );
  }
}

function bytesOf(records: readonly SpoolRecord[]): number {
  return records.reduce((sum, record) => sum + spoolBytes(record), 0);
}

function recordOf({ publication, lane, receivedMicros, basis, outcome }: Message): SpoolRecord {
  const { channel, name, word, topic, qos, refusal, payload } = publication;
  return {
    organizationId: lane.device.organizationId,
    deviceId: lane.device.deviceId,
    boot: lane.boot,
    receivedMicros,
    basis,
    channel,
    name,
    word,
    topic,
    qos,
    refusal,
    seqs: outcome === null || outcome instanceof Refusal ? [] : seqsOf(outcome),
    payload,
  };
}

function seqsOf({ samples }: Decoded): number[] {
  const seqs: number[] = [];
  for (const { seq, isContinued } of samples) if (seq !== null && !isContinued) seqs.push(seq);
  return seqs;
}
