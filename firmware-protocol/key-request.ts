import type { Buffer } from 'node:buffer';
import { z } from 'zod';
import { Refusal } from './contract.ts';
import { readObject } from './json-object.ts';

/** Largest payload of channel `key`, in bytes. */
export const KEY_REQUEST_BYTES_MAX = 256;
/** Shape of the user name of a board that claims its name: becomes the device's name. */
export const HARDWARE_ID = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,47}$/;

/** The payload of channel `key` as a JSON value. */
export const keyRequestSchema = z.object({
  mdl: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.:-]{0,30}$/)
    .exactOptional()
    .describe('Model of a board that claims its name.'),
});

/** A board asks for a key. */
export type KeyRequest = z.infer<typeof keyRequestSchema>;

/** What `in/key` may say: a key, to ask again later, or no. */
export const KEY_ANSWERS = ['ok', 'wait', 'no'] as const;

/** What a board is told on `in/key`: its key, when to ask again, or that it gets none. */
export type KeyAnswer =
  | { readonly st: 'ok'; readonly user: string; readonly key: string }
  | { readonly st: 'wait'; readonly retry: number }
  | { readonly st: 'no'; readonly code: KeyDenial };

/**
 * Why a board gets no key: its connection is not encrypted, nobody asked it to change its key, it has
 * connected with a key that another has replaced, the name is taken by a device that has connected, the
 * claim key is used up or ended, its model is not one of the claim key, somebody said no, or its name is
 * none.
 */
export const KEY_DENIALS = [
  'tls',
  'unasked',
  'retiring',
  'claimed',
  'quota',
  'expired',
  'model',
  'denied',
  'name',
] as const;
/** One of {@link KEY_DENIALS}. */
export type KeyDenial = (typeof KEY_DENIALS)[number];

/** Decodes a message of channel `key`; no payload is the same as `{}`. Never throws. */
export function decodeKeyRequest(payload: Buffer): KeyRequest | Refusal {
  return payload.length === 0 ? {} : readObject(payload, keyRequestSchema, KEY_REQUEST_BYTES_MAX);
}

/** Tells a {@link Refusal} from what was read. */
export function isRefusal(outcome: object): outcome is Refusal {
  return outcome instanceof Refusal;
}
