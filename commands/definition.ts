import type { CompiledSchema } from '../firmware-protocol/json-schema-check.ts';

/** What a command of a type of devices takes, as people wrote it. */
export interface CommandDefinition {
  /** Null: devices of any type, where their own type has none of this name. */
  readonly deviceType: string | null;
  readonly name: string;
  readonly description: string;
  /** JSON Schema of the arguments; `{}`: anything. */
  readonly schema: Readonly<Record<string, unknown>>;
  /** A second person has to agree before it is sent. */
  readonly needsApproval: boolean;
  /** Where the request does not say. */
  readonly isRetrySafe: boolean;
  /** Where the request does not say, in ms; null: COMMAND_TTL_S. */
  readonly ttlMs: number | null;
  readonly updatedAt: Date;
  /** Public id of a key. */
  readonly updatedBy: string;
}

/** What is asked of a definition. */
export type WantedDefinition = Omit<CommandDefinition, 'updatedAt' | 'updatedBy'>;

/** What applies to a command of one device. */
export interface AppliedDefinition {
  /** Null when nobody has said, or the device does not exist. */
  readonly deviceType: string | null;
  /** Null: there is none, and anything goes unless `defined` has names. */
  readonly definition: CommandDefinition | null;
  /** Of `definition`. */
  readonly compiled: CompiledSchema | null;
  /**
   * Commands that are defined for the type of the device, in their order, when `definition` is null and
   * its type has definitions: others are refused then. At most {@link DEFINED_SHOWN_MAX}.
   */
  readonly defined: readonly string[];
}

/** Names that a refusal lists. */
export const DEFINED_SHOWN_MAX = 50;
