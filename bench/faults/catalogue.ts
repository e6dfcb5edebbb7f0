import { cutClients } from './cut-clients.ts';
import type { Fault } from './fault.ts';
import { fillSpoolDisk } from './fill-spool-disk.ts';
import { freezeDatabase } from './freeze-database.ts';
import { killBoth, killDatabase } from './kill-database.ts';
import { killProgram, restartProgram } from './kill-program.ts';
import { loseCommitAnswer } from './lose-commit-answer.ts';
import { refuseRow } from './refuse-row.ts';
import { slowDatabase } from './slow-database.ts';
import { stepClock } from './step-clock.ts';
import { stopDatabase } from './stop-database.ts';
import { takeConnections } from './take-connections.ts';
import { unrulyDevices } from './unruly-devices.ts';

/** How long faults last. */
export interface FaultTimes {
  /** The database stopped for a while. */
  readonly outageMs: number;
  /** Every other fault that lasts. */
  readonly spellMs: number;
}

/** Every fault there is, by name. */
export function makeFaults({ outageMs, spellMs }: FaultTimes): ReadonlyMap<string, Fault> {
  const faults = [
    killProgram,
    restartProgram,
    killDatabase,
    killBoth,
    stopDatabase(outageMs),
    freezeDatabase(spellMs),
    slowDatabase(spellMs),
    loseCommitAnswer(spellMs),
    takeConnections(spellMs),
    refuseRow,
    fillSpoolDisk(spellMs),
    stepClock('ahead', spellMs),
    stepClock('back', spellMs),
    unrulyDevices('duplicate', spellMs),
    unrulyDevices('reorder', spellMs),
    unrulyDevices('replay', spellMs),
    cutClients,
  ];
  return new Map(faults.map((fault) => [fault.name, fault]));
}
