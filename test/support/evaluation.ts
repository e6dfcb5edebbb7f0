import { compileRule } from '../../rules/compile.ts';
import type { CompiledRule } from '../../rules/compiled-rule.ts';
import {
  DeviceEvaluation,
  type EvaluationParts,
} from '../../rules/evaluation/device-evaluation.ts';
import type { LoadedDevice, RuleDevice } from '../../rules/evaluation/device-load.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import type { Transition } from '../../rules/alert/transition.ts';

/** Keys of a rule, where a test cares. */
export interface RuleKeys {
  readonly ruleId?: number;
  readonly version?: number;
  readonly organizationId?: number;
  readonly mode?: 'enabled' | 'shadow';
}

/** A rule as the API has it, compiled: `temp` above 80 unless the test says otherwise. */
export function ruleOf(json: Record<string, unknown> = {}, keys: RuleKeys = {}): CompiledRule {
  const { ruleId = 1, version = 1, organizationId = 1, mode = 'enabled' } = keys;
  const definition = parseRule({
    name: `rule ${ruleId}`,
    severity: 'high',
    when: { metric: 'temp', op: '>', value: 80 },
    ...json,
  });
  return compileRule(
    { ruleId, publicId: `rule-${ruleId}`, organizationId, version, mode, definition },
    { windowSamplesMax: 100 },
  );
}

/** The device of most tests. */
export const DEVICE: RuleDevice = {
  deviceId: 7,
  organizationId: 1,
  slug: 'boiler',
  tags: ['hall-1'],
  type: 'heater',
};

/** What is known of {@link DEVICE} when nothing is. */
export function loadedOf(loaded: Partial<LoadedDevice> = {}): LoadedDevice {
  return {
    device: DEVICE,
    connection: 'online',
    connectionMicros: 0,
    open: [],
    history: [],
    catchUpFromMicros: Infinity,
    settled: [],
    ...loaded,
  };
}

/** Readings of one sample by metric. */
export type SampleValues = Readonly<Record<string, number | string>>;

/** The rules of one device under test. Times in seconds. */
export class EvaluatedDevice {
  readonly evaluation: DeviceEvaluation;
  readonly transitions: Transition[] = [];

  constructor(rules: readonly CompiledRule[], parts: Partial<EvaluationParts> = {}) {
    this.evaluation = new DeviceEvaluation(DEVICE, rules, {
      emit: (transition) => this.transitions.push(transition),
      ...parts,
    });
  }

  /** What happened so far: rule, step and time in seconds. */
  get steps(): string[] {
    return this.transitions.map(stepOf);
  }

  sample(atS: number, values: SampleValues): this {
    for (const [metric, value] of Object.entries(values)) {
      const handle = this.evaluation.series(metric);
      if (handle === null) continue;
      if (typeof value === 'string') this.evaluation.reading(handle, NaN, value);
      else this.evaluation.reading(handle, value, null);
    }
    this.evaluation.sampleEnd(atS * 1_000_000);
    return this;
  }

  event(atS: number, name: string, content: unknown = null): this {
    this.evaluation.takeEvent({ name, content, timeMicros: atS * 1_000_000 });
    return this;
  }

  timers(untilS: number): this {
    this.evaluation.takeTimers(untilS * 1_000_000);
    return this;
  }
}

/** A step in short: `1 pending → firing at 10`. */
export function stepOf({ ruleId, groupKey, from, to, atMicros }: Transition): string {
  const group = groupKey === '' ? '' : ` ${groupKey}`;
  return `${ruleId}${group} ${from} → ${to} at ${atMicros / 1_000_000}`;
}
