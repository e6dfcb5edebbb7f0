import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Channel, Publication } from '../../ingest/message.ts';
import { pruneQuarantine, QuarantineMetrics } from '../../ingest/quarantine-pruning.ts';
import { Reinjection } from '../../ingest/reinjection.ts';
import { writeAudit } from '../../registry/audit.ts';
import { Registry as MetricsRegistry } from 'prom-client';
import { createTestApi, type TestApi } from '../support/api.ts';
import { eventually } from '../support/eventually.ts';
import { createTestRegistry } from '../support/registry.ts';

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi();
});
afterAll(() => t.stop());

let made = 0;
/** A device of its own for each test. */
async function createDevice(): Promise<{ slug: string; deviceId: number }> {
  made += 1;
  return t.registry.devices.create(t.acme.author, { slug: `board-${made}` });
}

/** Publishes as the device would over MQTT; resolves when it is acknowledged. */
function publish(deviceId: number, text: string, topic = 'v1/me/data'): Promise<void> {
  const lane = t.ingest.openLane(t.acme.author.organizationId, deviceId);
  return new Promise((resolve, reject) => {
    const publication: Publication = {
      source: {
        report: () => undefined,
        resume: () => undefined,
        close: (reason) => reject(new Error(reason)),
      },
      channel: topic.slice(6) as Channel,
      name: null,
      refusal: null,
      word: 'data',
      topic,
      payload: Buffer.from(text),
      qos: 1,
      isWanted: () => false,
      acknowledge() {
        t.ingest.closeLane(lane);
        resolve();
      },
    };
    t.ingest.accept(lane, publication);
  });
}

async function listOf(slug: string) {
  const { body } = await t.send('GET', `/api/v1/quarantine?device=${slug}`);
  return body.data;
}

async function readingsOf(slug: string) {
  const { body } = await t.send('GET', `/api/v1/devices/${slug}/readings?order=asc`);
  return body.data;
}

async function auditActions(): Promise<string[]> {
  const { rows } = await t.test.database.pool.query(
    `SELECT action FROM audit_event WHERE action LIKE 'quarantine.%' ORDER BY audit_event_id`,
  );
  return rows.map((row) => row.action);
}

const isOld = ({ time }: { time: string }): boolean =>
  Date.parse(time) < Date.now() - 30 * 86_400_000;
const REINJECT = '/api/v1/quarantine/reinject';

describe('a message in quarantine', () => {
  it('is shown with what to change, and as base64 when it is no text', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    await publish(deviceId, '\u0001');
    const [binary, text] = await listOf(slug);
    const got = await t.send('GET', `/api/v1/quarantine/${text.quarantineId}`);
    expect(got).toMatchObject({
      status: 200,
      body: {
        device: slug,
        code: 'bad_json',
        payload: '{temp:21}',
        payloadEncoding: 'text',
        editedAt: null,
        originalPayload: null,
        hint: expect.stringContaining('JSON'),
      },
    });
    expect(binary).toMatchObject({ payload: 'AQ==', payloadEncoding: 'base64' });
    const none = '/api/v1/quarantine/018f0000-0000-7000-8000-000000000000';
    for (const path of [none, '/api/v1/quarantine/nope']) {
      expect(await t.send('GET', path)).toMatchObject({
        status: 404,
        body: { code: 'QUARANTINE_NOT_FOUND' },
      });
    }
    const foreign = `/api/v1/quarantine/${text.quarantineId}`;
    expect((await t.send('GET', foreign, undefined, t.other.adminKey)).status).toBe(404);
  });

  it('is edited, keeps what was sent, and is stored at the time it came first', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const [{ quarantineId, receivedAt }] = await listOf(slug);
    const path = `/api/v1/quarantine/${quarantineId}`;
    const { body: before } = await t.send('GET', path);
    const edit = { revision: before.revision, payload: '{"temp":20}' };
    expect((await t.send('PATCH', path, edit)).status).toBe(200);
    const late = await t.send('PATCH', path, edit);
    expect(late).toMatchObject({ status: 409, body: { code: 'QUARANTINE_CHANGED' } });
    const { body: after } = await t.send('GET', path);
    const again = {
      revision: after.revision,
      payload: 'eyJ0ZW1wIjoyMX0=',
      payloadEncoding: 'base64',
    };
    expect(await t.send('PATCH', path, again)).toMatchObject({
      status: 200,
      body: { payload: '{"temp":21}', originalPayload: '{temp:21}', editedAt: expect.any(String) },
    });
    expect(await t.send('POST', `${path}/reinject`)).toMatchObject({
      status: 200,
      body: { stored: 1, refused: [] },
    });
    expect(await readingsOf(slug)).toEqual([{ time: receivedAt, metric: 'temp', value: 21 }]);
    expect(await listOf(slug)).toEqual([]);
    expect((await t.send('POST', `${path}/reinject`)).status).toBe(404);
    expect((await auditActions()).slice(-3)).toEqual([
      'quarantine.edit',
      'quarantine.edit',
      'quarantine.reinject',
    ]);
  });

  it('takes no more than 64 KiB when it is edited, and nothing empty', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const [{ quarantineId }] = await listOf(slug);
    const path = `/api/v1/quarantine/${quarantineId}`;
    const { revision } = (await t.send('GET', path)).body;
    for (const change of [
      { payload: 'x'.repeat(65_537) },
      { topic: '' },
      { topic: 'v1/me/\0' },
      {},
    ]) {
      expect((await t.send('PATCH', path, { revision, ...change })).status).toBe(400);
    }
    const most = { revision, payload: 'x'.repeat(65_536), topic: 'v1/me/data/temp' };
    expect((await t.send('PATCH', path, most)).status).toBe(200);
  });

  it('that is refused again stays once, with the new reason', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const [{ quarantineId }] = await listOf(slug);
    const path = `/api/v1/quarantine/${quarantineId}`;
    const { revision } = (await t.send('GET', path)).body;
    await t.send('PATCH', path, { revision, payload: '{"1temp":21}' });
    const { body } = await t.send('POST', `${path}/reinject`);
    expect(body).toMatchObject({ stored: 0, refused: [{ quarantineId, code: 'bad_name' }] });
    expect(await listOf(slug)).toMatchObject([
      { quarantineId, code: 'bad_name', payload: '{"1temp":21}' },
    ]);
    const topics = ['v1/me/nope', 'v1/other/board/data', 'v1/me/data/1', 'v1/me/hello', '+'];
    const codes = ['unknown_channel', 'forbidden', 'bad_name', 'unknown_channel', 'forbidden'];
    for (const [index, topic] of topics.entries()) {
      const now = (await t.send('GET', path)).body.revision;
      await t.send('PATCH', path, { revision: now, topic });
      const refused = await t.send('POST', `${path}/reinject`);
      expect(refused.body.refused, topic).toMatchObject([{ code: codes[index] }]);
    }
    expect(await listOf(slug)).toHaveLength(1);
  });

  it('is stored once however often it is sent again, also when its row outlived a crash', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const { pool } = t.test.database;
    await pool.query(
      `UPDATE quarantine SET payload = convert_to('[{"temp":1},{"temp":2}]', 'UTF8') WHERE device_id = $1`,
      [deviceId],
    );
    const { rows } = await pool.query('SELECT * FROM quarantine WHERE device_id = $1', [deviceId]);
    for (let time = 0; time < 3; time += 1) {
      await t.send('POST', REINJECT, { device: slug });
      await pool.query(
        `INSERT INTO quarantine SELECT * FROM jsonb_populate_record(NULL::quarantine, $1)`,
        [JSON.stringify({ ...rows[0], payload: `\\x${rows[0].payload.toString('hex')}` })],
      );
      await pool.query(
        `UPDATE quarantine SET received_at = (SELECT received_at FROM reading WHERE device_id = $1 LIMIT 1)
         WHERE device_id = $1`,
        [deviceId],
      );
    }
    const { body } = await t.send('POST', REINJECT, { device: slug });
    expect(body).toMatchObject({ stored: 1, refused: [], left: 0, next: null });
    expect(await readingsOf(slug)).toHaveLength(2);
  });

  it('of an older version, with another id, is there once when it is refused again', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const { pool } = t.test.database;
    await pool.query(
      'UPDATE quarantine SET quarantine_id = gen_random_uuid() WHERE device_id = $1',
      [deviceId],
    );
    const { body } = await t.send('POST', REINJECT, { device: slug });
    expect(body).toMatchObject({ stored: 0, refused: [{ code: 'bad_json' }] });
    expect(await listOf(slug)).toMatchObject([{ code: 'bad_json', payload: '{temp:21}' }]);
  });

  it('stays when the database refuses its readings, and when it has none', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    await publish(deviceId, '{temp:22}');
    const { pool } = t.test.database;
    await pool.query(
      `UPDATE quarantine SET payload = CASE WHEN payload = '{temp:21}' THEN '{"temp":null}'::bytea
         ELSE '{"temp":666}'::bytea END WHERE device_id = $1`,
      [deviceId],
    );
    await pool.query(
      `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN IF NEW.value = 666 THEN RAISE check_violation; END IF; RETURN NEW; END $$;
       CREATE TRIGGER refuse BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION refuse()`,
    );
    const { body } = await t.send('POST', REINJECT, { device: slug });
    await pool.query('DROP TRIGGER refuse ON reading');
    expect(body).toMatchObject({ stored: 0, left: 0 });
    expect(body.refused.map(({ code }: { code: string }) => code)).toEqual([
      'not_stored',
      'not_stored',
    ]);
    expect(await listOf(slug)).toHaveLength(2);
    expect((await t.send('POST', REINJECT, { device: slug })).body.stored).toBe(1);
    expect(await readingsOf(slug)).toMatchObject([{ value: 666 }]);
  });

  it('is not stored when readings of its time are deleted already', async () => {
    const { slug, deviceId } = await createDevice();
    const daysAgo = (days: number): number => Date.now() - days * 86_400_000;
    await publish(deviceId, `{"ts":${daysAgo(31)},"temp":1}`);
    await publish(deviceId, '{temp:2}');
    const { pool } = t.test.database;
    await pool.query(
      `UPDATE quarantine SET received_at = now() - interval '40 days', payload = '{"temp":2}'
       WHERE device_id = $1 AND code = 'bad_json'`,
      [deviceId],
    );
    await publish(deviceId, '{temp:3}');
    await pool.query(
      `UPDATE quarantine SET received_at = now() - interval '20 days',
              payload = convert_to($2, 'UTF8') WHERE device_id = $1 AND code = 'bad_json'
         AND received_at > now() - interval '1 hour'`,
      [deviceId, `[{"ts":${daysAgo(35)},"temp":3},{"ts":${daysAgo(25)},"temp":4}]`],
    );
    const { body } = await t.send('POST', REINJECT, { device: slug });
    expect(body).toMatchObject({ stored: 0, left: 0 });
    expect(body.refused.map(({ code }: { code: string }) => code)).toEqual(
      Array(3).fill('too_old'),
    );
    expect(await listOf(slug)).toHaveLength(3);
    expect((await readingsOf(slug)).filter(isOld)).toEqual([]);
  });

  it('that two send again at once is counted and audited once', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const [{ quarantineId }] = await listOf(slug);
    const path = `/api/v1/quarantine/${quarantineId}`;
    const { revision } = (await t.send('GET', path)).body;
    await t.send('PATCH', path, { revision, payload: '{"temp":1}' });
    const before = (await auditActions()).length;
    const { pool } = t.test.database;
    const client = await pool.connect();
    // Both have read the row before either takes it out.
    await client.query('BEGIN; LOCK TABLE reading IN ACCESS EXCLUSIVE MODE');
    const both = [1, 2].map(() => t.send('POST', `${path}/reinject`));
    await delay(300);
    await client.query('ROLLBACK');
    client.release();
    const answers = await Promise.all(both);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    const stored: number[] = answers.map(({ body }) => body.stored);
    expect(stored.reduce((sum, count) => sum + count)).toBe(1);
    expect((await auditActions()).length).toBe(before + 1);
  });

  it('is sent again by a request that says JSON and has no body', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const [{ quarantineId }] = await listOf(slug);
    const sent = await t.send('POST', `/api/v1/quarantine/${quarantineId}/reinject`, '');
    expect(sent).toMatchObject({ status: 200, body: { stored: 0 } });
    // Where a body is needed its schema says what is missing.
    const none = await t.send('POST', '/api/v1/devices', '');
    expect(none).toMatchObject({ status: 400, body: { code: 'REQUEST_INVALID' } });
    expect(none.body.errors[0]).toMatch(/^body/);
  });

  it('that somebody edits while it is stored stays', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const { database } = t.test;
    await database.pool.query(
      `UPDATE quarantine SET payload = convert_to('{"temp":1}', 'UTF8') WHERE device_id = $1`,
      [deviceId],
    );
    const reinjection = new Reinjection({
      database,
      ingest: {
        openReplay: (...of) => t.ingest.openReplay(...of),
        closeReplay: (lane) => t.ingest.closeReplay(lane),
        acceptReplay(lane, publication, receipt) {
          const acknowledge: Publication['acknowledge'] = (canonical, keptApart) =>
            void database.pool
              .query(`UPDATE quarantine SET detail = 'seen' WHERE device_id = $1`, [deviceId])
              .then(() => publication.acknowledge(canonical, keptApart));
          return t.ingest.acceptReplay(lane, { ...publication, acknowledge }, receipt);
        },
      },
      writeAudit,
      ageMaxMs: 1e9,
      keptMs: async () => 1e9,
      timeoutMs: 5000,
    });
    const query = {
      deviceId,
      code: null,
      fromMicros: null,
      toMicros: null,
      limit: 10,
      after: null,
    };
    expect(await reinjection.many(t.acme.author, query)).toMatchObject({ stored: 0 });
    expect(await listOf(slug)).toHaveLength(1);
    expect(await readingsOf(slug)).toHaveLength(1);
  });

  it('is answered with 503 when its COMMIT takes too long, and stays', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{temp:21}');
    const reinjection = new Reinjection({
      database: t.test.database,
      ingest: {
        openReplay: (...of) => t.ingest.openReplay(...of),
        closeReplay: (lane) => t.ingest.closeReplay(lane),
        acceptReplay: () => false,
      },
      writeAudit,
      ageMaxMs: 1e9,
      keptMs: async () => 1e9,
      timeoutMs: 50,
    });
    const [{ quarantineId }] = await listOf(slug);
    const trying = reinjection.one(t.acme.author, quarantineId);
    await expect(trying).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    expect(await listOf(slug)).toHaveLength(1);
  });
});

describe('many messages in quarantine', () => {
  it('are sent again oldest first, page by page, by device, code and time', async () => {
    const { slug, deviceId } = await createDevice();
    for (let at = 0; at < 5; at += 1) await publish(deviceId, `{"t${at}":1}x`);
    await publish(deviceId, '{"1":1}');
    await t.test.database.pool.query(
      `UPDATE quarantine SET payload = substring(payload FOR octet_length(payload) - 1)
       WHERE device_id = $1 AND code = 'bad_json' AND payload <> '{"t3":1}x'`,
      [deviceId],
    );
    const query = { device: slug, code: 'bad_json', limit: 2 };
    const first = await t.send('POST', REINJECT, query);
    expect(first).toMatchObject({ status: 200, body: { stored: 2, refused: [], left: 3 } });
    const second = await t.send('POST', REINJECT, { ...query, cursor: first.body.next });
    expect(second.body).toMatchObject({ stored: 1, refused: [{ code: 'bad_json' }], left: 1 });
    const third = await t.send('POST', REINJECT, { ...query, cursor: second.body.next });
    expect(third.body).toMatchObject({ stored: 1, left: 0, next: null });
    const names = (await readingsOf(slug)).map(({ metric }: { metric: string }) => metric);
    expect(names).toEqual(['t0', 't1', 't2', 't4']);
    const ahead = { device: slug, from: '2100-01-01' };
    expect((await t.send('POST', REINJECT, ahead)).body).toEqual({
      stored: 0,
      refused: [],
      left: 0,
      next: null,
    });
    const foreign = await t.send('POST', REINJECT, {}, t.other.adminKey);
    expect(foreign.body).toMatchObject({ stored: 0, refused: [] });
    expect((await t.send('POST', REINJECT, { limit: 1001 })).status).toBe(400);
    const misled = { device: slug, cursor: first.body.next };
    expect((await t.send('POST', REINJECT, misled)).body.code).toBe('CURSOR_INVALID');
  });

  it('are deleted by filter, never without one, and one by one', async () => {
    const { slug, deviceId } = await createDevice();
    for (let at = 0; at < 3; at += 1) await publish(deviceId, `x${at}`);
    const [newest] = await listOf(slug);
    expect((await t.send('DELETE', '/api/v1/quarantine')).status).toBe(400);
    expect((await t.send('DELETE', `/api/v1/quarantine/${newest.quarantineId}`)).status).toBe(204);
    expect((await t.send('DELETE', `/api/v1/quarantine/${newest.quarantineId}`)).status).toBe(404);
    const path = `/api/v1/quarantine?device=${slug}&code=`;
    expect((await t.send('DELETE', `${path}too_old`)).body).toEqual({ deleted: 0, hasMore: false });
    expect((await t.send('DELETE', `${path}bad_json`)).body).toEqual({
      deleted: 2,
      hasMore: false,
    });
    expect(await listOf(slug)).toEqual([]);
    expect((await auditActions()).slice(-3)).toEqual(Array(3).fill('quarantine.delete'));
  });

  it('expire by age and by number, those kept apart by a number of their own, and are counted', async () => {
    const { slug, deviceId } = await createDevice();
    const { pool } = t.test.database;
    await pool.query('DELETE FROM quarantine');
    const insert = (code: string, count: number, age: string) =>
      pool.query(
        `INSERT INTO quarantine (quarantine_id, organization_id, device_id, received_at, topic, code, detail, payload)
         SELECT gen_random_uuid(), $1, $2, now() - $3::interval, 't', $4, '', '' FROM generate_series(1, $5)`,
        [t.acme.author.organizationId, deviceId, age, code, count],
      );
    await insert('bad_json', 4, '8 days');
    await insert('bad_json', 5, '1 day');
    await insert('device_quarantined', 20, '1 day');
    const registry = new MetricsRegistry();
    const metrics = new QuarantineMetrics(registry);
    const bounds = { ageMaxMs: 7 * 86_400_000, rowsPerDeviceMax: 3, apartRowsPerDeviceMax: 14 };
    expect(await pruneQuarantine(pool, bounds, metrics)).toBe(4 + 2 + 6);
    expect(await pruneQuarantine(pool, bounds, metrics)).toBe(0);
    expect(await listOf(slug)).toHaveLength(3 + 14);
    const text = await registry.metrics();
    for (const line of ['{reason="age"} 4', '{reason="count"} 2', '{reason="apart_count"} 6']) {
      expect(text).toContain(`puback_quarantine_expired_messages_total${line}`);
    }
    expect(text).toContain('puback_quarantine_messages 17');
  });
});

describe('a device in quarantine', () => {
  it('is acknowledged while its data is kept apart, which is stored once it is let out', async () => {
    const { slug, deviceId } = await createDevice();
    const path = `/api/v1/devices/${slug}`;
    await publish(deviceId, '{"temp":1}');
    const put = await t.send('PATCH', path, { quarantined: true });
    expect(put).toMatchObject({ status: 200, body: { quarantined: true, disabled: false } });
    await publish(deviceId, '{"temp":2}');
    await publish(deviceId, 'broken');
    const kept = await listOf(slug);
    expect(kept.map(({ code }: { code: string }) => code)).toEqual([
      'bad_json',
      'device_quarantined',
    ]);
    expect(await readingsOf(slug)).toHaveLength(1);
    const still = await t.send('POST', REINJECT, { device: slug, code: 'device_quarantined' });
    expect(still.body).toMatchObject({ stored: 0, refused: [{ code: 'device_quarantined' }] });
    expect((await t.send('PATCH', path, { quarantined: false })).body.quarantined).toBe(false);
    await publish(deviceId, '{"temp":3}');
    const out = await t.send('POST', REINJECT, { device: slug, code: 'device_quarantined' });
    expect(out.body).toMatchObject({ stored: 1, refused: [] });
    const values = (await readingsOf(slug)).map(({ value }: { value: number }) => value);
    expect(values).toEqual([1, 2, 3]);
  });

  it('is heard of from another program within a second, on a live connection too', async () => {
    const { slug, deviceId } = await createDevice();
    await publish(deviceId, '{"temp":1}');
    const elsewhere = createTestRegistry(t.test.database);
    await elsewhere.devices.update(t.acme.author, slug, { isQuarantined: true });
    const isKept = async (): Promise<boolean> => {
      await publish(deviceId, '{"temp":2}');
      return (await listOf(slug)).length > 0;
    };
    await eventually('that it is kept apart', isKept, 5000);
    await elsewhere.devices.update(t.acme.author, slug, { isQuarantined: false });
    const before = (await readingsOf(slug)).length;
    const isStored = async (): Promise<boolean> => {
      await publish(deviceId, '{"temp":3}');
      return (await readingsOf(slug)).length > before;
    };
    await eventually('that it is stored again', isStored, 5000);
  });
});
