import { ToolFailedError } from '../../errors.ts';
import { nothingToHeal, type Fault } from './fault.ts';

/** SIGKILL for the program, which is started again at once, as an init system would. */
export const killProgram: Fault = {
  name: 'kill-program',
  durationMs: 0,
  needsServer: false,
  async apply({ program }) {
    await program.end('SIGKILL');
    return nothingToHeal;
  },
};

/** SIGTERM for the program, which must end by itself with status 0. */
export const restartProgram: Fault = {
  name: 'restart-program',
  durationMs: 0,
  needsServer: false,
  standsAlone: true,
  async apply({ program }) {
    const exit = await program.end('SIGTERM');
    if (exit.code === 0) return nothingToHeal;
    throw new ToolFailedError(
      `SIGTERM did not end the program with status 0: ${JSON.stringify(exit)}`,
    );
  },
};
