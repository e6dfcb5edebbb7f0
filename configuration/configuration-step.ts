import { ConfigurationInvalidError, ConfigurationTooBigError } from '../command-errors.ts';
import {
  CONFIGURATION_VERSION_MAX,
  type ConfigurationReport,
} from '../firmware-protocol/configuration.ts';
import type { CompiledSchema } from '../firmware-protocol/json-schema-check.ts';
import type { Document, Held, ReportOutcome } from './configuration.ts';
import { packetBytes, schemaFaults, storableDocument, storableText } from './document-check.ts';
import { effectiveDocument, isSameJson } from './merge-patch.ts';

/** What changes of the configuration of a device. */
export interface ConfigurationState {
  readonly desired: Document;
  readonly document: Document;
  readonly version: number;
  readonly changedAt: Date;
  readonly changedBy: string;
  /** Type, and version of its defaults, that the document was made with. */
  readonly madeForType: string | null;
  readonly madeForVersion: number;
  readonly held: Held | null;
  readonly reportedVersion: number | null;
  readonly isApplied: boolean | null;
  readonly reported: Document | null;
  readonly reportedMessage: string | null;
  readonly reportedAt: Date | null;
  readonly differsSince: Date | null;
}

/** A device with what decides on its document. */
export interface ConfigurationFacts extends ConfigurationState {
  readonly organization: string;
  readonly device: string;
  readonly usesAlias: boolean;
  /** Largest packet that it takes. */
  readonly bytesMax: number;
  readonly type: string | null;
  /** Of its type; `{}` when none are set. */
  readonly defaults: Document;
  /** Of what is set for its type; 0 when nothing is. */
  readonly typeVersion: number;
}

/** Who changes something, and when. */
export interface Change {
  readonly by: string;
  readonly at: Date;
}

/** Why there is a new version; null: there is none. */
export type Cause = 'device' | 'type' | 'number' | null;

/** Highest version that a device is believed to know: room is left to count on from it. */
export const REPORTED_VERSION_MAX = CONFIGURATION_VERSION_MAX - 1_000_000;
/** A number is passed on no more often, or a device that always says a higher one would never rest. */
const PASS_MS = 3_600_000;
/** In whose name numbers are passed on. */
export const PROGRAM = 'puback';

/**
 * Gives a device what is desired of it. What is desired already is no new version.
 * @throws {ConfigurationInvalidError} @throws {ConfigurationTooBigError}
 */
export function setDesired(
  facts: ConfigurationFacts,
  schema: CompiledSchema | null,
  desired: Document,
  change: Change,
): { readonly state: ConfigurationState; readonly cause: Cause } {
  if (isSameJson(desired, facts.desired)) return { state: facts, cause: null };
  const document = effectiveDocument(facts.defaults, desired);
  const faults = schemaFaults(schema, document);
  if (faults.length > 0) throw new ConfigurationInvalidError(faults);
  const bytes = packetBytes(facts, nextVersion(facts), document);
  if (bytes > facts.bytesMax) throw new ConfigurationTooBigError(bytes, facts.bytesMax);
  return { state: versionOf(facts, { desired, document }, change), cause: 'device' };
}

/**
 * Makes the document of a device anew from what is set for its type by now. One that cannot be is held:
 * the document stays as it was.
 */
export function renewDocument(
  facts: ConfigurationFacts,
  schema: CompiledSchema | null,
  change: Change,
): { readonly state: ConfigurationState; readonly cause: Cause } {
  const { desired, type, typeVersion } = facts;
  const document = effectiveDocument(facts.defaults, desired);
  const isSame = isSameJson(document, facts.document);
  const held = isSame && facts.version === 0 ? null : heldOf(facts, schema, document, isSame);
  if (isSame || held !== null) {
    return {
      state: { ...facts, madeForType: type, madeForVersion: typeVersion, held },
      cause: null,
    };
  }
  return { state: versionOf(facts, { desired, document }, change), cause: 'type' };
}

/** What a device says of its configuration, as channel `cfg` or a hello has it. */
export interface SaidReport extends ConfigurationReport {
  /** A hello says no more than which version is applied: what was reported of that version stands. */
  readonly isHello: boolean;
}

/** A state and what was made of a report. */
export interface ReportStep {
  readonly state: ConfigurationState;
  readonly cause: Cause;
  readonly outcome: ReportOutcome;
}

/**
 * Takes a report. One of a version that nobody gave out passes on to a higher number: the device would
 * take a version that it knows already for the same document.
 * @param documentOf the document of a version of this device; null: not known.
 */
export function takeReport(
  state: ConfigurationState,
  report: SaidReport,
  documentOf: (version: number) => Document | null,
  at: Date,
): ReportStep {
  const { v: said } = report;
  const known = state.reportedVersion;
  const outcome = outcomeUnread(known, report);
  if (outcome !== null) return { state, cause: null, outcome };
  const noted = noteReport(state, report, documentOf, at);
  if (state.version > 0 && said > state.version) return goPast(state, noted, said, at);
  if (said === known && isSameReport(state, noted)) {
    return { state: noted, cause: null, outcome: 'repeated' };
  }
  return { state: noted, cause: null, outcome: report.ok ? 'applied' : 'refused' };
}

/** Of a report that changes nothing, whatever else it says. */
function outcomeUnread(
  known: number | null,
  { v: said, isHello }: SaidReport,
): ReportOutcome | null {
  if (said > REPORTED_VERSION_MAX) return 'ahead';
  if (known !== null && said < known) return 'outdated';
  return isHello && said === known ? 'repeated' : null;
}

function noteReport(
  state: ConfigurationState,
  { v: said, ok: isApplied, cfg, msg }: SaidReport,
  documentOf: (version: number) => Document | null,
  at: Date,
): ConfigurationState {
  const document = cfg ?? (isApplied ? documentOf(said) : null);
  const noted = {
    ...state,
    reportedVersion: said,
    isApplied,
    reported: document === null ? state.reported : storableDocument(document),
    reportedMessage: msg === undefined ? null : storableText(msg),
    reportedAt: at,
  };
  return lineUp(noted, at);
}

function goPast(
  before: ConfigurationState,
  noted: ConfigurationState,
  said: number,
  at: Date,
): ReportStep {
  const passedMs = at.getTime() - before.changedAt.getTime();
  const isPassed = before.changedBy === PROGRAM && passedMs < PASS_MS;
  if (isPassed) return { state: noted, cause: null, outcome: 'ahead' };
  return { state: passNumber(noted, said, at), cause: 'number', outcome: 'ahead' };
}

/** The same document under a number above `passed`. */
export function passNumber(
  state: ConfigurationState,
  passed: number,
  at: Date,
): ConfigurationState {
  const { desired, document } = state;
  const above = { ...state, version: Math.max(state.version, passed) };
  const { madeForType, madeForVersion, held } = state;
  return {
    ...versionOf(
      { ...above, type: madeForType, typeVersion: madeForVersion },
      { desired, document },
      { by: PROGRAM, at },
    ),
    held,
  };
}

function versionOf(
  before: ConfigurationState & Pick<ConfigurationFacts, 'type' | 'typeVersion'>,
  { desired, document }: Pick<ConfigurationState, 'desired' | 'document'>,
  { by, at }: Change,
): ConfigurationState {
  return lineUp(
    {
      ...before,
      desired,
      document,
      version: nextVersion(before),
      changedAt: at,
      changedBy: by,
      madeForType: before.type,
      madeForVersion: before.typeVersion,
      held: null,
    },
    at,
  );
}

function nextVersion({ version, reportedVersion }: ConfigurationState): number {
  return Math.max(version, reportedVersion ?? 0) + 1;
}

/** Notes since when the device has not had what it should; a change on top of another starts nothing anew. */
function lineUp(state: ConfigurationState, at: Date): ConfigurationState {
  const isInLine =
    state.version === 0 || (state.reportedVersion === state.version && state.isApplied === true);
  return { ...state, differsSince: isInLine ? null : (state.differsSince ?? at) };
}

function heldOf(
  facts: ConfigurationFacts,
  schema: CompiledSchema | null,
  document: Document,
  isSame: boolean,
): Held | null {
  const [fault] = schemaFaults(schema, document);
  if (fault !== undefined) {
    const detail = `${fault.path === '' ? 'the document' : fault.path}: ${fault.message}`;
    return { code: 'invalid', detail };
  }
  // What the device has been sent already is not held, however much it takes by now.
  if (isSame) return null;
  const bytes = packetBytes(facts, nextVersion(facts), document);
  return bytes > facts.bytesMax ? { code: 'too_big', bytes } : null;
}

function isSameReport(left: ConfigurationState, right: ConfigurationState): boolean {
  return (
    left.isApplied === right.isApplied &&
    left.reportedMessage === right.reportedMessage &&
    isSameJson(left.reported, right.reported)
  );
}
