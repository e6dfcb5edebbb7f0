import fc from 'fast-check';

/** Payloads with some bytes changed, taken out, put in, or cut off at the end. */
export function mutated(payloads: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const change = fc.record({
    kind: fc.constantFrom('set', 'flip', 'remove', 'insert', 'cut'),
    at: fc.nat(200),
    byte: fc.nat(255),
  });
  return fc
    .tuple(payloads, fc.array(change, { minLength: 1, maxLength: 4 }))
    .map(([payload, changes]) => {
      const bytes = [...payload];
      for (const { kind, at: drawn, byte } of changes) {
        const at = bytes.length === 0 ? 0 : drawn % bytes.length;
        if (kind === 'set') bytes[at] = byte;
        else if (kind === 'flip') bytes[at] = (bytes[at] ?? 0) ^ (1 << (byte & 7));
        else if (kind === 'remove') bytes.splice(at, 1);
        else if (kind === 'insert') bytes.splice(at, 0, byte);
        else bytes.length = at;
      }
      return Buffer.from(bytes);
    });
}
