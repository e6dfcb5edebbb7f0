import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, startTestApp, type TestApp } from '../support/app.ts';

let t: TestApp;
let server: Server;
const SECRET = 'the key of the webhook';
const requests: { body: string; signature: string; at: number }[] = [];
beforeAll(async () => {
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const signature = String(request.headers['x-puback-signature']);
      const body = Buffer.concat(chunks).toString('utf8');
      requests.push({ body, signature, at: performance.now() });
      response.end('ok');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t = await startTestApp({
    NOTIFY_PRIVATE_ADDRESSES: '127.0.0.0/8',
    NOTIFY_HTTP_ALLOWED: 'yes',
    NOTIFY_RECEIVER_MESSAGES_PER_H: '10000',
  });
});
afterAll(async () => {
  await t.stop();
  server.closeAllConnections();
  server.close();
});

describe('a webhook', () => {
  it('is told of a reading, signed, and of the end; and all can be looked up', async () => {
    const { port } = server.address() as AddressInfo;
    const receiver = await t.api('POST', '/api/v1/receivers', {
      name: 'pager',
      kind: 'webhook',
      settings: { url: `http://127.0.0.1:${port}/` },
      secret: SECRET,
    });
    expect(receiver.status).toBe(201);
    const route = { name: 'all', receivers: [receiver.body.id], groupWait: '0s' };
    const routed = await t.api('POST', '/api/v1/notification-routes', {
      ...route,
      groupBy: ['alertname'],
      groupInterval: '1s',
    });
    expect(routed.status).toBe(201);
    const thresholds = Array.from({ length: 20 }, (_, at) => 50 + at);
    for (const value of thresholds) {
      const rule = await t.api('POST', '/api/v1/rules', {
        name: `above ${value}`,
        severity: 'high',
        scope: { devices: ['first'] },
        when: { metric: 'temp', op: '>', value },
      });
      expect(rule.status).toBe(201);
    }
    const device = await t.connect(t.deviceKey);
    const publish = (temp: number) =>
      device.publishAsync('v1/me/data', JSON.stringify({ temp }), { qos: 1 });
    await publish(20);
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const [at, value] of thresholds.entries()) {
      await publish(value + 0.5);
      await eventually(`the request of ${value}`, () => requests.length > at);
    }
    const first = JSON.parse(requests[0]?.body ?? '{}');
    expect(first).toMatchObject({ kind: 'alert', state: 'firing', truncated: 0 });
    expect(first.alerts).toMatchObject([{ rule: 'above 50', device: 'first', value: 50.5 }]);
    expect(requests[0]?.signature).toMatch(/^t=\d+,v1=[0-9a-f]{64}$/);
    await publish(20);
    await eventually('the ends', () => requests.length >= 40);
    const states = requests.slice(20).map(({ body }) => JSON.parse(body).state);
    expect(new Set(states)).toEqual(new Set(['resolved']));
    const { alertId } = first.alerts[0];
    const told = await t.api('GET', `/api/v1/notifications?alert=${alertId}`);
    expect(told.body.data).toMatchObject([
      { state: 'sent', receiver: 'pager' },
      { state: 'sent', receiver: 'pager' },
    ]);
    expect(await t.metric('puback_notify_attempts_total{kind="webhook",outcome="sent"}')).toBe(40);
    expect(JSON.stringify(requests)).not.toContain(SECRET);
  });
});
