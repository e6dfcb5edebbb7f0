import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { diagnoseDatabase, type Diagnosis } from '../../drizzle/doctor/doctor.ts';
import { lookAtConnections } from '../../drizzle/doctor/server-looks.ts';
import { createTestAggregates } from '../support/aggregates.ts';
import { createTestDatabase, type TestDatabase } from '../support/database.ts';
import { ensureDays, ensureMetric, insertReading } from '../support/readings.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

const DAY = 86_400_000;
const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

let test: TestDatabase;
beforeAll(async () => {
  test = await createTestDatabase();
  const { database } = test;
  const { author } = await createOrganization(database, 'acme');
  const { deviceId } = await createTestRegistry(database).devices.create(author, { slug: 'd' });
  const metricId = await ensureMetric(database, author.organizationId, 'temp');
  await ensureDays(database, isoDay(Date.now() - DAY), isoDay(Date.now() + DAY));
  const time = new Date(Date.now() - 3_600_000).toISOString();
  await insertReading(database, { deviceId, metricId, time, value: 1 });
  const aggregates = createTestAggregates(database);
  await aggregates.run('refresh');
  await aggregates.stop();
});
afterAll(() => test.drop());

async function diagnose(): Promise<Diagnosis> {
  const client = new pg.Client({ connectionString: test.url });
  await client.connect();
  try {
    return await diagnoseDatabase(client);
  } finally {
    await client.end();
  }
}

/** Does something to the database, looks at it, and takes it back. */
async function diagnoseAfter(harm: string, cure: string): Promise<Diagnosis> {
  await test.database.pool.query(harm);
  try {
    return await diagnose();
  } finally {
    await test.database.pool.query(cure);
  }
}

describe('the doctor', () => {
  it('tells of every part of a healthy database, and finds nothing', async () => {
    const { findings, text, problemCount } = await diagnose();
    expect(findings.flatMap(({ problems }) => problems)).toEqual([]);
    expect(problemCount).toBe(0);
    expect(findings.map(({ title }) => title)).toEqual([
      'Server',
      'Durability',
      'Partitions',
      'Compression',
      'Aggregates',
      'Policies and jobs',
      'Retention',
      'Bloat and unused space',
      'Connections',
    ]);
    expect(text).toContain('No problems found.');
    expect(text).toContain('job refresh: came through');
  });

  it('finds aggregates that are behind the readings', async () => {
    const { text, problemCount } = await diagnoseAfter(
      `UPDATE aggregate_watermark SET watermark = watermark - interval '3 hours'`,
      `UPDATE aggregate_watermark SET watermark = watermark + interval '3 hours'`,
    );
    expect(problemCount).toBe(1);
    expect(text).toContain('PROBLEM: aggregates are');
  });

  it('finds hours that are not in the aggregates', async () => {
    const { text } = await diagnoseAfter(
      `INSERT INTO aggregate_skip VALUES ('1h', 1, '2026-01-01T00:00Z', 'value out of range', now())`,
      'DELETE FROM aggregate_skip',
    );
    expect(text).toContain('PROBLEM: 1 hours of devices are not in the aggregates');
    expect(text).toContain('device_id 1, 2026-01-01 00:00:00+00: value out of range');
  });

  it('finds a job that does not come through', async () => {
    const { text } = await diagnoseAfter(
      `INSERT INTO aggregate_job VALUES ('retention', now() - interval '3 days')`,
      `DELETE FROM aggregate_job WHERE job = 'retention'`,
    );
    expect(text).toContain('PROBLEM: the job retention last came through 3 d ago');
  });

  it('finds that tomorrow has no partition', async ({ skip }) => {
    skip(test.database.capabilities.hypertables, 'chunks are made when they are needed');
    const name = `reading_${isoDay(Date.now() + DAY).replaceAll('-', '')}`;
    await test.database.pool.query(`DROP TABLE ${name}`);
    const { text } = await diagnose();
    expect(text).toContain('PROBLEM: there is no partition for tomorrow');
    await ensureDays(test.database, isoDay(Date.now() + DAY), isoDay(Date.now() + DAY));
  });

  it('finds a partition that was left behind', async ({ skip }) => {
    skip(test.database.capabilities.hypertables, 'there are no native partitions');
    const { text } = await diagnoseAfter(
      'CREATE TABLE reading_20200101 (LIKE reading)',
      'DROP TABLE reading_20200101',
    );
    expect(text).toContain('PROBLEM: reading_20200101 was detached');
  });

  it('finds a database of a newer version', async () => {
    const { text } = await diagnoseAfter(
      `INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('later', 9999999999999)`,
      `DELETE FROM drizzle.__drizzle_migrations WHERE hash = 'later'`,
    );
    expect(text).toContain('PROBLEM: a newer Puback has used this database');
  });

  it('finds a transaction that is open for long', async () => {
    const client = new pg.Client({ connectionString: test.url, application_name: 'sleeper' });
    await client.connect();
    await client.query('BEGIN');
    const other = new pg.Client({ connectionString: test.url });
    await other.connect();
    const { capabilities } = test.database;
    const { problems } = await lookAtConnections(0)({ client: other, capabilities });
    await Promise.all([client.end(), other.end()]);
    expect(problems).toMatchObject([{ what: expect.stringContaining('"sleeper"') }]);
  });

  it('changes nothing', async () => {
    const client = new pg.Client({ connectionString: test.url });
    await client.connect();
    await diagnoseDatabase(client);
    await expect(client.query('CREATE TABLE harm ()')).rejects.toMatchObject({ code: '25006' });
    await client.end();
  });
});
