import { Counter, type Registry } from 'prom-client';
import { scrapedCounters, scrapedGauges } from '../scraped-metrics.ts';
import { UPDATE_ENDS, type UpdateState } from './update.ts';

/** Why a download was refused; a closed set. */
export const DOWNLOAD_REFUSALS = ['link', 'expired', 'busy', 'range'] as const;
/** One of {@link DOWNLOAD_REFUSALS}. */
export type DownloadRefusal = (typeof DOWNLOAD_REFUSALS)[number];

const UPLOAD_OUTCOMES = ['taken', 'refused'] as const;

/** What is asked at each scrape. */
export interface OtaGauges {
  readonly downloads: number;
  readonly downloadsMax: number;
  readonly openUpdates: number;
}

/** Counts of firmware and updates. */
export class OtaMetrics {
  readonly #uploads: Counter<'outcome'>;
  readonly #refused: Counter<'reason'>;
  readonly #ended: Counter<'outcome'>;
  #downloads = 0;
  #bytes = 0;

  constructor(registry: Registry, gauges: () => OtaGauges) {
    this.#uploads = counterBy(registry, 'outcome', UPLOAD_OUTCOMES, {
      name: 'puback_ota_uploads_total',
      help: 'Uploads of firmware images, by outcome.',
    });
    this.#refused = counterBy(registry, 'reason', DOWNLOAD_REFUSALS, {
      name: 'puback_ota_downloads_refused_total',
      help: 'Requests for firmware that were refused, by reason.',
    });
    this.#ended = counterBy(registry, 'outcome', UPDATE_ENDS, {
      name: 'puback_ota_updates_ended_total',
      help: 'Updates of devices that ended, by outcome.',
    });
    const counter = scrapedCounters(registry);
    counter(
      'puback_ota_downloads_total',
      'Downloads of firmware that were begun; each range counts.',
      () => this.#downloads,
    );
    counter(
      'puback_ota_download_bytes_total',
      'Bytes of firmware that were sent.',
      () => this.#bytes,
    );
    const gauge = scrapedGauges(registry);
    gauge('puback_ota_downloads', 'Downloads under way.', () => gauges().downloads);
    gauge(
      'puback_ota_downloads_max',
      'Downloads that may be under way at once.',
      () => gauges().downloadsMax,
    );
    gauge(
      'puback_ota_open_updates',
      'Updates of devices that have not ended.',
      () => gauges().openUpdates,
    );
  }

  /** An upload ended. */
  uploaded(outcome: (typeof UPLOAD_OUTCOMES)[number]): void {
    this.#uploads.inc({ outcome });
  }

  /** A download began. */
  downloadBegan(): void {
    this.#downloads += 1;
  }

  /** So many bytes more were sent. */
  sentBytes(bytes: number): void {
    this.#bytes += bytes;
  }

  /** A download was refused. */
  downloadRefused(reason: DownloadRefusal): void {
    this.#refused.inc({ reason });
  }

  /** An update ended. */
  updateEnded(outcome: UpdateState): void {
    this.#ended.inc({ outcome });
  }
}

function counterBy<Label extends string>(
  registry: Registry,
  label: Label,
  values: readonly string[],
  named: { readonly name: string; readonly help: string },
): Counter<Label> {
  const counter = new Counter({ ...named, labelNames: [label], registers: [registry] });
  for (const value of values) counter.inc({ [label]: value } as Record<Label, string>, 0);
  return counter;
}
