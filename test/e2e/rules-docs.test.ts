import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeArguments } from '../../bench/program.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the commands of docs/rules.md'),
);

let app: TestApp;
let page: string;
beforeAll(async () => {
  app = await startTestApp();
  page = await readFile(`${findPackageRoot()}/docs/rules.md`, 'utf8');
});
afterAll(() => app.stop());

const blocksOf = (language: string): string[] =>
  [...page.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    ([, block = '']) => block,
  );

describe('docs/rules.md', { timeout: 180_000 }, () => {
  it('shows conditions that a rule may have, and a rule with actions', async () => {
    const conditions = blocksOf('json');
    expect(conditions.length).toBeGreaterThan(15);
    for (const [index, text] of conditions.entries()) {
      const shown = JSON.parse(text) as object;
      const draft =
        'when' in shown ? shown : { name: `condition ${index}`, severity: 'low', when: shown };
      const { status, body } = await app.api('POST', '/api/v1/rules/check', draft);
      expect(status, `${text}: ${JSON.stringify(body)}`).toBe(200);
    }
  });

  it.skipIf(!isComplete)(
    'has commands that work when they are pasted, and answer what it says',
    async () => {
      // Without its build: other tests run what that would write.
      const tool = [process.execPath, ...nodeArguments('bench/rules.ts')].join(' ');
      const mqttPort = new URL(app.addresses.mqttUrl).port;
      const blocks = blocksOf('sh').map((block) =>
        block
          .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
          .replaceAll('-h 127.0.0.1', `-h 127.0.0.1 -p ${mqttPort}`)
          .replaceAll('./data/', `${app.dataDir}/`)
          .replaceAll('npm run rules --', tool),
      );
      const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks].join('\n');
      const { stdout } = await run('bash', ['-c', script], 150_000);
      expect(stdout).not.toContain('"status":4');
      expect(stdout).toMatch(/"rule":"boiler too hot",.*"device":"first",.*"state":"firing"/);
      expect(stdout).toContain('"summary":"first is at 85 °C"');
      expect(stdout).toMatch(/"content":"on my way"/);
      expect(stdout).toMatch(/"state":"resolved".*"reason":"condition_cleared"/);
      expect(stdout).toContain('"words":"resolved: the condition ceased to hold at');
      expect(stdout).toMatch(/"state":"inactive","reasons":\["Its condition did not hold\."/);
      expect(stdout).toMatch(/"comparison":\{"inForce":\{"version":\d/);
      expect(stdout).toContain('no device has sent a metric \\"tmp\\"');
      expect(stdout).toContain('"type":"boiler"');
      expect(stdout).toMatch(/"version":2.*"for":"10s"/);
      expect(stdout).toMatch(/"precision":null/);
      expect(stdout).toContain('"kind":"maintenance"');
    },
  );
});
