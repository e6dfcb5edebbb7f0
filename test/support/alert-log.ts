import { pino } from 'pino';
import { Registry } from 'prom-client';
import type { Database } from '../../drizzle/database.ts';
import { INACTIVE, type AlertState } from '../../rules/alert/alert.ts';
import { alertIdOf } from '../../rules/alert/alert-id.ts';
import { AlertLogMetrics } from '../../rules/log/alert-log-metrics.ts';
import { AlertLog } from '../../rules/log/alert-log.ts';
import type { Transition } from '../../rules/alert/transition.ts';

/** 2026-11-21 08:00:00Z in microseconds since 1970. */
export const T0 = Date.parse('2026-11-21T08:00:00Z') * 1000;
/** A second in microseconds. */
export const S = 1_000_000;

/** Whose alert, and what of a transition is not as {@link stepsOf} has it. */
export type StepsOf = Pick<Transition, 'organizationId' | 'deviceId'> & Partial<Transition>;

/** The steps of an alert that becomes pending at a time, fires 2 s later and ends after 10 s. */
export function stepsOf(
  of: StepsOf,
  activeMicros = T0,
): { pending: Transition; firing: Transition; resolved: Transition; cleared: Transition } {
  const pending: AlertState = { ...INACTIVE, phase: 'pending', level: 4, activeAt: activeMicros };
  const firedAt = activeMicros + 2 * S;
  const firing: AlertState = { ...pending, phase: 'firing', firedAt };
  const ruleId = of.ruleId ?? 1;
  const groupKey = of.groupKey ?? '';
  const step = (over: Partial<Transition>): Transition => ({
    alertId: alertIdOf(ruleId, of.deviceId, groupKey, activeMicros),
    sequence: 0,
    ruleId,
    ruleVersion: 1,
    groupKey,
    atMicros: activeMicros,
    from: 'inactive',
    to: 'pending',
    severity: 'high',
    reason: 'condition_holds',
    operands: [
      { name: 'temp', value: 81.5, timeMicros: activeMicros, against: '> 80', holds: true },
    ],
    value: 81.5,
    state: pending,
    occurrences: 1,
    labels: { hall: '3' },
    annotations: { summary: 'd is at 81.5 °C' },
    isShadow: false,
    isHistorical: false,
    ...over,
    ...of,
  });
  const ended = { from: 'firing', to: 'inactive', state: INACTIVE } as const;
  return {
    pending: step({}),
    firing: step({
      sequence: 1,
      atMicros: firedAt,
      from: 'pending',
      to: 'firing',
      reason: 'for_elapsed',
      state: firing,
      value: 83,
    }),
    resolved: step({
      ...ended,
      sequence: 2,
      atMicros: activeMicros + 10 * S,
      reason: 'condition_cleared',
      value: 70,
    }),
    cleared: step({
      ...ended,
      sequence: 1,
      from: 'pending',
      atMicros: activeMicros + S,
      reason: 'condition_cleared',
    }),
  };
}

/** An alert log on a test database, with what it has said. */
export interface TestAlertLog {
  readonly alertLog: AlertLog;
  /** `msg` of what it logged. */
  readonly said: string[];
  readonly count: (name: string, reason?: string) => Promise<number>;
}

/** Makes one. Not started: the checkpoint moves after `start()`, and at the end. */
export function createTestAlertLog(
  { pool }: Pick<Database, 'pool'>,
  limits: { queueMax: number } = { queueMax: 1000 },
): TestAlertLog {
  const registry = new Registry();
  const said: string[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line: string) => said.push((JSON.parse(line) as { msg: string }).msg) },
  );
  const metrics = new AlertLogMetrics(registry);
  const alertLog = new AlertLog({ pool, limits, metrics, log });
  metrics.watch(registry, limits.queueMax, alertLog);
  return {
    alertLog,
    said,
    async count(name, reason) {
      const metric = await registry.getSingleMetric(name)?.get();
      const values = metric?.values as { value: number; labels: { reason?: string } }[];
      return values.find(({ labels }) => labels.reason === reason)?.value ?? 0;
    },
  };
}
