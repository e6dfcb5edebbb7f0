import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import type { ApiClient, ToldCommand } from './api-client.ts';
import { WILLING_BOARD, type BoardHabits } from './simulated-downlink.ts';

/** Number of the board that the demo sends a command to. */
export const COMMANDED_BOARD = 2;
/** How long the last board of the demo sleeps. */
export const DEMO_SLEEP_S = 15;
/** How long it works on a command: longer than answers are waited for before a command is noted as sent. */
const SLEEPER_COMMAND_MS = 900;
/** From the start to the first command. */
export const COMMAND_AFTER_MS = 4000;
/** From there to the one for the board that sleeps. */
const SECOND_AFTER_MS = 3000;

const LOOK_EVERY_MS = 500;
/** What waits longer is told of as waiting. */
const WAITING_MS = 1000;
const TOLD_AT_ONCE_MAX = 5;
const LISTED_MAX = 20;
const END_STATES = new Set(['succeeded', 'failed', 'rejected', 'expired', 'cancelled', 'unknown']);

/** The boards of the demo listen, and the last of several sleeps between contacts. */
export function demoHabits(boards: number): (board: number) => BoardHabits {
  const sleeper = { ...WILLING_BOARD, sleepS: DEMO_SLEEP_S, commandMs: SLEEPER_COMMAND_MS };
  return (board) => (isSleeper(board, boards) ? sleeper : WILLING_BOARD);
}

/** Whether a board sleeps: the last one, if it is not needed for something else. */
export function isSleeper(board: number, boards: number): boolean {
  return board === boards && boards > COMMANDED_BOARD;
}

/** What the demo does with commands, and for whom it tells of them. */
export interface CommandTellerOptions {
  readonly api: ApiClient;
  /** How whoever reads it asks for the same: where, and as whom. */
  readonly curl: string;
  /** Names of the boards, the first one at 0. */
  readonly devices: readonly string[];
  readonly startMs: number;
}

/** Sends two commands, and tells on stdout of these and of all others that are sent from then on. */
export class CommandTeller {
  readonly #options: CommandTellerOptions;
  /** State that was told of last, by command. */
  readonly #told = new Map<string, 'waits' | 'ended'>();

  constructor(options: CommandTellerOptions) {
    this.#options = options;
  }

  /** Until the signal aborts. While the program does not answer, nothing is sent or told. */
  async run(interrupted: AbortSignal): Promise<void> {
    await Promise.all([this.#send(interrupted), this.#tell(interrupted)]);
  }

  async #send(interrupted: AbortSignal): Promise<void> {
    const { devices, curl } = this.#options;
    const [awake, asleep] = [devices[COMMANDED_BOARD - 1], devices.at(-1)];
    await pause(COMMAND_AFTER_MS, interrupted);
    if (interrupted.aborted || awake === undefined || asleep === undefined) return;
    await this.#make(awake, { command: 'relay', args: { on: true } });
    await pause(LOOK_EVERY_MS * 2, interrupted);
    process.stdout.write(`${hintText(curl, awake)}\n`);
    await pause(SECOND_AFTER_MS, interrupted);
    if (interrupted.aborted || !isSleeper(devices.length, devices.length)) return;
    await this.#make(asleep, { command: 'level', args: { percent: 40 } });
  }

  async #make(device: string, command: object): Promise<void> {
    try {
      await this.#options.api.sendCommand(device, command);
    } catch (error) {
      if (!(error instanceof ToolFailedError)) throw error;
    }
  }

  async #tell(interrupted: AbortSignal): Promise<void> {
    while (!interrupted.aborted) {
      try {
        for (const text of await this.#news()) process.stdout.write(`${text}\n`);
      } catch (error) {
        if (!(error instanceof ToolFailedError)) throw error;
      }
      await pause(LOOK_EVERY_MS, interrupted);
    }
  }

  async #news(): Promise<string[]> {
    const { api, startMs } = this.#options;
    const listed = await api.listCommands(LISTED_MAX);
    const texts: string[] = [];
    for (const command of listed.toReversed()) {
      const createdMs = Date.parse(command.createdAt);
      const news = END_STATES.has(command.state) ? 'ended' : 'waits';
      const isFresh = createdMs >= startMs && this.#told.get(command.id) !== news;
      if (!isFresh || (news === 'waits' && Date.now() - createdMs < WAITING_MS)) continue;
      this.#told.set(command.id, news);
      if (texts.length >= TOLD_AT_ONCE_MAX) continue;
      texts.push(commandText(news === 'ended' ? await api.getCommand(command.id) : command));
    }
    return texts;
  }
}

/** A command for people: what, to whom, how it stands, and the time of each step from the first one. */
export function commandText(command: ToldCommand): string {
  const { device, state, events = [], origin } = command;
  const what = `${command.command} ${JSON.stringify(command.args)} to ${device}`;
  const by = origin === 'rule' ? ', sent by a rule' : '';
  if (!END_STATES.has(state)) {
    const clock = command.createdAt.slice(11, 19);
    return `${clock}  COMMAND ${what}${by}: ${state}, and waits for the board\n`;
  }
  const [first] = events;
  const firstMs = Date.parse(first?.time ?? command.createdAt);
  const steps = events.map((step) => `${step.state} ${spanText(Date.parse(step.time) - firstMs)}`);
  const outcome = command.result ?? command.code;
  const answer = outcome === null ? '' : ` ${JSON.stringify(outcome)}`;
  const clock = (events.at(-1)?.time ?? command.createdAt).slice(11, 19);
  return [
    `${clock}  COMMAND ${what}${by}: ${state}${answer}`,
    `          ${steps.join(' → ')}`,
    '',
  ].join('\n');
}

function hintText(curl: string, device: string): string {
  return [
    '          Send a command yourself:',
    `          ${curl}"/devices/${device}/commands?wait=5s" \\\n          -H 'Content-Type: application/json' -d '{"command":"relay","args":{"on":false}}'`,
    '',
  ].join('\n');
}

function spanText(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** Waits, and returns early when the signal aborts. */
async function pause(ms: number, interrupted: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal: interrupted }).catch((error: unknown) => {
    if (!interrupted.aborted) throw error;
  });
}
