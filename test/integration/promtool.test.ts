import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { INACTIVE, stepAlert, type AlertState } from '../../rules/alert/alert.ts';
import { compileRule } from '../../rules/compile.ts';
import { DeviceEvaluation } from '../../rules/evaluation/device-evaluation.ts';
import { formatDuration } from '../../duration.ts';
import { parseRule } from '../../rules/rule-schema.ts';
import { severityOf } from '../../rules/severity.ts';
import { hasProgram, run } from '../support/programs.ts';

const hasPromtool = hasProgram('promtool', 'alerts held against those of Prometheus');
const SECOND = 1_000_000;
const START = 1_767_225_600_000_000;
const STEPS = 48;
const THRESHOLDS = [80, 90, 100] as const;
const SEVERITIES = ['low', 'high', 'critical'] as const;

/** Of the alerts of each case the one that people see in ours: the worst that fires, or what is pending. */
const WORST_OF_EACH = [
  'ALERTS{alertstate="firing",level="2"}',
  'ALERTS{alertstate="firing",level="1"}',
  'ALERTS{alertstate="firing",level="0"}',
  'ALERTS{alertstate="pending",level="0"}',
].join(' or on(case) ');

/** A threshold rule and a series; null: no reading at that second. */
interface Case {
  readonly forMicros: number;
  readonly keepMicros: number;
  readonly values: readonly (number | null)[];
}

/** What is expected at a step: by the threshold of the rule, the alert's state; nothing of an inactive one. */
type Expected = readonly ('pending' | 'firing' | null)[];

/** Runs of values, so that some are about as long as `for` and `keep_firing_for`. */
const values = fc
  .array(
    fc.tuple(
      fc.constantFrom<number | null>(20, 20, 80, 85, 85, 95, 105, null),
      fc.integer({ min: 1, max: 6 }),
    ),
    { minLength: STEPS, maxLength: STEPS },
  )
  .map((runs) =>
    runs.flatMap(([value, length]) => Array.from({ length }, () => value)).slice(0, STEPS),
  );

function cases(hold: fc.Arbitrary<number>): fc.Arbitrary<Case[]> {
  const one = fc.record({ forMicros: hold, keepMicros: hold, values });
  return fc.array(one, { minLength: 40, maxLength: 40 });
}

const wholeSeconds = fc.integer({ min: 0, max: 6 }).map((s) => s * SECOND);
const anyMillis = fc.integer({ min: 0, max: 6000 }).map((ms) => ms * 1000);

describe.skipIf(!hasPromtool)('alerts and those of promtool test rules', () => {
  let folder: string;
  let hasKeepFiringFor = false;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'puback-promtool-'));
    const probe = [{ forMicros: 0, keepMicros: SECOND, values: [1] }];
    hasKeepFiringFor = (await faultOf(probe, [[[null, null, null]]])) === null;
    if (!hasKeepFiringFor) console.warn('SKIPPED: this promtool has no keep_firing_for');
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** @param expected by step and case. @returns what promtool says is different; null: nothing. */
  async function faultOf(
    all: readonly Case[],
    expected: readonly (readonly Expected[])[],
    expr = 'ALERTS',
  ): Promise<string | null> {
    await writeFile(join(folder, 'rules.json'), JSON.stringify(rulesOf(all)));
    await writeFile(join(folder, 'test.json'), JSON.stringify(testOf(expr, all, expected)));
    return run('promtool', ['test', 'rules', join(folder, 'test.json')]).then(
      () => null,
      (error: unknown) => String((error as { stderr?: string }).stderr ?? error),
    );
  }

  const withoutKeep = (one: Case): Case => (hasKeepFiringFor ? one : { ...one, keepMicros: 0 });

  it('are pending and firing at the same evaluations, for any `for` and `keep_firing_for`', async () => {
    await fc.assert(
      fc.asyncProperty(cases(anyMillis), async (generated) => {
        const all = generated.map(withoutKeep);
        expect(await faultOf(all, transposed(all.map(statesByEvaluation)))).toBeNull();
      }),
      { numRuns: 5, endOnFailure: true },
    );
  });

  it('are so through the whole evaluation of a rule with three levels and its timers', async () => {
    await fc.assert(
      fc.asyncProperty(cases(wholeSeconds), async (generated) => {
        const all = generated.map(withoutKeep);
        const states = transposed(all.map(statesByDevice));
        expect(await faultOf(all, states, WORST_OF_EACH)).toBeNull();
      }),
      { numRuns: 5, endOnFailure: true },
    );
  });

  it('are told apart when they differ', async () => {
    const [one] = fc.sample(cases(wholeSeconds), { numRuns: 1, seed: 1 });
    const all = (one ?? []).map(withoutKeep);
    const expected = transposed(all.map(statesByEvaluation));
    expect(await faultOf(all, expected)).toBeNull();
    const step = expected.findIndex((states) => states.some((state) => state[0] === 'firing'));
    const broken = expected.map((states, index) =>
      index === step
        ? states.map((state): Expected =>
            state.map((each) => (each === 'firing' ? 'pending' : each)),
          )
        : states,
    );
    expect(step).toBeGreaterThanOrEqual(0);
    expect(await faultOf(all, broken)).toContain('alertstate');
  });
});

/** Each threshold as a rule of its own, evaluated once a second, without timers in between. */
function statesByEvaluation({ forMicros, keepMicros, values: series }: Case): Expected[] {
  const timing = { forMicros, keepFiringForMicros: keepMicros };
  const states: AlertState[] = THRESHOLDS.map(() => INACTIVE);
  let held = NaN;
  return series.map((value, step) => {
    held = value ?? held;
    return THRESHOLDS.map((threshold, index) => {
      const level = held > threshold ? 1 : 0;
      const next = stepAlert(timing, states[index] ?? INACTIVE, level, START + step * SECOND);
      states[index] = next;
      return next.phase === 'inactive' ? null : next.phase;
    });
  });
}

/** One rule with a level for each threshold, as it is evaluated for a device. */
function statesByDevice({ forMicros, keepMicros, values: series }: Case): Expected[] {
  const when = (value: number): object => ({ metric: 'm', op: '>', value });
  const definition = parseRule({
    name: 'parity',
    severity: SEVERITIES[0],
    when: when(THRESHOLDS[0]),
    levels: [1, 2].map((index) => ({
      severity: SEVERITIES[index],
      when: when(THRESHOLDS[index] ?? 0),
    })),
    for: formatDuration(forMicros),
    keepFiringFor: formatDuration(keepMicros),
  });
  const ids = { ruleId: 1, publicId: '', organizationId: 1, version: 1, mode: 'enabled' } as const;
  const rule = compileRule({ ...ids, definition }, { windowSamplesMax: 16 });
  const device = { deviceId: 1, organizationId: 1, slug: 'd', tags: [], type: null };
  const evaluation = new DeviceEvaluation(device, [rule], { emit: () => undefined });
  return series.map((value, step) => {
    const atMicros = START + step * SECOND;
    const handle = evaluation.series('m');
    if (value !== null && handle !== null) {
      evaluation.reading(handle, value, null);
      evaluation.sampleEnd(atMicros);
    }
    evaluation.takeTimers(atMicros + 1);
    const state = evaluation.openAlerts[0]?.state;
    if (state === undefined || state.phase === 'inactive') return [null, null, null];
    if (state.phase === 'pending') return ['pending', null, null];
    const worst = SEVERITIES.findIndex((severity) => severity === severityOf(state.level));
    return THRESHOLDS.map((_, index) => (index === worst ? 'firing' : null));
  });
}

function transposed(byCase: readonly (readonly Expected[])[]): Expected[][] {
  const steps = byCase[0]?.length ?? 0;
  return Array.from({ length: steps }, (_, step) => byCase.map((states) => states[step] ?? []));
}

/** Promtool reads JSON, which is YAML. */
function rulesOf(all: readonly Case[]): object {
  const rules = all.flatMap(({ forMicros, keepMicros }, index) =>
    THRESHOLDS.map((threshold, level) => ({
      alert: 'parity',
      expr: `m${index} > ${threshold}`,
      for: `${forMicros / 1000}ms`,
      labels: { case: `${index}`, level: `${level}` },
      ...(keepMicros > 0 ? { keep_firing_for: `${keepMicros / 1000}ms` } : {}),
    })),
  );
  return { groups: [{ name: 'parity', rules }] };
}

function testOf(
  expr: string,
  all: readonly Case[],
  expected: readonly (readonly Expected[])[],
): object {
  return {
    rule_files: ['rules.json'],
    evaluation_interval: '1s',
    tests: [
      {
        interval: '1s',
        input_series: all.map(({ values: series }, index) => ({
          series: `m${index}`,
          values: series.map((value) => value ?? '_').join(' '),
        })),
        promql_expr_test: expected.map((states, step) => ({
          expr,
          eval_time: `${step}s`,
          exp_samples: states.flatMap((state, index) =>
            state.flatMap((each, level) =>
              each === null
                ? []
                : [
                    {
                      labels: `ALERTS{alertname="parity",alertstate="${each}",case="${index}",level="${level}"}`,
                      value: 1,
                    },
                  ],
            ),
          ),
        })),
      },
    ],
  };
}
