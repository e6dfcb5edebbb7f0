import { arrive, judgePayloads } from './arrival.ts';
import {
  emptySlot,
  giveCommands,
  giveLargePackets,
  giveNonsense,
  giveRefusable,
} from './commands.ts';
import { giveConfiguration } from './configuration.ts';
import type { Certificate } from './certificate.ts';
import { TimeOver } from './device-record.ts';
import { Exam, type ExamOptions } from './exam.ts';
import { changeKey } from './key-change.ts';
import { loseSamples, refuseKey } from './losses.ts';
import { Platform } from './platform.ts';
import { isConformant, Verdicts, type PointResult } from './points.ts';
import { restart, sleep } from './rests.ts';

/** What {@link runConformance} needs. */
export interface ConformanceOptions extends ExamOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** The key of the device under test. */
  readonly key: string;
  /** Shown to the device, which then has to speak TLS; null: MQTT without TLS. */
  readonly tls: Certificate | null;
  /** The run ends then at the latest. */
  readonly forMs: number;
  /** Ends the run early. */
  readonly stop: AbortSignal;
  /** Told once it listens. */
  readonly onListening: (port: number) => void;
}

/** What a run found. */
export interface ConformanceReport {
  readonly isConformant: boolean;
  readonly seconds: number;
  readonly points: readonly PointResult[];
}

/** What is played, in this order. A part that needs the inbox is left out when it is not subscribed. */
const SCENES: readonly (readonly [needsInbox: boolean, play: (exam: Exam) => Promise<void>])[] = [
  [false, arrive],
  [true, giveCommands],
  [true, giveRefusable],
  [true, giveNonsense],
  [true, giveLargePackets],
  [true, giveConfiguration],
  [true, restart],
  [true, changeKey],
  [true, emptySlot],
  [false, loseSamples],
  [true, sleep],
  [false, refuseKey],
];

/**
 * Plays the platform for one device and reports what its firmware does right. Ends when all is played, or
 * when the time is over; then the points that are left were not reached.
 * @throws {Error} when the port cannot be listened on.
 */
export async function runConformance(options: ConformanceOptions): Promise<ConformanceReport> {
  const { host, port, key, tls, forMs, stop, say } = options;
  const startedAt = performance.now();
  const verdicts = new Verdicts();
  // Node.js 20 may collect a signal that only AbortSignal.any knows: it would never come.
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), forMs);
  stop.addEventListener('abort', () => over.abort());
  const platform = new Platform({
    ...{ host, port, key, tls, over: over.signal },
    onStranger: (why) => say(`refused a client: ${why}`),
  });
  const exam = new Exam(platform, verdicts, options);
  try {
    options.onListening(await platform.start());
    for (const [needsInbox, play] of SCENES) {
      if (needsInbox && platform.hasNoInbox) continue;
      await play(exam);
    }
  } catch (error) {
    if (!(error instanceof TimeOver)) throw error;
    say(error.message);
  } finally {
    clearTimeout(timer);
    judgePayloads(exam);
    if (!verdicts.has('connect') && platform.refusal !== null) {
      verdicts.fail('connect', platform.refusal);
    }
    await platform.stop();
  }
  const points = verdicts.results();
  const seconds = (performance.now() - startedAt) / 1000;
  return { isConformant: isConformant(points), seconds, points };
}
