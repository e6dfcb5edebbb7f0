import { readFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { findPackageRoot } from '../drizzle/package-root.ts';
import { ToolFailedError } from '../errors.ts';
import { ApiClient } from './api-client.ts';
import { withBenchProgram } from './bench-program.ts';
import { durationOption, runTool, type OptionTable } from './command-line.ts';
import { findDatabaseUrl, withDatabase } from './database-client.ts';
import { runLoad } from './load-run.ts';
import type { Program } from './program.ts';
import { createProgress, type Progress } from './progress.ts';
import { replaceSection } from './result-sections.ts';
import { describeMachine } from './results.ts';
import { areRuleGoalsMet, rulesLoadSection, type RulesLoadResult } from './rules-load-results.ts';
import { WebhookProbe } from './webhook-probe.ts';

const HELP = `Measures what alert rules cost the program while it stores readings: the rate of load (a) of npm run
bench without a rule and with 1 000 in scope of every device, in turns; and, at half of that rate, the
time from a reading that makes a rule fire to the request of a webhook. A full run writes a section of
bench/RESULTS.md.

  npm run bench:rules-load -- [options]

  --quick          a few seconds each, to see that it works; writes no file
  --seconds D      measured time of each                                       (10)
  --help

Exit status: 0 the goals are met, 1 otherwise, 2 the run could not take place.
`;

const OPTIONS: OptionTable = { quick: { type: 'boolean' }, seconds: { type: 'string' } };
const RULES = 1000;
const METRICS = 100;
/** Without and with rules in turns, so that what else the machine does meets both. */
const TURNS = 3;
const PROBES = 40;
const LOAD = { connections: 50, window: 20, payload: 'one' as const };
const [loadBefore = 0] = loadavg();

/** Receivers on this machine, and as many messages as there are alerts. */
const SETTINGS = {
  NOTIFY_PRIVATE_ADDRESSES: '127.0.0.0/8',
  NOTIFY_HTTP_ALLOWED: 'yes',
  NOTIFY_RECEIVER_MESSAGES_PER_H: '100000',
  NOTIFY_RECEIVER_CONCURRENCY_MAX: '100',
  NOTIFY_FLAPPING_CHANGES_MAX: '1000',
  NOTIFY_FLAPPING_WINDOW_S: '10',
  RULES_MAX: '2000',
};

interface Run {
  readonly program: Program;
  readonly api: ApiClient;
  readonly keysFiles: readonly string[];
  readonly seconds: { readonly warmupS: number; readonly measuredS: number };
  readonly progress: Progress;
}

await runTool(HELP, OPTIONS, async (options) => {
  const isQuick = options['quick'] === true;
  const measuredS = isQuick ? 3 : durationOption(options, 'seconds', 10);
  const seconds = { warmupS: isQuick ? 1 : 3, measuredS };
  Object.assign(process.env, SETTINGS);
  const progress = createProgress(process.stderr);
  const loads = Array.from({ length: 2 * TURNS + 1 }, () => LOAD);
  const groups = [...loads, { connections: PROBES }];
  const result = await withBenchProgram('rules-load', groups, progress, (program, keysFiles) => {
    const { httpUrl, adminKey } = program.credentials;
    const api = new ApiClient(httpUrl, adminKey);
    return measure({ program, api, keysFiles, seconds, progress });
  });
  const section = rulesLoadSection(await describeMachine(loadBefore), seconds, result);
  process.stdout.write(`${section}\n`);
  if (process.argv.length === 2) {
    const path = join(findPackageRoot(), 'bench', 'RESULTS.md');
    await replaceSection(path, section);
    process.stdout.write(`\nwritten to ${path}\n`);
  }
  return areRuleGoalsMet(result) ? 0 : 1;
});

async function measure(run: Run): Promise<RulesLoadResult> {
  const without: number[] = [];
  const withRules: number[] = [];
  run.progress.step(`making ${RULES} rules`);
  await makeRules(run.api);
  for (let turn = 0; turn < TURNS; turn += 1) {
    await setMode(run, 'disabled');
    without.push(await rateOf(run, 2 * turn, `turn ${turn + 1}: no rule is evaluated`));
    await setMode(run, 'shadow');
    const before = await evaluations(run.api);
    withRules.push(await rateOf(run, 2 * turn + 1, `turn ${turn + 1}: ${RULES} rules`));
    if ((await evaluations(run.api)) === before) throw new ToolFailedError('no rule was evaluated');
  }
  const webhook = await measureWebhook(run, Math.max(...withRules) / 2);
  return { rules: RULES, metrics: METRICS, without, withRules, ...webhook };
}

/** Thresholds that nothing reaches, the same number for each of the metrics; one of them is sent. */
async function makeRules(api: ApiClient): Promise<void> {
  for (let index = 0; index < RULES; index += 1) {
    const metric = index % METRICS === 0 ? 'temp' : `m${index % METRICS}`;
    const when = { metric, op: '>', value: 100 + index, clear: 90 };
    const rule = { name: `rule ${index}`, mode: 'disabled', severity: 'high', when, for: '5s' };
    await api.make('/api/v1/rules', rule);
  }
}

/** All at once, past the API, which takes one at a time; and waits until that is in force. */
async function setMode({ api, program }: Run, mode: 'disabled' | 'shadow'): Promise<void> {
  await withDatabase(await findDatabaseUrl(program.dataDir), (client) =>
    client.query('UPDATE alert_rule SET mode = $1', [mode]),
  );
  const wanted = mode === 'disabled' ? 0 : RULES;
  for (let waited = 0; ; waited += 1) {
    const active = (await api.metrics()).get('puback_rules_active_rules');
    if (active === wanted) return;
    if (waited === 300) throw new ToolFailedError(`${active} rules are in force, not ${wanted}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function evaluations(api: ApiClient): Promise<number> {
  return (await api.metrics()).get('puback_rules_evaluations_total') ?? 0;
}

async function rateOf(run: Run, load: number, title: string, ratePerS?: number): Promise<number> {
  run.progress.step(title);
  const { generator } = await runLoad(
    {
      mqttUrl: run.program.credentials.mqttUrl,
      keysFile: run.keysFiles[load] ?? '',
      ...LOAD,
      ...run.seconds,
      ...(ratePerS === undefined ? {} : { ratePerS }),
    },
    () => Promise.resolve(),
  );
  return generator.acknowledged / generator.seconds;
}

async function measureWebhook(
  run: Run,
  ratePerS: number,
): Promise<Pick<RulesLoadResult, 'offeredPerS' | 'webhook'>> {
  const probe = await WebhookProbe.open();
  try {
    await makeProbeRule(run.api, probe.url);
    const keys = await readKeys(run.keysFiles[2 * TURNS + 1] ?? '');
    const { mqttUrl } = run.program.credentials;
    const { warmupS, measuredS } = run.seconds;
    const load = rateOf(run, 2 * TURNS, 'webhooks at half of the rate', ratePerS);
    const [webhook] = await Promise.all([probe.run(mqttUrl, keys, warmupS + measuredS), load]);
    return { offeredPerS: ratePerS, webhook };
  } finally {
    await probe.close();
  }
}

async function makeProbeRule(api: ApiClient, url: string): Promise<void> {
  const receiver = await api.make('/api/v1/receivers', {
    name: 'probe',
    kind: 'webhook',
    settings: { url },
    secret: 'a secret of the bench',
  });
  await api.make('/api/v1/notification-routes', {
    name: 'probe',
    receivers: [receiver['id']],
    groupBy: ['device'],
    groupWait: '0s',
    groupInterval: '1s',
  });
  await api.make('/api/v1/rules', {
    name: 'probe',
    severity: 'critical',
    when: { metric: 'probe', op: '>', value: 1 },
    annotations: { summary: '{{value}}' },
  });
}

async function readKeys(file: string): Promise<string[]> {
  const boards = JSON.parse(await readFile(file, 'utf8')) as { key: string }[];
  return boards.map(({ key }) => key);
}
