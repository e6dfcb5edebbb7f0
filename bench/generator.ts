import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { ToolFailedError } from '../errors.ts';
import {
  countOption,
  durationOption,
  runTool,
  textOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { Load, type LoadOptions, type LoadTotal, type Measurement } from './load.ts';
import { TELEMETRY_TOPIC, type PayloadKind } from './publish-ring.ts';

/** The last line of the generator, as JSON. */
export type GeneratorResult = Measurement & LoadTotal;

/** What the generator tells a parent that started it with `fork`. */
export interface GeneratorMessage {
  phase: 'sending' | 'measuring' | 'measured';
  /** Messages acknowledged so far. */
  acknowledged: number;
}

const HELP = `Sends PUBLISH packets with QoS 1 as cheaply as it can and counts PUBACKs. The last line on
standard output is JSON.

  node dist/bench/generator.js --mqtt-url URL --keys FILE [options]

  --mqtt-url URL     mqtt://127.0.0.1:1883
  --keys FILE        JSON: [{"device":"…","key":"pbd_…"},…], one for each connection
  --connections N    connections                                               (50)
  --window N         messages in flight on each                                (20)
  --warmup D         time before the measurement: 3, 90s, 10m                  (3)
  --seconds D        time of the measurement                                   (10)
  --payload KIND     one: {"ts":…,"temp":21.5}
                     series: 20 samples of 3 metrics
                     numbered: {"ts":…,"n":1000000001}                         (one)
  --topic NAME       topic of every message, {device} is replaced               (v1/me/data)
  --rate N           messages/s in all, 0: as fast as they are acknowledged    (0)
  --reconnect        open lost connections again and resend what is unacknowledged
  --ack-log FILE     a line for each PUBACK: device, ts, number, time of the PUBACK
  --help

A parent that forks it may end the measurement early with the message "stop".
`;

const OPTIONS: OptionTable = {
  'mqtt-url': { type: 'string' },
  keys: { type: 'string' },
  connections: { type: 'string' },
  window: { type: 'string' },
  warmup: { type: 'string' },
  seconds: { type: 'string' },
  payload: { type: 'string' },
  topic: { type: 'string' },
  rate: { type: 'string' },
  reconnect: { type: 'boolean' },
  'ack-log': { type: 'string' },
};

const DRAIN_MS = 30_000;
const TELL_EVERY_MS = 250;

await runTool(HELP, OPTIONS, async (options) => {
  const warmupS = durationOption(options, 'warmup', 3);
  const measuredS = durationOption(options, 'seconds', 10);
  const load = new Load(await readLoadOptions(options));
  const stopped = stopFromParent();
  await load.open();
  load.startSending();
  tell('sending', load);
  await delay(warmupS * 1000);
  load.startMeasuring();
  tell('measuring', load);
  const count = setInterval(() => tell('measuring', load), TELL_EVERY_MS);
  await Promise.race([delay(measuredS * 1000), stopped]);
  clearInterval(count);
  const measurement = load.stopMeasuring();
  tell('measured', load);
  const total = await load.stop(DRAIN_MS);
  const result: GeneratorResult = { ...measurement, ...total };
  process.stdout.write(`${JSON.stringify(result)}\n`);
  return 0;
});

async function readLoadOptions(options: GivenOptions): Promise<LoadOptions> {
  const url = new URL(textOption(options, 'mqtt-url', 'mqtt://127.0.0.1:1883'));
  const payload = textOption(options, 'payload', 'one');
  if (!isPayloadKind(payload)) throw new ToolFailedError('--payload is one, series or numbered');
  const path = textOption(options, 'keys', '');
  if (path === '') throw new ToolFailedError('--keys FILE is needed; --help says what is in it');
  const keys = JSON.parse(await readFile(path, 'utf8')) as LoadOptions['keys'];
  const connections = countOption(options, 'connections', 50, [1, 60_000]);
  if (keys.length < connections) {
    throw new ToolFailedError(`${path} has ${keys.length} keys, ${connections} are needed`);
  }
  return {
    host: url.hostname,
    port: Number(url.port === '' ? 1883 : url.port),
    keys: keys.slice(0, connections),
    window: countOption(options, 'window', 20, [1, 65_535]),
    payload,
    topic: textOption(options, 'topic', TELEMETRY_TOPIC),
    ratePerS: countOption(options, 'rate', 0, [0, 10_000_000]),
    reconnects: options['reconnect'] === true,
    ackLog: textOption(options, 'ack-log', ''),
  };
}

function isPayloadKind(text: string): text is PayloadKind {
  return text === 'one' || text === 'series' || text === 'numbered';
}

function tell(phase: GeneratorMessage['phase'], load: Load): void {
  process.send?.({ phase, acknowledged: load.acknowledged } satisfies GeneratorMessage);
}

function stopFromParent(): Promise<void> {
  return new Promise((resolve) => {
    process.once('message', () => resolve());
    // The parent is gone: nobody reads the result.
    process.once('disconnect', () => process.exit(1));
  });
}
