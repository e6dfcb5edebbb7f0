import {
  CLIENT_PACKET_BYTES_DEFAULT,
  encodeSlotCommand,
  publishPacketBytes,
} from '../../firmware-protocol/command.ts';
import type { Ack } from '../../firmware-protocol/ack.ts';
import { awaitSubscription } from './arrival.ts';
import { UNKNOWN_COMMAND, type Answer, type Exam } from './exam.ts';
import type { PointId } from './points.ts';

/** No larger packet is tried, whatever a device says. Bytes. */
const PACKET_BYTES_MAX = 16_384;
const NOTHING = Buffer.alloc(0);
const HOUR_S = 3600;
/** For a greeting to arrive. */
const CLOCK_MS = 50;

/** A command is answered; the same again is answered from memory. */
export async function giveCommands(exam: Exam): Promise<void> {
  const { verdicts, options } = exam;
  options.say('giving it a command');
  const from = exam.now;
  const first = await firstAnswer(exam);
  if (first === null) {
    verdicts.fail('command', 'no answer to sys.hello on ack');
    return;
  }
  verdicts.pass('command', JSON.stringify(first.ack));
  await exam.quiet();
  exam.showsExecution = first.ack.st !== 'no' && exam.extraHellos(from) > 0;
  if (first.ack.st !== 'no' && !exam.showsExecution) {
    verdicts.fail('command', `answered ${first.ack.st} to sys.hello and said no hello`);
  }
  await repeat(exam, exam.lastId);
  await redeliver(exam, exam.lastId);
  await giveOlder(exam, exam.lastId);
}

/** A device whose memory was lost answers dup, once. */
async function firstAnswer(exam: Exam): Promise<Answer | null> {
  const answer = await exam.ask({ cmd: 'sys.hello' });
  return answer?.ack.st === 'dup' ? exam.ask({ cmd: 'sys.hello' }) : answer;
}

async function repeat(exam: Exam, id: number): Promise<void> {
  const before = exam.answersSince(0).findLast((ack) => ack.id === id);
  const from = exam.now;
  exam.put({ cmd: 'sys.hello', id });
  await judgeRepeat(exam, 'repeat', { from, id, before });
}

async function redeliver(exam: Exam, id: number): Promise<void> {
  const before = exam.answersSince(0).findLast((ack) => ack.id === id);
  const { platform, verdicts } = exam;
  const from = await exam.reconnect();
  const { contact } = platform;
  if (contact !== null && !(await awaitSubscription(exam, contact))) return;
  await judgeRepeat(exam, 'redelivered', { from, id, before });
  const hello = platform.contact?.hello ?? null;
  if (hello !== null && hello.last !== id) {
    verdicts.fail('hello', `last is ${hello.last ?? 'missing'} after it took ${id}`);
  }
}

/** Again it was given: there is an answer, the same or `dup`, and no execution. */
async function judgeRepeat(
  exam: Exam,
  point: PointId,
  { from, id, before }: { from: number; id: number; before: Ack | undefined },
): Promise<void> {
  const { verdicts } = exam;
  const again = await exam.answerTo(id, from);
  if (again === null) {
    verdicts.fail(point, 'no answer to the repeated command');
    return;
  }
  await exam.quiet();
  const isSame = again.ack.st === before?.st || before?.st === 'run';
  if (exam.showsExecution && exam.extraHellos(from) > 0) {
    verdicts.fail(point, 'executed again: it said hello again');
  } else if (!isSame && again.ack.st !== 'dup') {
    verdicts.fail(point, `answered ${before?.st} first, and ${again.ack.st} then`);
  } else
    verdicts.pass(point, exam.showsExecution ? '' : 'by its answers; executions cannot be seen');
}

async function giveOlder(exam: Exam, lastId: number): Promise<void> {
  const { verdicts } = exam;
  const id = lastId - 1;
  const from = exam.now;
  const answer = await exam.ask({ cmd: 'sys.hello', id });
  await exam.quiet();
  if (answer === null) verdicts.fail('older', 'no answer');
  else if (exam.showsExecution && exam.extraHellos(from) > 0) verdicts.fail('older', 'executed it');
  else if (answer.ack.st !== 'dup') {
    verdicts.fail('older', `answered ${answer.ack.st}; what became of it is not known`);
  } else if (answer.ack.last !== lastId) {
    verdicts.fail('older', `"last" should be ${lastId}, and is ${answer.ack.last ?? 'missing'}`);
  } else verdicts.pass('older');
}

/** Commands that must not be executed: unknown, and too old. */
export async function giveRefusable(exam: Exam): Promise<void> {
  const { verdicts, options } = exam;
  options.say('giving it commands that it must not execute');
  const unknown = (await exam.ask({ cmd: UNKNOWN_COMMAND }))?.ack;
  if (unknown?.st === 'no' && unknown.code === 'unknown') verdicts.pass('unknown');
  else verdicts.fail('unknown', answered(unknown));
  await awaitClock(exam);
  const from = exam.now;
  const exp = Math.floor(Date.now() / 1000) - HOUR_S;
  const expired = (await exam.ask({ cmd: 'sys.hello', exp }))?.ack;
  await exam.quiet();
  if (exam.showsExecution && exam.extraHellos(from) > 0) {
    verdicts.fail('expired', 'executed it; the clock is in the greeting');
  } else if (expired?.st === 'no' && expired.code === 'expired') verdicts.pass('expired');
  else if (!exam.showsExecution && expired?.st === 'no') {
    verdicts.pass('expired', 'it knows no command that could expire');
  } else verdicts.fail('expired', answered(expired));
}

/** Messages that are to be ignored. */
export async function giveNonsense(exam: Exam): Promise<void> {
  const error = { code: 'bad_json', ch: 'data', msg: 'said by the conformance kit', n: 1 };
  await staysAfter(exam, 'garbage', 'in/cmd', '{"id":4294967295,"cmd":"sys.hel');
  await staysAfter(exam, 'channel', 'in/x-conformance', '{"v":1}');
  await staysAfter(exam, 'error', 'in/err', JSON.stringify(error));
}

/** Nothing is answered, the connection stays, and the next command is answered. */
async function staysAfter(exam: Exam, point: PointId, topic: string, text: string): Promise<void> {
  const { platform, verdicts, options } = exam;
  options.say(`sending it something on ${topic}`);
  await awaitContact(exam);
  const from = exam.now;
  platform.send(topic, Buffer.from(text), 1);
  await exam.quiet();
  // The answer before may come again: nothing has told the device that it arrived.
  const answers = exam.answersSince(from).filter(({ id }) => id !== exam.lastId);
  const isBroken = exam.brokenSince(from).length > 0;
  const next = await exam.ask({ cmd: UNKNOWN_COMMAND });
  if (isBroken) verdicts.fail(point, 'the connection ended');
  else if (answers.length > 0) verdicts.fail(point, `answered ${JSON.stringify(answers[0])}`);
  else if (next === null) verdicts.fail(point, 'no command was answered after it');
  else verdicts.pass(point);
}

/** Packets as large as it says it can take, and larger. */
export async function giveLargePackets(exam: Exam): Promise<void> {
  const { platform, verdicts, options, hello } = exam;
  const said = hello.mps ?? CLIENT_PACKET_BYTES_DEFAULT;
  const bytes = Math.min(said, PACKET_BYTES_MAX);
  options.say(`giving it a packet of ${bytes} bytes`);
  await awaitContact(exam);
  const args = padding(exam, bytes);
  if (args === null) {
    verdicts.fail('mps', `no command fits a packet of ${said} bytes`);
    return;
  }
  const answer = await exam.ask({ cmd: UNKNOWN_COMMAND, args });
  const what = `${bytes} bytes${hello.mps === undefined ? ', as it said no mps' : ''}`;
  if (answer !== null) verdicts.pass('mps', what);
  else verdicts.fail('mps', `no answer to a command of ${what}`);
  if (said > PACKET_BYTES_MAX) {
    verdicts.skip('oversize', `it says that it takes ${said} bytes`);
    return;
  }
  options.say('sending it a packet that is too large');
  const from = exam.now;
  const id = exam.nextId();
  platform.send('in/cmd', slotOf(id, padding(exam, bytes + 64) ?? {}), 1);
  await exam.quiet();
  const next = await exam.ask({ cmd: UNKNOWN_COMMAND });
  const isBroken = exam.brokenSince(from).length > 0;
  if (next === null) verdicts.fail('oversize', 'no command was answered after it');
  else verdicts.pass('oversize', isBroken ? 'over a new connection' : '');
}

/** The slot is emptied. */
export async function emptySlot(exam: Exam): Promise<void> {
  const { platform, verdicts, options } = exam;
  options.say('emptying its slot');
  await awaitContact(exam);
  const from = exam.now;
  platform.waitingCommands = 0;
  platform.retain('in/cmd', NOTHING);
  await exam.quiet();
  const [answer] = exam.answersSince(from);
  if (answer !== undefined) verdicts.fail('empty', `answered ${JSON.stringify(answer)}`);
  else if (exam.brokenSince(from).length > 0) verdicts.fail('empty', 'the connection ended');
  else verdicts.pass('empty');
}

/** Waits until the device is connected and reads its slot. */
export async function awaitContact({ platform }: Exam): Promise<void> {
  await platform.waitFor(
    () => (platform.contact?.readsSlot === true ? platform.contact : null),
    platform.contact?.readsSlot === true ? 0 : platform.happenings.length,
    Number.POSITIVE_INFINITY,
  );
}

/** Waits until the device is connected and has its greeting, and so the time. */
async function awaitClock(exam: Exam): Promise<void> {
  await awaitContact(exam);
  while (exam.platform.contact?.isGreeted !== true) await exam.platform.rest(CLOCK_MS);
  await exam.platform.rest(CLOCK_MS);
}

/** Arguments that make the packet of a command so large; null: it is larger without. */
function padding({ platform, lastId }: Exam, bytes: number): { pad: string } | null {
  const topic = `${platform.contact?.prefix ?? 'v1/me'}/in/cmd`;
  const sizeWith = (pad: string): number =>
    publishPacketBytes(topic, slotOf(Math.max(lastId, 1_000_000_000), { pad }).length);
  if (sizeWith('') > bytes) return null;
  let pad = 'x'.repeat(bytes - sizeWith(''));
  // The remaining length may take one byte more.
  while (pad !== '' && sizeWith(pad) > bytes) pad = pad.slice(1);
  return { pad };
}

function slotOf(id: number, args: Readonly<Record<string, unknown>>): Buffer {
  const exp = Math.floor(Date.now() / 1000) + 24 * HOUR_S;
  return encodeSlotCommand({ id, cmd: UNKNOWN_COMMAND, args, n: 2, exp });
}

function answered(ack: Ack | undefined): string {
  return ack === undefined ? 'no answer' : `answered ${JSON.stringify(ack)}`;
}
