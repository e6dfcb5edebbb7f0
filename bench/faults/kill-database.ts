import type { Fault, FaultContext, Heal } from './fault.ts';

/** How long an init system takes to start it again. */
const DOWN_MS = 1000;

/** SIGKILL for the database: its clients are cut and it recovers at the next start. */
export const killDatabase: Fault = {
  name: 'kill-database',
  durationMs: DOWN_MS,
  needsServer: false,
  apply: strikeDatabase,
};

/** SIGKILL for the database and for the program. */
export const killBoth: Fault = {
  name: 'kill-both',
  durationMs: DOWN_MS,
  needsServer: false,
  async apply(context) {
    const heal = await strikeDatabase(context);
    await context.program.end('SIGKILL');
    return heal;
  },
};

/** The embedded database is started again by the program. */
async function strikeDatabase({ program, server }: FaultContext): Promise<Heal> {
  if (server === null) await program.killEmbeddedDatabase();
  else await server.kill();
  return async () => server?.start();
}
