import type { Registry as MetricsRegistry } from 'prom-client';
import { createCampaigns } from './commands/campaign/campaigns.ts';
import { createCommandCampaign } from './commands/campaign/command-campaign.ts';
import type { Campaigns } from './commands/campaign/campaign.ts';
import { createCommandParts, type CommandParts } from './commands/command-parts.ts';
import { createCommands, type CommandQueues } from './commands/command-queues.ts';
import { commandRequest } from './commands/command.ts';
import type { CommandWire } from './commands/commands.ts';
import type { Config } from './config.ts';
import {
  createConfiguration,
  type ConfigurationParts,
} from './configuration/create-configuration.ts';
import type { Configurations } from './configuration/configuration.ts';
import { createOta, type Ota } from './ota/ota.ts';
import { findFiringAlerts } from './rules/alert/firing-alerts.ts';
import {
  campaignLimits,
  commandLimits,
  commandPartsLimits,
  configurationLimits,
  createRekeyWire,
  createUpdateCommands,
  createWire,
  otaLimits,
  RekeyJudge,
} from './downlink-joints.ts';
import type { Database } from './drizzle/database.ts';
import type { DownlinkPort } from './fleet-downlink.ts';
import type { Fleet } from './fleet.ts';
import type { Logger } from './log.ts';
import { auditStatement, writeAudit } from './registry/audit.ts';
import type { Claims } from './registry/keys/claims.ts';
import type { KeyRotations } from './registry/keys/key-rotations.ts';
import { createRekeyCampaign } from './registry/keys/rekey-campaign.ts';
import type { Registry } from './registry/registry.ts';
import type { ActionRunnerDeps } from './rules/action/action-runner.ts';

/** What the downlink is joined with. */
export interface DownlinkDeps {
  readonly config: Config;
  readonly database: Database;
  readonly registry: Registry;
  readonly metricsRegistry: MetricsRegistry;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly log: Logger;
  readonly onStop: (name: string, close: () => Promise<void>) => void;
  /** Secret of the links to firmware; see `readLinkKey`. */
  readonly linkKey: Buffer;
  /** In place of the fleet that {@link Downlink.start} is given; for tests without a broker. */
  readonly wire?: CommandWire;
}

/** What people work with. */
export interface DownlinkDesk extends CommandParts {
  readonly campaigns: Campaigns;
  readonly keyRotations: KeyRotations;
  readonly claims: Claims;
  readonly ota: Ota;
  readonly configurations: Configurations;
}

/**
 * All that goes down to devices and what they answer: commands, configuration, keys, firmware. Told of
 * devices by the broker before {@link Downlink.start}, and sending to them from then on.
 */
export class Downlink {
  readonly #deps: DownlinkDeps;
  readonly #commands: CommandQueues;
  readonly #commandParts: CommandParts;
  readonly #configuration: ConfigurationParts;
  readonly #campaigns: ReturnType<typeof createCampaigns>;
  readonly #keyRotations: KeyRotations;
  readonly #rekeyJudge: RekeyJudge;
  readonly #claims: Claims;
  readonly #ota: Ota;
  #fleet: Fleet | null = null;
  #httpUrl = '';

  constructor(deps: DownlinkDeps) {
    const { config, database, registry } = deps;
    this.#deps = deps;
    const wire = deps.wire ?? createWire(() => this.#fleet);
    const common = { ...deps, wire, writeAudit };
    this.#commands = createCommands({ ...common, auditStatement, limits: commandLimits(config) });
    this.#commandParts = createCommandParts({
      ...common,
      commands: this.#commands,
      isQuarantined: async ({ organizationId, device }) =>
        (await registry.devices.get(organizationId, device)).isQuarantined,
      limits: commandPartsLimits(config),
    });
    this.#configuration = createConfiguration({ ...common, limits: configurationLimits(config) });
    const { commandDesk: desk } = this.#commandParts;
    this.#keyRotations = registry.keys.rotations(createRekeyWire(this.#commands));
    this.#rekeyJudge = new RekeyJudge(this.#commands, deps.log);
    this.#claims = registry.keys.claims(
      (deviceId) => (this.#fleet?.presenceOf(deviceId) ?? null) !== null,
    );
    this.#ota = createOta({
      ...common,
      commands: createUpdateCommands(this.#commands),
      firingAlerts: (organizationId, deviceIds, sinceMs) =>
        findFiringAlerts(database.pool, organizationId, { deviceIds, sinceMs }),
      signingKey: deps.linkKey,
      publicUrl: () => config.PUBLIC_HTTP_URL || this.#httpUrl,
      limits: otaLimits(config),
    });
    this.#campaigns = createCampaigns({
      ...common,
      kinds: [
        createCommandCampaign({ pool: database.pool, desk, commands: this.#commands }),
        createRekeyCampaign({ database, rotations: this.#keyRotations }),
        this.#ota.campaignKind,
      ],
      isOnline: (deviceId) => this.#fleet?.isReading(deviceId) === true,
      limits: campaignLimits(config),
    });
    this.#commands.onChanged((command) => {
      this.#campaigns.noteCommand(command);
      this.#ota.updates.noteCommand(command);
    });
    this.#listenToRegistry();
  }

  /** What the broker tells. */
  get port(): DownlinkPort {
    const { peers } = this.#configuration;
    const commands = this.#commands;
    const { updates } = this.#ota;
    const rekeyed = this.#rekeyJudge;
    return {
      acknowledged: (device, ack) => commands.acknowledge(device, ack),
      reported: (device, report) => peers.reported(device, report),
      keyRequested: (device, _request, isPrivate) =>
        this.#keyRotations.keyRequested(device, isPrivate),
      claim: ({ mdl: model = null, ...board }) => this.#claims.claim({ ...board, model }),
      async greeted(device, hello) {
        // Before it counts as rebooted: an update ends with the boot that it asked for, and a change of its
        // key with the connection.
        const judged = rekeyed.settled(device.deviceId).then(() => updates.greeted(device, hello));
        await Promise.all([
          commands.greeted(device, hello, judged),
          judged.then(() => peers.greeted(device, hello)),
        ]);
      },
      reading: (device, usesAlias) => commands.sent(device, usesAlias),
      async waiting(device) {
        const configVersion = peers.version(device);
        return { commands: await commands.waiting(device), configVersion };
      },
      command: (...command) => this.#commandParts.integratorCommands.take(...command),
    };
  }

  /** A command of a rule. */
  readonly sendOfRule: ActionRunnerDeps['send'] = async (asked) => {
    const { organizationId, actor, device, name, args, ttlMs, replaceKey, idempotencyKey } = asked;
    const precondition = asked.ifReported === null ? null : { reported: asked.ifReported };
    const { command } = await this.#commandParts.commandDesk.enqueue(
      { organizationId, actor },
      commandRequest(device, name, {
        ...{ args, ttlMs, replaceKey, idempotencyKey, precondition },
        origin: 'rule',
      }),
    );
    return { commandId: command.commandId };
  };

  /** What people work with. */
  get desk(): DownlinkDesk {
    return {
      ...this.#commandParts,
      campaigns: this.#campaigns.campaigns,
      keyRotations: this.#keyRotations,
      claims: this.#claims,
      ota: this.#ota,
      configurations: this.#configuration.configurations,
    };
  }

  /** Begins to send; to be called when the broker is up and before anybody can connect. */
  async start(fleet: Fleet): Promise<void> {
    const { onStop } = this.#deps;
    this.#fleet = fleet;
    // Behind the ends of all that sends, and before that of the broker.
    onStop('downlink', async () => {
      this.#fleet = null;
    });
    this.#commands.start();
    onStop('commands', async () => {
      this.#commandParts.integratorCommands.stop();
      await this.#commands.stop();
    });
    this.#configuration.start();
    onStop('configuration', () => this.#configuration.stop());
    await this.#ota.start();
    onStop('updates', () => this.#ota.stop());
    this.#campaigns.start();
    onStop('campaigns', () => this.#campaigns.stop());
  }

  /** Where devices reach HTTP, unless a setting says so. */
  listensAt(httpUrl: string): void {
    this.#httpUrl = httpUrl;
  }

  #listenToRegistry(): void {
    const { registry } = this.#deps;
    const { peers } = this.#configuration;
    registry.deviceChanges.onChanged(({ deviceId, isDeleted }) => {
      if (!isDeleted) peers.deviceChanged(deviceId);
    });
    this.#keyRotations.onActivated((activated) => this.#rekeyJudge.activated(activated));
    registry.revocations.onRevoked(({ deviceId, deleted }) => {
      if (deviceId === undefined || deleted === undefined) return;
      // Behind the closing of its connections, which was asked for by the same revocation.
      setImmediate(() => {
        void this.#commands.forgetDevice(deleted.organization, deleted.device);
        peers.forgetDevice(deleted);
      });
    });
  }
}
