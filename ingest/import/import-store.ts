import type pg from 'pg';
import { cutPage, type Page } from '../../drizzle/page.ts';
import { guardStore } from '../../drizzle/sqlstate.ts';
import { inOrganization, type TenantDatabase } from '../../drizzle/transaction.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import { ImportNotFoundError } from '../../errors.ts';
import type { WriteAudit } from '../quarantine-row.ts';
import type { ImportFormat } from './import-line.ts';

/** `running`: not at its end; it may have been cut off, and can be resumed. `failed`: at what it cannot take. */
export type ImportState = 'running' | 'done' | 'failed';

/** One file that is or was imported. */
export interface ImportRecord {
  readonly importId: string;
  /** Name of the file. */
  readonly source: string;
  readonly format: ImportFormat;
  readonly state: ImportState;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** Everything of the file before it is stored, or refused and told of. */
  readonly byteOffset: number;
  /** Lines before `byteOffset`. */
  readonly linesRead: number;
  readonly linesRefused: number;
  /** SHA-256 over the head of the file. */
  readonly fingerprint: Buffer;
}

/** A line that was not stored. */
export interface RefusedLine {
  readonly line: number;
  readonly code: string;
  readonly detail: string;
  /** The line, cut to 1024 characters. */
  readonly content: string;
}

/** How far an import has come, and what it refused on the way there. */
export interface Checkpoint {
  readonly state: ImportState;
  readonly byteOffset: number;
  readonly linesRead: number;
  readonly linesRefused: number;
  /** Those since the checkpoint before; not more than may be kept. */
  readonly refused: readonly RefusedLine[];
}

/** Of the end of an import, or of a part of it that was cut off: who sent it, and under which name. */
export interface ImportEnd {
  readonly actor: string;
  readonly source: string;
}

/** What makes a file the same as one before. */
export interface ImportIdentity {
  readonly organizationId: number;
  readonly source: string;
  readonly format: ImportFormat;
  readonly fingerprint: Buffer;
}

/** Which imports a page shows. */
export interface ImportQuery {
  readonly organizationId: number;
  readonly source: string | null;
  /** Newest first; id of the last one of the page before. */
  readonly after: string | null;
  readonly limit: number;
}

/** Which refused lines a page shows. */
export interface RefusalQuery {
  readonly organizationId: number;
  readonly importId: string;
  /** In the order of lines; last line of the page before. */
  readonly after: number | null;
  readonly limit: number;
}

/** Imports that are kept of each organization; older ones go with the lines that they refused. */
const KEPT_MAX = 100;
const COLUMNS = `import_run_id, source, format, state, created_at, updated_at, byte_offset, lines_read,
  lines_refused, fingerprint`;

interface Row {
  import_run_id: string;
  source: string;
  format: ImportFormat;
  state: ImportState;
  created_at: Date;
  updated_at: Date;
  byte_offset: string;
  lines_read: string;
  lines_refused: string;
  fingerprint: Buffer;
}

/**
 * The tables `import_run` and `import_refusal`, and the names of devices. Every function asks for the
 * organization and sees no other; every one throws {@link StoreUnavailableError} when the database is away.
 */
export class ImportStore {
  readonly #database: TenantDatabase;
  readonly #writeAudit: WriteAudit;

  constructor(database: TenantDatabase, writeAudit: WriteAudit) {
    this.#database = database;
    this.#writeAudit = writeAudit;
  }

  /** The newest import of this file; null when there was none. */
  async find({
    organizationId,
    source,
    format,
    fingerprint,
  }: ImportIdentity): Promise<ImportRecord | null> {
    const rows = await this.#ask(
      organizationId,
      `SELECT ${COLUMNS} FROM import_run
       WHERE organization_id = $1 AND source = $2 AND format = $3 AND fingerprint = $4
       ORDER BY import_run_id DESC LIMIT 1`,
      [organizationId, source, format, fingerprint],
    );
    return rows[0] === undefined ? null : recordOf(rows[0]);
  }

  /** Notes a new import, and forgets the oldest beyond a hundred. */
  async create({
    organizationId,
    source,
    format,
    fingerprint,
  }: ImportIdentity): Promise<ImportRecord> {
    const rows = await this.#ask(
      organizationId,
      `INSERT INTO import_run (import_run_id, organization_id, source, format, state, fingerprint)
       VALUES ($1, $2, $3, $4, 'running', $5) RETURNING ${COLUMNS}`,
      [makeUuidV7(Date.now()), organizationId, source, format, fingerprint],
    );
    // Not the organization's own right: it may add to its imports, and not take away.
    await guardStore(
      this.#database.pool.query(
        `DELETE FROM import_run WHERE import_run_id IN (
           SELECT import_run_id FROM import_run WHERE organization_id = $1
           ORDER BY import_run_id DESC OFFSET $2)`,
        [organizationId, KEPT_MAX],
      ),
    );
    return recordOf(rows[0] as Row);
  }

  /** @throws {ImportNotFoundError} */
  async get(organizationId: number, importId: string): Promise<ImportRecord> {
    // Any text may be asked for, also one that PostgreSQL cannot hold.
    if (importId.includes('\0')) throw new ImportNotFoundError(importId);
    const rows = await this.#ask(
      organizationId,
      `SELECT ${COLUMNS} FROM import_run WHERE organization_id = $1 AND import_run_id::text = $2`,
      [organizationId, importId],
    );
    if (rows[0] === undefined) throw new ImportNotFoundError(importId);
    return recordOf(rows[0]);
  }

  /** Newest first. */
  async list({ organizationId, source, after, limit }: ImportQuery): Promise<Page<ImportRecord>> {
    const rows = await this.#ask(
      organizationId,
      `SELECT ${COLUMNS} FROM import_run
       WHERE organization_id = $1 AND ($2::text IS NULL OR source = $2)
         AND ($3::uuid IS NULL OR import_run_id < $3)
       ORDER BY import_run_id DESC LIMIT $4`,
      [organizationId, source, after, limit + 1],
    );
    return cutPage(rows.map(recordOf), limit);
  }

  /** In the order of lines. @throws {ImportNotFoundError} */
  async refusals(query: RefusalQuery): Promise<Page<RefusedLine>> {
    const { organizationId, after, limit } = query;
    const { importId } = await this.get(organizationId, query.importId);
    const { rows } = await inOrganization(this.#database, organizationId, ({ client }) =>
      client.query<Omit<RefusedLine, 'line'> & { line: string }>(
        `SELECT line, code, detail, content FROM import_refusal
         WHERE organization_id = $1 AND import_run_id = $2 AND line > $3 ORDER BY line LIMIT $4`,
        [organizationId, importId, after ?? 0, limit + 1],
      ),
    );
    return cutPage(
      rows.map((row) => ({ ...row, line: Number(row.line) })),
      limit,
    );
  }

  /**
   * Writes how far an import has come, all or nothing.
   * @param end what the audit trail is to have of it, when this is its end or nothing more of it comes.
   */
  async save(
    organizationId: number,
    importId: string,
    checkpoint: Checkpoint,
    end: ImportEnd | null = null,
  ): Promise<Date> {
    const { state, byteOffset, linesRead, linesRefused, refused } = checkpoint;
    return inOrganization(this.#database, organizationId, async ({ client, orm }) => {
      if (end !== null) {
        const { actor, source } = end;
        await this.#writeAudit(orm, {
          organizationId,
          actor,
          action: 'import.end',
          subject: `import/${importId}`,
          change: { source, state, byteOffset, linesRead, linesRefused },
        });
      }
      if (refused.length > 0) await insertRefused(client, organizationId, importId, refused);
      const { rows } = await client.query<{ updated_at: Date }>(
        `UPDATE import_run SET state = $3, byte_offset = $4, lines_read = $5, lines_refused = $6,
                updated_at = now()
         WHERE organization_id = $1 AND import_run_id = $2 RETURNING updated_at`,
        [organizationId, importId, state, byteOffset, linesRead, linesRefused],
      );
      return rows[0]?.updated_at ?? new Date();
    });
  }

  /** The ids of devices, by their slugs: of those that the organization has. */
  async findDevices(
    organizationId: number,
    devices: readonly string[],
  ): Promise<ReadonlyMap<string, number>> {
    const { rows } = await inOrganization(this.#database, organizationId, ({ client }) =>
      client.query<{ device_id: number; slug: string }>(
        'SELECT device_id, slug FROM device WHERE organization_id = $1 AND slug = ANY($2)',
        [organizationId, devices],
      ),
    );
    return new Map(rows.map(({ device_id: deviceId, slug }) => [slug, deviceId]));
  }

  async #ask(organizationId: number, text: string, values: readonly unknown[]): Promise<Row[]> {
    const { rows } = await inOrganization(this.#database, organizationId, ({ client }) =>
      client.query<Row>(text, [...values]),
    );
    return rows;
  }
}

/** A line that was refused twice, after a crash between the two, is there once. */
async function insertRefused(
  client: pg.PoolClient,
  organizationId: number,
  importId: string,
  refused: readonly RefusedLine[],
): Promise<void> {
  await client.query(
    `INSERT INTO import_refusal (import_run_id, organization_id, line, code, detail, content)
     SELECT $1, $2, * FROM unnest($3::int8[], $4::text[], $5::text[], $6::text[])
     ON CONFLICT DO NOTHING`,
    [
      importId,
      organizationId,
      refused.map(({ line }) => line),
      refused.map(({ code }) => code),
      refused.map(({ detail }) => detail),
      refused.map(({ content }) => content),
    ],
  );
}

function recordOf(row: Row): ImportRecord {
  return {
    importId: row.import_run_id,
    source: row.source,
    format: row.format,
    state: row.state,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    byteOffset: Number(row.byte_offset),
    linesRead: Number(row.lines_read),
    linesRefused: Number(row.lines_refused),
    fingerprint: row.fingerprint,
  };
}
