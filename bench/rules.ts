import { readFile } from 'node:fs/promises';
import { reasonOf, ToolFailedError } from '../errors.ts';
import { RuleInvalidError } from '../rule-errors.ts';
import { reportFailure, reportTotal } from '../rules/rule-test/rule-test-report.ts';
import { runRuleTest, type RuleTestResult } from '../rules/rule-test/rule-test-run.ts';
import { parseRuleTests } from '../rules/rule-test/rule-test-schema.ts';
import { EXIT_UNUSABLE } from './command-line.ts';

const HELP = `npm run rules -- test FILE.yaml…

Runs tests of alert rules: a file gives rules, series of readings in short notation, and the state that an
alert is expected to be in behind each value. Needs no database and no running Puback. docs/rules.md tells
what a file may say; test/rules/ has examples.

  interval: 1s
  rules:
    - name: boiler too hot
      severity: critical
      when: { metric: temp, op: '>', value: 80, clear: 75 }
      for: 2s
  tests:
    - name: fires when it has been too hot for two seconds
      series: { temp: 20x2 85x3 70 }
      expect: inactive*3 pending*2 firing:critical*2 inactive

Exit status: 0 all passed, 1 some failed, 2 a file cannot be used.
`;

const [command, ...files] = process.argv.slice(2);
if (command === '--help' || command === '-h') {
  process.stdout.write(HELP);
} else if (command !== 'test' || files.length === 0 || files.some((file) => file.startsWith('-'))) {
  process.stderr.write(`name what to do: test FILE.yaml\n\n${HELP}`);
  process.exitCode = EXIT_UNUSABLE;
} else {
  process.exitCode = await testFiles(files).catch((error: unknown) => {
    if (!(error instanceof ToolFailedError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return EXIT_UNUSABLE;
  });
}

async function testFiles(paths: readonly string[]): Promise<number> {
  const all: RuleTestResult[] = [];
  for (const path of paths) {
    const results = await testFile(path);
    for (const result of results) {
      if (!result.isPassed) process.stdout.write(reportFailure(path, result));
    }
    all.push(...results);
  }
  process.stdout.write(reportTotal(all, paths.length));
  return all.every(({ isPassed }) => isPassed) ? 0 : 1;
}

async function testFile(path: string): Promise<RuleTestResult[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new ToolFailedError(`${path} cannot be read: ${reasonOf(error)}`);
  });
  try {
    return parseRuleTests(text).flatMap((test) => runRuleTest(test));
  } catch (error) {
    if (!(error instanceof RuleInvalidError)) throw error;
    const faults = error.faults.map((one) => `  ${one.path || 'the file'}: ${one.message}`);
    throw new ToolFailedError(`${path} is no file of rule tests:\n${faults.join('\n')}`);
  }
}
