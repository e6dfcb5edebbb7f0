import type { CommandState } from './command.ts';

/**
 * What can happen to a command. `place`: it enters the slot. `send`: the slot was written to a connection.
 * `run`, `ok`, `err`, `no`, `dup`: what its device answers; `outdated`: it says that the command has
 * expired. `refuse`: it cannot be sent. `lose`: the device rebooted in the middle; `repeat`: it did, and
 * the command may be sent again. `silence`: nothing was heard of it for too long. `succeed`, `fail`: something
 * else than the answer of its device tells.
 */
export type CommandInput =
  | 'approve'
  | 'place'
  | 'refuse'
  | 'send'
  | 'run'
  | 'ok'
  | 'err'
  | 'no'
  | 'outdated'
  | 'dup'
  | 'expire'
  | 'cancel'
  | 'lose'
  | 'repeat'
  | 'silence'
  | 'succeed'
  | 'fail';

type Steps = Readonly<Partial<Record<CommandInput, CommandState>>>;

const SETTLED: Steps = { succeed: 'succeeded', fail: 'failed' };
const IN_SLOT: Steps = {
  ...SETTLED,
  run: 'running',
  ok: 'succeeded',
  err: 'failed',
  no: 'rejected',
  outdated: 'expired',
  dup: 'unknown',
  refuse: 'rejected',
  expire: 'expired',
  cancel: 'cancelled',
};
/** Puback judged without the device; what the device says of it later counts. */
const JUDGED: Steps = { ok: 'succeeded', err: 'failed' };

const STEPS: Readonly<Record<CommandState, Steps>> = {
  awaiting_approval: { ...SETTLED, approve: 'queued', expire: 'expired', cancel: 'cancelled' },
  queued: {
    ...SETTLED,
    place: 'published',
    refuse: 'rejected',
    expire: 'expired',
    cancel: 'cancelled',
  },
  published: { ...IN_SLOT, send: 'sent' },
  sent: IN_SLOT,
  running: {
    ...SETTLED,
    run: 'running',
    ok: 'succeeded',
    err: 'failed',
    no: 'rejected',
    outdated: 'rejected',
    dup: 'unknown',
    lose: 'failed',
    repeat: 'queued',
    silence: 'unknown',
  },
  succeeded: {},
  failed: {},
  rejected: {},
  expired: JUDGED,
  cancelled: JUDGED,
  unknown: JUDGED,
};

/** The state of a command behind an input; null: it stays as it is. Pure. */
export function step(state: CommandState, input: CommandInput): CommandState | null {
  return STEPS[state][input] ?? null;
}
