import { mountObstacle } from '../scratch-disk.ts';
import type { Fault } from './fault.ts';

/** The disk of the spool is full while the database is down: nothing can be kept, so nothing may be acknowledged. */
export function fillSpoolDisk(durationMs: number): Fault {
  return {
    name: 'fill-spool-disk',
    durationMs,
    needsServer: true,
    obstacle: mountObstacle,
    async apply({ server, spoolDisk }) {
      await server?.stop('immediate');
      await spoolDisk?.fill();
      return async () => {
        await spoolDisk?.free();
        await server?.start();
      };
    },
  };
}
