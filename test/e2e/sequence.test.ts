import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';
import { connectRaw, type RawClient } from '../support/raw-client.ts';

/** Publishes at QoS 1 and waits for the PUBACK. */
async function publish(client: RawClient, topic: string, payload: string): Promise<void> {
  const messageId = client.received.length + 1;
  client.send({ cmd: 'publish', topic, payload, qos: 1, messageId, dup: false, retain: false });
  await eventually('PUBACK', () =>
    client.received.some((packet) => packet.cmd === 'puback' && packet.messageId === messageId),
  );
}

/** The last greeting that came. */
function greetingOf(client: RawClient): { seq?: number } | undefined {
  const greetings = client.received.flatMap((packet) =>
    packet.cmd === 'publish' && packet.topic === 'v1/me/in/hello' ? [packet.payload] : [],
  );
  const last = greetings.at(-1);
  return last === undefined ? undefined : (JSON.parse(String(last)) as { seq?: number });
}

describe('seq', () => {
  let app: TestApp;
  beforeAll(async () => {
    app = await startTestApp();
  });
  afterAll(() => app.stop());

  const countReadings = async (): Promise<number> => {
    const { body } = await app.api('GET', '/api/v1/devices/first/readings');
    return body.data.length as number;
  };

  it('makes what is sent again over another connection stored once, and the greeting names it', async () => {
    const first = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    await publish(first, 'v1/me/hello', '{"boot":7}');
    for (const seq of [1, 2, 4]) await publish(first, 'v1/me/data', `{"seq":${seq},"temp":21.5}`);
    expect(await countReadings()).toBe(3);
    first.end();
    await first.closed;
    const second = await connectRaw(app.addresses.mqttUrl, app.deviceKey);
    second.send({
      cmd: 'subscribe',
      messageId: 9,
      subscriptions: [{ topic: 'v1/me/in/+', qos: 0 }],
    });
    await publish(second, 'v1/me/hello', '{"boot":7}');
    await eventually('a greeting that names it', () => greetingOf(second)?.seq === 2);
    for (const seq of [3, 4]) await publish(second, 'v1/me/data', `{"seq":${seq},"temp":21.5}`);
    expect(await countReadings()).toBe(4);
    await publish(second, 'v1/me/hello', '{"boot":7}');
    await eventually('the next greeting', () => greetingOf(second)?.seq === 4);
    expect(await app.metric('puback_ingest_duplicate_messages_total')).toBe(1);
    second.end();
  });
});
