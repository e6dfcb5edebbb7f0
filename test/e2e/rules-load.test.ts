import type { MqttClient } from 'mqtt';
import { afterEach, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { startHttpReceiver, type ReceivedRequest, type TestReceiver } from '../support/senders.ts';

const RULES = 1000;
const RULE = {
  name: 'rule 0',
  severity: 'high',
  scope: { devices: ['first'] },
  when: { metric: 'temp', op: '>', value: 80 },
};

let app: TestApp;
let receiver: TestReceiver<ReceivedRequest> | null = null;
afterEach(async () => {
  await app.stop();
  await receiver?.close();
  receiver = null;
});

/** Makes as many copies of the one rule, as one statement: what is measured is how they fire. */
async function copyRule(): Promise<void> {
  await app.testDatabase.database.pool.query(
    `WITH copy AS (
       INSERT INTO alert_rule (public_id, organization_id, name, mode, version, revision)
       SELECT gen_random_uuid(), organization_id, 'rule ' || number, mode, 1, revision + number
       FROM alert_rule, generate_series(1, $1::int4) AS number
       RETURNING rule_id, organization_id, name
     )
     INSERT INTO alert_rule_version (rule_id, version, organization_id, definition, created_by)
     SELECT copy.rule_id, 1, copy.organization_id,
       jsonb_set(definition, '{name}', to_jsonb(copy.name)), created_by
     FROM copy, alert_rule_version`,
    [RULES - 1],
  );
  await eventually('all rules are in force', async () => {
    return (await app.metric('puback_rules_active_rules')) === RULES;
  });
}

async function makeRoute(): Promise<void> {
  receiver = await startHttpReceiver((response) => response.writeHead(200).end());
  const { body } = await app.api('POST', '/api/v1/receivers', {
    name: 'hook',
    kind: 'webhook',
    settings: { url: `http://127.0.0.1:${receiver.port}/hook` },
    secret: 'a secret that nobody sees',
  });
  const route = { name: 'all', receivers: [body.id], groupWait: '1s', groupInterval: '10s' };
  expect((await app.api('POST', '/api/v1/notification-routes', route)).status).toBe(201);
}

/** Publishes one by one. @returns how long each PUBACK took, in ms, the longest last. */
async function timesOf(client: MqttClient, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let number = 0; number < count; number += 1) {
    const startedMs = performance.now();
    await client.publishAsync('v1/me/data', `{"rh":${number}}`, { qos: 1 });
    times.push(performance.now() - startedMs);
  }
  return times.sort((a, b) => a - b);
}

const middle = (times: readonly number[]): number => times[Math.floor(times.length / 2)] ?? NaN;

async function count(sql: string): Promise<number> {
  const { rows } = await app.testDatabase.database.pool.query<{ count: number }>(
    `SELECT count(*)::int4 AS count FROM ${sql}`,
  );
  return rows[0]?.count ?? NaN;
}

describe('a thousand rules that fire at once', () => {
  it('are one message, and hold up no other device (L-02)', async () => {
    app = await startTestApp({
      NOTIFY_PRIVATE_ADDRESSES: '127.0.0.0/8',
      NOTIFY_HTTP_ALLOWED: 'yes',
    });
    await makeRoute();
    expect((await app.api('POST', '/api/v1/rules', RULE)).status).toBe(201);
    await copyRule();
    const first = await app.connect(app.deviceKey);
    const other = await app.connect(await app.addDevice('other'));
    await first.publishAsync('v1/me/data', '{"temp":20}', { qos: 1 });
    await timesOf(other, 20);
    const before = await timesOf(other, 60);
    const firing = first.publishAsync('v1/me/data', '{"temp":90}', { qos: 1 });
    const during = await timesOf(other, 60);
    await firing;
    await eventually(
      'all fire',
      async () => (await count(`alert WHERE state = 'firing'`)) === RULES,
    );
    expect(middle(during)).toBeLessThan(10 * middle(before) + 20);
    expect(during.at(-1)).toBeLessThan(5000);
    await eventually('all are told', async () => {
      return (await count('alert_transition WHERE notified_at IS NULL')) === 0;
    });
    const messages = () => (receiver?.received ?? []).map(({ body }) => JSON.parse(body));
    const told = () => messages().map(({ alerts, truncated }) => alerts.length + truncated);
    await eventually('a message of all', () => told().includes(RULES));
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // What fires after the group's first second is in a second one.
    expect(messages().length).toBeLessThanOrEqual(2);
    expect(messages()[0].alerts.length).toBeLessThanOrEqual(100);
    expect(Math.max(...told())).toBe(RULES);
    // Each fired in one step, and takes one to end.
    expect(await count('alert_transition')).toBe(RULES);
    await first.publishAsync('v1/me/data', '{"temp":20}', { qos: 1 });
    await eventually(
      'all end',
      async () => (await count(`alert WHERE state = 'resolved'`)) === RULES,
    );
    expect(await count('alert_transition')).toBe(2 * RULES);
  });
});

describe('a rule that is too dear', () => {
  it('is suspended with its reason, and what is sent is stored', async () => {
    app = await startTestApp({
      RULE_EVALUATION_US_MAX: '10',
      RULE_WINDOW_SAMPLES_MAX: '20000',
    });
    const windows = Array.from({ length: 31 }, (_, index) => ({
      metric: 'temp',
      samples: 20_000,
      fn: `p${index + 40}`,
      op: '>',
      value: 1e6,
    }));
    const { body } = await app.api('POST', '/api/v1/rules', { ...RULE, when: { any: windows } });
    expect(body.id, JSON.stringify(body)).toBeDefined();
    const cheap = await app.api('POST', '/api/v1/rules', { ...RULE, name: 'cheap' });
    const device = await app.connect(app.deviceKey);
    let sent = 0;
    await eventually(
      'it is suspended',
      async () => {
        const values = Array.from({ length: 200 }, () => `{"temp":${((sent += 1) * 7919) % 79.3}}`);
        await Promise.all(
          values.map((text) => device.publishAsync('v1/me/data', text, { qos: 1 })),
        );
        const rule = await app.api('GET', `/api/v1/rules/${body.id}`);
        return rule.body.suspendedReason !== null;
      },
      20_000,
    );
    const rule = await app.api('GET', `/api/v1/rules/${body.id}`);
    expect(rule.body.suspendedReason).toMatch(/an evaluation takes \d+ µs, 10 µs are allowed/);
    expect(await count('reading')).toBe(sent);
    await device.publishAsync('v1/me/data', '{"temp":90}', { qos: 1 });
    await eventually('the other rule fires', async () => {
      const answer = await app.api('GET', `/api/v1/alerts?state=firing&rule=${cheap.body.id}`);
      return answer.body.data.length === 1;
    });
  });
});
