import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { logTail, startProgram, type Program } from '../../bench/program.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';
import { connectDevice, eventually } from '../support/app.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { whileLocked } from '../support/database-faults.ts';
import { startHttpReceiver, type ReceivedRequest, type TestReceiver } from '../support/senders.ts';

const RULE = {
  name: 'boiler too hot',
  severity: 'critical',
  when: { metric: 'temp', op: '>', value: 80, clear: 75 },
  // Behind a start timers wait for three seconds.
  for: '6s',
  keepFiringFor: '2500ms',
};
const WAIT_MS = 30_000;

let folder: ScratchFolder;
let test: TestDatabase;
let program: Program;
let receiver: TestReceiver<ReceivedRequest>;
/** What the receiver answers with. */
let status: number;

beforeEach(async () => {
  status = 200;
  [folder, test, receiver] = await Promise.all([
    makeScratchFolder('rules-notify-crash'),
    createTestDatabase(),
    startHttpReceiver((response) => response.writeHead(status).end()),
  ]);
  await start();
  const { id } = await api('POST', '/api/v1/receivers', {
    name: 'hook',
    kind: 'webhook',
    settings: { url: `http://127.0.0.1:${receiver.port}/hook` },
    secret: 'a secret that nobody sees',
  });
  const route = { name: 'all', receivers: [id], groupWait: '0s', groupInterval: '1s' };
  await api('POST', '/api/v1/notification-routes', route);
  await api('POST', '/api/v1/rules', RULE);
});
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') process.stderr.write(await logTail(folder.logFile));
  await program.stop();
  await Promise.all([receiver.close(), test.drop(), folder.remove()]);
});

async function start(): Promise<void> {
  const { dataDir, logFile } = folder;
  const environment = {
    MQTT_PORT: '0',
    HTTP_PORT: '0',
    MQTTS_PORT: '0',
    DATABASE_URL: test.url,
    LOG_LEVEL: 'info',
    NOTIFY_PRIVATE_ADDRESSES: '127.0.0.0/8',
    NOTIFY_HTTP_ALLOWED: 'yes',
  };
  program = await startProgram({ dataDir, logFile, environment });
}

async function killAndStart(): Promise<void> {
  await kill();
  await start();
}

async function kill(): Promise<void> {
  program.kill('SIGKILL');
  await program.exited;
}

async function api(method: string, path: string, body: unknown): Promise<{ id: string }> {
  const { httpUrl, adminKey } = program.credentials;
  const answer = await fetch(`${httpUrl}${path}`, {
    method,
    headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  expect(answer.status, await answer.clone().text()).toBe(201);
  return (await answer.json()) as { id: string };
}

/** Publishes a temperature and waits for its PUBACK. */
async function publish(temp: number): Promise<void> {
  const { mqttUrl, deviceKey } = program.credentials;
  const client = await connectDevice(mqttUrl, deviceKey);
  await client.publishAsync('v1/me/data', JSON.stringify({ temp }), { qos: 1 });
  await client.endAsync();
}

/** All alerts: state and how long each part of their life took, in ms. */
async function alerts(): Promise<{ state: string; forMs: number; clearMs: number }[]> {
  const { rows } = await test.database.pool.query(
    `SELECT state, 1000 * extract(epoch FROM fired_at - active_at)::float8 AS "forMs",
       1000 * extract(epoch FROM resolved_at - (
         SELECT max(time) FROM reading WHERE reading.device_id = alert.device_id
       ))::float8 AS "clearMs"
     FROM alert ORDER BY active_at`,
  );
  return rows;
}

const stateIs = async (state: string): Promise<boolean> => {
  const [alert, ...others] = await alerts();
  return alert?.state === state && others.length === 0;
};

/** Attempts by id of the message: what it said, and how often it came. */
function told(): { state: string; attempts: number }[] {
  const byId = new Map<string, { state: string; attempts: number }>();
  for (const { headers, body } of receiver.received) {
    const id = String(headers['x-puback-delivery']);
    const { state } = JSON.parse(body) as { state: string };
    byId.set(id, { state, attempts: (byId.get(id)?.attempts ?? 0) + 1 });
  }
  return [...byId.values()];
}

async function hasRows(sql: string): Promise<boolean> {
  return (await test.database.pool.query(sql)).rows.length > 0;
}

describe('a program that is killed', { timeout: 120_000 }, () => {
  it('in "for", between two attempts to tell it, and in "keepFiringFor" tells once that it fires and once that it is over (L-03)', async () => {
    status = 503;
    await publish(20);
    await publish(81);
    await eventually('it is pending', () => stateIs('pending'));
    await killAndStart();
    await eventually('it fires', () => stateIs('firing'), WAIT_MS);
    const tried = `SELECT FROM notification WHERE attempts > 0 AND reason IS NOT NULL`;
    await eventually('a failed attempt', () => hasRows(tried), WAIT_MS);
    await kill();
    const attempts = receiver.received.length;
    status = 200;
    await start();
    const sent = (count: number) => async (): Promise<boolean> =>
      (await test.database.pool.query(`SELECT FROM notification WHERE state = 'sent'`)).rows
        .length === count;
    await eventually('it is told', sent(1), WAIT_MS);
    expect(told()).toEqual([{ state: 'firing', attempts: attempts + 1 }]);
    await publish(70);
    await killAndStart();
    expect(await stateIs('firing')).toBe(true);
    await eventually('it is told that it is over', sent(2), WAIT_MS);
    expect(told()).toEqual([
      { state: 'firing', attempts: attempts + 1 },
      { state: 'resolved', attempts: 1 },
    ]);
    expect(await alerts()).toEqual([{ state: 'resolved', forMs: 6000, clearMs: 2500 }]);
  });

  it('between an alert on record and the decision to tell it tells it once (L-03)', async () => {
    await whileLocked(test, 'notification_group', async () => {
      await publish(81);
      await eventually('it fires', () => stateIs('firing'), WAIT_MS);
      await kill();
    });
    expect(receiver.received).toEqual([]);
    await start();
    await eventually('it is told', () => receiver.received.length > 0, WAIT_MS);
    const untold = `SELECT FROM alert_transition WHERE notified_at IS NULL`;
    await eventually('nothing is left to tell', async () => !(await hasRows(untold)));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(told()).toEqual([{ state: 'firing', attempts: 1 }]);
  });
});
