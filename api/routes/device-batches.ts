import { z } from 'zod';
import { PublicAddressError } from '../../command-errors.ts';
import { deviceNameSchema } from '../../firmware-protocol/contract.ts';
import { parseBrokerAddress, type BrokerAddress } from '../../registry/keys/broker-address.ts';
import type { DeviceBatches } from '../../registry/keys/device-batches.ts';
import { nvsCsv, qrText } from '../../registry/keys/key-carrier.ts';
import { defineRoute, type Route } from '../route.ts';
import { authorOf, deviceTags, deviceTypeName } from './devices.ts';

/** Eight digits. */
const NUMBER_MAX = 99_999_999;
/** Least digits of a number in a name. */
const DIGITS_MIN = 4;

const batchAnswer = z.object({
  data: z.array(
    z.object({
      device: z.string(),
      user: z.string().describe('User name over MQTT.'),
      keyId: z.string(),
      key: z.string().describe('The key itself. Shown this once; only a hash of it is kept.'),
      nvs: z.string().describe('CSV for nvs_partition_gen.py: namespace fp with host, user, key.'),
      qrText: z.string().describe('What a QR code of the key says; shows the key.'),
    }),
  ),
});

/** What the route of batches needs. */
export interface DeviceBatchRoutesDeps {
  readonly batches: DeviceBatches;
  /** Most devices of a batch. */
  readonly batchMax: number;
  readonly address: BrokerAddress | null;
}

/** The route that makes devices for a factory. */
export function deviceBatchRoutes(deps: DeviceBatchRoutesDeps): Route[] {
  const { batches, batchMax, address: publicAddress } = deps;
  const bodySchema = z
    .strictObject({
      devices: z
        .array(deviceNameSchema)
        .min(1)
        .max(batchMax)
        .refine((all) => new Set(all).size === all.length, 'must not name a device twice')
        .optional()
        .describe('Names. Or give "count" and "prefix".'),
      count: z.int().min(1).max(batchMax).optional().describe('How many.'),
      prefix: z
        .string()
        .regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,39}$/)
        .optional()
        .describe('What their names begin with; a number of four digits or more follows.'),
      first: z.int().min(0).max(NUMBER_MAX).default(1).describe('The first number.'),
      type: deviceTypeName.default(null),
      tags: deviceTags.default([]),
      url: z
        .string()
        .max(300)
        .refine((text) => parseBrokerAddress(text) !== null, 'must be as mqtts://host:8883')
        .optional()
        .describe('Where devices reach the broker; MQTT_PUBLIC_URL when left out.'),
    })
    .refine(
      ({ devices, count, prefix }) =>
        devices === undefined
          ? count !== undefined && prefix !== undefined
          : count === undefined && prefix === undefined,
      'needs "devices", or "count" and "prefix"',
    )
    .refine(
      ({ first, count = 1 }) => first + count - 1 <= NUMBER_MAX,
      `the last number must be at most ${NUMBER_MAX}`,
    );
  return [
    defineRoute({
      method: 'POST',
      path: '/api/v1/devices/batch',
      role: 'admin',
      tag: 'devices',
      summary: 'Make devices with a key each, for a factory',
      description: `All or none. Each comes with the file that nvs_partition_gen.py makes a partition of. The only
answer that has the keys. npm run factory writes files and QR codes.`,
      body: bodySchema,
      answers: { 201: { description: 'The devices.', schema: batchAnswer } },
      async handle({ principal, body }) {
        const { devices, count = 0, prefix = '', first, type, tags, url } = body;
        const address = url === undefined ? publicAddress : parseBrokerAddress(url);
        if (address === null) throw new PublicAddressError();
        const names = devices ?? numberedNames(prefix, first, count);
        const made = await batches.create(authorOf(principal), { devices: names, type, tags });
        const data = made.map((one) => {
          const credential = { address, ...one };
          return { ...one, nvs: nvsCsv(credential), qrText: qrText(credential) };
        });
        return { status: 201, body: { data } };
      },
    }),
  ];
}

/** Prefix of 40 characters and number of 8 digits fit the longest name of 48. */
function numberedNames(prefix: string, first: number, count: number): string[] {
  const digits = Math.max(DIGITS_MIN, String(first + count - 1).length);
  return Array.from(
    { length: count },
    (_, index) => `${prefix}${String(first + index).padStart(digits, '0')}`,
  );
}
