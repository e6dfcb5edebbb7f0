import mqtt, { type IClientOptions, type IConnackPacket, type MqttClient } from 'mqtt';

/** An integrator's client and what it was sent. */
export interface Reader {
  readonly client: MqttClient;
  readonly connack: IConnackPacket;
  /** In order of arrival; `body` is the payload as JSON, null for an empty one. */
  readonly got: { topic: string; body: unknown; isRetained: boolean; isDup: boolean }[];
}

/** Connects with a key, without reconnecting by itself. */
export async function connectReader(
  url: string,
  key: string,
  options: IClientOptions = {},
): Promise<Reader> {
  const got: Reader['got'] = [];
  const client = mqtt.connect(url, {
    protocolVersion: 4,
    username: 'reader',
    password: key,
    reconnectPeriod: 0,
    ...options,
  });
  client.on('message', (topic, payload, { retain, dup }) => {
    const text = payload.toString();
    const body: unknown = text === '' ? null : JSON.parse(text);
    got.push({ topic, body, isRetained: retain, isDup: dup });
  });
  const connack = await new Promise<IConnackPacket>((resolve, reject) => {
    client.once('connect', resolve);
    client.once('error', reject);
  });
  return { client, connack, got };
}
