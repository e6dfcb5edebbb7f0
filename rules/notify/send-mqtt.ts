import type { AlertTopics, TopicPublisher } from './alert-topics.ts';
import type { NotificationMessage, Sender, SenderReceiver, SendOutcome } from './message.ts';

/** What the sender over MQTT works with. */
export interface MqttSenderParts {
  readonly topics: Pick<AlertTopics, 'repeat'>;
  readonly publisher: Pick<TopicPublisher, 'publish'>;
}

/**
 * Tells subscribers of this broker. The topics of alerts follow the alerts by themselves, receivers or
 * not (see {@link AlertTopics}); a message makes them say it once more, as routes and their repeat
 * intervals ask for, and a test is sent to `v1/{organization}/_/alert/test`, unretained.
 */
export class MqttSender implements Sender {
  readonly #parts: MqttSenderParts;

  constructor(parts: MqttSenderParts) {
    this.#parts = parts;
  }

  /** Makes one attempt. It fails only while the database is away. */
  async send(
    _receiver: SenderReceiver,
    message: NotificationMessage,
    signal: AbortSignal,
  ): Promise<SendOutcome> {
    if (signal.aborted) return { ok: false, isRetryable: true, reason: 'it was interrupted' };
    if (message.kind === 'test') {
      const topic = `v1/${message.organization}/_/alert/test`;
      await this.#parts.publisher.publish(topic, Buffer.from(JSON.stringify(message)));
      return { ok: true };
    }
    try {
      await this.#parts.topics.repeat(message.alerts.map(({ alertId }) => alertId));
      return { ok: true };
    } catch {
      return { ok: false, isRetryable: true, reason: 'the database is away' };
    }
  }
}
