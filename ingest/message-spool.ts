// HOT PATH: once per message while the database is away
import { Refusal } from '../firmware-protocol/contract.ts';
import { isRefusal, type Decoded, type Sample } from '../firmware-protocol/telemetry.ts';
import type { Logger } from '../log.ts';
import type { BootSequence } from './boot-sequence.ts';
import type { Lane } from './lane.ts';
import type { Message } from './message.ts';
import type { SpoolRecord } from './spool/spool-record.ts';
import type { Spool } from './spool/spool.ts';
import type { BatchSpool } from './writer-limits.ts';

/**
 * Messages in, records out: the spool as the pipeline and the writer use it. Of a copy told by its `seq`
 * there is nothing to write.
 */
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

  /** False from when something was refused until there is room for it. */
  get isUsable(): boolean {
    return !this.#isRefusing && this.#spool.hasRoomFor(1);
  }

  append(messages: readonly Message[], onStored: () => void, onFailed: () => void): void {
    this.#spool.append(
      messages.filter(({ isDuplicate }) => !isDuplicate).map(recordOf),
      () => {
        onStored();
        this.#onPending();
      },
      (err) => {
        this.#refused(err);
        onFailed();
      },
    );
  }

  #refused(err: Error): void {
    if (this.#isRefusing) return;
    this.#isRefusing = true;
    this.#log.debug({ err: err.message }, 'spool takes no messages');
    this.#spool.whenRoom(() => {
      this.#isRefusing = false;
    });
  }
}

/**
 * Whether every number of a message has come before: `stored` when what it is a copy of is stored, `waits`
 * when that stands in a batch; null of a message that is new, at least in part, as far as is known: while
 * its device is not loaded that is what was spooled.
 */
export function copyStateOf({ lane }: Message, { samples }: Decoded): 'stored' | 'waits' | null {
  if (!lane.isNumbered || samples.length === 0) return null;
  const { ahead, committed } = numbersOf(lane);
  const hasCome = ({ seq }: Sample): boolean => seq !== null && ahead.has(seq);
  if (!samples.every(hasCome)) return null;
  return samples.every(({ seq }) => seq !== null && committed.has(seq)) ? 'stored' : 'waits';
}

/** A lane must not keep the numbers of a boot that it was given before its device was loaded. */
function numbersOf(lane: Lane): BootSequence {
  const { boot, device } = lane;
  return boot === null || device.isLoaded ? lane.sequence : device.sequenceOf(boot);
}

/** Acknowledges a message that was spooled while it was held, and notes its numbers. */
export function settleSpooled(message: Message): void {
  const { lane, outcome, publication, canonical, quarantine } = message;
  if (lane.isNumbered && outcome !== null && !isRefusal(outcome)) {
    const sequence = numbersOf(lane);
    for (const { seq } of outcome.samples) if (seq !== null) sequence.addStored(seq);
  }
  publication.acknowledge(canonical, quarantine);
}

function recordOf(message: Message): SpoolRecord {
  const { publication, lane, receivedMicros, basis, outcome, quarantine } = message;
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
    isKeptApart: quarantine?.code === 'device_quarantined',
    seqs: outcome === null || outcome instanceof Refusal ? [] : seqsOf(outcome),
    payload,
  };
}

function seqsOf({ samples }: Decoded): number[] {
  const seqs: number[] = [];
  for (const { seq, isContinued } of samples) if (seq !== null && !isContinued) seqs.push(seq);
  return seqs;
}
