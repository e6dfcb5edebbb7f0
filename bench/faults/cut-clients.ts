import { nothingToHeal, type Fault } from './fault.ts';

/** Every connection of a device is reset, with whatever is under way on it. */
export const cutClients: Fault = {
  name: 'cut-clients',
  durationMs: 0,
  needsServer: false,
  apply({ mqttProxy }) {
    mqttProxy.cutAll();
    return Promise.resolve(nothingToHeal);
  },
};
