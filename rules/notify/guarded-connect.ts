import { connect as connectSocket, type LookupFunction, type Socket } from 'node:net';
import { callbackify } from 'node:util';
import { buildConnector } from 'undici';
import { AddressRefusedError } from '../../rule-errors.ts';
import type { AddressGuard } from './address-guard.ts';
import { unlessAborted } from './resolve-host.ts';

/** Bounds and trust of connections. */
export interface ConnectOptions {
  readonly timeoutMs: number;
  /** Ends the lookup and the connection, whatever they are at. */
  readonly signal: AbortSignal;
  /** Authorities to trust in place of the system's, in PEM. */
  readonly ca?: string;
}

/**
 * A connector for an undici client that connects to addresses that the guard has checked and to no
 * others: the name is looked up once, and the certificate is still held against the name. Guards IP
 * literals too, which no `lookup` option ever sees.
 */
export function guardedConnector(
  guard: AddressGuard,
  options: ConnectOptions,
): buildConnector.connector {
  const open = callbackify((target: buildConnector.Options) => openGuarded(guard, options, target));
  return (target, callback) => {
    open(target, (err: Error | null, socket) => {
      if (err === null) callback(null, socket);
      else callback(err, null);
    });
  };
}

/**
 * Opens a TCP connection as {@link guardedConnector} does. Errors behind that are swallowed unless the
 * caller listens too: one that comes before it does must not end the process.
 * @throws {AddressRefusedError} when an address of the host is refused.
 * @throws the socket's error, `signal`'s reason, or that of the lookup.
 */
export async function connectGuarded(
  guard: AddressGuard,
  { host, port }: { readonly host: string; readonly port: number },
  signal: AbortSignal,
): Promise<Socket> {
  const addresses = await unlessAborted(guard.resolve(host), signal);
  const lookup = answerOf(addresses);
  // One address is connected to as it is; of several, Node.js takes the first that answers.
  const target = addresses.length === 1 ? (addresses[0] ?? host) : host;
  const socket = connectSocket({ host: target, port, lookup, autoSelectFamily: true });
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      socket.destroy(signal.reason as Error);
    };
    signal.addEventListener('abort', abort, { once: true });
    socket.on('error', reject);
    socket.once('close', () => signal.removeEventListener('abort', abort));
    socket.once('connect', () => {
      const fault = peerFault(guard, socket);
      if (fault === null) resolve(socket);
      else reject(fault);
    });
  });
}

async function openGuarded(
  guard: AddressGuard,
  { timeoutMs, signal, ca }: ConnectOptions,
  target: buildConnector.Options,
): Promise<Socket> {
  const connect = buildConnector({
    lookup: answerOf(await unlessAborted(guard.resolve(target.hostname), signal)),
    signal,
    autoSelectFamily: true,
    allowH2: false,
    maxCachedSessions: 0,
    timeout: timeoutMs,
    ...(ca === undefined ? {} : { ca }),
  } as buildConnector.BuildOptions);
  const socket = await new Promise<Socket>((resolve, reject) => {
    connect(target, (...[err, opened]) => {
      if (err === null) resolve(opened);
      else reject(err);
    });
  });
  const fault = peerFault(guard, socket);
  if (fault !== null) throw fault;
  return socket;
}

/** A lookup that answers with what was looked up and checked already. */
function answerOf(addresses: readonly string[]): LookupFunction {
  const all = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  return (_host, options, callback) => {
    const [first = { address: '', family: 4 }] = all;
    if (options.all === true) callback(null, all);
    else callback(null, first.address, first.family);
  };
}

/** The last look: who is really at the other end. Closes the connection when it is refused. */
function peerFault(guard: AddressGuard, socket: Socket): AddressRefusedError | null {
  const fault = guard.addressFault(socket.remoteAddress ?? '');
  if (fault === null) return null;
  socket.destroy();
  return new AddressRefusedError(fault, false);
}
