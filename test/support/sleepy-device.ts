import mqtt, { type MqttClient } from 'mqtt';

interface SlotMessage {
  readonly id: number;
  readonly args: { readonly n: number };
  readonly exp: number;
}

/** What a device that sleeps did while it was awake. */
export interface Wake {
  readonly awakeMs: number;
  /** Numbers of the commands, in order. */
  readonly executed: number[];
}

/**
 * A device that sleeps between contacts (PROTOCOL, section 5): it connects, subscribes, says hello, does
 * what waits, and sleeps when the slot is empty or its time is over. Speaks QoS 0.
 */
export class SleepyDevice {
  readonly #key: string;
  readonly #sleepS: number;
  readonly #awakeMs: number;
  #boot = 0;
  /** Kept while it sleeps: the id of the last command, saved before it is executed. */
  #last = 0;

  constructor(key: string, sleepS: number, awakeMs: number) {
    this.#key = key;
    this.#sleepS = sleepS;
    this.#awakeMs = awakeMs;
  }

  /** Awake once. */
  async wake(mqttUrl: string): Promise<Wake> {
    const startedMs = performance.now();
    const executed: number[] = [];
    const client = mqtt.connect(mqttUrl, {
      username: 'device',
      password: this.#key,
      reconnectPeriod: 0,
    });
    await new Promise<void>((resolve) => {
      const bedtime = setTimeout(resolve, this.#awakeMs);
      const sleep = (): void => {
        clearTimeout(bedtime);
        resolve();
      };
      client.on('error', sleep);
      client.on('connect', () => this.#greet(client));
      client.on('message', (topic, payload) => {
        if (
          topic === 'v1/me/in/hello' &&
          (JSON.parse(payload.toString()) as { cmd: number }).cmd === 0
        )
          sleep();
        if (topic !== 'v1/me/in/cmd') return;
        if (payload.length === 0) sleep();
        else this.#take(client, JSON.parse(payload.toString()) as SlotMessage, executed);
      });
    });
    await client.endAsync();
    return { awakeMs: performance.now() - startedMs, executed };
  }

  #greet(client: MqttClient): void {
    this.#boot += 1;
    const hello = { mps: 256, boot: this.#boot, last: this.#last, sleep: this.#sleepS };
    client.subscribe('v1/me/in/+', { qos: 1 });
    client.publish('v1/me/hello', JSON.stringify(hello));
  }

  #take(client: MqttClient, { id, args, exp }: SlotMessage, executed: number[]): void {
    const isNew = id > this.#last && exp * 1000 > Date.now();
    if (isNew) {
      this.#last = id;
      executed.push(args.n);
    }
    const answer = id === this.#last ? { id, st: 'ok' } : { id, st: 'dup', last: this.#last };
    client.publish('v1/me/ack', JSON.stringify(answer));
  }
}
