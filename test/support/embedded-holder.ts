import { createLog } from '../../log.ts';
import { lockDataFolder } from '../../drizzle/data-folder-lock.ts';
import { startEmbedded } from '../../drizzle/embedded.ts';

/**
 * A program that only holds the embedded database: `embedded-holder.ts DATA_DIR [lock]`. It prints
 * one JSON line when it is ready or has failed, and stops in order at SIGTERM.
 */
const [, , dataDir = '', lockOnly] = process.argv;
const start = performance.now();
try {
  const release = await lockDataFolder(dataDir);
  const database =
    lockOnly === 'lock'
      ? null
      : await startEmbedded({ dataDir, log: createLog(process.env['LOG_LEVEL'] ?? 'silent') });
  const keepAlive = setInterval(() => undefined, 60_000);
  process.once('SIGTERM', () => {
    clearInterval(keepAlive);
    void Promise.resolve(database?.stop()).then(release);
  });
  const durationMs = Math.round(performance.now() - start);
  console.log(JSON.stringify({ url: database?.url ?? '', pid: database?.pid ?? 0, durationMs }));
} catch (err) {
  console.log(JSON.stringify({ failure: (err as Error).message, name: (err as Error).name }));
  process.exitCode = 1;
}
