/** `must`: without it data is lost, commands run twice, or the device harms others. `should`: advised. */
export type PointLevel = 'must' | 'should';

/** What became of a point. */
export type Verdict = 'passed' | 'failed' | 'not_reached' | 'not_applicable';

/** Something that firmware does right or not. */
export interface Point {
  readonly id: string;
  readonly level: PointLevel;
  /** A fact about good firmware. */
  readonly title: string;
}

/** All points, in the order in which they are looked at. */
export const POINTS = [
  { id: 'connect', level: 'must', title: 'connects with MQTT 3.1.1 and its key' },
  { id: 'subscribe', level: 'must', title: 'subscribes to its inbox after each CONNECT' },
  { id: 'hello', level: 'should', title: 'says hello, with mps, boot and last' },
  { id: 'payloads', level: 'must', title: 'publishes only what can be read' },
  { id: 'command', level: 'must', title: 'answers a command' },
  { id: 'repeat', level: 'must', title: 'answers a repeated command again, and executes it once' },
  { id: 'redelivered', level: 'must', title: 'the same over a new connection' },
  { id: 'older', level: 'must', title: 'answers dup to an id below the last one' },
  { id: 'unknown', level: 'must', title: 'answers no, unknown to a command that it does not know' },
  { id: 'expired', level: 'must', title: 'answers no, expired to a command that is too old' },
  { id: 'garbage', level: 'must', title: 'ignores a command that cannot be read' },
  { id: 'channel', level: 'must', title: 'ignores topics under in/ that it does not know' },
  { id: 'error', level: 'must', title: 'keeps its connection when it is told of an error' },
  { id: 'mps', level: 'must', title: 'takes packets as large as it says' },
  { id: 'oversize', level: 'should', title: 'goes on after a packet that is too large for it' },
  { id: 'empty', level: 'must', title: 'answers nothing to an empty slot' },
  { id: 'configuration', level: 'should', title: 'reports what became of a configuration' },
  {
    id: 'configuration-again',
    level: 'must',
    title: 'reports a version again, and does not apply it again',
  },
  { id: 'restart', level: 'must', title: 'remembers over a restart which command it took' },
  {
    id: 'rekey',
    level: 'must',
    title: 'takes a new key, and goes back to its own when that is refused',
  },
  { id: 'sleep', level: 'must', title: 'sleeps when nothing waits, and says DISCONNECT' },
  { id: 'resend', level: 'must', title: 'sends samples without PUBACK again, with the same stamp' },
  { id: 'backoff', level: 'must', title: 'waits longer after each refused attempt' },
  { id: 'jitter', level: 'should', title: 'waits for random times' },
  { id: 'refused', level: 'must', title: 'waits a minute or more when its key is refused' },
] as const satisfies readonly Point[];

/** Id of one of {@link POINTS}. */
export type PointId = (typeof POINTS)[number]['id'];

/** A point with what was found. */
export interface PointResult extends Point {
  readonly verdict: Verdict;
  /** One line for the author of the firmware. */
  readonly detail: string;
}

/** What was found of each point; the first failure of a point stays. */
export class Verdicts {
  readonly #found = new Map<PointId, { verdict: Verdict; detail: string }>();

  /** Does not undo a failure. */
  pass(id: PointId, detail = ''): void {
    if (this.#found.get(id)?.verdict !== 'failed')
      this.#found.set(id, { verdict: 'passed', detail });
  }

  fail(id: PointId, detail: string): void {
    if (this.#found.get(id)?.verdict !== 'failed')
      this.#found.set(id, { verdict: 'failed', detail });
  }

  /** It does not concern this device. */
  skip(id: PointId, detail: string): void {
    if (!this.#found.has(id)) this.#found.set(id, { verdict: 'not_applicable', detail });
  }

  has(id: PointId): boolean {
    return this.#found.has(id);
  }

  /** All points; those that nothing was found of were not reached. */
  results(): PointResult[] {
    return POINTS.map((point) => ({
      ...point,
      verdict: 'not_reached' as const,
      detail: '',
      ...this.#found.get(point.id),
    }));
  }
}

/** Whether every point that must hold does, or does not concern the device. */
export function isConformant(results: readonly PointResult[]): boolean {
  return results.every(
    ({ level, verdict }) =>
      level === 'should' || verdict === 'passed' || verdict === 'not_applicable',
  );
}
