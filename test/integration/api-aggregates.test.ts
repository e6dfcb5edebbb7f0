import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type TestApi } from '../support/api.ts';
import { createTestAggregates } from '../support/aggregates.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';

let t: TestApi;
/** 10:00 of yesterday, UTC. */
const START = Math.floor(Date.now() / 86_400_000) * 86_400_000 - 50_400_000;
const isoTime = (ms: number): string => new Date(ms).toISOString();
beforeAll(async () => {
  t = await createTestApi();
  const { database } = t.test;
  const { author } = t.acme;
  const { deviceId } = await t.registry.devices.create(author, { slug: 'd' });
  const [temp, rh, state] = [
    await ensureMetric(database, author.organizationId, 'temp'),
    await ensureMetric(database, author.organizationId, 'rh'),
    await ensureMetric(database, author.organizationId, 'state', 'text'),
  ];
  await ensureDays(database, isoTime(START).slice(0, 10), isoTime(Date.now()).slice(0, 10));
  for (let minute = 0; minute < 10; minute += 1) {
    const time = START + minute * 60_000;
    await insertReading(database, { deviceId, metricId: temp, time: isoTime(time), value: minute });
    await insertReading(database, {
      ...{ deviceId, metricId: temp, time: isoTime(time + 1000), value: minute + 1 },
    });
  }
  await insertReading(database, { deviceId, metricId: rh, time: isoTime(START), value: 50 });
  await insertReading(database, { deviceId, metricId: state, time: isoTime(START), text: 'on' });
});
afterAll(() => t.stop());

const PATH = '/api/v1/devices/d/aggregates';

describe('GET /api/v1/devices/{device}/aggregates', () => {
  it.each(['before', 'after'])('tells the numbers of each bucket, %s a refresh', async (when) => {
    if (when === 'after') {
      const aggregates = createTestAggregates(t.test.database);
      await aggregates.run('refresh');
      await aggregates.stop();
    }
    const { status, body } = await t.send('GET', `${PATH}?bucket=1h&metric=temp`);
    expect(status).toBe(200);
    expect(body.data).toEqual([
      {
        time: isoTime(START),
        metric: 'temp',
        ...{ count: 20, sum: 100, min: 0, max: 10, first: 0, last: 10, avg: 5 },
      },
    ]);
  });

  it('leaves texts out', async () => {
    const { body } = await t.send('GET', `${PATH}?bucket=1d&order=asc`);
    expect(body.data.map(({ metric }: { metric: string }) => metric)).toEqual(['temp', 'rh']);
  });

  it('gives every bucket once, page by page, in both orders', async () => {
    for (const order of ['asc', 'desc']) {
      const found: string[] = [];
      let cursor = '';
      do {
        const path = `${PATH}?bucket=1m&order=${order}&limit=3${cursor}`;
        const { body } = await t.send('GET', path);
        found.push(
          ...body.data.map(({ time, metric }: Record<string, string>) => `${time} ${metric}`),
        );
        cursor = body.next === null ? '' : `&cursor=${body.next}`;
      } while (cursor !== '');
      expect(found).toHaveLength(11);
      expect(new Set(found).size).toBe(11);
      const times = found.map((each) => each.slice(0, 24));
      expect(times).toEqual(order === 'asc' ? times.toSorted() : times.toSorted().toReversed());
    }
  });

  it('is cut at "from" and before "to"', async () => {
    const [from, to] = [isoTime(START + 60_000), isoTime(START + 180_000)];
    const { body } = await t.send('GET', `${PATH}?bucket=1m&from=${from}&to=${to}`);
    expect(body.data.map(({ time }: { time: string }) => time)).toEqual([
      isoTime(START + 120_000),
      isoTime(START + 60_000),
    ]);
  });

  it.each(['bucket=5m', 'from=2026-11-22&to=2026-11-21', 'limit=0', 'other=1'])(
    'refuses %s',
    async (query) => {
      const { status, body } = await t.send('GET', `${PATH}?${query}`);
      expect([status, body.code]).toEqual([400, 'REQUEST_INVALID']);
    },
  );

  it('shows nothing of another organization', async () => {
    const { status } = await t.send('GET', PATH, undefined, t.other.adminKey);
    expect(status).toBe(404);
  });
});

describe('/api/v1/retention', () => {
  const days = (body: { data: { class: string; days: number }[] }): Record<string, number> =>
    Object.fromEntries(body.data.map((each) => [each.class, each.days]));

  it('is what the settings say, until less is asked for', async () => {
    const before = await t.send('GET', '/api/v1/retention');
    expect(days(before.body)).toEqual({ raw: 30, '1m': 90, '1h': 365, '1d': 3650 });
    expect(before.body.data[0]).toEqual({
      ...{ class: 'raw', days: 30, daysMin: 10, daysMax: 30, isDefault: true },
    });
    const put = await t.send('PUT', '/api/v1/retention', { raw: 20, '1m': 20 });
    expect([put.status, days(put.body)]).toEqual([
      200,
      { raw: 20, '1m': 20, '1h': 365, '1d': 3650 },
    ]);
    expect((await t.send('GET', '/api/v1/retention')).body).toEqual(put.body);
    const other = await t.send('GET', '/api/v1/retention', undefined, t.other.adminKey);
    expect(days(other.body)).toEqual(days(before.body));
    const { rows } = await t.test.database.pool.query(
      `SELECT action, subject, change FROM audit_event WHERE action LIKE 'retention%'`,
    );
    expect(rows).toEqual([
      { action: 'retention.update', subject: 'retention', change: { raw: 20, '1m': 20 } },
    ]);
    expect(days((await t.send('PUT', '/api/v1/retention', {})).body)).toEqual(days(before.body));
  });

  it.each([{ raw: 9 }, { raw: 31 }, { raw: 20, '1m': 19 }, { '1d': 364 }, { raw: 0 }, { '5m': 9 }])(
    'refuses %j',
    async (asked) => {
      const { status, body } = await t.send('PUT', '/api/v1/retention', asked);
      expect([status, body.code]).toEqual([400, 'REQUEST_INVALID']);
      expect(days((await t.send('GET', '/api/v1/retention')).body)['raw']).toBe(30);
    },
  );
});
