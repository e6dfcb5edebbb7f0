import type { Hello } from '../firmware-protocol/hello.ts';
import { judgeCommand, judgeHello, type UpdateStep } from './update-judge.ts';
import type { OpenUpdate } from './update-store.ts';
import type { DeviceUpdate } from './update.ts';

/** Bounds of updates. */
export interface UpdateLimits {
  /** Boots of a new image before it counts as one that crashes again and again. */
  readonly bootsMax: number;
  /** Longest silence behind the end of a download. */
  readonly silenceMs: number;
  /** Longest time from the first sign of an update to the end of its download. */
  readonly downloadMs: number;
}

/** States that a command does not leave. */
const ENDED: ReadonlySet<string> = new Set([
  'succeeded',
  'failed',
  'rejected',
  'expired',
  'cancelled',
  'unknown',
]);
/** So long after its begin an update without a command is one that was cut off in the middle. */
const OFFER_MS = 60_000;
/** A device that sleeps is overdue behind so many times its sleep, as with presence. */
const SLEEPS = 2.5;

/**
 * What is to be made of an open update by what is stored: of a greeting or an answer that was missed, and
 * of one that takes too long. @returns null: nothing.
 */
export function judgeOpen(
  { update, hello, helloAt, command }: OpenUpdate,
  nowMs: number,
  limits: UpdateLimits,
): UpdateStep | null {
  if (hello !== null && helloAt !== null && helloAt > update.changedAt) {
    const step = judgeHello(update, hello, limits.bootsMax);
    if (step !== null) return step;
  }
  if (command === null) return judgeUnoffered(update, nowMs);
  if (ENDED.has(command.state)) {
    const step = judgeCommand(update, command);
    if (step !== null && Object.keys(step).length > 0) return step;
  }
  const silenceMs = limits.silenceMs + SLEEPS * 1000 * (hello?.sleep ?? 0);
  const greeted = { hello, helloAt };
  return update.state === 'downloading'
    ? judgeDownload(update, greeted, nowMs, { ...limits, silenceMs })
    : judgeSilence(update, greeted, nowMs, silenceMs);
}

function judgeUnoffered(update: DeviceUpdate, nowMs: number): UpdateStep | null {
  if (update.commandId !== null) {
    return { state: 'failed', code: 'command_gone', detail: 'its command is kept no longer' };
  }
  if (nowMs - update.startedAt.getTime() < OFFER_MS) return null;
  return { state: 'failed', code: 'not_offered', detail: 'it was cut off before it was offered' };
}

/** What a device said of itself last. */
interface Greeted {
  readonly hello: Hello | null;
  readonly helloAt: Date | null;
}

function judgeDownload(
  { changedAt, activeAt, bytesSent, byteCount }: DeviceUpdate,
  { helloAt }: Greeted,
  nowMs: number,
  { downloadMs, silenceMs }: UpdateLimits,
): UpdateStep | null {
  const detail = `${bytesSent} of ${byteCount} bytes were sent`;
  if (nowMs - changedAt.getTime() > downloadMs) {
    return { state: 'failed', code: 'download_timeout', detail };
  }
  // It has come back and does not go on: it has forgotten what it was about.
  const isBack = helloAt !== null && helloAt > (activeAt ?? changedAt);
  if (!isBack || nowMs - helloAt.getTime() <= silenceMs) return null;
  return { state: 'failed', code: 'interrupted', detail };
}

function judgeSilence(
  { state, changedAt, activeAt, version }: DeviceUpdate,
  { hello, helloAt }: Greeted,
  nowMs: number,
  silenceMs: number,
): UpdateStep | null {
  // Bytes that a proxy took may reach it for a long time yet; it says so with "run".
  const heardMs = Math.max(changedAt.getTime(), activeAt?.getTime() ?? 0);
  if (state !== 'installing' || nowMs - heardMs <= silenceMs) return null;
  const heard = helloAt !== null && helloAt > changedAt ? hello : null;
  if (heard?.fw === undefined) {
    return { state: 'failed', code: 'silent', detail: 'the device did not greet again' };
  }
  if (heard.fw === version) {
    const detail = 'the device runs the new image and has not said that it is valid';
    return { state: 'failed', code: 'not_confirmed', detail };
  }
  return { state: 'failed', code: 'not_installed', detail: `the device greets with ${heard.fw}` };
}
