import { formatCount, formatTable } from '../figures.ts';
import type { Durations } from '../measurement.ts';
import type { RunDescription } from '../results.ts';
import type { PeerResult } from './peer-measurement.ts';

/** How many times the messages of the peer Puback is to store. */
export const RATIO_MIN = 2;

const HEADER = [
  'load',
  'stored by',
  'messages/s stored',
  'broker µs',
  'writer µs',
  'database µs',
  'together µs',
  'drain',
  'lost',
];

/** The table alone, for the terminal and the file. */
export function peerTable(results: readonly PeerResult[]): string {
  return formatTable(HEADER, results.map(row));
}

/** Puback's messages/s over the peer's, by the id of the load. */
export function ratios(results: readonly PeerResult[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const { scenario, name, messagesPerS } of results) {
    if (name === 'Puback') continue;
    const own = results.find((each) => each.scenario === scenario && each.name === 'Puback');
    if (own !== undefined) found.set(scenario.id, own.messagesPerS / messagesPerS);
  }
  return found;
}

/** A line for each load. */
export function peerVerdicts(results: readonly PeerResult[]): string[] {
  return [...ratios(results)].map(([id, ratio]) => {
    const isMet = ratio >= RATIO_MIN ? 'met' : 'NOT MET';
    return `(${id}) Puback stores ${ratio.toFixed(1)} times as many messages a second, at least ${RATIO_MIN} wanted: ${isMet}`;
  });
}

/** The section of bench/RESULTS.md, with its heading. */
export function peerSection(
  run: RunDescription,
  durations: Pick<Durations, 'warmupS' | 'measuredS'>,
  results: readonly PeerResult[],
  mosquittoVersion: string,
): string {
  return `## Beside mosquitto with a writer

Made by \`${run.command}\`: the same generator and loads, one after the other in one run, into the same
PostgreSQL server, on the same processors.

- Machine: ${run.machine}; load before the run: ${run.loadBefore.toFixed(1)}
- Node.js ${run.node}; ${run.database}; mosquitto ${mosquittoVersion}
- Commit ${run.commit}, ${run.date}
- ${durations.warmupS} s of warm-up, ${durations.measuredS} s measured

${peerTable(results)}

The peer is what people build: mosquitto without login and without a file, a program with mqtt.js that
subscribes at QoS 1, and one INSERT … SELECT FROM unnest(…) ON CONFLICT DO NOTHING after the other of up
to 5 000 rows, prepared, into a table of the same columns, key and partitions as \`reading\`; names are
looked up in memory. It checks no keys, no topics and no payloads, keeps no newest values, and
acknowledges before anything is stored: what waits in mosquitto or in the program is lost with them.
Because of that it is sent no more than it can store: at the highest rate at which the rows keep up, found
in probes before, and the time until the last row is in the table counts. Puback acknowledges after COMMIT
and is sent as fast as it acknowledges. µs are processor time for a message.

${peerVerdicts(results)
  .map((verdict) => `- ${verdict}`)
  .join('\n')}`;
}

function row(result: PeerResult): string[] {
  const { scenario, name, brokerCpuUs, writerCpuUs, databaseCpuUs } = result;
  const parts = [brokerCpuUs, writerCpuUs, databaseCpuUs];
  const isKnown = parts.every((part) => part !== null);
  const together = isKnown ? parts.reduce<number>((sum, part) => sum + (part ?? 0), 0) : null;
  return [
    `(${scenario.id}) ${scenario.title}`,
    name,
    formatCount(result.messagesPerS),
    microseconds(brokerCpuUs),
    name === 'Puback' ? '–' : microseconds(writerCpuUs),
    microseconds(databaseCpuUs),
    microseconds(together),
    `${result.drainS.toFixed(2)} s`,
    formatCount(result.lost),
  ];
}

function microseconds(value: number | null): string {
  return value === null ? '–' : value.toFixed(1);
}
