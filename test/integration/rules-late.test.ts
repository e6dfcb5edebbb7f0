import type { MqttClient } from 'mqtt';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';

const MINUTE_MS = 60_000;
/** Behind the last late reading it is waited for 5 s, and looked for what is due each second. */
const RE_EVALUATED_MS = 15_000;

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

interface Watched {
  readonly name: string;
  readonly ruleId: string;
  /** Publishes a temperature of some minutes ago. */
  readonly send: (temp: number, minutesAgo: number) => Promise<void>;
}

let made = 0;
const startMs = Date.now();

async function watch(late: string, more: object = {}): Promise<Watched> {
  made += 1;
  const name = `late-${made}`;
  const client: MqttClient = await app.connect(await app.addDevice(name));
  const { status, body } = await app.api('POST', '/api/v1/rules', {
    name,
    severity: 'high',
    scope: { devices: [name] },
    when: { metric: 'temp', op: '>', value: 80 },
    late,
    ...more,
  });
  expect(status, JSON.stringify(body)).toBe(201);
  return {
    name,
    ruleId: body.id,
    send: async (temp, minutesAgo) => {
      const ts = startMs - minutesAgo * MINUTE_MS;
      await client.publishAsync('v1/me/data', JSON.stringify({ ts, temp }), { qos: 1 });
    },
  };
}

interface Recorded {
  readonly historical: boolean;
  readonly state: string;
  /** Minutes before the test began. */
  readonly fired: number | null;
  readonly resolved: number | null;
  readonly isTold: boolean;
}

/** Alerts of a rule, those that fired first at first. */
async function recorded({ ruleId }: Watched): Promise<Recorded[]> {
  const ago = (at: string): string =>
    `round(extract(epoch FROM to_timestamp($2::float8) - ${at}) / 60)::float8`;
  const { rows } = await app.testDatabase.database.pool.query<Recorded>(
    `SELECT is_historical AS historical, state, ${ago('fired_at')} AS fired,
       ${ago('resolved_at')} AS resolved,
       (SELECT bool_and(notified_at IS NOT NULL) FROM alert_transition AS step
        WHERE step.alert_id = alert.alert_id) AS "isTold"
     FROM alert JOIN alert_rule USING (rule_id)
     WHERE public_id = $1 AND fired_at IS NOT NULL ORDER BY fired_at, is_historical`,
    [ruleId, startMs / 1000],
  );
  return rows;
}

const nothingMore = (): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, RE_EVALUATED_MS - 6000));

describe.concurrent('late readings', { timeout: 60_000 }, () => {
  it('make a historical alert with "re-evaluate", of which nobody is told (L-05)', async () => {
    const watched = await watch('re-evaluate');
    await watched.send(20, 30);
    await watched.send(21, 10);
    await watched.send(90, 20);
    await watched.send(91, 18);
    expect(await recorded(watched)).toEqual([]);
    const historical = {
      historical: true,
      state: 'resolved',
      fired: 20,
      resolved: 10,
      isTold: true,
    };
    await eventually(
      'it is recorded',
      async () => (await recorded(watched)).length > 0,
      RE_EVALUATED_MS,
    );
    expect(await recorded(watched)).toEqual([historical]);
    // Later ones correct what was recorded of the time before.
    await watched.send(22, 15);
    await eventually(
      'it is corrected',
      async () => (await recorded(watched))[0]?.resolved === 15,
      RE_EVALUATED_MS,
    );
    expect(await recorded(watched)).toEqual([{ ...historical, resolved: 15 }]);
    const { body } = await app.api('GET', `/api/v1/alerts?rule=${watched.ruleId}`);
    expect(body.data).toMatchObject([{ historical: true }]);
    const one = await app.api('GET', `/api/v1/alerts/${body.data[0].id}`);
    expect(one.body.notifications).toEqual([]);
  });

  it('leave the live alert as it was told, and record beside it what it would have been (L-05)', async () => {
    const watched = await watch('re-evaluate');
    await watched.send(20, 30);
    await watched.send(90, 20);
    await watched.send(20, 10);
    await eventually('it ends', async () => (await recorded(watched))[0]?.state === 'resolved');
    await watched.send(88, 25);
    await eventually(
      'it is recorded',
      async () => (await recorded(watched)).length > 1,
      RE_EVALUATED_MS,
    );
    expect(await recorded(watched)).toMatchObject([
      { historical: true, fired: 25, resolved: 10, isTold: true },
      { historical: false, fired: 20, resolved: 10 },
    ]);
  });

  it('that change nothing record nothing, and neither do those of "current-only" and "ignore"', async () => {
    const same = await watch('re-evaluate');
    const current = await watch('current-only');
    const ignored = await watch('ignore');
    for (const watched of [same, current, ignored]) {
      await watched.send(20, 30);
      await watched.send(90, 20);
      await watched.send(21, 10);
    }
    // Between, as what is there already says.
    await same.send(19, 25);
    await same.send(92, 15);
    for (const watched of [current, ignored]) {
      await watched.send(90, 28);
      await watched.send(20, 15);
    }
    await nothingMore();
    const live = { historical: false, state: 'resolved', fired: 20, resolved: 10 };
    for (const watched of [same, current, ignored]) {
      expect(await recorded(watched)).toMatchObject([live]);
    }
  });

  it('of another metric that are its newest count with "current-only", and not with "ignore"', async () => {
    const when = {
      all: [
        { metric: 'temp', op: '>', value: 80 },
        { metric: 'rh', op: '>', value: 50 },
      ],
    };
    const current = await watch('current-only', { when });
    const ignored = await watch('ignore', { when });
    for (const { name, send } of [current, ignored]) {
      await send(90, 10);
      const sample = JSON.stringify([{ ts: startMs - 20 * MINUTE_MS, rh: 60 }]);
      const answer = await fetch(`${app.addresses.httpUrl}/api/v1/devices/${name}/readings`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${app.adminKey}`,
          'content-type': 'application/json',
        },
        body: sample,
      });
      expect(answer.status, await answer.text()).toBe(200);
    }
    expect(await recorded(ignored)).toEqual([]);
    // What an admin stores of more than ten minutes ago is history, and not evaluated at all.
    expect(await recorded(current)).toEqual([]);
  });
});
