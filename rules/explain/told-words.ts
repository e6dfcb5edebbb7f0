import type { AlertNotification } from '../alert/alert-history.ts';
import type { Suppression } from '../notify/group-state.ts';
import { timeWords } from './value-words.ts';

const SUPPRESSION_WORDS: Readonly<Record<Suppression, string>> = {
  no_route: 'no notification route matches the alert',
  stopped: 'all notifications are stopped (PUT /api/v1/notification-policy)',
  shadow: 'the rule is in mode "shadow"',
  snoozed: 'the alert is snoozed',
  silenced: 'a silence matches the alert',
  maintenance: 'a maintenance window matches the alert',
  quiet_hours: 'the route has its quiet hours',
  inhibited: 'a rule that suppresses this one is firing',
  flapping: 'the alert changes too often; digests tell of it',
  ended_before_told: 'the alert had ended before anybody was told',
  group_full: 'too many alerts of its group wait',
  rate_cap: 'the receiver has had its messages of this hour; a digest tells of it',
  route_changed: 'the route was changed or deleted meanwhile',
  failed: 'who is to be told could not be worked out; the log of the server says why',
};

/** Who was told by a notification, or was not and why: `2026-11-21 12:00:03.000Z: duty was told.` */
export function toldWords(notification: AlertNotification): string {
  const { state, kind, createdMicros, sentMicros } = notification;
  const at = timeWords(state === 'sent' ? (sentMicros ?? createdMicros) : createdMicros);
  return `${at}: ${outcomeWords(notification)}${kind === 'digest' ? ', in a digest' : ''}.`;
}

function outcomeWords({ receiver, state, reason, by, attempts }: AlertNotification): string {
  const to = receiver ?? 'a receiver that was deleted';
  const fault = reason === null ? '' : `: ${reason}`;
  switch (state) {
    case 'sent':
      return `${to} was told`;
    case 'waiting':
      return `${to} is to be told, after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'} so far${fault}`;
    case 'dead':
      return `${to} could not be told, after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}${fault}`;
    default: {
      const what = by === null ? '' : ` (${by})`;
      return `${receiver ?? 'nobody'} was ${receiver === null ? '' : 'not '}told, because ${whyWords(reason)}${what}`;
    }
  }
}

function whyWords(reason: string | null): string {
  if (reason === null) return 'of a reason that is not recorded';
  const words: Readonly<Record<string, string>> = SUPPRESSION_WORDS;
  return words[reason] ?? reason;
}
