import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { ToolFailedError } from '../../errors.ts';
import { runLoad } from '../load-run.ts';
import type { Durations } from '../measurement.ts';
import { processorTime, processorTimeOfTree } from '../processor-time.ts';
import type { Scenario } from '../scenarios.ts';
import type { Mosquitto } from './mosquitto.ts';
import { countPeerRows, emptyPeerTable } from './peer-table.ts';
import type { PeerWriter } from './peer-writer.ts';

/** What one way to store messages came to in one load. */
export interface PeerResult {
  /** `Puback`, or the peer. */
  readonly name: string;
  readonly scenario: Scenario;
  /** Messages that arrived in the table. */
  readonly messagesPerS: number;
  /** µs of processor time for a message; null where it cannot be known. `writer` is 0 for Puback. */
  readonly brokerCpuUs: number | null;
  readonly writerCpuUs: number | null;
  readonly databaseCpuUs: number | null;
  /** What was sent a second; null: as fast as it was acknowledged. */
  readonly offeredPerS: number | null;
  /** From the last message that was sent to the last row in the table. */
  readonly drainS: number;
  /** Messages acknowledged and not in the table. */
  readonly lost: number;
}

/** The peer while it runs. */
export interface Peer {
  readonly broker: Mosquitto;
  readonly writer: PeerWriter;
  readonly client: pg.Client;
  readonly databasePid: number | null;
}

type Seconds = Pick<Durations, 'warmupS' | 'measuredS'>;

const NAME = 'mosquitto, mqtt.js, INSERT';
const TOPIC = 'v1/{device}/data';
const OVERLOAD = { warmupS: 0.5, measuredS: 2 };
const PROBE = { warmupS: 1, measuredS: 4 };
const PROBES_MAX = 8;
const RUNS_MAX = 3;
const STEP = 1.12;
/** What waits at the end of a probe, as time: more means that it would wait ever longer. */
const DRAIN_S_MAX = 0.4;
const STALLED_MS = 10_000;
const POLL_MS = 20;

/**
 * Finds the highest rate at which the rows keep up with the messages, and measures at it. Sending without
 * a bound would only fill the broker's queue: it acknowledges before anything is stored.
 * @param tell called with what is going on
 * @returns of up to three runs, each at a lower rate than the one before, the one that stored the most.
 */
export async function measurePeer(
  peer: Peer,
  scenario: Scenario,
  seconds: Seconds,
  keysFile: string,
  tell: (line: string) => void,
): Promise<PeerResult> {
  const run = (of: Seconds, ratePerS: number): Promise<PeerResult> =>
    runPeer(peer, scenario, { ...of, keysFile, ratePerS });
  let rate = await findRate(run, tell);
  let best: PeerResult | null = null;
  for (let attempt = 1; attempt <= RUNS_MAX; attempt += 1) {
    tell(`measuring at ${Math.round(rate)} messages/s`);
    const result = await run(seconds, rate);
    if (best === null || result.messagesPerS > best.messagesPerS) best = result;
    if (result.drainS <= DRAIN_S_MAX) break;
    rate /= STEP;
  }
  if (best === null) throw new Error('nothing was measured');
  return best;
}

/** Up by steps while more arrives, down while it does not keep up. */
async function findRate(
  run: (seconds: Seconds, ratePerS: number) => Promise<PeerResult>,
  tell: (line: string) => void,
): Promise<number> {
  tell('how fast are rows when more is sent than can be stored');
  let rate = (await run(OVERLOAD, 0)).messagesPerS;
  let steady = 0;
  for (let probe = 0; probe < PROBES_MAX; probe += 1) {
    tell(`does it keep up with ${Math.round(rate)} messages/s`);
    const { drainS, messagesPerS } = await run(PROBE, rate);
    if (drainS <= DRAIN_S_MAX) {
      // The generator itself may be what does not get faster.
      if (messagesPerS < steady * 1.02) return rate;
      steady = messagesPerS;
      rate *= STEP;
    } else {
      rate /= STEP;
      if (steady > 0) return rate;
    }
  }
  return rate;
}

interface Mark {
  readonly atMs: number;
  readonly rows: number;
  readonly broker: number | null;
  readonly writer: number | null;
  readonly database: number | null;
}

/** The end of the drain ends the measurement: what waits in the broker is not stored. */
async function runPeer(
  peer: Peer,
  scenario: Scenario,
  load: { warmupS: number; measuredS: number; keysFile: string; ratePerS: number },
): Promise<PeerResult> {
  await emptyPeerTable(peer.client);
  const storedBefore = peer.writer.stored();
  const { mqttUrl } = peer.broker;
  const { payload, connections, window } = scenario;
  const options = { ...load, mqttUrl, topic: TOPIC, payload, connections, window };
  const { generator, before, after } = await runLoad(options, () => readMark(peer));
  const sent = generator.acknowledgedTotal * scenario.rowsPerMessage;
  await waitForRows(peer.writer, storedBefore + sent);
  const end = await readMark(peer);
  const messages = (end.rows - before.rows) / scenario.rowsPerMessage;
  const each = (read: (mark: Mark) => number | null): number | null => {
    const [from, to] = [read(before), read(end)];
    return from === null || to === null ? null : (to - from) / Math.max(1, messages);
  };
  return {
    name: NAME,
    scenario,
    messagesPerS: (messages * 1000) / (end.atMs - before.atMs),
    brokerCpuUs: each(({ broker }) => broker),
    writerCpuUs: each(({ writer }) => writer),
    databaseCpuUs: each(({ database }) => database),
    offeredPerS: load.ratePerS,
    drainS: (end.atMs - after.atMs) / 1000,
    lost:
      generator.acknowledgedTotal - (await countPeerRows(peer.client)) / scenario.rowsPerMessage,
  };
}

async function readMark({ broker, writer, databasePid }: Peer): Promise<Mark> {
  const atMs = performance.now();
  const rows = writer.stored();
  const [ofBroker, ofWriter, ofDatabase] = await Promise.all([
    processorTime(broker.pid),
    processorTime(writer.pid),
    databasePid === null ? null : processorTimeOfTree(databasePid),
  ]);
  return { atMs, rows, broker: ofBroker, writer: ofWriter, database: ofDatabase };
}

/** Returns early when nothing more arrives: the rest is lost. */
async function waitForRows(writer: PeerWriter, rows: number): Promise<void> {
  let last = writer.stored();
  let changedMs = performance.now();
  while (writer.stored() < rows) {
    await delay(POLL_MS);
    if (writer.stored() !== last) changedMs = performance.now();
    last = writer.stored();
    if (performance.now() - changedMs > STALLED_MS) return;
    if (last > rows) throw new ToolFailedError('the writer counts more rows than were sent');
  }
}
