import type { CommandQueues } from '../../commands/command-queues.ts';
import { commandRequest, type AnsweringDevice } from '../../commands/command.ts';
import type { Database } from '../../drizzle/database.ts';
import type { Ack } from '../../firmware-protocol/ack.ts';
import type { SlotCommand } from '../../firmware-protocol/command.ts';
import { commandLimits, createTestCommands, storeHello } from './command-queues.ts';
import { FakeWire } from './command-wire.ts';
import { eventually } from './eventually.ts';
import type { ModelProgram } from './slot-model.ts';

/** Some are over soon, and some outlast a restore. */
const TTLS_MS = [20_000, 600_000, 600_000];

/** The program over a real database and a broker in memory, that is killed by leaving it alone. */
export class SqlProgram implements ModelProgram {
  nowMs = Date.now();
  readonly #database: Database;
  readonly #device: AnsweringDevice;
  readonly #kept = new Map<string, Buffer>();
  readonly #ids: string[] = [];
  #wire: FakeWire;
  #commands: CommandQueues;
  #hasBackup = false;

  constructor(database: Database, device: AnsweringDevice) {
    this.#database = database;
    this.#device = device;
    this.#wire = new FakeWire(this.#kept);
    this.#commands = this.#open();
  }

  async enqueue(number: number, isLong: boolean): Promise<void> {
    const { organizationId, device } = this.#device;
    const { command } = await this.#commands.enqueue(
      { organizationId, actor: 'test' },
      commandRequest(device, isLong ? 'long' : 'short', {
        args: isLong ? { number, long: true } : { number },
        ttlMs: TTLS_MS[number % 3] ?? null,
      }),
    );
    this.#ids[number] = command.commandId;
    await settled();
  }

  async cancel(number: number): Promise<void> {
    const { organizationId } = this.#device;
    const commandId = this.#ids[number];
    if (commandId === undefined || (await this.#stateOf(commandId)) === 'running') return;
    await this.#commands
      .cancel({ organizationId, actor: 'test' }, commandId)
      .catch(() => undefined);
    await settled();
  }

  async acknowledge(ack: Ack): Promise<void> {
    await this.#commands.acknowledge(this.#device, ack);
    await settled();
  }

  async greeted(hello: { boot: number; last: number }): Promise<void> {
    await storeHello(this.#database, this.#device, hello);
    await this.#commands.greeted(this.#device, hello);
    await settled();
  }

  async endOverdue(): Promise<void> {
    await this.crash();
    await this.#none(
      `state IN ('queued', 'published', 'sent') AND expires_at <= to_timestamp(${this.nowMs / 1000})`,
    );
  }

  async endSilent(): Promise<void> {
    this.nowMs += commandLimits.runMsMax + 1000;
    await this.crash();
    await this.#none(`state = 'running'`);
  }

  slot(): SlotCommand | null {
    const { organization, device } = this.#device;
    return this.#wire.slot(organization, device) as SlotCommand | null;
  }

  hold(): void {
    this.#wire.mode = 'lose';
  }

  async crash(): Promise<void> {
    this.#wire.mode = 'lose';
    void this.#commands.stop();
    this.#wire = new FakeWire(this.#kept);
    this.#commands = this.#open();
    this.#commands.start();
    await eventually('the slot says what the table says', async () => {
      const { rows } = await this.#query<{ wire_id: number }>(
        `SELECT wire_id::float8 FROM command JOIN command_slot AS slot ON head_command_id = command_id
         WHERE slot.device_id = $1`,
      );
      return (rows[0]?.wire_id ?? null) === (this.slot()?.id ?? null);
    });
  }

  async backUp(): Promise<void> {
    this.#hasBackup = true;
    await this.#query('DROP TABLE IF EXISTS kept_command, kept_slot', false);
    await this.#query('CREATE TABLE kept_command AS SELECT * FROM command', false);
    await this.#query('CREATE TABLE kept_slot AS SELECT * FROM command_slot', false);
  }

  async restore(): Promise<void> {
    if (!this.#hasBackup) return;
    await this.#query('DELETE FROM command', false);
    await this.#query('DELETE FROM command_slot', false);
    await this.#query('INSERT INTO command SELECT * FROM kept_command', false);
    await this.#query('INSERT INTO command_slot SELECT * FROM kept_slot', false);
  }

  async states(): Promise<ReadonlyMap<number, string>> {
    const { rows } = await this.#query<{ number: number; state: string }>(
      `SELECT (args ->> 'number')::int4 AS number, state FROM command WHERE device_id = $1`,
    );
    return new Map(rows.map(({ number, state }) => [number, state]));
  }

  /** Ends the program. */
  async close(): Promise<void> {
    await this.#commands.stop();
  }

  #open(): CommandQueues {
    return createTestCommands(this.#database, this.#wire, {
      now: () => this.nowMs,
      limits: { backlogMax: 1000 },
    });
  }

  async #stateOf(commandId: string): Promise<string> {
    return (
      (await this.#commands.get(this.#device.organizationId, commandId).catch(() => null))?.state ??
      'gone'
    );
  }

  #query<Row extends object>(text: string, isOfDevice = true) {
    return this.#database.pool.query<Row>(text, isOfDevice ? [this.#device.deviceId] : []);
  }

  async #none(condition: string): Promise<void> {
    await eventually(`none ${condition}`, async () => {
      const { rows } = await this.#query<{ command_id: string }>(
        `SELECT command_id FROM command WHERE device_id = $1 AND ${condition} LIMIT 1`,
      );
      return rows.length === 0;
    });
  }
}

/** What was committed has been published by then, unless it is held. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
