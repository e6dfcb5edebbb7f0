import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type pg from 'pg';
import { FIRST_NUMBER } from './publish-ring.ts';

/** What became of the numbered messages of a run. */
export interface CheckResult {
  /** Each message once, however often it was acknowledged. */
  acknowledged: number;
  /** Rows of the numbered metric, all devices together. */
  stored: number;
  /** Acknowledged and not stored: must be 0. */
  lost: number;
  /** Stored more than once: must be 0. */
  twice: number;
  /** Stored at another time than was sent: must be 0. */
  altered: number;
  /** Stored without a PUBACK that arrived; allowed, the device would send it again. */
  unacknowledged: number;
  /** The first few that are lost, twice or altered. */
  examples: string[];
}

/** One line of the generator's log. */
export interface Acknowledgement {
  device: string;
  /** Its `ts`; null for a message without one, whose time the program chooses. */
  timeMs: number | null;
  number: number;
  acknowledgedAtMs: number;
}

const EXAMPLES_MAX = 10;

/** Reads the generator's log, in the order of the PUBACKs. */
export async function* readAcknowledgements(path: string): AsyncGenerator<Acknowledgement> {
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const [device = '', timeMs, number, acknowledgedAtMs] = line.split(' ');
    yield {
      device,
      timeMs: Number(timeMs),
      number: Number(number),
      acknowledgedAtMs: Number(acknowledgedAtMs),
    };
  }
}

/** Collects acknowledgements, then compares them with the table, by the number in each message. */
export class AcknowledgementCheck {
  /** For each device the time of each acknowledged message, by its number; null without a time of its own. */
  readonly #timesMs = new Map<string, (number | null)[]>();
  readonly #result: CheckResult = {
    acknowledged: 0,
    stored: 0,
    lost: 0,
    twice: 0,
    altered: 0,
    unacknowledged: 0,
    examples: [],
  };

  add(acknowledgement: Acknowledgement): void {
    let times = this.#timesMs.get(acknowledgement.device);
    if (times === undefined) {
      times = [];
      this.#timesMs.set(acknowledgement.device, times);
    }
    const index = acknowledgement.number - FIRST_NUMBER;
    if (times[index] === undefined) this.#result.acknowledged += 1;
    times[index] = acknowledgement.timeMs;
  }

  /** Reads the rows of each device and compares. Call it once, when nothing is under way any more. */
  async compare(client: pg.Client, devices: readonly string[]): Promise<CheckResult> {
    for (const device of devices) {
      const { rows } = await client.query<{ ms: string; number: number }>(
        `SELECT round(extract(epoch FROM time) * 1000) AS ms, value AS number
         FROM v_reading WHERE device = $1 AND metric = 'n'`,
        [device],
      );
      this.#compareDevice(device, rows);
    }
    return this.#result;
  }

  #compareDevice(device: string, rows: readonly { ms: string; number: number }[]): void {
    const times = this.#timesMs.get(device) ?? [];
    const seen = new Set<number>();
    for (const row of rows) {
      const index = row.number - FIRST_NUMBER;
      if (seen.has(index)) this.#fault('twice', device, row.number);
      seen.add(index);
      const sentMs = times[index];
      if (sentMs === undefined) this.#result.unacknowledged += 1;
      else if (sentMs !== null && sentMs !== Number(row.ms))
        this.#fault('altered', device, row.number);
    }
    this.#result.stored += rows.length;
    // forEach skips the numbers that were never acknowledged.
    times.forEach((_, index) => {
      if (!seen.has(index)) this.#fault('lost', device, FIRST_NUMBER + index);
    });
  }

  #fault(kind: 'lost' | 'twice' | 'altered', device: string, number: number): void {
    this.#result[kind] += 1;
    if (this.#result.examples.length < EXAMPLES_MAX) {
      this.#result.examples.push(`${kind}: ${device} ${number}`);
    }
  }
}
