import { nothingToHeal, type Fault } from './fault.ts';

/**
 * A device publishes a reading that a constraint of the database refuses, among those of all others: it
 * must go to quarantine and cost nobody else anything.
 */
export const refuseRow: Fault = {
  name: 'refuse-row',
  durationMs: 0,
  needsServer: true,
  apply({ poison }) {
    poison?.publish();
    return Promise.resolve(nothingToHeal);
  },
};
