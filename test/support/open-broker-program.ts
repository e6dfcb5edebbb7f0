import { parseArgs } from 'node:util';
import { createLog } from '../../log.ts';
import { startOpenBroker } from './open-broker.ts';

/**
 * `npm run open-broker -- --port 1883 --data DIR`: the broker without login, for outside conformance
 * suites. Anybody who reaches its port may read and write everything.
 */
const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '1883' },
    data: { type: 'string', default: './data/open-broker' },
  },
});
const broker = await startOpenBroker({
  port: Number(values.port),
  dataDir: values.data,
  log: createLog('info'),
});
process.stdout.write(`open broker on ${broker.url}, sessions in ${values.data}\n`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void broker.stop());
}
