import type { MqttClient } from 'mqtt';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { whileAway } from '../support/database-faults.ts';
import { startHttpReceiver } from '../support/senders.ts';

const HOUR_MS = 3_600_000;
const SETTINGS = {
  SPOOL_AFTER_MS: '200',
  NOTIFY_PRIVATE_ADDRESSES: '127.0.0.0/8',
  NOTIFY_HTTP_ALLOWED: 'yes',
};

let app: TestApp;
/** What the program's clock has beyond the real one. */
let aheadMs = 0;
const faults: string[] = [];
/** What must not be met, whatever devices and people do. */
const FAULTS = /has thrown|not evaluated|step of an alert refused|given up/;
const log = pino(
  { level: 'warn' },
  { write: (line) => void (FAULTS.test(line) && faults.push(line)) },
);
beforeAll(async () => {
  app = await startTestApp(SETTINGS, { log, now: () => Date.now() + aheadMs });
});
afterEach(() => {
  const met = faults.splice(0);
  if (met.length > 0) throw new Error(met.join('\n'));
});
afterAll(() => app.stop());

let made = 0;

/** A device with a rule for it alone. */
interface Watched {
  readonly name: string;
  readonly ruleId: string;
  readonly client: MqttClient;
  readonly send: (values: object) => Promise<void>;
}

async function watch(rule: object = {}): Promise<Watched> {
  made += 1;
  const name = `device-${made}`;
  const client = await app.connect(await app.addDevice(name));
  const ruleId = await makeRule({ name, scope: { devices: [name] }, ...rule });
  return {
    name,
    ruleId,
    client,
    send: async (values) => {
      await client.publishAsync('v1/me/data', JSON.stringify(values), { qos: 1 });
    },
  };
}

async function makeRule(change: object): Promise<string> {
  const { status, body } = await app.api('POST', '/api/v1/rules', {
    severity: 'high',
    when: { metric: 'temp', op: '>', value: 80 },
    ...change,
  });
  expect(status, JSON.stringify(body)).toBe(201);
  return body.id as string;
}

interface Step {
  readonly to: string;
  readonly reason: string;
}

/** The steps of all alerts of a rule, those of one alert behind one another. */
async function stepsOf(ruleId: string): Promise<Step[]> {
  const { rows } = await app.testDatabase.database.pool.query<Step>(
    `SELECT step.to_state AS to, step.reason FROM alert_transition AS step
     JOIN alert USING (alert_id) JOIN alert_rule ON alert_rule.rule_id = step.rule_id
     WHERE alert_rule.public_id = $1 ORDER BY alert.active_at, alert_id, step.sequence`,
    [ruleId],
  );
  return rows;
}

const isAt = async (ruleId: string, to: string): Promise<boolean> =>
  (await stepsOf(ruleId)).at(-1)?.to === to;

const fires = (ruleId: string): Promise<void> =>
  eventually('it fires', () => isAt(ruleId, 'firing'));
const ends = (ruleId: string): Promise<void> =>
  eventually('it ends', () => isAt(ruleId, 'inactive'));

async function readings(name: string): Promise<number> {
  const { rows } = await app.testDatabase.database.pool.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM reading JOIN device USING (device_id) WHERE slug = $1`,
    [name],
  );
  return rows[0]?.count ?? 0;
}

describe('an alert that fires ends', () => {
  it('when its device is deleted, and a new device of that name begins anew (L-07)', async () => {
    const { name, ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    expect((await app.api('DELETE', `/api/v1/devices/${name}`)).status).toBe(204);
    await eventually('nothing of it is open', async () => {
      const { body } = await app.api('GET', `/api/v1/alerts?state=firing,pending&rule=${ruleId}`);
      return body.data.length === 0;
    });
    const again = await app.connect(await app.addDevice(name));
    await again.publishAsync('v1/me/data', '{"temp":20}', { qos: 1 });
    await again.publishAsync('v1/me/data', '{"temp":91}', { qos: 1 });
    await eventually('it fires for the new one', async () => {
      const { body } = await app.api('GET', `/api/v1/alerts?state=firing&rule=${ruleId}`);
      return body.data.length === 1 && body.data[0].value === 91;
    });
  });

  it('when its device loses the tag of the scope (L-07)', async () => {
    const { name, ruleId, send } = await watch({ scope: { tags: ['hall-9'] } });
    const tagged = (tags: string[]) => app.api('PATCH', `/api/v1/devices/${name}`, { tags });
    await tagged(['hall-9']);
    await send({ temp: 90 });
    await fires(ruleId);
    await tagged([]);
    await ends(ruleId);
    expect(await stepsOf(ruleId)).toMatchObject([
      { to: 'firing' },
      { to: 'inactive', reason: 'out_of_scope' },
    ]);
    await tagged(['hall-9']);
    await send({ temp: 91 });
    await fires(ruleId);
  });

  it.each([
    ['disable', 'rule_disabled'],
    ['delete', 'rule_deleted'],
  ])('when somebody does %s its rule (L-07)', async (act, reason) => {
    const { ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    if (act === 'delete') await app.api('DELETE', `/api/v1/rules/${ruleId}`);
    else await app.api('POST', `/api/v1/rules/${ruleId}/${act}`);
    await ends(ruleId);
    expect(await stepsOf(ruleId)).toMatchObject([{ to: 'firing' }, { to: 'inactive', reason }]);
  });

  it('when its rule says something else that does not hold, and goes on when it holds (L-07)', async () => {
    const { ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    const say = (value: number) =>
      app.api('PATCH', `/api/v1/rules/${ruleId}`, { when: { metric: 'temp', op: '>', value } });
    expect((await say(85)).status).toBe(200);
    await send({ temp: 91 });
    expect(await stepsOf(ruleId)).toHaveLength(1);
    expect((await say(95)).status).toBe(200);
    await ends(ruleId);
    expect(await stepsOf(ruleId)).toMatchObject([
      { to: 'firing' },
      { to: 'inactive', reason: 'rule_changed' },
    ]);
  });
});

describe('a rule', () => {
  it('is in force when it is answered: for a device in memory, and a metric that no rule looked at', async () => {
    const { name, ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    const when = { metric: 'rh', window: '1m', fn: 'max', op: '>', value: 50 };
    for (let round = 1; round <= 5; round += 1) {
      const made = await makeRule({ name: `${name} ${round}`, scope: { devices: [name] }, when });
      await send({ rh: 60 + round });
      await fires(made);
    }
  });

  it('for a metric that nobody has sent is warned of, and fires when it is sent', async () => {
    const when = { metric: 'never.seen', op: '>', value: 1 };
    const { body } = await app.api('POST', '/api/v1/rules/check', {
      name: 'x',
      severity: 'low',
      when,
    });
    expect(JSON.stringify(body.warnings)).toContain('never.seen');
    const { ruleId, send } = await watch({ when });
    await send({ temp: 90 });
    await send({ 'never.seen': 2 });
    await fires(ruleId);
  });

  it('outlives a metric that is sent as another kind', async () => {
    const { ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    await send({ temp: 'very hot' });
    await send({ temp: 91 });
    await fires(ruleId);
    // A boolean is 0 or 1 where numbers are compared.
    await send({ temp: true });
    await ends(ruleId);
    await send({ temp: 92 });
    await fires(ruleId);
  });

  it('takes no notice of a device in quarantine', async () => {
    const { name, ruleId, send } = await watch();
    await send({ temp: 20 });
    await app.api('PATCH', `/api/v1/devices/${name}`, { quarantined: true });
    await send({ temp: 90 });
    await app.api('PATCH', `/api/v1/devices/${name}`, { quarantined: false });
    await send({ temp: 21 });
    await send({ temp: 92 });
    await fires(ruleId);
    expect(await stepsOf(ruleId)).toHaveLength(1);
  });

  it('is evaluated once for what waited in the spool (D-04)', async () => {
    const { name, ruleId, send } = await watch();
    await send({ temp: 20 });
    await whileAway(app.testDatabase, async () => {
      for (const temp of [90, 20, 91, 21]) await send({ temp });
    });
    await eventually('all is stored', async () => (await readings(name)) === 5, 20_000);
    await eventually('all is written', async () => (await stepsOf(ruleId)).length >= 4);
    await send({ temp: 22 });
    expect((await stepsOf(ruleId)).map(({ to }) => to)).toEqual([
      'firing',
      'inactive',
      'firing',
      'inactive',
    ]);
  });

  it('fires with the time at which it was due when the database was away then, and tells it once (D-04)', async () => {
    const { name, ruleId, send } = await watch({ for: '1s' });
    const receiver = await startHttpReceiver((response) => response.writeHead(200).end());
    const hook = await app.api('POST', '/api/v1/receivers', {
      name: 'hook',
      kind: 'webhook',
      settings: { url: `http://127.0.0.1:${receiver.port}/hook` },
      secret: 'a secret that nobody sees',
    });
    await app.api('POST', '/api/v1/notification-routes', {
      name: 'hook',
      matchers: [{ label: 'device', op: '=', value: name }],
      receivers: [hook.body.id],
      groupWait: '0s',
      groupInterval: '1s',
    });
    await send({ temp: 90 });
    await whileAway(app.testDatabase, async () => {
      await new Promise((resolve) => setTimeout(resolve, 3000));
    });
    await eventually('it is told', () => receiver.received.length > 0, 20_000);
    const { body } = await app.api('GET', `/api/v1/alerts?rule=${ruleId}`);
    expect(body.data).toMatchObject([{ state: 'firing' }]);
    const [{ firedAt, activeAt }] = body.data;
    expect(Date.parse(firedAt) - Date.parse(activeAt)).toBe(1000);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(receiver.received).toHaveLength(1);
    await receiver.close();
  });

  it('does not fire for history that is imported', async () => {
    const { name, ruleId, send } = await watch();
    await send({ temp: 20 });
    const line = { device: name, ts: Date.now() + aheadMs - 2 * HOUR_MS, temp: 95 };
    const { httpUrl } = app.addresses;
    const answer = await fetch(`${httpUrl}/api/v1/import?format=ndjson&source=${name}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${app.adminKey}` },
      body: `${JSON.stringify(line)}\n`,
    });
    expect(answer.status, await answer.text()).toBe(200);
    await eventually('it is stored', async () => (await readings(name)) === 2);
    await send({ temp: 21 });
    await send({ temp: 90 });
    await fires(ruleId);
    expect(await stepsOf(ruleId)).toHaveLength(1);
  });

  it('whose alerts flap without end is suspended with its reason, and all is stored (L-01)', async () => {
    const { name, ruleId, send } = await watch();
    await Promise.all(
      Array.from({ length: 1500 }, (_, number) => send({ temp: 20 + 70 * (number % 2) })),
    );
    await eventually('it is suspended', async () => {
      const { body } = await app.api('GET', `/api/v1/rules/${ruleId}`);
      return /more than 600 steps in a minute/.test(body.suspendedReason);
    });
    expect(await readings(name)).toBe(1500);
    await ends(ruleId);
    const isRecorded = async () => (await app.metric('puback_rules_transitions_rows')) === 0;
    await eventually('all is recorded', isRecorded);
    const steps = (await stepsOf(ruleId)).length;
    for (let number = 0; number < 100; number += 1) await send({ temp: 20 + 70 * (number % 2) });
    expect(await readings(name)).toBe(1600);
    await eventually('all is recorded', isRecorded);
    expect(await stepsOf(ruleId)).toHaveLength(steps);
  });

  it('that 3000 events set off takes a step or two a second (L-01)', async () => {
    const { name, ruleId, client } = await watch({ when: { event: 'fault' } });
    const startedMs = performance.now();
    const events = Array.from({ length: 3000 }, (_, number) =>
      client.publishAsync('v1/me/event/fault', JSON.stringify({ number }), { qos: 1 }),
    );
    await Promise.all(events);
    const { rows } = await app.testDatabase.database.pool.query(
      `SELECT count(*)::int4 AS count FROM event JOIN device USING (device_id) WHERE slug = $1`,
      [name],
    );
    expect(rows).toEqual([{ count: 3000 }]);
    await ends(ruleId);
    const seconds = (performance.now() - startedMs) / 1000;
    expect((await stepsOf(ruleId)).length).toBeLessThan(4 + 2 * seconds);
  });

  it('that holds for a while after each of 3000 events has one alert (L-01)', async () => {
    const { ruleId, client } = await watch({ when: { event: 'fault', holds: '1m' } });
    const events = Array.from({ length: 3000 }, () =>
      client.publishAsync('v1/me/event/fault', '{}', { qos: 1 }),
    );
    await Promise.all(events);
    await fires(ruleId);
    expect(await stepsOf(ruleId)).toHaveLength(1);
  });
});

// Last: the clock of the program is not what it was behind them.
describe('a clock', () => {
  it('that is set an hour ahead fires what is pending at the time at which it was due', async () => {
    const { ruleId, send } = await watch({ for: '30s' });
    await send({ temp: 90 });
    await eventually('it is pending', () => isAt(ruleId, 'pending'));
    aheadMs += HOUR_MS;
    await fires(ruleId);
    const { body } = await app.api('GET', `/api/v1/alerts?rule=${ruleId}`);
    const [{ firedAt, activeAt }] = body.data;
    expect(Date.parse(firedAt) - Date.parse(activeAt)).toBe(30_000);
    await send({ temp: 20 });
    await ends(ruleId);
    expect(body.data).toHaveLength(1);
  });

  it('that is set an hour back fires nothing twice and acknowledges what is sent', async () => {
    const { ruleId, send } = await watch();
    await send({ temp: 90 });
    await fires(ruleId);
    aheadMs -= HOUR_MS;
    for (const temp of [20, 90, 20, 91]) await send({ temp });
    aheadMs += HOUR_MS + 1000;
    await send({ temp: 92 });
    await send({ temp: 21 });
    await ends(ruleId);
    const steps = (await stepsOf(ruleId)).map(({ to }) => to);
    expect(steps).toEqual(['firing', 'inactive']);
  });
});
