import type { Hello } from '../firmware-protocol/hello.ts';
import type { OfferedCommand } from './ports.ts';
import type { DeviceUpdate, UpdateState } from './update.ts';

/** What the judge has to know of an update. */
export type JudgedUpdate = Pick<
  DeviceUpdate,
  'state' | 'version' | 'fromVersion' | 'boots' | 'bootBefore'
>;

/** What changes of an update; what is left out stays. */
export interface UpdateStep {
  readonly state?: UpdateState;
  readonly code?: string;
  readonly detail?: string;
  readonly fromVersion?: string;
  readonly boots?: number;
  readonly bootBefore?: number;
  readonly bootAfter?: number;
  /** The device has shown a sign of this update: its link is open anew. */
  readonly isHeard?: true;
}

/**
 * What a greeting says of an update. Only a greeting with the new version makes it succeed, and not one of
 * an image that may still be rolled back. @returns null: nothing new.
 * @param bootsMax of the new image before it counts as one that crashes again and again.
 */
export function judgeHello(
  update: JudgedUpdate,
  hello: Hello,
  bootsMax: number,
): UpdateStep | null {
  const { fw } = hello;
  if (fw === undefined) return null;
  return fw === update.version
    ? judgeNew(update, hello, bootsMax)
    : judgeOther(update, { ...hello, fw }, bootsMax);
}

function judgeNew(update: JudgedUpdate, hello: Hello, bootsMax: number): UpdateStep | null {
  const boots = bootsOf(update, hello);
  const counted = boots === update.boots ? {} : { boots };
  switch (hello.ota) {
    case 'invalid':
    case 'aborted':
      return end('failed', 'image_invalid', `the device says that the image is ${hello.ota}`, {
        boots,
      });
    case 'new':
    case 'pending':
      if (boots > bootsMax) return crashLoop('failed', boots);
      if (update.state === 'installing') return boots === update.boots ? null : counted;
      return { state: 'installing', ...counted };
    default:
      return end('succeeded', 'greeted', `the device greeted with ${update.version}`, {
        boots,
        ...(hello.boot === undefined ? {} : { bootAfter: hello.boot }),
      });
  }
}

function judgeOther(
  update: JudgedUpdate,
  { fw, boot }: Hello & { readonly fw: string },
  bootsMax: number,
): UpdateStep | null {
  const boots = bootsOf(update, { boot });
  if (update.state !== 'installing') {
    // It may have been rebooted or flashed by hand before it took the image.
    const isKnown = fw === update.fromVersion && (boot === undefined || boot === update.bootBefore);
    return isKnown
      ? null
      : { fromVersion: fw, ...(boot === undefined ? {} : { bootBefore: boot }) };
  }
  // The same boot, or a device that does not count them: it may be about to boot the new image.
  if (boot === undefined || update.bootBefore === null || boot === update.bootBefore) return null;
  if (update.fromVersion !== null && fw !== update.fromVersion) {
    return end('failed', 'other_version', `the device greeted with ${fw}`, { boots });
  }
  if (boots > bootsMax) return crashLoop('rolled_back', boots);
  return end('rolled_back', 'rolled_back', `${fw} is back after ${times(boots)}`, { boots });
}

/** A counter that was lost with the flash counts as one boot. */
function bootsOf(
  { boots, bootBefore }: JudgedUpdate,
  { boot }: { readonly boot?: number | undefined },
): number {
  if (boot === undefined || bootBefore === null) return boots;
  return boot >= bootBefore ? boot - bootBefore : Math.max(1, boots);
}

function crashLoop(state: 'failed' | 'rolled_back', boots: number): UpdateStep {
  const detail = `the new image did not last: ${times(boots)}`;
  return end(state, 'crash_loop', detail, { boots });
}

function times(boots: number): string {
  return boots === 1 ? '1 boot' : `${boots} boots`;
}

function end(state: UpdateState, code: string, detail: string, more: UpdateStep): UpdateStep {
  return { state, code, detail, ...more };
}

/**
 * What a step of its command says of an update. The device's `ok` is no success: that the image was
 * written does not mean that it runs. @returns null: nothing.
 */
export function judgeCommand(update: JudgedUpdate, command: OfferedCommand): UpdateStep | null {
  switch (command.state) {
    case 'sent':
      return { isHeard: true };
    case 'running':
      if (command.progress !== 100) return { isHeard: true, ...onward(update, 'downloading') };
      return { isHeard: true, ...onward(update, 'installing') };
    case 'succeeded':
      return onward(update, 'installing');
    case 'failed':
      // What runs after the boot decides.
      return command.code === 'rebooted' ? null : failed(command, 'the device could not do it');
    case 'rejected':
      return failed(command, 'the device does not take it');
    case 'cancelled':
      return end('failed', 'cancelled', 'it was cancelled', {});
    case 'expired':
      // A device that says nothing of it may be at work on it all the same.
      if (update.state !== 'offered') return null;
      return end('failed', 'expired', 'the device did not fetch the command in time', {});
    case 'unknown':
      return onward(update, 'installing');
    default:
      return null;
  }
}

function failed({ state, code, message }: OfferedCommand, standard: string): UpdateStep {
  return end('failed', code ?? state, message ?? standard, {});
}

const ORDER: readonly UpdateState[] = ['offered', 'downloading', 'installing'];

/** A state further on; never back. */
function onward(update: JudgedUpdate, state: UpdateState): UpdateStep {
  return ORDER.indexOf(state) > ORDER.indexOf(update.state) ? { state } : {};
}
