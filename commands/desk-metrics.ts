import type { Registry } from 'prom-client';
import type { RefusalCode } from '../firmware-protocol/contract.ts';
import { scrapedCounterBy, scrapedCounters, scrapedGauges } from '../scraped-metrics.ts';
import type { IntegratorCommands } from './integrator-commands.ts';
import type { CommandWaits } from './waits.ts';

/** For which a command over MQTT can be refused. */
const REFUSALS = [
  'bad_json',
  'bad_name',
  'bad_type',
  'too_big',
  'too_deep',
  'too_many',
  'forbidden',
  'unknown_channel',
  'quota',
] as const satisfies readonly RefusalCode[];

/** Counts of how commands come in, and of who waits for what becomes of them. */
export function registerDeskMetrics(
  registry: Registry,
  waits: Pick<CommandWaits, 'waiting' | 'refused'>,
  published: Pick<IntegratorCommands, 'waiting' | 'refused'>,
): void {
  const gauge = scrapedGauges(registry);
  gauge(
    'puback_commands_waiting_requests',
    'Requests that wait for the outcome of their command.',
    () => waits.waiting,
  );
  gauge(
    'puback_commands_waiting_publications',
    'Commands that integrators published and that wait for the database.',
    () => published.waiting,
  );
  scrapedCounters(registry)(
    'puback_commands_waits_refused_total',
    'Requests that were answered at once because COMMAND_WAITS_MAX others waited.',
    () => waits.refused,
  );
  scrapedCounterBy(
    registry,
    {
      name: 'puback_commands_publishes_refused_total',
      help: 'Commands that integrators published and that were refused, by reason.',
      label: 'code',
    },
    () => REFUSALS.map((code) => [code, published.refused.get(code) ?? 0] as const),
  );
}
