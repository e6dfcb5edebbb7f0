import { reasonOf, StoreUnavailableError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Command, CommandEvent } from './command.ts';
import type { CommandNames } from './command-row.ts';
import { publicCommand } from './command-queries.ts';
import type { CommandEvents } from './events.ts';
import { laneOf, type Lanes } from './lanes.ts';
import type { CommandMetrics } from './metrics.ts';
import {
  takeTurn,
  type HeldQueue,
  type QueueStoreParts,
  type QueueTurn,
  type QueueWanted,
} from './queue-store.ts';
import type { Idempotency } from './queue-write.ts';
import type { SlotPublisher } from './slot-publisher.ts';
import { slotPayload, slotTopic } from './slot.ts';

/** What {@link Turns} works with. */
export interface TurnsParts extends QueueStoreParts {
  readonly lanes: Lanes;
  readonly publisher: SlotPublisher;
  readonly events: CommandEvents;
  readonly metrics: CommandMetrics;
  readonly now: () => number;
  readonly log: Logger;
  /** It is not known whether something was committed that nobody has been told of. */
  readonly inDoubt: () => void;
}

/** Told of each step that is committed. */
export type StepListener = (command: Command, event: CommandEvent) => void;

/** Changes queues in SQL, and then lets the broker, subscribers and listeners know. */
export class Turns {
  readonly #parts: TurnsParts;
  readonly #listeners: StepListener[] = [];

  constructor(parts: TurnsParts) {
    this.#parts = parts;
  }

  /** Adds a listener; called right after COMMIT, of each device in order. */
  onStep(listener: StepListener): void {
    this.#listeners.push(listener);
  }

  /**
   * Takes one turn with the queue of a device. The slot and the steps are on their way when it resolves.
   * Null: there is no such device or command. @throws {StoreUnavailableError} and what `decide` throws.
   */
  take<T>(
    owner: { readonly organizationId: number; readonly device: string },
    wanted: Omit<QueueWanted, 'organizationId' | 'device'>,
    decide: (held: HeldQueue) => T | Promise<T>,
    idempotency: Idempotency = null,
  ): Promise<QueueTurn<T> | null> {
    const { lanes, now } = this.#parts;
    const { organizationId, device } = owner;
    const asked: QueueWanted = { device, ...wanted, organizationId };
    return lanes.run(laneOf(owner), async () => {
      try {
        const turn = await takeTurn(this.#parts, asked, now(), decide, idempotency);
        if (turn !== null) this.#committed(turn);
        if (turn?.isDone === false) this.#goOn(owner, turn.draft.device.deviceId);
        return turn;
      } catch (error) {
        // COMMIT may have been sent.
        if (error instanceof StoreUnavailableError) this.#parts.inDoubt();
        throw error;
      }
    });
  }

  /** Takes note of a step that was committed in another way. */
  told(command: Command, event: CommandEvent): void {
    const { events, metrics, log } = this.#parts;
    events.tell(command, event);
    metrics.stepped(command, event.state);
    for (const listener of this.#listeners) {
      try {
        listener(command, event);
      } catch (err) {
        log.error({ err, commandId: command.commandId }, 'listener of commands failed');
      }
    }
  }

  /** Not waited for: were it lost, the sweeper would find the queue. */
  #goOn(
    owner: { readonly organizationId: number; readonly device: string },
    deviceId: number,
  ): void {
    const { log } = this.#parts;
    this.take(owner, { deviceId, asTenant: false }, () => undefined).catch((err: unknown) => {
      log.warn({ err: reasonOf(err), deviceId }, 'queue of commands goes on later');
    });
  }

  #committed<T>({ draft, revision, events }: QueueTurn<T>): void {
    const { publisher } = this.#parts;
    if (revision !== null) {
      const { deviceId } = draft.device;
      const topic = slotTopic(draft.device as CommandNames);
      publisher.publish({ topic, deviceId, revision, payload: slotPayload(draft) });
    }
    for (const event of events) {
      const { commandId } = event;
      const command = draft.added.get(commandId) ?? draft.changed.get(commandId);
      if (command !== undefined) this.told(publicCommand(command), event);
    }
  }
}
