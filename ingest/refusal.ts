import { QUALITY, Refusal, type Quality, type RefusalCode } from '../firmware-protocol/contract.ts';
import type { Message } from './message.ts';
import { quarantineId } from './quarantine-rows.ts';

/**
 * The message goes to quarantine, and its device is told why. It is acknowledged, or the device would
 * send it again for ever. The first reason counts.
 */
export function setAside(message: Message, code: RefusalCode, detail: string): void {
  if (message.quarantine !== null) return;
  message.quarantine = { id: quarantineId(message), code, detail };
  message.publication.source.report(code, message.publication.word, detail);
}

/** As {@link setAside} for a device that is in quarantine as a whole; it is not told. */
export function keepApart(message: Message): void {
  const detail = 'the device is in quarantine';
  message.quarantine ??= { id: quarantineId(message), code: 'device_quarantined', detail };
}

/** As {@link setAside} for a message that the database refuses; the device can do nothing about it. */
export function putAside(message: Message, reason: string): void {
  message.quarantine ??= {
    id: quarantineId(message),
    code: 'not_stored',
    detail: reason.slice(0, 100),
  };
  message.canonical = null;
  message.isDuplicate = false;
}

/** Tells a device, once for each connection, that its clock is wrong. */
export function reportClock({ publication, lane }: Message, quality: Quality): void {
  if (lane.isClockReported) return;
  lane.isClockReported = true;
  const detail =
    quality === QUALITY.corrected
      ? 'clock is ahead: times are corrected'
      : 'clock not set: time of receipt used';
  publication.source.report('clock', publication.word, detail);
}

/** What counts is how it stood with the device when the message came. */
export function isToBeKeptApart({ lane, publication }: Message): boolean {
  return lane.isOfSpool ? publication.isKeptApart === true : lane.device.isQuarantined;
}

/** Takes back what was found out of a message that can be read, before it is looked at again. */
export function forgetVerdict(message: Message): void {
  if (message.outcome instanceof Refusal) return;
  message.quarantine = null;
  message.canonical = null;
  message.isDuplicate = false;
}
