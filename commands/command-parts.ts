import type { Registry as MetricsRegistry } from 'prom-client';
import type { TenantDatabase } from '../drizzle/transaction.ts';
import type { Logger } from '../log.ts';
import type { WriteAudit } from './audit.ts';
import { createCommandDesk, type CommandDesk } from './command-desk.ts';
import type { CommandPeers, Commands, CommandWire } from './commands.ts';
import { createCommandDefinitions, type CommandDefinitions } from './definitions.ts';
import { registerDeskMetrics } from './desk-metrics.ts';
import { DevicePolls, type DevicePollsDeps } from './device-polls.ts';
import { IntegratorCommands } from './integrator-commands.ts';
import { CommandWaits } from './waits.ts';

/** What {@link createCommandParts} needs. */
export interface CommandPartsDeps {
  readonly database: TenantDatabase;
  readonly commands: Commands & CommandPeers;
  readonly wire: Pick<CommandWire, 'publish'>;
  readonly writeAudit: WriteAudit;
  readonly isQuarantined: DevicePollsDeps['isQuarantined'];
  readonly limits: {
    /** COMMAND_DEFINITIONS_MAX. */
    readonly definitionsMax: number;
    /** COMMAND_WAITS_MAX. */
    readonly waitsMax: number;
    /** COMMAND_PUBLISHED_MAX. */
    readonly publishedMax: number;
    /** Longest wait of a device for the COMMIT of its answer, in ms. */
    readonly answerMs: number;
  };
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly metricsRegistry: MetricsRegistry;
  readonly log: Logger;
}

/** The ways in for commands, and for those who ask for them. */
export interface CommandParts {
  readonly commands: Commands;
  readonly commandDesk: CommandDesk;
  readonly commandDefinitions: CommandDefinitions;
  /** `stop()` before the HTTP listener closes: it answers who waits. */
  readonly commandWaits: CommandWaits;
  readonly devicePolls: DevicePolls;
  /** `take()` is the `command` of `IntegratorParts`; `stop()` before the commands stop. */
  readonly integratorCommands: IntegratorCommands;
}

/** Joins the ways in for commands. */
export function createCommandParts(deps: CommandPartsDeps): CommandParts {
  const { database, commands, writeAudit, limits, now, log } = deps;
  const commandDefinitions = createCommandDefinitions({
    database,
    writeAudit,
    definitionsMax: limits.definitionsMax,
    now,
  });
  const commandDesk = createCommandDesk({ commands, definitions: commandDefinitions });
  const commandWaits = new CommandWaits({ commands, waitsMax: limits.waitsMax });
  const integratorCommands = new IntegratorCommands({
    desk: commandDesk,
    publish: (topic, payload) => deps.wire.publish(topic, payload),
    waitingMax: limits.publishedMax,
    log,
  });
  registerDeskMetrics(deps.metricsRegistry, commandWaits, integratorCommands);
  const devicePolls = new DevicePolls({
    peers: commands,
    isQuarantined: deps.isQuarantined,
    timeoutMs: limits.answerMs,
    now: () => performance.now(),
  });
  return {
    commands,
    commandDesk,
    commandDefinitions,
    commandWaits,
    devicePolls,
    integratorCommands,
  };
}
