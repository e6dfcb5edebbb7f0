import type { Buffer } from 'node:buffer';
import type { CommandWire } from '../../commands/commands.ts';

/** A message that was published. */
export interface WireMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly isRetained: boolean;
}

/** A broker in memory, that can refuse or never answer. */
export class FakeWire implements CommandWire {
  /** What is retained; outlives the broker when it is shared. */
  readonly kept: Map<string, Buffer>;
  readonly messages: WireMessage[] = [];
  /** `refuse`: rejects and keeps nothing. `lose`: keeps nothing and never answers. */
  mode: 'work' | 'refuse' | 'lose' = 'work';
  /** Called with each message that is taken. */
  onMessage: (message: WireMessage) => void = () => undefined;

  constructor(kept = new Map<string, Buffer>()) {
    this.kept = kept;
  }

  async publishRetained(topic: string, payload: Buffer): Promise<void> {
    await this.#take();
    if (payload.length === 0) this.kept.delete(topic);
    else this.kept.set(topic, payload);
    this.#tell({ topic, payload, isRetained: true });
  }

  async publish(topic: string, payload: Buffer): Promise<void> {
    await this.#take();
    this.#tell({ topic, payload, isRetained: false });
  }

  retained(topic: string): Buffer | null {
    return this.kept.get(topic) ?? null;
  }

  retainedTopics(filter: string): Iterable<string> {
    const levels = filter.split('/');
    return [...this.kept.keys()].filter((topic) =>
      topic.split('/').every((level, at) => levels[at] === '+' || levels[at] === level),
    );
  }

  isReading(): boolean {
    return false;
  }

  /** What the slot of a device says; null: nothing. */
  slot(
    organization: string,
    device: string,
  ): { id: number; cmd: string; args: object; n: number; exp: number } | null {
    const payload = this.retained(`v1/${organization}/${device}/in/cmd`);
    return payload === null ? null : (JSON.parse(payload.toString()) as never);
  }

  /** States that were told of a command, in order. */
  told(commandId: string): string[] {
    return this.messages
      .filter(({ topic }) => topic.endsWith(`/cmd/${commandId}`))
      .map(({ payload }) => (JSON.parse(payload.toString()) as { st: string }).st);
  }

  async #take(): Promise<void> {
    if (this.mode === 'refuse') throw new Error('the broker refuses');
    if (this.mode === 'lose') await new Promise(() => undefined);
    await Promise.resolve();
  }

  #tell(message: WireMessage): void {
    this.messages.push(message);
    this.onMessage(message);
  }
}
