import Fastify from 'fastify';
import { validatorCompiler } from 'fastify-type-provider-zod';
import type pg from 'pg';
import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import { addRoutes, answerErrors } from '../../api/dispatch.ts';
import { firmwareDownloadRoutes } from '../../api/routes/firmware-download.ts';
import { firmwareSignerRoutes } from '../../api/routes/firmware-signers.ts';
import { firmwareRoutes } from '../../api/routes/firmware.ts';
import { updateRoutes } from '../../api/routes/updates.ts';
import { makeUuidV7 } from '../../drizzle/uuid-v7.ts';
import type { Hello } from '../../firmware-protocol/hello.ts';
import { createOta, type Ota, type OtaLimits } from '../../ota/ota.ts';
import type {
  FiringAlert,
  OfferedCommand,
  OtaAuthor,
  UpdateCommands,
  UpdateOffer,
} from '../../ota/ports.ts';
import { writeAudit } from '../../registry/audit.ts';
import type { Registry } from '../../registry/registry.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';
import { createOrganization, createTestRegistry, type TestOrganization } from './registry.ts';

/** Small bounds, so that a test can reach them. */
export const otaLimits: OtaLimits = {
  imageBytesMax: 2_000_000,
  imagesMax: 50,
  uploadsMax: 2,
  downloadsMax: 3,
  downloadBytesPerS: 0,
  linkMs: 900_000,
  isSignatureRequired: false,
  sweepMs: 3_600_000,
  bootsMax: 3,
  silenceMs: 60_000,
  downloadMs: 3_600_000,
};

/** Commands that are noted, in SQL too, and do nothing. */
export class NotedCommands implements UpdateCommands {
  readonly #pool: pg.Pool;
  readonly offers: (UpdateOffer & { readonly commandId: string })[] = [];
  readonly cancelled: string[] = [];
  readonly settled: (readonly [commandId: string, state: string, code: string])[] = [];
  /** Thrown by the next offer. */
  fault: Error | null = null;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
  }

  async offer({ organizationId, actor }: OtaAuthor, offer: UpdateOffer): Promise<string> {
    const { fault } = this;
    this.fault = null;
    if (fault !== null) throw fault;
    const known = this.offers.find(({ idempotencyKey }) => idempotencyKey === offer.idempotencyKey);
    if (known !== undefined) return known.commandId;
    const commandId = makeUuidV7(Date.now());
    await this.#pool.query(
      `INSERT INTO command (command_id, organization_id, device_id, name, args, state, is_retry_safe,
                            expires_at, origin, actor, ref, idempotency_key)
       SELECT $1, $2, device_id, 'sys.ota', $4, 'published', false, now() + interval '1 day', 'update',
              $5, $6, $7
       FROM device WHERE organization_id = $2 AND slug = $3`,
      [
        ...[commandId, organizationId, offer.device, JSON.stringify(offer.args), actor],
        ...[offer.ref, offer.idempotencyKey],
      ],
    );
    this.offers.push({ ...offer, commandId });
    return commandId;
  }

  async cancel(_author: OtaAuthor, commandId: string): Promise<void> {
    this.cancelled.push(commandId);
  }

  async settle(commandId: string, state: string, code: string): Promise<void> {
    this.settled.push([commandId, state, code]);
  }
}

/** Firmware and updates on a database of their own, with their routes on a free port. */
export interface TestOta {
  readonly test: TestDatabase;
  readonly registry: Registry;
  readonly ota: Ota;
  readonly commands: NotedCommands;
  readonly acme: TestOrganization;
  readonly other: TestOrganization;
  readonly url: string;
  /** Set to move the clock, in ms. */
  aheadMs: number;
  /** What fires. */
  alerts: FiringAlert[];
  readonly metricsRegistry: MetricsRegistry;
  /** Makes a device that has said this. @returns its id. */
  addDevice(device: string, hello?: Hello): Promise<number>;
  /** Notes what a device said, as presence does. */
  say(deviceId: number, hello: Hello): Promise<void>;
  /** Tells updates of a step of the command of an update. */
  step(updateId: string, step: Partial<OfferedCommand> & { readonly state: string }): void;
  /** Calls the API with the admin key of acme, or with `key`. */
  send(
    method: string,
    path: string,
    body?: RequestInit['body'],
    key?: string,
  ): Promise<{ status: number; headers: Headers; body: any }>; // oxlint-disable-line no-explicit-any -- tests look into it freely
  stop(): Promise<void>;
}

/** Makes it. */
export async function createTestOta(limits: Partial<OtaLimits> = {}): Promise<TestOta> {
  const test = await createTestDatabase();
  const { database } = test;
  const registry = createTestRegistry(database);
  await registry.start();
  const acme = await createOrganization(database, 'acme');
  const other = await createOrganization(database, 'other');
  const commands = new NotedCommands(database.pool);
  const metricsRegistry = new MetricsRegistry();
  let url = '';
  const ota = createOta({
    database,
    writeAudit,
    commands,
    firingAlerts: async () => result.alerts,
    signingKey: Buffer.alloc(32, 7),
    publicUrl: () => url,
    limits: { ...otaLimits, ...limits },
    metricsRegistry,
    now: () => Date.now() + result.aheadMs,
    log: pino({ level: 'silent' }),
  });
  const app = Fastify({ forceCloseConnections: true });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  app.decorateRequest('principal', null);
  app.decorateRequest('clientAddress', '');
  answerErrors(app as never, pino({ level: 'silent' }));
  const deps = { ota, pageRowsMax: 100 };
  const routes = [
    ...firmwareRoutes(deps),
    ...firmwareSignerRoutes(deps),
    ...updateRoutes(deps),
    ...firmwareDownloadRoutes(deps),
  ];
  await addRoutes(app as never, routes, {
    verifyKey: (key) => registry.verifyKey(key),
    guard: { before: () => 'ok', failed: () => 0, succeeded: () => undefined },
    addressOf: () => '127.0.0.1',
  });
  url = await app.listen({ host: '127.0.0.1', port: 0 });
  await ota.start();
  const result: TestOta = {
    ...{ test, registry, ota, commands, acme, other, url, metricsRegistry },
    aheadMs: 0,
    alerts: [],
    async addDevice(slug, hello = { fw: '1.0.0', mdl: 'thermo-1', boot: 10, ota: 'valid' }) {
      const { deviceId } = await registry.devices.create(acme.author, { slug });
      await result.say(deviceId, hello);
      return deviceId;
    },
    async say(deviceId, hello) {
      await database.pool.query(
        `INSERT INTO device_presence (device_id, organization_id, state, since, last_contact_at,
                                      connection_number, address, hello, hello_at)
         VALUES ($1, $2, 'online', now(), now(), 1, '', $3, to_timestamp($4::float8 / 1000))
         ON CONFLICT (device_id) DO UPDATE SET hello = excluded.hello, hello_at = excluded.hello_at`,
        [deviceId, acme.author.organizationId, hello, Date.now() + result.aheadMs],
      );
    },
    step(updateId, step) {
      const command = { commandId: commandOf(commands, updateId), progress: null, code: null };
      const known = { name: 'sys.ota', origin: 'update', ref: updateId, message: null };
      ota.updates.noteCommand({ ...command, ...known, ...step });
    },
    async send(method, path, body, key = acme.adminKey) {
      const isJson = typeof body === 'string';
      const answer = await fetch(url + path, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(isJson ? { 'content-type': 'application/json' } : {}),
        },
        ...(body === undefined ? {} : { body }),
      });
      const text = await answer.text();
      const { status, headers } = answer;
      return { status, headers, body: text === '' ? null : JSON.parse(text) };
    },
    async stop() {
      await ota.stop();
      await app.close();
      await registry.stop();
      await test.drop();
    },
  };
  return result;
}

function commandOf({ offers }: NotedCommands, updateId: string): string {
  return offers.find(({ ref }) => ref === updateId)?.commandId ?? '';
}
