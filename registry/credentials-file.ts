import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder } from '../drizzle/data-folder-files.ts';
import { FileUnusableError } from '../errors.ts';

/** What `credentials.json` holds, in this order: enough to publish and to read. */
const credentialsSchema = z.object({
  organization: z.string(),
  adminKey: z.string(),
  device: z.string(),
  deviceKey: z.string(),
  mqttUrl: z.string(),
  httpUrl: z.string(),
});

/** The credentials of the first start. */
export type Credentials = Readonly<z.infer<typeof credentialsSchema>>;

const FILE = 'credentials.json';
const PURPOSE = 'the credentials file';

/** Where the file stands in a data folder. */
export function credentialsPath(dataDir: string): string {
  return join(dataDir, FILE);
}

/**
 * Reads the file.
 * @returns null when there is none, or none that makes sense.
 * @throws {FileUnusableError} when it is there and cannot be read.
 */
export async function readCredentials(dataDir: string): Promise<Credentials | null> {
  const path = credentialsPath(dataDir);
  try {
    const parsed = credentialsSchema.safeParse(JSON.parse(await readFile(path, 'utf8')));
    return parsed.success ? parsed.data : null;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw new FileUnusableError(PURPOSE, path, error);
  }
}

/**
 * Writes the file, readable by its owner only (0600). Whoever reads sees the old one or the new
 * one, whole, also after a crash.
 * @throws {FileUnusableError}
 */
export async function writeCredentials(dataDir: string, credentials: Credentials): Promise<void> {
  const path = credentialsPath(dataDir);
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await makeFolder(dataDir, 0o700);
    await rm(temporary, { force: true });
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(credentials)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    throw new FileUnusableError(PURPOSE, path, error);
  }
}
