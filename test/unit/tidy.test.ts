import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { createApiMetrics } from '../../api/metrics.ts';
import { CampaignMetrics } from '../../commands/campaign/metrics.ts';
import { CommandMetrics } from '../../commands/metrics.ts';
import { createGateMetrics } from '../../broker/gate/gate-metrics.ts';
import { registerStoreMetrics, StoreTotals } from '../../broker/store/disk-metrics.ts';
import { createBrokerMetrics } from '../../broker/metrics.ts';
import { createPresenceMetrics } from '../../broker/presence/presence-metrics.ts';
import { FanOutMetrics } from '../../broker/outgoing/fan-out-metrics.ts';
import { registerDeskMetrics } from '../../commands/desk-metrics.ts';
import { ConfigurationMetrics } from '../../configuration/metrics.ts';
import { CONFIG_DOCUMENTS } from '../../docs/config-docs.ts';
import { readJournal } from '../../drizzle/migrate.ts';
import { REFUSAL_CODES } from '../../firmware-protocol/contract.ts';
import { ImportMetrics } from '../../ingest/import/metrics.ts';
import { ClockMetrics } from '../../ingest/clock-metrics.ts';
import { createAggregateMetrics } from '../../ingest/aggregates/metrics.ts';
import { IngestMetrics } from '../../ingest/metrics.ts';
import { QuarantineMetrics } from '../../ingest/quarantine-pruning.ts';
import { registerSpoolMetrics, SpoolTotals } from '../../ingest/spool/spool-metrics.ts';
import { NotifyMetrics } from '../../rules/notify/metrics.ts';
import { OtaMetrics } from '../../ota/metrics.ts';
import { createKeyMetrics } from '../../registry/keys/metrics.ts';
import { createDeviceEventMetrics, createRegistryMetrics } from '../../registry/metrics.ts';
import { ActionMetrics } from '../../rules/action/action-metrics.ts';
import { AlertLogMetrics } from '../../rules/log/alert-log-metrics.ts';
import { DeviceLoadMetrics } from '../../rules/evaluation/device-load-metrics.ts';
import { RuleCounters, registerRuleMetrics } from '../../rules/evaluation/metrics.ts';
import { registerNoDataMetrics } from '../../rules/no-data/no-data-metrics.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const FILES = listFiles('.', ignoredFolders());
const SOURCES = FILES.filter((path) => path.endsWith('.ts'));
const PRODUCT = SOURCES.filter((path) => !path.startsWith('test/') && !path.endsWith('.config.ts'));
const PAGES = FILES.filter((path) => path.endsWith('.md'));

describe('documents', () => {
  it.each(CONFIG_DOCUMENTS)('say of the settings what config.ts says: $path', (document) => {
    const text = read(document.path);
    expect(text, 'run npm run config:docs').toBe(document.render(text));
  });

  it('list every error code with its HTTP status, and no other', () => {
    const files = ['errors.ts', 'rule-errors.ts', 'command-errors.ts', 'ota-errors.ts'];
    const classes = files.map(read).join('');
    const inCode = [
      ...classes.matchAll(/readonly code = '([A-Z_]+)';\s+readonly status(?:: number;| = (\d+);)/g),
    ].map(([, code = '', status = 'varies']) => [code, status] as const);
    const inDocument = tableRows('docs/errors.md', /^`([A-Z_]+)`$/).map(
      ([code = '', status = '']) => [code, status] as const,
    );
    expect(inCode.length).toBeGreaterThan(10);
    expect(inCode.length).toBe(classes.match(/ extends AppError/g)?.length);
    expect(inDocument.map(([code]) => code).toSorted()).toEqual(
      inCode.map(([code]) => code).toSorted(),
    );
    const documented = new Map(inDocument);
    for (const [code, status] of inCode) {
      // A dash: the error ends the program, or a start of it, and never becomes an answer.
      const allowed = status === '500' ? ['500', '–'] : [status];
      if (status !== 'varies') expect(allowed, code).toContain(documented.get(code));
    }
  });

  it('list every code that firmware or quarantine can meet, and no other', () => {
    const [, chapter = ''] = read('docs/errors.md').split('## Of firmware');
    const listed = [...chapter.matchAll(/^\| `([a-z_]+)`/gm)].map(([, code]) => code);
    expect(listed).toEqual([...REFUSAL_CODES, 'not_stored', 'device_quarantined']);
  });

  it('list every metric with its type and labels, and no other', async () => {
    const inCode = (await registeredMetrics()).toSorted();
    const inDocument = tableRows('docs/metrics.md', /^`(puback_[a-z_]+)`$/)
      .map(([name, type, labels]) => `${name} ${type} ${labels?.replaceAll('`', '')}`.trim())
      .toSorted();
    expect(inDocument).toEqual(inCode);
  });

  it('name every metric that any part of the source makes', () => {
    const documented = new Set(read('docs/metrics.md').match(/puback_[a-z_]+/g));
    const made = PRODUCT.flatMap((path) => [
      ...read(path).matchAll(/name: '(puback_[a-z_]+)'|^\s+(?:\w+\()?'(puback_[a-z]+_[a-z_]+)',/gm),
    ]).map(([, named, listed]) => named ?? listed ?? '');
    expect(made.length).toBeGreaterThan(20);
    expect(made.filter((name) => !documented.has(name))).toEqual([]);
  });

  it('have a row for every folder of the repository, and for no other', () => {
    const folders = new Set(
      FILES.filter((path) => path.includes('/')).map((path) => `${path.split('/', 1)[0]}/`),
    );
    const rows = tableRows('CONTRIBUTING.md', /^`([a-z.-]+\/)`$/).map(([folder]) => folder ?? '');
    expect(rows.toSorted()).toEqual([...folders].toSorted());
  });

  it('link only to files that exist', () => {
    const broken = PAGES.flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)/g)]
        .map(([, target = '']) => normalize(join(dirname(page), target)))
        .filter((path) => !FILES.some((file) => file === path || file.startsWith(`${path}/`)))
        .map((path) => `${page}: ${path}`),
    );
    expect(broken).toEqual([]);
  });

  it('name only npm scripts that exist', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...PAGES, 'errors.ts', 'banner.ts'].flatMap((page) =>
      [...read(page).matchAll(/npm run (?:--silent )?([a-z:-]+)/g)].map(([, name = '']) => name),
    );
    expect(named).toContain('demo');
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
  });

  it('name only settings that exist', () => {
    const known = new Set(read('.env.example').match(/^#[A-Z_]+(?==)/gm));
    const named = PAGES.flatMap((page) => [
      ...read(page).matchAll(
        /`((?!FP_)[A-Z]+_[A-Z_]+_(?:MAX|S|D|MS|PORT|HOST|FILE)|DATA_DIR|(?:MQTTS?|HTTP)_[A-Z]+)`/g,
      ),
    ]).map(([, name]) => `#${name}`);
    expect(named.length).toBeGreaterThan(20);
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });

  it('tag every line of the changelog', () => {
    const lines = read('CHANGELOG.md').match(/^- .*/gm) ?? [];
    expect(lines.length).toBeGreaterThan(0);
    const tagged = /^- \[(CHANGE|FEATURE|ENHANCEMENT|BUGFIX)\] /;
    expect(lines.filter((line) => !tagged.test(line))).toEqual([]);
    const { version } = JSON.parse(read('package.json')) as { version: string };
    expect(read('CHANGELOG.md').match(/^## .*/gm)?.[0]).toBe('## Unreleased');
    expect(read('CHANGELOG.md')).toContain(`\n## ${version}`);
  });

  it('number the decisions without a gap and head each with its number', () => {
    const decisions = FILES.filter((path) => path.startsWith('docs/adr/')).toSorted();
    expect(decisions.length).toBeGreaterThan(5);
    for (const [index, path] of decisions.entries()) {
      const number = String(index + 1).padStart(4, '0');
      expect(path).toMatch(new RegExp(`^docs/adr/${number}-[a-z0-9-]+\\.md$`));
      expect(read(path)).toMatch(new RegExp(`^# ${number}: `));
      for (const part of ['Context', 'Decision', 'Consequences', 'Is, and is not']) {
        expect(read(path), path).toContain(`\n## ${part}\n`);
      }
    }
  });
});

describe('source', () => {
  it('imports only in the directions of the layout', () => {
    const wrong = SOURCES.flatMap((path) =>
      importsOf(path)
        .filter((target) => !mayImport(path, target))
        .map((target) => `${path} imports ${target}`),
    );
    expect(wrong).toEqual([]);
  });

  it('reaches the MQTT engine through the broker folder alone', () => {
    const users = PRODUCT.filter((path) => /from 'aedes'|from 'mqemitter'/.test(read(path)));
    expect(users.length).toBeGreaterThan(0);
    expect(users.filter((path) => !path.startsWith('broker/'))).toEqual([]);
  });

  it('has a doc comment on every export', () => {
    const bare = PRODUCT.flatMap((path) =>
      [...read(path).matchAll(BARE_EXPORT)].map(([, name]) => `${path}: ${name}`),
    );
    expect(bare).toEqual([]);
  });

  it('has no file over 400 lines', () => {
    const long = PRODUCT.filter((path) => read(path).split('\n').length > 401);
    expect(long).toEqual([]);
  });

  it('keeps main.ts below 70 lines', () => {
    expect(read('main.ts').split('\n').length).toBeLessThanOrEqual(70);
  });
});

describe('migrations', () => {
  const journal = readJournal();
  const tags = FILES.filter((path) => /^drizzle\/migrations\/[^/]+\.sql$/.test(path)).map((path) =>
    path.slice('drizzle/migrations/'.length, -'.sql'.length),
  );

  it('strictly increase in time, or one would be skipped', () => {
    const times = journal.map(({ when }) => when);
    expect(times.every((when, index) => index === 0 || when > (times[index - 1] ?? 0))).toBe(true);
    expect(times.length).toBeGreaterThan(0);
  });

  it('are those of the journal, in the order of their numbers', () => {
    expect(tags.toSorted()).toEqual(journal.map(({ tag }) => tag));
    expect(journal.map(({ tag }) => tag.slice(0, 5))).toEqual(
      journal.map((_, index) => `${String(index).padStart(4, '0')}_`),
    );
  });
});

/** What each folder may import beside itself, `errors.ts` and `log.ts`; see CONTRIBUTING.md. */
const IMPORTS: Readonly<Record<string, readonly string[]>> = {
  'firmware-protocol': [],
  drizzle: [],
  broker: ['firmware-protocol'],
  ingest: ['firmware-protocol', 'drizzle'],
  registry: ['firmware-protocol', 'drizzle'],
  rules: ['firmware-protocol', 'drizzle'],
  commands: ['firmware-protocol', 'drizzle'],
  configuration: ['firmware-protocol', 'drizzle'],
  ota: ['firmware-protocol', 'drizzle'],
  api: ['firmware-protocol', 'registry', 'ingest', 'rules', 'commands', 'configuration', 'ota'],
  docs: ['config.ts'],
  'errors.ts': [],
  'rule-errors.ts': ['errors.ts'],
  'command-errors.ts': ['errors.ts'],
  'ota-errors.ts': ['errors.ts'],
  'log.ts': [],
  'deadline-heap.ts': [],
  'duration.ts': [],
  'scraped-metrics.ts': [],
  'config.ts': ['config-rules.ts', 'config-commands.ts', 'config-faults.ts'],
  'config-rules.ts': [],
  'config-commands.ts': [],
  'config-faults.ts': [],
  'banner.ts': ['config.ts', 'app.ts'],
  'main.ts': ['app.ts', 'banner.ts', 'config.ts'],
};
/** The composition root (all but app.ts are parts of it), the tools and the tests reach everything but what starts the process. */
const REACH_ALL = [
  'app.ts',
  'fleet.ts',
  'fleet-downlink.ts',
  'fleet-integrators.ts',
  'connection-history.ts',
  'joints.ts',
  'quarantine-joints.ts',
  'store.ts',
  'rule-joints.ts',
  'rule-engine.ts',
  'downlink.ts',
  'downlink-joints.ts',
  'web.ts',
  'bench',
  'test',
];
/** The wire contract is pure: not even our errors and log. */
const SHARED: readonly string[] = [
  'errors.ts',
  'rule-errors.ts',
  'command-errors.ts',
  'ota-errors.ts',
  'log.ts',
  'deadline-heap.ts',
  'duration.ts',
  'scraped-metrics.ts',
];
const PURE: readonly string[] = [
  'firmware-protocol',
  'errors.ts',
  'log.ts',
  'deadline-heap.ts',
  'duration.ts',
  'scraped-metrics.ts',
];

function mayImport(path: string, target: string): boolean {
  const from = partOf(path);
  const to = partOf(target);
  if (from === to) return true;
  if (to === 'test' || to === 'main.ts') return false;
  if (from === 'test') return true;
  if (to === 'app.ts') return ['main.ts', 'banner.ts', 'bench'].includes(from);
  if (REACH_ALL.includes(from)) return to !== 'bench' && to !== 'docs';
  if (SHARED.includes(to) && !PURE.includes(from)) return true;
  return IMPORTS[from]?.includes(to) ?? path.endsWith('.config.ts');
}

/** The folder at the top, or the file when it lies there. */
function partOf(path: string): string {
  return path.split('/', 1)[0] ?? path;
}

/** Targets of relative imports, dynamic ones among them, as paths below the root. */
function importsOf(path: string): string[] {
  return [...read(path).matchAll(/(?:from|import\(?)\s*'(\.{1,2}\/[^']+)'/g)].map(
    ([, target = '']) => normalize(join(dirname(path), target)),
  );
}

/** An exported declaration whose line before does not end a comment. Overloads share the first one's. */
const BARE_EXPORT =
  /(?<!\*\/\n)^export (?:abstract |async |declare )*(?:class|function\*?|const|let|interface|type|enum) (\w+)/gm;

/** Name, type and labels of what the parts put into a registry. */
async function registeredMetrics(): Promise<string[]> {
  const registry = new Registry();
  createBrokerMetrics(registry);
  new FanOutMetrics().register(registry, 1, () => ({
    waitingMessages: 0,
    waitingBytes: 0,
    inFlightMessages: 0,
    filters: 0,
  }));
  createGateMetrics(registry);
  registerStoreMetrics(registry, new StoreTotals());
  createPresenceMetrics(registry, () => ({ online: 0, sleeping: 0, queuedRows: 0 }));
  createRegistryMetrics(registry, () => true);
  createKeyMetrics(registry);
  createDeviceEventMetrics(registry, () => 0, 1);
  createApiMetrics(registry, () => 0, 1);
  createAggregateMetrics(registry, () => ({
    ageSeconds: () => 0,
    lagSeconds: () => 0,
    dirtyRanges: 0,
    partitionsAhead: 0,
    failingJobs: 0,
  }));
  new IngestMetrics().register(registry, { rowsMax: 1, bytesMax: 1 }, () => ({
    queuedRows: 0,
    queuedBytes: 0,
    queuedMessages: 0,
    heldMessages: 0,
    heldBytes: 0,
    lanes: 0,
    isAway: false,
    ledger: {
      received: 0,
      committed: 0,
      spooled: 0,
      quarantined: 0,
      rejected: 0,
      lost: 0,
      inFlight: 0,
    },
  }));
  new ClockMetrics().register(registry, () => []);
  new NotifyMetrics(registry, () => ({
    outboxSteps: 0,
    waitingMessages: 0,
    inFlightMessages: 0,
    openCircuits: 0,
  }));
  new ActionMetrics(registry, () => 0, 1);
  new ConfigurationMetrics(registry, { reportsHeldMax: 1, reports: () => 0 });
  new OtaMetrics(registry, () => ({ downloads: 0, downloadsMax: 1, openUpdates: 0 }));
  new CampaignMetrics(registry, () => ({ openCampaigns: 0, activeDevices: 0 }));
  new CommandMetrics(registry, () => ({ acksHeld: 0, acksHeldMax: 1, stepsUntold: 0 }));
  const none = { waiting: 0, refused: 0 };
  registerDeskMetrics(registry, none, { waiting: 0, refused: new Map() });
  new AlertLogMetrics(registry).watch(registry, 1, { size: 0, checkpointMicros: 0 });
  new DeviceLoadMetrics(registry);
  registerRuleMetrics(registry, new RuleCounters(), () => ({
    rules: 0,
    devices: 0,
    heldReadings: 0,
    heldReadingsMax: 1,
    evaluations: 0,
    slowestSeconds: 0,
    isPaused: false,
  }));
  registerNoDataMetrics(registry, () => ({
    watchedDevices: 0,
    silent: { offline: 0, silent: 0, garbage: 0 },
    checks: 0,
    outages: 0,
    writeFailures: 0,
  }));
  new ImportMetrics().register(registry, 1, () => 0);
  new QuarantineMetrics(registry);
  registerSpoolMetrics(registry, {
    totals: new SpoolTotals(),
    pendingMessages: 0,
    bytes: 0,
    bytesMax: 1,
    isFailing: false,
    oldestReceivedMicros: null,
  });
  const all = await registry.getMetricsAsJSON();
  return all.map(({ name, type }) => {
    const metric = registry.getSingleMetric(name) as unknown as { labelNames: string[] };
    return `${name} ${String(type)} ${metric.labelNames.join(', ')}`.trim();
  });
}

/** Cells of the table rows of a page whose first cell matches; the first cell is what is captured. */
function tableRows(page: string, first: RegExp): string[][] {
  return (read(page).match(/^\|.*\|$/gm) ?? []).flatMap((line) => {
    const [head = '', ...cells] = line
      .slice(1, -1)
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim());
    const captured = first.exec(head)?.[1];
    return captured === undefined ? [] : [[captured, ...cells]];
  });
}

/** Folders that the repository does not keep. */
function ignoredFolders(): ReadonlySet<string> {
  const ignored = read('.gitignore').match(/^[\w-]+(?=\/$)/gm) ?? [];
  return new Set([...ignored, '.git', '.vscode', '.idea']);
}

function listFiles(folder: string, ignored: ReadonlySet<string>): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = relative(ROOT, join(ROOT, folder, entry.name));
    if (entry.isDirectory()) return ignored.has(entry.name) ? [] : listFiles(path, ignored);
    return [path];
  });
}
