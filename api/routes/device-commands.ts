import { z } from 'zod';
import { CommandAnswerInvalidError } from '../../command-errors.ts';
import type { AnsweringDevice } from '../../commands/command.ts';
import type { DevicePolls } from '../../commands/device-polls.ts';
import { MessageNotStoredError, MessageRateError, RequestInvalidError } from '../../errors.ts';
import { ACK_BYTES_MAX, decodeAck } from '../../firmware-protocol/ack.ts';
import { Refusal } from '../../firmware-protocol/contract.ts';
import { slotCommandSchema } from '../../firmware-protocol/downlink-schema.ts';
import type { DevicePrincipal } from '../../registry/principal.ts';
import { defineRoute, type Route } from '../route.ts';

const RATE = 'more than 20 requests a second';

const polledAnswer = z.object({
  command: slotCommandSchema.nullable().describe('As in the slot in/cmd; null: nothing waits.'),
  waiting: z.number().int().describe('Commands that wait, this one included.'),
});

/** The routes of devices that ask for their commands in place of reading their slot. */
export function deviceCommandRoutes(polls: Pick<DevicePolls, 'next' | 'acknowledge'>): Route[] {
  return [nextRoute(polls), ackRoute(polls)];
}

function nextRoute(polls: Pick<DevicePolls, 'next'>): Route {
  return defineRoute({
    method: 'GET',
    path: '/api/v1/device/commands',
    role: 'device',
    tag: 'commands',
    summary: 'The command that waits for the device whose key is sent',
    description: `For devices without MQTT. The same command comes until it is answered; the rules are those
of the slot: execute it only when its id is above that of the last one, and not from "exp" on.`,
    answers: { 200: { description: 'The head of its queue.', schema: polledAnswer } },
    async handle({ principal }) {
      const command = await polls.next(deviceOf(principal));
      if (command === 'rate') throw new MessageRateError(RATE);
      return { status: 200, body: { command, waiting: command?.n ?? 0 } };
    },
  });
}

function ackRoute(polls: Pick<DevicePolls, 'acknowledge'>): Route {
  return defineRoute({
    method: 'POST',
    path: '/api/v1/device/commands/ack',
    role: 'device',
    tag: 'commands',
    summary: 'What became of a command, from the device whose key is sent',
    description: `The body is what is published on ack over MQTT: {"id":…,"st":"ok"}. 204 means that it is
stored; the next command can be fetched. After 503 send it again.`,
    input: 'bytes',
    bodyBytesMax: ACK_BYTES_MAX,
    answers: { 204: { description: 'Stored.', schema: null } },
    async handle({ principal, body }) {
      if (!Buffer.isBuffer(body) || body.length === 0) {
        throw new RequestInvalidError(['body: there is none']);
      }
      const ack = decodeAck(body);
      if (ack instanceof Refusal) {
        throw new CommandAnswerInvalidError(`${ack.code}: ${ack.detail}`);
      }
      switch (await polls.acknowledge(deviceOf(principal), ack)) {
        case 'stored':
          return { status: 204 };
        case 'rate':
          throw new MessageRateError(`the answer was not taken: ${RATE}`);
        case 'quarantined':
          throw new CommandAnswerInvalidError('the device is in quarantine: it is not believed');
        case 'unavailable':
          throw new MessageNotStoredError('the database did not take it in time');
      }
    },
  });
}

function deviceOf(principal: DevicePrincipal): AnsweringDevice {
  const { organizationId, organization, deviceId, device } = principal;
  return { organizationId, organization, deviceId, device };
}
