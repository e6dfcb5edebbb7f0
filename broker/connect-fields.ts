import type { ConnectPacket } from 'aedes';

/** The parts of a CONNECT that are decided on and rewritten. */
export type ConnectFields = Pick<
  ConnectPacket,
  'clientId' | 'clean' | 'keepalive' | 'username' | 'password' | 'will'
>;
