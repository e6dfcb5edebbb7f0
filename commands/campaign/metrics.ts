import { Counter, type Registry } from 'prom-client';
import { scrapedGauges } from '../../scraped-metrics.ts';

/** How campaigns end. */
const ENDS = ['completed', 'stopped', 'cancelled'] as const;
/** How devices of campaigns end. */
const OUTCOMES = ['succeeded', 'failed', 'skipped'] as const;

/** What is under way, as it was last looked at. */
export interface CampaignLoad {
  readonly openCampaigns: number;
  readonly activeDevices: number;
}

/** Counts of campaigns. */
export class CampaignMetrics {
  readonly #begun: Counter;
  readonly #devices: Counter<'outcome'>;
  readonly #campaigns: Counter<'state'>;

  constructor(registry: Registry, load: () => CampaignLoad) {
    const registers = [registry];
    this.#begun = new Counter({
      name: 'puback_campaigns_begun_devices_total',
      help: 'Devices that campaigns have begun with.',
      registers,
    });
    this.#devices = new Counter({
      name: 'puback_campaigns_ended_devices_total',
      help: 'Devices with which campaigns have ended, by outcome.',
      labelNames: ['outcome'],
      registers,
    });
    for (const outcome of OUTCOMES) this.#devices.inc({ outcome }, 0);
    this.#campaigns = new Counter({
      name: 'puback_campaigns_ended_total',
      help: 'Campaigns that have ended; stopped: too many devices failed.',
      labelNames: ['state'],
      registers,
    });
    for (const state of ENDS) this.#campaigns.inc({ state }, 0);
    const gauge = scrapedGauges(registry);
    gauge(
      'puback_campaigns_open_campaigns',
      'Campaigns that have not ended, of all organizations.',
      () => load().openCampaigns,
    );
    gauge(
      'puback_campaigns_active_devices',
      'Devices that campaigns are busy with.',
      () => load().activeDevices,
    );
  }

  begun(): void {
    this.#begun.inc();
  }

  deviceEnded(outcome: (typeof OUTCOMES)[number]): void {
    this.#devices.inc({ outcome });
  }

  campaignEnded(state: (typeof ENDS)[number]): void {
    this.#campaigns.inc({ state });
  }
}
