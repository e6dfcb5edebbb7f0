import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { eventually } from '../support/app.ts';
import {
  faultless,
  openOwnServer,
  startDurableApp,
  startNumberedLoad,
  type DurableApp,
  type OwnServer,
} from '../support/own-database.ts';
import { connectRaw } from '../support/raw-client.ts';

const DAY_MS = 86_400_000;

let own: OwnServer;
let app: DurableApp;
/** Another one for each test. */
let device: string;
let key: string;
let devices = 0;
beforeAll(async () => {
  own = await openOwnServer();
  app = await startDurableApp(own);
  await app.query('ALTER TABLE reading ADD CONSTRAINT poison CHECK (value <> -666)');
});
beforeEach(async () => {
  devices += 1;
  device = `rows-${devices}`;
  key = await app.addDevice(device);
});
afterEach(() => app.query('DROP TRIGGER IF EXISTS refuse ON reading'));
afterAll(async () => {
  await app.stop();
  await own.close();
});

async function valuesOf(metric: string): Promise<number[]> {
  const rows = await app.query<{ value: number }>(
    'SELECT value FROM v_reading WHERE device = $1 AND metric = $2 ORDER BY time',
    [device, metric],
  );
  return rows.map(({ value }) => value);
}

async function quarantined(): Promise<string[]> {
  const rows = await app.query<{ code: string }>(
    `SELECT code FROM quarantine JOIN device USING (device_id) WHERE slug = $1
     ORDER BY quarantine_id`,
    [device],
  );
  return rows.map(({ code }) => code);
}

/** Makes the database refuse the next `times` statements that write readings. */
async function refuse(sqlstate: string, times: number): Promise<void> {
  await app.query(`CREATE SEQUENCE IF NOT EXISTS refusals`);
  await app.query(`SELECT setval('refusals', 1)`);
  await app.query(`GRANT ALL ON SEQUENCE refusals TO PUBLIC`);
  await app.query(`CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      -- A sequence does not roll back.
      IF nextval('refusals') <= ${times + 1} THEN
        RAISE EXCEPTION 'refused for a test' USING ERRCODE = '${sqlstate}';
      END IF;
      RETURN NULL;
    END $$`);
  await app.query(`CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON reading
    FOR EACH STATEMENT EXECUTE FUNCTION refuse()`);
}

describe('D-09 a row that cannot be stored', { timeout: 120_000 }, () => {
  it.each([
    { what: 'is refused by the database', payload: '{"v":-666}', isKept: false },
    { what: 'has a NUL in its text', payload: '{"v":1,"text":"a\\u0000b"}', isKept: false },
    { what: 'is out of range', payload: '{"v":1e999}', isKept: true },
    { what: 'is not a number', payload: '{"v":nan}', isKept: true },
    { what: 'is of the year 300000', payload: '{"ts":9404294400000000,"v":1}', isKept: true },
  ])('costs 999 others nothing and ends: $what', async ({ payload, isKept }) => {
    const client = await app.connect(key);
    const sent: Promise<unknown>[] = [];
    for (let n = 0; n < 1000; n += 1) {
      const text = n === 500 ? payload : `{"good":${n}}`;
      sent.push(client.publishAsync('v1/me/data', text, { qos: 1 }));
    }
    await Promise.all(sent);
    const expected = Array.from({ length: 1000 }, (_, n) => n).filter((n) => n !== 500);
    expect(await valuesOf('good')).toEqual(expected);
    expect((await quarantined()).length).toBe(isKept ? 0 : 1);
    expect(await app.metric('puback_ingest_queue_rows')).toBe(0);
  });
});

describe('D-10 a batch that the database rejects', { timeout: 120_000 }, () => {
  it.each([
    { sqlstate: '40001', what: 'a serialization failure' },
    { sqlstate: '40P01', what: 'a deadlock' },
    { sqlstate: '53200', what: 'no memory' },
    { sqlstate: '57014', what: 'a statement timeout' },
    { sqlstate: '58030', what: 'an I/O error' },
  ])('is tried again and stored once: $sqlstate, $what', async ({ sqlstate }) => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 100);
    const failures = await app.metric('puback_ingest_commit_failures_total');
    await refuse(sqlstate, 3);
    const before = fleet.acknowledged;
    await eventually('PUBACKs', () => fleet.acknowledged > before + 100);
    expect(await settle()).toMatchObject(faultless);
    expect(await quarantined()).toEqual([]);
    expect(await app.metric('puback_ingest_commit_failures_total')).toBeGreaterThan(failures);
  });

  it('with 22003, which lies with the rows, goes to quarantine and is not tried for ever', async () => {
    const client = await app.connect(key);
    await client.publishAsync('v1/me/data', '{"v":1}', { qos: 1 });
    await refuse('22003', 1_000_000);
    await client.publishAsync('v1/me/data', '{"v":2}', { qos: 1 });
    expect(await quarantined()).toEqual(['not_stored']);
    expect(await valuesOf('v')).toEqual([1]);
  });

  it('in a real deadlock with another session is stored once', async () => {
    const client = await app.connect(key);
    const ts = Date.now();
    await client.publishAsync('v1/me/data', `{"ts":${ts - 1000},"v":1}`, { qos: 1 });
    const [series] = await app.query<{ device_id: number; metric_id: number }>(
      'SELECT device_id, metric_id FROM device_latest JOIN device USING (device_id) WHERE slug = $1',
      [device],
    );
    const other = new pg.Client({ connectionString: app.ownerUrl });
    await other.connect();
    try {
      await other.query(`SET deadlock_timeout = '100ms'`);
      await other.query('BEGIN');
      await other.query('SELECT FROM device_latest FOR UPDATE');
      const acknowledged = client.publishAsync('v1/me/data', `{"ts":${ts},"v":2}`, { qos: 1 });
      await eventually('the writer waits for the other session', async () => {
        const waiting = await app.query(
          `SELECT FROM pg_stat_activity WHERE application_name LIKE 'puback%' AND wait_event_type = 'Lock'`,
        );
        return waiting.length > 0;
      });
      // Its key is the one that the writer has inserted: each waits for the other now.
      const { device_id: deviceId = 0, metric_id: metricId = 0 } = series ?? {};
      await other
        .query(
          `INSERT INTO reading (time, device_id, metric_id, value, received_at, quality)
           VALUES (to_timestamp($1 / 1000.0), $2, $3, 2, now(), 0)`,
          [ts, deviceId, metricId],
        )
        .catch((error: { code: string }) => expect(error.code).toMatch(/^(40P01|23505)$/));
      await other.query('ROLLBACK');
      await acknowledged;
    } finally {
      await other.end();
    }
    expect(await valuesOf('v')).toEqual([1, 2]);
    expect(await quarantined()).toEqual([]);
  });
});

describe('D-13 a clock of 1970, of 2106 or of no year at all', () => {
  it('gets the time of receipt and makes no partition', async () => {
    const partitions = (): Promise<unknown[]> =>
      app.query(`SELECT inhrelid FROM pg_inherits WHERE inhparent = 'reading'::regclass`);
    const client = await app.connect(key);
    await client.publishAsync('v1/me/data', '{"v":0}', { qos: 1 });
    const before = (await partitions()).length;
    const start = Date.now();
    const years = [1970, 1971, 1999, 2038, 2106, 9999].map((year) => Date.UTC(year, 1, 1));
    for (const ts of [...years, 0, 1, -1, 1e15, Number.MAX_SAFE_INTEGER]) {
      await client.publishAsync('v1/me/data', `{"ts":${ts},"v":1}`, { qos: 1 });
    }
    const rows = await app.query<{ time: Date }>(
      `SELECT time FROM v_reading WHERE device = $1 AND metric = 'v' AND value = 1`,
      [device],
    );
    for (const { time } of rows) expect(time.getTime()).toBeGreaterThanOrEqual(start - 1000);
    const { length } = await partitions();
    expect(length).toBe(before);
    const kept = rows.length + (await quarantined()).length;
    expect(kept).toBe(years.length + 5);
  });

  it('of late days makes one partition for each day that has readings, within the bound of age', async () => {
    const client = await app.connect(key);
    const now = Date.now();
    for (const days of [1, 9, 29, 31, 400]) {
      await client.publishAsync('v1/me/data', `{"ts":${now - days * DAY_MS},"v":${days}}`, {
        qos: 1,
      });
    }
    expect(await valuesOf('v')).toEqual([29, 9, 1]);
    expect(await quarantined()).toEqual(['too_old', 'too_old']);
  });
});

describe('D-14 a message that comes twice', () => {
  it.each([
    { by: 'its ts', payload: `{"ts":${Date.now()},"v":7}`, hello: null },
    { by: 'its seq in a boot', payload: '{"seq":1,"v":7}', hello: '{"boot":3}' },
  ])('is stored once, with DUP and without, over two connections: by $by', async (sent) => {
    const publish = (messageId: number, dup: boolean) => ({
      cmd: 'publish' as const,
      topic: 'v1/me/data',
      payload: sent.payload,
      qos: 1 as const,
      messageId,
      dup,
      retain: false,
    });
    for (let connection = 0; connection < 2; connection += 1) {
      const client = await connectRaw(app.addresses.mqttUrl, key);
      if (sent.hello !== null) {
        const hello = { topic: 'v1/me/hello', payload: sent.hello, qos: 0 as const };
        client.send({ cmd: 'publish', ...hello, dup: false, retain: false });
      }
      client.send(publish(1, false), publish(1, true), publish(2, false));
      await eventually('both PUBACKs', () => {
        const ids = client.received.flatMap((p) => (p.cmd === 'puback' ? [p.messageId] : []));
        return ids.includes(1) && ids.includes(2);
      });
      client.end();
      await client.closed;
    }
    expect(await valuesOf('v')).toEqual([7]);
  });
});
