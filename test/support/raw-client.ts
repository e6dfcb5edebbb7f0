import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import mqttPacket, { type IConnectPacket, type Packet } from 'mqtt-packet';

/** A client that can send what no library would: raw bytes, and packets one by one. */
export interface RawClient {
  readonly socket: Socket;
  /** Packets in order of arrival that nobody has asked for yet. */
  readonly received: Packet[];
  readonly isClosed: () => boolean;
  send(...packets: Packet[]): void;
  sendBytes(bytes: Uint8Array): void;
  /** The next packet; rejects when the connection ends first. */
  next(): Promise<Packet>;
  /** Resolves when the connection has ended, whoever ended it. */
  readonly closed: Promise<void>;
  end(): void;
}

/** Opens a TCP connection and says nothing on it. */
export async function openRaw(url: string): Promise<RawClient> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  socket.setNoDelay(true);
  const received: Packet[] = [];
  const waiters: (() => void)[] = [];
  let isClosed = false;
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  const wake = () => waiters.splice(0).forEach((waiter) => waiter());
  parser.on('packet', (packet) => {
    received.push(packet);
    wake();
  });
  socket.on('data', (bytes: Buffer) => parser.parse(bytes));
  socket.on('error', wake);
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true;
      wake();
      resolve();
    });
  });
  return {
    socket,
    received,
    closed,
    isClosed: () => isClosed,
    send: (...packets) => {
      socket.write(Buffer.concat(packets.map((packet) => mqttPacket.generate(packet))));
    },
    sendBytes: (bytes) => void socket.write(bytes),
    async next() {
      while (received.length === 0) {
        if (isClosed) throw new Error('the connection has ended');
        await new Promise<void>((resolve) => waiters.push(resolve));
      }
      return received.shift() as Packet;
    },
    end: () => socket.destroy(),
  };
}

/** Opens a connection and logs in with a key. */
export async function connectRaw(
  url: string,
  key: string,
  fields: Partial<IConnectPacket> = {},
): Promise<RawClient> {
  const client = await openRaw(url);
  client.send({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId: 'raw',
    clean: true,
    keepalive: 60,
    username: 'device',
    password: Buffer.from(key),
    ...fields,
  });
  const connack = await client.next();
  if (connack.cmd !== 'connack' || connack.returnCode !== 0) {
    throw new Error(`CONNACK ${JSON.stringify(connack)}`);
  }
  return client;
}
