import type { SlotCommand } from '../firmware-protocol/command.ts';
import type { AnsweringDevice } from './command.ts';
import { expire } from './expire.ts';
import { slotCommand } from './slot.ts';
import type { Turns } from './turns.ts';

/** A slot that was overdue makes place for the next one, which may be sent in the turn after. */
const TURNS_MAX = 2;

/**
 * What stands in the slot of a device that asks over HTTP; it counts as sent from then on. Null: nothing.
 * @throws {StoreUnavailableError}
 */
export async function poll(
  turns: Turns,
  { organizationId, device, deviceId }: AnsweringDevice,
): Promise<SlotCommand | null> {
  let polled: SlotCommand | null = null;
  for (let turn = 0; turn < TURNS_MAX; turn += 1) {
    const wanted = { deviceId, asTenant: false };
    const taken = await turns.take({ organizationId, device }, wanted, ({ draft }) => {
      const { head } = draft.slot;
      if (head === null) return;
      if (head.expiresAt.getTime() <= draft.nowMs) expire(draft, [head]);
      else draft.take(head, 'send', { sentAt: new Date(draft.nowMs) });
    });
    const head = taken?.draft.slot.head ?? null;
    if (taken === null || head === null) return null;
    polled = slotCommand(head, taken.draft.waiting);
    if (head.state === 'sent') break;
  }
  return polled;
}
