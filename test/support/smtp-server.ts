import { createServer, type Socket } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import { listen, type TestReceiver } from './senders.ts';

/** A mail as a server got it. */
export interface ReceivedMail {
  readonly from: string;
  readonly to: readonly string[];
  /** Headers and body, without the dots of SMTP. */
  readonly content: string;
  readonly isSecure: boolean;
  /** Of AUTH PLAIN: user and password; null: nobody logged in. */
  readonly login: string | null;
  readonly greeting: string;
}

/** How a server of a test behaves. */
export interface SmtpBehaviour {
  /** Certificate and key in PEM: STARTTLS is offered. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** TLS from the first byte. */
  readonly isImplicitTls?: boolean;
  /** Answers in place of the usual ones, by the first word of a command: MAIL, RCPT, DATA, `.`, AUTH, HELLO. */
  readonly answers?: Readonly<Record<string, string>>;
  /** Recipients that are refused. */
  readonly refused?: readonly string[];
  readonly greets?: boolean;
}

/** Starts an SMTP server on 127.0.0.1 that takes mail. Its `commands` are all lines that it was sent. */
export async function startSmtpServer(
  behaviour: SmtpBehaviour = {},
): Promise<TestReceiver<ReceivedMail> & { readonly commands: string[] }> {
  const received: ReceivedMail[] = [];
  const commands: string[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    const session = new SmtpSession(behaviour, received, commands);
    session.attach(behaviour.isImplicitTls === true ? secure(socket, behaviour) : socket);
    if (behaviour.greets !== false) session.greet();
  });
  const listening = await listen(server, received);
  return Object.assign(listening, { commands });
}

class SmtpSession {
  readonly #behaviour: SmtpBehaviour;
  readonly #received: ReceivedMail[];
  readonly #commands: string[];
  #socket!: Socket;
  #text = '';
  #isContent = false;
  #isSecure = false;
  #login: string | null = null;
  #greeting = '';
  #from = '';
  #to: string[] = [];

  constructor(behaviour: SmtpBehaviour, received: ReceivedMail[], commands: string[]) {
    this.#behaviour = behaviour;
    this.#received = received;
    this.#commands = commands;
    this.#isSecure = behaviour.isImplicitTls === true;
  }

  attach(socket: Socket): void {
    this.#socket = socket;
    this.#text = '';
    socket.on('data', (bytes) => {
      this.#text += bytes.toString();
      this.#read();
    });
  }

  greet(): void {
    this.#answer('HELLO', '220 test ESMTP');
  }

  #read(): void {
    for (;;) {
      const mark = this.#isContent ? '\r\n.\r\n' : '\r\n';
      const end = this.#text.indexOf(mark);
      if (end < 0) return;
      const text = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + mark.length);
      if (this.#isContent) this.#take(text);
      else this.#obey(text);
    }
  }

  #take(content: string): void {
    this.#isContent = false;
    this.#received.push({
      from: this.#from,
      to: this.#to,
      content: content.replaceAll('\r\n..', '\r\n.'),
      isSecure: this.#isSecure,
      login: this.#login,
      greeting: this.#greeting,
    });
    this.#answer('.', '250 2.0.0 queued');
  }

  #obey(line: string): void {
    this.#commands.push(line);
    const word = (line.split(/[ :]/, 1)[0] ?? '').toUpperCase();
    if (word === 'EHLO') this.#offer(line);
    else if (word === 'STARTTLS') this.#startTls();
    else if (word === 'AUTH') this.#logIn(line);
    else if (word === 'MAIL') {
      this.#from = addressOf(line);
      this.#answer('MAIL', '250 2.1.0 ok');
    } else if (word === 'RCPT') this.#addRecipient(addressOf(line));
    else if (word === 'DATA') {
      this.#isContent = this.#answer('DATA', '354 go on').startsWith('354');
    } else if (word === 'QUIT') this.#socket.end('221 bye\r\n');
    else this.#answer(word, '502 unknown');
  }

  #offer(line: string): void {
    this.#greeting = line.slice('EHLO '.length);
    const canStart = this.#behaviour.tls !== undefined && !this.#isSecure;
    this.#socket.write(`250-test\r\n${canStart ? '250-STARTTLS\r\n' : ''}250 AUTH PLAIN\r\n`);
  }

  #startTls(): void {
    if (this.#behaviour.tls === undefined) {
      this.#answer('STARTTLS', '502 5.5.1 not here');
      return;
    }
    const plain = this.#socket;
    plain.write('220 go on\r\n');
    plain.removeAllListeners('data');
    this.#isSecure = true;
    this.attach(secure(plain, this.#behaviour));
  }

  #logIn(line: string): void {
    const [, , token = ''] = line.split(' ');
    this.#login = Buffer.from(token, 'base64').toString().replaceAll('\0', ' ').trim();
    this.#answer('AUTH', '235 2.7.0 welcome');
  }

  #addRecipient(address: string): void {
    if (this.#behaviour.refused?.includes(address) === true) {
      this.#socket.write('550 5.1.1 no such user\r\n');
      return;
    }
    this.#to.push(address);
    this.#answer('RCPT', '250 2.1.5 ok');
  }

  #answer(word: string, usual: string): string {
    const answer = this.#behaviour.answers?.[word] ?? usual;
    this.#socket.write(`${answer}\r\n`);
    return answer;
  }
}

function secure(socket: Socket, { tls }: SmtpBehaviour): TLSSocket {
  const secured = new TLSSocket(socket, {
    isServer: true,
    secureContext: createSecureContext({ cert: tls?.cert, key: tls?.key }),
  });
  secured.on('error', () => undefined);
  return secured;
}

function addressOf(line: string): string {
  return /<([^>]*)>/.exec(line)?.[1] ?? '';
}
