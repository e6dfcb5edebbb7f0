/** Bounds of {@link ConnectRate}. */
export interface ConnectRateLimits {
  /** Connects a minute of one identity; as many may come at once. 0: no limit. */
  readonly perMinute: number;
  /** Identities that are remembered; the longest unseen are forgotten first. */
  readonly rememberedMax: number;
}

interface Bucket {
  tokens: number;
  filledAtMs: number;
}

/**
 * How often one device, or one integrator key, may connect: each connect is written down, shown to
 * subscribers and checked, so that one that comes and goes costs everybody else.
 */
export class ConnectRate {
  readonly #limits: ConnectRateLimits;
  readonly #now: () => number;
  /** By identity; the order of insertion is that of use. */
  readonly #buckets = new Map<string, Bucket>();

  /** @param now monotonic, in ms. */
  constructor(limits: ConnectRateLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Counts a connect. @returns false when it is one too many. */
  take(identity: string): boolean {
    const { perMinute, rememberedMax } = this.#limits;
    if (perMinute === 0) return true;
    const nowMs = this.#now();
    const bucket = this.#buckets.get(identity) ?? { tokens: perMinute, filledAtMs: nowMs };
    this.#buckets.delete(identity);
    for (const oldest of this.#buckets.keys()) {
      if (this.#buckets.size < rememberedMax) break;
      this.#buckets.delete(oldest);
    }
    this.#buckets.set(identity, bucket);
    const gained = ((nowMs - bucket.filledAtMs) / 60_000) * perMinute;
    bucket.tokens = Math.min(perMinute, bucket.tokens + gained);
    bucket.filledAtMs = nowMs;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }
}
