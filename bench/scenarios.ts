import { rowsPerMessage, type PayloadKind } from './publish-ring.ts';
import type { CeilingShape } from './copy-ceiling.ts';

/** One load that the bench measures, and what it is to reach. */
export interface Scenario {
  id: string;
  title: string;
  connections: number;
  /** Messages in flight on each connection. */
  window: number;
  payload: PayloadKind;
  rowsPerMessage: number;
  ceiling: CeilingShape;
  /** Most CPU of program and database together for a message, or least share of the ceiling. */
  goal: { cpuUsMax: number } | { ceilingShareMin: number };
}

/** The loads, in the order of the table. */
export const scenarios: readonly Scenario[] = [
  {
    id: 'a',
    title: '50 connections, window 20, one metric',
    connections: 50,
    window: 20,
    payload: 'one',
    rowsPerMessage: rowsPerMessage.one,
    ceiling: { devices: 50, metrics: 1, samples: 1 },
    goal: { cpuUsMax: 40 },
  },
  {
    id: 'b',
    title: '1 000 connections, window 1, one metric',
    connections: 1000,
    window: 1,
    payload: 'one',
    rowsPerMessage: rowsPerMessage.one,
    ceiling: { devices: 1000, metrics: 1, samples: 1 },
    goal: { cpuUsMax: 75 },
  },
  {
    id: 'c',
    title: '50 connections, window 4, series of 20 samples of 3 metrics',
    connections: 50,
    window: 4,
    payload: 'series',
    rowsPerMessage: rowsPerMessage.series,
    ceiling: { devices: 50, metrics: 3, samples: 20 },
    goal: { ceilingShareMin: 0.3 },
  },
];
