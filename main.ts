import { createApp } from './app.ts';
import { printWelcome } from './banner.ts';
import { loadConfig, loadEnvFile } from './config.ts';
import { AppError, reasonOf } from './errors.ts';

const HELP = `Puback: an MQTT broker that acknowledges a reading after it is committed in PostgreSQL.

  npm start                        start with the settings of the environment (README, "Configuration")
  npm start -- --new-admin-key     issue a new admin key and a new key of device "first" at this start
  npm start -- --help              this text

Ctrl-C, SIGINT and SIGTERM stop it: what was taken in is stored and acknowledged first.
`;
const OPTIONS = new Set(['--new-admin-key', '--help']);

async function main(args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => !OPTIONS.has(arg));
  if (unknown !== undefined || args.includes('--help')) {
    process.stdout.write(unknown === undefined ? HELP : `unknown option ${unknown}\n\n${HELP}`);
    process.exitCode = unknown === undefined ? 0 : 2;
    return;
  }
  loadEnvFile();
  const config = loadConfig(process.env);
  const app = createApp(config, { newAdminKey: args.includes('--new-admin-key') });
  const stop = stopOnSignals(() => app.stop());
  try {
    await app.start();
  } catch (cause) {
    if (!stop.isAsked) throw cause;
  }
  if (!stop.isAsked) printWelcome(app.started, config);
}

/** Some shells and npm pass one Ctrl-C on twice within moments. */
const ONE_SIGNAL_MS = 500;

/** The first signal stops in order; another one later ends the process at once. */
function stopOnSignals(stopApp: () => Promise<void>): { isAsked: boolean } {
  const state = { isAsked: false };
  let askedAt = 0;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (!state.isAsked) {
        state.isAsked = true;
        askedAt = performance.now();
        stopApp().then(() => process.exit(0), fail);
      } else if (performance.now() - askedAt > ONE_SIGNAL_MS) {
        process.exit(130);
      }
    });
  }
  return state;
}

function fail(cause: unknown): void {
  const text = cause instanceof AppError ? `${cause.code}: ${cause.message}` : reasonOf(cause);
  process.stderr.write(`puback: ${text}\n`);
  process.exit(1);
}

process.on('uncaughtException', fail);
await main(process.argv.slice(2)).catch(fail);
