import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { STOCK_AEDES_FAILURES } from './stock-aedes-expected.ts';

/**
 * `npm run test:stock-aedes`: runs the rows against Aedes as it comes, and says what has changed.
 * Exit status 0 when exactly the expected rows fail.
 */
interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly { readonly title: string; readonly status: string }[];
  }[];
}

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'puback-stock-'));
const outputFile = join(folder, 'report.json');
const tests = ['--project', 'database', 'test/e2e/aedes-rows.test.ts'];
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${outputFile}`];
spawnSync('npx', ['vitest', 'run', ...tests, ...reporters], {
  cwd: root,
  env: { ...process.env, PUBACK_TEST_TARGET: 'stock-aedes' },
  stdio: ['ignore', 'inherit', 'ignore'],
});
const changes = compare(readReport());
rmSync(folder, { recursive: true, force: true });
for (const line of changes) process.stdout.write(`${line}\n`);
const count = STOCK_AEDES_FAILURES.length;
if (changes.length === 0)
  process.stdout.write(`\nall ${count} expected rows fail on stock Aedes\n`);
process.exit(changes.length === 0 ? 0 : 1);

function readReport(): Report | null {
  try {
    return JSON.parse(readFileSync(outputFile, 'utf8')) as Report;
  } catch {
    // No report: the run itself has failed, and has said why.
    return null;
  }
}

/** What differs from the list, a line each. */
function compare(report: Report | null): string[] {
  const results = new Map<number, string>();
  for (const { assertionResults } of report?.testResults ?? []) {
    for (const { title, status } of assertionResults) {
      const row = /^row (\d+):/.exec(title)?.[1];
      if (row !== undefined) results.set(Number(row), status);
    }
  }
  if (results.size === 0) return ['the tests did not run'];
  const lines: string[] = [];
  for (const row of STOCK_AEDES_FAILURES) {
    const status = results.get(row) ?? 'missing';
    if (status === 'passed')
      lines.push(`row ${row} passes on stock Aedes now: is it mended there?`);
    else if (status !== 'failed') lines.push(`row ${row} has no test that ran (${status})`);
  }
  for (const [row, status] of results) {
    const isExpected = STOCK_AEDES_FAILURES.includes(row);
    if (status === 'failed' && !isExpected)
      lines.push(`row ${row} fails, which is not in the list`);
  }
  return lines;
}
