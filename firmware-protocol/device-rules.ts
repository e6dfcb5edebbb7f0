/*
 * Times that firmware keeps to. The broker does not enforce them; they are generated for firmware and
 * held by the conformance kit.
 */

/** First wait before a new attempt to connect is a random time up to this, in milliseconds. */
export const BACKOFF_MIN_MS = 1000;
/** It doubles with each attempt up to this, in milliseconds. */
export const BACKOFF_MAX_MS = 300_000;
/** Least wait after CONNACK 4 and 5: nothing changes there within seconds. Milliseconds. */
export const REFUSED_WAIT_MS = 60_000;
/** How long a board that sleeps waits for its greeting before it sleeps without one, in milliseconds. */
export const GREETING_WAIT_MS = 3000;
/** How long a board that sleeps stays awake for commands, in milliseconds; the slot is retained. */
export const AWAKE_MAX_MS = 10_000;
/** Longest keep alive that counts, in seconds; 0 and more count as this. */
export const KEEP_ALIVE_S_MAX = 1200;
/** Shortest keep alive that counts, in seconds. */
export const KEEP_ALIVE_S_MIN = 15;
/** Numbers of `seq` that are remembered: no more messages may be under way without acknowledgement. */
export const SEQUENCE_WINDOW = 64;
