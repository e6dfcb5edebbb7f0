import type { FuzzResult } from './fuzz-run.ts';

/** Answers to an innocent take less, in ms, also where the machine has other work. */
const INNOCENT_MS_MAX = 5000;
/** Memory may vary by this much around what it was once the program was warm. */
const MEMORY_GROWTH_MAX = 0.25;
const MEMORY_GROWTH_MB_MAX = 60;

/** What is wrong with a run; empty when nothing is. */
export function faultsOf(result: FuzzResult): string[] {
  const { exit, innocents, left, memoryMb } = result;
  const faults: string[] = [];
  if (exit !== null) faults.push(`the program has ended: ${JSON.stringify(exit)}`);
  const { published, acknowledged, delivered } = innocents;
  if (published === 0) faults.push('the innocents did not publish');
  if (acknowledged < published) faults.push(`${published - acknowledged} PUBACKs are missing`);
  if (delivered < published) faults.push(`${published - delivered} messages are lost`);
  if (innocents.slowestPubackMs > INNOCENT_MS_MAX) {
    faults.push(`an innocent waited ${Math.round(innocents.slowestPubackMs)} ms for its PUBACK`);
  }
  if (innocents.slowestDeliveryMs > INNOCENT_MS_MAX) {
    faults.push(`an innocent waited ${Math.round(innocents.slowestDeliveryMs)} ms for a message`);
  }
  faults.push(...innocents.faults);
  for (const [name, value] of Object.entries(left)) faults.push(`${name} is ${value} at the end`);
  const bound = Math.max(
    memoryMb.early * (1 + MEMORY_GROWTH_MAX),
    memoryMb.early + MEMORY_GROWTH_MB_MAX,
  );
  if (!(memoryMb.late <= bound)) {
    faults.push(
      `memory rose from ${Math.round(memoryMb.early)} to ${Math.round(memoryMb.late)} MB`,
    );
  }
  return faults;
}
