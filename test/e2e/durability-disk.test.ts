import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { join } from 'node:path';
import { configSchema } from '../../config.ts';
import { mountObstacle, ScratchDisk } from '../../bench/scratch-disk.ts';
import { makeScratchFolder, type ScratchFolder } from '../../bench/scratch-folder.ts';
import { eventually } from '../support/app.ts';
import {
  faultless,
  healthOf,
  openOwnServer,
  spoolIsEmpty,
  startDurableApp,
  startNumberedLoad,
  type OwnServer,
} from '../support/own-database.ts';

const obstacle = await mountObstacle();
if (obstacle !== null) console.warn(`SKIPPED: D-06, a full disk: ${obstacle}`);
const hasSpool = 'SPOOL_BYTES_MAX' in configSchema.shape;

/** A server that fits a small disk, with room for a little more. */
const SMALL = { max_wal_size: '32MB', min_wal_size: '32MB', shared_buffers: '16MB' };
const DISK_MEGABYTES = 192;

describe.runIf(obstacle === null)('D-06 the disk', { timeout: 90_000 }, () => {
  let folder: ScratchFolder;
  let disk: ScratchDisk;
  let own: OwnServer;
  beforeAll(async () => {
    folder = await makeScratchFolder('small-disk');
    disk = await ScratchDisk.mount(join(folder.path, 'disk'), DISK_MEGABYTES);
    own = await openOwnServer(SMALL, join(disk.path, 'server'));
  });
  afterAll(async () => {
    await disk.free();
    await own.close();
    disk.unmount();
    await folder.remove();
  });

  it('of the database full: nothing is acknowledged, readiness says so, and it goes on by itself', async () => {
    const app = await startDurableApp(own, { SPOOL_BYTES_MAX: '0' });
    const { fleet, settle } = await startNumberedLoad(app);
    await eventually('load', () => fleet.acknowledged > 200);
    await disk.fill();
    await eventually('a failing COMMIT', async () => (await healthOf(app)).ready === 503, 30_000);
    let before = NaN;
    await eventually('an end of PUBACKs', async () => {
      before = fleet.acknowledged;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return fleet.acknowledged === before;
    });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(fleet.acknowledged).toBe(before);
    const { live, failing } = await healthOf(app);
    expect(live).toBe(200);
    expect(failing.map(({ name }) => name)).toContain('ingest');
    await disk.free();
    // PostgreSQL itself may have given up over its log: it is started as an init system would.
    await own.server.start();
    await eventually('PUBACKs', () => fleet.acknowledged > before + 100, 20_000);
    expect(await settle()).toMatchObject(faultless);
    await app.stop();
  });

  it.runIf(hasSpool)(
    'of the database full: what is spooled elsewhere is acknowledged and stored later',
    async () => {
      const app = await startDurableApp(own, { SPOOL_AFTER_MS: '200' });
      const { fleet, settle } = await startNumberedLoad(app);
      await eventually('load', () => fleet.acknowledged > 200);
      await disk.fill();
      await eventually('messages in the spool', async () => !(await spoolIsEmpty(app)), 30_000);
      const before = fleet.acknowledged;
      await eventually('PUBACKs', () => fleet.acknowledged > before + 200, 20_000);
      await disk.free();
      await own.server.start();
      await eventually('an empty spool', () => spoolIsEmpty(app), 20_000);
      expect(await settle()).toMatchObject(faultless);
      await app.stop();
    },
  );

  it.runIf(hasSpool)(
    'of the spool full while the database is away: nothing is acknowledged, and it goes on by itself',
    async () => {
      const spoolFolder = await makeScratchFolder('spool');
      const spoolDisk = await ScratchDisk.mount(join(spoolFolder.dataDir, 'spool'), 64);
      try {
        const app = await startDurableApp(own, {
          DATA_DIR: spoolFolder.dataDir,
          SPOOL_AFTER_MS: '200',
          QUEUE_ROWS_MAX: '1000',
        });
        const { fleet, settle } = await startNumberedLoad(app);
        await eventually('load', () => fleet.acknowledged > 200);
        await spoolDisk.fill();
        await own.server.stop('immediate');
        await eventually('no PUBACK any more', async () => {
          const before = fleet.acknowledged;
          await new Promise((resolve) => setTimeout(resolve, 700));
          return fleet.acknowledged === before;
        });
        expect(await app.metric('puback_spool_failing')).toBe(1);
        await spoolDisk.free();
        const before = fleet.acknowledged;
        await eventually('PUBACKs from the spool', () => fleet.acknowledged > before + 100, 20_000);
        await own.server.start();
        await eventually('an empty spool', () => spoolIsEmpty(app), 20_000);
        expect(await settle()).toMatchObject(faultless);
        await app.stop();
      } finally {
        spoolDisk.unmount();
        await spoolFolder.remove();
      }
    },
  );
});
