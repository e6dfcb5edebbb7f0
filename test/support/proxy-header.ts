/** A PROXY protocol header of version 2; fields win over those of a TCP connection over IPv4. */
export function proxyHeader(
  fields: {
    command?: number;
    family?: number;
    transport?: number;
    source?: readonly number[];
    rest?: Buffer;
    length?: number;
  } = {},
): Buffer {
  const { command = 1, family = 1, transport = 1, source = [192, 0, 2, 7] } = fields;
  const ends = [...source, ...source.map(() => 1), 0x12, 0x34, 0x07, 0x5b];
  const block = Buffer.concat([Buffer.from(ends), fields.rest ?? Buffer.alloc(0)]);
  const length = fields.length ?? block.length;
  const fixed = [0x20 | command, (family << 4) | transport, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'), Buffer.from(fixed), block]);
}
