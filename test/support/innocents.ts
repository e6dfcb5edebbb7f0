import mqtt, { type MqttClient } from 'mqtt';

/** Where and as whom the innocents connect. */
export interface InnocentAccess {
  readonly mqttUrl: string;
  readonly organization: string;
  /** A device of which nobody else speaks. */
  readonly device: string;
  readonly deviceKey: string;
  readonly integratorKey: string;
}

/** What the innocents have seen. */
export interface InnocentReport {
  readonly published: number;
  readonly acknowledged: number;
  readonly delivered: number;
  /** Longest times in ms to a PUBACK and to the delivery at the subscriber. */
  readonly slowestPubackMs: number;
  readonly slowestDeliveryMs: number;
  /** Connections that ended. */
  readonly faults: readonly string[];
}

const EVERY_MS = 25;

/**
 * A device that publishes at QoS 1 at a steady pace, and an integrator that reads its stream: bystanders of
 * an attack, to whom nothing may happen.
 */
export class Innocents {
  readonly #access: InnocentAccess;
  readonly #sentAtMs = new Map<number, number>();
  readonly #clients: MqttClient[] = [];
  readonly #faults: string[] = [];
  #published = 0;
  #acknowledged = 0;
  #delivered = 0;
  #slowestPubackMs = 0;
  #slowestDeliveryMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(access: InnocentAccess) {
    this.#access = access;
  }

  /** Connects both and begins to publish. */
  async start(): Promise<void> {
    const { mqttUrl, organization, device, deviceKey, integratorKey } = this.#access;
    const reader = await this.#connect(mqttUrl, integratorKey, 'reader');
    reader.on('message', (_topic, payload) => this.#received(payload));
    await reader.subscribeAsync(`v1/${organization}/${device}/data`, { qos: 1 });
    const writer = await this.#connect(mqttUrl, deviceKey, 'writer');
    this.#timer = setInterval(() => this.#publish(writer), EVERY_MS);
  }

  /** Ends when all that was published is acknowledged and delivered, or after the deadline. */
  async stop(deadlineMs = 10_000): Promise<InnocentReport> {
    clearInterval(this.#timer);
    const end = performance.now() + deadlineMs;
    const isDone = (): boolean =>
      this.#acknowledged >= this.#published && this.#delivered >= this.#published;
    while (!isDone() && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const report = this.report();
    for (const client of this.#clients) {
      client.removeAllListeners('close');
      await client.endAsync(true);
    }
    return report;
  }

  report(): InnocentReport {
    return {
      published: this.#published,
      acknowledged: this.#acknowledged,
      delivered: this.#delivered,
      slowestPubackMs: this.#slowestPubackMs,
      slowestDeliveryMs: this.#slowestDeliveryMs,
      faults: this.#faults,
    };
  }

  async #connect(url: string, key: string, name: string): Promise<MqttClient> {
    const client = await mqtt.connectAsync(url, {
      protocolVersion: 4,
      clientId: `innocent-${name}`,
      username: 'innocent',
      password: key,
      reconnectPeriod: 0,
    });
    client.on('close', () => this.#faults.push(`the ${name} lost its connection`));
    client.on('error', (error) => this.#faults.push(`the ${name}: ${error.message}`));
    this.#clients.push(client);
    return client;
  }

  #publish(writer: MqttClient): void {
    this.#published += 1;
    const number = this.#published;
    const sentAtMs = performance.now();
    this.#sentAtMs.set(number, sentAtMs);
    writer.publish('v1/me/data', `{"n":${number}}`, { qos: 1 }, (error) => {
      if (error) return;
      this.#acknowledged += 1;
      this.#slowestPubackMs = Math.max(this.#slowestPubackMs, performance.now() - sentAtMs);
    });
  }

  #received(payload: Buffer): void {
    const { n } = JSON.parse(payload.toString()) as { n: number };
    const sentAtMs = this.#sentAtMs.get(n);
    // A copy that was sent again counts once.
    if (sentAtMs === undefined) return;
    this.#sentAtMs.delete(n);
    this.#delivered += 1;
    this.#slowestDeliveryMs = Math.max(this.#slowestDeliveryMs, performance.now() - sentAtMs);
  }
}
