import fc from 'fast-check';
import type { Ack } from '../../firmware-protocol/ack.ts';
import type { SlotCommand } from '../../firmware-protocol/command.ts';

/** The program as the model of the slot protocol drives it; commands are known by their number. */
export interface ModelProgram {
  nowMs: number;
  enqueue(number: number, isLong: boolean): Promise<void>;
  cancel(number: number): Promise<void>;
  acknowledge(ack: Ack): Promise<void>;
  greeted(hello: { boot: number; last: number }): Promise<void>;
  endOverdue(): Promise<void>;
  /** Ends what runs and of which nothing was heard: its last answer was lost. */
  endSilent(): Promise<void>;
  /** What the broker has retained. */
  slot(): SlotCommand | null;
  /** From here on what is committed is not published any more: the program is about to crash. */
  hold(): void;
  /** The program is killed and starts again. */
  crash(): Promise<void>;
  /** Keeps a backup of the table. */
  backUp(): Promise<void>;
  /** Puts the backup back. */
  restore(): Promise<void>;
  /** State of each command that the table knows. */
  states(): Promise<ReadonlyMap<number, string>>;
}

/** What a run of the model has shown. */
export interface ModelVerdict {
  readonly commands: number;
  /** Executed more than once. */
  readonly twice: number;
  /** The same, though the table had not forgotten that they ran. */
  readonly twiceUnexcused: number;
  /** Reported succeeded and never executed. */
  readonly falselyDone: number;
  /** Executed before one that was asked for earlier. */
  readonly disordered: number;
  /** Not ended when everything had worked again for long enough. */
  readonly stuck: number;
  readonly unknown: number;
}

/** A step of the world. */
export type ModelStep =
  | 'enqueue'
  | 'long'
  | 'cancel'
  | 'deliver'
  | 'think'
  | 'answer'
  | 'loseAnswer'
  | 'repeatAnswer'
  | 'crashDevice'
  | 'hold'
  | 'crashProgram'
  | 'tick'
  | 'endOverdue'
  | 'backUp'
  | 'restore';

const WEIGHTS: Readonly<Record<ModelStep, number>> = {
  enqueue: 8,
  long: 2,
  cancel: 1,
  deliver: 14,
  think: 24,
  answer: 14,
  loseAnswer: 3,
  repeatAnswer: 2,
  crashDevice: 3,
  hold: 1,
  crashProgram: 2,
  tick: 4,
  endOverdue: 2,
  backUp: 0,
  restore: 0,
};

/** Sequences of steps, with restores of old backups or without. */
export function modelSteps(stepsMax: number, withRestore: boolean): fc.Arbitrary<ModelStep[]> {
  const weights = { ...WEIGHTS, ...(withRestore ? { backUp: 1, restore: 1 } : {}) };
  const arms = Object.entries(weights)
    .filter(([, weight]) => weight > 0)
    .map(([step, weight]) => ({ arbitrary: fc.constant(step as ModelStep), weight }));
  return fc.array(fc.oneof(...arms), { minLength: stepsMax / 2, maxLength: stepsMax });
}

/** Whether a device notes that it takes a command before it executes it, or behind that. */
export type SavePolicy = 'before' | 'after';

interface Job {
  readonly command: SlotCommand;
  readonly todo: (() => void)[];
}

/** A device by the rule of the protocol; each thing that it does is one step, between which it may crash. */
class ModelDevice {
  readonly #policy: SavePolicy;
  /** In flash. */
  #last = 0;
  #status: 'ok' | 'run' | null = null;
  #boot = 1;
  /** In memory. */
  #inbox: SlotCommand[] = [];
  #job: Job | null = null;
  #finishing: (() => void)[] = [];
  /** On the way. */
  readonly answers: Ack[] = [];
  readonly executed: number[] = [];

  constructor(policy: SavePolicy) {
    this.#policy = policy;
  }

  get hello(): { boot: number; last: number } {
    return { boot: this.#boot, last: this.#last };
  }

  get isIdle(): boolean {
    return this.#inbox.length === 0 && this.#job === null && this.#finishing.length === 0;
  }

  /** Commands that it has got and not executed yet. */
  get inHand(): number[] {
    const job = this.#job === null ? [] : [this.#job.command];
    return [...this.#inbox, ...job].map(({ args }) => Number(args['number']));
  }

  receive(command: SlotCommand): void {
    if (this.#inbox.length < 3) this.#inbox.push(command);
  }

  crash(): void {
    this.#inbox = [];
    this.#job = null;
    this.#finishing = [];
    this.#boot += 1;
    if (this.#status === 'run') this.#status = null;
  }

  think(nowMs: number): void {
    const next = this.#job?.todo.shift();
    if (next !== undefined) {
      next();
      return;
    }
    this.#job = null;
    const finish = this.#finishing.shift();
    if (finish !== undefined) {
      finish();
      return;
    }
    const command = this.#inbox.shift();
    if (command !== undefined) this.#begin(command, nowMs);
  }

  #begin(command: SlotCommand, nowMs: number): void {
    const { id, exp } = command;
    if (id <= this.#last) {
      const isKnown = id === this.#last && this.#status !== null;
      this.answers.push(
        isKnown ? { id, st: this.#status ?? 'ok' } : { id, st: 'dup', last: this.#last },
      );
    } else if (exp * 1000 <= nowMs) {
      this.answers.push({ id, st: 'no', code: 'expired' });
    } else {
      this.#job = { command, todo: this.#plan(command) };
    }
  }

  #plan(command: SlotCommand): (() => void)[] {
    const { id, args } = command;
    const isLong = args['long'] === true;
    const take = (): void => {
      this.#last = id;
      this.#status = null;
    };
    const execute = (): void => {
      this.executed.push(Number(args['number']));
    };
    const keep = (): void => {
      this.#status = isLong ? 'run' : 'ok';
    };
    const say = (): void => {
      this.answers.push({ id, st: isLong ? 'run' : 'ok' });
      if (isLong) this.#finishing.push(() => this.#finish(id));
    };
    return this.#policy === 'before'
      ? [take, execute, keep, say]
      : [
          execute,
          () => {
            take();
            keep();
          },
          say,
        ];
  }

  #finish(id: number): void {
    if (this.#last === id) this.#status = 'ok';
    this.answers.push({ id, st: 'ok' });
  }
}

const QUIET_ROUNDS_MAX = 400;
const ENDED = new Set(['succeeded', 'failed', 'rejected', 'expired', 'cancelled', 'unknown']);

/** Lets a world take its steps, then lets everything work for as long as it needs, and judges. */
export async function runModel(
  program: ModelProgram,
  steps: readonly ModelStep[],
  policy: SavePolicy,
): Promise<ModelVerdict> {
  const world = new World(program, policy);
  await program.greeted({ boot: 1, last: 0 });
  for (const step of steps) await world.take(step);
  await world.settle();
  return world.judge();
}

class World {
  readonly #program: ModelProgram;
  readonly #device: ModelDevice;
  #commands = 0;
  /** Commands that the device had got when the table was put back, and so forgot it. */
  readonly #forgotten = new Set<number>();
  #hasBackup = false;

  constructor(program: ModelProgram, policy: SavePolicy) {
    this.#program = program;
    this.#device = new ModelDevice(policy);
  }

  async take(step: ModelStep): Promise<void> {
    const [program, device] = [this.#program, this.#device];
    switch (step) {
      case 'enqueue':
      case 'long':
        return program.enqueue(this.#commands++, step === 'long');
      case 'cancel':
        return program.cancel(Math.max(this.#commands - 2, 0));
      case 'deliver':
        return this.#deliver();
      case 'think':
        return device.think(program.nowMs);
      case 'answer':
        return this.#answer();
      case 'loseAnswer':
        return void device.answers.shift();
      case 'repeatAnswer':
        return void device.answers.push(...device.answers.slice(0, 1));
      case 'crashDevice':
        return this.#crashDevice();
      case 'hold':
        return program.hold();
      case 'crashProgram':
        return program.crash();
      case 'tick':
        program.nowMs += 1500;
        return;
      case 'endOverdue':
        return program.endOverdue();
      case 'backUp':
        this.#hasBackup = true;
        return program.backUp();
      case 'restore':
        return this.#restore();
    }
  }

  async settle(): Promise<void> {
    await this.#program.crash();
    for (let round = 0; round < QUIET_ROUNDS_MAX && !(await this.#isQuiet()); round += 1) {
      if (this.#device.isIdle) {
        await this.#program.greeted(this.#device.hello);
        this.#deliver();
      }
      this.#device.think(this.#program.nowMs);
      while (this.#device.answers.length > 0) await this.#answer();
      this.#program.nowMs += 100;
      if (round % 10 === 0) await this.#program.endOverdue();
    }
    await this.#program.endSilent();
  }

  async judge(): Promise<ModelVerdict> {
    const states = await this.#program.states();
    const { executed } = this.#device;
    const times = new Map<number, number>();
    for (const number of executed) times.set(number, (times.get(number) ?? 0) + 1);
    const twice = [...times].filter(([, count]) => count > 1).map(([number]) => number);
    const firsts = [...new Set(executed)];
    const all = [...states];
    return {
      commands: this.#commands,
      twice: twice.length,
      twiceUnexcused: twice.filter((number) => !this.#forgotten.has(number)).length,
      falselyDone: all.filter(([number, state]) => state === 'succeeded' && !times.has(number))
        .length,
      disordered: firsts.filter((number, at) => number < (firsts[at - 1] ?? -1)).length,
      stuck: all.filter(([, state]) => !ENDED.has(state)).length,
      unknown: all.filter(([, state]) => state === 'unknown').length,
    };
  }

  #deliver(): void {
    const slot = this.#program.slot();
    if (slot !== null) this.#device.receive(slot);
  }

  async #answer(): Promise<void> {
    const ack = this.#device.answers.shift();
    if (ack !== undefined) await this.#program.acknowledge(ack);
  }

  async #crashDevice(): Promise<void> {
    this.#device.crash();
    await this.#program.greeted(this.#device.hello);
  }

  async #restore(): Promise<void> {
    if (!this.#hasBackup) return;
    const { executed, inHand } = this.#device;
    for (const number of [...executed, ...inHand]) this.#forgotten.add(number);
    // A restore takes its time, and the device may have been busy until it began.
    this.#program.nowMs += 60_000;
    await this.#program.restore();
    await this.#program.crash();
  }

  async #isQuiet(): Promise<boolean> {
    if (!this.#device.isIdle || this.#device.answers.length > 0) return false;
    const states = await this.#program.states();
    return [...states.values()].every((state) => ENDED.has(state) || state === 'running');
  }
}
