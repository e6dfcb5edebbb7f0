import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { logTail, startProgram, stopLeftDatabase, type Program } from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';
import { connectDevice, eventually } from '../support/app.ts';

const FOR_MS = 4000;
const RULE = {
  name: 'boiler too hot',
  severity: 'critical',
  when: { metric: 'temp', op: '>', value: 80, clear: 75 },
  for: `${FOR_MS}ms`,
};

let folder: ScratchFolder;
let program: Program | undefined;
beforeEach(async () => {
  folder = await makeScratchFolder('rules-crash-test');
});
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  await program?.stop();
  await stopLeftDatabase(folder.dataDir);
  await folder.remove();
});

function running(): Program {
  if (program === undefined) throw new Error('the program is not running');
  return program;
}

async function makeRule(): Promise<void> {
  await start();
  expect((await api('POST', '/api/v1/rules', RULE)).status).toBe(201);
}

async function start(): Promise<void> {
  const { dataDir, logFile } = folder;
  const environment = { MQTT_PORT: '0', HTTP_PORT: '0', LOG_LEVEL: 'info' };
  program = await startProgram({ dataDir, logFile, environment });
}

async function killAndStart(): Promise<void> {
  running().kill('SIGKILL');
  await running().exited;
  await start();
}

interface Answer {
  readonly status: number;
  readonly body: { data: AlertView[]; transitions: { to: string; at: string }[] };
}

interface AlertView {
  readonly id: string;
  readonly state: string;
  readonly activeAt: string;
  readonly firedAt: string | null;
}

async function api(method: string, path: string, body?: unknown): Promise<Answer> {
  const { httpUrl, adminKey } = running().credentials;
  const answer = await fetch(`${httpUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Answer['body'] };
}

async function alerts(): Promise<AlertView[]> {
  return (await api('GET', '/api/v1/alerts')).body.data;
}

async function stepsOf(alert: AlertView | undefined): Promise<string[]> {
  const { body } = await api('GET', `/api/v1/alerts/${alert?.id}/explain`);
  return body.transitions.map(({ to }) => to);
}

/** Publishes a temperature and waits for its PUBACK. */
async function publish(temp: number): Promise<void> {
  const { mqttUrl, deviceKey } = running().credentials;
  const client = await connectDevice(mqttUrl, deviceKey);
  await client.publishAsync('v1/me/data', JSON.stringify({ temp }), { qos: 1 });
  await client.endAsync();
}

const stateIs = async (state: string): Promise<boolean> => {
  const [alert, ...others] = await alerts();
  return alert?.state === state && others.length === 0;
};

function forMs(alert: AlertView | undefined): number {
  return Date.parse(alert?.firedAt ?? '') - Date.parse(alert?.activeAt ?? '');
}

describe('a program that is killed', { timeout: 120_000 }, () => {
  it('during "for" fires when it is due, and not later for having been away', async () => {
    await makeRule();
    await publish(20);
    await publish(81);
    await eventually('it is pending', () => stateIs('pending'));
    const [pending] = await alerts();
    await killAndStart();
    // The device says nothing more.
    await eventually('it fires', () => stateIs('firing'), 20_000);
    const [firing] = await alerts();
    expect(firing?.id).toBe(pending?.id);
    expect(forMs(firing)).toBe(FOR_MS);
    expect(await stepsOf(firing)).toEqual(['pending', 'firing']);
  });

  it('while an alert fires neither ends it nor begins another', async () => {
    await makeRule();
    await publish(81);
    await eventually('it fires', () => stateIs('firing'), 20_000);
    const [firing] = await alerts();
    await killAndStart();
    await publish(82);
    await publish(76);
    expect(await stateIs('firing')).toBe(true);
    await killAndStart();
    await publish(70);
    await eventually('it resolves', () => stateIs('resolved'), 20_000);
    const [resolved] = await alerts();
    expect(resolved?.id).toBe(firing?.id);
    expect(await stepsOf(resolved)).toEqual(['pending', 'firing', 'inactive']);
  });

  it('right behind the PUBACK of what begins an alert has it all the same', async () => {
    await makeRule();
    await publish(20);
    await publish(81);
    await killAndStart();
    await eventually('it fires', () => stateIs('firing'), 20_000);
    const [firing] = await alerts();
    expect(forMs(firing)).toBe(FOR_MS);
    expect(await stepsOf(firing)).toEqual(['pending', 'firing']);
  });
});
