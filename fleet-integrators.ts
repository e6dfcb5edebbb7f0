import { setTimeout as delay } from 'node:timers/promises';
import type { IntegratorParts } from './broker/integrator-client.ts';
import type { OutgoingMessage } from './broker/message.ts';
import type { PresencePage } from './broker/presence/presence-port.ts';
import type { Presence, StatusPage } from './broker/presence/presence.ts';
import { StatusReads } from './broker/presence/status-reads.ts';
import type { IntegratorPrincipal } from './broker/principal.ts';
import type { DiskStore } from './broker/store/disk-store.ts';
import { matchesFilter } from './broker/store/topic-filter.ts';
import type { ConnectionHistory } from './connection-history.ts';
import { AppError } from './errors.ts';

/** What integrators are joined with. */
export interface FleetIntegrators {
  readonly store: DiskStore;
  readonly presence: Presence;
  readonly history: ConnectionHistory;
  /** Topics of alerts of which something is retained. */
  readonly alertTopics: () => Iterable<string>;
  readonly command: IntegratorParts['command'];
}

/** Between attempts to read from the database while it is away. */
const RETRY_MS = 1000;
/** Status messages that are read at a time. */
const STATUS_PAGE = 500;
const STATUS_FILTER = /^v1\/[^/]+\/[^/]+\/status$/;
const ALERT_FILTER = /^v1\/[^/]+\/[^/]+\/alert\/[^/]+$/;
const INBOX_FILTER = /^v1\/[^/]+\/[^/]+\/in\/(cmd|cfg)$/;

/** What integrators read and do. */
export function integratorParts(deps: FleetIntegrators): IntegratorParts {
  const { store, presence, history } = deps;
  const statuses = new StatusReads((page) => presence.statusPage(page));
  return {
    async *wildcardMessages(principal, filter, isOpen) {
      if (STATUS_FILTER.test(filter)) yield* statusMessages(statuses, principal, isOpen);
      if (ALERT_FILTER.test(filter)) yield* alertMessages(deps, principal, filter);
      if (INBOX_FILTER.test(filter)) yield* inboxMessages(store, principal, filter);
    },
    retained: (topic) => store.retained(topic),
    command: deps.command,
    refused: (...refused) => history.refusedMessage(...refused),
    opened: (session) => history.opened(session),
    closed: (session, code) => history.closed(session, code),
  };
}

/** Those of alerts that a filter with wildcards selects, of devices that the principal may see. */
function* alertMessages(
  { store, alertTopics }: FleetIntegrators,
  principal: IntegratorPrincipal,
  filter: string,
): Generator<OutgoingMessage> {
  for (const topic of alertTopics()) {
    if (!isOfDevices(principal, topic) || !matchesFilter(topic, filter)) continue;
    const message = store.retained(topic);
    if (message !== null) yield message;
  }
}

/** What stands in the inboxes of devices that the principal may see. */
function* inboxMessages(
  store: DiskStore,
  principal: IntegratorPrincipal,
  filter: string,
): Generator<OutgoingMessage> {
  for (const message of store.retainedMatching(filter)) {
    if (isOfDevices(principal, message.topic)) yield message;
  }
}

function isOfDevices({ devices }: IntegratorPrincipal, topic: string): boolean {
  return devices === null || devices.includes(topic.split('/')[2] ?? '');
}

/** The retained status of many devices comes from the database. */
async function* statusMessages(
  statuses: StatusReads,
  { organizationId, devices }: IntegratorPrincipal,
  isOpen: () => boolean,
): AsyncGenerator<OutgoingMessage> {
  let query: PresencePage | null = { organizationId, devices, after: 0, limit: STATUS_PAGE };
  while (query !== null) {
    const page = await untilAnswered(statuses, query, isOpen);
    for (const message of page.messages) yield { ...message, qos: 1, retain: true };
    query = page.after === null ? null : { ...query, after: page.after };
  }
}

/** Asks again while the database is away, as long as somebody waits for the answer. */
async function untilAnswered(
  statuses: StatusReads,
  query: PresencePage,
  isOpen: () => boolean,
): Promise<StatusPage> {
  while (isOpen()) {
    try {
      return await statuses.page(query);
    } catch (err) {
      if (!(err instanceof AppError) || !err.retryable) throw err;
    }
    await delay(RETRY_MS);
  }
  return { messages: [], after: null };
}
