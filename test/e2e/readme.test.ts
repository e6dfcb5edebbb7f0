import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeArguments } from '../../bench/program.ts';
import { findFreePort } from '../../bench/tls-settings.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'mosquitto_sub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the tour of the README'),
);

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ NOTIFY_PRIVATE_ADDRESSES: '127.0.0.1', NOTIFY_HTTP_ALLOWED: 'yes' });
});
afterAll(() => app.stop());

/** The shell blocks of a chapter, with the addresses and the folder of this test. */
async function commandsOf(chapter: string): Promise<string[]> {
  const readme = await readFile(`${findPackageRoot()}/README.md`, 'utf8');
  const text = readme.split(/^## /m).find((part) => part.startsWith(`${chapter}\n`)) ?? '';
  const mqttPort = new URL(app.addresses.mqttUrl).port;
  return [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map((block) =>
    (block[1] ?? '')
      .replaceAll('http://127.0.0.1:8080', app.addresses.httpUrl)
      .replaceAll('-h 127.0.0.1', `-h 127.0.0.1 -p ${mqttPort}`)
      .replaceAll('./data/', `${app.dataDir}/`)
      .replaceAll(/ data\//g, ` ${app.dataDir}/`)
      .replaceAll('npm run import --', toolOf('import'))
      .replaceAll('npm run backup --', toolOf('backup'))
      // That there are problems to be told of is no failure of the tour.
      .replaceAll('npm run db:doctor', `{ ${toolOf('doctor')} || test $? -eq 1; }`),
  );
}

/** A tool without its build: other tests run what that would write. */
function toolOf(name: string): string {
  const words = [process.execPath, ...nodeArguments(`bench/${name}.ts`)].join(' ');
  return `DATABASE_URL='${app.testDatabase.url}' DATA_DIR=${app.dataDir} ${words}`;
}

describe.skipIf(!isComplete)('the tour of the README', { timeout: 100_000 }, () => {
  it('works when it is pasted, and its commands answer what it says', async () => {
    const blocks = await commandsOf('A tour in 60 seconds');
    expect(blocks.length).toBeGreaterThan(4);
    const more = await commandsOf('Five minutes more');
    expect(more.length).toBeGreaterThan(5);
    // With TimescaleDB the backup is pg_dump's.
    const isOwn = !app.testDatabase.database.capabilities.hypertables;
    const kept = isOwn ? more : more.map((block) => block.replaceAll(/^.*backup.*$/gm, ''));
    const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks, ...kept].join('\n');
    const { stdout } = await run('bash', ['-c', script], 90_000);
    expect(stdout).toContain('"metric":"temp","value":21.5');
    expect(stdout).toContain('"metric":"temp","value":21.7');
    expect(stdout).toContain('"code":"bad_json"');
    expect(stdout).toContain('"device":"boiler-7"');
    expect(stdout).toContain('v1/demo/first/data {"ts":');
    expect(stdout).toContain('"refusals"');
    expect(stdout).toMatch(/"key":"pbd_\w{8}_\w{33}"/);
    for (const value of [22.1, 22.2, 25, 20.5]) {
      const asked = await app.api('GET', '/api/v1/devices/first/readings?metric=temp');
      expect(asked.body.data.map((row: { value: number }) => row.value)).toContain(value);
    }
    expect(stdout).toContain('"name":"door"');
    expect(stdout).toContain('"message":"no beacon"');
    expect(stdout).toMatch(/"metric":"temp","count":\d/);
    expect(stdout).toContain('"boots":');
    expect(stdout).toContain('{"stored":1,"refused":[]');
    expect(stdout).toContain('"quarantined":true');
    expect(stdout).toContain('2 lines read, none refused');
    expect(stdout).toContain('"class":"raw","days":30');
    if (isOwn) expect(stdout).toContain('backup: ');
  });

  it('shows an alert: fired, explained, told of, silenced and backtested', async () => {
    const [keys] = await commandsOf('A tour in 60 seconds');
    const blocks = await commandsOf('Alerts');
    expect(blocks.length).toBeGreaterThan(8);
    const port = await findFreePort();
    const script = ['set -eu', `cd ${findPackageRoot()}`, keys, ...blocks]
      .join('\n')
      .replaceAll('8099', String(port));
    const { stdout } = await run('bash', ['-c', script], 60_000);
    expect(stdout).not.toMatch(/"status":[45]/);
    expect(stdout).toMatch(/"rule":"boiler too hot".*"state":"firing".*"value":85/);
    expect(stdout).toMatch(/"summary":"Rule \\"boiler too hot\\" on device first fired as high at/);
    expect(stdout).toContain('nobody was told, because no notification route matches the alert');
    expect(stdout).toContain('"snoozedUntil":"20');
    expect(stdout).toContain('temp was 79 at');
    expect(stdout).toMatch(/It fired last at .* and was resolved at /);
    expect(stdout).toMatch(/told: .*"kind":"test"/);
    expect(stdout).toMatch(/told: .*"kind":"alert".*"state":"firing".*"value":86/);
    expect(stdout).toMatch(/"name":"duty".*"told":true/);
    expect(stdout).toMatch(/"receiver":"duty".*"state":"sent"/);
    expect(stdout).toMatch(/"result":.*"asked":\{"version":null.*"inForce":\{"version":1/);
    expect(stdout).toContain('"mode":"enabled"');
    expect(stdout).toContain('"noData":"auto"');
  });
});
