import type { ChaosReport } from './chaos-run.ts';
import { formatCount, formatMs, formatTable } from './figures.ts';
import type { FaultRecord } from './silence-finder.ts';

/** Whether everything that was acknowledged is there exactly once, and every figure adds up. */
export function isFaultless(report: ChaosReport): boolean {
  const { check, poison, ledger, aggregates, spoolLeft } = report;
  const wrong = [
    check.lost,
    check.twice,
    check.altered,
    poison?.lost ?? 0,
    poison?.stored ?? 0,
    ledger.breaches,
    aggregates.different,
    aggregates.dirtyLeft,
    spoolLeft,
  ];
  return wrong.every((count) => count === 0);
}

/** The report for a person: each fault, how often it struck, what was acknowledged during it, and what was found. */
export function chaosText(report: ChaosReport): string {
  const byFault = new Map<string, FaultRecord[]>();
  for (const record of report.faults) {
    byFault.set(record.fault, [...(byFault.get(record.fault) ?? []), record]);
  }
  const header = [
    'fault',
    'times',
    'PUBACKs in the second before',
    'while it was on',
    'longest silence: median',
    'longest',
  ];
  const figures = figuresOf(report).map(
    ([name, count]) => name.padEnd(44) + formatCount(count).padStart(12),
  );
  const skipped = report.skipped.map(({ fault, reason }) => `NOT STRUCK: ${fault}: ${reason}`);
  const { check, ledger, aggregates } = report;
  const examples = [...check.examples, ...ledger.examples, ...aggregates.examples];
  const lines = [...figures, ...remarks(report), ...skipped, ...examples];
  const table = formatTable(header, [...byFault].map(faultRow));
  return `\n${table}\n\n${lines.join('\n')}\n`;
}

function figuresOf(report: ChaosReport): (readonly [string, number])[] {
  const { check, poison, ledger, aggregates, generator } = report;
  return [
    ['messages acknowledged', check.acknowledged],
    ['rows stored', check.stored],
    ['acknowledged and LOST', check.lost],
    ['stored TWICE', check.twice],
    ['stored at another time', check.altered],
    ['stored, PUBACK never arrived', check.unacknowledged],
    ['refused by the database, acknowledged', poison?.acknowledged ?? 0],
    ['of these NOT in quarantine', poison?.lost ?? 0],
    ['of these stored as readings', poison?.stored ?? 0],
    ['scrapes of the ledger', ledger.scrapes - ledger.unanswered - ledger.withoutLedger],
    ['scrapes that do NOT ADD UP', ledger.breaches],
    ['buckets of aggregates', aggregates.buckets],
    ['buckets that DIFFER from the readings', aggregates.different],
    ['hours left to be refreshed', aggregates.dirtyLeft],
    ['messages left in the spool', report.spoolLeft],
    ['unacknowledged at the end', generator.unacknowledged + report.unrulyUnacknowledged],
    ['connections lost', generator.connectionsLost],
    ['program ended by itself', report.ownExits],
  ];
}

function remarks({ ledger, aggregates }: ChaosReport): string[] {
  const lines: string[] = [];
  if (ledger.withoutLedger > 0) {
    lines.push(`NOT CHECKED: ${ledger.withoutLedger} scrapes had no ledger`);
  }
  if (aggregates.views.length === 0) lines.push('NOT CHECKED: there are no views of aggregates');
  return lines;
}

function faultRow([fault, records]: [string, FaultRecord[]]): string[] {
  const silences = records.map(({ silenceMs }) => silenceMs).sort((a, b) => a - b);
  const mean = (pick: (record: FaultRecord) => number): string =>
    formatCount(records.reduce((total, record) => total + pick(record), 0) / records.length);
  return [
    fault,
    String(records.length),
    mean((record) => record.acknowledgedBefore),
    mean((record) => record.acknowledgedDuring),
    formatMs(silences[Math.floor(silences.length / 2)] ?? 0),
    formatMs(silences.at(-1) ?? 0),
  ];
}
