import type { Random } from '../random.ts';
import type { Stage } from '../stage.ts';

/** Takes a fault away again. Called once; may be called while another fault is on. */
export type Heal = () => Promise<void>;

/** A fault that strikes the program or what is around it while devices publish. */
export interface Fault {
  readonly name: string;
  /** How long it lasts before it is healed, unless it is over at once (0). */
  readonly durationMs: number;
  /** Whether it needs a database server that the run itself has started, not the embedded one. */
  readonly needsServer: boolean;
  /** True: strikes only while no other fault is on. */
  readonly standsAlone?: boolean;
  /** @returns why it cannot strike on this machine, or null. Asked before anything is started. */
  obstacle?(): Promise<string | null>;
  /** Strikes. The fault is on when the promise resolves. */
  apply(context: FaultContext): Promise<Heal>;
}

/** What a fault may touch. */
export interface FaultContext extends Stage {
  readonly random: Random;
}

/** For faults that pass by themselves. */
export function nothingToHeal(): Promise<void> {
  return Promise.resolve();
}
