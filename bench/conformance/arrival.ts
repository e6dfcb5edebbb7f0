import { REFUSAL_CODES, Refusal, type RefusalCode } from '../../firmware-protocol/contract.ts';
import { decodeAck } from '../../firmware-protocol/ack.ts';
import { decodeConfigurationReport } from '../../firmware-protocol/configuration.ts';
import { decodeEvent } from '../../firmware-protocol/event.ts';
import { decodeHello } from '../../firmware-protocol/hello.ts';
import { decodeKeyRequest } from '../../firmware-protocol/key-request.ts';
import { decodeLog } from '../../firmware-protocol/log-entry.ts';
import { decodeSenml } from '../../firmware-protocol/senml.ts';
import { decodeData, decodeScalar } from '../../firmware-protocol/telemetry.ts';
import {
  isTopicRefusal,
  readUplinkTopic,
  topicNameFault,
  type UplinkTopic,
} from '../../firmware-protocol/topics.ts';
import type { Contact } from './contact.ts';
import type { Exam } from './exam.ts';

const SHOWN_FAULTS = 3;

/** The device comes: CONNECT, subscription, hello. */
export async function arrive(exam: Exam): Promise<void> {
  const { platform, options } = exam;
  // A device that sleeps is to stay for what comes.
  platform.waitingCommands = 1;
  options.say('waiting for the device to connect');
  const contact = await platform.waitFor(
    (happening) => (happening.kind === 'admitted' ? happening.contact : null),
    0,
    Number.POSITIVE_INFINITY,
  );
  if (contact === null) return;
  judgeConnect(exam, contact);
  options.say('connected; waiting for its subscription and its hello');
  await awaitSubscription(exam, contact);
  await awaitHello(exam, contact);
}

function judgeConnect({ verdicts }: Exam, { connect }: Contact): void {
  const { keepalive = 0, username = '', clean } = connect;
  const advice = [
    keepalive < 15 || keepalive > 1200
      ? `keep alive ${keepalive} s counts as another: 15 to 1200`
      : '',
    clean === false ? 'clean session should be set: it is taken as set' : '',
    username === '' ? 'no user name; organization/device finds a mis-flashed board' : '',
  ];
  verdicts.pass('connect', advice.filter((line) => line !== '').join('; '));
}

/** Waits for the subscription of a connection, and judges it. */
export async function awaitSubscription(exam: Exam, contact: Contact): Promise<boolean> {
  const { platform, pace, verdicts } = exam;
  const asked = await platform.waitFor(
    (one) =>
      one.kind === 'subscribe' && one.contact === contact && contact.readsSlot ? one : null,
    0,
    pace.subscribeMs,
  );
  if (asked === null) {
    verdicts.fail('subscribe', 'no subscription to v1/me/in/+ after CONNACK');
    return false;
  }
  const refused = platform.happenings.flatMap((one) =>
    one.kind === 'subscribe' ? one.refused : [],
  );
  verdicts.pass('subscribe', refused.length > 0 ? `not granted: ${refused.join(', ')}` : '');
  return true;
}

async function awaitHello(exam: Exam, contact: Contact): Promise<void> {
  const { platform, pace, verdicts } = exam;
  await platform.waitFor(
    (one) => (one.kind === 'publish' && contact.hello ? one : null),
    0,
    pace.quietMs,
  );
  await exam.quiet();
  exam.usualHellos = Math.max(1, contact.helloCount);
  if (contact.hello === null) {
    const how = contact.helloCount > 0 ? 'its hello cannot be read' : 'no hello after CONNACK';
    verdicts.fail('hello', `${how}: 256 is taken as the largest packet`);
    return;
  }
  exam.hello = contact.hello;
  const missing = (['mps', 'boot'] as const).filter(
    (member) => contact.hello?.[member] === undefined,
  );
  if (missing.length === 0) verdicts.pass('hello', JSON.stringify(contact.hello));
  else verdicts.fail('hello', `without ${missing.join(', ')}`);
}

/** Looks at everything that was published. */
export function judgePayloads({ platform, verdicts }: Exam): void {
  const published = platform.happenings.flatMap((one) => (one.kind === 'publish' ? [one] : []));
  const faults = published.flatMap(({ topic, payload }) => {
    const fault = faultOf(topic, payload);
    return fault === null ? [] : [`${topic}: ${fault}`];
  });
  if (faults.length > 0) {
    const shown = [...new Set(faults)].slice(0, SHOWN_FAULTS).join('; ');
    verdicts.fail('payloads', `${faults.length} of ${published.length}: ${shown}`);
  } else if (published.length > 0) verdicts.pass('payloads', `${published.length} messages`);
}

/** Of whom the device is does not matter: any name stands for its own. */
function faultOf(topic: string, payload: Buffer): string | null {
  const fault = topicNameFault(topic);
  if (fault !== null) return fault;
  const [, organization = '', device = ''] = topic.split('/');
  const read = readUplinkTopic(topic, { organization, device });
  if (isTopicRefusal(read)) return read.code;
  const outcome = decode(read, payload);
  return outcome instanceof Refusal ? `${codeOf(outcome)}, ${outcome.detail}` : null;
}

function codeOf({ code }: Refusal): RefusalCode {
  return REFUSAL_CODES.includes(code) ? code : 'bad_type';
}

function decode({ channel, name }: UplinkTopic, payload: Buffer): object {
  switch (channel) {
    case 'data':
      return decodeData(payload);
    case 'scalar':
      return decodeScalar(name ?? '', payload);
    case 'senml':
      return decodeSenml(payload);
    case 'event':
      return decodeEvent(name ?? '', payload);
    case 'log':
      return decodeLog(payload);
    case 'hello':
      return decodeHello(payload);
    case 'ack':
      return decodeAck(payload);
    case 'cfg':
      return decodeConfigurationReport(payload);
    case 'key':
      return decodeKeyRequest(payload);
  }
}
