import { isIP } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ruleSettings } from '../../config-rules.ts';
import { AddressRefusedError } from '../../rule-errors.ts';
import { AddressGuard, canonicalHost } from '../../rules/notify/address-guard.ts';

const PUBLIC = '93.184.215.14';

function makeGuard(answers: Record<string, string[]> = {}, privateAddresses = ''): AddressGuard {
  return new AddressGuard({
    privateAddresses,
    isHttpAllowed: false,
    resolve: (host) => {
      const addresses = answers[host];
      return addresses === undefined
        ? Promise.reject(Object.assign(new Error(host), { code: 'ENOTFOUND' }))
        : Promise.resolve(addresses);
    },
  });
}

describe('where notifications may go', () => {
  it.each([
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://0.0.0.0/',
    'https://[::]/',
    'https://169.254.169.254/latest/meta-data/',
    'https://168.63.129.16/',
    'https://100.100.100.200/',
    'https://[fd00:ec2::254]/',
    'https://metadata.google.internal/',
    'https://metadata.google.internal./',
    'https://METADATA.google.internal/',
    'https://instance-data.ec2.internal/',
    'https://localhost/',
    'https://localhost./',
    'https://a.localhost/',
    'https://10.1.2.3/',
    'https://172.16.0.1/',
    'https://172.31.255.255/',
    'https://192.168.1.1/',
    'https://100.64.0.1/',
    'https://192.0.2.1/',
    'https://198.18.0.1/',
    'https://224.0.0.1/',
    'https://255.255.255.255/',
    'https://240.0.0.1/',
    'https://[fc00::1]/',
    'https://[fd12:3456::1]/',
    'https://[fe80::1]/',
    'https://[fec0::1]/',
    'https://[ff02::1]/',
    'https://[::ffff:127.0.0.1]/',
    'https://[::ffff:7f00:1]/',
    'https://[::127.0.0.1]/',
    'https://[::ffff:0:127.0.0.1]/',
    'https://[64:ff9b::7f00:1]/',
    'https://[64:ff9b::10.0.0.1]/',
    'https://[64:ff9b:1::1]/',
    'https://[2002:7f00:1::]/',
    'https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/',
    'https://[4000::1]/',
    'https://2130706433/',
    'https://0x7f.1/',
    'https://0x7f000001/',
    'https://127.1/',
    'https://0177.0.0.1/',
    'https://127.0.0.1./',
    'https://①②⑦.0.0.1/',
    'https://user@hooks.example.com/',
    'https://user:word@hooks.example.com/',
    'https://hooks.example.com@127.0.0.1/',
    'http://hooks.example.com/',
    'ftp://hooks.example.com/',
    'file:///etc/passwd',
    'gopher://hooks.example.com/',
    'javascript:alert(1)',
    'https://hooks.example.com:22/',
    'https://hooks.example.com:25/',
    'https://hooks.example.com:6379/',
    'https://hooks.example.com:5432/',
    'https://',
    'hooks.example.com',
    '',
  ])('A-10: %s is refused when it is saved', (url) => {
    expect(makeGuard().urlFault(url)).not.toBeNull();
  });

  it.each([
    'https://hooks.example.com/a/b?c=d',
    'https://hooks.example.com:8443/',
    'https://8.8.8.8/',
    'https://172.32.0.1/',
    'https://[2606:4700::1111]/',
    'https://[64:ff9b::808:808]/',
  ])('%s is not refused', (url) => {
    expect(makeGuard().urlFault(url)).toBeNull();
  });

  it('A-10: every address of a name is looked at, and one that is refused refuses all', async () => {
    const guard = makeGuard({
      'all.example.com': [PUBLIC, '2606:4700::1111'],
      'some.example.com': [PUBLIC, '10.0.0.1'],
      'none.example.com': [],
      'odd.example.com': ['not an address'],
    });
    expect(await guard.resolve('all.example.com')).toHaveLength(2);
    for (const host of ['some.example.com', 'none.example.com', 'odd.example.com', '127.1']) {
      await expect(guard.resolve(host), host).rejects.toThrow(AddressRefusedError);
    }
    expect(await guard.lookupFinding('some.example.com')).toEqual({
      fault: 'it is not public (private); NOTIFY_PRIVATE_ADDRESSES can allow it',
      warning: null,
    });
    expect(await guard.lookupFinding('away.example.com')).toEqual({
      fault: null,
      warning: 'its host does not resolve now; nothing arrives until it does',
    });
    expect(await guard.lookupFinding('all.example.com')).toEqual({ fault: null, warning: null });
  });

  it('an address that is refused as it is written is refused for good, one of DNS is not', async () => {
    const guard = makeGuard({ 'some.example.com': ['10.0.0.1'] });
    await expect(guard.resolve('some.example.com')).rejects.toMatchObject({ isLasting: false });
    await expect(guard.resolve('10.0.0.1')).rejects.toMatchObject({ isLasting: true });
  });

  it('the operator allows networks that are not public, and nothing beside them', async () => {
    const guard = makeGuard({ 'mail.plant': ['10.20.3.4'] }, '10.20.0.0/16, fd00::7');
    expect(guard.urlFault('https://10.20.255.1/')).toBeNull();
    expect(guard.urlFault('https://[fd00::7]/')).toBeNull();
    expect(guard.urlFault('https://10.21.0.1/')).not.toBeNull();
    expect(guard.urlFault('https://[fd00::8]/')).not.toBeNull();
    expect(guard.urlFault('https://10.20.0.1:22/')).not.toBeNull();
    expect(guard.urlFault('https://localhost/')).not.toBeNull();
    expect(await guard.resolve('mail.plant')).toEqual(['10.20.3.4']);
  });

  it('what the setting takes, the guard takes, and what it does not take is malformed', () => {
    const setting = ruleSettings.NOTIFY_PRIVATE_ADDRESSES;
    const part = fc.oneof(
      fc.ipV4(),
      fc.ipV4Extended(),
      fc.ipV6(),
      fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(140)).map(([ip, bits]) => `${ip}/${bits}`),
      fc.constantFrom('10.0.0.0/08', 'fe80::1%eth0', 'fe80::1%eth0/64', '::ffff:10.0.0.1', '1/8'),
      fc.constantFrom('::ffff:10.0.0.0/104', '10.0.0.0/8/8', '10.0.0.0/', '/8', 'localhost', '*'),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 4 }), (parts) => {
        const { success, data } = setting.safeParse(parts.join(', '));
        if (success) makeGuard({}, data).addressFault('10.0.0.1');
        for (const one of success ? [] : parts.filter((text) => isIP(text) !== 0)) {
          expect(setting.safeParse(one).success, one).toBe(!one.includes('%'));
        }
      }),
    );
    expect(setting.safeParse('10.0.0.0/33').success).toBe(false);
    expect(setting.safeParse('fd00::/129').success).toBe(false);
    expect(setting.safeParse('').success).toBe(true);
  });

  it('mail goes to ports of mail servers, and to others that are not those of something else', () => {
    const guard = makeGuard();
    for (const port of [25, 465, 587, 2525]) {
      expect(guard.mailServerFault('mail.example.com', port), String(port)).toBeNull();
    }
    for (const port of [22, 80, 443, 6379, 5432]) {
      expect(guard.mailServerFault('mail.example.com', port), String(port)).not.toBeNull();
    }
    expect(guard.mailServerFault('127.1', 25)).not.toBeNull();
    expect(guard.mailServerFault('::1', 25)).not.toBeNull();
    expect(guard.mailServerFault('a b', 25)).not.toBeNull();
    expect(guard.mailServerFault('host:99', 25)).not.toBeNull();
  });

  it('any IPv4 address is refused in whatever way it is written, or in none', () => {
    fc.assert(
      fc.property(fc.nat(0xffff_ffff), (number) => {
        const parts = [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];
        const dotted = parts.join('.');
        const guard = makeGuard();
        const fault = guard.hostFault(dotted);
        const hex = parts.map((part) => part.toString(16).padStart(2, '0')).join('');
        const spellings = [
          String(number),
          `0x${hex}`,
          parts.map((part) => `0${part.toString(8)}`).join('.'),
          `${dotted}.`,
          `64:ff9b::${hex.slice(0, 4)}:${hex.slice(4)}`,
        ];
        for (const spelling of spellings) expect(guard.hostFault(spelling), spelling).toBe(fault);
        expect(guard.hostFault(`::ffff:${dotted}`)).not.toBeNull();
        expect(guard.hostFault(`2002:${hex.slice(0, 4)}:${hex.slice(4)}::`)).not.toBeNull();
      }),
    );
  });

  it('what is said of a refusal repeats neither path nor query', () => {
    fc.assert(
      fc.property(fc.webUrl({ withQueryParameters: true }), (url) => {
        const secret = 'T0KENT0KENT0KEN';
        const fault = makeGuard().urlFault(`${url}/${secret}?key=${secret}`) ?? '';
        expect(fault).not.toContain(secret);
      }),
    );
  });

  it('no host makes it throw', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.ipV4Extended(), fc.ipV6(), fc.domain()), (host) => {
        const guard = makeGuard();
        expect([null, 'string']).toContain(guard.hostFault(host) === null ? null : 'string');
        expect(guard.addressFault(host) === null ? null : 'string').toBeDefined();
        canonicalHost(host);
      }),
    );
  });
});
