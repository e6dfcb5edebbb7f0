import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { configSchema } from '../../config.ts';
import { eventually } from '../support/app.ts';
import {
  faultless,
  healthOf,
  openOwnServer,
  spoolIsEmpty,
  startDurableApp,
  startNumberedLoad,
  type DurableApp,
  type OwnServer,
} from '../support/own-database.ts';

/** Without the spool this file says nothing: durability-outage.test.ts has that case. */
const hasSpool = 'SPOOL_BYTES_MAX' in configSchema.shape;

let own: OwnServer;
let app: DurableApp;
beforeAll(async () => {
  own = await openOwnServer();
});
beforeEach(async () => {
  app = await startDurableApp(own, { SPOOL_AFTER_MS: '200', QUEUE_ROWS_MAX: '1000' });
});
afterEach(async () => {
  await own.server.thaw();
  await own.server.start();
  await app.stop();
});
afterAll(() => own.close());

describe.runIf(hasSpool)('with a spool, a database', { timeout: 120_000 }, () => {
  for (const given of [
    { id: 'D-04', fault: 'is killed', strike: () => own.server.kill() },
    { id: 'D-05', fault: 'is stopped', strike: () => own.server.stop('immediate') },
    { id: 'D-08', fault: 'hangs', strike: () => own.server.freeze() },
  ]) {
    it(`${given.id} that ${given.fault} costs no PUBACK, and all is stored once when it is back`, async () => {
      const { fleet, settle } = await startNumberedLoad(app);
      await eventually('load', () => fleet.acknowledged > 200);
      await given.strike();
      const before = fleet.acknowledged;
      await eventually(
        'PUBACKs after the fsync in the spool',
        () => fleet.acknowledged > before + 500,
        20_000,
      );
      expect(await app.metric('puback_spool_messages')).toBeGreaterThan(0);
      expect(await healthOf(app)).toMatchObject({ live: 200 });
      await own.server.thaw();
      await own.server.start();
      await eventually('an empty spool', () => spoolIsEmpty(app), 20_000);
      const back = fleet.acknowledged;
      await eventually('PUBACKs after COMMIT', () => fleet.acknowledged > back + 100);
      expect(await settle()).toMatchObject(faultless);
      expect(await spoolIsEmpty(app)).toBe(true);
    });
  }

  it('D-11 that is read-only gets everything later', async () => {
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    await setReadOnly('on');
    const before = fleet.acknowledged;
    await eventually('PUBACKs', () => fleet.acknowledged > before + 500, 20_000);
    expect(await app.metric('puback_spool_messages')).toBeGreaterThan(0);
    await setReadOnly('off');
    await eventually('an empty spool', () => spoolIsEmpty(app), 20_000);
    expect(await settle()).toMatchObject(faultless);
  });
});

async function setReadOnly(state: 'on' | 'off'): Promise<void> {
  await app.query(`ALTER SYSTEM SET default_transaction_read_only = ${state}`);
  await app.query('SELECT pg_reload_conf()');
}
