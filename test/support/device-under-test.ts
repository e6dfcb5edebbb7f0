import { connect, type MqttClient } from 'mqtt';
import type { PointId } from '../../bench/conformance/points.ts';
import type { Pace } from '../../bench/conformance/exam.ts';

/** Times of tests: twenty times faster than those of the contract, or more. */
export const QUICK_PACE: Pace = {
  answerMs: 1500,
  quietMs: 200,
  subscribeMs: 1000,
  dataMs: 1500,
  collectMs: 150,
  backoffMs: 100,
  refusedMs: 600,
  awakeMs: 1000,
};

/** What a simulated device is. */
export interface DeviceOptions {
  readonly url: string;
  readonly key: string;
  /** What it trusts when the URL is one of TLS, in PEM. */
  readonly ca?: string;
  /** The points that it does wrong; none: it is good. */
  readonly flaws?: readonly PointId[];
  /** Sleeps so long between contacts; 0: always on. */
  readonly sleepMs?: number;
  /** How it sends samples. */
  readonly qos?: 0 | 1;
  /** Whether it knows `sys.hello` and `sys.reboot`. */
  readonly knowsSystem?: boolean;
  /** Overwrites its key with a new one. */
  readonly losesOldKey?: boolean;
}

/** What survives a restart. */
interface Flash {
  boot: number;
  last: number;
  /** Answer to the last command; null: taken, and what became of it is not known. */
  status: object | null;
  version: number;
  report: object | null;
}

interface Command {
  readonly id: number;
  readonly cmd: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly exp: number;
}

const MPS = 512;
const BACKOFF_MS = 50;
/** Not drawn anew in each run, so that no run meets waits that only look regular. */
const RANDOM_PARTS = [0.5, 0.6, 0.35, 0.8, 0.25];
const FAST_WAITS = [3, 9, 5, 14, 4];

/** A device with the firmware that SPEC.md asks for, but for its flaws. Quicker than real ones. */
export class DeviceUnderTest {
  readonly #options: DeviceOptions;
  readonly #flaws: ReadonlySet<PointId>;
  readonly #flash: Flash = { boot: 1, last: 0, status: null, version: 0, report: null };
  readonly #unacknowledged = new Map<number, string>();
  #client: MqttClient | null = null;
  #timers = new Set<NodeJS.Timeout>();
  #attempts = 0;
  #clockAheadMs = Number.NaN;
  #waiting = 0;
  #isGreeted = false;
  #isDeaf = false;
  #takenHere = new Set<number>();
  #isStopped = false;
  #lastTs = 0;
  #key: string;
  #otherKey: string | null = null;

  constructor(options: DeviceOptions) {
    this.#options = options;
    this.#key = options.key;
    this.#flaws = new Set(options.flaws);
  }

  start(): void {
    this.#connect();
  }

  stop(): void {
    this.#isStopped = true;
    this.#clearTimers();
    this.#client?.end(true);
  }

  #connect(): void {
    if (this.#isStopped) return;
    const isOld = this.#flaws.has('connect');
    const client = connect(this.#options.url, {
      protocolVersion: isOld ? 3 : 4,
      protocolId: isOld ? 'MQIsdp' : 'MQTT',
      clientId: 'device',
      username: 'device',
      password: this.#key,
      clean: true,
      keepalive: 60,
      reconnectPeriod: 0,
      connectTimeout: 1000,
      queueQoSZero: false,
      ...(this.#options.ca === undefined ? {} : { ca: this.#options.ca }),
    });
    this.#client = client;
    let connack = 0;
    client.on('connect', () => this.#begin(client));
    client.on('error', (error) => {
      connack = 'code' in error && typeof error.code === 'number' ? error.code : 0;
    });
    client.on('message', (topic, payload) => {
      if (this.#client === client) this.#receive(topic, payload);
    });
    client.once('close', () => {
      client.end(true);
      if (this.#client === client) this.#lost(connack);
    });
  }

  #begin(client: MqttClient): void {
    this.#isGreeted = false;
    this.#takenHere.clear();
    if (!this.#flaws.has('subscribe')) client.subscribe('v1/me/in/+', { qos: 1 });
    if (!this.#flaws.has('hello')) this.#hello();
    if (this.#flaws.has('payloads')) this.#publish('data', '{"temp":');
    if (this.#flaws.has('resend')) this.#unacknowledged.clear();
    for (const [ts, payload] of this.#unacknowledged) this.#send(ts, payload);
    this.#sample();
    if (this.#options.sleepMs !== undefined) this.#every(20, () => this.#maySleep());
  }

  #lost(connack: number): void {
    this.#clearTimers();
    this.#client = null;
    if (this.#isStopped) return;
    if (connack > 3 && this.#otherKey !== null) {
      [this.#key, this.#otherKey] = [this.#otherKey, this.#key];
    }
    this.#after(this.#waitMs(connack), () => this.#connect());
  }

  #waitMs(connack: number): number {
    const attempt = this.#attempts;
    this.#attempts += 1;
    if (connack === 4 || connack === 5) return this.#flaws.has('refused') ? 50 : 2000;
    if (this.#flaws.has('backoff')) return FAST_WAITS[attempt % FAST_WAITS.length] ?? 1;
    if (this.#flaws.has('jitter')) return 600;
    const part = RANDOM_PARTS[attempt % RANDOM_PARTS.length] ?? 1;
    return part * BACKOFF_MS * 2 ** Math.min(attempt, 6);
  }

  #receive(topic: string, payload: Buffer): void {
    const channel = topic.slice('v1/me/in/'.length);
    const bytes = topic.length + payload.length + 7;
    if (bytes > MPS) {
      if (this.#flaws.has('oversize')) this.#isDeaf = true;
      return;
    }
    if (this.#flaws.has('mps') && bytes > 256) return;
    switch (channel) {
      case 'hello':
        this.#greeted(JSON.parse(payload.toString()) as Record<string, number>);
        break;
      case 'cmd':
        this.#slot(payload);
        break;
      case 'cfg':
        this.#configure(payload);
        break;
      case 'key':
        this.#takeKey(JSON.parse(payload.toString()) as { key: string });
        break;
      case 'err':
        if (this.#flaws.has('error')) this.#client?.end(true);
        break;
      default:
        if (this.#flaws.has('channel')) this.#client?.end(true);
    }
  }

  #greeted({ ts = 0, cmd = 0 }: Record<string, number>): void {
    this.#attempts = 0;
    this.#clockAheadMs = ts - Date.now();
    this.#waiting = cmd;
    this.#isGreeted = true;
  }

  #slot(payload: Buffer): void {
    if (payload.length === 0) {
      this.#waiting = 0;
      if (this.#flaws.has('empty')) this.#answer({ id: this.#flash.last, st: 'ok' });
      return;
    }
    if (this.#isDeaf) return;
    let command: Command;
    try {
      command = JSON.parse(payload.toString()) as Command;
    } catch {
      if (this.#flaws.has('garbage')) this.#client?.end(true);
      return;
    }
    this.#waiting = 1;
    this.#command(command);
  }

  #command(command: Command): void {
    const { id, exp } = command;
    const flash = this.#flash;
    if (id < flash.last) {
      this.#answer(
        this.#flaws.has('older') ? { id, st: 'ok' } : { id, st: 'dup', last: flash.last },
      );
      return;
    }
    if (id === flash.last && !this.#forgets(command)) {
      this.#answer(flash.status ?? { id, st: 'dup', last: flash.last });
      return;
    }
    flash.last = id;
    flash.status = null;
    this.#takenHere.add(id);
    const isLate = (Date.now() + this.#clockAheadMs) / 1000 >= exp;
    const hasExpired = isLate && !this.#flaws.has('expired');
    flash.status = hasExpired ? { id, st: 'no', code: 'expired' } : this.#execute(command);
    this.#answer(flash.status);
  }

  /** Whether it takes a command again that it has taken. */
  #forgets({ id, cmd }: Command): boolean {
    if (cmd === 'sys.reboot') return false;
    return this.#flaws.has(this.#takenHere.has(id) ? 'repeat' : 'redelivered');
  }

  #execute({ id, cmd }: Command): object {
    if (this.#options.knowsSystem !== false) {
      if (cmd === 'sys.hello') {
        if (!this.#flaws.has('command')) this.#hello();
        return { id, st: 'ok' };
      }
      if (cmd === 'sys.reboot') {
        this.#after(30, () => this.#restart());
        return { id, st: 'ok' };
      }
      if (cmd === 'sys.rekey') {
        this.#publish('key', {});
        return { id, st: 'run' };
      }
    }
    return this.#flaws.has('unknown') ? { id, st: 'err' } : { id, st: 'no', code: 'unknown' };
  }

  #takeKey({ key }: { key: string }): void {
    if (this.#flaws.has('rekey')) return;
    if (this.#options.losesOldKey !== true) this.#otherKey = this.#key;
    this.#key = key;
    this.#client?.end(true);
  }

  #restart(): void {
    this.#flash.boot += 1;
    if (this.#flaws.has('restart')) this.#flash.last = 0;
    this.#client?.end(true);
  }

  #configure(payload: Buffer): void {
    this.#isDeaf = false;
    if (payload.length === 0 || this.#flaws.has('configuration')) return;
    const { v } = JSON.parse(payload.toString()) as { v: number };
    if (v === this.#flash.version) {
      if (!this.#flaws.has('configuration-again')) this.#publish('cfg', this.#flash.report);
      return;
    }
    this.#flash.version = v;
    this.#flash.report = { v, ok: true };
    this.#publish('cfg', this.#flash.report);
  }

  #hello(): void {
    const { boot, last, version } = this.#flash;
    const sleep = Math.ceil((this.#options.sleepMs ?? 0) / 1000);
    this.#publish('hello', {
      fw: '1.0.0',
      mps: MPS,
      boot,
      last,
      cfg: version,
      sleep,
      up: 812,
      p: 1,
    });
  }

  #answer(answer: object): void {
    this.#publish('ack', answer);
  }

  #sample(): void {
    const take = (): void => {
      this.#lastTs = Math.max(Date.now(), this.#lastTs + 1);
      const payload = JSON.stringify({ ts: this.#lastTs, temp: 21.5 });
      if (this.#options.qos !== 0) this.#unacknowledged.set(this.#lastTs, payload);
      this.#send(this.#lastTs, payload);
    };
    take();
    this.#every(100, take);
  }

  #send(ts: number, payload: string): void {
    const qos = this.#options.qos ?? 1;
    this.#client?.publish('v1/me/data', payload, { qos }, (error) => {
      if (error === undefined || error === null) this.#unacknowledged.delete(ts);
    });
  }

  #maySleep(): void {
    if (!this.#isGreeted || this.#waiting > 0 || this.#flaws.has('sleep')) return;
    const client = this.#client;
    if (client === null) return;
    this.#clearTimers();
    this.#client = null;
    client.end(false, () => undefined);
    client.removeAllListeners('message');
    this.#after(this.#options.sleepMs ?? 0, () => this.#connect());
  }

  #publish(channel: string, payload: object | string | null): void {
    const text = typeof payload === 'string' ? payload : JSON.stringify(payload);
    this.#client?.publish(`v1/me/${channel}`, text, { qos: 1 });
  }

  #after(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }

  #every(ms: number, act: () => void): void {
    this.#timers.add(setInterval(act, ms));
  }

  #clearTimers(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}
