import { Buffer } from 'node:buffer';
import { z } from 'zod';
import type { Refusal } from './contract.ts';
import { readObject, shortText } from './json-object.ts';

/** Largest payload of channel `cfg`, in bytes. */
export const CONFIGURATION_REPORT_BYTES_MAX = 8192;
/** Versions of a device's configuration fit a `uint32` of firmware. */
export const CONFIGURATION_VERSION_MAX = 4_294_967_295;
/** Longest `msg` of a report, in bytes; longer ones are cut. */
export const CONFIGURATION_MESSAGE_BYTES_MAX = 200;

/** The payload of channel `cfg` as a JSON value. */
export const configurationReportSchema = z.object({
  v: z
    .int()
    .min(0)
    .max(CONFIGURATION_VERSION_MAX)
    .describe('Version that the device was asked to apply.'),
  ok: z.boolean().describe('Whether it did.'),
  msg: shortText(CONFIGURATION_MESSAGE_BYTES_MAX).exactOptional().describe('Why it did not.'),
  cfg: z
    .record(z.string(), z.json())
    .exactOptional()
    .describe('The values in effect, when they are not simply the desired ones.'),
});

/** What a device says of its configuration. */
export type ConfigurationReport = z.infer<typeof configurationReportSchema>;

/** Decodes a message of channel `cfg`. Never throws. */
export function decodeConfigurationReport(payload: Buffer): ConfigurationReport | Refusal {
  return readObject(payload, configurationReportSchema, CONFIGURATION_REPORT_BYTES_MAX);
}

/** The payload of `in/cfg`: always the whole document. */
export function encodeDesiredConfiguration(version: number, document: object): Buffer {
  return Buffer.from(JSON.stringify({ v: version, cfg: document }));
}
