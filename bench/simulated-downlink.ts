import { setTimeout as delay } from 'node:timers/promises';
import { fetchImage } from './simulated-download.ts';

/** How a simulated board takes what comes down to it. */
export interface BoardHabits {
  /** How long it works on a command. */
  readonly commandMs: number;
  /** How many of a hundred commands it cannot do. */
  readonly failPercent: number;
  /** Planned time between contacts; 0: it is always connected. */
  readonly sleepS: number;
}

/** A board that answers at once, always can, and never sleeps. */
export const WILLING_BOARD: BoardHabits = { commandMs: 0, failPercent: 0, sleepS: 0 };

/** What the downlink of a board needs of its connection. */
export interface BoardLink {
  /** Publishes at QoS 1 on `v1/me/{channel}`. */
  send(channel: string, payload: object): void;
  /** Ends the connection as a boot does, and comes back. */
  reboot(): void;
  /** Connects anew with another key. */
  changeKey(key: string): void;
}

interface SlotCommand {
  readonly id: number;
  readonly cmd: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly exp: number;
}

const MODEL = 'sim-1';
const PROGRESS_STEP = 25;

/**
 * What a simulated board makes of its topics `in/…`. It obeys commands by the rule of devices: it saves the id before it
 * executes, and repeats its answer or says `dup` when an id comes again. Configurations are applied and
 * reported, `sys.rekey` gets it another key, `sys.ota` another version, `sys.reboot` another boot. Any other
 * command is done by echoing its arguments. What it keeps is kept in memory: a new object is a board that
 * was flashed anew.
 */
export class SimulatedDownlink {
  readonly #link: BoardLink;
  readonly #habits: BoardHabits;
  readonly #closing = new AbortController();
  #version = '1.0.0';
  #image: 'valid' | 'pending' = 'valid';
  /** Unlike that of any run before, or the numbers of its samples would be taken for repetitions. */
  #boot = Math.floor(Date.now() / 1000);
  #bootedAt = performance.now();
  #last = 0;
  /** Answer to the last command; null: what became of it is not known yet. */
  #answer: object | null = null;
  #configuration = 0;
  #work: Promise<void> = Promise.resolve();
  #working = 0;
  #isGreeted = false;
  #commandsWait = false;
  #wantedConfiguration = 0;

  constructor(link: BoardLink, habits: BoardHabits) {
    this.#link = link;
    this.#habits = habits;
  }

  /** It was greeted on this connection, nothing waits for it, and it is busy with nothing. */
  get canSleep(): boolean {
    const isIdle = this.#working === 0 && !this.#commandsWait;
    return this.#isGreeted && isIdle && this.#configuration >= this.#wantedConfiguration;
  }

  /** Says hello on a connection that was just opened. */
  greet(): void {
    this.#isGreeted = false;
    this.#hello();
  }

  /** Ends what it is busy with. */
  close(): void {
    this.#closing.abort();
  }

  /** Takes a message of the topic `v1/me/in/{channel}`. */
  receive(channel: string, payload: Buffer): void {
    if (channel === 'cmd' && payload.length === 0) this.#commandsWait = false;
    if (payload.length === 0) return;
    const message = JSON.parse(payload.toString()) as Record<string, unknown>;
    if (channel === 'hello') this.#greeted(message);
    if (channel === 'cfg') this.#configure(message);
    if (channel === 'key') this.#rekey(message);
    if (channel === 'cmd') this.#enqueue(message as unknown as SlotCommand);
  }

  #hello(): void {
    this.#link.send('hello', {
      fw: this.#version,
      mdl: MODEL,
      hw: 'simulated',
      mps: 1024,
      boot: this.#boot,
      last: this.#last,
      cfg: this.#configuration,
      sleep: this.#habits.sleepS,
      ota: this.#image,
      up: Math.round(performance.now() - this.#bootedAt),
    });
  }

  #greeted({ cmd, cfg }: Record<string, unknown>): void {
    this.#isGreeted = true;
    this.#commandsWait = Number(cmd) > 0;
    this.#wantedConfiguration = Number(cfg ?? 0);
    if (this.#image === 'valid') return;
    // The platform has heard the new image: it is one to keep.
    this.#image = 'valid';
    this.#hello();
  }

  #configure({ v }: Record<string, unknown>): void {
    if (typeof v !== 'number' || v < this.#configuration) return;
    this.#configuration = v;
    this.#link.send('cfg', { v, ok: true });
  }

  #rekey({ st, key }: Record<string, unknown>): void {
    if (st === 'ok' && typeof key === 'string') this.#link.changeKey(key);
  }

  #enqueue(command: SlotCommand): void {
    this.#working += 1;
    this.#work = this.#work
      .then(() => this.#obey(command))
      .catch(() => undefined)
      .finally(() => {
        this.#working -= 1;
      });
  }

  async #obey(command: SlotCommand): Promise<void> {
    const { id } = command;
    if (id < this.#last || (id === this.#last && this.#answer === null)) {
      this.#link.send('ack', { id, st: 'dup', last: this.#last });
      return;
    }
    const isNew = id > this.#last;
    if (isNew) {
      this.#last = id;
      this.#answer = null;
      this.#answer = await this.#execute(command);
    }
    if (this.#answer === null) return;
    this.#link.send('ack', { id, ...this.#answer });
    if (isNew && command.cmd === 'sys.reboot') this.#reboot();
  }

  /** @returns the answer; null: the next boot is it. */
  async #execute(command: SlotCommand): Promise<object | null> {
    const { cmd, args, exp } = command;
    if (exp * 1000 <= Date.now()) return { st: 'no', code: 'expired' };
    if (cmd === 'sys.ota') return this.#update(command);
    if (cmd === 'sys.hello') this.#hello();
    if (cmd === 'sys.rekey') this.#link.send('key', {});
    if (cmd.startsWith('sys.')) return { st: 'ok' };
    const { signal } = this.#closing;
    if (this.#habits.commandMs > 0) await delay(this.#habits.commandMs, undefined, { signal });
    const fails = Math.random() * 100 < this.#habits.failPercent;
    return fails ? { st: 'err', code: 'stuck', msg: 'simulated' } : { st: 'ok', r: args };
  }

  async #update({ id, args }: SlotCommand): Promise<object | null> {
    let told = 0;
    const run = (pct: number): void => this.#link.send('ack', { id, st: 'run', pct });
    run(0);
    try {
      await fetchImage({
        url: String(args['url']),
        breakOffBytes: null,
        signal: this.#closing.signal,
        onProgress(percent) {
          if (percent < told + PROGRESS_STEP || percent >= 100) return;
          told = percent;
          run(percent);
        },
        onExpired: async () => run(told),
      });
    } catch {
      return { st: 'err', code: 'download' };
    }
    run(100);
    this.#version = String(args['ver']);
    this.#image = 'pending';
    this.#reboot();
    return null;
  }

  #reboot(): void {
    this.#boot += 1;
    this.#bootedAt = performance.now();
    this.#link.reboot();
  }
}
