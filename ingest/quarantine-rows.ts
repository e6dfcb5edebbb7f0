import { fixedUuidV7 } from '../drizzle/uuid-v7.ts';
import type { Message } from './message.ts';

/** What a quarantined message keeps of its payload, in bytes: the contract's largest packet. */
const PAYLOAD_BYTES_MAX = 65_536;

/** The rows of `quarantine` that these messages make, as the writer's JSON parameter wants them. */
export function quarantineRows(messages: readonly Message[]): object[] {
  const rows: object[] = [];
  for (const { quarantine, lane, publication, receivedMicros } of messages) {
    if (quarantine === null) continue;
    rows.push({
      quarantine_id: quarantine.id,
      organization_id: lane.device.organizationId,
      device_id: lane.device.deviceId,
      received_ms: receivedMicros / 1000,
      topic: storable(publication.topic),
      code: quarantine.code,
      detail: storable(quarantine.detail),
      payload: publication.payload.subarray(0, PAYLOAD_BYTES_MAX).toString('base64'),
    });
  }
  return rows;
}

/**
 * The id of a message in quarantine: the same each time it gets there, so that it is there once however
 * often it is stored. In the order of receipt, also within a millisecond: pages are sorted by it.
 */
export function quarantineId({ receivedMicros, lane }: Message): string {
  return fixedUuidV7(receivedMicros, lane.device.deviceId);
}

/** PostgreSQL's text holds neither U+0000 nor halves of surrogate pairs. */
function storable(text: string): string {
  return Buffer.from(text, 'utf8').toString('utf8').replaceAll('\0', '\ufffd');
}
