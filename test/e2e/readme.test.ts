import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { nodeArguments } from '../../bench/program.ts';
import { SimulatedFirmware } from '../../bench/simulated-firmware.ts';
import { findPackageRoot } from '../../drizzle/package-root.ts';
import { startTestApp, type TestApp } from '../support/app.ts';
import { freePort } from '../support/free-port.ts';
import { hasProgram, run } from '../support/programs.ts';

const isComplete = ['mosquitto_pub', 'mosquitto_sub', 'curl', 'bash'].every((program) =>
  hasProgram(program, 'the tour of the README'),
);

const ESP32 = 'An ESP32: flash one string, first reading, first command';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp({ NOTIFY_PRIVATE_ADDRESSES: '127.0.0.1', NOTIFY_HTTP_ALLOWED: 'yes' });
});
afterAll(() => app.stop());

async function chapterOf(chapter: string, page = 'README.md'): Promise<string> {
  const text = await readFile(`${findPackageRoot()}/${page}`, 'utf8');
  return text.split(/^## /m).find((part) => part.startsWith(`${chapter}\n`)) ?? '';
}

/** The shell blocks of a chapter, with the addresses and the folder of this test. */
async function commandsOf(chapter: string, page = 'README.md'): Promise<string[]> {
  const text = await chapterOf(chapter, page);
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

describe.skipIf(!isComplete)('the tour of the README', { timeout: 180_000 }, () => {
  it('works when it is pasted, and its commands answer what it says', async () => {
    const blocks = await commandsOf('A tour in 60 seconds');
    expect(blocks.length).toBeGreaterThan(4);
    const more = await commandsOf('Five minutes more', 'docs/tour.md');
    expect(more.length).toBeGreaterThan(5);
    // With TimescaleDB the backup is pg_dump's.
    const isOwn = !app.testDatabase.database.capabilities.hypertables;
    const kept = isOwn ? more : more.map((block) => block.replaceAll(/^.*backup.*$/gm, ''));
    const script = ['set -eu', `cd ${findPackageRoot()}`, ...blocks, ...kept].join('\n');
    const { stdout } = await run('bash', ['-c', script], 150_000);
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

  it('shows an alert: fired, explained, looked for and told of', async () => {
    const [keys] = await commandsOf('A tour in 60 seconds');
    const blocks = await commandsOf('Alerts');
    expect(blocks.length).toBeGreaterThan(5);
    blocks.push(...(await commandsOf('Who is told of an alert', 'docs/tour.md')));
    const port = await freePort();
    const script = ['set -eu', `cd ${findPackageRoot()}`, keys, ...blocks]
      .join('\n')
      .replaceAll('8099', port);
    const { stdout } = await run('bash', ['-c', script], 150_000);
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
    expect(stdout).toContain('"noData":"auto"');
  });

  it('shows a first reading, a first command and the fleet, with a board that obeys', async () => {
    const [keys] = await commandsOf('A tour in 60 seconds');
    const chapters = await Promise.all([commandsOf(ESP32), commandsOf('The fleet')]);
    await app.api('POST', '/api/v1/devices', { device: 'sim-001', tags: ['simulated'] });
    await app.api('POST', '/api/v1/devices', { device: 'boiler-7' });
    await app.api('POST', '/api/v1/devices/boiler-7/keys', {});
    const { mqttUrl } = app.addresses;
    const board = new SimulatedFirmware({ access: { key: app.deviceKey }, mqttUrl });
    board.start();
    try {
      await vi.waitFor(() => expect(board.isConnected).toBe(true), { timeout: 20_000 });
      board.publish({ temp: 20.25 });
      const script = ['set -eu', `cd ${findPackageRoot()}`, keys, ...chapters.flat()].join('\n');
      const { stdout } = await run('bash', ['-c', script], 150_000);
      expect(stdout).not.toMatch(/"status":[45]/);
      expect(stdout).toContain(app.deviceKey);
      expect(stdout).toContain('"value":20.25');
      expect(stdout).toMatch(/"args":\{"on":true\},"state":"succeeded","result":\{"on":true\}/);
      expect(stdout).toMatch(/"desired":\{"every":60,"mode":"auto"\}/);
      expect(stdout).toMatch(/"devices":1|sim-001/);
      expect(stdout).toContain('"command":"sys.rekey"');
      await vi.waitFor(() => {
        expect(board.executed.map(({ cmd, args }) => [cmd, args['on']])).toEqual([
          ['relay', true],
          ['relay', false],
        ]);
        expect(board.configuration).toEqual({ every: 60, mode: 'auto' });
      }, 20_000);
    } finally {
      await board.stop();
    }
  });
});

describe('the sketch of the README', () => {
  it('is the one in the examples, which is checked against stub headers', async () => {
    const path = `${findPackageRoot()}/firmware-protocol/examples/Basic/Basic.ino`;
    const sketch = await readFile(path, 'utf8');
    expect(await chapterOf(ESP32)).toContain(`\`\`\`cpp\n${sketch.trimEnd()}\n\`\`\``);
  });
});
