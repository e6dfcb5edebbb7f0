import { setTimeout as delay } from 'node:timers/promises';
import { AppError, reasonOf, StoreUnavailableError } from '../errors.ts';
import type { Hello } from '../firmware-protocol/hello.ts';
import type { Logger } from '../log.ts';
import { UpdateNotCancellableError, UpdateNotFoundError } from '../ota-errors.ts';
import type { ByteRange } from './byte-range.ts';
import { makeLinkPath } from './download-link.ts';
import type { OtaMetrics } from './metrics.ts';
import type { GreetingDevice, OfferedCommand, OtaAuthor, UpdateCommands } from './ports.ts';
import { beginUpdate, type UpdateBeginDeps } from './update-begin.ts';
import { judgeCommand, judgeHello, type UpdateStep } from './update-judge.ts';
import type { UpdateStore } from './update-store.ts';
import { judgeOpen, type UpdateLimits } from './update-sweep.ts';
import type { DeviceUpdate, NewUpdate, Updates } from './update.ts';

/** What {@link UpdateDesk} needs. */
export interface UpdateDeskDeps extends UpdateBeginDeps {
  readonly store: UpdateStore;
  readonly commands: UpdateCommands;
  readonly signingKey: Buffer;
  /** Address under which devices reach HTTP. */
  readonly publicUrl: () => string;
  /** An update has ended: nothing more is sent for it. */
  readonly closeDownload: (updateId: string) => void;
  readonly limits: UpdateLimits;
  /** How often open updates are looked at. */
  readonly sweepMs: number;
  readonly metrics: Pick<OtaMetrics, 'updateEnded'>;
  readonly log: Logger;
}

const SWEEP_PAGE = 500;
const UNSETTLED_PAGE = 100;

/** The updates of all organizations: begins them, hears of them, and ends them. */
export class UpdateDesk implements Updates {
  readonly #deps: UpdateDeskDeps;
  /** Devices with an open update: all others' greetings cost nothing. */
  #open = new Set<number>();
  /** The last write of what a download has sent, by update, so that the next one comes behind it. */
  readonly #sent = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();
  #sweeping: Promise<void> = Promise.resolve();

  constructor(deps: UpdateDeskDeps) {
    this.#deps = deps;
  }

  /** Updates that have not ended, as far as is known here. */
  get openCount(): number {
    return this.#open.size;
  }

  /** Reads which devices are being updated, and looks at them from now on. @throws {StoreUnavailableError} */
  async start(): Promise<void> {
    this.#open = new Set(await this.#deps.store.openDevices());
    this.#sweeping = this.#sweepOn();
  }

  /** Resolves behind what is under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sweeping;
    await Promise.all(this.#sent.values());
  }

  async begin(
    author: OtaAuthor,
    wanted: NewUpdate,
  ): Promise<{ update: DeviceUpdate; isNew: boolean }> {
    const begun = await beginUpdate(this.#deps, author, wanted);
    const { update, isNew } = begun;
    if (update.endedAt === null) this.#open.add(update.deviceId);
    // One of a campaign that was cut off in the middle goes on; others are seen to by the sweep.
    const isToBeOffered = isNew || (update.commandId === null && wanted.campaignId !== null);
    if (!isToBeOffered || update.endedAt !== null) return begun;
    const commandId = await this.#offer(author, update, wanted);
    return { update: { ...update, commandId }, isNew };
  }

  list: Updates['list'] = (query) => this.#deps.store.list(query);

  async get(organizationId: number, updateId: string): Promise<DeviceUpdate> {
    const update = await this.#deps.store.find(organizationId, updateId);
    if (update === null) throw new UpdateNotFoundError(updateId);
    return update;
  }

  async cancel(author: OtaAuthor, updateId: string): Promise<DeviceUpdate> {
    const { store, commands, writeAudit } = this.#deps;
    const { organizationId, actor } = author;
    const { endedAt, state, device } = await this.get(organizationId, updateId);
    if (endedAt !== null) throw new UpdateNotCancellableError(state);
    const subject = `device/${device}/update/${updateId}`;
    const ended = await store.apply(
      { updateId, organizationId },
      (update) => {
        if (update.state === 'installing') throw new UpdateNotCancellableError(update.state);
        return { state: 'failed', code: 'cancelled', detail: `it was cancelled by ${actor}` };
      },
      ({ orm }) => writeAudit(orm, { organizationId, actor, action: 'update.cancel', subject }),
    );
    if (ended === null) return this.get(organizationId, updateId);
    if (ended.commandId !== null) await commands.cancel(author, ended.commandId);
    await this.#ended(ended);
    return ended;
  }

  noteCommand(command: OfferedCommand): void {
    const { ref, name, origin } = command;
    if (name !== 'sys.ota' || origin !== 'update' || ref === null) return;
    void this.#apply({ updateId: ref }, (update) => judgeCommand(update, command));
  }

  async greeted({ deviceId }: GreetingDevice, hello: Hello): Promise<void> {
    if (!this.#open.has(deviceId)) return;
    const { bootsMax } = this.#deps.limits;
    await this.#apply({ deviceId }, (update) => judgeHello(update, hello, bootsMax));
  }

  /** Ends an update that is open. Never rejects. */
  async end(updateId: string, code: string, detail: string): Promise<void> {
    await this.#apply({ updateId }, () => ({ state: 'failed', code, detail }));
  }

  /** Notes that bytes of an image were sent, in the order of the calls. Never throws. */
  noteSent(updateId: string, range: ByteRange): void {
    const { store, log } = this.#deps;
    const written = (this.#sent.get(updateId) ?? Promise.resolve())
      .then(() => store.noteSent(updateId, range))
      .catch((err: unknown) => log.warn({ err: reasonOf(err), updateId }, 'download not noted'))
      .then(() => {
        if (this.#sent.get(updateId) === written) this.#sent.delete(updateId);
      });
    this.#sent.set(updateId, written);
  }

  async #offer(author: OtaAuthor, update: DeviceUpdate, wanted: NewUpdate): Promise<string> {
    const { commands, store, signingKey, publicUrl } = this.#deps;
    const { updateId, version: ver } = update;
    try {
      const commandId = await commands.offer(author, {
        device: update.device,
        args: { ver, url: publicUrl().replace(/\/+$/, '') + makeLinkPath(signingKey, updateId) },
        ref: updateId,
        ttlMs: wanted.ttlMs,
        idempotencyKey: `update:${updateId}`,
        campaignId: update.campaignId,
      });
      // Somebody cancelled it in between.
      if (!(await store.link(update, commandId))) await commands.cancel(author, commandId);
      return commandId;
    } catch (error) {
      // Of a database that was away nobody knows what it has done: the sweep finds out.
      if (error instanceof AppError && !(error instanceof StoreUnavailableError)) {
        await store.drop(updateId);
        this.#open.delete(update.deviceId);
      }
      throw error;
    }
  }

  /** Judges an update. What is missed while the database is away, the sweep makes up for. */
  async #apply(
    key: { readonly updateId: string } | { readonly deviceId: number },
    judge: (update: DeviceUpdate) => UpdateStep | null,
  ): Promise<void> {
    const { store, log } = this.#deps;
    try {
      const update = await store.apply(key, judge);
      if (update !== null && update.endedAt !== null) await this.#ended(update);
    } catch (err) {
      if (err instanceof StoreUnavailableError) log.debug({ ...key }, 'update not judged');
      else log.error({ err, ...key }, 'update not judged');
    }
  }

  async #ended(update: DeviceUpdate): Promise<void> {
    const { metrics, log, closeDownload } = this.#deps;
    const { updateId, deviceId, state, code, version } = update;
    this.#open.delete(deviceId);
    closeDownload(updateId);
    metrics.updateEnded(state);
    log.info({ updateId, deviceId, version, state, code }, 'update ended');
    await this.#settle(update);
  }

  async #settle({ updateId, commandId, state, code, detail }: DeviceUpdate): Promise<void> {
    if (commandId === null) return;
    const outcome = state === 'succeeded' ? 'succeeded' : 'failed';
    try {
      await this.#deps.commands.settle(commandId, outcome, code ?? state, detail ?? '');
    } catch (err) {
      this.#deps.log.warn({ err: reasonOf(err), updateId }, 'command of an update not ended yet');
    }
  }

  async #sweepOn(): Promise<void> {
    const { signal } = this.#stopping;
    const { sweepMs, log } = this.#deps;
    while (!signal.aborted) {
      try {
        await this.#sweep();
      } catch (err) {
        if (!(err instanceof StoreUnavailableError)) log.error({ err }, 'updates not looked at');
      }
      await delay(sweepMs, undefined, { signal }).catch(() => undefined);
    }
  }

  async #sweep(): Promise<void> {
    const { store, now, limits } = this.#deps;
    this.#open = new Set(await store.openDevices());
    let after = 0;
    for (;;) {
      const page = await store.openUpdates(after, SWEEP_PAGE);
      for (const open of page) {
        const { command, update } = open;
        if (update.commandId === null && command !== null) {
          await store.link(update, command.commandId);
        }
        if (judgeOpen(open, now(), limits) === null) continue;
        const { updateId } = update;
        await this.#apply({ updateId }, (current) =>
          judgeOpen({ ...open, update: current }, now(), limits),
        );
      }
      after = page.at(-1)?.update.deviceId ?? 0;
      if (page.length < SWEEP_PAGE || this.#stopping.signal.aborted) break;
    }
    for (const update of await store.unsettled(UNSETTLED_PAGE)) await this.#settle(update);
  }
}
