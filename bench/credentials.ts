import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ToolFailedError } from '../errors.ts';

/** What the program writes to DATA_DIR/credentials.json. */
export interface Credentials {
  organization: string;
  adminKey: string;
  device: string;
  deviceKey: string;
  mqttUrl: string;
  httpUrl: string;
}

/**
 * Reads DATA_DIR/credentials.json.
 * @throws {ToolFailedError} when it is missing or not complete, with what to do.
 */
export async function readCredentials(dataDir: string): Promise<Credentials> {
  const path = join(dataDir, 'credentials.json');
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new ToolFailedError(
      `${path} cannot be read. Start Puback in another terminal (npm start), or name its data folder with --data-dir`,
      { cause: error },
    );
  });
  const credentials = parse(text);
  if (credentials === null) {
    throw new ToolFailedError(`${path} does not hold what Puback writes there; start Puback once`);
  }
  return credentials;
}

function parse(text: string): Credentials | null {
  try {
    const found = JSON.parse(text) as Partial<Credentials>;
    const isComplete =
      typeof found.adminKey === 'string' &&
      typeof found.mqttUrl === 'string' &&
      typeof found.httpUrl === 'string';
    return isComplete ? (found as Credentials) : null;
  } catch {
    // Not JSON: the caller says so with the path.
    return null;
  }
}
