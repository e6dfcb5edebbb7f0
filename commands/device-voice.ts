import type { Database } from '../drizzle/database.ts';
import { guardStore } from '../drizzle/sqlstate.ts';
import type { Ack } from '../firmware-protocol/ack.ts';
import { SLOT_ID_MAX, slotPacketBytesMax } from '../firmware-protocol/command.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { Logger } from '../log.ts';
import { answer } from './acknowledge.ts';
import type { AckOutcome, AnsweringDevice } from './command.ts';
import type { HeldAnswers } from './held-answers.ts';
import { laneOf, type Lanes } from './lanes.ts';
import type { CommandMetrics } from './metrics.ts';
import { ProgressGate } from './progress-gate.ts';
import { greet } from './reboot.ts';
import { slotTopic } from './slot.ts';
import type { Turns } from './turns.ts';

/** What {@link DeviceVoice} works with. */
export interface DeviceVoiceParts {
  readonly database: Pick<Database, 'pool'>;
  readonly lanes: Lanes;
  readonly turns: Turns;
  readonly held: HeldAnswers;
  readonly metrics: CommandMetrics;
  readonly now: () => number;
  readonly log: Logger;
  readonly retriesMax: number;
}

/** A slot, and what stands in it. */
interface GreetedSlot {
  readonly boot: number | null;
  readonly last_id: number;
  readonly cmd: string | null;
  readonly args: Record<string, unknown> | null;
  readonly exp: number | null;
}

/** Takes what devices say of commands, until it is committed. */
export class DeviceVoice {
  readonly #parts: DeviceVoiceParts;
  readonly #gate = new ProgressGate();

  constructor(parts: DeviceVoiceParts) {
    this.#parts = parts;
  }

  /** See `CommandPeers.acknowledge`. */
  async acknowledge(from: AnsweringDevice, ack: Ack): Promise<AckOutcome> {
    const { held, metrics, now, log } = this.#parts;
    let outcome: AckOutcome = 'applied';
    try {
      if (this.#gate.passes(from.deviceId, ack, now())) {
        outcome = await held.take(laneOf(from), () => this.#answered(from, ack));
        if (outcome === 'applied') this.#gate.stored(from.deviceId, ack, now());
      }
    } catch (err) {
      // A fault of ours. It is not kept: the same answer would hold up the device for ever.
      log.error({ err, deviceId: from.deviceId }, 'answer to a command not taken');
      outcome = 'unknown_id';
    }
    metrics.answered(outcome);
    return outcome;
  }

  /** See `CommandPeers.greeted`. */
  async greeted(from: AnsweringDevice, hello: Hello, behind?: Promise<void>): Promise<void> {
    const { boot, last = 0, mps } = hello;
    if (boot === undefined && mps === undefined && last === 0) return behind;
    try {
      await this.#parts.held.take(laneOf(from), async () => {
        await behind;
        await this.#greet(from, hello);
      });
    } catch (err) {
      this.#parts.log.error({ err, deviceId: from.deviceId }, 'greeting not taken by commands');
    }
  }

  async #greet(from: AnsweringDevice, hello: Hello): Promise<void> {
    const { lanes, turns, retriesMax } = this.#parts;
    // Most greetings change nothing, and a whole fleet may greet at once.
    if (!(await lanes.run(laneOf(from), () => this.#isNews(from, hello)))) return;
    const wanted = { deviceId: from.deviceId, running: true, asTenant: false } as const;
    await turns.take(from, wanted, ({ draft, others }) => greet(draft, hello, others, retriesMax));
  }

  async #isNews(from: AnsweringDevice, { boot, last = 0, mps }: Hello): Promise<boolean> {
    const { database, now } = this.#parts;
    const { rows } = await guardStore(
      database.pool.query<GreetedSlot>({
        name: 'command_slot_greeted',
        text: `SELECT slot.boot::float8 AS boot, slot.last_id::float8 AS last_id,
            head.name AS cmd, head.args, extract(epoch FROM head.expires_at)::float8 AS exp
          FROM command_slot AS slot LEFT JOIN command AS head ON head.command_id = slot.head_command_id
          WHERE slot.device_id = $1`,
        values: [from.deviceId],
      }),
    );
    const [slot] = rows;
    // Ids of a device without a row begin with the time; its boot is read where its presence is stored.
    if (slot === undefined) return last >= Math.floor(now() / 1000);
    if (last > slot.last_id || (boot !== undefined && boot !== slot.boot)) return true;
    return mps !== undefined && mayBeTooBig(from, slot, mps);
  }

  async #answered(from: AnsweringDevice, ack: Ack): Promise<AckOutcome> {
    const { turns, metrics } = this.#parts;
    const wanted = { deviceId: from.deviceId, wireId: ack.id, asTenant: false };
    const turn = await turns.take(from, wanted, ({ draft, subject }) => {
      const isFirst = subject !== null && draft.slot.head?.commandId === subject.commandId;
      const outcome = answer(draft, ack, subject);
      const publishedMs = subject?.publishedAt?.getTime() ?? draft.nowMs;
      if (isFirst && outcome === 'applied') metrics.roundTrip(draft.nowMs - publishedMs);
      return outcome;
    });
    return turn?.result ?? 'unknown_id';
  }
}

/** Whether what stands in a slot is larger than its device takes, spelled as it may be and with many behind. */
function mayBeTooBig(from: AnsweringDevice, slot: GreetedSlot, packetBytesMax: number): boolean {
  const { cmd, args, exp } = slot;
  if (cmd === null || args === null || exp === null) return false;
  return slotPacketBytesMax(slotTopic(from), { cmd, args, exp }, SLOT_ID_MAX) > packetBytesMax;
}
