import { generateKeyPairSync } from 'node:crypto';
import type { Route } from '../../api/route.ts';
import type { TestApi } from './api.ts';

/** A request that nothing but rights can refuse, and what it is answered. */
export interface DownlinkRequest {
  readonly path: string;
  readonly body: unknown;
  /** For who has the right. */
  readonly done: number;
  /** For the admin of another organization. */
  readonly foreign: number;
  readonly headers?: Readonly<Record<string, string>>;
}

type Make = (t: TestApi, path: string) => Promise<DownlinkRequest>;

const RELAY = { command: 'relay' };

let made = 0;

/** The routes of rotations, claims and batches. */
const KEY_REQUESTS: Readonly<Record<string, Make>> = {
  'POST /api/v1/devices/batch': async (_t, path) => ({
    ...own(path, 201),
    body: { devices: [nameOf('made')] },
  }),
  'POST /api/v1/devices/{device}/keys/rotate': (t, path) => ofRotation(t, path, 202),
  'GET /api/v1/devices/{device}/rotation': (t, path) => ofRotation(t, path, 200),
  'DELETE /api/v1/devices/{device}/rotation': (t, path) => ofRotation(t, path, 204),
  'GET /api/v1/claim-keys': async (_t, path) => own(path, 200),
  'POST /api/v1/claim-keys': async (t, path) => {
    await t.test.database.pool.query(`DELETE FROM api_key WHERE kind = 'claim' AND name = 'batch'`);
    return { ...own(path, 201), body: claimKeyBody() };
  },
  'GET /api/v1/claim-keys/{keyId}': (t, path) => ofClaimKey(t, path, 200),
  'PATCH /api/v1/claim-keys/{keyId}': async (t, path) => ({
    ...(await ofClaimKey(t, path, 200)),
    body: { quota: 2 },
  }),
  'DELETE /api/v1/claim-keys/{keyId}': (t, path) => ofClaimKey(t, path, 204),
  'GET /api/v1/claims': async (_t, path) => own(path, 200),
  'POST /api/v1/claims/{hardwareId}/approve': ofClaim,
  'POST /api/v1/claims/{hardwareId}/deny': ofClaim,
};

/** The routes of firmware and updates. */
const FIRMWARE_REQUESTS: Readonly<Record<string, Make>> = {
  'GET /api/v1/firmware': async (_t, path) => own(path, 200),
  'POST /api/v1/firmware': async (_t, path) => ({
    ...own(`${path}?model=thermo-1&version=${nameOf('v')}`, 201),
    body: 'an image',
  }),
  'GET /api/v1/firmware/{firmwareId}': ofFirmware,
  'DELETE /api/v1/firmware/{firmwareId}': ofFirmware,
  'GET /api/v1/firmware-signers': async (_t, path) => own(path, 200),
  'POST /api/v1/firmware-signers': async (_t, path) => ({ ...own(path, 201), body: signerBody() }),
  'GET /api/v1/firmware-signers/{signer}': ofSigner,
  'DELETE /api/v1/firmware-signers/{signer}': ofSigner,
  'GET /api/v1/devices/{device}/updates': async (t, path) =>
    named(path.replace('{device}', await newDevice(t)), 200),
  'POST /api/v1/devices/{device}/updates': async (t, path) => ({
    ...named(path.replace('{device}', await newDevice(t)), 202),
    body: { firmware: await newFirmware(t), force: true },
  }),
  'GET /api/v1/updates/{updateId}': ofUpdate,
  'DELETE /api/v1/updates/{updateId}': ofUpdate,
};

/** Whichever version there is. */
const ANY_VERSION = { 'if-match': '*' };
const VERSION_PATH = '/api/v1/devices/{device}/configuration/versions/{version}';
const TYPE_PATH = '/api/v1/device-types/{type}/configuration';

/** The routes of configuration. */
const CONFIGURATION_REQUESTS: Readonly<Record<string, Make>> = {
  'GET /api/v1/configurations': async (_t, path) => own(path, 200),
  'GET /api/v1/devices/{device}/configuration': ofConfiguration,
  'PUT /api/v1/devices/{device}/configuration': ofConfiguration,
  'PATCH /api/v1/devices/{device}/configuration': ofConfiguration,
  'GET /api/v1/devices/{device}/configuration/versions': ofConfiguration,
  [`GET ${VERSION_PATH}`]: ofConfiguration,
  [`POST ${VERSION_PATH}/restore`]: ofConfiguration,
  'GET /api/v1/configuration-types': async (_t, path) => own(path, 200),
  [`GET ${TYPE_PATH}`]: ofConfigurationType,
  // Each organization has its own.
  [`PUT ${TYPE_PATH}`]: async (t, path) => ({
    ...(await ofConfigurationType(t, path)),
    foreign: 200,
  }),
  [`DELETE ${TYPE_PATH}`]: ofConfigurationType,
};

/** The routes of campaigns. */
const CAMPAIGN_REQUESTS: Readonly<Record<string, Make>> = {
  'GET /api/v1/campaigns': async (_t, path) => own(path, 200),
  'POST /api/v1/campaigns': async (t, path) => {
    const targets = { devices: [await newDevice(t)] };
    // No device of another organization is one of its targets.
    return { ...own(path, 201), foreign: 400, body: { name: 'x', targets, request: RELAY } };
  },
  'GET /api/v1/campaigns/{campaignId}': (t, path) => ofCampaign(t, path, 'running'),
  'GET /api/v1/campaigns/{campaignId}/devices': (t, path) => ofCampaign(t, path, 'running'),
  'POST /api/v1/campaigns/{campaignId}/pause': (t, path) => ofCampaign(t, path, 'running'),
  'POST /api/v1/campaigns/{campaignId}/resume': (t, path) => ofCampaign(t, path, 'paused'),
  'POST /api/v1/campaigns/{campaignId}/cancel': (t, path) => ofCampaign(t, path, 'paused'),
  'POST /api/v1/campaigns/{campaignId}/retry-failed': async (t, path) => ({
    ...(await ofCampaign(t, path, 'stopped')),
    done: 201,
  }),
};

/**
 * The routes of commands, campaigns, configuration, keys and updates, by method and path. A route that is in this
 * table is asked what it says, and no other.
 */
const REQUESTS: Readonly<Record<string, Make>> = {
  ...KEY_REQUESTS,
  ...FIRMWARE_REQUESTS,
  ...CONFIGURATION_REQUESTS,
  ...CAMPAIGN_REQUESTS,
  'GET /api/v1/commands': async (_t, path) => own(path, 200),
  'GET /api/v1/commands/{commandId}': (t, path) => ofCommand(t, path, {}),
  'DELETE /api/v1/commands/{commandId}': (t, path) => ofCommand(t, path, {}),
  'POST /api/v1/commands/{commandId}/approve': (t, path) => ofCommand(t, path, { approval: true }),
  'POST /api/v1/devices/{device}/commands': async (t, path) => ({
    ...named(path.replace('{device}', await newDevice(t)), 202),
    body: { command: 'relay' },
  }),
  'GET /api/v1/devices/{device}/commands': async (t, path) =>
    named(path.replace('{device}', await newDevice(t)), 200),
  'GET /api/v1/devices/{device}/commands/{commandId}': (t, path) => ofCommand(t, path, {}),
  'DELETE /api/v1/devices/{device}/commands/{commandId}': (t, path) => ofCommand(t, path, {}),
  'GET /api/v1/command-definitions': async (_t, path) => own(path, 200),
  'GET /api/v1/command-definitions/{type}/{command}': (t, path) => ofDefinition(t, path, 200),
  'PUT /api/v1/command-definitions/{type}/{command}': async (_t, path) => ({
    // Each organization has its own.
    ...own(path.replace('{type}', 'boiler').replace('{command}', nameOf('new')), 201),
    body: {},
  }),
  'DELETE /api/v1/command-definitions/{type}/{command}': (t, path) => ofDefinition(t, path, 204),
  'GET /api/v1/device/commands': async (_t, path) => own(path, 200),
  'POST /api/v1/device/commands/ack': async (_t, path) => ({
    ...own(path, 204),
    body: { id: 1, st: 'ok' },
  }),
  'GET /api/v1/admin-keys': async (_t, path) => own(path, 200),
  'POST /api/v1/admin-keys': async (_t, path) => ({ ...own(path, 201), body: { name: 'Ada' } }),
  'DELETE /api/v1/admin-keys/{keyId}': async (t, path) => {
    const { keyId } = (await t.send('POST', '/api/v1/admin-keys', { name: 'Ada' })).body;
    return named(path.replace('{keyId}', keyId), 204);
  },
};

/** The request of one of these routes, on things of its own; null: it is another route. */
export async function downlinkRequest(
  t: TestApi,
  { method, path }: Pick<Route, 'method' | 'path'>,
): Promise<DownlinkRequest | null> {
  made += 1;
  return (await REQUESTS[`${method} ${path}`]?.(t, path)) ?? null;
}

/** Of something that has a name: in another organization it does not exist. */
function named(path: string, done: number): DownlinkRequest {
  return { path, body: undefined, done, foreign: 404 };
}

/** Of what every organization has. */
function own(path: string, done: number): DownlinkRequest {
  return { path, body: undefined, done, foreign: done };
}

async function ofCommand(t: TestApi, path: string, more: object): Promise<DownlinkRequest> {
  const device = await newDevice(t);
  // Asked for with another key than the one that the request carries.
  const { key } = (await t.send('POST', '/api/v1/admin-keys', { name: nameOf('author') })).body;
  const body = { command: 'relay', ...more };
  const { id } = (await t.send('POST', `/api/v1/devices/${device}/commands`, body, key)).body;
  await t.test.database.pool.query('DELETE FROM api_key WHERE key_id = $1', [key.slice(4, 12)]);
  return named(path.replace('{device}', device).replace('{commandId}', id), 200);
}

async function ofDefinition(t: TestApi, path: string, done: number): Promise<DownlinkRequest> {
  const name = nameOf('known');
  await t.send('PUT', `/api/v1/command-definitions/boiler/${name}`, {});
  return named(path.replace('{type}', 'boiler').replace('{command}', name), done);
}

/** With a version 1, and a name of its own. */
async function ofConfiguration(t: TestApi, path: string): Promise<DownlinkRequest> {
  const device = await newDevice(t);
  const configuration = `/api/v1/devices/${device}/configuration`;
  const { adminKey } = t.acme;
  await t.send('PUT', configuration, { every: 60 }, adminKey, ANY_VERSION);
  const place = path.replace('{device}', device).replace('{version}', '1');
  return { ...named(place, 200), body: { every: 30 }, headers: ANY_VERSION };
}

async function ofConfigurationType(t: TestApi, path: string): Promise<DownlinkRequest> {
  const place = path.replace('{type}', nameOf('type'));
  const body = { defaults: { every: 60 } };
  await t.send('PUT', place, body, t.acme.adminKey, ANY_VERSION);
  return { ...named(place, 200), body, headers: ANY_VERSION };
}

/** One that does nothing by itself, with a device that failed. */
async function ofCampaign(
  t: TestApi,
  path: string,
  state: 'running' | 'paused' | 'stopped',
): Promise<DownlinkRequest> {
  const { pool } = t.test.database;
  // As many as this makes are more than an organization may have open.
  await pool.query('DELETE FROM campaign WHERE ended_at IS NULL');
  const policy = { canary: 1, waves: [100], waveDevices: null, ratePerMinute: 60, concurrent: 1 };
  const bounds = {
    stop: { failedPercent: 20, failedCount: null },
    settleMs: 0,
    deviceTimeoutMs: 3_600_000,
  };
  const { rows } = await pool.query<{ campaign_id: string }>(
    `INSERT INTO campaign
       (campaign_id, organization_id, kind, name, state, request, policy, created_by, ended_at)
     VALUES (gen_random_uuid(), $1, 'command', 'x', $2, $3, $4, 'test',
       CASE WHEN $2 = 'stopped' THEN now() END) RETURNING campaign_id`,
    [t.acme.author.organizationId, state, RELAY, { ...policy, ...bounds }],
  );
  const campaignId = rows[0]?.campaign_id ?? '';
  await pool.query(
    `INSERT INTO campaign_device
       (campaign_id, device_id, organization_id, wave, position, state, facts)
     SELECT $1, device_id, organization_id, 0, 0, 'failed', '{}' FROM device WHERE slug = $2`,
    [campaignId, await newDevice(t)],
  );
  return named(path.replace('{campaignId}', campaignId), 200);
}

async function ofRotation(t: TestApi, path: string, done: number): Promise<DownlinkRequest> {
  const device = await newDevice(t);
  await t.send('POST', `/api/v1/devices/${device}/keys`, {});
  if (done !== 202) await t.send('POST', `/api/v1/devices/${device}/keys/rotate`, {});
  return named(path.replace('{device}', device), done);
}

/** A claim key for one board. */
export function claimKeyBody(name = 'batch'): object {
  return { name, quota: 1, expiresAt: new Date(Date.now() + 3_600_000).toISOString() };
}

async function ofClaimKey(t: TestApi, path: string, done: number): Promise<DownlinkRequest> {
  await t.test.database.pool.query(`DELETE FROM api_key WHERE kind = 'claim' AND name = 'batch'`);
  const { keyId } = (await t.send('POST', '/api/v1/claim-keys', claimKeyBody())).body;
  return named(path.replace('{keyId}', keyId), done);
}

async function ofClaim(t: TestApi, path: string): Promise<DownlinkRequest> {
  const hardwareId = nameOf('board');
  await t.test.database.pool.query(
    `INSERT INTO device_claim
       (organization_id, hardware_id, key_id, state, address, requested_at)
     VALUES ($1, $2, 'A1b2C3d4', 'waiting', '', now())`,
    [t.acme.author.organizationId, hardwareId],
  );
  return named(path.replace('{hardwareId}', hardwareId), 200);
}

async function newFirmware(t: TestApi): Promise<string> {
  const path = `/api/v1/firmware?model=thermo-1&version=${nameOf('v')}`;
  return (await t.send('POST', path, 'an image')).body.id;
}

async function ofFirmware(t: TestApi, path: string): Promise<DownlinkRequest> {
  return named(path.replace('{firmwareId}', await newFirmware(t)), 200);
}

async function ofUpdate(t: TestApi, path: string): Promise<DownlinkRequest> {
  const body = { firmware: await newFirmware(t), force: true };
  const updates = `/api/v1/devices/${await newDevice(t)}/updates`;
  return named(path.replace('{updateId}', (await t.send('POST', updates, body)).body.id), 200);
}

/** A signer with a key of its own. */
export function signerBody(): { signer: string; publicKey: string } {
  const { publicKey } = generateKeyPairSync('ed25519');
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  return { signer: nameOf('signer'), publicKey: pem };
}

async function ofSigner(t: TestApi, path: string): Promise<DownlinkRequest> {
  const body = signerBody();
  await t.send('POST', '/api/v1/firmware-signers', body);
  return named(path.replace('{signer}', body.signer), 200);
}

async function newDevice(t: TestApi): Promise<string> {
  const device = nameOf('commanded');
  await t.send('POST', '/api/v1/devices', { device });
  return device;
}

function nameOf(what: string): string {
  return `${what}-${made}`;
}
