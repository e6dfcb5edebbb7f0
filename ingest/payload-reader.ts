// HOT PATH: see bench/RESULTS.md
import { Refusal } from '../firmware-protocol/contract.ts';
import { decodeEvent } from '../firmware-protocol/event.ts';
import { decodeLog } from '../firmware-protocol/log-entry.ts';
import { decodeSenml } from '../firmware-protocol/senml.ts';
import { decodeData, decodeScalar, type Decoded } from '../firmware-protocol/telemetry.ts';
import { newestTimes } from '../firmware-protocol/time.ts';
import type { Message, Publication } from './message.ts';

/** Reads the payload of a message, and notes when it was received. Throws never. */
export function readMessage(message: Message): Decoded | Refusal {
  const outcome = decode(message.publication);
  const { device, isLive } = message.lane;
  const isRefused = outcome instanceof Refusal;
  if (message.receivedMicros === 0) {
    const samples = isRefused ? 1 : outcome.samples.length;
    message.receivedMicros = device.receiptClock.next(message.arrivedMs * 1000, samples);
  }
  if (isRefused) return outcome;
  message.newest = newestTimes(outcome.samples);
  // Of a device that is not loaded it is not known what was found out about its clock before.
  if (isLive && device.isLoaded) {
    message.basis = device.clock.observe(message.newest, message.receivedMicros);
  }
  return outcome;
}

function decode({ channel, name, payload, refusal }: Publication): Decoded | Refusal {
  if (refusal !== null) return refusal;
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
    case 'refused':
      return new Refusal('unknown_channel', 'not read');
  }
}
