import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import {
  findDatabasePid,
  isAlive,
  startProgram,
  type Exit,
  type Program,
  type ProgramOptions,
} from './program.ts';

/**
 * Below the ports that the kernel gives to outgoing connections, so that none takes them while the
 * program is down, and not where the embedded database looks for one.
 */
const PORT_MIN = 10_000;
const PORT_MAX = 20_000;
/** Longer than any outage of a database. */
const START_MS_MAX = 240_000;
const START_AGAIN_MS = 500;

/**
 * Runs the program as an init system would: at the same ports each time, and started again when it ends
 * by itself.
 */
export class Supervisor {
  readonly #options: ProgramOptions;
  #program: Promise<Program>;
  #isExitExpected = false;
  #isStopping = false;
  #running: Program | null = null;
  #ownExits = 0;
  #failedStarts = 0;

  private constructor(options: ProgramOptions) {
    this.#options = options;
    this.#program = this.#start();
  }

  /** Starts the program for the first time and waits until it is ready. */
  static async start(options: ProgramOptions): Promise<Supervisor> {
    const [mqttPort, httpPort] = await findFreePorts();
    const environment = { ...options.environment, MQTT_PORT: mqttPort, HTTP_PORT: httpPort };
    const supervisor = new Supervisor({ ...options, environment });
    await supervisor.#program;
    return supervisor;
  }

  /** The program, once it is ready. Rejects when it could not be started again. */
  get program(): Promise<Program> {
    return this.#program;
  }

  /** How often the program ended without being told to. */
  get ownExits(): number {
    return this.#ownExits;
  }

  /** How often it did not get ready, because of a fault that was on, and was started again. */
  get failedStarts(): number {
    return this.#failedStarts;
  }

  /**
   * Ends the program with a signal and begins to start it again. Resolves when it has ended; {@link
   * program} when it is ready again.
   */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<Exit> {
    const program = await this.#program;
    this.#isExitExpected = true;
    program.kill(signal);
    const exit = await program.exited;
    this.#program = this.#restart();
    return exit;
  }

  /**
   * SIGKILL for the server of the embedded database.
   * @returns false when it is down at the moment
   */
  async killEmbeddedDatabase(): Promise<boolean> {
    const pid = await findDatabasePid(this.#options.dataDir);
    if (pid === null || !isAlive(pid)) return false;
    process.kill(pid, 'SIGKILL');
    return true;
  }

  /** Ends the program for good. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    const program = await this.#program.catch(() => null);
    this.#isExitExpected = true;
    await program?.stop();
  }

  /** SIGKILL for the program, at once: for the end of a process that waits for nothing. */
  abandon(): void {
    this.#isStopping = true;
    this.#running?.kill('SIGKILL');
  }

  async #start(): Promise<Program> {
    this.#isExitExpected = false;
    const program = await startProgram(this.#options);
    this.#running = program;
    void program.exited.then(() => this.#onExit());
    return program;
  }

  /** As often as it takes: its database may be down. */
  #restart(): Promise<Program> {
    const program = this.#startUntilReady();
    // Whoever asks for the program next gets the reason.
    program.catch(() => undefined);
    return program;
  }

  async #startUntilReady(): Promise<Program> {
    const deadline = performance.now() + START_MS_MAX;
    for (;;) {
      try {
        return await this.#start();
      } catch (error) {
        if (this.#isStopping || performance.now() > deadline) throw error;
        this.#failedStarts += 1;
        await delay(START_AGAIN_MS);
      }
    }
  }

  #onExit(): void {
    if (this.#isExitExpected) return;
    this.#ownExits += 1;
    this.#program = this.#restart();
  }
}

async function findFreePorts(): Promise<[string, string]> {
  const free: string[] = [];
  const first = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN - 100));
  for (let port = first; port < PORT_MAX && free.length < 2; port += 1) {
    if (await isFree(port)) free.push(String(port));
  }
  const [one, other] = free;
  if (one === undefined || other === undefined) throw new ToolFailedError('no two free ports');
  return [one, other];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
