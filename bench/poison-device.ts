import { connect, type MqttClient } from 'mqtt';
import type pg from 'pg';

/** The value that the database refuses during a run. */
const REFUSED_VALUE = -666.5;

/** What became of the messages that the database had to refuse. */
export interface PoisonResult {
  sent: number;
  acknowledged: number;
  /** Acknowledged and not in quarantine: must be 0. */
  lost: number;
  /** Stored as readings: must be 0. */
  stored: number;
}

/** Makes the database refuse the readings of {@link PoisonDevice}. Needs the owner of the table. */
export async function refusePoison(client: pg.Client): Promise<void> {
  await client.query(
    `ALTER TABLE reading ADD CONSTRAINT chaos_refused CHECK (value <> ${REFUSED_VALUE})`,
  );
}

/** A device whose readings the database refuses. */
export class PoisonDevice {
  readonly #device: string;
  readonly #client: MqttClient;
  readonly #acknowledged = new Set<string>();
  #sent = 0;

  constructor(device: string, key: string, mqttUrl: string) {
    this.#device = device;
    this.#client = connect(mqttUrl, {
      clientId: device,
      username: 'device',
      password: key,
      reconnectPeriod: 200,
      // It sends again what was not acknowledged, however long that takes.
      queueQoSZero: false,
    });
    this.#client.on('error', () => undefined);
  }

  /** Publishes one reading that will be refused; sent again until it is acknowledged. */
  publish(): void {
    this.#sent += 1;
    const payload = `{"ts":${Date.now()},"n":${REFUSED_VALUE},"poison":${this.#sent}}`;
    this.#client.publish('v1/me/data', payload, { qos: 1 }, (error) => {
      if (error === undefined || error === null) this.#acknowledged.add(payload);
    });
  }

  /** Looks for each acknowledged message in quarantine. */
  async compare(client: pg.Client): Promise<PoisonResult> {
    const { rows } = await client.query<{ payload: string }>(
      `SELECT convert_from(payload, 'UTF8') AS payload FROM quarantine JOIN device USING (device_id)
       WHERE slug = $1`,
      [this.#device],
    );
    const quarantined = new Set(rows.map(({ payload }) => payload));
    const stored = await client.query(`SELECT FROM v_reading WHERE device = $1`, [this.#device]);
    return {
      sent: this.#sent,
      acknowledged: this.#acknowledged.size,
      lost: [...this.#acknowledged].filter((payload) => !quarantined.has(payload)).length,
      stored: stored.rowCount ?? 0,
    };
  }

  stop(): void {
    this.#client.end(true);
  }
}
