import { writeSync } from 'node:fs';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { openDatabase } from '../../drizzle/database.ts';
import { Notifier } from '../../rules/notify/notifier.ts';
import { Secrets } from '../../rules/notify/secrets.ts';
import { realSenders, testLimits } from './notify.ts';

/** Sends notifications until it is killed. Usage: DATABASE_URL KEY. */
const [, , url = '', key = ''] = process.argv;
const log = pino({ level: 'silent' });
const database = await openDatabase({ url, connectionsMax: 4, timeoutMs: 10_000, log });
const notifier = new Notifier({
  database,
  senders: realSenders(),
  secrets: new Secrets([Buffer.from(key, 'base64')]),
  limits: testLimits(),
  registry: new Registry(),
  log,
  now: Date.now,
  pollMs: 100,
});
notifier.start();
writeSync(1, 'started\n');
// The timers of the notifier keep no program alive.
setInterval(() => undefined, 60_000);
