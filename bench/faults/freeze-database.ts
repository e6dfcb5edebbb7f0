import type { Fault } from './fault.ts';

/** Every process of the database is stopped by SIGSTOP: connections stay open and nothing answers. */
export function freezeDatabase(durationMs: number): Fault {
  return {
    name: 'freeze-database',
    durationMs,
    needsServer: true,
    async apply({ server }) {
      await server?.freeze();
      return async () => server?.thaw();
    },
  };
}
