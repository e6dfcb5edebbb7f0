import { randomUUID } from 'node:crypto';
import type { RekeyRequest, RekeyWire } from '../../registry/keys/key-rotations.ts';

/** A wire that keeps what it is asked for, as commands would: the same idempotency key, the same command. */
export class FakeRekeyWire implements RekeyWire {
  readonly sent: RekeyRequest[] = [];
  readonly cancelled: string[] = [];
  /** Throw it when the next command is sent, before or after it is taken. */
  fault: { readonly error: Error; readonly when: 'before' | 'after' } | null = null;
  readonly #ids = new Map<string, string>();

  async sendRekey(_author: unknown, request: RekeyRequest): Promise<string> {
    const { fault } = this;
    this.fault = null;
    if (fault?.when === 'before') throw fault.error;
    const id = this.#ids.get(request.idempotencyKey) ?? randomUUID();
    if (!this.#ids.has(request.idempotencyKey)) this.sent.push(request);
    this.#ids.set(request.idempotencyKey, id);
    if (fault !== null) throw fault.error;
    return id;
  }

  async cancelRekey(_author: unknown, commandId: string): Promise<void> {
    this.cancelled.push(commandId);
  }
}
