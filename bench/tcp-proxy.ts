import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** One connection through a proxy. */
export interface ProxiedLink {
  readonly client: Socket;
  readonly server: Socket;
}

/**
 * Looks at a chunk before it passes.
 * @returns false to cut the connection instead: the chunk is lost then.
 */
export type Inspection = (link: ProxiedLink, bytes: Buffer, from: 'client' | 'server') => boolean;

/** Unsent bytes of one direction beyond which its sender is not read. */
const WAITING_BYTES_MAX = 262_144;

/**
 * A TCP proxy whose faults are turned on and off while connections are open: slow, cut, deaf. Without
 * faults bytes pass as they come.
 */
export class TcpProxy {
  /** Each way, for each chunk. */
  latencyMs = 0;
  /** Of each connection, each way; 0: as fast as it comes. */
  bytesPerS = 0;
  /** True: new connections are reset at once. */
  isRefusing = false;
  inspect: Inspection | null = null;
  readonly #target: { host: string; port: number };
  readonly #links = new Set<ProxiedLink>();
  readonly #server: Server;

  private constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#target = { host: hostname, port: Number(port) };
    this.#server = createServer((client) => this.#accept(client));
  }

  /** Listens on a free port of 127.0.0.1 for the server of `url`, whether that runs already or not. */
  static async open(url: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(url);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  /** `url` with the address of the proxy in place of its own. */
  through(url: string): string {
    const changed = new URL(url);
    changed.host = `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return changed.href;
  }

  get linkCount(): number {
    return this.#links.size;
  }

  /** Resets every connection, on both sides. @returns how many. */
  cutAll(): number {
    const links = [...this.#links];
    for (const link of links) this.#cut(link);
    return links.length;
  }

  async close(): Promise<void> {
    this.cutAll();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(client: Socket): void {
    client.on('error', ignore);
    if (this.isRefusing) {
      client.resetAndDestroy();
      return;
    }
    const server = connect(this.#target);
    const link = { client, server };
    this.#links.add(link);
    server.on('error', ignore);
    for (const socket of [client, server]) socket.setNoDelay(true);
    this.#carry(link, 'client');
    this.#carry(link, 'server');
  }

  #carry(link: ProxiedLink, from: 'client' | 'server'): void {
    const [source, sink] =
      from === 'client' ? [link.client, link.server] : [link.server, link.client];
    const waiting: Buffer[] = [];
    let waitingBytes = 0;
    let freeAtMs = 0;
    let lastAtMs = 0;
    const deliver = (): void => {
      const bytes = waiting.shift();
      if (bytes === undefined) return;
      waitingBytes -= bytes.length;
      if (!sink.destroyed) sink.write(bytes);
      if (waitingBytes < WAITING_BYTES_MAX && sink.writableLength < WAITING_BYTES_MAX) {
        source.resume();
      }
    };
    source.on('data', (bytes: Buffer) => {
      if (this.inspect?.(link, bytes, from) === false) {
        this.#cut(link);
        return;
      }
      waiting.push(bytes);
      waitingBytes += bytes.length;
      const nowMs = performance.now();
      const sentMs = this.bytesPerS === 0 ? 0 : (bytes.length * 1000) / this.bytesPerS;
      freeAtMs = Math.max(freeAtMs, nowMs) + sentMs;
      // In order, also right after the latency has become smaller.
      lastAtMs = Math.max(lastAtMs, freeAtMs + this.latencyMs);
      if (lastAtMs <= nowMs) deliver();
      else setTimeout(deliver, lastAtMs - nowMs);
      if (waitingBytes >= WAITING_BYTES_MAX || sink.writableLength >= WAITING_BYTES_MAX) {
        source.pause();
      }
    });
    sink.on('drain', () => source.resume());
    source.on('end', () => setTimeout(() => sink.end(), Math.max(0, lastAtMs - performance.now())));
    source.on('close', () => {
      this.#links.delete(link);
      setTimeout(() => sink.destroy(), Math.max(0, lastAtMs - performance.now()));
    });
  }

  #cut({ client, server }: ProxiedLink): void {
    client.resetAndDestroy();
    server.resetAndDestroy();
  }
}

function ignore(): void {
  // `close` follows, which ends the other side too.
}
