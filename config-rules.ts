import { isIP } from 'node:net';
import { z } from 'zod';

const count = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

/** The settings of alert rules and notifications; a part of `configSchema`. */
export const ruleSettings = {
  RULES_MAX: count(1, 100_000)
    .default(1000)
    .describe('Alert rules of an organization; more are refused.'),
  SILENCES_MAX: count(1, 100_000)
    .default(1000)
    .describe(
      'Silences and maintenance windows of an organization that have not ended; more are refused.',
    ),
  RULE_EVALUATION_US_MAX: count(10, 1_000_000)
    .default(1000)
    .describe('Longest mean time of one evaluation of a rule; one that takes longer is suspended.'),
  RULE_WINDOW_SAMPLES_MAX: count(16, 100_000)
    .default(4096)
    .describe('Samples that a window of a rule keeps for a device; older ones fall out of it.'),
  RULE_TIMER_SLACK_MS: count(0, 60_000)
    .default(1000)
    .describe(
      'How long a timer of a rule waits for a reading that is still under way before it goes by the one it has.',
    ),
  RULE_NO_DATA_GRACE_S: count(1, 86_400)
    .default(330)
    .describe(
      'How long devices may take to come back after an outage of the program or its database, before rules find that they are silent. Firmware backs off for up to 300 s.',
    ),
  RULE_TRANSITIONS_QUEUE_MAX: count(100, 1_000_000)
    .default(20_000)
    .describe('Steps of alerts that may wait to be written; beyond it evaluation pauses.'),
  RULE_DEVICE_READINGS_HELD_MAX: count(16, 100_000)
    .default(2000)
    .describe(
      'Readings of a device that wait to be evaluated while its state is loaded; beyond it the oldest are left out and counted.',
    ),
  RULE_ACTION_AGE_MAX_S: count(1, 86_400)
    .default(300)
    .describe('A step of an alert that is older sends no command any more.'),
  RULE_ACTION_LOOP_S: count(1, 86_400)
    .default(60)
    .describe(
      'A step of an alert so soon after a rule sent a command to its device may come from that command.',
    ),
  RULE_ACTION_LOOP_MAX: count(1, 100)
    .default(3)
    .describe(
      'Commands of rules that may lead to each other in a row; then they are blocked as a loop.',
    ),
  RULE_ACTIONS_WAITING_MAX: count(10, 1_000_000)
    .default(10_000)
    .describe(
      'Steps of alerts that wait in memory for the actions of their rules; others are found in the database.',
    ),
  NOTIFY_PRIVATE_ADDRESSES: z
    .string()
    .trim()
    .default('')
    .refine(
      (text) => text === '' || text.split(/[\s,]+/).every(isNetwork),
      'must be addresses or networks with commas between',
    )
    .describe(
      'Addresses or networks (10.20.0.0/16, fd00::7) that notifications may go to though they are not public, such as those of receivers inside the plant.',
    ),
  NOTIFY_HTTP_ALLOWED: z
    .enum(['yes', 'no'])
    .default('no')
    .describe('Whether webhooks may be plain http://, and mail may go out in clear.'),
  NOTIFY_RECEIVERS_MAX: count(1, 10_000)
    .default(100)
    .describe('Receivers of notifications of an organization; more are refused.'),
  NOTIFY_ROUTES_MAX: count(1, 1000)
    .default(100)
    .describe('Notification routes of an organization; more are refused.'),
  NOTIFY_RECEIVER_MESSAGES_PER_H: count(1, 100_000)
    .default(60)
    .describe(
      'Messages to a receiver in an hour; what is beyond it is told in one digest when the hour ends.',
    ),
  NOTIFY_MESSAGE_ALERTS_MAX: count(1, 1000)
    .default(100)
    .describe('Alerts that a message tells of; of more it tells how many.'),
  NOTIFY_GROUP_ALERTS_MAX: count(10, 100_000)
    .default(5000)
    .describe(
      'Alerts that a group of a route holds at once; more are recorded and nobody is told.',
    ),
  NOTIFY_ATTEMPT_TIMEOUT_MS: count(100, 120_000)
    .default(30_000)
    .describe(
      'An attempt to send a notification that takes longer has failed. Over HTTP an answer must come within 5 s.',
    ),
  NOTIFY_ATTEMPTS_MAX: count(1, 10_000)
    .default(100)
    .describe('Attempts to send a notification before it is given up as a dead letter.'),
  NOTIFY_AGE_MAX_H: count(1, 720)
    .default(24)
    .describe('A notification that could not be sent for so long is given up as a dead letter.'),
  NOTIFY_CONCURRENCY_MAX: count(1, 1000)
    .default(64)
    .describe('Attempts to send notifications at once, of all receivers.'),
  NOTIFY_RECEIVER_CONCURRENCY_MAX: count(1, 100)
    .default(2)
    .describe(
      'Attempts to send notifications at once to one receiver, so that one that hangs holds up no other.',
    ),
  NOTIFY_FLAPPING_CHANGES_MAX: count(2, 1000)
    .default(6)
    .describe(
      'Changes of an alert in NOTIFY_FLAPPING_WINDOW_S; one that changes more often is flapping: told once, then in digests.',
    ),
  NOTIFY_FLAPPING_WINDOW_S: count(10, 86_400)
    .default(600)
    .describe(
      'See NOTIFY_FLAPPING_CHANGES_MAX; an alert without a change for so long flaps no more.',
    ),
  NOTIFY_FLAPPING_DIGEST_S: count(10, 86_400)
    .default(3600)
    .describe('How often a receiver is told of an alert that goes on flapping.'),
  NOTIFY_HISTORY_MAX_D: count(1, 3650)
    .default(90)
    .describe('Notifications that are older are deleted.'),
  SECRETS_KEY: z
    .string()
    .trim()
    .default('')
    .describe(
      'Keys for the secrets of receivers: 32 bytes in base64 each, with commas between. The first encrypts, the others only decrypt; secrets are encrypted anew at start. Empty: as SECRETS_KEY_FILE says.',
    ),
  SECRETS_KEY_FILE: z
    .string()
    .trim()
    .default('')
    .describe(
      'File with keys as SECRETS_KEY has them, one in a line. Empty: DATA_DIR/secrets.key, made at the first start.',
    ),
  ALERT_AGE_MAX_D: count(1, 3650)
    .default(365)
    .describe('Days that alerts are kept after they ended, with their steps and notes.'),
  RULE_BACKTESTS_MAX: count(1, 100)
    .default(2)
    .describe('Backtests at once; of one organization there is one at most.'),
  RULE_BACKTEST_D_MAX: count(1, 3650).default(366).describe('Longest span of a backtest.'),
  RULE_NOISE_D: count(1, 90)
    .default(7)
    .describe('Days of history that a rule with a noise budget is tried on before it is enabled.'),
};

function isNetwork(text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || address.includes('%') || rest.length > 0) return false;
  const bits = family === 4 ? 32 : 128;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
}
