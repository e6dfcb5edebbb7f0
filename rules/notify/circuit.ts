const OPEN_MS_MIN = 15_000;
const OPEN_MS_MAX = 300_000;
const FAILURES_MAX = 5;
/** Receivers that are remembered; beyond it the oldest one is forgotten. */
const RECEIVERS_MAX = 10_000;

interface Circuit {
  failures: number;
  /** Nothing is sent until then. */
  openUntilMs: number;
  openMs: number;
}

/**
 * Leaves receivers alone that fail again and again. Closed: everything is sent. After five failures in a
 * row it is open: nothing is sent for a while, 15 s at first and up to 5 minutes. Then half open: one
 * message is tried; if it arrives the circuit is closed, else it is open for twice as long.
 */
export class Circuits {
  readonly #circuits = new Map<string, Circuit>();

  /** Receivers to which nothing is to be sent now. */
  openAt(nowMs: number): string[] {
    const open: string[] = [];
    for (const [receiverId, { openUntilMs }] of this.#circuits) {
      if (openUntilMs > nowMs) open.push(receiverId);
    }
    return open;
  }

  /** Receivers that get one message at a time, those that are open too. */
  halfOpen(): string[] {
    return [...this.#circuits.keys()].filter((receiverId) => this.isHalfOpen(receiverId));
  }

  /** Whether only one message at a time is to be tried. */
  isHalfOpen(receiverId: string): boolean {
    return (this.#circuits.get(receiverId)?.failures ?? 0) >= FAILURES_MAX;
  }

  succeeded(receiverId: string): void {
    this.#circuits.delete(receiverId);
  }

  /** Of a failure that lies with the receiver and not with one message. */
  failed(receiverId: string, nowMs: number): void {
    const circuit = this.#circuits.get(receiverId) ?? { failures: 0, openUntilMs: 0, openMs: 0 };
    circuit.failures += 1;
    if (circuit.failures >= FAILURES_MAX && circuit.openUntilMs <= nowMs) {
      circuit.openMs = Math.min(Math.max(circuit.openMs * 2, OPEN_MS_MIN), OPEN_MS_MAX);
      circuit.openUntilMs = nowMs + circuit.openMs;
    }
    this.#circuits.delete(receiverId);
    this.#circuits.set(receiverId, circuit);
    if (this.#circuits.size <= RECEIVERS_MAX) return;
    for (const oldest of this.#circuits.keys()) {
      this.#circuits.delete(oldest);
      return;
    }
  }

  /** When the next one is half open, in ms; null when none is open. */
  nextMs(nowMs: number): number | null {
    let next: number | null = null;
    for (const { openUntilMs } of this.#circuits.values()) {
      if (openUntilMs > nowMs && (next === null || openUntilMs < next)) next = openUntilMs;
    }
    return next;
  }
}
