import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QUALITY } from '../../firmware-protocol/contract.ts';
import { decodeEvent } from '../../firmware-protocol/event.ts';
import { decodeLog } from '../../firmware-protocol/log-entry.ts';
import { isRefusal, type Decoded, type Refusal } from '../../firmware-protocol/telemetry.ts';
import { createOccurrences } from '../../ingest/occurrences.ts';
import {
  OCCURRENCE_STATEMENTS,
  occurrenceRows,
  type OccurrenceMessage,
} from '../../ingest/occurrence-rows.ts';
import { createTestApi, type TestApi } from '../support/api.ts';

const NOON = Date.parse('2025-11-21T12:00:00Z') * 1000;
const SECOND = 1_000_000;

let t: TestApi;
let deviceId: number;
let otherDeviceId: number;
beforeAll(async () => {
  t = await createTestApi();
  ({ deviceId } = await t.registry.devices.create(t.acme.author, { slug: 'boiler' }));
  ({ deviceId: otherDeviceId } = await t.registry.devices.create(t.other.author, { slug: 'mill' }));
  await store([
    message(decodeEvent('door', Buffer.from('{"open":true,"by":{"card":[1,null,"ä"]}}')), NOON),
    message(decodeEvent('door', Buffer.from('{"open":false}')), NOON + 1),
    message(decodeEvent('boot', Buffer.from('')), NOON + 1),
    message(decodeEvent('press', Buffer.from('"long"')), NOON + SECOND),
    message(decodeLog(Buffer.from('E (12) wifi: lost\nW (13) wifi: slow\nplain')), NOON),
    message(decodeLog(Buffer.from('I (99) app: up')), NOON + SECOND),
    message(decodeEvent('door', Buffer.from('{"of":"other"}')), NOON, 'other'),
    message(decodeLog(Buffer.from('E (1) x: of other')), NOON, 'other'),
  ]);
});
afterAll(() => t.stop());

function message(
  decoded: Decoded | Refusal,
  receivedMicros: number,
  of: 'acme' | 'other' = 'acme',
): OccurrenceMessage {
  if (isRefusal(decoded) || decoded.occurrence === undefined) throw new Error('refused');
  const { samples, occurrence } = decoded;
  const device = {
    organizationId: t[of].author.organizationId,
    deviceId: of === 'acme' ? deviceId : otherDeviceId,
  };
  return {
    dated: {
      occurrence,
      timesMicros: samples.map(({ fromLast }) => receivedMicros - fromLast),
      quality: QUALITY.receipt,
    },
    lane: { device },
    receivedMicros,
  };
}

/** @returns how many rows of both tables were new. */
async function store(messages: OccurrenceMessage[]): Promise<number> {
  const { events, logEntries } = occurrenceRows([
    ...messages,
    { dated: null, lane: { device: { organizationId: 1, deviceId: 1 } }, receivedMicros: 0 },
  ]);
  const { pool } = t.test.database;
  const stored = await pool.query(OCCURRENCE_STATEMENTS.event, [JSON.stringify(events)]);
  const logged = await pool.query(OCCURRENCE_STATEMENTS.log_entry, [JSON.stringify(logEntries)]);
  return (stored.rowCount ?? 0) + (logged.rowCount ?? 0);
}

async function list(path: string): Promise<Record<string, unknown>[]> {
  const { status, body } = await t.send('GET', `/api/v1/devices/boiler/${path}`);
  expect(status, JSON.stringify(body)).toBe(200);
  return body.data;
}

/** All pages, one after the other. */
async function pages(path: string, limit: number): Promise<Record<string, unknown>[]> {
  const rows: Record<string, unknown>[] = [];
  let cursor = '';
  for (;;) {
    const { body } = await t.send('GET', `/api/v1/devices/boiler/${path}&limit=${limit}${cursor}`);
    rows.push(...body.data);
    expect(body.data.length).toBeLessThanOrEqual(limit);
    if (body.next === null) return rows;
    cursor = `&cursor=${body.next}`;
  }
}

describe('GET events', () => {
  it('gives them newest first, with content, time of receipt and quality', async () => {
    expect(await list('events')).toEqual([
      {
        time: '2025-11-21T12:00:01.000Z',
        name: 'press',
        content: 'long',
        receivedAt: '2025-11-21T12:00:01.000Z',
        quality: 'receipt',
      },
      expect.objectContaining({ name: 'door', content: { open: false } }),
      expect.objectContaining({ name: 'boot', content: null, time: '2025-11-21T12:00:00.000001Z' }),
      expect.objectContaining({ content: { open: true, by: { card: [1, null, 'ä'] } } }),
    ]);
  });

  it('filters by name and time', async () => {
    expect(await list('events?name=door')).toHaveLength(2);
    expect(await list('events?name=nothing')).toEqual([]);
    const noon = '2025-11-21T12:00:00.000001Z';
    expect(await list(`events?from=${noon}&to=2025-11-21T12:00:01Z`)).toHaveLength(2);
    expect(await list(`events?to=${noon}&order=asc`)).toHaveLength(1);
  });

  it.each(['asc', 'desc'])('pages through equal times without a gap, %s', async (order) => {
    const all = await list(`events?order=${order}`);
    expect(all).toHaveLength(4);
    for (const limit of [1, 2, 3]) {
      expect(await pages(`events?order=${order}`, limit)).toEqual(all);
    }
  });

  it('refuses what is no name, a time that is none and a cursor of other filters', async () => {
    const { body } = await t.send('GET', '/api/v1/devices/boiler/events?limit=1');
    for (const query of [
      'name=%00',
      'name=1st',
      'from=yesterday',
      'from=2025-11-22&to=2025-11-21',
      'limit=0',
      'limit=5001',
      'colour=red',
      `name=door&cursor=${body.next}`,
      'cursor=x',
    ]) {
      const { status } = await t.send('GET', `/api/v1/devices/boiler/events?${query}`);
      expect(status, query).toBe(400);
    }
  });
});

describe('GET logs', () => {
  it('gives the lines newest first, a microsecond apart within a message', async () => {
    expect(await list('logs')).toEqual([
      {
        time: '2025-11-21T12:00:01.000Z',
        level: 'I',
        tag: 'app',
        uptimeMs: 99,
        message: 'up',
      },
      {
        time: '2025-11-21T12:00:00.000Z',
        level: null,
        tag: null,
        uptimeMs: null,
        message: 'plain',
      },
      expect.objectContaining({ time: '2025-11-21T11:59:59.999999Z', message: 'slow' }),
      expect.objectContaining({ time: '2025-11-21T11:59:59.999998Z', message: 'lost', level: 'E' }),
    ]);
  });

  it('filters by level, tag and time, and pages', async () => {
    expect(await list('logs?level=E')).toHaveLength(1);
    expect(await list('logs?level=E&level=W')).toHaveLength(2);
    expect(await list('logs?tag=wifi')).toHaveLength(2);
    expect(await list('logs?from=2025-11-21T12:00:01Z')).toHaveLength(1);
    const all = await list('logs?order=asc');
    expect(all.map(({ message: text }) => text)).toEqual(['lost', 'slow', 'plain', 'up']);
    expect(await pages('logs?order=asc', 1)).toEqual(all);
    expect(await pages('logs?level=I&level=E&order=asc', 1)).toHaveLength(2);
  });

  it('refuses a level that there is not', async () => {
    for (const query of ['level=X', 'level=', 'tag=%00', 'tag=']) {
      const { status } = await t.send('GET', `/api/v1/devices/boiler/logs?${query}`);
      expect(status, query).toBe(400);
    }
  });
});

describe('events and logs', () => {
  it('are of the organization of the key alone', async () => {
    for (const path of ['events', 'logs']) {
      const { status } = await t.send('GET', `/api/v1/devices/mill/${path}`);
      expect(status).toBe(404);
      const own = await t.send('GET', `/api/v1/devices/mill/${path}`, undefined, t.other.adminKey);
      expect(own.body.data).toHaveLength(1);
    }
  });

  it('are stored once, however often their batch is written', async () => {
    const again = [
      message(decodeEvent('door', Buffer.from('{"open":true}')), NOON),
      message(decodeLog(Buffer.from('a\nb\nc')), NOON),
    ];
    expect(await store(again)).toBe(0);
  });

  it('go when they are too old, and not before', async () => {
    const occurrences = createOccurrences(t.test.database);
    const { rows } = await t.test.database.pool.query<{ ms: number }>(
      `SELECT (extract(epoch FROM now()) * 1000)::float8 AS ms`,
    );
    const ageMs = (rows[0]?.ms ?? 0) - NOON / 1000;
    const afterNoon = ageMs - 500;
    const long = ageMs + 3_600_000;
    expect(await occurrences.prune({ eventAgeMaxMs: long, logAgeMaxMs: long })).toBe(0);
    // Those of noon, of both organizations: 4 events, 4 lines.
    expect(await occurrences.prune({ eventAgeMaxMs: afterNoon, logAgeMaxMs: long })).toBe(4);
    expect(await occurrences.prune({ eventAgeMaxMs: afterNoon, logAgeMaxMs: afterNoon })).toBe(4);
    expect(await list('events')).toHaveLength(1);
    expect(await list('logs')).toHaveLength(1);
  });
});
