import { makeKey } from '../../firmware-protocol/keys.ts';
import type { KeyAnswer } from '../../firmware-protocol/key-request.ts';
import { awaitContact } from './commands.ts';
import { channelOf, type Happening } from './contact.ts';
import { ackOf, type Exam } from './exam.ts';

const NOTHING = Buffer.alloc(0);
/** Times that a new key is refused before the device is let in with it, so that the run can go on. */
const REFUSALS = 3;

/**
 * A new key, which is refused as soon as it is used: the device goes back to its old one. So its key is the
 * same before and after the run.
 */
export async function changeKey(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  if (!platform.isSecure || !options.mayRekey) {
    const why = platform.isSecure
      ? 'left out with --no-rekey'
      : 'keys are sent over TLS only: --tls';
    verdicts.skip('rekey', why);
    return;
  }
  options.say('giving it another key with sys.rekey');
  await awaitContact(exam);
  const from = exam.now;
  const id = exam.put({ cmd: 'sys.rekey' });
  const asked = await platform.waitFor(
    (one) => {
      if (one.kind === 'publish' && channelOf(one.topic) === 'key') return 'asked';
      const ack = ackOf(one);
      return ack?.id === id && ack.st === 'no' ? ack : null;
    },
    from,
    pace.answerMs,
  );
  platform.retain('in/cmd', NOTHING);
  if (asked === 'asked') await judgeChange(exam);
  else if (asked === null) verdicts.fail('rekey', 'it did not ask for its key on key');
  else verdicts.skip('rekey', `it answers ${JSON.stringify(asked)} to sys.rekey`);
}

async function judgeChange(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  const user = platform.contact?.connect.username ?? '';
  const answer: KeyAnswer = {
    ...{ st: 'ok', key: makeKey('device').key, user: user === '' ? 'device' : user },
  };
  let refused = 0;
  platform.admission = (hasNewKey) => {
    if (!hasNewKey || refused === REFUSALS) return 0;
    refused += 1;
    return options.refusal;
  };
  platform.newKey = answer.key;
  const from = exam.now;
  platform.send('in/key', Buffer.from(JSON.stringify(answer)), 1);
  const first = await platform.waitFor(connectOf, from, pace.answerMs);
  if (first?.hasNewKey !== true) {
    const what = first === null ? 'stays connected' : 'connects with its old key';
    verdicts.fail('rekey', `it ${what}, and does not try the new one`);
    endChange(exam);
    return;
  }
  options.say('refusing its new key: it goes back to its old one');
  const back = await platform.waitFor(
    (one) => (connectOf(one)?.answer === 0 ? connectOf(one) : null),
    from,
    Number.POSITIVE_INFINITY,
  );
  if (back?.hasNewKey === false) {
    verdicts.pass('rekey');
    endChange(exam);
    return;
  }
  const left = 'it has a key of this run now, that nobody else knows: write its own into it again';
  verdicts.fail('rekey', `refused ${REFUSALS} times it does not go back to its old key. ${left}`);
}

function connectOf(one: Happening): Extract<Happening, { kind: 'connect' }> | null {
  return one.kind === 'connect' ? one : null;
}

function endChange({ platform }: Exam): void {
  platform.admission = () => 0;
  platform.newKey = null;
}
