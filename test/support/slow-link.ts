import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** What a link does to what passes. */
export interface LinkFaults {
  /** From one end to the other, each way. */
  readonly latencyMs: number;
  /** Of each way, shared by all connections; 0: as fast as it comes. */
  readonly bitsPerSecond: number;
  /** Share of the segments that are lost, 0 to 1; each time they are sent again. */
  readonly loss: number;
  /** How long a lost segment, and all behind it, wait until it is sent again. */
  readonly retransmitMs: number;
}

/** A bad radio link in front of a server, as TCP shows it: nothing is lost or disordered, only late. */
export interface SlowLink {
  /** Where clients connect to instead. */
  readonly url: string;
  /** Segments that had to be sent again. */
  readonly lostSegments: number;
  close(): Promise<void>;
}

const SEGMENT_BYTES = 1460;
/** What a connection may have under way in one direction; beyond it the sender is not read. */
const UNDER_WAY_BYTES_MAX = 65_536;

/** Opens a link to the server of `targetUrl`. The same losses come in every run. */
export async function openSlowLink(targetUrl: string, faults: LinkFaults): Promise<SlowLink> {
  const { hostname, port, protocol } = new URL(targetUrl);
  const sockets = new Set<Socket>();
  const isLost = lossSequence(faults.loss);
  const up = new Direction(faults, isLost);
  const down = new Direction(faults, isLost);
  const server: Server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => sockets.delete(socket));
    }
    up.carry(client, upstream);
    down.carry(upstream, client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `${protocol}//127.0.0.1:${(server.address() as AddressInfo).port}`,
    get lostSegments() {
      return up.lostSegments + down.lostSegments;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** One way of a link: its capacity is one for all connections, the order one for each. */
class Direction {
  lostSegments = 0;
  readonly #faults: LinkFaults;
  readonly #isLost: () => boolean;
  #freeAtMs = 0;

  constructor(faults: LinkFaults, isLost: () => boolean) {
    this.#faults = faults;
    this.#isLost = isLost;
  }

  carry(from: Socket, to: Socket): void {
    let lastAtMs = 0;
    let underWay = 0;
    const waiting: (() => void)[] = [];
    const schedule = (act: () => void, atMs: number): void => {
      lastAtMs = Math.max(lastAtMs, atMs);
      // Whichever timer is first, the oldest goes first.
      waiting.push(act);
      setTimeout(() => waiting.shift()?.(), lastAtMs - performance.now());
    };
    from.on('data', (bytes: Buffer) => {
      for (let at = 0; at < bytes.length; at += SEGMENT_BYTES) {
        const segment = bytes.subarray(at, at + SEGMENT_BYTES);
        underWay += segment.length;
        schedule(() => {
          underWay -= segment.length;
          if (!to.destroyed) to.write(segment);
          if (underWay < UNDER_WAY_BYTES_MAX) from.resume();
        }, this.#arrivalMs(segment.length));
      }
      if (underWay >= UNDER_WAY_BYTES_MAX) from.pause();
    });
    from.on('close', () => schedule(() => to.destroy(), performance.now()));
  }

  #arrivalMs(bytes: number): number {
    const { latencyMs, bitsPerSecond, retransmitMs } = this.#faults;
    let delayMs = latencyMs;
    while (this.#isLost()) {
      delayMs += retransmitMs;
      this.lostSegments += 1;
    }
    const sentMs = bitsPerSecond === 0 ? 0 : (bytes * 8000) / bitsPerSecond;
    this.#freeAtMs = Math.max(this.#freeAtMs, performance.now()) + sentMs;
    return this.#freeAtMs + delayMs;
  }
}

/** Random enough, and the same each time. */
function lossSequence(loss: number): () => boolean {
  let state = 1;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 0x1_0000_0000 < loss;
  };
}
