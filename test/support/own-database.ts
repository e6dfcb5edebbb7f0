import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type pg from 'pg';
import { AcknowledgementCheck, type CheckResult } from '../../bench/acknowledgement-check.ts';
import { withDatabase } from '../../bench/database-client.ts';
import { DatabaseServer, type ServerSettings } from '../../bench/database-server.ts';
import { createRandom } from '../../bench/random.ts';
import { makeScratchFolder } from '../../bench/scratch-folder.ts';
import { TcpProxy } from '../../bench/tcp-proxy.ts';
import { UNRULY_DEVICES, UnrulyFleet } from '../../bench/unruly-fleet.ts';
import { startTestApp, type TestApp } from './app.ts';

/** A PostgreSQL server for one test file, to be broken. */
export interface OwnServer {
  readonly server: DatabaseServer;
  close(): Promise<void>;
}

/** @param folder where the server keeps what it has, for example on a small disk */
export async function openOwnServer(
  settings: ServerSettings = {},
  folder?: string,
): Promise<OwnServer> {
  const scratch = await makeScratchFolder('own-server');
  const server = await DatabaseServer.make(folder ?? join(scratch.path, 'server'), settings);
  return {
    server,
    async close() {
      await server.remove();
      await scratch.remove();
    },
  };
}

/** The program on a new database of such a server, behind a proxy. */
export interface DurableApp extends TestApp {
  /** Between the program and the database. */
  readonly proxy: TcpProxy;
  /** Past the proxy, as superuser. */
  readonly ownerUrl: string;
  query<Row extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>;
}

/** Starts the program with `DATABASE_TIMEOUT_S=1` and these settings. */
export async function startDurableApp(
  { server }: OwnServer,
  settings: Record<string, string> = {},
): Promise<DurableApp> {
  const name = `puback_${randomBytes(4).toString('hex')}`;
  const url = await server.makeDatabase(name);
  const ownerUrl = server.urlOf(name);
  const proxy = await TcpProxy.open(url);
  const app = await startTestApp({
    DATABASE_URL: proxy.through(url),
    DATABASE_TIMEOUT_S: '1',
    ...settings,
  });
  return {
    ...app,
    proxy,
    ownerUrl,
    query: (sql, values) =>
      withDatabase(ownerUrl, async (client) => (await client.query(sql, values)).rows),
    async stop() {
      await app.stop();
      await proxy.close();
    },
  };
}

/** Devices of every kind under numbered load, and the comparison at the end. */
export interface NumberedLoad {
  readonly fleet: UnrulyFleet;
  /** Waits for the last PUBACK and compares all of them with the rows. */
  readonly settle: () => Promise<CheckResult>;
}

/** Nothing lost, nothing twice, nothing at another time than was sent. */
export const faultless = { lost: 0, twice: 0, altered: 0, examples: [] };

/** Starts a load of six devices: `ts`, `seq` or both, at QoS 1 and at QoS 2. */
export async function startNumberedLoad(app: DurableApp): Promise<NumberedLoad> {
  const check = new AcknowledgementCheck();
  const keys: { device: string; key: string }[] = [];
  for (let number = 1; number <= UNRULY_DEVICES; number += 1) {
    const device = `load-${Date.now()}-${number}`;
    keys.push({ device, key: await app.addDevice(device) });
  }
  const fleet = new UnrulyFleet(keys, app.addresses.mqttUrl, createRandom(1), check);
  fleet.start();
  return {
    fleet,
    settle: async () => {
      const left = await fleet.drain(40_000);
      fleet.stop();
      if (left > 0) throw new Error(`${left} messages were not acknowledged within 40 s`);
      const names = keys.map(({ device }) => device);
      return withDatabase(app.ownerUrl, (client) => check.compare(client, names));
    },
  };
}

/** Waits until the spool is empty, where there is one. */
export async function spoolIsEmpty(app: TestApp): Promise<boolean> {
  const text = await (await fetch(`${app.addresses.httpUrl}/metrics`)).text();
  return !/^puback_spool_messages [1-9]/m.test(text);
}

/** Status of `/health/live` and `/health/ready`, and the checks that say no. */
export async function healthOf(app: TestApp): Promise<{
  live: number;
  ready: number;
  failing: { name: string; detail?: string }[];
}> {
  const live = await fetch(`${app.addresses.httpUrl}/health/live`);
  const ready = await fetch(`${app.addresses.httpUrl}/health/ready`);
  const body = (await ready.json()) as {
    checks?: { name: string; ok: boolean; detail?: string }[];
  };
  const failing = (body.checks ?? []).filter(({ ok }) => !ok);
  return { live: live.status, ready: ready.status, failing };
}
