import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { canCompile, CORE, ROOT, SANITIZED, STRICT } from './firmware.ts';
import { hasHeader, hasProgram, run } from './programs.ts';

/** An MQTT client in C below the core. */
export interface BoardClient {
  readonly name: string;
  /** Source of test/firmware, without its ending. */
  readonly source: string;
  readonly library: string | null;
  /** Options of the board that make it this client. */
  readonly options: readonly string[];
  /** Highest QoS at which it publishes. */
  readonly qos: 0 | 1;
  /** Largest packet that it receives, in bytes. */
  readonly packetBytes: number;
}

const small = { source: 'device_small', library: null, qos: 0 } as const;

/** All clients that can be compiled here; says loudly which cannot. */
export function boardClients(): BoardClient[] {
  const clients: BoardClient[] = [];
  if (!hasProgram('gcc', 'boards in C')) return clients;
  if (hasHeader('mosquitto.h', 'libmosquitto-dev')) {
    const options = ['--packet', '1024'];
    const of = { source: 'device_mosquitto', library: 'mosquitto', options, packetBytes: 1024 };
    clients.push({ name: 'libmosquitto', qos: 1, ...of });
  }
  if (hasHeader('MQTTClient.h', 'libpaho-mqtt-dev')) {
    const options = ['--packet', '1024'];
    const of = { source: 'device_paho', library: 'paho-mqtt3c', options, packetBytes: 1024 };
    clients.push({ name: 'paho-c', qos: 1, ...of });
  }
  if (hasHeader('stdlib.h', 'libc6-dev')) {
    for (const packetBytes of [256, 128]) {
      const name = `a client of ${packetBytes} bytes`;
      const options = ['--packet', String(packetBytes)];
      clients.push({ ...small, name, options, packetBytes });
      const closing = [...options, '--close-on-overflow'];
      const closes = `${name} that closes when more comes`;
      clients.push({ ...small, name: closes, options: closing, packetBytes });
    }
  }
  return clients;
}

/** Compiles boards over these clients, each once. @returns gives the program of a client. */
export async function compileBoards(
  folder: string,
  clients: readonly BoardClient[],
): Promise<(client: BoardClient) => string> {
  const isSanitized = canCompile('gcc', SANITIZED, 'boards in C under sanitizers');
  const options = [...STRICT, ...(isSanitized ? SANITIZED : [])];
  const programOf = ({ source }: BoardClient): string => join(folder, source);
  const libraries = new Map(clients.map(({ source, library }) => [source, library]));
  for (const [source, library] of libraries) {
    const sources = ['device_board', source].map((name) => join(ROOT, `test/firmware/${name}.c`));
    const linked = library === null ? [] : [`-l${library}`];
    await run(
      'gcc',
      [...options, '-o', join(folder, source), ...sources, ...CORE, ...linked],
      60_000,
    );
  }
  return programOf;
}

/** A line that a board prints. */
export interface Happening {
  readonly ev: string;
  // oxlint-disable-next-line no-explicit-any -- tests look into them as they come
  readonly [member: string]: any;
}

/** Where a board connects to, and what it is. */
export interface BoardStart {
  readonly program: string;
  readonly mqttUrl: string;
  readonly key: string;
  /** File of what survives a reset. */
  readonly state: string;
  readonly options: readonly string[];
}

/** A board with the C core: one life of it, from power on to power off. */
export class Board {
  /** What has happened, in order. */
  readonly happenings: Happening[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  #rest = '';
  #wake: () => void = () => undefined;
  #isClosed = false;

  constructor({ program, mqttUrl, key, state, options }: BoardStart) {
    const { hostname, port } = new URL(mqttUrl);
    const args = [hostname, port, key, state, ...options];
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin?.on('error', () => undefined);
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => this.#read(text));
    this.#closed = once(this.#child, 'close').then(() => {
      this.#isClosed = true;
      this.#wake();
    });
  }

  /** Gives it a line of its script. */
  tell(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Takes its power away. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }

  /** Resolves when it has ended by itself. @returns its exit status. */
  async ended(): Promise<number | null> {
    await this.#closed;
    return this.#child.exitCode;
  }

  /** Happenings of one kind. */
  all(ev: string): Happening[] {
    return this.happenings.filter((happening) => happening.ev === ev);
  }

  /** The first happening that is wanted, now or later. Fails after the deadline, with what happened. */
  async until(
    wanted: string,
    is: (happening: Happening) => boolean = ({ ev }) => ev === wanted,
    deadlineMs = 10_000,
  ): Promise<Happening> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const found = this.happenings.find((happening) => is(happening));
      if (found !== undefined) return found;
      const leftMs = end - performance.now();
      if (leftMs <= 0 || this.#isClosed) {
        const lines = this.happenings.map((happening) => JSON.stringify(happening)).join('\n');
        throw new Error(`not seen: ${wanted}\n${lines}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.happenings.push(JSON.parse(line) as Happening);
    this.#wake();
  }
}
