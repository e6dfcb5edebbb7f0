import { pino } from 'pino';
import { Registry as MetricsRegistry } from 'prom-client';
import {
  createCommands,
  type CommandLimits,
  type CommandQueues,
} from '../../commands/command-queues.ts';
import type { AnsweringDevice } from '../../commands/command.ts';
import type { CommandWire } from '../../commands/commands.ts';
import type { Database } from '../../drizzle/database.ts';
import { auditStatement } from '../../registry/audit.ts';

/** Limits of a test's commands: small, so that a test can reach them. */
export const commandLimits: CommandLimits = {
  ttlMs: 86_400_000,
  backlogMax: 5,
  retriesMax: 2,
  runMsMax: 86_400_000,
  ageMaxMs: 30 * 86_400_000,
  sweepMs: 3_600_000,
  acksHeldMax: 10,
};

/** Commands on a test database, as the program makes them. Not started. */
export function createTestCommands(
  database: Database,
  wire: CommandWire,
  more: {
    readonly now?: () => number;
    readonly limits?: Partial<CommandLimits>;
    readonly metricsRegistry?: MetricsRegistry;
  } = {},
): CommandQueues {
  return createCommands({
    database,
    wire,
    auditStatement,
    now: more.now ?? Date.now,
    limits: { ...commandLimits, ...more.limits },
    metricsRegistry: more.metricsRegistry ?? new MetricsRegistry(),
    log: pino({ level: 'silent' }),
  });
}

/** Makes a device with plain SQL. */
export async function makeDevice(
  database: Database,
  { organizationId, organization }: { organizationId: number; organization: string },
  device: string,
): Promise<AnsweringDevice> {
  const { rows } = await database.pool.query<{ device_id: number }>(
    `INSERT INTO device (organization_id, slug, display_name) VALUES ($1, $2, $2) RETURNING device_id`,
    [organizationId, device],
  );
  const deviceId = rows[0]?.device_id ?? 0;
  return { organizationId, organization, deviceId, device };
}

/** Says what a device said in its last greeting, as its presence is stored. */
export async function storeHello(
  database: Database,
  { organizationId, deviceId }: AnsweringDevice,
  hello: Record<string, unknown>,
): Promise<void> {
  await database.pool.query(
    `INSERT INTO device_presence
       (device_id, organization_id, state, since, last_contact_at, connection_number, address, hello)
     VALUES ($1, $2, 'online', now(), now(), 1, '', $3)
     ON CONFLICT (device_id) DO UPDATE SET hello = excluded.hello`,
    [deviceId, organizationId, JSON.stringify(hello)],
  );
}
