import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';

const RULES = '/api/v1/rules';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

let made = 0;
/** A connected device and a rule that fires above 80 at once, for its tag. */
async function prepare(
  rule: object = {},
): Promise<{ client: MqttClient; slug: string; id: string }> {
  made += 1;
  const slug = `board-${made}`;
  const client = await app.connect(await app.addDevice(slug));
  await app.api('PATCH', `/api/v1/devices/${slug}`, { tags: [`tag-${made}`], type: 'pump' });
  const when = { metric: 'temp', op: '>', value: 80 };
  const scope = { tags: [`tag-${made}`] };
  const draft = { name: `hot ${made}`, severity: 'high', scope, when, ...rule };
  const { status, body } = await app.api('POST', RULES, draft);
  expect(status).toBe(201);
  return { client, slug, id: body.id };
}

const publish = (client: MqttClient, temp: number) =>
  client.publishAsync('v1/me/data', JSON.stringify({ temp }), { qos: 1 });

interface Alert {
  readonly id: string;
  readonly state: string;
}

/** The alerts of a device in a state, once there are so many. */
async function alertsOf(slug: string, state: string, count = 1): Promise<Alert[]> {
  let data: Alert[] = [];
  await eventually(`${count} alerts of ${slug} that are ${state}`, async () => {
    ({ data } = (await app.api('GET', `/api/v1/alerts?device=${slug}&state=${state}`)).body);
    return data.length === count;
  });
  return data;
}

async function lastReason(alertId: string): Promise<string> {
  const { body } = await app.api('GET', `/api/v1/alerts/${alertId}`);
  return body.transitions.at(-1).reason;
}

describe('a rule over HTTP', () => {
  it('is in force for the first reading behind the answer, and so is a change of it', async () => {
    const { client, slug, id } = await prepare();
    await publish(client, 81);
    const [first] = await alertsOf(slug, 'firing');
    await publish(client, 79);
    await alertsOf(slug, 'resolved');
    const when = { metric: 'temp', op: '>', value: 70 };
    await app.api('PATCH', `${RULES}/${id}`, { when });
    await publish(client, 71);
    const [second] = await alertsOf(slug, 'firing');
    expect(second?.id).not.toBe(first?.id);
    expect(second).toMatchObject({ ruleVersion: 2, value: 71 });
  });

  it.each([
    ['disabled', 'rule_disabled', 'POST', '/disable'],
    ['deleted', 'rule_deleted', 'DELETE', ''],
  ])('that is %s ends its alert with that reason (L-07)', async (_what, reason, method, path) => {
    const { client, slug, id } = await prepare();
    await publish(client, 81);
    const [alert] = await alertsOf(slug, 'firing');
    await app.api(method, `${RULES}/${id}${path}`);
    await alertsOf(slug, 'resolved');
    expect(await lastReason(alert?.id ?? '')).toBe(reason);
  });

  it('ends its alert when the device leaves its scope, by tag or by type', async () => {
    for (const [scope, change] of [
      [{}, { tags: ['elsewhere'] }],
      [{ scope: { types: ['pump'], devices: [`board-${made + 2}`] } }, { type: null }],
    ] as const) {
      const { client, slug } = await prepare(scope);
      await publish(client, 81);
      const [alert] = await alertsOf(slug, 'firing');
      await app.api('PATCH', `/api/v1/devices/${slug}`, change);
      await alertsOf(slug, 'resolved');
      expect(await lastReason(alert?.id ?? '')).toBe('out_of_scope');
    }
  });

  it('meets a device that comes into its scope', async () => {
    const { client, slug } = await prepare({ scope: { types: ['valve'] } });
    await publish(client, 81);
    await app.api('PATCH', `/api/v1/devices/${slug}`, { type: 'valve' });
    await publish(client, 82);
    await alertsOf(slug, 'firing');
  });
});

describe('an alert over HTTP', () => {
  it('is resolved by hand, and another begins while its condition holds', async () => {
    const { client, slug } = await prepare();
    await publish(client, 81);
    const [alert] = await alertsOf(slug, 'firing');
    const path = `/api/v1/alerts/${alert?.id}/resolve`;
    const answer = await app.api('POST', path, { comment: 'valve closed' });
    expect(answer).toMatchObject({ status: 200, body: { state: 'resolved' } });
    expect(await lastReason(alert?.id ?? '')).toBe('resolved_by_hand');
    expect(await app.api('POST', path)).toMatchObject({ status: 409 });
    await publish(client, 82);
    const [again] = await alertsOf(slug, 'firing');
    expect(again?.id).not.toBe(alert?.id);
  });
});
