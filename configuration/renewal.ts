import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import {
  inOrganization,
  inTransaction,
  type TenantDatabase,
  type Transaction,
} from '../drizzle/transaction.ts';
import {
  checkSchema,
  compileSchema,
  type CompiledSchema,
} from '../firmware-protocol/json-schema-check.ts';
import type { Document } from './configuration.ts';
import {
  addRows,
  holdDevices,
  lockRows,
  saveRows,
  type ConfigurationRow,
  type ConfigurationSave,
} from './configuration-row.ts';
import { renewDocument } from './configuration-step.ts';
import { PACKET_BYTES_STANDARD } from './document-check.ts';
import { isSameJson } from './merge-patch.ts';
import type { ConfigurationMetrics } from './metrics.ts';
import type { CommittedVersion, Publisher } from './publisher.ts';

/**
 * Whose documents are to be made anew; what is null bounds nothing. With an organization it is done under
 * its role.
 */
export interface RenewalScope {
  readonly organizationId: number | null;
  readonly type: string | null;
  readonly deviceIds: readonly number[] | null;
}

/** What {@link Renewal} works with. */
export interface RenewalParts {
  readonly database: TenantDatabase;
  readonly publisher: Publisher;
  readonly metrics: ConfigurationMetrics;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** All devices of all organizations. */
export const EVERYBODY: RenewalScope = { organizationId: null, type: null, deviceIds: null };

/** Devices of one transaction. */
const PAGE_DEVICES = 200;
/** Others have their turn after so long. */
const TURN_MS = 4;

/*
 * A row says which version of which type's defaults its document was made with: what differs is made
 * anew, however often a program dies on the way. What was too big is tried again once the device takes it.
 */
const STALE = `
  SELECT device.device_id
  FROM device
  LEFT JOIN configuration_type AS type
    ON type.organization_id = device.organization_id AND type.device_type = device.device_type
  LEFT JOIN device_configuration AS stored ON stored.device_id = device.device_id
  LEFT JOIN device_presence AS presence ON presence.device_id = device.device_id
  WHERE device.device_id > $1
    AND ($2::int4 IS NULL OR device.organization_id = $2)
    AND ($3::text IS NULL OR device.device_type = $3)
    AND ($4::int4[] IS NULL OR device.device_id = ANY($4))
    AND CASE
      WHEN stored.device_id IS NULL THEN coalesce(type.defaults, '{}') <> '{}'
      ELSE stored.device_type IS DISTINCT FROM device.device_type
        OR stored.type_version <> coalesce(type.version, 0)
        OR (stored.held->>'code' = 'too_big' AND (stored.held->>'bytes')::float8
            <= coalesce((presence.hello->>'mps')::float8, ${PACKET_BYTES_STANDARD}))
    END
  ORDER BY device.device_id LIMIT ${PAGE_DEVICES}`;

/** Makes documents anew where the defaults of a type, or the type of a device, have changed. */
export class Renewal {
  readonly #parts: RenewalParts;

  constructor(parts: RenewalParts) {
    this.#parts = parts;
  }

  /**
   * Goes through the devices of a scope whose document may be old, a page of them in a transaction, and
   * publishes each page. @param mayGoOn asked between pages. @throws {StoreUnavailableError} what is left is
   * found again.
   */
  async run(
    scope: RenewalScope,
    mayGoOn: () => boolean = () => true,
  ): Promise<{ readonly changed: number; readonly isComplete: boolean }> {
    let changed = 0;
    let after = 0;
    for (;;) {
      const page = await this.#stale(scope, after);
      const last = page.at(-1);
      if (last === undefined) return { changed, isComplete: true };
      if (!mayGoOn()) return { changed, isComplete: false };
      changed += await this.#renew(scope, page);
      after = last;
    }
  }

  async #stale(scope: RenewalScope, after: number): Promise<number[]> {
    const { organizationId, type, deviceIds } = scope;
    const values = [after, organizationId, type, deviceIds === null ? null : [...deviceIds]];
    const { database } = this.#parts;
    const ask = (client: Pick<pg.Pool, 'query'>) =>
      client.query<{ device_id: number }>(STALE, values);
    const { rows } =
      organizationId === null
        ? await guardStore(ask(database.pool))
        : await inOrganization(database, organizationId, ({ client }) => ask(client));
    return rows.map((row) => row.device_id);
  }

  #within<T>(
    { organizationId }: RenewalScope,
    work: (transaction: Transaction) => Promise<T>,
  ): Promise<T> {
    const { database } = this.#parts;
    return organizationId === null
      ? inTransaction(database.pool, work)
      : inOrganization(database, organizationId, work);
  }

  async #renew(scope: RenewalScope, deviceIds: readonly number[]): Promise<number> {
    const { metrics, publisher, now } = this.#parts;
    const at = new Date(now());
    const saves = await this.#within(scope, async ({ client }) => {
      // What is left out is found again by the next sweep.
      const held = await holdDevices(client, deviceIds);
      await addRows(client, held, at);
      const rows = await lockRows(client, held, at);
      const made = await renewRows(rows, at);
      await saveRows(client, made);
      return made;
    });
    const versions = saves.filter(({ cause }) => cause !== null);
    metrics.versionsMade('type', versions.length);
    await publisher.publish(versions.map((save) => committedOf(save)));
    return versions.length;
  }
}

/** With a break where schemas take long: a page has many documents. */
async function renewRows(rows: readonly ConfigurationRow[], at: Date): Promise<RenewedRow[]> {
  const schemas = new SchemaCache();
  const made: RenewedRow[] = [];
  let sinceMs = performance.now();
  for (const row of rows) {
    const by = `device-type/${row.type ?? ''}`;
    made.push({ row, ...renewDocument(row, schemas.compiled(row.schema), { by, at }) });
    if (performance.now() - sinceMs < TURN_MS) continue;
    await new Promise((resolve) => setImmediate(resolve));
    sinceMs = performance.now();
  }
  return made;
}

interface RenewedRow extends ConfigurationSave {
  readonly row: ConfigurationRow;
}

/** What the publisher needs to know of a row that was saved. */
export function committedOf({
  row,
  state,
}: ConfigurationSave & {
  readonly row: { organization: string; device: string };
}): CommittedVersion {
  const { deviceId, organization, device } = row;
  return { deviceId, organization, device, version: state.version, document: state.document };
}

/** Compiles the schema that the devices of a page share once. */
class SchemaCache {
  #last: { readonly schema: Document; readonly compiled: CompiledSchema | null } | null = null;

  /** One that an older program took and this one does not allows anything. */
  compiled(schema: Document | null): CompiledSchema | null {
    if (schema === null) return null;
    if (this.#last === null || !isSameJson(this.#last.schema, schema)) {
      const compiled = checkSchema(schema) === null ? compileSchema(schema) : null;
      this.#last = { schema, compiled };
    }
    return this.#last.compiled;
  }
}
