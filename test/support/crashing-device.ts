import mqtt, { type MqttClient } from 'mqtt';

/** What a board does with a command, in order; behind each it may be stopped. */
export const COMMAND_STEPS = [
  'received',
  'saved',
  'executed',
  'status saved',
  'answered',
  'acknowledged',
] as const;
/** One of {@link COMMAND_STEPS}. */
export type CommandStep = (typeof COMMAND_STEPS)[number];

interface SlotMessage {
  readonly id: number;
  readonly cmd: string;
  readonly args: { readonly n: number };
  readonly exp: number;
}

/** What a board keeps over a reboot. */
interface Flash {
  last: number;
  /** Null: it does not know what became of the last command. */
  status: string | null;
  boot: number;
}

/**
 * A board that saves the id of a command before it executes it (PROTOCOL, section 6.4), and forgets
 * everything but its flash when it loses its power.
 */
export class CrashingDevice {
  readonly #key: string;
  readonly #flash: Flash = { last: 0, status: null, boot: 1 };
  /** Numbers of the commands that it has executed, in order, over all its lives. */
  readonly executed: number[] = [];
  /** Asked behind each step; what it waits for holds the board at this place. */
  readonly #after: (step: CommandStep, n: number) => Promise<void>;
  #client: MqttClient | null = null;
  #life = 0;
  /** Last payload of the slot: empty when nothing waits. */
  slot: Buffer | null = null;

  constructor(key: string, after: (step: CommandStep, n: number) => Promise<void>) {
    this.#key = key;
    this.#after = after;
  }

  /** Connects, subscribes and greets; a connection that cannot be made is left to the caller. */
  async connect(mqttUrl: string): Promise<void> {
    const life = this.#life;
    const client = await mqtt.connectAsync(mqttUrl, {
      username: 'device',
      password: this.#key,
      reconnectPeriod: 0,
      connectTimeout: 5000,
    });
    client.on('error', () => undefined);
    this.#client = client;
    client.on('message', (topic, payload) => {
      if (!topic.endsWith('/in/cmd') || life !== this.#life) return;
      this.slot = payload;
      if (payload.length > 0) {
        const message = JSON.parse(payload.toString()) as SlotMessage;
        void this.#take(client, life, message);
      }
    });
    const { last, boot } = this.#flash;
    const hello = JSON.stringify({ last, boot, mps: 1024 });
    const greeted = client
      .subscribeAsync('v1/me/in/+', { qos: 1 })
      .then(() => client.publishAsync('v1/me/hello', hello, { qos: 1 }));
    // What is asked on a connection that ends is never answered.
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()));
    await Promise.race([greeted, closed]);
  }

  get isConnected(): boolean {
    return this.#client?.connected === true;
  }

  /** Loses its power: what is not in flash is gone. */
  crash(): void {
    this.#life += 1;
    this.#flash.boot += 1;
    this.disconnect();
  }

  /** Loses its connection, and nothing else. */
  disconnect(): void {
    this.#client?.end(true);
    this.#client = null;
    this.slot = null;
  }

  async #take(client: MqttClient, life: number, { id, args, exp }: SlotMessage): Promise<void> {
    const flash = this.#flash;
    const isAlive = async (step: CommandStep): Promise<boolean> => {
      await this.#after(step, args.n);
      return life === this.#life;
    };
    if (!(await isAlive('received'))) return;
    if (id <= flash.last) {
      const isLast = id === flash.last && flash.status !== null;
      const answer = isLast ? { id, st: flash.status } : { id, st: 'dup', last: flash.last };
      void this.#answer(client, answer);
      return;
    }
    if (exp <= Date.now() / 1000) {
      void this.#answer(client, { id, st: 'no', code: 'expired' });
      return;
    }
    Object.assign(flash, { last: id, status: null });
    if (!(await isAlive('saved'))) return;
    this.executed.push(args.n);
    if (!(await isAlive('executed'))) return;
    flash.status = 'ok';
    if (!(await isAlive('status saved'))) return;
    const acknowledged = this.#answer(client, { id, st: 'ok', r: { n: args.n } });
    if (!(await isAlive('answered'))) return;
    if (await acknowledged) await isAlive('acknowledged');
  }

  /** @returns whether a PUBACK came. */
  async #answer(client: MqttClient, answer: object): Promise<boolean> {
    try {
      await client.publishAsync('v1/me/ack', JSON.stringify(answer), { qos: 1 });
      return true;
    } catch {
      // It stands in the slot again with the next connection.
      return false;
    }
  }
}
