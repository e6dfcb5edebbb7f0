import { pino } from 'pino';
import { Registry } from 'prom-client';
import { createGateMetrics } from '../../broker/gate/gate-metrics.ts';
import { createGate } from '../../broker/gate/gate.ts';
import { listenTcp } from '../../broker/gate/listeners.ts';
import { openFilesLimit } from '../../broker/gate/open-files.ts';

/** A listener that echoes, for tests that give its process few file descriptors. Prints its port. */
const log = pino({ level: 'info' }, pino.destination(2));
const metrics = createGateMetrics(new Registry());
const gate = createGate({
  door: {
    connectionsMax: 1000,
    addressConnectionsMax: 0,
    addressUnauthenticatedMax: 0,
    addressConnectsPerS: 0,
    connectDeadlineMs: 60_000,
  },
  logins: { failuresMax: 0, banMs: 1000 },
  proxies: '',
  openFilesMax: openFilesLimit(),
  refused: () => undefined,
  metrics,
  log,
});
const listener = await listenTcp(
  { host: '127.0.0.1', port: 0, key: 'TEST_PORT' },
  {
    ...gate,
    log,
    accept(connection) {
      connection.on('data', (bytes) => connection.write(bytes));
    },
  },
);
process.stdout.write(`${listener.port}\n`);
