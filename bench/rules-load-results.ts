import { formatCount, formatMs, formatTable } from './figures.ts';
import type { MachineDescription } from './results.ts';
import type { WebhookTimes } from './webhook-probe.ts';

/** What rules cost while readings are stored. Rates in messages a second. */
export interface RulesLoadResult {
  readonly rules: number;
  /** That the rules are shared out among; one of them is sent. */
  readonly metrics: number;
  /** Of each turn. */
  readonly without: readonly number[];
  readonly withRules: readonly number[];
  readonly offeredPerS: number;
  readonly webhook: WebhookTimes;
}

const LOSS_MAX = 0.15;
const WEBHOOK_P99_MS = 250;

/** Whether rules cost no more than wanted, and webhooks leave in time. */
export function areRuleGoalsMet({ without, withRules, webhook }: RulesLoadResult): boolean {
  const isQuick = webhook.missing === 0 && webhook.p99Ms <= WEBHOOK_P99_MS;
  return lossOf(without, withRules) < LOSS_MAX && isQuick;
}

/** The section of bench/RESULTS.md, with its heading. */
export function rulesLoadSection(
  machine: MachineDescription,
  seconds: { readonly warmupS: number; readonly measuredS: number },
  result: RulesLoadResult,
): string {
  const { rules, metrics, without, withRules, offeredPerS, webhook } = result;
  const loss = lossOf(without, withRules);
  const share = `${(loss * 100).toFixed(1)} %`;
  const isInTime = webhook.missing === 0 && webhook.p99Ms <= WEBHOOK_P99_MS;
  return `## Alert rules

Made by \`npm run bench:rules-load\`: load (a) without and with ${formatCount(rules)} rules in scope of every device, in
turns. They are shared out among ${metrics} metrics: a reading meets ${rules / metrics} of them, thresholds with hysteresis and
\`for\`. Then, at half of the rate, ${formatCount(webhook.count)} readings that make a rule fire, of devices that
have sent before, from the write of the reading to the arrival of the webhook's request.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}
- ${seconds.warmupS} s of warm-up, ${seconds.measuredS} s measured

${formatTable(
  ['turn', 'messages/s without', 'with rules'],
  without.map((rate, turn) => [
    String(turn + 1),
    formatCount(rate),
    formatCount(withRules[turn] ?? NaN),
  ]),
)}

${formatTable(
  ['offered/s', 'alerts', 'reading to webhook p50', 'p99', 'max', 'missing'],
  [
    [
      formatCount(offeredPerS),
      formatCount(webhook.count),
      formatMs(webhook.p50Ms),
      formatMs(webhook.p99Ms),
      formatMs(webhook.maxMs),
      String(webhook.missing),
    ],
  ],
)}

- ${formatCount(rules)} rules: ${share} fewer messages a second (median of the turns), less than 15 % wanted: ${met(loss < LOSS_MAX)}
- reading to webhook: p99 ${formatMs(webhook.p99Ms)}, at most ${WEBHOOK_P99_MS} ms wanted: ${met(isInTime)}`;
}

/** By the median of the turns. */
function lossOf(without: readonly number[], withRules: readonly number[]): number {
  return 1 - medianOf(withRules) / medianOf(without);
}

function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function met(isMet: boolean): string {
  return isMet ? 'met' : 'NOT MET';
}
