import { z } from 'zod';

const count = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

/** The settings of commands, configuration, keys and updates; a part of `configSchema`. */
export const commandSettings = {
  COMMAND_TTL_S: count(1, 31_622_400)
    .default(86_400)
    .describe('How long a command that says nothing else may wait for its device.'),
  COMMAND_BACKLOG_MAX: count(1, 100_000)
    .default(100)
    .describe('Commands that may wait for a device; more are refused.'),
  COMMAND_RETRIES_MAX: count(0, 100)
    .default(3)
    .describe(
      'How often a command that is safe to repeat is sent again after the device rebooted in the middle.',
    ),
  COMMAND_RUN_H_MAX: count(1, 8784)
    .default(24)
    .describe('A command that runs and of which nothing was heard for so long ends as unknown.'),
  COMMAND_AGE_MAX_D: count(1, 3650)
    .default(365)
    .describe('Days that commands are kept after they ended, with their steps.'),
  COMMAND_SWEEP_S: count(1, 3600)
    .default(30)
    .describe(
      'How often slots are compared with the database, and published anew where they differ.',
    ),
  COMMAND_ACKS_HELD_MAX: count(10, 1_000_000)
    .default(10_000)
    .describe(
      'Answers of devices that may wait for the database; a device with more to say is held back.',
    ),
  CONFIGURATION_BYTES_MAX: count(64, 262_144)
    .default(8192)
    .describe('Largest document that configures a device, and largest defaults of a type.'),
  CONFIGURATION_VERSIONS_MAX: count(1, 10_000)
    .default(100)
    .describe('Versions of the configuration of a device that are kept.'),
  CONFIGURATION_TYPES_MAX: count(1, 100_000)
    .default(500)
    .describe('Types of devices of an organization that may have defaults of their configuration.'),
  CONFIGURATION_REPORTS_HELD_MAX: count(10, 1_000_000)
    .default(10_000)
    .describe(
      'Reports of devices on their configuration that may wait for the database; more are not acknowledged, and devices repeat them.',
    ),
  CAMPAIGNS_OPEN_MAX: count(1, 10_000)
    .default(20)
    .describe('Campaigns of an organization that may run, or be paused, at a time.'),
  CAMPAIGN_DEVICES_MAX: count(1, 1_000_000)
    .default(10_000)
    .describe('Devices that a campaign may have.'),
  CAMPAIGN_CONCURRENT_MAX: count(1, 100_000)
    .default(1000)
    .describe('Most devices that a campaign may be busy with at a time.'),
  CAMPAIGN_RATE_PER_MINUTE_MAX: count(1, 1_000_000)
    .default(6000)
    .describe('Most devices that a campaign may begin with in a minute.'),
  CAMPAIGN_AGE_MAX_D: count(1, 3650)
    .default(365)
    .describe('Days that campaigns are kept after they ended, with what became of each device.'),
  COMMAND_DEFINITIONS_MAX: count(1, 100_000)
    .default(500)
    .describe('Definitions of commands that an organization may have.'),
  COMMAND_WAITS_MAX: count(0, 100_000)
    .default(200)
    .describe(
      'Requests that may wait for the outcome of their command (?wait=) at once; beyond it they are answered at once.',
    ),
  COMMAND_PUBLISHED_MAX: count(1, 1_000_000)
    .default(1000)
    .describe(
      'Commands that integrators have published over MQTT and that wait for the database; above it they are read no further.',
    ),
  PUBLIC_HTTP_URL: z
    .union([z.literal(''), z.url({ protocol: /^https?$/ }).max(100)])
    .default('')
    .describe(
      'Address under which devices reach the HTTP port, for the links to firmware: https://iot.example.com. Empty: the address that it listens on.',
    ),
  FIRMWARE_BYTES_MAX: count(1024, 67_108_864)
    .default(8_388_608)
    .describe('Largest firmware image. Each upload takes twice as much memory.'),
  FIRMWARE_IMAGES_MAX: count(1, 10_000)
    .default(200)
    .describe('Firmware images of an organization that are not withdrawn; more are refused.'),
  FIRMWARE_UPLOADS_MAX: count(1, 20)
    .default(2)
    .describe('Uploads of firmware images at once; more are answered with 503.'),
  FIRMWARE_SIGNATURE_REQUIRED: z
    .enum(['yes', 'no'])
    .default('no')
    .describe('Whether images without the signature of a known signer are refused.'),
  FIRMWARE_DOWNLOADS_MAX: count(1, 1000)
    .default(50)
    .describe('Downloads of firmware at once; more are answered with 503.'),
  FIRMWARE_BYTES_PER_S: count(0, 10_000_000_000)
    .default(20_000_000)
    .describe('Bytes a second of all downloads of firmware together. 0: no limit.'),
  FIRMWARE_LINK_S: count(60, 86_400)
    .default(900)
    .describe(
      'How long after a device was sent the link to an image, or said that it works on it, a download may begin.',
    ),
  UPDATE_DOWNLOAD_H_MAX: count(1, 720)
    .default(24)
    .describe('Longest time from the first sign of an update to the end of its download.'),
  UPDATE_SILENCE_S: count(10, 604_800)
    .default(900)
    .describe(
      'An update of which nothing was heard for so long behind the end of its download has failed. Two and a half times the sleep of the device are added.',
    ),
  UPDATE_BOOTS_MAX: count(1, 100)
    .default(3)
    .describe(
      'Boots that a new image may take before it counts as one that crashes again and again.',
    ),
  MQTT_PUBLIC_URL: z
    .string()
    .trim()
    .regex(/^(mqtts?:\/\/([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?)?$/)
    .default('')
    .describe(
      'Address under which devices reach the broker, for what is flashed into them: mqtts://iot.example.com:8883. Empty: none is written.',
    ),
  KEY_PENDING_H: count(1, 8784)
    .default(24)
    .describe('A new key that a device asked for ends when it was not used for so long.'),
  KEY_GRACE_S: count(1, 31_622_400)
    .default(86_400)
    .describe('How long the old key of a device is good for once it uses the new one.'),
  KEYS_WITHOUT_TLS: z
    .enum(['yes', 'no'])
    .default('no')
    .describe(
      'Whether keys are also sent on connections without TLS from other machines, where anybody on the way can read them.',
    ),
  CLAIM_KEYS_MAX: count(0, 10_000)
    .default(100)
    .describe('Claim keys of one organization that are neither revoked nor expired.'),
  CLAIMS_WAITING_MAX: count(1, 1_000_000)
    .default(1000)
    .describe('Boards that may wait for approval with one claim key; more are refused.'),
  DEVICE_BATCH_MAX: count(1, 10_000)
    .default(1000)
    .describe('Devices that one request may make with their keys.'),
};
