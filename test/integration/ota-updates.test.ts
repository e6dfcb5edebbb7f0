import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { CampaignKind } from '../../commands/campaign/campaign-kind.ts';
import { StoreUnavailableError } from '../../errors.ts';
import type { Hello } from '../../firmware-protocol/hello.ts';
import { FirmwareInvalidError, UpdateInvalidError } from '../../ota-errors.ts';
import type { DeviceUpdate } from '../../ota/update.ts';
import { espImage } from '../support/esp-image.ts';
import { eventually } from '../support/eventually.ts';
import { createTestOta, type TestOta } from '../support/ota.ts';

let made: TestOta;
let firmwareId: string;
let devices = 0;
beforeAll(async () => {
  made = await createTestOta({ sweepMs: 50 });
  const path = '/api/v1/firmware?model=thermo-1&version=1.1.0';
  const image = espImage('1.1.0', 'thermo-1', 20_000);
  firmwareId = (await made.send('POST', path, image)).body.id;
});
afterAll(() => made.stop());
afterEach(() => {
  made.aheadMs = 0;
  made.alerts = [];
});

interface Begun {
  readonly updateId: string;
  readonly device: string;
  readonly deviceId: number;
  readonly url: string;
}

async function begin(hello?: Hello): Promise<Begun> {
  devices += 1;
  const device = `d-${devices}`;
  const deviceId = await made.addDevice(device, hello);
  const { body } = await ask(device);
  const url = made.commands.offers.find(({ ref }) => ref === body.id)?.args.url ?? '';
  return { updateId: body.id, device, deviceId, url };
}

const ask = (device: string, more: object = {}) =>
  made.send(
    'POST',
    `/api/v1/devices/${device}/updates`,
    JSON.stringify({ firmware: firmwareId, ...more }),
  );

const get = (updateId: string): Promise<DeviceUpdate> =>
  made.ota.updates.get(made.acme.author.organizationId, updateId);

const greet = ({ deviceId }: Begun, hello: Hello): Promise<void> =>
  made.ota.updates.greeted({ ...made.acme.author, deviceId }, hello);

async function eventuallyIs(updateId: string, wanted: Partial<DeviceUpdate>): Promise<void> {
  await eventually(JSON.stringify(wanted), async () => {
    const update = await get(updateId);
    return Object.entries(wanted).every(([key, value]) => update[key as 'state'] === value);
  });
}

async function download({ url, updateId }: Begun): Promise<void> {
  await (await fetch(url)).arrayBuffer();
  await eventuallyIs(updateId, { state: 'installing' });
}

/** How the command of an update was ended. */
function settled(updateId: string): (readonly string[])[] {
  const offer = made.commands.offers.find(({ ref }) => ref === updateId);
  return made.commands.settled.filter(([id]) => id === offer?.commandId).map(([, ...rest]) => rest);
}

describe('an update', () => {
  it('succeeds when the device greets with the new version, and ends its command', async () => {
    const begun = await begin();
    expect(await get(begun.updateId)).toMatchObject({ state: 'offered', fromVersion: '1.0.0' });
    made.step(begun.updateId, { state: 'running', progress: 5 });
    await eventuallyIs(begun.updateId, { state: 'downloading' });
    await download(begun);
    await greet(begun, { fw: '1.1.0', ota: 'pending', boot: 11 });
    expect((await get(begun.updateId)).state).toBe('installing');
    await greet(begun, { fw: '1.1.0', ota: 'valid', boot: 11 });
    expect(await get(begun.updateId)).toMatchObject({
      state: 'succeeded',
      code: 'greeted',
      boots: 1,
      bootAfter: 11,
    });
    expect(settled(begun.updateId)).toEqual([['succeeded', 'greeted']]);
    // One way: nothing changes it any more.
    await greet(begun, { fw: '1.0.0', boot: 12 });
    expect((await get(begun.updateId)).state).toBe('succeeded');
  });

  it('is rolled back when the old version is back behind a boot', async () => {
    const begun = await begin();
    await download(begun);
    await greet(begun, { fw: '1.0.0', boot: 10 });
    expect((await get(begun.updateId)).state).toBe('installing');
    await greet(begun, { fw: '1.0.0', boot: 12 });
    expect(await get(begun.updateId)).toMatchObject({
      state: 'rolled_back',
      code: 'rolled_back',
      boots: 2,
    });
    expect(settled(begun.updateId)).toEqual([['failed', 'rolled_back']]);
  });

  it('is a crash loop when the new version boots again and again', async () => {
    const begun = await begin();
    await download(begun);
    for (const boot of [11, 12, 13]) await greet(begun, { fw: '1.1.0', ota: 'pending', boot });
    expect((await get(begun.updateId)).state).toBe('installing');
    await greet(begun, { fw: '1.1.0', ota: 'pending', boot: 14 });
    expect(await get(begun.updateId)).toMatchObject({ state: 'failed', code: 'crash_loop' });
  });

  it('has failed with what the device answers', async () => {
    const begun = await begin();
    made.step(begun.updateId, { state: 'failed', code: 'flash', message: 'no room' });
    await eventuallyIs(begun.updateId, { state: 'failed', code: 'flash', detail: 'no room' });
    expect((await fetch(begun.url)).status).toBe(403);
  });

  it('does not succeed because the device says ok', async () => {
    const begun = await begin();
    made.step(begun.updateId, { state: 'succeeded' });
    await eventuallyIs(begun.updateId, { state: 'installing', endedAt: null });
  });

  it('has failed when the device stays silent, later when it sleeps', async () => {
    const awake = await begin();
    const asleep = await begin({ fw: '1.0.0', mdl: 'thermo-1', boot: 1, sleep: 3600 });
    await download(awake);
    await download(asleep);
    made.aheadMs = 61_000;
    await eventuallyIs(awake.updateId, { state: 'failed', code: 'silent' });
    expect((await get(asleep.updateId)).state).toBe('installing');
    made.aheadMs = 62_000 + 9_000_000;
    await eventuallyIs(asleep.updateId, { state: 'failed', code: 'silent' });
  });

  it('is not silent while it says that it is still at work on what a proxy took at once', async () => {
    const working = await begin();
    const silent = await begin();
    await download(working);
    await download(silent);
    made.aheadMs = 50_000;
    made.step(working.updateId, { state: 'running', progress: 60 });
    await eventually('it is heard', async () => {
      const { activeAt } = await get(working.updateId);
      return activeAt !== null && activeAt.getTime() > Date.now() + 40_000;
    });
    made.aheadMs = 61_000;
    await eventuallyIs(silent.updateId, { state: 'failed', code: 'silent' });
    expect((await get(working.updateId)).state).toBe('installing');
    made.aheadMs = 111_000;
    await eventuallyIs(working.updateId, { state: 'failed', code: 'silent' });
  });

  it('tells a device that still runs the old image from a silent one', async () => {
    const begun = await begin({ fw: '1.0.0', mdl: 'thermo-1' });
    await download(begun);
    made.aheadMs = 1000;
    await made.say(begun.deviceId, { fw: '1.0.0', mdl: 'thermo-1' });
    made.aheadMs = 61_000;
    await eventuallyIs(begun.updateId, { state: 'failed', code: 'not_installed' });
  });

  it('has failed when its download takes too long', async () => {
    const begun = await begin();
    await (await fetch(begun.url, { headers: { range: 'bytes=0-9999' } })).arrayBuffer();
    await eventuallyIs(begun.updateId, { bytesSent: 10_000, state: 'downloading' });
    made.aheadMs = 3_601_000;
    await eventuallyIs(begun.updateId, { state: 'failed', code: 'download_timeout' });
  });

  it('has failed when the device is back and does not go on with its download', async () => {
    const begun = await begin();
    await (await fetch(begun.url, { headers: { range: 'bytes=0-9999' } })).arrayBuffer();
    await eventuallyIs(begun.updateId, { bytesSent: 10_000, state: 'downloading' });
    made.aheadMs = 1000;
    await made.say(begun.deviceId, { fw: '1.0.0', mdl: 'thermo-1', boot: 11 });
    made.aheadMs = 50_000;
    // It does, for once.
    await (await fetch(begun.url, { headers: { range: 'bytes=10000-10009' } })).arrayBuffer();
    await eventuallyIs(begun.updateId, { bytesSent: 10_010 });
    made.aheadMs = 70_000;
    await made.say(begun.deviceId, { fw: '1.0.0', mdl: 'thermo-1', boot: 12 });
    expect((await get(begun.updateId)).state).toBe('downloading');
    made.aheadMs = 131_000;
    await eventuallyIs(begun.updateId, { state: 'failed', code: 'interrupted' });
  });

  it('hears of a greeting that was missed from what presence has stored', async () => {
    const begun = await begin();
    await download(begun);
    made.aheadMs = 1000;
    await made.say(begun.deviceId, { fw: '1.1.0', mdl: 'thermo-1', ota: 'valid', boot: 11 });
    await eventuallyIs(begun.updateId, { state: 'succeeded' });
  });

  it('is the same one when it is asked for again, and one at a time', async () => {
    const begun = await begin();
    const again = await ask(begun.device);
    expect([again.status, again.body.id]).toEqual([200, begun.updateId]);
    const path = '/api/v1/firmware?model=thermo-1&version=1.2.0';
    const { body } = await made.send('POST', path, Buffer.from('another'));
    const other = await ask(begun.device, { firmware: body.id });
    expect([other.status, other.body.code]).toEqual([409, 'UPDATE_REFUSED']);
    expect(made.commands.offers.filter(({ device }) => device === begun.device)).toHaveLength(1);
  });

  it('is refused for another model, a model not said, and a version that runs', async () => {
    await made.addDevice('other-model', { fw: '1.0.0', mdl: 'hydro-1' });
    await made.addDevice('no-model', { fw: '1.0.0' });
    await made.addDevice('same', { fw: '1.1.0', mdl: 'thermo-1' });
    for (const device of ['other-model', 'no-model', 'same']) {
      expect((await ask(device)).status, device).toBe(409);
    }
    expect((await ask('other-model', { force: true })).status).toBe(409);
    expect((await ask('no-model', { force: true })).status).toBe(202);
    expect((await ask('nobody')).status).toBe(404);
    expect((await ask('same', { firmware: randomUUID() })).body.code).toBe('FIRMWARE_NOT_FOUND');
  });

  it('leaves nothing behind when its command is refused', async () => {
    await made.addDevice('refused');
    made.commands.fault = new FirmwareInvalidError('too big, say');
    expect((await ask('refused')).status).toBe(422);
    expect((await made.send('GET', '/api/v1/devices/refused/updates')).body.data).toEqual([]);
    expect((await ask('refused')).status).toBe(202);
  });

  it('ends when it was cut off before it was offered', async () => {
    await made.addDevice('cut-off');
    made.commands.fault = new StoreUnavailableError(new Error('away'));
    expect((await ask('cut-off')).status).toBe(503);
    const { body } = await made.send('GET', '/api/v1/devices/cut-off/updates');
    expect(body.data[0]).toMatchObject({ state: 'offered', command: null });
    made.aheadMs = 61_000;
    await eventuallyIs(body.data[0].id, { state: 'failed', code: 'not_offered' });
    made.aheadMs = 0;
    expect((await ask('cut-off')).status).toBe(202);
  });

  it('can be cancelled until the device has the image', async () => {
    const begun = await begin();
    const path = `/api/v1/updates/${begun.updateId}`;
    expect((await made.send('DELETE', path, undefined, made.other.adminKey)).status).toBe(404);
    const { status, body } = await made.send('DELETE', path);
    expect([status, body.state, body.code]).toEqual([200, 'failed', 'cancelled']);
    const { commandId } = made.commands.offers.find(({ ref }) => ref === begun.updateId) ?? {};
    expect(made.commands.cancelled).toContain(commandId);
    expect((await made.send('DELETE', path)).status).toBe(409);
    const late = await begin();
    await download(late);
    const refused = await made.send('DELETE', `/api/v1/updates/${late.updateId}`);
    expect([refused.status, refused.body.code]).toEqual([409, 'UPDATE_NOT_CANCELLABLE']);
  });

  it('is shown to its own organization, page by page', async () => {
    const begun = await begin();
    await made.ota.updates.cancel(made.acme.author, begun.updateId);
    const next = await ask(begun.device);
    const list = `/api/v1/devices/${begun.device}/updates?limit=1`;
    const first = await made.send('GET', list);
    expect(first.body.data[0]).toMatchObject({ id: next.body.id, state: 'offered' });
    const second = await made.send('GET', `${list}&cursor=${first.body.next}`);
    expect(second.body).toMatchObject({ data: [{ id: begun.updateId }], next: null });
    expect((await made.send('GET', list, undefined, made.other.adminKey)).status).toBe(404);
    const path = `/api/v1/updates/${begun.updateId}`;
    expect((await made.send('GET', path)).body.device).toBe(begun.device);
    expect((await made.send('GET', path, undefined, made.other.adminKey)).status).toBe(404);
  });
});

describe('a campaign of updates', () => {
  // Holds the shape of the kind against what campaigns take.
  const kind = (): CampaignKind => made.ota.campaignKind;
  const newCampaign = async (more: object = {}) => {
    const { organizationId } = made.acme.author;
    const author = { organizationId, actor: 'test' };
    const request = await kind().prepare(author, { firmware: firmwareId, watch: '0s', ...more });
    const own = { campaignId: randomUUID(), request, createdBy: 'test' };
    return { organizationId, deviceTimeoutMs: 3_600_000, ...own };
  };
  const newTarget = async (hello?: Hello) => {
    devices += 1;
    const device = `d-${devices}`;
    const deviceId = await made.addDevice(device, hello);
    const more = { commandId: null, facts: {}, startedAt: null, deviceType: null };
    return { deviceId, device, ...more };
  };
  const updateIdOf = (begun: object): string =>
    'facts' in begun ? String((begun.facts as { updateId: string }).updateId) : '';

  it('checks its request', async () => {
    const { organizationId } = made.acme.author;
    const author = { organizationId, actor: 'test' };
    await expect(kind().prepare(author, {})).rejects.toThrow('firmware');
    for (const wrong of [{ watch: '8d' }, { watch: 'long' }, { ttl: '0s' }, { rules: [] }]) {
      const asked = { firmware: firmwareId, ...wrong };
      await expect(kind().prepare(author, asked)).rejects.toThrow(UpdateInvalidError);
    }
    await expect(kind().prepare(author, { firmware: randomUUID() })).rejects.toThrow('no firmware');
    const path = '/api/v1/firmware?model=thermo-1&version=1.3.0';
    const { body } = await made.send('POST', path, Buffer.from('withdrawn soon'));
    await made.send('DELETE', `/api/v1/firmware/${body.id}`);
    await expect(kind().prepare(author, { firmware: body.id })).rejects.toThrow('withdrawn');
  });

  it('does nothing twice when it is begun again', async () => {
    const campaign = await newCampaign();
    const target = await newTarget();
    const first = await kind().begin(campaign, target);
    const again = await kind().begin(campaign, target);
    expect(again).toEqual(first);
    expect(made.commands.offers.filter(({ device }) => device === target.device)).toHaveLength(1);
  });

  it('goes on with a begin that was cut off', async () => {
    const campaign = await newCampaign();
    const target = await newTarget();
    made.commands.fault = new StoreUnavailableError(new Error('away'));
    await expect(kind().begin(campaign, target)).rejects.toThrow();
    expect(await kind().begin(campaign, target)).toMatchObject({
      commandId: expect.any(String) as string,
    });
  });

  it('skips devices that the image is not for', async () => {
    const campaign = await newCampaign();
    const codeOf = async (hello: Hello) => {
      const begun = await kind().begin(campaign, await newTarget(hello));
      return 'skipped' in begun ? begun.skipped : null;
    };
    expect(await codeOf({ mdl: 'hydro-1' })).toBe('other_model');
    expect(await codeOf({})).toBe('unknown_model');
    expect(await codeOf({ mdl: 'thermo-1', fw: '1.1.0' })).toBe('already_at_version');
  });

  it('judges devices by their updates', async () => {
    const campaign = await newCampaign();
    const targets = await Promise.all([newTarget(), newTarget(), newTarget(), newTarget()]);
    const updates: string[] = [];
    for (const target of targets) updates.push(updateIdOf(await kind().begin(campaign, target)));
    const [good, bad, undone, busy] = targets;
    const deviceId = good?.deviceId ?? 0;
    await made.ota.updates.greeted({ ...made.acme.author, deviceId }, { fw: '1.1.0', boot: 11 });
    made.step(updates[1] ?? '', { state: 'failed', code: 'flash' });
    await eventuallyIs(updates[1] ?? '', { state: 'failed' });
    await made.ota.updates.cancel(made.acme.author, updates[2] ?? '');
    const verdicts = await kind().judge(campaign, targets);
    const said = verdicts.map(({ deviceId: id, state, code }) => `${id} ${state} ${code}`);
    const expected = [
      `${good?.deviceId} succeeded greeted`,
      `${bad?.deviceId} failed flash`,
      `${undone?.deviceId} skipped cancelled`,
    ];
    expect(new Set(said)).toEqual(new Set(expected));
    await kind().withdraw(campaign, targets);
    const last = await kind().judge(campaign, busy === undefined ? [] : [busy]);
    expect(last).toMatchObject([{ state: 'skipped', code: 'cancelled' }]);
  });

  it('fails a device for which an alert began to fire, and only then', async () => {
    const campaign = await newCampaign({ stopOn: { critical: true, rules: [] } });
    const targets = [await newTarget(), await newTarget(), await newTarget()];
    const updates: string[] = [];
    for (const target of targets) updates.push(updateIdOf(await kind().begin(campaign, target)));
    const alert = { ruleId: randomUUID(), rule: 'too hot', severity: 'critical' };
    const [first, second, third] = targets.map(({ deviceId }) => deviceId);
    made.alerts = [
      { ...alert, deviceId: first ?? 0, firedMs: Date.now() + 1 },
      { ...alert, deviceId: second ?? 0, firedMs: Date.now() - 60_000 },
      { ...alert, deviceId: third ?? 0, firedMs: Date.now() + 1, severity: 'warning' },
    ];
    const verdicts = await kind().judge(campaign, targets);
    expect(verdicts).toMatchObject([{ deviceId: first, state: 'failed', code: 'alert' }]);
    expect(await get(updates[0] ?? '')).toMatchObject({ state: 'failed', code: 'alert' });
    expect((await get(updates[2] ?? '')).state).toBe('offered');
  });

  it('watches the new image for a while before it believes it', async () => {
    const campaign = await newCampaign({ watch: '1m', stopOn: { rules: [randomUUID()] } });
    const targets = [await newTarget(), await newTarget(), await newTarget()];
    for (const target of targets) {
      await kind().begin(campaign, target);
      const from = { ...made.acme.author, deviceId: target.deviceId };
      await made.ota.updates.greeted(from, { fw: '1.1.0', ota: 'valid', boot: 11 });
    }
    expect(await kind().judge(campaign, targets)).toEqual([]);
    const [good, relapsed, looping] = targets.map(({ deviceId }) => deviceId);
    made.aheadMs = 5000;
    await made.say(relapsed ?? 0, { fw: '1.0.0', boot: 12 });
    await made.say(looping ?? 0, { fw: '1.1.0', boot: 15 });
    const early = await kind().judge(campaign, targets);
    expect(new Map(early.map(({ deviceId, code }) => [deviceId, code]))).toEqual(
      new Map([
        [relapsed, 'rolled_back'],
        [looping, 'crash_loop'],
      ]),
    );
    made.aheadMs = 61_000;
    const verdicts = await kind().judge(campaign, targets.slice(0, 1));
    expect(verdicts).toMatchObject([{ deviceId: good, state: 'succeeded' }]);
  });
});

describe('a new start', () => {
  it('ends the commands of updates that ended while it was down', async () => {
    const begun = await begin();
    const { commandId } = made.commands.offers.find(({ ref }) => ref === begun.updateId) ?? {};
    const become = (state: string) =>
      made.test.database.pool.query('UPDATE command SET state = $2 WHERE command_id = $1', [
        commandId,
        state,
      ]);
    await become('running');
    await made.test.database.pool.query(
      `UPDATE device_update SET state = 'succeeded', ended_at = now(), code = 'greeted'
       WHERE update_id = $1`,
      [begun.updateId],
    );
    await eventually('the end of the command', () => settled(begun.updateId).length > 0);
    expect(settled(begun.updateId)[0]).toEqual(['succeeded', 'greeted']);
    await become('succeeded');
  });

  it('hears of commands that ended while it was down', async () => {
    const begun = await begin();
    const { commandId } = made.commands.offers.find(({ ref }) => ref === begun.updateId) ?? {};
    await made.test.database.pool.query(
      `UPDATE command SET state = 'failed', code = 'flash', ended_at = now()
       WHERE command_id = $1`,
      [commandId],
    );
    await eventuallyIs(begun.updateId, { state: 'failed', code: 'flash' });
  });
});

describe('greetings of devices without an update', () => {
  it('ask the database nothing', async () => {
    const deviceId = await made.addDevice('idle');
    const { pool } = made.test.database;
    let connections = 0;
    const count = (): void => {
      connections += 1;
    };
    pool.on('acquire', count);
    const from = { ...made.acme.author, deviceId };
    // Without a turn of the event loop nothing but these greetings can ask.
    for (let turn = 0; turn < 1000; turn += 1) {
      await made.ota.updates.greeted(from, { fw: '1.0.0', boot: turn });
    }
    pool.off('acquire', count);
    expect(connections).toBe(0);
  });
});
