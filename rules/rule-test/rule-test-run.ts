import type { AlertPhase } from '../alert/alert.ts';
import { compileRule } from '../compile.ts';
import type { CompiledRule, FleetValues } from '../compiled-rule.ts';
import { DeviceEvaluation } from '../evaluation/device-evaluation.ts';
import { compareTransitions, seconds, type RuleTestRow } from './rule-test-transitions.ts';
import type { ExpectedState, SeriesValue } from './rule-test-notation.ts';
import { stepCountOf, type RuleTest } from './rule-test-schema.ts';
import { severityOf, type Level, type Severity } from '../severity.ts';
import type { Transition } from '../alert/transition.ts';

const WINDOW_SAMPLES_MAX = 4096;
const PHASES: readonly AlertPhase[] = ['inactive', 'pending', 'firing'];

/** What became of one test of one rule. */
export interface RuleTestResult {
  readonly test: string;
  readonly rule: string;
  /** Every place that was looked at, in order of time; then the transitions. */
  readonly rows: readonly RuleTestRow[];
  readonly isPassed: boolean;
}

interface Seen {
  readonly phase: AlertPhase;
  readonly severity: Severity | null;
}

/** Something that comes in, in order of arrival. */
interface Input {
  readonly arrivesMicros: number;
  readonly text: string;
  readonly apply: () => void;
}

/**
 * Runs a test: everything comes in at its time, timers that are due by then are taken, and the states are
 * held against those expected. @returns a result for each rule that the test expects something of.
 */
export function runRuleTest(test: RuleTest): RuleTestResult[] {
  const run = new RuleTestRun(test);
  run.go();
  return run.results();
}

class RuleTestRun {
  readonly #test: RuleTest;
  readonly #rules: readonly CompiledRule[];
  readonly #evaluation: DeviceEvaluation;
  readonly #transitions: Transition[] = [];
  readonly #rows = new Map<string, RuleTestRow[]>();
  readonly #inputs = new Map<number, string>();
  #step = 0;

  constructor(test: RuleTest) {
    this.#test = test;
    this.#rules = test.rules.map((definition, index) =>
      compileRule(
        {
          ruleId: index + 1,
          publicId: '',
          organizationId: 1,
          version: 1,
          mode: definition.mode === 'shadow' ? 'shadow' : 'enabled',
          definition,
        },
        { windowSamplesMax: WINDOW_SAMPLES_MAX },
      ),
    );
    const device = { deviceId: 1, organizationId: 1, slug: test.deviceName, tags: [], type: null };
    this.#evaluation = new DeviceEvaluation(device, this.#rules, {
      emit: (transition) => this.#transitions.push(transition),
      fleet: this.#fleet(),
    });
  }

  go(): void {
    const { startMicros, intervalMicros, states } = this.#test;
    this.#evaluation.setConnection(this.#test.connection?.[0] ?? 'online', startMicros);
    for (const { ruleId, noData } of this.#rules) {
      if (noData !== null) this.#evaluation.setSilence(ruleId, null, startMicros);
    }
    const inputs = this.#inputsInOrder();
    const stepsMax = Math.max(
      stepCountOf(this.#test),
      ...[...this.#test.expected.values()].map((list) => list.length),
    );
    const steps = Array.from({ length: stepsMax }, (_, index) => index * intervalMicros);
    const times = new Set([
      ...steps,
      ...inputs.map(({ arrivesMicros }) => arrivesMicros),
      ...states.map(({ at }) => at),
    ]);
    let next = 0;
    for (const atMicros of [...times].toSorted((one, other) => one - other)) {
      this.#evaluation.takeTimers(startMicros + atMicros);
      const texts: string[] = [];
      for (; inputs[next]?.arrivesMicros === atMicros; next += 1) {
        inputs[next]?.apply();
        texts.push(inputs[next]?.text ?? '');
      }
      this.#inputs.set(atMicros, texts.filter((text) => text !== '').join(' '));
      // What is due at this very time has waited for what comes at it.
      this.#evaluation.takeTimers(startMicros + atMicros + 1);
      this.#look(atMicros);
    }
  }

  results(): RuleTestResult[] {
    this.#compareTransitions();
    return [...this.#rows].map(([rule, rows]) => ({
      test: this.#test.name,
      rule,
      rows,
      isPassed: rows.every(({ isRight }) => isRight),
    }));
  }

  #inputsInOrder(): Input[] {
    const { intervalMicros, events, readings } = this.#test;
    const steps = Array.from({ length: stepCountOf(this.#test) }, (_, step): Input => ({
      arrivesMicros: step * intervalMicros,
      text: this.#textOfStep(step),
      apply: () => {
        this.#applyStep(step);
      },
    }));
    const late = readings.map(({ at, arrives, values }): Input => ({
      arrivesMicros: arrives ?? at,
      text: `${textOf(Object.entries(values))}${arrives === undefined ? '' : ` of ${seconds(at)}`}`,
      apply: () => {
        this.#sample(at, Object.entries(values));
      },
    }));
    const happened = events.map(({ at, arrives, name, content }): Input => ({
      arrivesMicros: arrives ?? at,
      text: `event ${name}`,
      apply: () => {
        this.#evaluation.takeEvent({ name, content, timeMicros: this.#test.startMicros + at });
      },
    }));
    // The sort is stable: of one time, steps are first.
    return [...steps, ...late, ...happened].toSorted(
      (one, other) => one.arrivesMicros - other.arrivesMicros,
    );
  }

  #applyStep(step: number): void {
    const { series, connection, silence, startMicros, intervalMicros } = this.#test;
    const atMicros = step * intervalMicros;
    this.#step = step;
    const nextConnection = connection?.[step] ?? null;
    if (nextConnection !== null) {
      this.#evaluation.setConnection(nextConnection, startMicros + atMicros);
    }
    const nextSilence = silence?.[step] ?? null;
    for (const { ruleId, noData } of this.#rules) {
      if (noData === null || nextSilence === null) continue;
      const isAsked = nextSilence !== 'none' && noData.kinds.includes(nextSilence);
      this.#evaluation.setSilence(ruleId, isAsked ? nextSilence : null, startMicros + atMicros);
    }
    this.#sample(
      atMicros,
      Object.entries(series).map(([metric, values]) => [metric, values[step] ?? null]),
    );
  }

  #sample(atMicros: number, values: readonly (readonly [string, SeriesValue])[]): void {
    let isAny = false;
    for (const [metric, value] of values) {
      const handle = this.#evaluation.series(metric);
      if (handle === null || value === null) continue;
      isAny = true;
      const text = typeof value === 'string' ? value : null;
      this.#evaluation.reading(handle, text === null ? Number(value) : NaN, text);
    }
    if (isAny) this.#evaluation.sampleEnd(this.#test.startMicros + atMicros);
  }

  #look(atMicros: number): void {
    const { intervalMicros, expected, states, rules } = this.#test;
    const step = atMicros / intervalMicros;
    const only = rules[0]?.name ?? '';
    for (const [rule, list] of expected) this.#compare(rule, atMicros, list[step] ?? null, null);
    for (const { at, rule, group, state } of states) {
      if (at === atMicros) this.#compare(rule ?? only, atMicros, state, group ?? null);
    }
  }

  #compare(rule: string, atMicros: number, expected: ExpectedState, group: string | null): void {
    const actual = this.#stateOf(rule, group);
    const isRight =
      expected === null ||
      (expected.phase === actual.phase &&
        (expected.severity === null || expected.severity === actual.severity));
    const place = group === null ? '' : ` {${group}}`;
    this.#addRow(rule, {
      atMicros,
      input: `${this.#inputs.get(atMicros) ?? ''}${place}`,
      expected: expected === null ? '_' : shownState(expected),
      actual: shownState(
        expected !== null && expected.severity === null && isRight
          ? { phase: actual.phase, severity: null }
          : actual,
      ),
      isRight,
    });
  }

  /** Of several groups the worst. */
  #stateOf(rule: string, group: string | null): Seen {
    const ruleId = this.#rules.find(({ name }) => name === rule)?.ruleId;
    let worst: Seen = { phase: 'inactive', severity: null };
    let worstLevel: Level = 0;
    for (const open of this.#evaluation.openAlerts) {
      if (open.ruleId !== ruleId || (group !== null && open.groupKey !== group)) continue;
      const { phase, level } = open.state;
      const rank = PHASES.indexOf(phase) - PHASES.indexOf(worst.phase);
      if (rank < 0 || (rank === 0 && level <= worstLevel)) continue;
      worst = { phase, severity: severityOf(level) };
      worstLevel = level;
    }
    return worst;
  }

  /** All transitions of the test are to be expected, once it expects any. */
  #compareTransitions(): void {
    if (this.#test.transitions === undefined) return;
    for (const { name, ruleId } of this.#rules) {
      const made = this.#transitions.filter((transition) => transition.ruleId === ruleId);
      this.#rows.set(name, this.#rows.get(name) ?? []);
      for (const row of compareTransitions(this.#test, name, made)) this.#addRow(name, row);
    }
  }

  #addRow(rule: string, row: RuleTestRow): void {
    const rows = this.#rows.get(rule) ?? [];
    rows.push(row);
    this.#rows.set(rule, rows);
  }

  #textOfStep(step: number): string {
    const { series, connection, silence, fleet } = this.#test;
    const pairs: [string, SeriesValue][] = Object.entries(series).map(([metric, values]) => [
      metric,
      values[step] ?? null,
    ]);
    for (const { fn, tag, metric, values } of fleet) {
      pairs.push([`${fn}(${metric}, ${tag})`, values[step] ?? null]);
    }
    pairs.push(['connection', connection?.[step] ?? null], ['silence', silence?.[step] ?? null]);
    return textOf(pairs);
  }

  #fleet(): FleetValues {
    return {
      value: (fn, tag, metric) => {
        const known = this.#test.fleet.find(
          (one) => one.fn === fn && one.tag === tag && one.metric === metric,
        );
        const values = known?.values.slice(0, this.#step + 1) ?? [];
        const newest = values.findLast((value) => typeof value === 'number');
        return typeof newest === 'number' ? newest : NaN;
      },
    };
  }
}

function shownState({ phase, severity }: Seen): string {
  return severity === null ? phase : `${phase}:${severity}`;
}

function textOf(pairs: readonly (readonly [string, SeriesValue])[]): string {
  return pairs
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}=${JSON.stringify(value)}`)
    .join(' ');
}
