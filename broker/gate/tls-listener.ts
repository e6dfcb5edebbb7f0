import { constants, createHash, randomBytes, X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type Server, type TlsOptions, type TLSSocket } from 'node:tls';
import { reasonOf } from '../../errors.ts';
import { readClientCertificate } from './client-certificate.ts';
import {
  listenForSockets,
  type ListenAddress,
  type Listener,
  type ListenerParts,
  type Passed,
} from './listeners.ts';
import { readTlsFiles, watchFiles, type TlsFiles, type TlsMaterial } from './tls-files.ts';

/** Settings of the TLS listener. */
export interface TlsSettings {
  readonly files: TlsFiles;
  /** How often the files are looked at; 0: never again. */
  readonly reloadMs: number;
  /** Longest handshake. The connect deadline of the door ends it too. */
  readonly handshakeMs: number;
}

/**
 * Time after which session tickets are made with a new key, and no longer taken. A stolen key opens the
 * TLS 1.2 traffic of this time and no more; a board resumes only within it.
 */
const TICKET_KEY_MS = 12 * 3_600_000;

/**
 * Listens for MQTT over TLS 1.2 or newer.
 *
 * - Sessions are resumed by ticket (TLS 1.2 and 1.3), which costs a fraction of a handshake. The key of the
 *   tickets is random, this program's own and new every 12 h, and when CA or revocations change.
 * - Renegotiation is refused.
 * - With a CA of clients a client may show a certificate and need not. One that is not valid under the CA,
 *   not in its time, or revoked ends the connection.
 * - Changed files are taken for new connections; open ones stay. Files that do not fit are logged, counted
 *   and left alone until they change again.
 *
 * @throws {FileUnusableError} for what the files hold at the start. @throws {ListenFailedError}
 */
export async function listenTls(
  address: ListenAddress,
  settings: TlsSettings,
  parts: ListenerParts,
): Promise<Listener> {
  const gate = new TlsGate(settings, await readTlsFiles(settings.files), parts);
  const listener = await listenForSockets('MQTT over TLS', address, parts, (socket, passed) =>
    gate.take(socket, passed),
  );
  gate.start();
  return {
    port: listener.port,
    async close() {
      gate.stop();
      await listener.close();
    },
  };
}

/** The handshakes between the door and the broker. */
class TlsGate {
  readonly #settings: TlsSettings;
  readonly #parts: ListenerParts;
  readonly #server: Server;
  /** Connections in their handshake, by the two ends of their TCP connection. */
  readonly #passed = new Map<string, Passed>();
  #trustMark: string;
  #stops: (() => void)[] = [];

  constructor(settings: TlsSettings, material: TlsMaterial, parts: ListenerParts) {
    this.#settings = settings;
    this.#parts = parts;
    this.#trustMark = trustMarkOf(material);
    // Never listens: it is given sockets that have passed the door.
    this.#server = createServer({
      ...contextOptions(material),
      ticketKeys: randomBytes(48),
      requestCert: settings.files.clientCaFile !== '',
      // A key is as good as a certificate; what is shown is checked below.
      rejectUnauthorized: false,
      handshakeTimeout: settings.handshakeMs,
    });
    this.#tellCertificate(material);
    this.#server.on('secureConnection', (socket) => this.#admit(socket));
    this.#server.on('tlsClientError', (err) => {
      parts.metrics.handshake('failed');
      parts.log.debug({ err: reasonOf(err) }, 'tls handshake failed');
    });
  }

  /** Begins to look at the files and to change the key of the tickets. */
  start(): void {
    const { files, reloadMs } = this.#settings;
    const rotation = setInterval(() => this.#renewTicketKey(), TICKET_KEY_MS);
    rotation.unref();
    this.#stops.push(() => clearInterval(rotation));
    if (reloadMs === 0) return;
    const paths = Object.values(files).filter((path) => path !== '');
    this.#stops.push(watchFiles(paths, reloadMs, () => this.#reload()));
  }

  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }

  /** Begins the handshake. */
  take(socket: Socket, passed: Passed): void {
    const ends = endsOf(socket);
    this.#passed.set(ends, passed);
    socket.once('close', () => this.#passed.delete(ends));
    this.#server.emit('connection', socket);
  }

  #admit(socket: TLSSocket): void {
    const passed = this.#passed.get(endsOf(socket));
    if (passed === undefined) {
      socket.destroy();
      return;
    }
    const certificate = readClientCertificate(socket);
    if (certificate === 'refused') {
      this.#parts.metrics.handshake('certificate_refused');
      this.#parts.log.debug({ err: socket.authorizationError }, 'client certificate refused');
      socket.destroy();
      return;
    }
    this.#parts.metrics.handshake(socket.isSessionReused() ? 'resumed' : 'full');
    this.#parts.accept(socket, { ...passed, transport: 'tls', clientCertificate: certificate });
  }

  async #reload(): Promise<void> {
    const { metrics, log } = this.#parts;
    try {
      const material = await readTlsFiles(this.#settings.files);
      this.#server.setSecureContext({
        ...contextOptions(material),
        ticketKeys: this.#server.getTicketKeys(),
      } as TlsOptions);
      if (this.#trustMark !== trustMarkOf(material)) this.#renewTicketKey();
      this.#trustMark = trustMarkOf(material);
      this.#tellCertificate(material);
      metrics.tlsReloaded(true);
      log.info('tls files loaded again');
    } catch (err) {
      metrics.tlsReloaded(false);
      log.error({ err: reasonOf(err) }, 'tls files not loaded, the old ones stay');
    }
  }

  /** A resumed session is not verified again, so it must not outlive the CA that it was verified with. */
  #renewTicketKey(): void {
    this.#server.setTicketKeys(randomBytes(48));
  }

  #tellCertificate({ cert }: TlsMaterial): void {
    this.#parts.metrics.certificateEnds(Date.parse(new X509Certificate(cert).validTo));
  }
}

function contextOptions(material: TlsMaterial): TlsOptions {
  return {
    ...material,
    minVersion: 'TLSv1.2',
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
    sessionTimeout: TICKET_KEY_MS / 1000,
  };
}

/** Changes with what clients are verified against. */
function trustMarkOf({ ca, crl }: TlsMaterial): string {
  const hash = createHash('sha256');
  for (const part of [ca, crl]) hash.update((part as Buffer | undefined) ?? '').update('\0');
  return hash.digest('hex');
}

/** A TLS socket does not tell which socket it is on, but it has the same two ends. */
function endsOf({ remoteAddress, remotePort, localAddress }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress}`;
}
