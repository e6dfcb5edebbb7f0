import type { Logger } from '../../log.ts';
import type { Transition } from '../alert/transition.ts';
import { alertTopic } from './alert-topic.ts';
import type { AlertTopicRows, TopicAlert } from './alert-topic-rows.ts';

/** How the broker is reached. Topics and payloads are UTF-8; QoS 1. */
export interface TopicPublisher {
  /** Keeps a message as the last of its topic and sends it; an empty payload removes it. */
  publishRetained(topic: string, payload: Buffer): Promise<void>;
  /** Sends a message that is not kept. Null: nobody has to be waited for. */
  publish(topic: string, payload: Buffer): Promise<void> | null;
  /** What is kept of a topic; null: nothing. */
  retained(topic: string): Buffer | null;
  /** Topics of alerts, `v1/+/+/alert/+`, of which something is kept. */
  retainedTopics(): Iterable<string>;
}

/** What {@link AlertTopics} works with. */
export interface AlertTopicsParts {
  readonly publisher: TopicPublisher;
  readonly rows: AlertTopicRows;
  readonly log: Logger;
  /** Before the database is asked again after it was away. */
  readonly retryMs?: number;
}

const BATCH_ALERTS = 500;
/** Beyond it all firing alerts are read instead. */
const WAITING_MAX = 50_000;
const RETRY_MS = 1000;
const NOTHING = Buffer.alloc(0);
/** Steps from firing to firing of which a subscriber would see nothing. */
const UNSEEN: ReadonlySet<string> = new Set(['condition_cleared', 'fired_again', 'level_changed']);

/**
 * Keeps the topic of every alert: while it fires, a retained message says so; when it ends, a message
 * says that, and the retained one is removed. For all subscribers with the scope `alert`, whatever
 * receivers and routes there are; not for shadow rules and for what was found later. Goes by what is
 * stored, so what a crash or a lost database kept from being sent is made up for; of several steps of an
 * alert in a short time only the last may be seen. Sends nothing twice but after a crash.
 */
export class AlertTopics {
  readonly #parts: AlertTopicsParts;
  /** Of firing alerts that have been published. */
  readonly #published = new Map<string, { readonly topic: string; readonly severity: string }>();
  /** Two rules may have one topic. */
  readonly #alertsOf = new Map<string, Set<string>>();
  readonly #waiting = new Set<string>();
  #mustReload = true;
  #work: Promise<void> | null = null;
  #retry: NodeJS.Timeout | null = null;
  #isStopped = false;

  constructor(parts: AlertTopicsParts) {
    this.#parts = parts;
  }

  /** The topics of alerts that fire. */
  get topics(): Iterable<string> {
    return this.#alertsOf.keys();
  }

  /** Makes topics say what is stored, and from then on what is told by {@link changed}. */
  start(): void {
    this.#wake();
  }

  /** Ends when the batch under way has been published. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    await this.#work;
  }

  /** Takes note of transitions that are stored. Returns at once; the topics follow. */
  changed(transitions: readonly Transition[]): void {
    for (const { alertId, from, to, reason, isShadow, isHistorical } of transitions) {
      if (isShadow || isHistorical || (from !== 'firing' && to !== 'firing')) continue;
      if (from === to && UNSEEN.has(reason)) continue;
      this.#waiting.add(alertId);
    }
    if (this.#waiting.size > WAITING_MAX) {
      this.#mustReload = true;
      this.#waiting.clear();
    }
    if (this.#mustReload || this.#waiting.size > 0) this.#wake();
  }

  /** Sends what the topics of these alerts say once more; of those that do not fire, nothing. */
  async repeat(alertIds: readonly string[]): Promise<void> {
    for (let at = 0; at < alertIds.length; at += BATCH_ALERTS) {
      const alerts = await this.#parts.rows.byIds(alertIds.slice(at, at + BATCH_ALERTS));
      for (const alert of alerts) {
        const { alertId, severity } = alert.alert;
        const isCurrent = this.#published.get(alertId)?.severity === severity;
        if (isCurrent && alert.state === 'firing') await this.#publishFiring(alert);
      }
    }
  }

  #wake(): void {
    if (this.#work !== null || this.#isStopped || this.#retry !== null) return;
    this.#work = this.#run().finally(() => {
      this.#work = null;
    });
  }

  async #run(): Promise<void> {
    // What is told in this turn of the event loop becomes one batch.
    await new Promise((resolve) => setImmediate(resolve));
    try {
      while (!this.#isStopped && (this.#mustReload || this.#waiting.size > 0)) {
        if (this.#mustReload) await this.#reload();
        else await this.#publishWaiting();
      }
    } catch (err) {
      this.#parts.log.warn({ err }, 'alert topics wait');
      this.#retry = setTimeout(() => {
        this.#retry = null;
        this.#wake();
      }, this.#parts.retryMs ?? RETRY_MS);
    }
  }

  async #publishWaiting(): Promise<void> {
    const batch: string[] = [];
    for (const alertId of this.#waiting) {
      // Before it is read: a change from here on is worth another look.
      this.#waiting.delete(alertId);
      if (batch.push(alertId) === BATCH_ALERTS) break;
    }
    let isRead = false;
    try {
      const alerts = await this.#parts.rows.byIds(batch);
      isRead = true;
      const found = new Set(alerts.map(({ alert }) => alert.alertId));
      const gone = batch.filter((alertId) => !found.has(alertId));
      // All at once: the broker writes them to its disk together. Of one topic the last call counts.
      await Promise.all([
        ...gone.map((alertId) => this.#withdraw(alertId)),
        ...alerts.map((alert) => this.#follow(alert)),
      ]);
    } catch (err) {
      for (const alertId of batch) this.#waiting.add(alertId);
      // Which of them were published is not known.
      if (isRead) this.#mustReload = true;
      throw err;
    }
  }

  async #follow(alert: TopicAlert): Promise<void> {
    const { alertId, severity, firedAt } = alert.alert;
    if (alert.state === 'firing') {
      if (this.#published.get(alertId)?.severity !== severity) await this.#publishFiring(alert);
    } else if (firedAt !== null && alert.state !== 'pending') {
      const topic = this.#published.get(alertId)?.topic ?? topicOf(alert);
      await this.#parts.publisher.publish(topic, payloadOf(alert));
      await this.#withdraw(alertId);
    }
  }

  async #publishFiring(alert: TopicAlert): Promise<void> {
    const topic = this.#remember(alert);
    await this.#parts.publisher.publishRetained(topic, payloadOf(alert));
  }

  /** Removes what is retained, or lets it be of another alert that has the same topic. */
  async #withdraw(alertId: string): Promise<void> {
    const topic = this.#published.get(alertId)?.topic;
    if (topic === undefined) return;
    this.#published.delete(alertId);
    const others = this.#alertsOf.get(topic);
    others?.delete(alertId);
    const [other] = others ?? [];
    if (other === undefined) {
      this.#alertsOf.delete(topic);
      await this.#parts.publisher.publishRetained(topic, NOTHING);
      return;
    }
    this.#published.delete(other);
    this.#waiting.add(other);
  }

  /** A topic that was published stays that of its alert, whatever its rule is called later. */
  #remember(alert: TopicAlert): string {
    const { alertId, severity } = alert.alert;
    const topic = this.#published.get(alertId)?.topic ?? topicOf(alert);
    this.#published.set(alertId, { topic, severity });
    const alerts = this.#alertsOf.get(topic);
    if (alerts === undefined) this.#alertsOf.set(topic, new Set([alertId]));
    else alerts.add(alertId);
    return topic;
  }

  /** Brings all topics in line with what is stored. */
  async #reload(): Promise<void> {
    const { publisher, rows } = this.#parts;
    this.#mustReload = false;
    try {
      const stale = new Set(publisher.retainedTopics());
      this.#published.clear();
      this.#alertsOf.clear();
      let page = await rows.firing(null);
      while (page.length > 0 && !this.#isStopped) {
        const topics = await Promise.all(page.map((alert) => this.#restore(alert)));
        for (const topic of topics) stale.delete(topic);
        page = await rows.firing(page.at(-1)?.alert.alertId ?? null);
      }
      if (this.#isStopped) return;
      const topics = [...stale];
      for (let at = 0; at < topics.length; at += BATCH_ALERTS) {
        const batch = topics.slice(at, at + BATCH_ALERTS);
        await Promise.all(batch.map((topic) => publisher.publishRetained(topic, NOTHING)));
      }
    } catch (err) {
      this.#mustReload = true;
      throw err;
    }
  }

  async #restore(alert: TopicAlert): Promise<string> {
    const topic = this.#remember(alert);
    const payload = payloadOf(alert);
    const { publisher } = this.#parts;
    if (publisher.retained(topic)?.equals(payload) !== true) {
      await publisher.publishRetained(topic, payload);
    }
    return topic;
  }
}

function topicOf({ organization, groupKey, alert }: TopicAlert): string {
  return alertTopic({ organization, device: alert.device, rule: alert.rule, groupKey });
}

function payloadOf({ alert, groupKey }: TopicAlert): Buffer {
  return Buffer.from(JSON.stringify(groupKey === '' ? alert : { ...alert, groupKey }));
}
