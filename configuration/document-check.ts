import { Buffer } from 'node:buffer';
import { ConfigurationInvalidError } from '../command-errors.ts';
import { publishPacketBytes } from '../firmware-protocol/command.ts';
import { encodeDesiredConfiguration } from '../firmware-protocol/configuration.ts';
import {
  checkSchema,
  compileSchema,
  type CompiledSchema,
  type ValueFault,
} from '../firmware-protocol/json-schema-check.ts';
import { aliasTopic, canonicalTopic, type DeviceIdentity } from '../firmware-protocol/topics.ts';
import type { Document } from './configuration.ts';

/** Deepest nesting of a document, the document itself counted: small parsers go no deeper. */
export const DOCUMENT_DEPTH_MAX = 8;
/** Most members and items of a document, all levels together. */
export const DOCUMENT_NODES_MAX = 1000;
/** Largest packet that a device takes which has not said so. */
export const PACKET_BYTES_STANDARD = 256;
/** What stands between the words of a topic for the slot of a device's configuration. */
const CHANNEL = 'in/cfg';

/**
 * Holds a document, or a patch of one, against the bounds: its bytes, depth and members, finite numbers,
 * and texts that a database can store. @param name what it is called in messages.
 * @throws {ConfigurationInvalidError}
 */
export function assertDocument(document: Document, name: string, bytesMax: number): void {
  const fault = shapeFault(document);
  if (fault !== null)
    throw new ConfigurationInvalidError([{ path: '', message: `${name} ${fault}` }]);
  const bytes = Buffer.byteLength(JSON.stringify(document));
  if (bytes <= bytesMax) return;
  const message = `${name} has ${bytes} bytes, ${bytesMax} are allowed (CONFIGURATION_BYTES_MAX)`;
  throw new ConfigurationInvalidError([{ path: '', message }]);
}

/** Makes a schema of a type ready to use. @throws {ConfigurationInvalidError} */
export function readSchema(schema: Document | null): CompiledSchema | null {
  if (schema === null) return null;
  const fault = checkSchema(schema);
  if (fault !== null) throw new ConfigurationInvalidError([{ path: 'schema', message: fault }]);
  return compileSchema(schema);
}

/** What of a document its schema does not allow. */
export function schemaFaults(schema: CompiledSchema | null, document: Document): ValueFault[] {
  return schema === null ? [] : schema.validate(document);
}

/** Topic of a device's configuration, as all but the device spell it. */
export function configurationTopic(device: DeviceIdentity): string {
  return canonicalTopic(device, CHANNEL);
}

/** The same topic as the device spells it. */
export function spelledTopic(device: DeviceIdentity, usesAlias: boolean): string {
  return usesAlias ? aliasTopic(CHANNEL) : configurationTopic(device);
}

/** Size of the packet with a document as it reaches a device, at QoS 1. */
export function packetBytes(
  device: DeviceIdentity & { readonly usesAlias: boolean },
  version: number,
  document: Document,
): number {
  const topic = spelledTopic(device, device.usesAlias);
  return publishPacketBytes(topic, encodeDesiredConfiguration(version, document).length);
}

/** The version that a payload of the slot says; 0: nothing, or nothing of ours. */
export function publishedVersionOf(payload: Buffer | null): number {
  // What is written there begins so; the document behind it need not be read.
  const said = /^\{"v":(\d{1,10}),/.exec(payload?.toString('latin1', 0, 20) ?? '');
  return Number(said?.[1] ?? 0);
}

/** A document of a device with nothing in it that the database would refuse. */
export function storableDocument(document: Document): Document {
  return storable(document) as Document;
}

/** A text of a device with nothing in it that the database would refuse. */
export function storableText(text: string): string {
  return text.replaceAll(new RegExp(UNSTORABLE, 'gu'), '\uFFFD');
}

function storable(value: unknown): unknown {
  if (typeof value === 'string') return storableText(value);
  if (Array.isArray(value)) return value.map(storable);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([name, member]) => [storable(name), storable(member)]);
  return Object.fromEntries(entries) as unknown;
}

/** Why a value is no document; null when it is one. The walk ends at the bounds. */
function shapeFault(document: Document): string | null {
  let nodes = 0;
  const faultOf = (value: unknown, depth: number): string | null => {
    nodes += 1;
    if (nodes > DOCUMENT_NODES_MAX) return `has more than ${DOCUMENT_NODES_MAX} members and items`;
    if (typeof value === 'string') return isStorable(value) ? null : BAD_TEXT;
    if (typeof value === 'number') return Number.isFinite(value) ? null : 'has a number too large';
    if (typeof value !== 'object' || value === null) return null;
    if (depth > DOCUMENT_DEPTH_MAX) return `has more than ${DOCUMENT_DEPTH_MAX} levels`;
    for (const [name, member] of Object.entries(value)) {
      if (!isStorable(name)) return BAD_TEXT;
      const fault = faultOf(member, depth + 1);
      if (fault !== null) return fault;
    }
    return null;
  };
  return faultOf(document, 1);
}

/** U+0000 and halves of surrogate pairs. */
const UNSTORABLE = /[\0\p{Surrogate}]/u;
const BAD_TEXT = 'has a text with U+0000 or half of a surrogate pair';

function isStorable(text: string): boolean {
  return !UNSTORABLE.test(text);
}
