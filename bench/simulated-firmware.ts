import { setTimeout as delay } from 'node:timers/promises';
import { connect, type IClientOptions, type MqttClient } from 'mqtt';
import type { Hello } from '../firmware-protocol/hello.ts';
import { fetchImage } from './simulated-download.ts';

/**
 * What becomes of an image that the board is given. `good`: it runs. `failing`: the board finds that it
 * cannot be installed, and says so. `looping`: it crashes behind its greeting, `loops` times, and the old
 * one is back. `silent`: nothing is heard of the board again.
 */
export type ImageFate = 'good' | 'failing' | 'looping' | 'silent';

/** How a simulated board behaves. */
export interface FirmwareBehaviour {
  readonly image: ImageFate;
  /** Boots of a looping image. */
  readonly loops: number;
  /** Breaks its first connection to a download off behind so many bytes; null: does not. */
  readonly breakOffBytes: number | null;
  /** How long it takes to boot. */
  readonly rebootMs: number;
  /** How long the execution of a command takes. */
  readonly commandMs: number;
}

/** A board. */
export interface SimulatedFirmwareOptions {
  /** Its key; `sys.rekey` changes it. */
  readonly access: { readonly key: string };
  readonly mqttUrl: string;
  readonly version?: string;
  readonly model?: string;
  readonly behaviour?: Partial<FirmwareBehaviour>;
  /** More for the connection, such as `ca`. */
  readonly connection?: IClientOptions;
}

/** A command that the board executed. */
export interface ExecutedCommand {
  readonly id: number;
  readonly cmd: string;
  readonly args: Readonly<Record<string, unknown>>;
}

/** What survives a boot. */
interface Flash {
  version: string;
  ota: Hello['ota'] & string;
  boot: number;
  last: number;
  /** Answer to the last command; null: it was taken, and what became of it is not known. */
  answer: object | null;
  key: string;
  configurationVersion: number;
}

interface SlotCommand extends ExecutedCommand {
  readonly exp: number;
}

const BEHAVIOUR: FirmwareBehaviour = {
  image: 'good',
  loops: 5,
  breakOffBytes: null,
  rebootMs: 50,
  commandMs: 0,
};
const RECONNECT_MS = 200;
const PROGRESS_STEP = 25;
const PREFIX = 'v1/me/';

/**
 * A board with the firmware that SPEC.md asks for, on a real MQTT connection: it greets, obeys commands by
 * the device's rule (saves the id before it executes), applies configurations, changes its key, and fetches,
 * boots and greets with new images. What it lacks of a real one is flash that wears and a radio.
 */
export class SimulatedFirmware {
  /** Commands in the order in which they were executed. */
  readonly executed: ExecutedCommand[] = [];
  /** Requests of the last download. */
  requests = 0;
  /** State of its relay. */
  relay = false;
  /** The document that is applied. */
  configuration: Readonly<Record<string, unknown>> = {};
  readonly #options: SimulatedFirmwareOptions;
  readonly #behaviour: FirmwareBehaviour;
  readonly #flash: Flash;
  readonly #stopping = new AbortController();
  #client: MqttClient | null = null;
  #bootedAt = performance.now();
  #work: Promise<void> = Promise.resolve();

  constructor(options: SimulatedFirmwareOptions) {
    this.#options = options;
    this.#behaviour = { ...BEHAVIOUR, ...options.behaviour };
    this.#flash = {
      version: options.version ?? '1.0.0',
      ota: 'valid',
      boot: 1,
      last: 0,
      answer: null,
      key: options.access.key,
      configurationVersion: 0,
    };
  }

  /** Version that runs. */
  get version(): string {
    return this.#flash.version;
  }

  /** Counter of boots. */
  get boot(): number {
    return this.#flash.boot;
  }

  /** Key that it connects with. */
  get key(): string {
    return this.#flash.key;
  }

  get isConnected(): boolean {
    return this.#client?.connected === true;
  }

  /** Connects, and goes on trying until {@link stop}. */
  start(): void {
    if (this.#stopping.signal.aborted) return;
    const client = connect(this.#options.mqttUrl, {
      username: 'device',
      password: this.#flash.key,
      protocolVersion: 4,
      reconnectPeriod: 0,
      ...this.#options.connection,
    });
    this.#client = client;
    client.on('error', () => undefined);
    client.on('connect', () => {
      client.subscribe(`${PREFIX}in/+`, { qos: 1 });
      this.#hello();
    });
    client.on('message', (topic, payload) => {
      this.#receive(topic.slice(`${PREFIX}in/`.length), payload);
    });
    client.on('close', () => {
      if (client !== this.#client) return;
      this.#client = null;
      void this.#pause(RECONNECT_MS).then(() => this.#startWhenOff());
    });
  }

  /** Ends the connection with DISCONNECT. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const client = this.#client;
    this.#client = null;
    await client?.endAsync(client.connected !== true);
    await this.#work;
  }

  /** Publishes a sample. */
  publish(values: Readonly<Record<string, unknown>>): void {
    this.#send('data', values);
  }

  #startWhenOff(): void {
    if (this.#client === null) this.start();
  }

  #hello(): void {
    const { version: fw, ota, boot, last, configurationVersion: cfg } = this.#flash;
    const up = Math.round(performance.now() - this.#bootedAt);
    const mdl = this.#options.model ?? 'thermo-1';
    this.#send('hello', { fw, mdl, hw: 'esp32', mps: 1024, boot, last, cfg, ota, up });
  }

  #send(channel: string, payload: object): void {
    this.#client?.publish(PREFIX + channel, JSON.stringify(payload), { qos: 1 });
  }

  #receive(channel: string, payload: Buffer): void {
    if (payload.length === 0) return;
    const message = JSON.parse(payload.toString()) as Record<string, unknown>;
    if (channel === 'hello') this.#greeted();
    if (channel === 'cfg') this.#configure(message);
    if (channel === 'key') this.#rekey(message);
    if (channel === 'cmd') {
      const command = message as unknown as SlotCommand;
      this.#work = this.#work.then(() => this.#obey(command)).catch(() => undefined);
    }
  }

  /** The platform has heard the new image: it is one to keep. */
  #greeted(): void {
    if (this.#flash.ota !== 'pending') return;
    if (this.#behaviour.image === 'looping') return;
    this.#flash.ota = 'valid';
    this.#hello();
  }

  #configure({ v, cfg }: Record<string, unknown>): void {
    if (typeof v !== 'number' || v < this.#flash.configurationVersion) return;
    this.#flash.configurationVersion = v;
    this.configuration = cfg as Record<string, unknown>;
    this.#send('cfg', { v, ok: true });
  }

  #rekey({ st, key }: Record<string, unknown>): void {
    if (st !== 'ok' || typeof key !== 'string') return;
    this.#flash.key = key;
    this.#client?.end();
  }

  /** The rule of devices: saves the id, executes, saves the answer, answers. */
  async #obey({ id, cmd, args, exp }: SlotCommand): Promise<void> {
    const flash = this.#flash;
    if (id < flash.last || (id === flash.last && flash.answer === null)) {
      this.#send('ack', { id, st: 'dup', last: flash.last });
      return;
    }
    if (id > flash.last) {
      flash.last = id;
      flash.answer = null;
      flash.answer =
        exp * 1000 <= Date.now()
          ? { st: 'no', code: 'expired' }
          : await this.#execute({ id, cmd, args });
    }
    if (flash.answer !== null) this.#send('ack', { id, ...flash.answer });
    if (cmd === 'sys.reboot' && flash.answer !== null) void this.#reboot();
  }

  /** @returns the answer; null: what comes next is the answer. */
  async #execute(command: ExecutedCommand): Promise<object | null> {
    const { cmd, args } = command;
    this.executed.push(command);
    if (this.#behaviour.commandMs > 0) await this.#pause(this.#behaviour.commandMs);
    switch (cmd) {
      case 'relay':
        this.relay = args['on'] === true;
        return { st: 'ok', r: { on: this.relay } };
      case 'sys.hello':
        this.#hello();
        return { st: 'ok' };
      case 'sys.log':
      case 'sys.cancel':
      case 'sys.reboot':
        return { st: 'ok' };
      case 'sys.rekey':
        this.#send('key', {});
        return { st: 'ok' };
      case 'sys.ota':
        return this.#update(command);
      default:
        return { st: 'no', code: 'unknown' };
    }
  }

  async #update({ id, args }: ExecutedCommand): Promise<object | null> {
    const { breakOffBytes, image } = this.#behaviour;
    let told = 0;
    const run = (pct: number): void => this.#send('ack', { id, st: 'run', pct });
    run(0);
    try {
      const { requests } = await fetchImage({
        url: String(args['url']),
        breakOffBytes,
        signal: this.#stopping.signal,
        onProgress(percent) {
          // 100 is for when it is checked and written.
          if (percent < told + PROGRESS_STEP || percent >= 100) return;
          told = percent;
          run(percent);
        },
        onExpired: async () => run(told),
      });
      this.requests = requests;
    } catch (error) {
      return { st: 'err', code: error instanceof Error ? error.message.slice(0, 32) : 'download' };
    }
    if (image === 'failing') return { st: 'err', code: 'verify', msg: 'the image does not start' };
    run(100);
    void this.#bootInto(String(args['ver']));
    return null;
  }

  async #bootInto(version: string): Promise<void> {
    const { image, loops } = this.#behaviour;
    const { version: old } = this.#flash;
    Object.assign(this.#flash, { version, ota: 'pending' });
    if (image === 'silent') {
      await this.#pause(this.#behaviour.rebootMs);
      this.#leave();
      this.#stopping.abort();
      return;
    }
    for (let boots = 0; image === 'looping' && boots < loops; boots += 1) await this.#reboot();
    if (image === 'looping') Object.assign(this.#flash, { version: old, ota: 'valid' });
    await this.#reboot();
  }

  async #reboot(): Promise<void> {
    // What was just said is to go out.
    await this.#pause(this.#behaviour.rebootMs);
    this.#leave();
    await this.#pause(this.#behaviour.rebootMs);
    this.#flash.boot += 1;
    this.#bootedAt = performance.now();
    this.#startWhenOff();
  }

  /** As a board does that boots: without DISCONNECT. */
  #leave(): void {
    const client = this.#client;
    this.#client = null;
    client?.end(true);
  }

  async #pause(ms: number): Promise<void> {
    const { signal } = this.#stopping;
    await delay(ms, undefined, { signal }).catch(() => undefined);
  }
}
