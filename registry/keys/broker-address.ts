/** Where devices find the broker. */
export interface BrokerAddress {
  /** Name or address; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  readonly isEncrypted: boolean;
}

/** Port of MQTT over TLS, and of plain MQTT. */
const MQTTS_PORT = 8883;
const MQTT_PORT = 1883;

/**
 * Reads MQTT_PUBLIC_URL.
 * @returns null for an empty one, or one whose port is none.
 */
export function parseBrokerAddress(url: string): BrokerAddress | null {
  const match = /^(mqtts?):\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::(\d{1,5}))?$/.exec(url);
  if (match === null) return null;
  const [, scheme, bracketed, named, portText] = match;
  const isEncrypted = scheme === 'mqtts';
  const port = portText === undefined ? (isEncrypted ? MQTTS_PORT : MQTT_PORT) : Number(portText);
  if (port < 1 || port > 65_535) return null;
  return { host: bracketed ?? named ?? '', port, isEncrypted };
}
