/** A PUBLISH on its way to subscribers. */
export interface OutgoingMessage {
  /** Canonical; each subscriber's access may spell it otherwise. */
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1;
  /** True only for what is sent because of a SUBSCRIBE [MQTT-3.3.1-8, MQTT-3.3.1-9]. */
  readonly retain: boolean;
}
