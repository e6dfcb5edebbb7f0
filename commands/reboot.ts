import type { Hello } from '../firmware-protocol/hello.ts';
import type { QueuedCommand } from './command-row.ts';
import type { QueueDraft } from './queue-draft.ts';
import { fitHead, healLastId } from './slot.ts';

/** Its outcome is told by the version that greets. */
export const OVER_THE_AIR_UPDATE = 'sys.ota';

/**
 * Makes of the queue what a greeting of its device says: the last id that it took, and whether it has
 * booted since a command began to run. Then that command is sent again where that is safe, at most
 * `retriesMax` times, and has failed otherwise. What was sent and not answered stays in the slot: the
 * device knows whether it took it; unless it cannot receive that any more. `running` is in the order of ids.
 */
export function greet(
  draft: QueueDraft,
  hello: Pick<Hello, 'boot' | 'last' | 'mps'>,
  running: readonly QueuedCommand[],
  retriesMax: number,
): void {
  healLastId(draft, hello.last);
  const { boot, mps, last } = hello;
  if (mps !== undefined) fitHead(draft, mps, last);
  if (boot === undefined) return;
  // From the last to the first, as each goes to the front of the queue.
  for (const command of running.toReversed()) {
    if (command.name === OVER_THE_AIR_UPDATE) continue;
    if (command.boot !== null && command.boot !== boot) lose(draft, command, retriesMax);
  }
  draft.slot.boot = boot;
}

function lose(draft: QueueDraft, command: QueuedCommand, retriesMax: number): void {
  const mayRepeat =
    command.isRetrySafe &&
    command.attempts <= retriesMax &&
    command.expiresAt.getTime() > draft.nowMs &&
    command.cancelAskedAt === null;
  if (mayRepeat) {
    const anew = { wireId: null, publishedAt: null, sentAt: null, startedAt: null, boot: null };
    draft.take(command, 'repeat', { ...anew, progress: null }, { code: 'rebooted' });
    return;
  }
  const message = 'the device rebooted in the middle';
  const code = 'rebooted';
  draft.take(command, 'lose', { code, message }, { code, msg: message });
}
