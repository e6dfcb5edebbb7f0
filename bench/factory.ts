import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { reasonOf, ToolFailedError } from '../errors.ts';
import { csvCell, drawQr } from '../registry/keys/key-carrier.ts';
import { ApiClient } from './api-client.ts';
import {
  countOption,
  runTool,
  textOption,
  textsOption,
  type GivenOptions,
  type OptionTable,
} from './command-line.ts';
import { readCredentials } from './credentials.ts';

const HELP = `Makes devices with a key each and writes what a factory flashes and sticks on: for every device
DEVICE.csv for nvs_partition_gen.py of ESP-IDF, and DEVICE.svg, a QR code of the key. index.csv lists them
without keys. The files are readable by you only. They are the only copies of the keys.

  npm run factory -- --count 100 --out folder [options]

  --count N         devices, up to DEVICE_BATCH_MAX                            (1)
  --out DIR         folder for the files: empty, or made
  --url URL         where devices reach the broker                             (MQTT_PUBLIC_URL)
  --prefix TEXT     what names begin with                                      (device-)
  --first N         number of the first one                                    (1)
  --type TYPE       type of the devices
  --tag TAG         tag of the devices; may be given several times
  --data-dir DIR    where the program wrote credentials.json                   (./data)
  --http-url URL    instead of the address in credentials.json
  --admin-key KEY   instead of the key in credentials.json; or PUBACK_ADMIN_KEY
  --help

Exit status: 0 everything is written, 2 it is not; the message says what there is.
`;

const OPTIONS: OptionTable = {
  count: { type: 'string' },
  out: { type: 'string' },
  url: { type: 'string' },
  prefix: { type: 'string' },
  first: { type: 'string' },
  type: { type: 'string' },
  tag: { type: 'string', multiple: true },
  'data-dir': { type: 'string' },
  'http-url': { type: 'string' },
  'admin-key': { type: 'string' },
};

/** More than a request can make anyway. */
const COUNT_MAX = 10_000;
const FIRST_MAX = 99_999_999;

/** A device as the API makes it. */
interface MadeDevice {
  readonly device: string;
  readonly user: string;
  readonly keyId: string;
  readonly nvs: string;
  readonly qrText: string;
}

await runTool(HELP, OPTIONS, async (options) => {
  const folder = textOption(options, 'out', '');
  if (folder === '') throw new ToolFailedError('name the folder for the files: --out DIR');
  const api = await connect(options);
  // First of all: keys that cannot be written down would be lost.
  await makeWritable(folder);
  const devices = await makeDevices(api, options);
  let written = 0;
  try {
    for (const device of devices) {
      await writeDevice(folder, device);
      written += 1;
    }
    await writeIndex(folder, devices);
  } catch (error) {
    const rest = devices.slice(written).map(({ device }) => device);
    throw new ToolFailedError(
      `${folder}: ${reasonOf(error)}; ${written} of ${devices.length} devices are written. The keys of these are lost, make new ones or delete them: ${rest.join(' ')}`,
    );
  }
  process.stdout.write(`${devices.length} devices in ${folder}; index.csv lists them\n`);
  return 0;
});

async function connect(options: GivenOptions): Promise<ApiClient> {
  const given = textOption(options, 'admin-key', process.env['PUBACK_ADMIN_KEY'] ?? '');
  const url = textOption(options, 'http-url', '');
  const stored =
    given === '' || url === ''
      ? await readCredentials(textOption(options, 'data-dir', './data'))
      : null;
  const api = new ApiClient(url || (stored?.httpUrl ?? ''), given || (stored?.adminKey ?? ''));
  await api.assertReady();
  return api;
}

async function makeWritable(folder: string): Promise<void> {
  const trial = join(folder, `.factory-${process.pid}`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await (await open(trial, 'wx', 0o600)).close();
    await rm(trial);
    if ((await readdir(folder)).length === 0) return;
  } catch (error) {
    throw new ToolFailedError(`${folder} cannot be written: ${reasonOf(error)}`);
  }
  throw new ToolFailedError(`${folder} is not empty: name another folder for each batch`);
}

async function makeDevices(api: ApiClient, options: GivenOptions): Promise<readonly MadeDevice[]> {
  const type = textOption(options, 'type', '');
  const url = textOption(options, 'url', '');
  const { data } = await api.make('/api/v1/devices/batch', {
    count: countOption(options, 'count', 1, [1, COUNT_MAX]),
    first: countOption(options, 'first', 1, [0, FIRST_MAX]),
    prefix: textOption(options, 'prefix', 'device-'),
    type: type === '' ? null : type,
    tags: textsOption(options, 'tag'),
    ...(url === '' ? {} : { url }),
  });
  return data as MadeDevice[];
}

async function writeDevice(folder: string, { device, nvs, qrText }: MadeDevice): Promise<void> {
  const name = fileNameOf(device);
  await writeNew(join(folder, `${name}.csv`), nvs);
  await writeNew(join(folder, `${name}.svg`), await drawQr(qrText));
}

async function writeIndex(folder: string, devices: readonly MadeDevice[]): Promise<void> {
  const rows = devices.map(({ device, user, keyId }) =>
    [device, user, keyId, `${fileNameOf(device)}.csv`, `${fileNameOf(device)}.svg`]
      .map(csvCell)
      .join(','),
  );
  const lines = ['device,user,keyId,nvs,qr', ...rows];
  await writeNew(join(folder, 'index.csv'), `${lines.join('\n')}\n`);
}

/** A colon in a name, as in a MAC address, is not for every file system. */
function fileNameOf(device: string): string {
  return device.replaceAll(':', '-');
}

/** Whole or not at all, and never over a file that is there. */
async function writeNew(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}
