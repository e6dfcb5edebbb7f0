import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { ListenFailedError, reasonOf } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { plainAddress } from './address-group.ts';
import type { Door } from './door.ts';
import type { GateMetrics } from './gate-metrics.ts';
import type { Entry, Peer } from '../peer.ts';
import { takeProxyHeader } from './proxy-protocol.ts';
import type { TrustedProxies } from './trusted-proxies.ts';

/** Takes a connection of any transport; see `Broker.accept`. */
export type AcceptConnection = (connection: Duplex, peer: Peer) => void;

/** What every listener asks of the rest. */
export interface ListenerParts {
  readonly door: Door;
  readonly proxies: TrustedProxies;
  readonly metrics: GateMetrics;
  readonly accept: AcceptConnection;
  readonly log: Logger;
}

/** A listener that is up. */
export interface Listener {
  readonly port: number;
  /** Takes no more connections. Those that are open stay. */
  close(): Promise<void>;
}

/** Where to listen; `key` is the setting to name when it fails. */
export interface ListenAddress {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly key: string;
}

/** A connection that has passed the door. */
export interface Passed {
  readonly address: string;
  readonly entry: Entry;
}

/** A lack of file descriptors fails every accept(): it is logged once in this time. */
const ACCEPT_LOG_MS = 60_000;

/**
 * Listens for MQTT over TCP.
 * @throws {ListenFailedError}
 */
export function listenTcp(address: ListenAddress, parts: ListenerParts): Promise<Listener> {
  return listenForSockets('MQTT', address, parts, (socket, passed) => {
    parts.accept(socket, { ...passed, transport: 'tcp', clientCertificate: null });
  });
}

/**
 * Listens, and hands on what passes the door, behind the PROXY header of a connection from a configured
 * proxy. Without Nagle's delay: a PUBACK must not wait for the device's delayed ACK.
 * @throws {ListenFailedError}
 */
export function listenForSockets(
  name: string,
  address: ListenAddress,
  parts: ListenerParts,
  take: (socket: Socket, passed: Passed) => void,
): Promise<Listener> {
  const server = createServer({ noDelay: true, keepAlive: true }, (socket) => {
    // Its reader hears errors too; this is for the time before there is one.
    socket.on('error', () => socket.destroy());
    passDoor(socket, parts, take);
  });
  return listen(name, server, address, parts);
}

function passDoor(
  socket: Socket,
  { door, proxies }: ListenerParts,
  take: (socket: Socket, passed: Passed) => void,
): void {
  const peer = plainAddress(socket.remoteAddress);
  if (!proxies.has(peer)) {
    const entry = door.enter(socket, peer);
    if (entry !== null) take(socket, { address: peer, entry });
    return;
  }
  const entry = door.enter(socket, null);
  if (entry === null) return;
  takeProxyHeader(socket, (header) => {
    if (header === null) {
      door.turnAway(socket, 'proxy_header', peer);
      return;
    }
    const address = header.address ?? peer;
    if (entry.reveal(address)) take(socket, { address, entry });
  });
}

function listen(
  name: string,
  server: Server,
  { host, port, key }: ListenAddress,
  { log, metrics }: ListenerParts,
): Promise<Listener> {
  let loggedAtMs = -Infinity;
  const onAcceptError = (err: Error): void => {
    metrics.acceptFailed();
    if (performance.now() - loggedAtMs < ACCEPT_LOG_MS) return;
    loggedAtMs = performance.now();
    log.warn({ err: reasonOf(err), listener: name }, 'connections not accepted');
  };
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      reject(new ListenFailedError(name, `${host}:${port}`, key, cause));
    });
    server.listen({ host, port, backlog: 1024 }, () => {
      // From now on an error is one of accept(), for want of file descriptors: who is in stays in.
      server.on('error', onAcceptError);
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => closeServer(server),
      });
    });
  });
}

/** Resolves at once: `close` of a server would wait for the connections, which have an end of their own. */
async function closeServer(server: Server): Promise<void> {
  server.close();
}
