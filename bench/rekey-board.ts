import { connect, type MqttClient } from 'mqtt';
import type { BoardAccess } from './fleet-keys.ts';
import { ReadingOutbox } from './reading-outbox.ts';
import type { RekeyCounts } from './rekey-counts.ts';

/**
 * What happens to a board, once, while its key is changed. `none`: nothing. `cut_asking`: it loses its
 * connection behind its request. `answer_lost`: it loses its connection as the answer comes. `forgets`: it
 * loses power then, and does not know any more that it was asked. `power_cut`: it loses power behind saving
 * its new key. `falls_back`: it loses power when all is done, and is back with its old key. `asleep`: it is
 * connected for a moment now and then. `deaf`: its firmware does not answer commands.
 */
export const BOARD_FATES = [
  'none',
  'cut_asking',
  'answer_lost',
  'forgets',
  'power_cut',
  'falls_back',
  'asleep',
  'deaf',
] as const;
/** One of {@link BOARD_FATES}. */
export type BoardFate = (typeof BOARD_FATES)[number];

/** How fast boards do what they do, in ms. */
export interface BoardPace {
  /** From one reading to the next. */
  readonly readingMs: number;
  /** Shortest time without power; the longest is three times that. */
  readonly darkMs: number;
  /** Of boards that sleep. */
  readonly sleepMs: number;
}

/** What survives a loss of power. */
interface Flash {
  /** The two slots. */
  inUse: string;
  other: string | null;
  /** The key in use was not accepted yet. */
  isUnproven: boolean;
  boot: number;
  last: number;
  /** `sys.rekey` under way. */
  rekeyId: number | null;
  /** Answer to the last command, until its PUBACK. */
  answer: string | null;
}

const PREFIX = 'v1/me/';
const RECONNECT_MS = 200;
const REFUSED_MS = 500;
const ASK_AGAIN_MS = 10_000;
const AWAKE_MS = 1500;
const REFUSED_CODES = new Set([4, 5]);

/**
 * A board that publishes numbered readings and changes its key as SPEC.md asks for: two slots, the old key
 * until the new one was accepted, the other slot when one is refused. What it has not been acknowledged it
 * keeps, over losses of power too.
 */
export class RekeyBoard {
  readonly device: string;
  readonly fate: BoardFate;
  readonly outbox = new ReadingOutbox();
  /** Keys that must open nothing any more when all is over. */
  readonly endedKeys: string[] = [];
  readonly #firstKey: string;
  readonly #mqttUrl: string;
  readonly #pace: BoardPace;
  readonly #counts: RekeyCounts;
  readonly #flash: Flash;
  #client: MqttClient | null = null;
  #isConnected = false;
  #isStopped = false;
  #mustSleep: boolean;
  #hasMetFate = false;
  #refusedInRow = 0;
  #publishTimer: NodeJS.Timeout | undefined;
  #connectTimer: NodeJS.Timeout | undefined;
  #askTimer: NodeJS.Timeout | undefined;

  constructor(
    access: BoardAccess,
    fate: BoardFate,
    {
      mqttUrl,
      pace,
      counts,
    }: { readonly mqttUrl: string; readonly pace: BoardPace; readonly counts: RekeyCounts },
  ) {
    this.device = access.device;
    this.fate = fate;
    this.#firstKey = access.key;
    this.#mqttUrl = mqttUrl;
    this.#pace = pace;
    this.#counts = counts;
    this.#mustSleep = fate === 'asleep';
    this.#flash = {
      inUse: access.key,
      other: null,
      isUnproven: false,
      boot: 1,
      last: 0,
      rekeyId: null,
      answer: null,
    };
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Whether it is connected with another key than its first one. */
  get isRekeyed(): boolean {
    return this.#isConnected && this.#flash.inUse !== this.#firstKey;
  }

  /** Whether it was refused with every key that it has, and was not let in since. */
  get isLockedOut(): boolean {
    return this.#refusedInRow >= (this.#flash.other === null ? 1 : 2);
  }

  /** Connects, and goes on trying until {@link stop}. */
  connect(): void {
    if (this.#isStopped) return;
    const client = connect(this.#mqttUrl, {
      username: 'device',
      password: this.#flash.inUse,
      clientId: this.device,
      protocolVersion: 4,
      keepalive: 60,
      connectTimeout: 15_000,
      reconnectPeriod: 0,
    });
    this.#client = client;
    let code: unknown;
    client.on('connect', () => this.#onConnect(client));
    client.on('message', (topic, payload) => {
      if (client === this.#client) this.#receive(topic.slice(`${PREFIX}in/`.length), payload);
    });
    client.on('error', (error) => {
      code = 'code' in error ? error.code : undefined;
    });
    client.on('close', () => this.#onClose(client, code));
  }

  /** Makes a reading every now and then, the first after `phaseMs`. */
  startPublishing(phaseMs: number): void {
    this.#publishTimer = setTimeout(() => {
      this.outbox.make();
      this.#sendReadings();
      this.startPublishing(this.#pace.readingMs);
    }, phaseMs);
  }

  /** Makes no new reading. */
  stopPublishing(): void {
    clearTimeout(this.#publishTimer);
  }

  /** Sleeps no more. */
  stayAwake(): void {
    this.#mustSleep = false;
  }

  /** Ends the connection with DISCONNECT. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.stopPublishing();
    clearTimeout(this.#connectTimer);
    clearTimeout(this.#askTimer);
    await this.#client?.endAsync(!this.#isConnected);
  }

  #onConnect(client: MqttClient): void {
    const flash = this.#flash;
    this.#isConnected = true;
    this.#refusedInRow = 0;
    this.#counts.connects += 1;
    if (this.endedKeys.includes(flash.inUse)) this.#counts.oldKeyAccepted += 1;
    if (flash.isUnproven) {
      flash.isUnproven = false;
      flash.answer = JSON.stringify({ id: flash.rekeyId, st: 'ok' });
      flash.rekeyId = null;
      this.endedKeys.push(this.#firstKey);
    }
    client.subscribe(`${PREFIX}in/+`, { qos: 1 });
    const { boot, last } = flash;
    const sleep = this.fate === 'asleep' ? { sleep: Math.ceil(this.#pace.sleepMs / 1000) } : {};
    this.#publish('hello', { fw: '1.0.0', mdl: 'rekey', mps: 1024, boot, last, ...sleep });
    this.#sendAnswer();
    this.outbox.reopen();
    this.#sendReadings();
    if (flash.rekeyId !== null) this.#ask();
    if (this.#mustSleep) this.#sleepAfterAWhile(client);
  }

  #sleepAfterAWhile(client: MqttClient): void {
    setTimeout(() => {
      if (client !== this.#client || !this.#mustSleep) return;
      // As fp_can_sleep() says: not while it has something to do.
      if (this.#flash.rekeyId !== null || this.#flash.answer !== null) {
        this.#sleepAfterAWhile(client);
      } else this.#leave(this.#pace.sleepMs, () => client.end());
    }, AWAKE_MS);
  }

  #onClose(client: MqttClient, code: unknown): void {
    if (client !== this.#client || this.#isStopped) return;
    const wasRefused = !this.#isConnected && REFUSED_CODES.has(Number(code));
    if (wasRefused) this.#refused();
    else if (!this.#isConnected) this.#counts.connectsFailed += 1;
    this.#leave(wasRefused ? REFUSED_MS : RECONNECT_MS, () => client.end(true));
  }

  /** The other slot is tried next. */
  #refused(): void {
    const flash = this.#flash;
    this.#counts.refused += 1;
    this.#refusedInRow += 1;
    if (this.isLockedOut) this.#counts.lockedOut.add(this.device);
    if (flash.other === null) return;
    [flash.inUse, flash.other] = [flash.other, flash.inUse];
    flash.isUnproven = false;
  }

  /** Gives the connection up and opens another one after a time, with some jitter. */
  #leave(afterMs: number, end: () => void): void {
    this.#client = null;
    this.#isConnected = false;
    clearTimeout(this.#askTimer);
    end();
    clearTimeout(this.#connectTimer);
    this.#connectTimer = setTimeout(() => this.connect(), afterMs * (1 + Math.random()));
  }

  /** The connection is gone without a word. */
  #cut(afterMs = RECONNECT_MS): void {
    const client = this.#client;
    this.#leave(afterMs, () => {
      client?.stream.destroy();
      client?.end(true);
    });
  }

  #losePower(): void {
    this.#flash.boot += 1;
    this.#counts.powerCuts += 1;
    this.#cut(this.#pace.darkMs * (1 + Math.random()));
  }

  /** @returns whether the fate is this one, and it has not come yet. */
  #meets(fate: BoardFate): boolean {
    if (this.fate !== fate || this.#hasMetFate) return false;
    this.#hasMetFate = true;
    return true;
  }

  #receive(channel: string, payload: Buffer): void {
    if (payload.length === 0 || this.fate === 'deaf') return;
    const message = JSON.parse(payload.toString()) as Record<string, unknown>;
    if (channel === 'cmd') this.#obey(Number(message['id']), String(message['cmd']));
    if (channel === 'key') this.#answered(message);
  }

  /** The rule of devices. */
  #obey(id: number, cmd: string): void {
    const flash = this.#flash;
    if (id > flash.last) {
      flash.last = id;
      if (cmd === 'sys.rekey') flash.rekeyId = id;
      else this.#publish('ack', { id, st: 'no', code: 'unknown' });
    } else if (flash.rekeyId !== id) {
      this.#publish('ack', { id, st: 'dup', last: flash.last });
    }
    if (flash.rekeyId === null) return;
    this.#publish('ack', { id: flash.rekeyId, st: 'run' });
    this.#ask();
  }

  #ask(): void {
    const client = this.#client;
    if (client === null || this.#flash.rekeyId === null || this.#flash.isUnproven) return;
    this.#counts.asked += 1;
    this.#askAgain(ASK_AGAIN_MS);
    client.publish(`${PREFIX}key`, '{}', { qos: 0 }, () => {
      if (client === this.#client && this.#meets('cut_asking')) this.#cut();
    });
  }

  #askAgain(afterMs: number): void {
    clearTimeout(this.#askTimer);
    this.#askTimer = setTimeout(() => this.#ask(), afterMs);
  }

  #answered({ st, key, retry }: Record<string, unknown>): void {
    const flash = this.#flash;
    if (flash.rekeyId === null || flash.isUnproven) return;
    if (st === 'wait') this.#askAgain(Number(retry) * 1000);
    if (st === 'no') {
      this.#counts.denied += 1;
      flash.rekeyId = null;
    }
    if (st !== 'ok' || typeof key !== 'string') return;
    if (this.#meets('answer_lost')) {
      this.endedKeys.push(key);
      this.#cut();
    } else if (this.#meets('forgets')) {
      this.endedKeys.push(key);
      flash.rekeyId = null;
      this.#losePower();
    } else this.#save(key);
  }

  #save(key: string): void {
    const flash = this.#flash;
    flash.other = flash.inUse;
    flash.inUse = key;
    flash.isUnproven = true;
    const client = this.#client;
    if (this.#meets('power_cut')) this.#losePower();
    else this.#leave(0, () => client?.end());
  }

  #sendAnswer(): void {
    const { answer } = this.#flash;
    const client = this.#client;
    if (answer === null || client === null) return;
    client.publish(`${PREFIX}ack`, answer, { qos: 1 }, (error) => {
      if (client !== this.#client || (error !== undefined && error !== null)) return;
      this.#flash.answer = null;
      if (this.#meets('falls_back')) this.#fallBack();
    });
  }

  #fallBack(): void {
    const flash = this.#flash;
    [flash.inUse, flash.other] = [flash.other ?? flash.inUse, flash.inUse];
    this.#losePower();
  }

  #publish(channel: string, payload: object): void {
    this.#client?.publish(PREFIX + channel, JSON.stringify(payload), { qos: 1 }, () => undefined);
  }

  #sendReadings(): void {
    const client = this.#client;
    if (client === null || !this.#isConnected) return;
    for (let reading = this.outbox.next(); reading !== null; reading = this.outbox.next()) {
      const sent = reading;
      const sentMs = performance.now();
      client.publish(`${PREFIX}data`, sent.payload, { qos: 1 }, (error) => {
        // Without PUBACK it waits for the next connection.
        if (client !== this.#client || (error !== undefined && error !== null)) return;
        this.outbox.acknowledge(sent);
        this.#counts.acknowledged(performance.now() - sentMs);
        this.#sendReadings();
      });
    }
  }
}
