import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'mosquitto_sub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the commands of docs/commands.md'),
);

let app: TestApp;
let page: string;
beforeAll(async () => {
  app = await startTestApp();
  page = await readFile(`${findPackageRoot()}/docs/commands.md`, 'utf8');
});
afterAll(() => app.stop());

describe('docs/commands.md', { timeout: 180_000 }, () => {
  it.skipIf(!isComplete)(
    'has commands that work when they are pasted, and answer what it says',
    async () => {
      const mqttPort = new URL(app.addresses.mqttUrl).port;
      const blocks = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block = '']) =>
        block
          .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
          .replaceAll('-h 127.0.0.1', `-h 127.0.0.1 -p ${mqttPort}`)
          .replaceAll('./data/', `${app.dataDir}/`),
      );
      const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks].join('\n');
      const { stdout } = await run('bash', ['-c', script], 150_000);
      expect(stdout).toMatch(/\{"id":\d+,"cmd":"relay","args":\{"on":true\},"n":1,"exp":\d+\}$/m);
      expect(stdout).toMatch(/"state":"succeeded","result":\{"on":true\}.*"events":\[/);
      expect(stdout).toMatch(/"args":\{"on":false\},"state":"succeeded".*\n200\n/);
      const [, first, second] = /^([0-9a-f-]{36})\n([0-9a-f-]{36})$/m.exec(stdout) ?? [];
      expect(first).toBe(second);
      expect(stdout).toMatch(/"command":"level".*"state":"cancelled"/);
      expect(stdout).toMatch(/"code":"COMMAND_INVALID".*args\/on/);
      expect(stdout).toMatch(/"code":"COMMAND_UNDEFINED".*they have: relay/);
      expect(stdout).toContain('"code":"APPROVAL_BY_AUTHOR"');
      expect(stdout).toMatch(
        /"command":"sys.reboot".*"state":"(queued|published)".*"approvedBy":"/,
      );
      expect(stdout).toMatch(/"ref":"job42".*"origin":"mqtt"/);
      expect(stdout).toMatch(/v1\/demo\/first\/cmd\/[0-9a-f-]{36} \{.*"ref":"job43"/m);
      expect(stdout).toMatch(
        /^v1\/demo\/first\/cmd\/refused \{.*"ref":"job44","code":"command_inva/m,
      );
      expect(stdout).toMatch(/^\{"command":\{"id":\d+,"cmd":"relay".*"waiting":\d+\}/m);
      expect(stdout).toMatch(/^204$/m);
    },
  );
});
