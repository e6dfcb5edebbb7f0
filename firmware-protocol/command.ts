import { Buffer } from 'node:buffer';

/** Shape of a command's name. Those that begin with {@link SYSTEM_COMMAND_PREFIX} are Puback's own. */
export const COMMAND_NAME = /^[a-z][a-z0-9_.-]{0,31}$/;
/** Begins the names that firmware gives a fixed meaning. */
export const SYSTEM_COMMAND_PREFIX = 'sys.';
/** The commands whose meaning this contract fixes. */
export const SYSTEM_COMMANDS = [
  'sys.reboot',
  'sys.ota',
  'sys.rekey',
  'sys.log',
  'sys.cancel',
  'sys.hello',
] as const;
/** One of {@link SYSTEM_COMMANDS}. */
export type SystemCommand = (typeof SYSTEM_COMMANDS)[number];
/** Ids of commands are counted per device up to this; they fit a `uint32` of firmware. */
export const SLOT_ID_MAX = 4_294_967_295;
/** Largest MQTT packet that is sent down to a device that has not said what it can receive, in bytes. */
export const CLIENT_PACKET_BYTES_DEFAULT = 256;
/** Deepest nesting of the arguments of a command; 1: no object inside of them. */
export const ARGUMENTS_DEPTH_MAX = 6;

/** What a device finds in its slot, `in/cmd`. */
export interface SlotCommand {
  /** Rises with each command of a device; 1 to {@link SLOT_ID_MAX}. */
  readonly id: number;
  readonly cmd: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** Commands that wait, this one included. */
  readonly n: number;
  /** Unix seconds from which on it must not be executed. */
  readonly exp: number;
}

/** The payload of `in/cmd`; a zero-length one says that nothing waits. */
export function encodeSlotCommand({ id, cmd, args, n, exp }: SlotCommand): Buffer {
  return Buffer.from(JSON.stringify({ id, cmd, args, n, exp }));
}

/**
 * Largest packet, in bytes, that a command can become in a slot: id and number of waiting ones are taken
 * at their longest. `topic` as the device spells it.
 */
export function slotPacketBytesMax(
  topic: string,
  command: Pick<SlotCommand, 'cmd' | 'args' | 'exp'>,
  waitingMax: number,
): number {
  const payload = encodeSlotCommand({ ...command, id: SLOT_ID_MAX, n: waitingMax });
  return publishPacketBytes(topic, payload.length);
}

/** Bytes of a PUBLISH at QoS 1 [MQTT-3.3]: fixed header, topic name, packet identifier, payload. */
export function publishPacketBytes(topic: string, payloadBytes: number): number {
  const remaining = 2 + Buffer.byteLength(topic) + 2 + payloadBytes;
  let lengthBytes = 1;
  for (let rest = remaining >> 7; rest > 0; rest >>= 7) lengthBytes += 1;
  return 1 + lengthBytes + remaining;
}
