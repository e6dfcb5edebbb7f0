import { z } from 'zod';
import type { NewCampaign } from '../../commands/campaign/campaign.ts';
import { CAMPAIGN_KINDS } from '../../commands/campaign/campaign-kind.ts';
import { WAVES_MAX, type CampaignPolicy } from '../../commands/campaign/campaign-policy.ts';
import { durationText, labelText } from '../schemas.ts';

const NAME_CHARS_MAX = 128;
/** Of one member of the targets; more devices than that are meant by a tag or a type. */
const NAMES_MAX = 10_000;
const TAG_CHARS_MAX = 48;
const DEVICE_CHARS_MAX = 64;
const CANARIES_MAX = 1000;
const HOUR_MICROS = 3_600_000_000;
const SETTLE_MICROS_MAX = 7 * 24 * HOUR_MICROS;
const DEVICE_TIMEOUT_MICROS_MIN = 1_000_000;
const DEVICE_TIMEOUT_MICROS_MAX = 31 * 24 * HOUR_MICROS;
const MINUTE_MICROS = 60_000_000;
const COUNT_MAX = 2_147_483_647;

/** What is left out of a policy. */
const STANDARD = {
  canary: 1,
  waves: [10, 50, 100],
  ratePerMinute: 60,
  concurrent: 50,
  failedPercent: 20,
} as const;

const names = (charsMax: number) =>
  z
    .array(z.string().min(1).max(charsMax))
    .min(1)
    .max(NAMES_MAX)
    .transform((texts) => [...new Set(texts)])
    .optional();

const targets = z
  .strictObject({
    devices: names(DEVICE_CHARS_MAX).describe('Names of devices.'),
    tags: names(TAG_CHARS_MAX).describe('A device has one of them.'),
    types: names(TAG_CHARS_MAX).describe('A device is of one of them.'),
    all: z.literal(true).optional().describe('Every device, and no other member.'),
  })
  .refine(({ all, ...members }) => {
    const isNarrow = Object.values(members).some((member) => member !== undefined);
    return isNarrow !== (all ?? false);
  }, 'must name devices, tags or types, or be {"all":true}')
  .describe('Which devices, as they are now; a device must match every member that is there.');

const percents = z
  .array(z.int().min(1).max(100))
  .min(1)
  .max(WAVES_MAX)
  .refine(
    (waves) => waves.at(-1) === 100 && waves.every((one, at) => one > (waves[at - 1] ?? 0)),
    'must ascend and end with 100',
  );

const bounded = (minMicros: number, maxMicros: number, hint: string) =>
  durationText.refine((micros) => micros >= minMicros && micros <= maxMicros, hint);

const policy = z
  .strictObject({
    canary: z
      .union([
        z.int().min(0).max(CANARIES_MAX),
        z
          .array(z.string().min(1).max(DEVICE_CHARS_MAX))
          .min(1)
          .max(CANARIES_MAX)
          .transform((devices) => [...new Set(devices)]),
      ])
      .default(STANDARD.canary)
      .describe('Devices that go first, alone: how many, or which.'),
    waves: percents
      .optional()
      .describe('Percent of all devices that have been reached with each wave: [10,50,100].'),
    waveDevices: z
      .int()
      .min(1)
      .max(COUNT_MAX)
      .optional()
      .describe('In place of waves: devices of each wave.'),
    ratePerMinute: z
      .int()
      .min(1)
      .max(COUNT_MAX)
      .default(STANDARD.ratePerMinute)
      .describe('Most devices that are begun with in a minute.'),
    concurrent: z
      .int()
      .min(1)
      .max(COUNT_MAX)
      .default(STANDARD.concurrent)
      .describe('Most devices under way at a time.'),
    stop: z
      .strictObject({
        failedPercent: z
          .int()
          .min(0)
          .max(100)
          .nullable()
          .default(STANDARD.failedPercent)
          .describe(
            'Stops when so many percent of the devices of a wave that have ended failed; at least 10 of them, or all of a smaller wave, count as ended. 0: with the first one.',
          ),
        failedCount: z
          .int()
          .min(1)
          .max(COUNT_MAX)
          .nullable()
          .default(null)
          .describe('Stops when so many devices failed in all.'),
      })
      .prefault({}),
    settle: bounded(0, SETTLE_MICROS_MAX, 'must be at most 7d')
      .default(MINUTE_MICROS)
      .describe('From the end of a wave to the next one: "5m". 1m when left out.'),
    deviceTimeout: bounded(
      DEVICE_TIMEOUT_MICROS_MIN,
      DEVICE_TIMEOUT_MICROS_MAX,
      'must be between 1s and 31d',
    )
      .default(HOUR_MICROS)
      .describe('A device that takes longer is withdrawn and has failed. 1h when left out.'),
  })
  .refine(({ waves, waveDevices }) => waves === undefined || waveDevices === undefined, {
    message: 'must have waves or waveDevices, not both',
  });

/** The body for a campaign. */
export const newCampaignSchema = z.strictObject({
  kind: z.enum(CAMPAIGN_KINDS).default('command'),
  name: labelText(NAME_CHARS_MAX).describe('For people.'),
  targets,
  request: z
    .looseObject({})
    .default({})
    .describe('Of kind command: {"command","args","ttl",…}, as for one device.'),
  policy: policy.prefault({}),
});

/** The campaign that a body asks for. */
export function newCampaignOf(
  { kind, name, targets: asked, request, policy: given }: z.output<typeof newCampaignSchema>,
  idempotencyKey: string | null,
): NewCampaign {
  const { devices = null, tags = null, types = null } = asked;
  return {
    kind,
    name,
    targets: { devices, tags, types },
    request,
    policy: policyOf(given),
    canaryDevices: typeof given.canary === 'number' ? [] : given.canary,
    idempotencyKey,
  };
}

function policyOf(given: z.output<typeof policy>): CampaignPolicy {
  const { canary, waves, waveDevices = null, ratePerMinute, concurrent, stop } = given;
  return {
    canary: typeof canary === 'number' ? canary : canary.length,
    waves: waves ?? (waveDevices === null ? [...STANDARD.waves] : null),
    waveDevices,
    ratePerMinute,
    concurrent,
    stop,
    settleMs: given.settle / 1000,
    deviceTimeoutMs: given.deviceTimeout / 1000,
  };
}
