import type { MqttClient } from 'mqtt';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';

let app: TestApp;
beforeEach(async () => {
  app = await startTestApp();
});
afterEach(() => app.stop());

const RULE = {
  name: 'boiler too hot',
  severity: 'critical',
  scope: { devices: ['first'] },
  when: { metric: 'temp', op: '>', value: 80, clear: 75 },
  for: '1s',
  keepFiringFor: '0s',
  annotations: { summary: '{{device}} is at {{value}} °C' },
};

async function makeRule(change: object = {}): Promise<string> {
  const { status, body } = await app.api('POST', '/api/v1/rules', { ...RULE, ...change });
  expect(status, JSON.stringify(body)).toBe(201);
  expect(body).toMatchObject({ version: 1 });
  return body.id as string;
}

/** Publishes a temperature; resolves with its PUBACK. */
async function send(device: MqttClient, temp: number): Promise<void> {
  await device.publishAsync('v1/me/data', JSON.stringify({ temp }), { qos: 1 });
}

async function alerts(query: string): Promise<{ id: string; state: string; value: number }[]> {
  const { status, body } = await app.api('GET', `/api/v1/alerts?${query}`);
  expect(status, JSON.stringify(body)).toBe(200);
  return body.data;
}

describe('a rule', () => {
  it('fires when its condition has held for "for", explains itself, and resolves', async () => {
    await makeRule();
    const device = await app.connect(app.deviceKey);
    await send(device, 20);
    await send(device, 85);
    await eventually('it fires', async () => {
      await send(device, 86);
      return (await alerts('state=firing&device=first')).length === 1;
    });
    const [alert] = await alerts('state=firing&device=first');
    expect(alert).toMatchObject({ rule: 'boiler too hot', device: 'first', severity: 'critical' });
    const explained = await app.api('GET', `/api/v1/alerts/${alert?.id}/explain`);
    expect(explained.status).toBe(200);
    expect(explained.body.transitions.map(({ to }: { to: string }) => to)).toEqual([
      'pending',
      'firing',
    ]);
    expect(explained.body.summary).toMatch(/fired as critical at .* and is firing/);
    await send(device, 70);
    await eventually('it resolves', async () => {
      return (await alerts('state=resolved&device=first')).length === 1;
    });
  });

  it('fires although its device sends nothing more: the last reading holds', async () => {
    await makeRule();
    const device = await app.connect(app.deviceKey);
    await send(device, 90);
    await eventually('it fires', async () => (await alerts('state=firing')).length === 1);
    expect((await alerts('state=firing'))[0]?.value).toBe(90);
  });

  it('says why it did not fire', async () => {
    const ruleId = await makeRule();
    const device = await app.connect(app.deviceKey);
    await send(device, 60);
    const { status, body } = await app.api('GET', `/api/v1/rules/${ruleId}/why-not?device=first`);
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toMatchObject({ state: 'inactive', device: 'first' });
    expect(body.reasons.join(' ')).toContain('temp was 60');
  });

  it('says in its backtest that there is no such rule, whatever text its id is', async () => {
    const { status, body } = await app.api('POST', '/api/v1/rules/backtest', { ruleId: 'hot' });
    expect([status, body.code]).toEqual([404, 'RULE_NOT_FOUND']);
  });

  it.each(['v1/demo/first/alert/boiler-too-hot', 'v1/demo/+/alert/+', 'v1/demo/first/alert/#'])(
    'is told of on the topic of its alert, retained while it fires: %s',
    async (filter) => {
      await makeRule({ for: '0s' });
      const { body: key } = await app.api('POST', '/api/v1/keys', {
        name: 'alerts',
        scopes: ['alert'],
      });
      const device = await app.connect(app.deviceKey);
      await send(device, 90);
      await eventually('it fires', async () => (await alerts('state=firing')).length === 1);
      const reader = await app.connect(key.key as string);
      const got: { payload: string; retain: boolean }[] = [];
      reader.on('message', (_topic, payload, { retain }) => {
        got.push({ payload: payload.toString(), retain });
      });
      await reader.subscribeAsync(filter, { qos: 1 });
      await eventually('the retained alert', () => got.length === 1);
      expect(got[0]).toMatchObject({ retain: true });
      expect(JSON.parse(got[0]?.payload ?? '')).toMatchObject({ state: 'firing' });
      await send(device, 10);
      await eventually('it is said to be resolved', () =>
        got.some(({ payload }) => payload.includes('"resolved"')),
      );
    },
  );

  it('is not evaluated while its organization is suspended, and nobody is told that devices are gone', async () => {
    await makeRule({ for: '0s' });
    await makeRule({ name: 'gone', when: { connection: 'offline' }, for: '0s' });
    const device = await app.connect(app.deviceKey);
    await send(device, 90);
    await eventually('it fires', async () => (await alerts('state=firing')).length === 1);
    const pool = new pg.Pool({ connectionString: app.testDatabase.url, max: 1 });
    await pool.query(`UPDATE organization SET suspended_at = now()`);
    await pool.query(`SELECT pg_notify('puback_revoked', json_build_object('origin', 'another',
      'organizationId', organization_id)::text) FROM organization`);
    await eventually('the device is disconnected', () => !device.connected);
    const steps = async () => {
      const { rows } = await pool.query<{ reason: string }>(
        'SELECT reason FROM alert_transition ORDER BY at',
      );
      return rows.map(({ reason }) => reason);
    };
    await eventually('the alert has ended', async () => (await steps()).length === 2);
    expect(await steps()).toEqual(['condition_holds', 'rule_suspended']);
    await pool.query(`UPDATE organization SET suspended_at = NULL`);
    await pool.end();
    await app.restart();
    const again = await app.connect(app.deviceKey);
    await eventually('it fires again', async () => {
      await send(again, 91);
      return (await alerts('state=firing&device=first')).length === 1;
    });
  });

  it('goes on over a restart: pending and firing, without a second alert', async () => {
    await makeRule();
    const device = await app.connect(app.deviceKey);
    await send(device, 90);
    await eventually('it fires', async () => (await alerts('state=firing')).length === 1);
    const [before] = await alerts('state=firing');
    await app.restart();
    const again = await app.connect(app.deviceKey);
    await send(again, 91);
    await send(again, 92);
    expect(await alerts('')).toHaveLength(1);
    expect((await alerts('state=firing'))[0]?.id).toBe(before?.id);
    await send(again, 10);
    await eventually('it resolves', async () => (await alerts('state=resolved')).length === 1);
  });

  it('is backtested with progress and a result', async () => {
    const device = await app.connect(app.deviceKey);
    for (const temp of [20, 90, 20, 90, 20]) await send(device, temp);
    const { status, body } = await app.api('POST', '/api/v1/rules/backtest', {
      rule: { ...RULE, for: '0s' },
    });
    expect(status).toBe(200);
    const lines = (body as string)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.at(-1)).toMatchObject({
      result: { asked: { fired: 2, resolved: 2 }, comparison: null },
    });
  });
});
