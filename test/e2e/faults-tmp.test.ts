import { createHash } from 'node:crypto';
import { expect, it, vi } from 'vitest';
import { startTestApp } from '../support/app.ts';
import { connectReader } from '../support/reader.ts';
it('x', { timeout: 60000 }, async () => {
  const app = await startTestApp();
  const pool = app.testDatabase.database.pool;
  const { organization_id: o, device_id: d } = (await pool.query(`SELECT organization_id, device_id FROM device`)).rows[0];
  const forge = (f: unknown[], ...p: unknown[]) => Buffer.from(JSON.stringify([createHash('sha256').update(JSON.stringify(f)).digest('base64url').slice(0, 11), ...p])).toString('base64url');
  const q = ['readings', d, null, null, null, 'desc'];
  for (const p of [[9e15, 1], [0, 2 ** 40], [-9e15, 1], [0, -1]] as const) console.log(p, (await app.api('GET', `/api/v1/devices/first/readings?cursor=${forge(q, ...p)}`)).status);
  for (const [path, f] of [['devices', ['devices', o]], ['metrics', ['metrics', o]], ['devices/first/keys', ['keys', o, 'first']]] as const)
    console.log(path, (await app.api('GET', `/api/v1/${path}?cursor=${forge([...f], 'a\u0000')}`)).status);
  console.log('metric=%00', (await app.api('GET', '/api/v1/devices/first/readings?metric=%00')).status);
  console.log('metric=lone surrogate', (await app.api('GET', '/api/v1/devices/first/readings?metric=%ed%a0%80')).status);
  // clock
  const body = { name: 'r', scopes: ['data'], devices: null, expiresAt: null };
  const { key } = (await app.api('POST', '/api/v1/keys', body)).body;
  const r = await connectReader(app.addresses.mqttUrl, key, { clientId: 'arch', clean: false });
  await r.client.subscribeAsync('v1/demo/+/data', { qos: 1 });
  await r.client.endAsync();
  const dev = await app.connect(app.deviceKey);
  const real = Date.now;
  let shift = 0;
  Date.now = () => real() + shift;
  for (let n = 0; n < 3; n += 1) await dev.publishAsync('v1/me/data/z', String(n), { qos: 1 });
  console.log('queued', await app.metric('puback_broker_store_queued_messages'));
  shift = 25 * 3600_000;
  await dev.publishAsync('v1/me/data/z', '3', { qos: 1 });
  console.log('queued after +25 h', await app.metric('puback_broker_store_queued_messages'), await app.metric('puback_broker_store_dropped_messages_total{reason="age"}'));
  shift = 0;
  // 100 messages a second for 3 s, then the clock goes back 3 s, and again 100 a second for 3 s
  const steady = async () => {
    const sent: Promise<unknown>[] = [];
    for (let n = 0; n < 300; n += 1) {
      sent.push(dev.publishAsync('v1/me/data/y', '1', { qos: 1 }));
      await new Promise((s) => setTimeout(s, 9));
    }
    await Promise.all(sent);
  };
  const start = real();
  await steady();
  shift = start - real();
  await steady();
  const { rows } = await pool.query(`SELECT count(*)::int4 AS c FROM v_reading WHERE metric = 'y'`);
  console.log('acknowledged 600, stored', rows[0].c, 'duplicates', await app.metric('puback_ingest_duplicate_rows_total'));
  Date.now = real;
  await app.stop();
});
