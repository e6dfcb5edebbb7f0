import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, type TestApp } from './app.ts';
import { Board, boardClients, compileBoards, type BoardClient } from './board.ts';

const HOUR_S = 3600;
/** A board that sleeps is awake no longer. */
export const AWAKE_MS = 3000;

/** Boards of a test file: compiled, and on storage of their own. */
export interface BoardShelf {
  /** A new device of the organization `demo`, and the board that it is. */
  owner(app: TestApp, client: BoardClient): Promise<BoardOwner>;
  /** Takes the power of all that run. */
  powerOff(): Promise<void>;
  remove(): Promise<void>;
}

/** Compiles boards over these clients. */
export async function openBoardShelf(
  clients: readonly BoardClient[] = boardClients(),
): Promise<BoardShelf> {
  const folder = await mkdtemp(join(tmpdir(), 'puback-boards-'));
  const programOf = await compileBoards(folder, clients);
  const running: Board[] = [];
  let devices = 0;
  return {
    async owner(app, client) {
      const device = `board-${(devices += 1)}`;
      const key = await app.addDevice(device);
      const start = (mqttUrl: string, options: readonly string[]): Board => {
        const program = programOf(client);
        const board = new Board({ program, mqttUrl, key, state: join(folder, device), options });
        running.push(board);
        return board;
      };
      return new BoardOwner(app, client, device, start);
    },
    async powerOff() {
      await Promise.all(running.splice(0).map((board) => board.kill()));
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** A device, and the board that it is: one life after another on the same storage. */
export class BoardOwner {
  readonly device: string;
  readonly #app: TestApp;
  readonly #client: BoardClient;
  readonly #start: (mqttUrl: string, options: readonly string[]) => Board;

  constructor(
    app: TestApp,
    client: BoardClient,
    device: string,
    start: (mqttUrl: string, options: readonly string[]) => Board,
  ) {
    this.#app = app;
    this.#client = client;
    this.device = device;
    this.#start = start;
  }

  /** Power on. Options of the board go behind those of its client. */
  start(...options: string[]): Board {
    return this.#start(this.#app.addresses.mqttUrl, [...this.#client.options, ...options]);
  }

  /** Awake once in an hour, for what waits. Resolves when it sleeps again. */
  async wake(...options: string[]): Promise<Board> {
    return this.wakeAt(this.#app.addresses.mqttUrl, ...options);
  }

  /** The same over another way to the broker. */
  async wakeAt(mqttUrl: string, ...options: string[]): Promise<Board> {
    const sleep = ['--sleep', String(HOUR_S)];
    const board = this.#start(mqttUrl, [...this.#client.options, ...sleep, ...options]);
    const status = await board.ended();
    if (status !== 0) throw new Error(`the board ended with ${status}`);
    return board;
  }

  /** Sends a command and does not wait for it. @returns its id. */
  async command(command: string, args: object = {}, more: object = {}): Promise<string> {
    const path = `/api/v1/devices/${this.device}/commands`;
    const { status, body } = await this.#app.api('POST', path, { command, args, ...more });
    if (status !== 202) throw new Error(`${status} ${JSON.stringify(body)}`);
    return body.id;
  }

  /** Sends a command and waits for its end. */
  async commandAndWait(command: string, args: object = {}): Promise<Record<string, unknown>> {
    const path = `/api/v1/devices/${this.device}/commands?wait=5s`;
    return (await this.#app.api('POST', path, { command, args })).body;
  }

  /** Says what is desired of it. @returns the number of the new version. */
  async configure(document: object): Promise<number> {
    const path = `/api/v1/devices/${this.device}/configuration`;
    const answer = await fetch(this.#app.addresses.httpUrl + path, {
      method: 'PUT',
      headers: {
        authorization: `Bearer ${this.#app.adminKey}`,
        'content-type': 'application/json',
        'if-match': '*',
      },
      body: JSON.stringify(document),
    });
    const text = await answer.text();
    if (answer.status !== 200) throw new Error(`${answer.status} ${text}`);
    return (JSON.parse(text) as { version: number }).version;
  }

  /** What the API says below the path of the device. */
  // oxlint-disable-next-line no-explicit-any -- tests look into answers as they come
  async get(path: string): Promise<any> {
    return (await this.#app.api('GET', `/api/v1/devices/${this.device}${path}`)).body;
  }

  /** What is stored of a metric, oldest first. */
  async values(metric: string): Promise<unknown[]> {
    const { data } = await this.get(`/readings?metric=${metric}&order=asc&limit=100`);
    return data.map(({ value }: { value: unknown }) => value);
  }

  /** What is known of one of its commands. */
  // oxlint-disable-next-line no-explicit-any -- tests look into answers as they come
  async outcome(id: string): Promise<any> {
    return (await this.#app.api('GET', `/api/v1/commands/${id}`)).body;
  }

  /** Resolves when one of its commands has come into a state. */
  async untilState(id: string, state: string): Promise<void> {
    await eventually(`${id} is ${state}`, async () => (await this.outcome(id)).state === state);
  }
}

/** Numbers of the commands that boards have executed, in order. */
export function executed(...lives: Board[]): unknown[] {
  return lives.flatMap((board) => board.all('executed').map(({ args }) => args.n));
}

/** What a board said on a channel. */
// oxlint-disable-next-line no-explicit-any -- tests look into messages as they come
export function saidOn(board: Board, channel: string): any[] {
  const sent = board.all('out').filter(({ topic, taken }) => topic === channel && taken);
  return sent.map(({ body }) => body);
}
