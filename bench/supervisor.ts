import { createServer } from 'node:net';
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

/**
 * Runs the program as an init system would: at the same ports each time, and started again when it ends
 * by itself.
 */
export class Supervisor {
  readonly #options: ProgramOptions;
  #program: Promise<Program>;
  #isExitExpected = false;
  #ownExits = 0;

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

  /** Ends the program with a signal and starts it again. Resolves when it is ready. */
  async restart(signal: 'SIGKILL' | 'SIGTERM'): Promise<Exit> {
    const program = await this.#program;
    this.#isExitExpected = true;
    program.kill(signal);
    const exit = await program.exited;
    this.#program = this.#start();
    await this.#program;
    return exit;
  }

  /**
   * SIGKILL for the server of the embedded database.
   * @returns false when it is down at the moment
   */
  async killDatabase(): Promise<boolean> {
    const pid = await findDatabasePid(this.#options.dataDir);
    if (pid === null || !isAlive(pid)) return false;
    process.kill(pid, 'SIGKILL');
    return true;
  }

  /** Ends the program for good. */
  async stop(): Promise<Exit> {
    const program = await this.#program;
    this.#isExitExpected = true;
    return program.stop();
  }

  async #start(): Promise<Program> {
    this.#isExitExpected = false;
    const program = await startProgram(this.#options);
    void program.exited.then(() => this.#onExit());
    return program;
  }

  #onExit(): void {
    if (this.#isExitExpected) return;
    this.#ownExits += 1;
    this.#program = this.#start();
    // Whoever asks for the program next gets the reason.
    this.#program.catch(() => undefined);
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
