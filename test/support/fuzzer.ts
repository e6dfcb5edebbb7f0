import { connect as connectTcp } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import WebSocket from 'ws';
import { makeFuzzSession, type FuzzAccounts, type FuzzSession } from './fuzz-sessions.ts';

/** Where sessions go. */
export interface FuzzTarget {
  readonly mqttUrl: string;
  readonly wsUrl: string;
}

/** How a run goes. */
export interface FuzzPlan {
  readonly seed: number;
  readonly durationMs: number;
  /** Connections at once. */
  readonly atOnce: number;
  /** Ends the run early. */
  readonly isOver: () => boolean;
  /** Called after each session. */
  readonly advance: (sessions: number) => void;
}

const CONNECT_MS_MAX = 5000;

/** Runs mutated sessions against a broker, many at once. What it sends is told by the seed alone. */
export class Fuzzer {
  readonly #target: FuzzTarget;
  readonly #accounts: FuzzAccounts;
  readonly #plan: FuzzPlan;
  #sessions = 0;
  #closedByBroker = 0;
  readonly #open = new Set<FuzzSession>();
  readonly #last: FuzzSession[] = [];

  constructor(target: FuzzTarget, accounts: FuzzAccounts, plan: FuzzPlan) {
    this.#target = target;
    this.#accounts = accounts;
    this.#plan = plan;
  }

  /** Sessions so far, and how many of them the broker ended. */
  get counts(): { readonly sessions: number; readonly closedByBroker: number } {
    return { sessions: this.#sessions, closedByBroker: this.#closedByBroker };
  }

  /** Resolves when the time is over and every connection has ended. */
  async run(): Promise<void> {
    const endMs = performance.now() + this.#plan.durationMs;
    const worker = async (): Promise<void> => {
      while (performance.now() < endMs && !this.#plan.isOver()) {
        const { seed, advance } = this.#plan;
        this.#sessions += 1;
        await this.#session(makeFuzzSession(seed, this.#sessions, this.#accounts));
        advance(this.#sessions);
      }
    };
    await Promise.all(Array.from({ length: this.#plan.atOnce }, worker));
  }

  /** The sessions that were open, and the last that ended, with all their bytes: to find what did it. */
  describeLast(): string {
    const lines = [...this.#last, ...this.#open].map(({ number, transport, writes, leave }) => {
      const bytes = writes.map(({ bytes: written }) => written.toString('hex')).join(' ');
      return `session ${number} ${transport} ${leave}: ${bytes.slice(0, 4000)}`;
    });
    return [`seed ${this.#plan.seed}`, ...lines].join('\n');
  }

  async #session(session: FuzzSession): Promise<void> {
    this.#open.add(session);
    try {
      const isEnded =
        session.transport === 'tcp'
          ? await runTcp(this.#target.mqttUrl, session)
          : await runWebSocket(this.#target.wsUrl, session);
      if (isEnded) this.#closedByBroker += 1;
    } finally {
      this.#open.delete(session);
      this.#last.push(session);
      if (this.#last.length > 20) this.#last.shift();
    }
  }
}

/** @returns whether the broker ended the connection. */
async function runTcp(mqttUrl: string, session: FuzzSession): Promise<boolean> {
  const { hostname, port } = new URL(mqttUrl);
  const socket = connectTcp(Number(port), hostname);
  let isClosed = false;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true;
      resolve();
    });
  });
  socket.on('error', () => undefined);
  socket.setNoDelay(true);
  if (session.isReading) socket.resume();
  await Promise.race([new Promise((resolve) => socket.once('connect', resolve)), closed]);
  for (const { pauseMs, bytes } of session.writes) {
    if (pauseMs > 0) await delay(pauseMs);
    if (isClosed) break;
    socket.write(bytes);
  }
  if (session.leave === 'linger') await Promise.race([closed, delay(session.lingerMs)]);
  const isEnded = isClosed;
  if (session.leave === 'end' && !isClosed) {
    socket.end();
    socket.resume();
    await Promise.race([closed, delay(session.lingerMs)]);
  } else if (session.leave === 'reset' && !isClosed) socket.resetAndDestroy();
  socket.destroy();
  await closed;
  return isEnded;
}

/** @returns whether the broker ended the connection. */
async function runWebSocket(wsUrl: string, session: FuzzSession): Promise<boolean> {
  const socket = new WebSocket(wsUrl, 'mqtt', { handshakeTimeout: CONNECT_MS_MAX });
  let isClosed = false;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true;
      resolve();
    });
  });
  socket.on('error', () => undefined);
  await Promise.race([new Promise((resolve) => socket.once('open', resolve)), closed]);
  if (!session.isReading && !isClosed) socket.pause();
  for (const { pauseMs, bytes } of session.writes) {
    if (pauseMs > 0) await delay(pauseMs);
    if (socket.readyState !== WebSocket.OPEN) break;
    socket.send(bytes);
  }
  if (session.leave === 'linger') await Promise.race([closed, delay(session.lingerMs)]);
  const isEnded = isClosed;
  if (session.leave === 'end' && !isClosed) {
    socket.resume();
    socket.close();
    await Promise.race([closed, delay(session.lingerMs)]);
  }
  socket.resume();
  socket.terminate();
  await closed;
  return isEnded;
}
