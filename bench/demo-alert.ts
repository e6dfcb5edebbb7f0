import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import type { ApiClient, ExplainedAlert } from './api-client.ts';
import { sensorReading, type SensorReading } from './sensor-curves.ts';

/** The rule of the demo. A board that is not heated stays below 35 °C. */
export const DEMO_RULE = {
  name: 'demo board too hot',
  description: 'Made by npm run demo, which heats demo-001 every three minutes.',
  severity: 'high',
  scope: { tags: ['demo'] },
  when: { metric: 'temp', op: '>', value: 60, clear: 50 },
  for: '5s',
  actions: [
    { on: 'firing', command: 'fan', args: { on: true }, replace: 'fan' },
    { on: 'resolved', command: 'fan', args: { on: false }, replace: 'fan' },
  ],
  annotations: { summary: '{{device}} is at {{value}} °C' },
} as const;

/** Number of the board that is heated. */
export const HEATED_BOARD = 1;
/** From the start to the first time that it is heated. */
export const HEAT_AFTER_MS = 15_000;
const HEAT_EVERY_MS = 180_000;
const HEAT_RISE_MS = 5000;
const HEAT_HOLD_MS = 20_000;
const HEAT_DEGREES = 55;

const LOOK_EVERY_MS = 1000;

/** Degrees that the heated board is warmer, so long after the start of the demo. */
export function heatAt(elapsedMs: number): number {
  if (elapsedMs < HEAT_AFTER_MS) return 0;
  const intoMs = (elapsedMs - HEAT_AFTER_MS) % HEAT_EVERY_MS;
  const leftMs = 2 * HEAT_RISE_MS + HEAT_HOLD_MS - intoMs;
  return HEAT_DEGREES * Math.max(0, Math.min(1, intoMs / HEAT_RISE_MS, leftMs / HEAT_RISE_MS));
}

/** What the boards of the demo measure: {@link sensorReading}, and one of them gets too hot. */
export function demoReadings(startMs: number): (board: number, timeMs: number) => SensorReading {
  return (board, timeMs) => {
    const reading = sensorReading(board, timeMs);
    if (board !== HEATED_BOARD) return reading;
    const temp = Math.round((reading.temp + heatAt(timeMs - startMs)) * 100) / 100;
    return { ...reading, temp };
  };
}

/** Tells on stdout of each step of the alerts of {@link DEMO_RULE} that begin from now on. */
export class AlertTeller {
  readonly #api: ApiClient;
  /** How whoever reads it asks for the same: where, and as whom. */
  readonly #curl: string;
  readonly #fromMs: number;
  /** Steps that were told of, by alert. */
  readonly #told = new Map<string, number>();

  constructor(api: ApiClient, curl: string, fromMs: number) {
    this.#api = api;
    this.#curl = curl;
    this.#fromMs = fromMs;
  }

  /** Looks once a second until the signal aborts. While the program does not answer, nothing is told. */
  async run(interrupted: AbortSignal): Promise<void> {
    while (!interrupted.aborted) {
      try {
        for (const step of await this.#newSteps()) process.stdout.write(`${step}\n`);
      } catch (error) {
        if (!(error instanceof ToolFailedError)) throw error;
      }
      await delay(LOOK_EVERY_MS, undefined, { signal: interrupted }).catch(() => undefined);
    }
  }

  async #newSteps(): Promise<string[]> {
    const texts: string[] = [];
    for (const { id } of await this.#api.alertsOf(DEMO_RULE.name, this.#fromMs)) {
      const alert = await this.#api.explain(id);
      const told = this.#told.get(id) ?? -1;
      const fresh = alert.transitions.filter(({ sequence }) => sequence > told);
      texts.push(...fresh.map((step) => stepText(alert, step, this.#curl)));
      this.#told.set(id, Math.max(told, ...fresh.map(({ sequence }) => sequence)));
    }
    return texts;
  }
}

/** A step of an alert for people, with what to do to see more when it fires. */
export function stepText(
  { alertId, rule, device }: Pick<ExplainedAlert, 'alertId' | 'rule' | 'device'>,
  { at, from, to, words, operands }: ExplainedAlert['transitions'][number],
  curl: string,
): string {
  const value = operands[0]?.value ?? null;
  const state = to === 'inactive' ? (from === 'firing' ? 'resolved' : 'no longer pending') : to;
  const lines = [
    '',
    `${at.slice(11, 19)}  ALERT ${state}: ${rule}, ${device}${value === null ? '' : `, temp ${value}`}`,
    `          ${words}`,
  ];
  if (to === 'firing' && from !== 'firing') {
    lines.push('          Look at it:', `          ${curl}/alerts/${alertId}/explain`);
  }
  return [...lines, ''].join('\n');
}
