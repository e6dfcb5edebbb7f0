import { hkdfSync } from 'node:crypto';
import type { Config } from './config.ts';
import { CommandEndedError, CommandNotFoundError } from './command-errors.ts';
import type { CommandLimits } from './commands/command-queues.ts';
import { commandRequest, type CommandAuthor } from './commands/command.ts';
import type { CommandJudge, Commands, CommandWire } from './commands/commands.ts';
import type { CampaignLimits } from './commands/campaign/campaign-bounds.ts';
import type { CommandPartsDeps } from './commands/command-parts.ts';
import type { ConfigurationLimits } from './configuration/configuration.ts';
import { reasonOf } from './errors.ts';
import type { Fleet } from './fleet.ts';
import type { Logger } from './log.ts';
import type { OtaLimits } from './ota/ota.ts';
import type { UpdateCommands } from './ota/ports.ts';
import type { KeyActivated } from './registry/keys/key-activation.ts';
import type { RekeyWire } from './registry/keys/key-rotations.ts';
import { readSecretKeys } from './rules/notify/secrets.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
/** Longest wait of a device over HTTP for the COMMIT of its answer, in ms. */
const ANSWER_MS = 10_000;
/** How often open updates are looked at, in ms. */
const UPDATE_SWEEP_MS = 5000;

/** The settings of commands in their own words. */
export function commandLimits(config: Config): CommandLimits {
  return {
    ttlMs: config.COMMAND_TTL_S * 1000,
    backlogMax: config.COMMAND_BACKLOG_MAX,
    retriesMax: config.COMMAND_RETRIES_MAX,
    runMsMax: config.COMMAND_RUN_H_MAX * HOUR_MS,
    ageMaxMs: config.COMMAND_AGE_MAX_D * DAY_MS,
    sweepMs: config.COMMAND_SWEEP_S * 1000,
    acksHeldMax: config.COMMAND_ACKS_HELD_MAX,
  };
}

/** The settings of the ways in for commands in their own words. */
export function commandPartsLimits(config: Config): CommandPartsDeps['limits'] {
  return {
    definitionsMax: config.COMMAND_DEFINITIONS_MAX,
    waitsMax: config.COMMAND_WAITS_MAX,
    publishedMax: config.COMMAND_PUBLISHED_MAX,
    answerMs: ANSWER_MS,
  };
}

/** The settings of campaigns in their own words. */
export function campaignLimits(config: Config): CampaignLimits {
  return {
    openMax: config.CAMPAIGNS_OPEN_MAX,
    devicesMax: config.CAMPAIGN_DEVICES_MAX,
    concurrentMax: config.CAMPAIGN_CONCURRENT_MAX,
    ratePerMinuteMax: config.CAMPAIGN_RATE_PER_MINUTE_MAX,
    ageMaxMs: config.CAMPAIGN_AGE_MAX_D * DAY_MS,
  };
}

/** The settings of configuration in its own words. */
export function configurationLimits(config: Config): ConfigurationLimits {
  return {
    documentBytesMax: config.CONFIGURATION_BYTES_MAX,
    versionsMax: config.CONFIGURATION_VERSIONS_MAX,
    typesMax: config.CONFIGURATION_TYPES_MAX,
    reportsHeldMax: config.CONFIGURATION_REPORTS_HELD_MAX,
    sweepMs: config.COMMAND_SWEEP_S * 1000,
  };
}

/** How a device is asked to change its key. It may be asked again after a reboot in the middle. */
export function createRekeyWire(commands: Pick<Commands, 'enqueue' | 'cancel'>): RekeyWire {
  return {
    async sendRekey(author, { device, campaignId, ttlMs, idempotencyKey }) {
      const more = { campaignId, ttlMs, idempotencyKey, isRetrySafe: true, origin: 'key' } as const;
      const request = commandRequest(device, 'sys.rekey', more);
      return (await commands.enqueue(author, request)).command.commandId;
    },
    cancelRekey: (author, commandId) => cancelQuietly(commands, author, commandId),
  };
}

/**
 * Ends the `sys.rekey` of a device that uses its new key, which says more than an answer: one that lost power
 * behind saving the key would be asked a second time, and say that nobody may ask it.
 */
export class RekeyJudge {
  readonly #commands: CommandJudge;
  readonly #log: Logger;
  readonly #underWay = new Map<number, Promise<void>>();

  constructor(commands: CommandJudge, log: Logger) {
    this.#commands = commands;
    this.#log = log;
  }

  /** A device uses its new key. */
  activated({ deviceId, commandId, keyId }: KeyActivated): void {
    if (commandId === null) return;
    const settled = this.#commands
      .settle(commandId, 'succeeded', 'rekeyed', `uses ${keyId}`)
      .catch((error: unknown) => {
        // The device still answers it by itself.
        this.#log.warn({ reason: reasonOf(error), commandId }, 'command of a rotation not ended');
      })
      .finally(() => {
        if (this.#underWay.get(deviceId) === settled) this.#underWay.delete(deviceId);
      });
    this.#underWay.set(deviceId, settled);
  }

  /** Resolves when what is under way for a device has ended. Never rejects. */
  async settled(deviceId: number): Promise<void> {
    await this.#underWay.get(deviceId);
  }
}

/** What updates need of commands. */
export function createUpdateCommands(
  commands: Pick<Commands, 'enqueue' | 'cancel'> & CommandJudge,
): UpdateCommands {
  return {
    async offer(author, { device, args, ref, ttlMs, idempotencyKey, campaignId }) {
      const more = { origin: 'update', args, ref, ttlMs, idempotencyKey, campaignId } as const;
      const { command } = await commands.enqueue(author, commandRequest(device, 'sys.ota', more));
      return command.commandId;
    },
    cancel: (author, commandId) => cancelQuietly(commands, author, commandId),
    settle: (...outcome) => commands.settle(...outcome),
  };
}

/** One that has ended, or is gone with its device, is left alone. */
async function cancelQuietly(
  commands: Pick<Commands, 'cancel'>,
  author: CommandAuthor,
  commandId: string,
): Promise<void> {
  try {
    await commands.cancel(author, commandId);
  } catch (error) {
    if (error instanceof CommandEndedError || error instanceof CommandNotFoundError) return;
    throw error;
  }
}

/** The settings of firmware and updates in their own words. */
export function otaLimits(config: Config): OtaLimits {
  return {
    imageBytesMax: config.FIRMWARE_BYTES_MAX,
    imagesMax: config.FIRMWARE_IMAGES_MAX,
    uploadsMax: config.FIRMWARE_UPLOADS_MAX,
    downloadsMax: config.FIRMWARE_DOWNLOADS_MAX,
    downloadBytesPerS: config.FIRMWARE_BYTES_PER_S,
    linkMs: config.FIRMWARE_LINK_S * 1000,
    isSignatureRequired: config.FIRMWARE_SIGNATURE_REQUIRED === 'yes',
    sweepMs: UPDATE_SWEEP_MS,
    bootsMax: config.UPDATE_BOOTS_MAX,
    silenceMs: config.UPDATE_SILENCE_S * 1000,
    downloadMs: config.UPDATE_DOWNLOAD_H_MAX * HOUR_MS,
  };
}

/**
 * The secret that links to firmware are made with: of the first key of secrets, so that it is the same in
 * every program of an installation. @throws {ConfigInvalidError} @throws {FileUnusableError}
 */
export async function readLinkKey(config: Config): Promise<Buffer> {
  const [first] = await readSecretKeys(config);
  if (first === undefined) throw new Error('secrets need a key');
  return Buffer.from(hkdfSync('sha256', first, '', 'puback firmware links', 32));
}

/**
 * How slots, documents and steps of commands reach the broker.
 * @param fleet null while there is no broker: nothing is retained then, and what is published fails and is
 * published again by a sweep.
 */
export function createWire(fleet: () => Fleet | null): CommandWire {
  const open = (): Fleet => {
    const found = fleet();
    if (found === null) throw new Error('the broker is not there');
    return found;
  };
  return {
    publishRetained: async (topic, payload) =>
      open().broker.fanOut.publishRetained({ topic, payload, qos: 1, retain: false }),
    async publish(topic, payload) {
      await open().broker.fanOut.publish({ topic, payload, qos: 1, retain: false });
    },
    retained: (topic) => fleet()?.retained(topic) ?? null,
    retainedTopics: (filter) => fleet()?.retainedTopics(filter) ?? [],
    isReading: (deviceId) => fleet()?.isReading(deviceId) === true,
  };
}
