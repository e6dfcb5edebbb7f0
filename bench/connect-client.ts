import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, type SecureVersion } from 'node:tls';
import { ToolFailedError } from '../errors.ts';
import { connectPacket } from './publish-ring.ts';

/** Where clients connect, and how. */
export interface ConnectTarget {
  readonly host: string;
  readonly port: number;
  /** The only version that is offered, or null for plain TCP. The certificate is not checked. */
  readonly tls: SecureVersion | null;
  /** Whether the ticket of the last connection is shown. */
  readonly resumes: boolean;
}

const CONNACK = 0x20;
const TIMEOUT_MS = 30_000;
/** Source addresses, since one has some 28 000 ports, and a port rests after its connection. */
const SOURCES = process.platform === 'linux' ? 16 : 1;
/** Made once: it costs more than a connection. */
const secureContext = createSecureContext();

/** A device that connects again and again, on as little CPU as node:net and node:tls allow. */
export class ConnectClient {
  readonly #packet: Buffer;
  readonly #source: string;
  #session: Buffer | undefined;
  #socket: Socket | null = null;
  /** Connections whose TLS session was a resumed one. */
  resumed = 0;

  constructor(number: number, { device, key }: { device: string; key: string }) {
    this.#packet = connectPacket(device, 'device', key);
    this.#source = `127.0.0.${1 + (number % SOURCES)}`;
  }

  /**
   * Connects and stays.
   * @returns ms from the call to CONNACK
   * @throws {ToolFailedError} when the connection ends first, is refused, or takes more than half a minute.
   */
  async connect(target: ConnectTarget): Promise<number> {
    const startedAt = performance.now();
    const socket = this.#open(target);
    this.#socket = socket;
    socket.write(this.#packet);
    await new Promise<void>((resolve, reject) => {
      let reason = 'closed before CONNACK';
      socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error('no CONNACK in time')));
      socket.on('error', (error) => {
        reason = error.message;
      });
      socket.once('close', () => reject(new ToolFailedError(reason)));
      socket.once('data', (bytes: Buffer) => {
        if (bytes[0] === CONNACK && bytes[3] === 0) resolve();
        else socket.destroy(new Error(`CONNACK ${bytes[3]}`));
      });
    });
    socket.setTimeout(0);
    return performance.now() - startedAt;
  }

  /** Leaves without DISCONNECT, as a board that loses power. Resolves when the socket is closed. */
  async drop(): Promise<void> {
    const socket = this.#socket;
    if (socket === null || socket.destroyed) return;
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve());
      socket.destroy();
    });
  }

  #open({ host, port, tls, resumes }: ConnectTarget): Socket {
    const socket = connectTcp({ host, port, noDelay: true, localAddress: this.#source });
    if (tls === null) return socket;
    const secure = connectTls({
      socket,
      secureContext,
      rejectUnauthorized: false,
      minVersion: tls,
      maxVersion: tls,
      ...(resumes && this.#session !== undefined && { session: this.#session }),
    });
    secure.on('session', (session: Buffer) => {
      this.#session = session;
    });
    secure.once('secureConnect', () => {
      if (secure.isSessionReused()) this.resumed += 1;
    });
    return secure;
  }
}
