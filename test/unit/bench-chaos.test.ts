import { describe, expect, it } from 'vitest';
import { chaosText, isFaultless } from '../../bench/chaos-report.ts';
import type { ChaosReport } from '../../bench/chaos-run.ts';
import { makeFaults } from '../../bench/faults/catalogue.ts';
import { loseCommitAnswers } from '../../bench/faults/lose-commit-answer.ts';
import { readGauge, readLedger } from '../../bench/ledger-watch.ts';
import type { ProxiedLink } from '../../bench/tcp-proxy.ts';

const METRICS = `# HELP puback_ingest_ledger_messages Messages
puback_ingest_ledger_messages{entry="received"} 12
puback_ingest_ledger_messages{entry="committed"} 9
puback_ingest_ledger_messages{entry="in_flight"} 3
puback_spool_messages 7
`;

function report(): ChaosReport {
  return {
    faults: [
      {
        fault: 'stop-database',
        atMs: 0,
        healedAtMs: 10,
        acknowledgedBefore: 4,
        acknowledgedDuring: 17,
        acknowledgedUnderWay: 0,
        silenceMs: 5,
        recoveredMs: 5,
      },
    ],
    skipped: [{ fault: 'clock-back', reason: 'libfaketime is not installed' }],
    check: {
      acknowledged: 10,
      stored: 10,
      lost: 0,
      twice: 0,
      altered: 0,
      unacknowledged: 0,
      examples: [],
    },
    poison: { sent: 1, acknowledged: 1, lost: 0, stored: 0 },
    ledger: { scrapes: 5, unanswered: 1, withoutLedger: 0, breaches: 0, examples: [] },
    aggregates: { views: ['v_reading_1m'], buckets: 3, different: 0, dirtyLeft: 0, examples: [] },
    generator: {
      acknowledged: 10,
      seconds: 1,
      p50Ms: 1,
      p99Ms: 1,
      maxMs: 1,
      cpuUs: 1,
      acknowledgedTotal: 10,
      unacknowledged: 0,
      connectionsLost: 0,
    },
    unrulyUnacknowledged: 0,
    spoolLeft: 0,
    ownExits: 0,
  };
}

describe('the report of chaos', () => {
  it('names each fault, how often it struck, what was acknowledged, and what could not strike', () => {
    const text = chaosText(report());
    expect(text).toMatch(/stop-database +\| +1 \| +4 \| +17 \|/);
    expect(text).toContain('NOT STRUCK: clock-back: libfaketime is not installed');
  });

  it.each<(wrong: ChaosReport) => void>([
    ({ check }) => (check.lost = 1),
    ({ check }) => (check.twice = 1),
    ({ check }) => (check.altered = 1),
    ({ poison }) => Object.assign(poison ?? {}, { lost: 1 }),
    ({ poison }) => Object.assign(poison ?? {}, { stored: 1 }),
    ({ ledger }) => Object.assign(ledger, { breaches: 1 }),
    ({ aggregates }) => Object.assign(aggregates, { different: 1 }),
    ({ aggregates }) => Object.assign(aggregates, { dirtyLeft: 1 }),
    (wrong) => (wrong.spoolLeft = 1),
  ])('is clean only when everything is: %#', (spoil) => {
    const wrong = report();
    expect(isFaultless(wrong)).toBe(true);
    spoil(wrong);
    expect(isFaultless(wrong)).toBe(false);
  });
});

describe('the metrics that chaos reads', () => {
  it('are the entries of the ledger and the gauges without labels', () => {
    expect([...readLedger(METRICS)]).toEqual([
      ['received', 12],
      ['committed', 9],
      ['in_flight', 3],
    ]);
    expect(readLedger('').size).toBe(0);
    expect(readGauge(METRICS, 'puback_spool_messages')).toBe(7);
    expect(readGauge(METRICS, 'puback_spool')).toBeNull();
  });
});

describe('the faults', () => {
  it('have names of their own, and last as long as they are told', () => {
    const faults = makeFaults({ outageMs: 60_000, spellMs: 5000 });
    expect(faults.size).toBe(17);
    expect(faults.get('stop-database')?.durationMs).toBe(60_000);
    expect(faults.get('freeze-database')?.durationMs).toBe(5000);
  });

  it('lose the answer to a COMMIT only on connections that copied rows, and so often', () => {
    const inspect = loseCommitAnswers(1);
    const link = {} as ProxiedLink;
    const other = {} as ProxiedLink;
    const ready = Buffer.from('C....COPY 1\0Z\0\0\0\x05I', 'latin1');
    const copy = Buffer.from('d....PGCOPY\n\xff\r\n\0....', 'latin1');
    expect(inspect(link, ready, 'server')).toBe(true);
    expect(inspect(link, copy, 'client')).toBe(true);
    expect(inspect(link, Buffer.from('G....'), 'server')).toBe(true);
    expect(inspect(other, ready, 'server')).toBe(true);
    expect(inspect(link, ready, 'server')).toBe(false);
    expect(inspect(link, ready, 'server')).toBe(true);
  });
});
