import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeArguments } from '../../bench/program.ts';
import { writeBackup, type BackupProgress } from '../../drizzle/backup/backup.ts';
import { decodeFrames, encodeFrames, type Frame } from '../../drizzle/backup/backup-format.ts';
import { checkBackup, restoreBackup } from '../../drizzle/backup/restore.ts';
import { migrateTo, readMigrations } from '../../drizzle/backup/schema-version.ts';
import { openSnapshot } from '../../drizzle/backup/snapshot.ts';
import { quoteTable, readTables } from '../../drizzle/backup/table-catalog.ts';
import { readJournal } from '../../drizzle/migrate.ts';
import {
  createEmptyDatabase,
  createTestDatabase,
  type EmptyDatabase,
  type TestDatabase,
} from '../support/database.ts';
import { DOWNLINK_TABLES, insertDownlinkRows } from '../support/downlink-rows.ts';

const NEVER = new AbortController().signal;
const quiet = { signal: NEVER, onProgress: () => undefined };
let folder = '';
let source: TestDatabase;
/** A backup of `source`, which the tests leave as it is. */
let file = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'puback-backup-'));
  source = await createTestDatabase();
  await fill(source.url);
  file = join(folder, 'first.backup');
  await writeBackup({ ...quiet, url: source.url, file });
});
afterAll(async () => {
  await source.drop();
  await rm(folder, { recursive: true, force: true });
});

/** Rows with whatever a column may hold: nulls, quotes, commas, tabs, other scripts, infinities. */
async function fill(url: string): Promise<void> {
  await query(
    url,
    `
    INSERT INTO organization (slug, display_name) VALUES ('demo', E'De\\tmo "ü" \\\\N'), ('other', '');
    INSERT INTO device (organization_id, slug, display_name, tags)
      SELECT 1 + i % 2, 'd' || i, 'D' || i, ARRAY['a,b', '"c"', NULL] FROM generate_series(1, 100) i;
    DELETE FROM device WHERE device_id > 90;
    INSERT INTO api_key (key_id, organization_id, device_id, kind, name, secret_hash)
      SELECT 'k' || device_id, organization_id, device_id, 'device', '', sha256(slug::bytea) FROM device;
    INSERT INTO metric (organization_id, name, kind)
      SELECT 1, 'm' || i, 'number' FROM generate_series(1, 10) i;
    INSERT INTO audit_event (audit_event_id, organization_id, actor, action, subject, change)
      VALUES (gen_random_uuid(), 1, 'a', 'b', 'c', '{"x": [1, null, "\\u00fc"]}');
    INSERT INTO device_sequence (device_id, boot, received, forgotten, first_at, last_at)
      VALUES (1, 9007199254740993, '{[0,10),[12,)}', 3, '-infinity', 'infinity');
    INSERT INTO dirty_range (device_id, hour) VALUES (1, '2026-01-01');
    INSERT INTO organization_reader VALUES ('grafana', 1);
    INSERT INTO quarantine (quarantine_id, organization_id, device_id, received_at, topic, code, detail, payload)
      VALUES (gen_random_uuid(), 1, 1, now(), 't', 'c', '', '\\x000102ff');
  `,
  );
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  await insertDownlinkRows(pool, { organizationId: 1, deviceId: 2, value: 1 });
  await pool.end();
  const [kind] = await query(url, `SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass`);
  if (kind?.['relkind'] === 'p') {
    await query(
      url,
      `SELECT rollup_partition_ensure('rollup_1h', 30, '2026-02-01');
       INSERT INTO rollup_1h VALUES (1, 1, '2026-02-01', 2, 3, 1, 2, 1, 2);
       UPDATE aggregate_watermark SET watermark = '2026-02-02' WHERE level = '1h'`,
    );
    await query(
      url,
      `SELECT reading_partition_ensure('2026-02-01'::date + i) FROM generate_series(0, 3) i`,
    );
  }
  await query(
    url,
    `INSERT INTO reading
     SELECT '2026-02-01'::timestamptz + i % 3 * interval '1 day' + i * interval '1.000001 s',
            1 + i % 90, 1 + i % 10,
            CASE i % 7 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN '-0' ELSE random() * i END,
            CASE WHEN i % 5 = 0 THEN repeat('ü', i % 100) END, now(), i % 4
     FROM generate_series(0, 19999) i`,
  );
}

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const results = await client.query<Record<string, unknown>>(sql);
    return Array.isArray(results) ? [] : results.rows;
  } finally {
    await client.end();
  }
}

/** A checksum over the rows of each table, in an order of their own. */
async function contents(url: string): Promise<Record<string, unknown>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const found: Record<string, unknown> = {};
    for (const { table } of await readTables(client)) {
      const { rows } = await client.query(
        `SELECT count(*)::int AS rows, md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) AS sum
         FROM ${quoteTable(table)} t`,
      );
      found[table] = rows[0];
    }
    return found;
  } finally {
    await client.end();
  }
}

async function inEmptyDatabase<T>(work: (database: EmptyDatabase) => Promise<T>): Promise<T> {
  const database = await createEmptyDatabase();
  try {
    return await work(database);
  } finally {
    await database.drop();
  }
}

describe('a backup', () => {
  it('restored into an empty database is the same in every table, to the row', async () => {
    await inEmptyDatabase(async ({ url }) => {
      const report = await restoreBackup(url, { ...quiet, file });
      expect(report.rows).toMatchObject({ reading: 20_000, device: 90, organization: 2 });
      expect(await contents(url)).toEqual(await contents(source.url));
    });
  });

  it('brings commands, configuration, keys, campaigns and firmware along, an image to the byte (D-17)', async () => {
    await inEmptyDatabase(async ({ url }) => {
      const { rows } = await restoreBackup(url, { ...quiet, file });
      expect(rows).toMatchObject(
        Object.fromEntries(DOWNLINK_TABLES.map((table) => [table, expect.any(Number) as number])),
      );
      for (const table of DOWNLINK_TABLES) expect(rows[table], table).toBeGreaterThan(0);
      const [image] = await query(
        url,
        `SELECT content, sha256(content) = sha256 AS is_whole, byte_count
         FROM firmware_part JOIN firmware_image USING (firmware_id)`,
      );
      expect(image).toEqual({
        content: Buffer.from(Array.from({ length: 256 }, (_, at) => at)),
        is_whole: true,
        byte_count: 256,
      });
      // The next command of the queue stands behind those that were there.
      const numbers = `SELECT max(queue_number)::int4 AS last, nextval(
        pg_get_serial_sequence('command', 'queue_number'))::int4 AS next FROM command`;
      const [queue] = await query(url, numbers);
      expect(Number(queue?.['next'])).toBeGreaterThan(Number(queue?.['last']));
    });
  });

  it('brings partitions, policies, roles and constraints along', async () => {
    await inEmptyDatabase(async ({ url }) => {
      await restoreBackup(url, { ...quiet, file });
      for (const sql of [
        `SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound, c.relacl::text FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^_' ORDER BY 1`,
        `SELECT tablename, policyname, qual FROM pg_policies ORDER BY 1, 2`,
        `SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '^_' ORDER BY 1, 2`,
      ]) {
        const restored = await query(url, sql);
        expect(restored.length).toBeGreaterThan(5);
        expect(restored).toEqual(await query(source.url, sql));
      }
    });
  });

  it('goes on counting identities where the source was', async () => {
    await inEmptyDatabase(async ({ url }) => {
      await restoreBackup(url, { ...quiet, file });
      const next = await query(
        url,
        `INSERT INTO device (organization_id, slug, display_name) VALUES (1, 'new', '') RETURNING device_id`,
      );
      expect(next).toEqual([{ device_id: 101 }]);
    });
  });

  it('of an older schema gets the newer migrations behind its rows', async () => {
    await inEmptyDatabase(async (older) => {
      const client = new pg.Client({ connectionString: older.url });
      await client.connect();
      await migrateTo(client, 5);
      await client.query(`INSERT INTO organization (slug, display_name) VALUES ('demo', '');
        INSERT INTO device_sequence (device_id, boot, contiguous, highest, seen) VALUES (1, 7, 9, 9, 1)`);
      expect(await readMigrations(client)).toHaveLength(5);
      await client.end();
      const path = join(folder, 'older.backup');
      await writeBackup({ ...quiet, url: older.url, file: path });
      await inEmptyDatabase(async ({ url }) => {
        await restoreBackup(url, { ...quiet, file: path });
        const rows = await query(url, 'SELECT device_id, received::text FROM device_sequence');
        expect(rows).toEqual([{ device_id: 1, received: '{[0,10)}' }]);
        const applied = await query(
          url,
          'SELECT count(*)::int AS n FROM drizzle.__drizzle_migrations',
        );
        expect(applied).toEqual([{ n: readJournal().length }]);
      });
    });
  });

  it('restored leaves out tables of others and says so', async () => {
    const own = await createTestDatabase();
    try {
      await query(own.url, 'CREATE TABLE theirs AS SELECT 1 AS n');
      const path = join(folder, 'theirs.backup');
      await writeBackup({ ...quiet, url: own.url, file: path });
      await inEmptyDatabase(async ({ url }) => {
        const { skipped } = await restoreBackup(url, { ...quiet, file: path });
        expect(skipped).toEqual(['theirs']);
        expect(await query(url, `SELECT to_regclass('theirs') AS made`)).toEqual([{ made: null }]);
      });
    } finally {
      await own.drop();
    }
  });

  it('tells its rows and how far it is', async () => {
    const told: BackupProgress[] = [];
    const path = join(folder, 'told.backup');
    const report = await writeBackup({
      ...quiet,
      url: source.url,
      file: path,
      onProgress: (progress) => told.push(progress),
    });
    const fractions = told.map(({ fraction }) => fraction);
    expect(fractions).toEqual(fractions.toSorted((a, b) => a - b));
    expect(told.at(-1)).toMatchObject({ fraction: expect.closeTo(1, 3), bytes: report.bytes });
    expect(report.fileBytes).toBe((await stat(path)).size);
    expect(report).toMatchObject(await rowsOf(checkBackup({ ...quiet, file: path })));
  });

  it('is a file for its owner alone, with nothing beside it', async () => {
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect((await readdir(folder)).filter((name) => name.includes('unfinished'))).toEqual([]);
  });

  it('replaces an older one when it is complete, and not before', async () => {
    const path = join(folder, 'kept.backup');
    await writeFile(path, 'older');
    const abort = new AbortController();
    const aborted = writeBackup({
      url: source.url,
      file: path,
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
    expect(await readFile(path, 'utf8')).toBe('older');
    expect((await readdir(folder)).filter((name) => name.includes('unfinished'))).toEqual([]);
    await writeBackup({ ...quiet, url: source.url, file: path });
    await checkBackup({ ...quiet, file: path });
  });

  it('needs a database that Puback was started on', async () => {
    await inEmptyDatabase(async ({ url }) => {
      const backup = writeBackup({ ...quiet, url, file: join(folder, 'none.backup') });
      await expect(backup).rejects.toMatchObject({ code: 'DATABASE_UNSUPPORTED' });
    });
  });
});

async function rowsOf(report: Promise<{ rows: object }>): Promise<{ rows: object }> {
  return { rows: (await report).rows };
}

describe('the snapshot of a backup', () => {
  it('is of one moment and holds up neither writers nor new partitions', async () => {
    const own = await createTestDatabase();
    try {
      await query(own.url, `INSERT INTO organization (slug, display_name) VALUES ('a', '')`);
      const { client } = await openSnapshot(own.url);
      await query(
        own.url,
        `SET lock_timeout = '1s'; INSERT INTO organization (slug, display_name) VALUES ('b', '');
         DO $$ BEGIN
           IF (SELECT relkind FROM pg_class WHERE oid = 'reading'::regclass) = 'p' THEN
             PERFORM reading_partition_ensure('2026-03-01');
           END IF;
         END $$;
         INSERT INTO reading VALUES ('2026-03-01', 1, 1, 1, NULL, now(), 0)`,
      );
      const { rows } = await client.query('SELECT slug FROM organization');
      expect(rows).toEqual([{ slug: 'a' }]);
      expect((await client.query('SELECT FROM reading')).rowCount).toBe(0);
      await client.end();
    } finally {
      await own.drop();
    }
  });
});

describe('restoring', () => {
  it('refuses a file that is cut off anywhere, and says so', async () => {
    const whole = await readFile(file);
    const path = join(folder, 'cut.backup');
    for (let step = 0; step < 24; step += 1) {
      await writeFile(path, whole.subarray(0, Math.floor((whole.length * step) / 24)));
      const check = checkBackup({ ...quiet, file: path });
      await expect(check, `cut at ${step}/24`).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
    }
    await writeFile(path, whole.subarray(0, whole.length - 1));
    await expect(checkBackup({ ...quiet, file: path })).rejects.toThrow('it is cut off');
  });

  it('refuses a file in which one byte is another, also one compressed again', async () => {
    const plain = gunzipSync(await readFile(file));
    const path = join(folder, 'changed.backup');
    for (let step = 0; step < 24; step += 1) {
      const changed = Buffer.from(plain);
      const at = Math.floor(((plain.length - 1) * step) / 23);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await writeFile(path, gzipSync(changed, { level: 1 }));
      const check = checkBackup({ ...quiet, file: path });
      await expect(check, `byte ${at}`).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
    }
    await writeFile(path, Buffer.concat([await readFile(file), gzipSync('more')]));
    await expect(checkBackup({ ...quiet, file: path })).rejects.toMatchObject({
      code: 'BACKUP_UNUSABLE',
    });
  });

  it('of a file that proves damaged at its end leaves no row', async () => {
    const plain = gunzipSync(await readFile(file));
    const path = join(folder, 'late.backup');
    await writeFile(path, gzipSync(plain.subarray(0, -1)));
    await inEmptyDatabase(async ({ url }) => {
      const restored = restoreBackup(url, { ...quiet, file: path });
      await expect(restored).rejects.toMatchObject({ code: 'BACKUP_UNUSABLE' });
      expect(await query(url, 'SELECT FROM device')).toEqual([]);
      // The next attempt finds an empty database.
      await restoreBackup(url, { ...quiet, file });
    });
  });

  it('refuses a database with organizations, and leaves it as it is', async () => {
    const own = await createTestDatabase();
    try {
      await query(own.url, `INSERT INTO organization (slug, display_name) VALUES ('mine', '')`);
      const before = await contents(own.url);
      const restored = restoreBackup(own.url, { ...quiet, file });
      await expect(restored).rejects.toMatchObject({ code: 'RESTORE_REFUSED' });
      expect(await contents(own.url)).toEqual(before);
    } finally {
      await own.drop();
    }
  });

  it('refuses a backup of a newer Puback, of another schema, with other columns or sums', async () => {
    const changes: [string, (frame: Frame) => Frame][] = [
      ['it was made with', onHeader((migrations) => [...migrations, Number.MAX_SAFE_INTEGER])],
      ['its schema is none', onHeader((migrations) => migrations.map((when) => when + 1))],
      [
        'has other columns',
        (frame) =>
          frame.kind === 'table'
            ? { ...frame, content: { ...frame.content, columns: [{ name: 'x', type: 'text' }] } }
            : frame,
      ],
      [
        'should have 1 rows',
        (frame) => (frame.kind === 'end' ? { ...frame, content: { rows: { reading: 1 } } } : frame),
      ],
    ];
    for (const [text, change] of changes) {
      const path = join(folder, 'other.backup');
      await rewrite(path, change);
      await inEmptyDatabase(async ({ url }) => {
        await expect(restoreBackup(url, { ...quiet, file: path })).rejects.toThrow(text);
      });
    }
  });

  it('refuses what is no backup', async () => {
    const path = join(folder, 'text');
    for (const bytes of [
      Buffer.from('text'),
      gzipSync('some text of another kind'),
      gzipSync(''),
    ]) {
      await writeFile(path, bytes);
      await expect(checkBackup({ ...quiet, file: path })).rejects.toMatchObject({
        code: 'BACKUP_UNUSABLE',
      });
    }
    const missing = checkBackup({ ...quiet, file: join(folder, 'missing') });
    await expect(missing).rejects.toMatchObject({ code: 'FILE_UNUSABLE' });
  });
});

const onHeader =
  (change: (migrations: readonly number[]) => readonly number[]) =>
  (frame: Frame): Frame =>
    frame.kind === 'header'
      ? { ...frame, content: { ...frame.content, migrations: change(frame.content.migrations) } }
      : frame;

/** Writes the backup again with frames changed and a checksum that is right. */
async function rewrite(path: string, change: (frame: Frame) => Frame): Promise<void> {
  const plain = gunzipSync(await readFile(file));
  async function* bytes(): AsyncGenerator<Buffer> {
    yield plain;
  }
  async function* changed(): AsyncGenerator<Frame> {
    for await (const frame of decodeFrames(bytes())) yield change(frame);
  }
  const parts: Buffer[] = [];
  for await (const part of encodeFrames(changed())) parts.push(part);
  await writeFile(path, gzipSync(Buffer.concat(parts), { level: 1 }));
}

describe('the command backup', () => {
  const run = promisify(execFile);

  it('says that the disk takes no more, ends with 2 and leaves nothing', async () => {
    const command = [process.execPath, ...nodeArguments('bench/backup.ts')].join(' ');
    const path = join(folder, 'large.backup');
    // A bound on the size of files stands for a full disk: 8 blocks of 1 KiB.
    const ended = run('bash', ['-c', `ulimit -f 8; exec ${command} --to ${path}`], {
      env: { ...process.env, DATABASE_URL: source.url },
      cwd: process.cwd(),
    });
    await expect(ended).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/FILE_UNUSABLE: the backup .*large\.backup .*EFBIG/),
    });
    expect((await readdir(folder)).filter((name) => name.startsWith('large'))).toEqual([]);
  });
});
