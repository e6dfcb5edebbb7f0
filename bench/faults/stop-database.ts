import type { Fault } from './fault.ts';

/** The database is stopped without a last checkpoint, as by a machine that goes down, and comes back late. */
export function stopDatabase(durationMs: number): Fault {
  return {
    name: 'stop-database',
    durationMs,
    needsServer: true,
    async apply({ server }) {
      await server?.stop('immediate');
      return async () => server?.start();
    },
  };
}
