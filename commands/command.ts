import type { Ack } from '../firmware-protocol/ack.ts';

/**
 * Where a command is. `awaiting_approval`: a second person has to agree. `queued`: waits its turn.
 * `published`: stands in the device's slot. `sent`: was written to a connection that reads the slot.
 * `running`: the device said that it works on it; the slot is free. The others are ends; `unknown`: the
 * device saw it before and does not know what became of it, or has said nothing for too long.
 */
export const COMMAND_STATES = [
  'awaiting_approval',
  'queued',
  'published',
  'sent',
  'running',
  'succeeded',
  'failed',
  'rejected',
  'expired',
  'cancelled',
  'unknown',
] as const;
/** One of {@link COMMAND_STATES}. */
export type CommandState = (typeof COMMAND_STATES)[number];

/** States that a command does not leave, but for a late answer of its device. */
export const END_STATES: ReadonlySet<CommandState> = new Set<CommandState>([
  'succeeded',
  'failed',
  'rejected',
  'expired',
  'cancelled',
  'unknown',
]);

/** Who asked for a command: a request, an integrator over MQTT, a rule, a campaign, or Puback itself. */
export type CommandOrigin = 'api' | 'mqtt' | 'rule' | 'campaign' | 'key' | 'update';

/** In whose name something is done. */
export interface CommandAuthor {
  readonly organizationId: number;
  /** Public id of the key; stands in the audit trail. */
  readonly actor: string;
}

/** What must hold when a command enters the slot; else it is rejected and the queue moves on. */
export interface Precondition {
  /** Members that the reported configuration must have, with these values. */
  readonly reported?: Readonly<Record<string, unknown>> | undefined;
  /** What the newest readings must be. */
  readonly readings?: readonly ReadingCondition[] | undefined;
}

/** What the newest reading of a metric must be. */
export interface ReadingCondition {
  readonly metric: string;
  readonly op: '>' | '>=' | '<' | '<=' | '==' | '!=';
  readonly value: number | boolean | string;
  /** Oldest that the reading may be, in ms; null: any. */
  readonly ageMaxMs: number | null;
}

/** A command that is asked for. What is null has a default. */
export interface CommandRequest {
  /** Name of the device, as in its topics. */
  readonly device: string;
  readonly name: string;
  readonly args: Readonly<Record<string, unknown>>;
  /** Ms from now; null: of its definition, or COMMAND_TTL_S. */
  readonly ttlMs: number | null;
  readonly replaceKey: string | null;
  /** Null: as its definition says, or no. */
  readonly isRetrySafe: boolean | null;
  readonly precondition: Precondition | null;
  readonly ref: string | null;
  /** Asking again with the same key gives the same command. At most 128 characters. */
  readonly idempotencyKey: string | null;
  readonly origin: CommandOrigin;
  readonly campaignId: string | null;
  /** A second person has to agree, whatever its definition says. */
  readonly needsApproval: boolean;
}

/** A request with nothing but a device, a command and its arguments. */
export function commandRequest(
  device: string,
  name: string,
  more: Partial<CommandRequest> = {},
): CommandRequest {
  return {
    device,
    name,
    args: {},
    ttlMs: null,
    replaceKey: null,
    isRetrySafe: null,
    precondition: null,
    ref: null,
    idempotencyKey: null,
    origin: 'api',
    campaignId: null,
    needsApproval: false,
    ...more,
  };
}

/** A command as it is known. */
export interface Command {
  readonly commandId: string;
  readonly organizationId: number;
  /** Slug of the organization. */
  readonly organization: string;
  readonly deviceId: number;
  /** Slug of the device. */
  readonly device: string;
  readonly name: string;
  readonly args: Readonly<Record<string, unknown>>;
  readonly state: CommandState;
  /** Id in the slot; null before it has been there. */
  readonly wireId: number | null;
  readonly ref: string | null;
  readonly replaceKey: string | null;
  readonly isRetrySafe: boolean;
  readonly attempts: number;
  readonly precondition: Precondition | null;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly publishedAt: Date | null;
  readonly sentAt: Date | null;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
  /** Percent, while it runs. */
  readonly progress: number | null;
  readonly result: unknown;
  readonly code: string | null;
  readonly message: string | null;
  /** The device's answer came after the command had expired or been cancelled. */
  readonly isLate: boolean;
  readonly origin: CommandOrigin;
  readonly actor: string;
  readonly campaignId: string | null;
  readonly approvedBy: string | null;
  readonly approvedAt: Date | null;
  readonly cancelAskedAt: Date | null;
}

/** A step of a command. */
export interface CommandEvent {
  readonly commandEventId: number;
  readonly commandId: string;
  readonly occurredAt: Date;
  readonly state: CommandState;
  readonly detail: CommandEventDetail;
}

/** More of a step, where there is something to say. */
export interface CommandEventDetail {
  readonly code?: string;
  readonly msg?: string;
  readonly pct?: number;
  readonly r?: unknown;
  readonly late?: true;
  readonly actor?: string;
}

/** A device that answers, as its connection knows it. */
export interface AnsweringDevice {
  readonly organizationId: number;
  readonly organization: string;
  readonly deviceId: number;
  readonly device: string;
}

/** What was made of an answer; a closed set, for a metric. */
export type AckOutcome = 'applied' | 'late' | 'repeated' | 'unknown_id' | 'out_of_order';

/** An answer of a device with who gave it. */
export interface DeviceAck {
  readonly from: AnsweringDevice;
  readonly ack: Ack;
}
