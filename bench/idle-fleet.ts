import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { reasonOf } from '../errors.ts';
import { inParallel } from './fleet-keys.ts';
import { connectPacket } from './publish-ring.ts';

/** Where an idle fleet connects. */
export interface IdleTarget {
  readonly host: string;
  readonly port: number;
  /** Over TLS; the certificate of the program is not checked. */
  readonly isTls: boolean;
  /** As each client asks for it, in seconds. */
  readonly keepAliveS: number;
}

/** What an idle fleet has seen so far. */
export interface IdleCounts {
  /** Connections that are open, CONNACK seen. */
  open: number;
  /** Connections that ended without being told to, or were never let in. */
  lost: number;
  pingsSent: number;
  pingsAnswered: number;
  /** Longest time in ms from a PINGREQ to its PINGRESP. */
  slowestPingMs: number;
  /** Reasons of the first lost connections. */
  readonly examples: string[];
}

const CONNACK = 0x20;
const PINGRESP = 0xd0;
const PINGREQ = Buffer.from([0xc0, 0]);
const EXAMPLES_MAX = 5;
const CONNECTS_AT_ONCE = 100;
const CONNECT_TIMEOUT_MS = 30_000;
/** Connections from one source address: an address has some 28 000 ports for one destination. */
const PER_SOURCE = 10_000;
/** A client pings a little before its keep alive is over, and not in step with the others. */
const PING_SHARE = 55 / 60;
const TICKS_PER_S = 10;

interface IdleConnection {
  readonly socket: Socket;
  pingedAtMs: number;
}

/** Clients that connect, say nothing but PINGREQ, and count who is still there. */
export class IdleFleet {
  readonly counts: IdleCounts = {
    open: 0,
    lost: 0,
    pingsSent: 0,
    pingsAnswered: 0,
    slowestPingMs: 0,
    examples: [],
  };
  readonly #target: IdleTarget;
  readonly #connections: IdleConnection[] = [];
  #isEnding = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(target: IdleTarget) {
    this.#target = target;
  }

  /** Opens one connection for each key. @param advance called with the number that are open. */
  async open(keys: readonly string[], advance: (open: number) => void): Promise<void> {
    const numbered = keys.map((key, index) => ({ key, index }));
    await inParallel(numbered, CONNECTS_AT_ONCE, async ({ key, index }) => {
      await this.#connect(key, index);
      advance(this.counts.open);
    });
  }

  /** Begins to ping, each connection once in about nine tenths of its keep alive, evenly spread. */
  keepAlive(): void {
    const ticks = Math.round(this.#target.keepAliveS * PING_SHARE * TICKS_PER_S);
    let tick = 0;
    this.#timer = setInterval(() => {
      for (let at = tick; at < this.#connections.length; at += ticks) this.#ping(at);
      tick = (tick + 1) % ticks;
    }, 1000 / TICKS_PER_S);
  }

  /** Closes all, without DISCONNECT. */
  end(): void {
    this.#isEnding = true;
    clearInterval(this.#timer);
    for (const { socket } of this.#connections) socket.destroy();
  }

  #ping(at: number): void {
    const connection = this.#connections[at];
    if (connection === undefined || connection.socket.destroyed) return;
    connection.pingedAtMs = performance.now();
    connection.socket.write(PINGREQ);
    this.counts.pingsSent += 1;
  }

  #connect(key: string, index: number): Promise<void> {
    const { host, port, isTls, keepAliveS } = this.#target;
    const localAddress = sourceAddress(host, Math.floor(index / PER_SOURCE));
    const options = { host, port, ...(localAddress === null ? {} : { localAddress }) };
    const socket = isTls
      ? connectTls({ ...options, rejectUnauthorized: false })
      : connectTcp(options);
    const connection: IdleConnection = { socket, pingedAtMs: 0 };
    this.#connections.push(connection);
    return new Promise((resolve) => {
      let isOpen = false;
      let reason = 'closed by the broker';
      socket.setTimeout(CONNECT_TIMEOUT_MS, () => {
        reason = 'no CONNACK';
        socket.destroy();
      });
      socket.once(isTls ? 'secureConnect' : 'connect', () => {
        socket.setNoDelay(true);
        socket.write(connectPacket(`idle-${index}`, 'device', key, keepAliveS));
      });
      socket.on('data', (bytes) => {
        if (isOpen) return this.#answered(connection, bytes);
        if (bytes[0] !== CONNACK || bytes[3] !== 0) {
          reason = `CONNACK ${bytes[3]}`;
          socket.destroy();
          return;
        }
        isOpen = true;
        socket.setTimeout(0);
        this.counts.open += 1;
        resolve();
      });
      socket.on('error', (error) => {
        reason = reasonOf(error);
      });
      socket.once('close', () => {
        if (isOpen) this.counts.open -= 1;
        if (!this.#isEnding) this.#lost(reason);
        resolve();
      });
    });
  }

  #answered(connection: IdleConnection, bytes: Buffer): void {
    if (bytes[0] !== PINGRESP) return;
    this.counts.pingsAnswered += 1;
    const ms = performance.now() - connection.pingedAtMs;
    this.counts.slowestPingMs = Math.max(this.counts.slowestPingMs, ms);
  }

  #lost(reason: string): void {
    this.counts.lost += 1;
    if (this.counts.examples.length < EXAMPLES_MAX) this.counts.examples.push(reason);
  }
}

/** 127.0.0.1, 127.0.0.2 and so on, where the destination is on this machine; else whatever the system takes. */
function sourceAddress(host: string, number: number): string | null {
  return host.startsWith('127.') ? `127.0.0.${1 + number}` : null;
}
