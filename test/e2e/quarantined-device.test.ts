import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectDevice, eventually, startTestApp, type TestApp } from '../support/app.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.stop());

describe('a device that is in quarantine as a whole', () => {
  it('is greeted, and nothing that it says is believed or shown to anybody', async () => {
    const key = await app.addDevice('suspect');
    const path = '/api/v1/devices/suspect';
    const reader = { name: 'reader', scopes: ['raw', 'data', 'status', 'event', 'log'] };
    const { body: made } = await app.api('POST', '/api/v1/keys', reader);
    const subscriber = await app.connect(made.key);
    const shown: string[] = [];
    subscriber.on('message', (topic, payload) => shown.push(`${topic} ${payload.toString()}`));
    for (const stream of ['data', 'hello', 'status', 'log', 'event/+']) {
      await subscriber.subscribeAsync(`v1/demo/suspect/${stream}`, { qos: 1 });
    }
    const device = await connectDevice(app.addresses.mqttUrl, key);
    const told: string[] = [];
    device.on('message', (topic) => told.push(topic));
    await device.subscribeAsync('v1/me/in/#', { qos: 1 });
    const send = (channel: string, payload: string) =>
      device.publishAsync(`v1/me/${channel}`, payload, { qos: 1 });
    await send('hello', '{"fw":"right","boot":1,"u":{"temp":"Cel"}}');
    await eventually('the hello is shown', async () =>
      shown.some((line) => line.includes('right')),
    );

    await app.api('PATCH', path, { quarantined: true });
    const count = shown.length;
    const greeted = told.length;
    await send('hello', '{"fw":"forged","boot":2,"up":1000,"u":{"temp":"K","rh":"%"}}');
    await send('data', '{"temp":1,"rh":2,"seq":1}');
    await send('log', 'E (1) forged: forged');
    await send('event/forged', '{}');
    await eventually('it is greeted', async () => told.length > greeted);
    const { body } = await app.api('GET', `${path}/diagnostics`);
    expect(JSON.stringify(body.presence)).not.toContain('forged');
    expect(JSON.stringify(body.presence)).toContain('right');

    await app.api('PATCH', path, { quarantined: false });
    // Named before: the boot holds, and is believed now.
    await send('data', '{"temp":3,"rh":4,"seq":2}');
    await eventually('data is shown again', async () =>
      shown.some((line) => line.includes('"rh":4')),
    );
    expect(shown.slice(count).filter((line) => line.includes('forged'))).toEqual([]);
    expect(shown.slice(count).every((line) => line.includes('"rh":4'))).toBe(true);
    const { body: completeness } = await app.api('GET', `${path}/completeness`);
    expect(completeness.boots.map(({ boot }: { boot: number }) => boot)).toContain(2);
    const unitOf = async (metric: string): Promise<string | null> => {
      const { body: metrics } = await app.api('GET', '/api/v1/metrics');
      return metrics.data.find(({ name }: { name: string }) => name === metric).unit;
    };
    await eventually('the unit is known', async () => (await unitOf('temp')) === 'Cel');
    expect(await unitOf('rh')).toBeNull();
    device.end(true);
  });
});
