import pg from 'pg';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDatabase, type Database } from '../../drizzle/database.ts';
import { inOrganization } from '../../drizzle/transaction.ts';
import {
  createEmptyDatabase,
  createLogin,
  onTestServer,
  type EmptyDatabase,
  type TestLogin,
} from '../support/database.ts';
import { createOrganization, createTestRegistry } from '../support/registry.ts';

let logged: string[];
let undo: (() => Promise<unknown>)[];
beforeEach(() => {
  logged = [];
  undo = [];
});
afterEach(async () => {
  for (const step of undo.toReversed()) await step();
});

async function open(url: string): Promise<Database> {
  const log = pino({ level: 'warn' }, { write: (line: string) => void logged.push(line) });
  const database = await openDatabase({ url, connectionsMax: 4, timeoutMs: 10_000, log });
  let isOpen = true;
  const close = async (): Promise<void> => {
    if (isOpen) await database.close();
    isOpen = false;
  };
  undo.push(close);
  return { ...database, close };
}

/** A database that a role with these attributes owns. */
async function ownedBy(login: TestLogin): Promise<EmptyDatabase> {
  const empty = await createEmptyDatabase();
  undo.push(() => empty.drop());
  const name = /\/([^/?]+)(?:\?|$)/.exec(empty.url)?.[1] ?? '';
  await onTestServer(`ALTER DATABASE ${name} OWNER TO ${login.name}`);
  return { ...empty, url: login.urlOf(empty.url) };
}

async function newLogin(attributes = ''): Promise<TestLogin> {
  const login = await createLogin(attributes);
  undo.push(() => login.drop());
  return login;
}

/** Makes two organizations. @returns devices that a query without a filter finds in the first. */
async function devicesSeen(database: Database): Promise<number> {
  const registry = createTestRegistry(database);
  const { author } = await createOrganization(database, 'acme');
  await registry.devices.create(author, { slug: 'd' });
  const other = await createOrganization(database, 'other');
  await registry.devices.create(other.author, { slug: 'd' });
  expect((await registry.devices.list({ ...author, limit: 10, after: null })).rows).toHaveLength(1);
  return inOrganization(database, author.organizationId, async ({ client }) => {
    return (await client.query('SELECT FROM device')).rows.length;
  });
}

describe('the role of tenants', () => {
  it('is made by a database user that may make roles', async () => {
    const login = await newLogin('CREATEROLE');
    const database = await open((await ownedBy(login)).url);
    expect(database.tenantRole).toBe(`puback_tenant_${login.name}`);
    expect(database.capabilities.rowSecurity).toBe(true);
    expect(await devicesSeen(database)).toBe(1);
    expect(logged).toEqual([]);
  });

  it('is not needed: a user that may not make roles goes on without, and is told once', async () => {
    const database = await open((await ownedBy(await newLogin())).url);
    expect(database.tenantRole).toBeNull();
    expect(database.capabilities.rowSecurity).toBe(false);
    expect(await devicesSeen(database)).toBe(2);
    expect(logged).toHaveLength(1);
    expect(logged[0]).toContain('row security not in use');
    expect(logged[0]).toContain('permission denied to create role');
  });

  it('is found at the next start when somebody else has made and granted it', async () => {
    const login = await newLogin();
    const { url } = await ownedBy(login);
    await (await open(url)).close();
    await onTestServer(`CREATE ROLE puback_tenant_${login.name} NOLOGIN`);
    await onTestServer(`GRANT puback_tenant_${login.name} TO ${login.name}`);
    const database = await open(url);
    expect(await devicesSeen(database)).toBe(1);
    expect(logged).toHaveLength(1);
  });

  it('is not used when row security does not bind it', async () => {
    const login = await newLogin();
    const { url } = await ownedBy(login);
    await onTestServer(`CREATE ROLE puback_tenant_${login.name} NOLOGIN BYPASSRLS`);
    await onTestServer(`GRANT puback_tenant_${login.name} TO ${login.name}`);
    expect((await open(url)).tenantRole).toBeNull();
    expect(logged[0]).toContain('does not bind');
  });

  it('is made once when programs start on databases of one user at the same moment', async () => {
    const login = await newLogin('CREATEROLE');
    const empties = await Promise.all(Array.from({ length: 6 }, () => ownedBy(login)));
    const databases = await Promise.all(empties.map(({ url }) => open(url)));
    expect(databases.map(({ tenantRole }) => tenantRole)).toEqual(
      Array.from({ length: 6 }, () => `puback_tenant_${login.name}`),
    );
    expect(logged).toEqual([]);
  });

  it('does not open a database to the user of another one', async () => {
    const database = await open((await ownedBy(await newLogin('CREATEROLE'))).url);
    const stranger = await newLogin();
    const client = new pg.Client({ connectionString: stranger.urlOf(database.url) });
    await client.connect();
    const taken = client.query(`SET ROLE ${database.tenantRole}`);
    await expect(taken).rejects.toMatchObject({ code: '42501' });
    await client.end();
  });

  it('lets nobody pass once it is gone: queries fail, and none runs as the owner', async () => {
    const login = await newLogin('CREATEROLE');
    const database = await open((await ownedBy(login)).url);
    await database.pool.query(`DROP OWNED BY ${database.tenantRole}`);
    await database.pool.query(`DROP ROLE ${database.tenantRole}`);
    const asked = inOrganization(database, 1, ({ client }) => client.query('SELECT FROM device'));
    await expect(asked).rejects.toMatchObject({ code: '22023' });
  });
});
