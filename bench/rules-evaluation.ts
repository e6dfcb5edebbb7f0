import { pino } from 'pino';
import { compileRule } from '../rules/compile.ts';
import type { CompiledRule } from '../rules/compiled-rule.ts';
import { RuleEvaluator } from '../rules/evaluation/evaluator.ts';
import { parseRule } from '../rules/rule-schema.ts';
import { numberOption, runTool, textOption } from './command-line.ts';

const HELP = `What rules cost while readings come in, without a database.

  npm run bench:rules -- [options]

  --rules N      rules, all in scope of every device; default 1000
  --devices N    default 10000; each (rule, device) takes memory: see node --max-old-space-size
  --metrics N    metrics of a device; a reading meets rules / metrics of them; default 10
  --samples N    samples that are evaluated, each with all metrics; default 100000
  --kind KIND    threshold, hysteresis, for, window; default threshold
`;

const KINDS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  threshold: { when: { op: '>', value: 80 } },
  hysteresis: { when: { op: '>', value: 80, clear: 75 } },
  for: { when: { op: '>', value: 80 }, for: '30s', keepFiringFor: '1m' },
  window: { when: { window: '1m', fn: 'avg', op: '>', value: 80 } },
};

const SECOND_MICROS = 1_000_000;
const START_MICROS = 1_800_000_000 * SECOND_MICROS;

await runTool(
  HELP,
  {
    rules: { type: 'string' },
    devices: { type: 'string' },
    metrics: { type: 'string' },
    samples: { type: 'string' },
    kind: { type: 'string', default: 'threshold' },
  },
  async (options) => {
    const counts = {
      rules: numberOption(options, 'rules', 1000, [1, 100_000]),
      devices: numberOption(options, 'devices', 10_000, [1, 1_000_000]),
      metrics: numberOption(options, 'metrics', 10, [1, 1000]),
      samples: numberOption(options, 'samples', 100_000, [1, 100_000_000]),
    };
    await measure(counts, textOption(options, 'kind', 'threshold'));
    return 0;
  },
);

interface Counts {
  readonly rules: number;
  readonly devices: number;
  readonly metrics: number;
  readonly samples: number;
}

async function measure(counts: Counts, kind: string): Promise<void> {
  const evaluator = newEvaluator();
  evaluator.replaceRules(rulesOf(counts, kind));
  const before = usedBytes();
  const devices = seriesOf(evaluator, counts);
  const bare = usedBytes();
  let atMicros = START_MICROS;
  const send = (device: number): void => {
    const series = devices[device] ?? [];
    for (const [index, each] of series.entries()) {
      evaluator.reading(each, atMicros, valueAt(device, index, atMicros), null);
    }
    evaluator.sampleEnd(device, { timeMicros: atMicros, receivedMicros: atMicros, isLive: true });
  };
  for (let device = 0; device < counts.devices; device += 1) send(device);
  while (evaluator.gauges.heldReadings > 0) await new Promise((done) => setImmediate(done));
  const bytes = (usedBytes() - bare) / (counts.devices * counts.rules);
  report('bytes for each device and its series', (bare - before) / counts.devices, 'B');
  report('bytes for each (rule, device)', bytes, 'B');
  const run = (samples: number): void => {
    for (let sample = 0; sample < samples; sample += 1) {
      const device = sample % counts.devices;
      if (device === 0) atMicros += SECOND_MICROS;
      send(device);
    }
  };
  run(Math.min(counts.samples, 2 * counts.devices));
  const { evaluations } = evaluator.gauges;
  const startedMs = performance.now();
  run(counts.samples);
  const seconds = (performance.now() - startedMs) / 1000;
  const made = evaluator.gauges.evaluations - evaluations;
  report('evaluations', made / seconds, '1/s');
  report('time of an evaluation', (seconds / made) * 1e9, 'ns');
  report('readings', (counts.samples * counts.metrics) / seconds, '1/s');
  report('steps of alerts', evaluator.counters.transitions, '');
  reportAllocation(run, counts);
  await evaluator.stop();
}

/** What the steady state allocates: heap that grows while nothing of it is collected. */
function reportAllocation(run: (samples: number) => void, { samples, metrics }: Counts): void {
  const few = Math.min(samples, 2000);
  usedBytes();
  const before = process.memoryUsage().heapUsed;
  run(few);
  const grown = process.memoryUsage().heapUsed - before;
  report('allocated for a reading', grown / (few * metrics), 'B');
}

function newEvaluator(): RuleEvaluator {
  return new RuleEvaluator({
    loader: {
      load: (requests) =>
        Promise.resolve(
          requests.map(({ deviceId }) => ({
            device: { deviceId, organizationId: 1, slug: `d${deviceId}`, tags: [], type: null },
            connection: 'online',
            connectionMicros: 0,
            open: [],
            history: [],
            catchUpFromMicros: Infinity,
            settled: [],
          })),
        ),
    },
    alertLog: {
      append: () => undefined,
      isFull: false,
      isAway: false,
      noteEvaluated: () => undefined,
      drain: () => Promise.resolve(),
    },
    findDevices: () => Promise.resolve([]),
    noData: null,
    onSuspend: (_ruleId, reason) => {
      throw new Error(reason);
    },
    now: () => START_MICROS / 1000,
    limits: { evaluationUsMax: 1_000_000, timerSlackMs: 1000, deviceReadingsHeldMax: 100_000 },
    log: pino({ level: 'silent' }),
  });
}

function rulesOf({ rules, metrics }: Counts, kind: string): CompiledRule[] {
  const { when, ...rest } = KINDS[kind] ?? {};
  return Array.from({ length: rules }, (_, index) =>
    compileRule(
      {
        ruleId: index + 1,
        publicId: '',
        organizationId: 1,
        version: 1,
        mode: 'enabled',
        definition: parseRule({
          name: `rule ${index}`,
          severity: 'high',
          ...rest,
          when: { ...(when as object), metric: `m${index % metrics}` },
        }),
      },
      { windowSamplesMax: 4096 },
    ),
  );
}

function seriesOf(evaluator: RuleEvaluator, { devices, metrics }: Counts): object[][] {
  return Array.from({ length: devices }, (_, device) =>
    Array.from({ length: metrics }, (_each, metric) => evaluator.seriesOf(1, device, `m${metric}`)),
  );
}

/** Between 20 and 70, and now and then above all thresholds, so that alerts come and go. */
function valueAt(device: number, metric: number, atMicros: number): number {
  const turn = (device * 7919 + metric * 104_729 + atMicros / SECOND_MICROS) % 10_007;
  return turn === 0 ? 90 : 20 + (turn % 50);
}

function usedBytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

function report(what: string, figure: number, unit: string): void {
  process.stdout.write(
    `${what.padEnd(40)} ${figure.toLocaleString('en-US', { maximumFractionDigits: 1 }).padStart(16)} ${unit}\n`,
  );
}
