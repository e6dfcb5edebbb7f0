import { describe, expect, it } from 'vitest';
import {
  deviceNameSchema,
  metricNameSchema,
  organizationNameSchema,
  Refusal,
  RESERVED_MEMBERS,
  RESERVED_ORGANIZATIONS,
} from '../../firmware-protocol/contract.ts';

const hostile = [
  '',
  '+',
  '#',
  'a+',
  'a#b',
  'a/b',
  '/',
  '$SYS',
  '$a',
  'a b',
  'a\0',
  'a\n',
  'ä',
  '😀',
];
const tooLong = 'a'.repeat(65_535);

describe('names', () => {
  it.each([...hostile, tooLong, '__proto__', '_', '-a', '.a'])(
    '[I-04] cannot be %j for an organization, a device or a metric',
    (name) => {
      expect(organizationNameSchema.safeParse(name).success).toBe(false);
      expect(deviceNameSchema.safeParse(name).success).toBe(false);
      expect(metricNameSchema.safeParse(name).success).toBe(false);
    },
  );

  it('have a greatest length', () => {
    for (const [schema, max] of [
      [organizationNameSchema, 24],
      [deviceNameSchema, 48],
      [metricNameSchema, 64],
    ] as const) {
      expect(schema.safeParse('a'.repeat(max)).success).toBe(true);
      expect(schema.safeParse('a'.repeat(max + 1)).success).toBe(false);
    }
  });

  it('of devices may be MAC addresses', () => {
    expect(deviceNameSchema.safeParse('A4:CF:12:F0:E1:B2').success).toBe(true);
    expect(deviceNameSchema.safeParse('a4cf12f0e1b2').success).toBe(true);
  });

  it('of organizations are lower case, have two characters and are not reserved', () => {
    for (const name of ['a', 'Acme', 'a.b', ...RESERVED_ORGANIZATIONS]) {
      expect(organizationNameSchema.safeParse(name).success).toBe(false);
    }
    expect(organizationNameSchema.safeParse('0-acme').success).toBe(true);
  });

  it('of metrics are not those of reserved members', () => {
    for (const name of RESERVED_MEMBERS)
      expect(metricNameSchema.safeParse(name).success).toBe(false);
  });
});

describe('contract', () => {
  it('cuts what a refusal says to 100 characters', () => {
    expect(new Refusal('bad_json', 'x'.repeat(300)).detail).toHaveLength(100);
  });
});
