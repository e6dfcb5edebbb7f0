// HOT PATH: see bench/RESULTS.md
import type { DeviceLane } from './device-lane.ts';
import type { Message } from './message.ts';
import type { DropReason } from './metrics.ts';

/** A message over the rate waits this long at most; reading from the socket rests meanwhile. */
const RATE_WAIT_MS_MAX = 2000;

/** Takes a message's part of every rate, where it is there at once. */
export function passesRates(message: Message, nowMs: number): boolean {
  const { device, sharedRates } = message.lane;
  if (!message.isCounted && device.messageBucket.take(1, nowMs) > 0) return false;
  message.isCounted = true;
  for (; message.sharedRatesPassed < sharedRates.length; message.sharedRatesPassed += 1) {
    if (sharedRates[message.sharedRatesPassed]?.take(nowMs) === false) return false;
  }
  return true;
}

/** Why waiting does not help: the device has been over a rate, or will be, for too long. */
export function overRateReason(device: DeviceLane): DropReason | null {
  const now = performance.now();
  const { rateWait, messageBucket, waiting, sharedWait } = device;
  if (rateWait.lastedMs(now) > RATE_WAIT_MS_MAX) return 'rate';
  if (messageBucket.waitFor(waiting.length + 1, now) > RATE_WAIT_MS_MAX) return 'rate';
  return sharedWait.overReason(now);
}
