/** What the scrapes of a run showed. */
export interface LedgerResult {
  readonly scrapes: number;
  /** Scrapes without an answer: the program was down or being started. */
  readonly unanswered: number;
  /** Answers that had no ledger. */
  readonly withoutLedger: number;
  /** Scrapes whose parts do not add up to what was received: must be 0. */
  readonly breaches: number;
  /** The first few of them. */
  readonly examples: readonly string[];
}

const SCRAPE_EVERY_MS = 1000;
const SCRAPE_TIMEOUT_MS = 900;
const EXAMPLES_MAX = 5;
const LEDGER_LINE = /^puback_ingest_ledger_messages\{entry="(\w+)"\} (\S+)$/gm;

/**
 * Reads /metrics each second and checks that no message is gone from the books: received = committed +
 * spooled + quarantined + rejected + in flight, in every single scrape.
 */
export class LedgerWatch {
  readonly #url: string;
  #timer: NodeJS.Timeout | undefined;
  #scrapes = 0;
  #unanswered = 0;
  #withoutLedger = 0;
  #breaches = 0;
  readonly #examples: string[] = [];

  constructor(httpUrl: string) {
    this.#url = `${httpUrl}/metrics`;
  }

  get result(): LedgerResult {
    return {
      scrapes: this.#scrapes,
      unanswered: this.#unanswered,
      withoutLedger: this.#withoutLedger,
      breaches: this.#breaches,
      examples: this.#examples,
    };
  }

  start(): void {
    this.#timer = setInterval(() => void this.#scrape(), SCRAPE_EVERY_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #scrape(): Promise<void> {
    this.#scrapes += 1;
    const text = await readMetrics(this.#url);
    if (text === null) {
      this.#unanswered += 1;
      return;
    }
    const entries = readLedger(text);
    const received = entries.get('received');
    if (received === undefined) {
      this.#withoutLedger += 1;
      return;
    }
    let others = 0;
    for (const [name, count] of entries) if (name !== 'received') others += count;
    if (others === received) return;
    this.#breaches += 1;
    if (this.#examples.length < EXAMPLES_MAX) {
      const shown = [...entries].map(([name, count]) => `${name} ${count}`).join(', ');
      this.#examples.push(`${new Date().toISOString()} ledger: ${shown}`);
    }
  }
}

/** Entries of the ledger by name, in the text of /metrics; empty where there is none. */
export function readLedger(metrics: string): Map<string, number> {
  const entries = new Map<string, number>();
  for (const [, name = '', count] of metrics.matchAll(LEDGER_LINE))
    entries.set(name, Number(count));
  return entries;
}

/** Value of a metric without labels; null where there is none. */
export function readGauge(metrics: string, name: string): number | null {
  const line = metrics.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? null : Number(line.slice(name.length + 1));
}

/** The text of /metrics, or null when nobody answers in time. */
export async function readMetrics(url: string): Promise<string | null> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(SCRAPE_TIMEOUT_MS) });
    return answer.ok ? await answer.text() : null;
  } catch {
    // Down, or being started: the caller counts it.
    return null;
  }
}
