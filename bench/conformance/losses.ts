import { Refusal } from '../../firmware-protocol/contract.ts';
import { decodeEvent } from '../../firmware-protocol/event.ts';
import { decodeSenml } from '../../firmware-protocol/senml.ts';
import { decodeData, decodeScalar, type Decoded } from '../../firmware-protocol/telemetry.ts';
import { channelOf, type Happening } from './contact.ts';
import type { Exam } from './exam.ts';

/** Attempts that are refused, the last two without CONNACK. */
const REFUSED_ATTEMPTS = 5;
const BUSY = 3;
/** Waits this close to the one before, or to twice of it, are not random. */
const TOLERANCE = 0.05;
const TELEMETRY = /^(?:data(?:\/[^/]+)?|senml|event\/[^/]+)$/;

/** Samples whose PUBACK never came are sent again over the next connection; meanwhile it is refused. */
export async function loseSamples(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  platform.holdsTelemetry = true;
  const from = exam.now;
  options.say('waiting for samples, whose PUBACK it will not get');
  const first = await platform.waitFor(
    (one) => (isTelemetry(one) && one.qos > 0 ? one : null),
    from,
    pace.dataMs,
  );
  if (first !== null) await platform.rest(pace.collectMs);
  const lost = platform.happenings.slice(from).filter(isTelemetry);
  const stamps = new Set(lost.filter(({ qos }) => qos > 0).flatMap(stampsOf));
  const cutAt = exam.now;
  await refuseAttempts(exam);
  platform.holdsTelemetry = false;
  if (first === null) {
    if (lost.length > 0) verdicts.skip('resend', 'it sends at QoS 0: what is lost is lost');
    return;
  }
  if (stamps.size === 0) {
    verdicts.fail('resend', 'samples have neither ts nor seq: sent again they are stored twice');
    return;
  }
  options.say('waiting for the same samples again');
  const missing = await awaitAgain(exam, stamps, cutAt);
  if (missing.size === 0) verdicts.pass('resend', `${stamps.size} samples`);
  else verdicts.fail('resend', `${missing.size} of ${stamps.size} samples did not come again`);
}

/** @returns those that did not come. */
async function awaitAgain(
  { platform, pace }: Exam,
  stamps: ReadonlySet<string>,
  from: number,
): Promise<ReadonlySet<string>> {
  const missing = new Set(stamps);
  await platform.waitFor(
    (one) => {
      if (isTelemetry(one)) for (const stamp of stampsOf(one)) missing.delete(stamp);
      return missing.size === 0 ? true : null;
    },
    from,
    pace.answerMs * 3,
  );
  return missing;
}

/** Cuts the connection and refuses the next attempts: the waits between them are looked at. */
async function refuseAttempts(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  options.say(`refusing its next ${REFUSED_ATTEMPTS} attempts to connect`);
  const from = exam.now;
  let refused = 0;
  platform.admission = () => {
    refused += 1;
    if (refused > REFUSED_ATTEMPTS) return 0;
    return refused > REFUSED_ATTEMPTS - 2 ? 'drop' : BUSY;
  };
  await exam.reconnect();
  platform.admission = () => 0;
  const times = platform.happenings
    .slice(from)
    .flatMap((one) => (one.kind === 'connect' ? [one.atMs] : []));
  const waits = times.slice(1).map((atMs, index) => atMs - (times[index] ?? 0));
  const shown = waits.map((ms) => `${(ms / 1000).toFixed(1)} s`).join(', ');
  const sumMs = waits.reduce((sum, ms) => sum + ms, 0);
  if (sumMs < pace.backoffMs) verdicts.fail('backoff', `too fast: ${shown}`);
  else verdicts.pass('backoff', shown);
  if (isRegular(waits)) verdicts.fail('jitter', `regular: ${shown}`);
  else verdicts.pass('jitter', shown);
}

/** Whether nearly every wait is the one before, or twice as long. */
function isRegular(waits: readonly number[]): boolean {
  const ratios = waits.slice(1).map((ms, index) => ms / Math.max(1, waits[index] ?? 1));
  const regular = ratios.filter((ratio) => isNear(ratio, 1) || isNear(ratio, 2));
  return regular.length >= ratios.length - 1;
}

function isNear(ratio: number, aim: number): boolean {
  return Math.abs(ratio / aim - 1) <= TOLERANCE;
}

/** Its key is refused: it does not try again before a minute is over. */
export async function refuseKey(exam: Exam): Promise<void> {
  const { platform, verdicts, options, pace } = exam;
  options.say(`refusing its key with CONNACK ${options.refusal}`);
  platform.admission = () => options.refusal;
  const from = exam.now;
  platform.cut();
  const refused = await platform.waitFor(
    (one) => (one.kind === 'connect' ? one : null),
    from,
    Number.POSITIVE_INFINITY,
  );
  if (refused === null) return;
  const refusedAt = platform.happenings.indexOf(refused) + 1;
  options.say(`waiting ${Math.round(pace.refusedMs / 1000)} s for it not to come`);
  await platform.rest(pace.refusedMs * (1 - TOLERANCE));
  const early = platform.happenings.slice(refusedAt).find(({ kind }) => kind === 'connect');
  if (early === undefined) verdicts.pass('refused');
  else
    verdicts.fail(
      'refused',
      `it came back after ${((early.atMs - refused.atMs) / 1000).toFixed(1)} s`,
    );
}

function isTelemetry(happening: Happening): happening is Extract<Happening, { kind: 'publish' }> {
  return happening.kind === 'publish' && TELEMETRY.test(channelOf(happening.topic));
}

/** What tells the samples of a message from others: time, or number. */
function stampsOf(happening: Happening): string[] {
  if (happening.kind !== 'publish') return [];
  const decoded = decode(happening.topic, happening.payload);
  if (decoded === null) return [];
  return decoded.samples.flatMap(({ tsMicros, seq }) => {
    if (tsMicros !== null) return [`${happening.topic} ts ${tsMicros}`];
    return seq === null ? [] : [`${happening.topic} seq ${seq}`];
  });
}

function decode(topic: string, payload: Buffer): Decoded | null {
  const [channel = '', name = ''] = channelOf(topic).split('/');
  const outcome =
    channel === 'senml'
      ? decodeSenml(payload)
      : channel === 'event'
        ? decodeEvent(name, payload)
        : name === ''
          ? decodeData(payload)
          : decodeScalar(name, payload);
  return outcome instanceof Refusal ? null : outcome;
}
