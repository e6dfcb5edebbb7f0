import { z } from 'zod';
import type { KeyRotations } from '../../registry/keys/key-rotations.ts';
import { ROTATION_STATES, type KeyRotation } from '../../registry/keys/rotation-row.ts';
import { defineRoute, type Route } from '../route.ts';
import { deviceParams, durationText, timeAnswer } from '../schemas.ts';
import { authorOf, devicePath } from './devices.ts';

const MINUTE_MICROS = 60_000_000;
const DAY_MICROS = 86_400_000_000;

const rotationAnswer = z.object({
  device: z.string(),
  state: z
    .enum(ROTATION_STATES)
    .describe(
      'asked: the device is to ask for its new key; issued: it was given one; retiring: it uses it, and the old one ends soon; done: the old one has ended; expired: it did not use a new key in time.',
    ),
  oldKeyId: z.string(),
  newKeyId: z.string().nullable().describe('Null until the device has asked for it.'),
  commandId: z.string().nullable().describe('Of sys.rekey.'),
  campaignId: z.string().nullable(),
  askedAt: timeAnswer,
  issuedAt: timeAnswer.nullable(),
  activatedAt: timeAnswer.nullable().describe('When the new key was used first.'),
  oldKeyUsedAt: timeAnswer
    .nullable()
    .describe('When the old key was used last though the new one was in use; null: it was not.'),
  endsAt: timeAnswer.describe(
    'When the new key must have been used; once it was, when the old one ends.',
  ),
});

/** The routes that change the key of a device over MQTT. */
export function keyRotationRoutes(rotations: KeyRotations): Route[] {
  return [
    defineRoute({
      method: 'POST',
      path: '/api/v1/devices/{device}/keys/rotate',
      role: 'admin',
      tag: 'keys',
      summary: 'Ask a device to change its key',
      description: `The device is sent sys.rekey, asks for a key over its encrypted connection, keeps it and connects
with it. From then on the old one is good for KEY_GRACE_S. Needs firmware that knows sys.rekey.`,
      params: deviceParams,
      body: z
        .strictObject({
          ttl: durationText
            .refine((micros) => micros >= MINUTE_MICROS && micros <= 366 * DAY_MICROS, {
              error: 'must be from 1m to 366d',
            })
            .default(DAY_MICROS)
            .describe('How long the device may take to ask; 1d when left out.'),
        })
        .nullish(),
      answers: { 202: { description: 'The device is asked.', schema: rotationAnswer } },
      async handle({ principal, params: { device }, body }) {
        const ttlMs = (body?.ttl ?? DAY_MICROS) / 1000;
        const request = { device, campaignId: null, ttlMs };
        const rotation = await rotations.rotate(authorOf(principal), request);
        return {
          status: 202,
          body: bodyOf(device, rotation),
          headers: { location: `${devicePath(device)}/rotation` },
        };
      },
    }),
    defineRoute({
      method: 'GET',
      path: '/api/v1/devices/{device}/rotation',
      role: 'admin',
      tag: 'keys',
      summary: 'Get the last change of the key of a device',
      params: deviceParams,
      answers: { 200: { description: 'The change.', schema: rotationAnswer } },
      async handle({ principal: { organizationId }, params: { device } }) {
        return { status: 200, body: bodyOf(device, await rotations.get(organizationId, device)) };
      },
    }),
    defineRoute({
      method: 'DELETE',
      path: '/api/v1/devices/{device}/rotation',
      role: 'admin',
      tag: 'keys',
      summary: 'Roll a change of the key of a device back',
      description: `The new key ends at once, and the old one stays. Once the device uses the new one (retiring), this
is for devices that still have the old one: oldKeyUsedAt shows that. Another device would be locked out.`,
      params: deviceParams,
      answers: { 204: { description: 'Rolled back.', schema: null } },
      async handle({ principal, params: { device } }) {
        await rotations.rollBack(authorOf(principal), device);
        return { status: 204 };
      },
    }),
  ];
}

function bodyOf(device: string, rotation: KeyRotation): z.input<typeof rotationAnswer> {
  const { state, oldKeyId, newKeyId, commandId, campaignId } = rotation;
  return {
    device,
    ...{ state, oldKeyId, newKeyId, commandId, campaignId },
    askedAt: rotation.askedAt.toISOString(),
    issuedAt: rotation.issuedAt?.toISOString() ?? null,
    activatedAt: rotation.activatedAt?.toISOString() ?? null,
    oldKeyUsedAt: rotation.oldKeyUsedAt?.toISOString() ?? null,
    endsAt: rotation.endsAt.toISOString(),
  };
}
