import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { request, type ClientRequest, type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createTestApi, type ApiAnswer, type TestApi } from '../support/api.ts';
import { eventually } from '../support/eventually.ts';

const TS = Date.UTC(2025, 2, 1);
const MEGABYTE = 1_048_576;

let t: TestApi;
beforeAll(async () => {
  t = await createTestApi({
    settings: { IMPORTS_MAX: '2', IMPORT_REFUSALS_MAX: '150', IMPORT_BYTES_MAX: '100000000' },
    importIdleMs: 4000,
    rawDays: 3650,
  });
  for (const device of ['a', 'b']) await t.send('POST', '/api/v1/devices', { device });
});
afterAll(() => t.stop());
const open: ClientRequest[] = [];
afterEach(async () => {
  for (const sent of open.splice(0)) sent.destroy();
  await eventually('no import runs', async () => (await active()).length === 0);
});

type Query = Record<string, string>;

/** Begins an import whose body the test writes. */
function begin(query: Query, key = t.acme.adminKey, headers: Query = {}): ClientRequest {
  const path = `/api/v1/import?${new URLSearchParams(query).toString()}`;
  const authorization = `Bearer ${key}`;
  const sent = request(t.url + path, { method: 'POST', headers: { authorization, ...headers } });
  sent.on('error', () => undefined);
  open.push(sent);
  return sent;
}

async function answerOf(sent: ClientRequest): Promise<ApiAnswer> {
  const [answer] = (await once(sent, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk as Buffer);
  const text = Buffer.concat(chunks).toString();
  return {
    status: answer.statusCode ?? 0,
    headers: new Headers(answer.headers as Query),
    body: JSON.parse(text),
  };
}

function send(body: string | Buffer, query: Query, key?: string): Promise<ApiAnswer> {
  const sent = begin(query, key);
  sent.end(body);
  return answerOf(sent);
}

async function active(): Promise<{ importId: string; byteOffset: number; linesRead: number }[]> {
  const { body } = await t.send('GET', '/api/v1/imports');
  return body.data.filter((view: { active: boolean }) => view.active);
}

async function countOf(metric: string, device = 'a'): Promise<number> {
  const { rows } = await t.test.database.pool.query<{ count: string }>(
    `SELECT count(*) FROM reading JOIN metric USING (metric_id) JOIN device USING (device_id)
     WHERE metric.name = $1 AND device.slug = $2`,
    [metric, device],
  );
  return Number(rows[0]?.count);
}

/** A file of one value a line; lines are of about 30 bytes. */
function csvOf(metric: string, rows: number, from = 0): string {
  const lines = Array.from({ length: rows }, (_, at) => `a,${TS + (from + at) * 1000},${at}\n`);
  return `device,time,${metric}\n${lines.join('')}`;
}

describe('an import', () => {
  it('stores every line once however often it comes, and shows what it refused with its line', async () => {
    const file = [
      'device,time,metric,value',
      `a,${TS},first,1`,
      `b,${TS},first,on`,
      '',
      `nobody,${TS},first,2`,
      `a,${TS + 1000},first,"=cmd|' /C calc'!A0"`,
      `a,yesterday,first,3`,
      `a,${TS + 2000},1st,4`,
    ].join('\n');
    for (let copy = 0; copy < 2; copy += 1) {
      const { status, body } = await send(file, { format: 'csv', source: 'first.csv' });
      expect(status).toBe(200);
      expect(body).toMatchObject({
        source: 'first.csv',
        format: 'csv',
        state: 'done',
        active: false,
        byteOffset: file.length,
        linesRead: 8,
        linesRefused: 3,
        fingerprint: createHash('sha256').update(file).digest('hex'),
      });
      expect(body.refusals.map(({ line, code }: Query) => [line, code])).toEqual([
        [5, 'unknown_device'],
        [7, 'bad_time'],
        [8, 'bad_name'],
      ]);
      expect([await countOf('first'), await countOf('first', 'b')]).toEqual([2, 1]);
      const path = `/api/v1/imports/${body.importId}`;
      expect((await t.send('GET', path)).body).toMatchObject({ state: 'done', linesRefused: 3 });
      const page = (await t.send('GET', `${path}/refusals?limit=2`)).body;
      const rest = (await t.send('GET', `${path}/refusals?limit=2&cursor=${page.next}`)).body;
      expect([...page.data, ...rest.data]).toEqual(body.refusals);
      expect(rest.next).toBeNull();
    }
    const { body } = await t.send('GET', '/api/v1/devices/a/readings?metric=first&order=asc');
    expect(body.data).toEqual([
      { time: '2025-03-01T00:00:00.000Z', metric: 'first', value: 1 },
      { time: '2025-03-01T00:00:01.000Z', metric: 'first', value: "=cmd|' /C calc'!A0" },
    ]);
  });

  it('brings no reading that is older than readings are kept', async () => {
    await t.send('PUT', '/api/v1/retention', { raw: 100 });
    const file = `device,time,old\na,${TS},1\na,${Date.now() - 99 * 86_400_000},2\n`;
    const { body } = await send(file, { format: 'csv', source: 'old' });
    await t.send('PUT', '/api/v1/retention', {});
    expect(body.refusals).toMatchObject([{ line: 2, code: 'too_old' }]);
    expect(await countOf('old')).toBe(1);
  });

  it('takes NDJSON, with a metric that is new in the middle of it', async () => {
    const lines = Array.from({ length: 500 }, (_, at) => {
      const name = at < 250 ? 'early' : 'late';
      return JSON.stringify({ device: at % 2 === 0 ? 'a' : 'b', ts: TS + at, [name]: at });
    });
    const { body } = await send(lines.join('\n'), { format: 'ndjson', source: 'mixed' });
    expect(body).toMatchObject({ state: 'done', linesRead: 500, linesRefused: 0 });
    expect([await countOf('early'), await countOf('late', 'b')]).toEqual([125, 125]);
  });

  it('refuses the lines that ingest refuses: more metrics than a device may have', async () => {
    await t.send('POST', '/api/v1/devices', { device: 'wide' });
    const lines = Array.from({ length: 300 }, (_, at) => `wide,${TS},m${at},${at}`);
    const file = `device,time,metric,value\n${lines.join('\n')}`;
    const { body } = await send(file, { format: 'csv', source: 'wide' });
    expect(body).toMatchObject({ linesRead: 301, linesRefused: 300 - 256 });
    expect(body.refusals[0]).toMatchObject({ line: 258, code: 'too_many', content: lines[256] });
  });

  it('keeps as many refused lines as it may, answers with a hundred, and counts them all', async () => {
    const file = `device,time,m\n${'x\n'.repeat(5000)}`;
    const { body } = await send(file, { format: 'csv', source: 'bad' });
    expect(body).toMatchObject({ linesRead: 5001, linesRefused: 5000 });
    expect(body.refusals).toHaveLength(100);
    const path = `/api/v1/imports/${body.importId}/refusals?limit=5000`;
    expect((await t.send('GET', path)).body.data).toHaveLength(150);
  });

  it('takes lines of any length without taking memory (I-20)', async () => {
    const huge = 90 * MEGABYTE;
    async function* file(): AsyncGenerator<Buffer> {
      yield Buffer.from(`device,time,huge\na,${TS},1\n`);
      for (let sent = 0; sent < huge; sent += MEGABYTE) yield Buffer.alloc(MEGABYTE, 0x78);
      yield Buffer.from(`\na,${TS + 1},2\n`);
    }
    const before = process.memoryUsage().arrayBuffers;
    let highest = 0;
    const sampler = setInterval(() => {
      highest = Math.max(highest, process.memoryUsage().arrayBuffers - before);
    }, 5);
    const sent = begin({ format: 'csv', source: 'huge' });
    Readable.from(file()).pipe(sent);
    const { body } = await answerOf(sent);
    clearInterval(sampler);
    expect(body).toMatchObject({ linesRead: 4, linesRefused: 1 });
    expect(body.refusals[0]).toMatchObject({ line: 3, code: 'too_big' });
    expect(body.refusals[0].content).toBe('x'.repeat(1024));
    expect(await countOf('huge')).toBe(2);
    expect(highest).toBeLessThan(64 * MEGABYTE);
  });

  it('reads no further than ingest keeps up with, and goes on when that does', async () => {
    const client = await t.test.database.pool.connect();
    await client.query('BEGIN; LOCK TABLE device_latest IN ACCESS EXCLUSIVE MODE');
    const sent = begin({ format: 'csv', source: 'held' });
    const note = 'x'.repeat(200);
    const lines = Array.from({ length: 60_000 }, (_, at) => `a,${TS + at},${note}\n`);
    const file = Buffer.from(`device,time,held\n${lines.join('')}`);
    let written = 0;
    try {
      const push = (): void => {
        while (written < file.length) {
          const chunk = file.subarray(written, written + 65_536);
          written += chunk.length;
          if (!sent.write(chunk)) return;
        }
        sent.end();
      };
      sent.on('drain', push);
      push();
      await eventually('it has begun', async () => (await active()).length === 1);
      await delay(700);
      expect(written).toBeLessThan(file.length * 0.9);
      expect((await active())[0]?.linesRead).toBeLessThan(2);
    } finally {
      await client.query('ROLLBACK');
      client.release();
    }
    const { body } = await answerOf(sent);
    expect(body).toMatchObject({ linesRead: 60_001, linesRefused: 0 });
    expect(await countOf('held')).toBe(60_000);
  });
});

describe('an import that is cut off', () => {
  it('is resumed where it was, by sending the file whole or its rest, and stores nothing twice', async () => {
    const file = csvOf('cut', 20_000);
    const query = { format: 'csv', source: 'cut.csv', resume: 'true' };
    const cut = begin(query);
    cut.write(file.slice(0, 300_017));
    await eventually(
      'it has stored some',
      async () => ((await active())[0]?.linesRead ?? 0) > 5000,
    );
    cut.destroy();
    await eventually('it has ended', async () => (await active()).length === 0);
    const [left] = (await t.send('GET', '/api/v1/imports?source=cut.csv')).body.data;
    expect(left).toMatchObject({ state: 'running', active: false });
    const byteOffset: number = left.byteOffset;
    expect(file[byteOffset - 1]).toBe('\n');
    expect(byteOffset).toBeLessThan(300_017);
    expect(file.slice(0, byteOffset).split('\n')).toHaveLength(left.linesRead + 1);
    const head = file.slice(0, 65_536);
    const beyond = String(byteOffset + 1);
    const wrong = await send(head + file.slice(byteOffset + 1), { ...query, offset: beyond });
    expect(wrong).toMatchObject({ status: 409, body: { code: 'IMPORT_OFFSET' } });
    const rest = head + file.slice(byteOffset);
    const { status, body } = await send(rest, { ...query, offset: String(byteOffset) });
    expect(status).toBe(200);
    expect(body).toMatchObject({ importId: left.importId, state: 'done', linesRead: 20_001 });
    expect(await countOf('cut')).toBe(20_000);
    // Again, and with more at its end.
    const longer = file + csvOf('x', 10, 20_000).split('\n').slice(1).join('\n');
    const again = await send(longer, query);
    expect(again.body).toMatchObject({ importId: left.importId, linesRead: 20_011 });
    expect(await countOf('cut')).toBe(20_010);
  });

  it('has both of its ends in the audit trail, with who sent it and what came of it', async () => {
    const keyId = t.acme.adminKey.split('_')[1]?.slice(0, 8);
    const trail = async (source: string): Promise<unknown[]> =>
      (
        await t.test.database.pool.query(
          `SELECT organization_id, actor, action, subject, change FROM audit_event
           WHERE action = 'import.end' AND change ->> 'source' = $1 ORDER BY audit_event_id`,
          [source],
        )
      ).rows;
    const file = `${csvOf('trail', 5000)}x\n`;
    const query = { format: 'csv', source: 'trail', resume: 'true' };
    const cut = begin(query);
    cut.write(file.slice(0, 70_000));
    await eventually('it has stored some', async () => {
      return ((await active())[0]?.linesRead ?? 0) > 1000;
    });
    cut.destroy();
    await eventually('it has ended', async () => (await active()).length === 0);
    const own = { organization_id: t.acme.author.organizationId, action: 'import.end' };
    const [first, ...none] = await trail('trail');
    expect(none).toEqual([]);
    expect(first).toMatchObject({ ...own, change: { state: 'running', linesRefused: 0 } });
    const { body } = await send(file, query);
    const change = { source: 'trail', state: 'done', linesRead: 5002, linesRefused: 1 };
    const subject = `import/${body.importId}`;
    expect((await trail('trail')).slice(1)).toEqual([
      {
        ...own,
        actor: keyId,
        subject,
        change: { ...change, byteOffset: file.length },
      },
    ]);
  });

  it('is another one when the name, the format or the beginning differs', async () => {
    const query = { format: 'csv', source: 'same', resume: 'true' };
    const { body: first } = await send(csvOf('other', 2), query);
    for (const [file, changed] of [
      [csvOf('other', 3), {}],
      [csvOf('other', 2), { source: 'another' }],
      [csvOf('other', 2), { resume: 'false' }],
    ] as const) {
      const { body } = await send(file, { ...query, ...changed });
      expect(body.importId).not.toBe(first.importId);
    }
    const { status } = await send(csvOf('other', 9), { ...query, offset: '70000' });
    expect(status).toBe(409);
  });
});

describe('the end of the program', () => {
  it('interrupts an import at once, also one that waits for more of its file, and notes how far it is', async () => {
    const stopped = await createTestApi({ rawDays: 3650 });
    await stopped.send('POST', '/api/v1/devices', { device: 'a' });
    const sent = request(`${stopped.url}/api/v1/import?format=csv&source=late&resume=true`, {
      method: 'POST',
      headers: { authorization: `Bearer ${stopped.acme.adminKey}` },
    });
    sent.on('error', () => undefined);
    sent.write(csvOf('late', 5000));
    const { pool } = stopped.test.database;
    const linesOf = async (): Promise<number> =>
      Number((await pool.query('SELECT lines_read FROM import_run')).rows[0]?.lines_read ?? 0);
    await eventually('it waits for more', async () => (await linesOf()) === 5001);
    const startedAt = performance.now();
    const [answer] = await Promise.all([answerOf(sent), stopped.imports.stop()]);
    // The file may be silent for 60 s.
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    expect(answer).toMatchObject({ status: 503, body: { code: 'IMPORT_INTERRUPTED' } });
    expect(await linesOf()).toBe(5001);
    await stopped.stop();
  });
});

describe('what an import is refused for as a whole', () => {
  it('is a header that cannot be understood, or an empty file', async () => {
    for (const file of ['', '\n', 'a,b\n1,2', 'device,time\na,1']) {
      const { status, body } = await send(file, { format: 'csv', source: 'x' });
      expect([status, body.code], file).toEqual([422, 'REQUEST_INVALID']);
    }
    expect((await t.send('GET', '/api/v1/imports?source=x')).body.data).toEqual([]);
  });

  it('is a query that is not one, or a compressed file', async () => {
    for (const query of [{}, { format: 'xml' }, { offset: '5' }, { map: 'x' }, { source: '' }]) {
      const asked = { format: 'csv', source: 'x', ...query } as Query;
      if (Object.keys(query).length === 0) delete asked['format'];
      expect((await send('x', asked)).status, JSON.stringify(query)).toBe(400);
    }
    const zipped = begin({ format: 'csv', source: 'x' }, undefined, { 'content-encoding': 'gzip' });
    zipped.end('x');
    expect((await answerOf(zipped)).status).toBe(415);
  });

  it('is a file larger than allowed, announced or not; what was read of it is stored', async () => {
    const announced = begin({ format: 'csv', source: 'large' }, undefined, {
      'content-length': '100000001',
    });
    announced.flushHeaders();
    expect((await answerOf(announced)).status).toBe(413);
    const line = `a,${TS},${'0'.repeat(60_000)}\n`;
    const sent = begin({ format: 'csv', source: 'large' });
    Readable.from(
      (function* () {
        yield `device,time,large\na,${TS},1\n`;
        for (let bytes = 0; bytes < 110_000_000; bytes += line.length) yield line;
      })(),
    ).pipe(sent);
    expect((await answerOf(sent)).status).toBe(413);
    const { data } = (await t.send('GET', '/api/v1/imports?source=large')).body;
    expect(data.map(({ state }: Query) => state)).toEqual(['failed']);
    expect(await countOf('large')).toBe(1);
  });

  it('is silence in the middle of it: 408, and it can be resumed (I-19)', async () => {
    const sent = begin({ format: 'csv', source: 'slow' });
    // Longer than the head of a file, which has to be there before anything is stored.
    sent.write(csvOf('slow', 5000));
    const { status } = await answerOf(sent);
    expect(status).toBe(408);
    const [left] = (await t.send('GET', '/api/v1/imports?source=slow')).body.data;
    expect(left).toMatchObject({ state: 'running', active: false, linesRead: 5001 });
    expect(await countOf('slow')).toBe(5000);
  });

  it('is a file that comes byte by byte, which would hold its place for days (I-19)', async () => {
    const sent = begin({ format: 'csv', source: 'trickle' });
    sent.write(csvOf('trickle', 5000));
    const drip = setInterval(() => sent.write('#'), 300);
    const startedAt = performance.now();
    const { status, body } = await answerOf(sent);
    clearInterval(drip);
    expect([status, body.detail]).toEqual([
      408,
      expect.stringMatching(/bytes of the file came in 4 s/),
    ]);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
  });

  it('is another one of the organization that runs, and too many in all', async () => {
    const first = begin({ format: 'csv', source: 'one' });
    first.write(csvOf('one', 5000));
    await eventually('it runs', async () => (await active()).length === 1);
    expect((await send('x', { format: 'csv', source: 'two' })).body.code).toBe('IMPORT_BUSY');
    const others = begin({ format: 'ndjson', source: 'one' }, t.other.adminKey);
    others.write('{}\n');
    await eventually('both run', async () => {
      const { body } = await t.send('GET', '/metrics');
      return body.includes('\npuback_import_runs 2\n');
    });
    const third = t.imports.import({
      organizationId: 999,
      actor: 'nobody',
      source: 'x',
      format: 'csv',
      resume: false,
      offset: 0,
      device: null,
      columns: new Map(),
      body: Readable.from([]),
      bodyBytes: null,
    });
    await expect(third).rejects.toMatchObject({ code: 'IMPORT_LIMIT', status: 429 });
    first.end();
    expect((await answerOf(first)).status).toBe(200);
  });
});

describe('the imports of an organization', () => {
  it('are not seen by another, nor by a key that is not an admin one (A-01)', async () => {
    const { body } = await send('device,time,m\nx', { format: 'csv', source: 'private' });
    for (const path of ['', '/refusals']) {
      const url = `/api/v1/imports/${body.importId}${path}`;
      expect((await t.send('GET', url)).status).toBe(200);
      expect((await t.send('GET', url, undefined, t.other.adminKey)).status).toBe(404);
      expect((await t.send('GET', url, undefined, null)).status).toBe(401);
    }
    for (const id of ['x', '%00', '00000000-0000-0000-0000-000000000000']) {
      expect((await t.send('GET', `/api/v1/imports/${id}`)).status).toBe(404);
      expect((await t.send('GET', `/api/v1/imports/${id}/refusals`)).status).toBe(404);
    }
    const seen = (await t.send('GET', '/api/v1/imports', undefined, t.other.adminKey)).body.data;
    expect(seen.map(({ source }: Query) => source)).not.toContain('private');
    const foreign = await send(
      `device,time,m\na,${TS},1`,
      { format: 'csv', source: 'f' },
      t.other.adminKey,
    );
    expect(foreign.body.refusals).toMatchObject([{ line: 2, code: 'unknown_device' }]);
  });

  it('are pages, newest first', async () => {
    const all = (await t.send('GET', '/api/v1/imports')).body.data;
    const first = (await t.send('GET', '/api/v1/imports?limit=2')).body;
    const next = (await t.send('GET', `/api/v1/imports?limit=2&cursor=${first.next}`)).body;
    expect([...first.data, ...next.data]).toEqual(all.slice(0, 4));
  });
});
