import { loadEnvFile } from '../config.ts';
import { reasonOf, ToolFailedError } from '../errors.ts';
import { parseKey } from '../firmware-protocol/keys.ts';
import {
  countOption,
  durationOption,
  interruption,
  runTool,
  textOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { kitTls } from './conformance-tls.ts';
import { REAL_PACE } from './conformance/exam.ts';
import { reportText } from './conformance/report.ts';
import { runConformance } from './conformance/run.ts';
import { readCredentials } from './credentials.ts';
import { createProgress } from './progress.ts';

const HELP = `Plays the platform against one real device and reports, point by point, what its firmware does right.

  npm run conformance -- --device first [options]

  --device NAME         the device whose key is in credentials.json
  --key KEY             instead of it: the key of the device, pbd_…
  --host ADDRESS        where to listen; 0.0.0.0 for a board on the network   (127.0.0.1)
  --port N              where to listen                                       (2883)
  --tls                 MQTT over TLS, with a CA that the kit makes, keeps and prints
  --tls-name NAME       with --tls: one more name or address by which boards know this machine
  --tls-cert FILE       instead of --tls: a certificate (chain) of yours, in PEM
  --tls-key FILE        and its key
  --for D               end then at the latest: 600, 90s, 30m or 2h           (30m)
  --configuration JSON  one that the firmware can apply                       ({})
  --refusal 4|5         CONNACK by which the key is refused                   (5)
  --no-restart          does not send sys.reboot
  --no-rekey            does not send sys.rekey, which is sent over TLS only
  --json                the report as JSON
  --data-dir DIR        where the program wrote credentials.json              (./data)
  --help

Point the device to this address in place of Puback, with the key that it has. Nothing is stored and Puback
need not run. The device should send a sample at QoS 1 at least once in two minutes, and one that sleeps
should sleep for some seconds only. Without TLS keys can be read on the way: on a network that you trust.
docs/conformance-kit.md explains each point.

Exit status: 0 every point that must hold does, 1 some do not or were not reached, 2 the run could not
take place.
`;

const OPTIONS: OptionTable = {
  device: { type: 'string' },
  key: { type: 'string' },
  host: { type: 'string' },
  port: { type: 'string' },
  tls: { type: 'boolean' },
  'tls-name': { type: 'string', multiple: true },
  'tls-cert': { type: 'string' },
  'tls-key': { type: 'string' },
  for: { type: 'string' },
  configuration: { type: 'string' },
  refusal: { type: 'string' },
  'no-restart': { type: 'boolean' },
  'no-rekey': { type: 'boolean' },
  json: { type: 'boolean' },
  'data-dir': { type: 'string' },
};

await runTool(HELP, OPTIONS, async (given) => {
  loadEnvFile();
  const key = await keyOf(given);
  const host = textOption(given, 'host', '127.0.0.1');
  const tls = await kitTls(given, host, dataDirOf(given));
  const progress = createProgress(process.stderr);
  const report = await runConformance({
    key,
    host,
    tls,
    port: countOption(given, 'port', 2883, [0, 65_535]),
    forMs: durationOption(given, 'for', 1800) * 1000,
    configuration: configurationOf(given),
    refusal: countOption(given, 'refusal', 5, [4, 5]) as 4 | 5,
    mayRestart: given['no-restart'] !== true,
    mayRekey: given['no-rekey'] !== true,
    pace: REAL_PACE,
    stop: interruption(),
    say: (line) => progress.step(line),
    onListening: (port) => {
      const url = `${tls === null ? 'mqtt' : 'mqtts'}://${host}:${port}`;
      process.stderr.write(`listening on ${url} for the device with key ${shownKey(key)}\n`);
      process.stderr.write(tls?.notes ?? '');
    },
  }).catch((error: unknown) => {
    const isOfPort = error instanceof Error && 'syscall' in error && 'port' in error;
    if (!isOfPort) throw error;
    throw new ToolFailedError(`cannot listen: ${reasonOf(error)}`, { cause: error });
  });
  progress.end();
  const shown = { device: textOption(given, 'device', ''), ...report };
  const text = given['json'] === true ? `${JSON.stringify(shown, null, 2)}\n` : reportText(report);
  process.stdout.write(text);
  return report.isConformant ? 0 : 1;
});

/** @throws {ToolFailedError} when there is none, or it is mistyped. */
async function keyOf(given: GivenOptions): Promise<string> {
  const device = textOption(given, 'device', '');
  const key = textOption(given, 'key', '');
  if (key === '' && device === '') throw new ToolFailedError('say --device NAME or --key KEY');
  const found = key === '' ? await storedKey(given, device) : key;
  if (parseKey(found)?.kind !== 'device') {
    throw new ToolFailedError('that is no key of a device, or has a typing error in it');
  }
  return found;
}

async function storedKey(given: GivenOptions, device: string): Promise<string> {
  const credentials = await readCredentials(dataDirOf(given));
  if (credentials.device === device) return credentials.deviceKey;
  throw new ToolFailedError(
    `credentials.json has the key of ${credentials.device} and not of ${device}: give it with --key`,
  );
}

function dataDirOf(given: GivenOptions): string {
  return textOption(given, 'data-dir', process.env['DATA_DIR']?.trim() || './data');
}

function configurationOf(given: GivenOptions): Record<string, unknown> {
  const text = textOption(given, 'configuration', '{}');
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
  } catch {
    // Told below, as what is no object.
  }
  throw new ToolFailedError('--configuration must be a JSON object');
}

function shownKey(key: string): string {
  return `pbd_${parseKey(key)?.publicId ?? ''}…`;
}
