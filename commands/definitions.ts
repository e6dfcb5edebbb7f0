import type { Page } from '../drizzle/page.ts';
import { inOrganization, type TenantDatabase, type Transaction } from '../drizzle/transaction.ts';
import {
  CommandDefinitionInvalidError,
  CommandDefinitionNotFoundError,
} from '../command-errors.ts';
import { COMMAND_NAME } from '../firmware-protocol/command.ts';
import { checkSchema, compileSchema } from '../firmware-protocol/json-schema-check.ts';
import type { WriteAudit } from './audit.ts';
import type { CommandAuthor } from './command.ts';
import {
  findApplied,
  getDefinition,
  listDefinitions,
  saveDefinition,
  type DefinitionQuery,
  type DefinitionSubject,
} from './definition-statements.ts';
import type { AppliedDefinition, CommandDefinition, WantedDefinition } from './definition.ts';
import { isPrivateCommand } from './system-command.ts';

/** What {@link createCommandDefinitions} needs. */
export interface CommandDefinitionsDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  /** Most definitions of one organization. */
  readonly definitionsMax: number;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

/** For so long nobody asks again whether an organization has definitions; other programs may add one. */
const NONE_KNOWN_MS = 2000;
/** Organizations that are remembered to have none; all are forgotten above it. */
const NONE_KNOWN_MAX = 10_000;

/** Makes the store of definitions. */
export function createCommandDefinitions(deps: CommandDefinitionsDeps): CommandDefinitions {
  return new CommandDefinitions(deps);
}

/**
 * The definitions of commands of all organizations: what they take, and whether a second person has to
 * agree. One for the type of a device goes before one for any type. A type that has definitions takes no
 * other commands, but for those of any type and Puback's own (`sys.…`). All throw
 * {@link StoreUnavailableError}.
 */
export class CommandDefinitions {
  readonly #deps: CommandDefinitionsDeps;
  /** Organizations without any, and until when that is believed. */
  readonly #none = new Map<number, number>();
  /** Organizations of which it is being asked again. */
  readonly #asking = new Set<number>();
  /** What was read before one of them is not remembered. */
  #writes = 0;

  constructor(deps: CommandDefinitionsDeps) {
    this.#deps = deps;
  }

  /** One page, by type and name; those of any type first. */
  list(query: DefinitionQuery): Promise<Page<CommandDefinition>> {
    return this.#within(query.organizationId, (transaction) => listDefinitions(transaction, query));
  }

  /** @param deviceType null: any. @throws {CommandDefinitionNotFoundError} */
  get(organizationId: number, deviceType: string | null, name: string): Promise<CommandDefinition> {
    return this.#within(organizationId, (transaction) =>
      getDefinition(transaction, organizationId, deviceType, name),
    );
  }

  /**
   * Makes a definition, or puts another in the place of one. Commands that wait already are not looked at.
   * @throws {CommandDefinitionInvalidError} @throws {CommandDefinitionLimitError}
   */
  async put(
    author: CommandAuthor,
    wanted: WantedDefinition,
  ): Promise<{ definition: CommandDefinition; isNew: boolean }> {
    const { organizationId } = author;
    assertDefinable(wanted);
    const saved = await this.#within(organizationId, async (transaction) => {
      const made = await saveDefinition(transaction, author, wanted, this.#deps.definitionsMax);
      await this.#audit(transaction, author, made.isNew ? 'create' : 'update', wanted);
      return made;
    });
    this.#writes += 1;
    this.#none.delete(organizationId);
    return saved;
  }

  /** @throws {CommandDefinitionNotFoundError} */
  async remove(author: CommandAuthor, deviceType: string | null, name: string): Promise<void> {
    const { organizationId } = author;
    await this.#within(organizationId, async (transaction) => {
      const { rowCount } = await transaction.client.query(
        `DELETE FROM command_definition
         WHERE organization_id = $1 AND device_type = $2 AND name = $3`,
        [organizationId, deviceType ?? '', name],
      );
      if (rowCount === 0) throw new CommandDefinitionNotFoundError(name, deviceType);
      await this.#audit(transaction, author, 'delete', { deviceType, name });
    });
  }

  /** What applies to a command of a device, by its slug; of a device that does not exist: nothing. */
  forDevice(organizationId: number, device: string, name: string): Promise<AppliedDefinition> {
    return this.#applied(organizationId, name, { device });
  }

  /** What applies to a command of devices of a type; null: of those that have none. */
  forType(
    organizationId: number,
    deviceType: string | null,
    name: string,
  ): Promise<AppliedDefinition> {
    return this.#applied(organizationId, name, { deviceType });
  }

  async #applied(
    organizationId: number,
    name: string,
    subject: DefinitionSubject,
  ): Promise<AppliedDefinition> {
    const leftMs = (this.#none.get(organizationId) ?? 0) - this.#deps.now();
    if (leftMs <= 0) return this.#find(organizationId, name, subject);
    // Where commands are many nobody waits for it: it is asked again before it ends.
    if (leftMs < NONE_KNOWN_MS / 2 && !this.#asking.has(organizationId)) {
      this.#asking.add(organizationId);
      // What it fails with the next one that has to wait for it is told.
      void this.#find(organizationId, name, subject)
        .catch(() => undefined)
        .finally(() => this.#asking.delete(organizationId));
    }
    return NOTHING_APPLIES;
  }

  async #find(
    organizationId: number,
    name: string,
    subject: DefinitionSubject,
  ): Promise<AppliedDefinition> {
    const askedMs = this.#deps.now();
    const writes = this.#writes;
    const found = await this.#within(organizationId, (transaction) =>
      findApplied(transaction, organizationId, name, subject),
    );
    // A device that does not exist says nothing of its organization.
    if (found === null) return NOTHING_APPLIES;
    if (!found.hasAny && writes === this.#writes) this.#noteNone(organizationId, askedMs);
    const { deviceType, definition, defined } = found;
    const compiled = definition === null ? null : compileSchema(definition.schema);
    return { deviceType, definition, compiled, defined };
  }

  #noteNone(organizationId: number, askedMs: number): void {
    if (this.#none.size >= NONE_KNOWN_MAX) this.#none.clear();
    this.#none.set(organizationId, askedMs + NONE_KNOWN_MS);
  }

  #within<T>(organizationId: number, work: (transaction: Transaction) => Promise<T>): Promise<T> {
    return inOrganization(this.#deps.database, organizationId, work);
  }

  #audit(
    { orm }: Transaction,
    author: CommandAuthor,
    verb: string,
    { deviceType, name, ...change }: Pick<WantedDefinition, 'deviceType' | 'name'>,
  ): Promise<void> {
    return this.#deps.writeAudit(orm, {
      ...author,
      action: `command-definition.${verb}`,
      subject: `command-definition/${deviceType ?? '*'}/${name}`,
      change,
    });
  }
}

const NOTHING_APPLIES: AppliedDefinition = {
  deviceType: null,
  definition: null,
  compiled: null,
  defined: [],
};

function assertDefinable({ name, schema }: WantedDefinition): void {
  if (!COMMAND_NAME.test(name) || isPrivateCommand(name)) {
    throw new CommandDefinitionInvalidError(
      `${JSON.stringify(name.slice(0, 64))} is no command that people send: ${COMMAND_NAME.source}, and of "sys." only sys.reboot, sys.log and sys.hello`,
    );
  }
  const fault = checkSchema(schema) ?? findTextFault(schema);
  if (fault === null) return;
  const where = fault.startsWith('/') ? fault : `: ${fault}`;
  throw new CommandDefinitionInvalidError(`schema${where}`);
}

/** Of a schema that was checked: also its titles and comments go into the database. */
function findTextFault(schema: object): string | null {
  const isUnstorable = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(JSON.stringify(schema));
  return isUnstorable ? 'U+0000 or half of a surrogate pair in a text' : null;
}
