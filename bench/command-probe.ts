import type { Socket } from 'node:net';
import mqtt, { type MqttClient } from 'mqtt';
import { ToolFailedError } from '../errors.ts';
import type { ApiClient } from './api-client.ts';
import { quantile } from './figures.ts';
import type { BoardAccess } from './fleet-keys.ts';

/** Round trips of commands, in ms. */
export interface CommandTimes {
  readonly count: number;
  /** From the request that asks for the command to its answer with the result. */
  readonly trip: Quantiles;
  /** From that request to the arrival of the command at the device. */
  readonly down: Quantiles;
  /** Round trips that did not end with the device's result. */
  readonly failed: number;
}

/** Of a list of times. */
export interface Quantiles {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** From one command of a device to its next. */
const CYCLE_MS = 500;

/** Connected devices that answer each command at once, and who sends them commands over HTTP. */
export class CommandProbe {
  readonly #api: ApiClient;
  readonly #mqttUrl: string;
  readonly #trips: number[] = [];
  readonly #downs: number[] = [];
  readonly #askedMs = new Map<number, number>();
  #failed = 0;
  #next = 0;

  constructor(api: ApiClient, mqttUrl: string) {
    this.#api = api;
    this.#mqttUrl = mqttUrl;
  }

  /** Sends each device a command twice a second for so long, and begins to time after the warm-up. */
  async run(
    boards: readonly BoardAccess[],
    { warmupS, measuredS }: { readonly warmupS: number; readonly measuredS: number },
  ): Promise<CommandTimes> {
    const devices = await Promise.all(boards.map(({ key }) => this.#connect(key)));
    const beginMs = performance.now() + warmupS * 1000;
    const endMs = beginMs + measuredS * 1000;
    await Promise.all(
      boards.map(async ({ device }, index) => {
        await pause((CYCLE_MS * index) / boards.length);
        while (performance.now() < endMs) {
          const dueMs = performance.now() + CYCLE_MS;
          await this.#command(device, performance.now() >= beginMs);
          await pause(dueMs - performance.now());
        }
      }),
    );
    await Promise.all(devices.map((client) => client.endAsync()));
    return {
      count: this.#trips.length,
      trip: quantilesOf(this.#trips),
      down: quantilesOf(this.#downs),
      failed: this.#failed,
    };
  }

  async #connect(key: string): Promise<MqttClient> {
    const client = await mqtt.connectAsync(this.#mqttUrl, { username: 'device', password: key });
    // An answer right behind a PUBACK would wait for the peer's delayed acknowledgement, 40 ms.
    (client.stream as Socket).setNoDelay(true);
    client.on('message', (topic, payload) => {
      if (!topic.endsWith('in/cmd') || payload.length === 0) return;
      const { id, args } = JSON.parse(payload.toString()) as { id: number; args: { n: number } };
      const askedMs = this.#askedMs.get(args.n);
      if (askedMs !== undefined) this.#downs.push(performance.now() - askedMs);
      this.#askedMs.delete(args.n);
      client.publish('v1/me/ack', JSON.stringify({ id, st: 'ok', r: { n: args.n } }), { qos: 1 });
    });
    const [granted] = await client.subscribeAsync('v1/me/in/+', { qos: 1 });
    if (granted === undefined) throw new ToolFailedError('a device was not granted its inbox');
    return client;
  }

  async #command(device: string, isTimed: boolean): Promise<void> {
    this.#next += 1;
    const number = this.#next;
    const askedMs = performance.now();
    if (isTimed) this.#askedMs.set(number, askedMs);
    const path = `/api/v1/devices/${device}/commands?wait=10s`;
    const answer = await this.#api.make(path, { command: 'probe', args: { n: number }, ttl: '1m' });
    if (!isTimed) return;
    const result = answer['result'] as { n: number } | null;
    if (answer['state'] === 'succeeded' && result?.n === number) {
      this.#trips.push(performance.now() - askedMs);
    } else this.#failed += 1;
  }
}

function quantilesOf(times: readonly number[]): Quantiles {
  const sorted = times.toSorted((a, b) => a - b);
  return {
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
    maxMs: sorted.at(-1) ?? NaN,
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
