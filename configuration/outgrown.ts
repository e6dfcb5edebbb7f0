import { Buffer } from 'node:buffer';
import type pg from 'pg';
import { guardStore } from '../drizzle/sqlstate.ts';
import { publishPacketBytes } from '../firmware-protocol/command.ts';
import type { Logger } from '../log.ts';
import type { ConfigurationWire, ConfiguredDevice } from './configuration.ts';
import { configurationTopic, spelledTopic } from './document-check.ts';
import type { Publisher } from './publisher.ts';

/** What {@link withdrawOutgrown} works with. */
export interface OutgrownParts {
  readonly pool: pg.Pool;
  readonly wire: ConfigurationWire;
  readonly publisher: Publisher;
  readonly log: Logger;
}

/** Not published: the sweeper publishes it again once it fits. */
const WITHDRAW = 'UPDATE device_configuration SET published_version = 0 WHERE device_id = $1';
const SPELLING = 'SELECT uses_alias FROM command_slot WHERE device_id = $1';

/**
 * Takes the document out of the topic of a device that says it cannot receive so large a packet (any more):
 * some clients would drop it without a word, others close the connection each time they read it. Resolves
 * when it is gone; while the database is away it stays until the next greeting. Never rejects.
 */
export async function withdrawOutgrown(
  { pool, wire, publisher, log }: OutgrownParts,
  device: ConfiguredDevice,
  packetBytesMax: number,
): Promise<void> {
  const topic = configurationTopic(device);
  const bytes = wire.retained(topic)?.length ?? 0;
  const longest = Math.max(Buffer.byteLength(topic), Buffer.byteLength(spelledTopic(device, true)));
  if (bytes === 0 || publishPacketBytes('x'.repeat(longest), bytes) <= packetBytesMax) return;
  try {
    const { deviceId } = device;
    const { rows } = await guardStore(pool.query<{ uses_alias: boolean }>(SPELLING, [deviceId]));
    const spelled = spelledTopic(device, rows[0]?.uses_alias ?? true);
    if (publishPacketBytes(spelled, bytes) <= packetBytesMax) return;
    // In this order: one that is being published is marked as published before it is cleared.
    await publisher.clear(topic);
    await guardStore(pool.query(WITHDRAW, [deviceId]));
  } catch (err) {
    log.warn({ err, topic }, 'configuration too big for its device not withdrawn');
  }
}
