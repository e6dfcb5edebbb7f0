import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import mqtt, { type MqttClient } from 'mqtt';
import { quantile } from './figures.ts';

/** Times from the write of a reading to the request of a webhook, in ms. */
export interface WebhookTimes {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Readings of which no request came in time. */
  readonly missing: number;
}

/** From one alert of a device to its next: its group may be told of once a second. */
const CYCLE_MS = 4000;
const WAIT_MS = 10_000;
const FIRST_VALUE = 1000;

/**
 * Devices that make a rule fire every four seconds, and the receiver that is told of it. The value of a
 * reading stands in the annotation of its alert, so that a request is known by it.
 */
export class WebhookProbe {
  readonly #server: Server;
  readonly #sentMs = new Map<number, number>();
  readonly #times: number[] = [];
  #value = FIRST_VALUE;

  private constructor() {
    this.#server = createServer((request, response) => {
      const atMs = performance.now();
      let text = '';
      request.on('data', (chunk: Buffer) => (text += chunk.toString()));
      request.on('end', () => {
        this.#received(text, atMs);
        response.end();
      });
    });
  }

  static async open(): Promise<WebhookProbe> {
    const probe = new WebhookProbe();
    probe.#server.listen(0, '127.0.0.1');
    await once(probe.#server, 'listening');
    return probe;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  /** Has each device fire in turn, for so long, and waits for what is still under way. */
  async run(mqttUrl: string, keys: readonly string[], seconds: number): Promise<WebhookTimes> {
    const endMs = performance.now() + seconds * 1000;
    await Promise.all(
      keys.map(async (key, index) => {
        await pause((CYCLE_MS * index) / keys.length);
        await this.#runDevice(mqttUrl, key, endMs);
      }),
    );
    const waitEndMs = performance.now() + WAIT_MS;
    while (this.#sentMs.size > 0 && performance.now() < waitEndMs) await pause(50);
    return this.#result();
  }

  async #runDevice(mqttUrl: string, key: string, endMs: number): Promise<void> {
    const device = await mqtt.connectAsync(mqttUrl, { username: 'device', password: key });
    // The first reading of a device waits until its state is loaded.
    await send(device, 0);
    await pause(CYCLE_MS / 2);
    while (performance.now() < endMs) {
      this.#value += 1;
      this.#sentMs.set(this.#value, performance.now());
      await send(device, this.#value);
      await pause(CYCLE_MS / 2);
      await send(device, 0);
      await pause(CYCLE_MS / 2);
    }
    await device.endAsync();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #received(text: string, atMs: number): void {
    const { state, alerts } = JSON.parse(text) as {
      state: string;
      alerts: { annotations: { summary?: string } }[];
    };
    if (state !== 'firing') return;
    for (const { annotations } of alerts) {
      const value = Number(annotations.summary);
      const sentMs = this.#sentMs.get(value);
      if (sentMs === undefined) continue;
      this.#sentMs.delete(value);
      this.#times.push(atMs - sentMs);
    }
  }

  #result(): WebhookTimes {
    const times = this.#times.toSorted((a, b) => a - b);
    return {
      count: times.length,
      p50Ms: quantile(times, 0.5),
      p99Ms: quantile(times, 0.99),
      maxMs: times.at(-1) ?? NaN,
      missing: this.#sentMs.size,
    };
  }
}

async function send(device: MqttClient, value: number): Promise<void> {
  await device.publishAsync('v1/me/data', JSON.stringify({ probe: value }), { qos: 0 });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
