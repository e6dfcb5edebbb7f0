import { awaitContact } from './commands.ts';
import type { Contact } from './contact.ts';
import { ackOf, type Exam } from './exam.ts';

const NOTHING = Buffer.alloc(0);
/** Times of quiet after which a device that never stays is left to the next part. */
const SETTLE_TURNS = 10;

/** A restart in the middle of a command: it is not taken a second time. */
export async function restart(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  if (!options.mayRestart) {
    verdicts.skip('restart', 'left out with --no-restart');
    return;
  }
  options.say('restarting it with sys.reboot');
  await awaitContact(exam);
  const from = exam.now;
  const id = exam.put({ cmd: 'sys.reboot' });
  // It may answer before it restarts, or when the command comes again.
  const first = await platform.waitFor(
    (one) => (one.kind === 'ended' ? 'ended' : ackOf(one)?.id === id ? ackOf(one) : null),
    from,
    pace.answerMs,
  );
  if (first !== null && first !== 'ended' && first.st === 'no') {
    verdicts.skip('restart', `it answers ${JSON.stringify(first)} to sys.reboot`);
    return;
  }
  const ended = await platform.waitFor(
    (one) => (one.kind === 'ended' ? one.contact : null),
    from,
    pace.answerMs,
  );
  if (ended === null) {
    verdicts.fail('restart', 'it did not restart after sys.reboot');
    return;
  }
  await judgeRestart(exam, id, ended);
  // A device that restarts for ever is let out of it.
  platform.retain('in/cmd', NOTHING);
  await settle(exam);
}

/** Waits until it stays connected, or a while. */
async function settle(exam: Exam): Promise<void> {
  for (let turn = 0; turn < SETTLE_TURNS; turn += 1) {
    const from = exam.now;
    await exam.quiet();
    if (exam.platform.contact !== null && exam.brokenSince(from).length === 0) return;
  }
}

async function judgeRestart(exam: Exam, id: number, before: Contact): Promise<void> {
  const { platform, verdicts, pace, options } = exam;
  options.say('waiting for it after its restart');
  const back = platform.happenings.findIndex(
    (one) => one.kind === 'ended' && one.contact === before,
  );
  const contact = await platform.waitFor(
    (one) => (one.kind === 'subscribe' && one.contact.readsSlot ? one.contact : null),
    back,
    Number.POSITIVE_INFINITY,
  );
  const again = await exam.answerTo(id, back);
  await platform.rest(pace.quietMs * 2);
  const boots = [before.hello?.boot, contact?.hello?.boot];
  if (contact?.endedAtMs !== null && contact?.hasLeft !== true) {
    verdicts.fail('restart', 'restarted again for the same command');
  } else if (again === null) verdicts.fail('restart', 'no answer to the repeated command');
  else if (boots[0] !== undefined && boots[0] === boots[1]) {
    verdicts.fail('restart', `boot is ${boots[0]} before and after`);
  } else verdicts.pass('restart', JSON.stringify(again.ack));
}

/** A device that sleeps goes when nothing waits, and not before, and says so. */
export async function sleep(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  if (!exam.sleeps) {
    verdicts.skip('sleep', 'it does not say that it sleeps');
    return;
  }
  options.say('waiting for it to sleep');
  await awaitContact(exam);
  platform.waitingCommands = 0;
  platform.retain('in/cmd', NOTHING);
  const { contact } = platform;
  const from = exam.now;
  // Its greeting said that something waits: it is greeted anew with its next contact.
  const left = await platform.waitFor(
    (one) => (one.kind === 'ended' && !one.contact.isCut ? one.contact : null),
    from,
    pace.awakeMs,
  );
  const silent = platform.happenings.flatMap((one) =>
    one.kind === 'ended' && !one.contact.isCut && !one.contact.hasLeft ? [one.contact] : [],
  );
  const early = leftEarly(exam);
  if (left === null) {
    const awakeS = contact === null ? 0 : (performance.now() - contact.openedAtMs) / 1000;
    verdicts.fail('sleep', `it is still awake after ${awakeS.toFixed(0)} s with nothing to do`);
  } else if (!left.hasLeft) verdicts.fail('sleep', 'it went without DISCONNECT');
  else if (early !== null) verdicts.fail('sleep', early);
  else
    verdicts.pass('sleep', silent.length > 1 ? 'other connections ended without DISCONNECT' : '');
}

/** Whether it went while a command stood in its slot, and it had been awake for a moment only. */
function leftEarly({ platform, pace }: Exam): string | null {
  const early = platform.leftWithCommand.find(
    ({ openedAtMs, endedAtMs }) => (endedAtMs ?? 0) - openedAtMs < pace.awakeMs / 2,
  );
  return early === undefined ? null : 'it went while a command waited for its answer';
}
