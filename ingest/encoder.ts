// HOT PATH: see bench/RESULTS.md
import { CanonicalPayload } from '../firmware-protocol/canonical.ts';
import { QUALITY } from '../firmware-protocol/contract.ts';
import { canonicalEvent } from '../firmware-protocol/event.ts';
import { canonicalLog } from '../firmware-protocol/log-entry.ts';
import type { Decoded, Sample } from '../firmware-protocol/telemetry.ts';
import {
  isLate,
  resolveTime,
  type ResolvedTime,
  type TimeLimits,
} from '../firmware-protocol/time.ts';
import type { BatchWriter } from './batch-writer.ts';
import { ClockMetrics } from './clock-metrics.ts';
import type { Lane } from './lane.ts';
import type { Message } from './message.ts';
import type { MetricUnits } from './metric-units.ts';
import type { ObservedSample, ReadingObserver } from './observer.ts';
import type { DatedOccurrence } from './occurrence-rows.ts';
import { reportClock, setAside } from './refusal.ts';

/** What an encoder works with. */
export interface EncoderParts {
  readonly writer: BatchWriter;
  readonly limits: TimeLimits;
  /** Told of the units that messages name. */
  readonly units?: MetricUnits | null;
  readonly clockMetrics?: ClockMetrics;
  /** Told of what is stored as readings or events, once. */
  readonly observer?: ReadingObserver | null | undefined;
}

/** Makes rows of messages, in the writer's open batch. */
export class Encoder {
  readonly #writer: BatchWriter;
  readonly #limits: TimeLimits;
  readonly #units: MetricUnits | null;
  readonly #clockMetrics: ClockMetrics;
  readonly #observer: ReadingObserver | null;
  /** Of the sample that is observed: one for all, as observers look at it at once. */
  readonly #times = { timeMicros: 0, receivedMicros: 0, isLive: true };

  constructor({ writer, limits, units, clockMetrics, observer }: EncoderParts) {
    this.#writer = writer;
    this.#limits = limits;
    this.#units = units ?? null;
    this.#clockMetrics = clockMetrics ?? new ClockMetrics();
    this.#observer = observer ?? null;
  }

  /** Makes rows of what is new. Of a message that is refused already only the numbers are noted. */
  encode(message: Message, decoded: Decoded): void {
    if (decoded.occurrence !== undefined) {
      this.#encodeOccurrence(message, decoded);
      return;
    }
    if (decoded.units !== undefined) {
      this.#units?.note(message.lane.device.organizationId, decoded.units);
    }
    const isRefused = message.quarantine !== null;
    const canonical = !isRefused && message.publication.isWanted() ? new CanonicalPayload() : null;
    let newSamples = 0;
    let isNew = true;
    for (const sample of decoded.samples) {
      if (!sample.isContinued) isNew = this.#isNew(message.lane, sample.seq);
      if (!isNew) continue;
      newSamples += 1;
      if (!isRefused) this.#encodeSample(message, sample, canonical);
    }
    if (newSamples === 0 && decoded.samples.length > 0) noteDuplicate(message);
    if (canonical !== null) message.canonical = canonical.end();
  }

  /** What listeners are shown of a message, as {@link encode} does, without rows of it. */
  show(message: Message, decoded: Decoded): void {
    if (message.quarantine !== null || !message.publication.isWanted()) return;
    if (decoded.occurrence !== undefined) {
      const dated = this.#date(message, decoded);
      message.canonical = dated === null ? null : canonicalOf(dated, decoded);
      return;
    }
    const canonical = new CanonicalPayload();
    for (const sample of decoded.samples) {
      const resolved = this.#timeOf(message, sample);
      if (resolved !== null) canonical.add(resolved.timeMicros, sample);
    }
    message.canonical = canonical.end();
  }

  /** Tells the observer of a message that went to quarantine, at least in part. */
  refuse({ quarantine, lane: { device }, receivedMicros }: Message): void {
    if (quarantine === null) return;
    this.#observer?.refused(device.organizationId, device.deviceId, receivedMicros);
  }

  #encodeOccurrence(message: Message, decoded: Decoded): void {
    if (!this.#isNew(message.lane, decoded.samples[0]?.seq ?? null)) {
      noteDuplicate(message);
      return;
    }
    if (message.quarantine !== null) return;
    message.dated = this.#date(message, decoded);
    if (message.dated !== null && this.#observer !== null) {
      this.#observeEvent(this.#observer, message, message.dated);
    }
    if (message.dated === null || !message.publication.isWanted()) return;
    message.canonical = canonicalOf(message.dated, decoded);
  }

  /** Null when it is too old. */
  #date(message: Message, { occurrence, samples }: Decoded): DatedOccurrence | null {
    const times: ResolvedTime[] = [];
    for (const sample of samples) {
      const resolved = this.#timeOf(message, sample);
      if (resolved === null) return null;
      times.push(resolved);
    }
    const quality = times[0]?.quality ?? QUALITY.receipt;
    const timesMicros = times.map(({ timeMicros }) => timeMicros);
    return occurrence === undefined ? null : { occurrence, timesMicros, quality };
  }

  /** Whether a number has not come before; it has from now on. */
  #isNew(lane: Lane, seq: number | null): boolean {
    if (seq === null || !lane.isNumbered) return true;
    const { sequence } = lane;
    if (sequence.has(seq)) return false;
    this.#writer.open.addSequence(sequence, seq);
    return true;
  }

  #encodeSample(message: Message, sample: Sample, canonical: CanonicalPayload | null): void {
    const { device } = message.lane;
    const resolved = this.#timeOf(message, sample);
    if (resolved === null) return;
    const { timeMicros, quality } = resolved;
    this.#clockMetrics.dated(quality, isLate(timeMicros, message.receivedMicros));
    const batch = this.#writer.open;
    const observer = this.#observer;
    for (const { metric, value, text } of sample.points) {
      const slot = device.slots.get(metric);
      if (slot === undefined) throw new Error(`series of ${metric} not looked up`);
      batch.addReading(slot, timeMicros, value, text, message.receivedMicros, quality);
      if (observer === null) continue;
      slot.observed ??= observer.seriesOf(device.organizationId, device.deviceId, metric);
      observer.reading(slot.observed, timeMicros, value, text);
    }
    observer?.sampleEnd(device.deviceId, this.#timesOf(message, timeMicros));
    canonical?.add(timeMicros, sample);
  }

  #observeEvent(
    observer: ReadingObserver,
    message: Message,
    { occurrence, timesMicros }: DatedOccurrence,
  ): void {
    if (occurrence.kind !== 'event') return;
    const { name, content } = occurrence;
    const times = this.#timesOf(message, timesMicros[0] ?? 0);
    observer.event(message.lane.device, { ...times, name, content });
  }

  #timesOf({ receivedMicros, lane }: Message, timeMicros: number): ObservedSample {
    this.#times.timeMicros = timeMicros;
    this.#times.receivedMicros = receivedMicros;
    this.#times.isLive = lane.isLive || lane.isOfSpool;
    return this.#times;
  }

  /** Null when the sample is too old; the message goes to quarantine then. */
  #timeOf(message: Message, sample: Sample): ResolvedTime | null {
    const limits = message.lane.timeLimits ?? this.#limits;
    const resolved = resolveTime(sample, message, limits);
    if (resolved === 'too_old') {
      setAside(message, 'too_old', `older than ${limits.ageMaxMs / 86_400_000} days`);
      return null;
    }
    const { quality } = resolved;
    if (quality === QUALITY.serverTs || quality === QUALITY.corrected)
      reportClock(message, quality);
    return resolved;
  }
}

/** It was refused when it came first, if at all, and is in quarantine already. */
function noteDuplicate(message: Message): void {
  message.isDuplicate = true;
  message.quarantine = null;
}

function canonicalOf(
  { occurrence, timesMicros }: DatedOccurrence,
  { samples }: Decoded,
): Buffer | null {
  if (occurrence.kind === 'log') return canonicalLog(timesMicros, occurrence.lines);
  return canonicalEvent(timesMicros[0] ?? 0, samples[0]?.seq ?? null, occurrence.content);
}
