import { describe, expect, it } from 'vitest';
import mqttPacket from 'mqtt-packet';
import { makeFuzzSession, type FuzzAccounts } from '../support/fuzz-sessions.ts';

const ACCOUNTS: FuzzAccounts = {
  organization: 'demo',
  deviceKeys: ['pbd_device'],
  integratorKeys: ['pbi_integrator'],
};

function bytesOf(seed: number, number: number): string {
  const { writes } = makeFuzzSession(seed, number, ACCOUNTS);
  return Buffer.concat(writes.map(({ bytes }) => bytes)).toString('hex');
}

describe('sessions of the fuzzer', () => {
  it('are the same for the same seed and number, and others for others', () => {
    const numbers = Array.from({ length: 200 }, (_, at) => at + 1);
    const first = numbers.map((number) => bytesOf(7, number));
    expect(numbers.toReversed().map((number) => bytesOf(7, number))).toEqual(first.toReversed());
    expect(new Set(first).size).toBeGreaterThan(190);
    expect(numbers.map((number) => bytesOf(8, number))).not.toEqual(first);
  });

  it('are partly valid and partly not, and log in with every kind of key', () => {
    let valid = 0;
    const seen = new Set<string>();
    for (let number = 1; number <= 500; number += 1) {
      const hex = bytesOf(1, number);
      if (isValid(Buffer.from(hex, 'hex'))) valid += 1;
      for (const key of ['pbd_device', 'pbi_integrator', 'pbd_wrong']) {
        if (hex.includes(Buffer.from(key).toString('hex'))) seen.add(key);
      }
    }
    expect(valid).toBeGreaterThan(100);
    expect(valid).toBeLessThan(400);
    expect([...seen].toSorted()).toEqual(['pbd_device', 'pbd_wrong', 'pbi_integrator']);
  });
});

/** Whether a lenient parser reads the stream to its end, beginning with CONNECT. */
function isValid(bytes: Buffer): boolean {
  const parser = mqttPacket.parser({ protocolVersion: 4 });
  let isFaulty = false;
  let first: string | undefined;
  parser.on('packet', ({ cmd }) => {
    first ??= cmd;
  });
  parser.on('error', () => {
    isFaulty = true;
  });
  const left = parser.parse(bytes);
  return !isFaulty && left === 0 && first === 'connect';
}
