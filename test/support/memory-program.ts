import { answer } from '../../commands/acknowledge.ts';
import { END_STATES } from '../../commands/command.ts';
import type { QueuedCommand } from '../../commands/command-row.ts';
import { endSilent, expire } from '../../commands/expire.ts';
import { QueueDraft } from '../../commands/queue-draft.ts';
import { greet } from '../../commands/reboot.ts';
import { placeHead, readSlot, slotPayload } from '../../commands/slot.ts';
import type { Ack } from '../../firmware-protocol/ack.ts';
import type { SlotCommand } from '../../firmware-protocol/command.ts';
import type { ModelProgram } from './slot-model.ts';
import { testCommand } from './commands.ts';

interface Table {
  commands: Map<string, QueuedCommand>;
  slot: { lastId: number; headId: string | null; revision: number; boot: number | null };
}

/** Few, so that queues are longer. */
const READ_AT_A_TIME = 2;
/** Some are over soon, and some outlast a restore. */
const TTLS_MS = [20_000, 600_000, 600_000];
const RETRIES_MAX = 2;

/** The program with a table in memory: what decides is that of the product, what stores is not. */
export class MemoryProgram implements ModelProgram {
  nowMs = 1_795_000_000_000;
  #table: Table = {
    commands: new Map(),
    slot: { lastId: 0, headId: null, revision: 0, boot: null },
  };
  #backup: Table | null = null;
  #retained: Buffer | null = null;
  #isHeld = false;

  enqueue(number: number, isLong: boolean): Promise<void> {
    return this.#turn((draft) =>
      draft.add({
        ...testCommand({
          commandId: idOf(number),
          args: isLong ? { number, long: true } : { number },
          createdAt: new Date(this.nowMs),
          expiresAt: new Date(Math.ceil((this.nowMs + (TTLS_MS[number % 3] ?? 0)) / 1000) * 1000),
        }),
        boot: null,
      }),
    );
  }

  cancel(number: number): Promise<void> {
    return this.#turn((draft) => {
      const command = this.#table.commands.get(idOf(number));
      if (command !== undefined) draft.take(command, 'cancel');
    });
  }

  acknowledge(ack: Ack): Promise<void> {
    const all = [...this.#table.commands.values()];
    const subject = all.find(({ wireId }) => wireId === ack.id) ?? null;
    return this.#turn((draft) => void answer(draft, ack, subject));
  }

  greeted(hello: { boot: number; last: number }): Promise<void> {
    const running = [...this.#table.commands.values()].filter(({ state }) => state === 'running');
    return this.#turn((draft) => greet(draft, hello, running, RETRIES_MAX));
  }

  endOverdue(): Promise<void> {
    const overdue = [...this.#table.commands.values()].filter(
      ({ state, expiresAt }) =>
        !END_STATES.has(state) && state !== 'running' && expiresAt.getTime() <= this.nowMs,
    );
    return this.#turn((draft) => expire(draft, overdue));
  }

  async endSilent(): Promise<void> {
    for (const command of this.#table.commands.values()) {
      if (command.state === 'running') await this.#turn((draft) => endSilent(draft, command));
    }
  }

  slot(): SlotCommand | null {
    return readSlot(this.#retained);
  }

  hold(): void {
    this.#isHeld = true;
  }

  async crash(): Promise<void> {
    this.#isHeld = false;
    const draft = this.#draft();
    this.#retained = slotPayload(draft);
    await Promise.resolve();
  }

  async backUp(): Promise<void> {
    this.#backup = structuredClone(this.#table);
    await Promise.resolve();
  }

  async restore(): Promise<void> {
    if (this.#backup !== null) this.#table = structuredClone(this.#backup);
    await Promise.resolve();
  }

  async states(): Promise<ReadonlyMap<number, string>> {
    await Promise.resolve();
    return new Map(
      [...this.#table.commands.values()].map(({ args, state }) => [Number(args['number']), state]),
    );
  }

  #draft(): QueueDraft {
    const { commands, slot } = this.#table;
    const { headId, lastId, revision, boot } = slot;
    const queued = this.#queued();
    const names = { organizationId: 1, organization: 'acme', deviceId: 7, device: 'boiler-7' };
    return new QueueDraft(
      {
        device: { ...names, packetBytesMax: 256, usesAlias: true },
        slot: { lastId, revision, boot, head: commands.get(headId ?? '') ?? null },
        queued: queued.slice(0, READ_AT_A_TIME),
        queuedCount: queued.length,
      },
      this.nowMs,
    );
  }

  #queued(): QueuedCommand[] {
    return [...this.#table.commands.values()]
      .filter(({ state }) => state === 'queued')
      .toSorted((a, b) => (a.commandId < b.commandId ? -1 : 1));
  }

  async #turn(decide: (draft: QueueDraft) => void): Promise<void> {
    const draft = this.#draft();
    decide(draft);
    await placeHead(draft, {
      more: ({ readCount }) =>
        Promise.resolve(this.#queued().slice(readCount, readCount + READ_AT_A_TIME)),
      holds: () => Promise.resolve(true),
    });
    const { slot, added, changed, isSlotChanged } = draft;
    for (const [commandId, command] of [...added, ...changed]) {
      this.#table.commands.set(commandId, command);
    }
    const revision = slot.revision + (isSlotChanged ? 1 : 0);
    const { lastId, boot } = slot;
    this.#table.slot = { lastId, boot, revision, headId: slot.head?.commandId ?? null };
    if (isSlotChanged && !this.#isHeld) this.#retained = slotPayload(draft);
  }
}

function idOf(number: number): string {
  return `01991e6c-0000-7000-8000-${String(number).padStart(12, '0')}`;
}
