import type { Logger } from '../log.ts';
export async function startEmbedded(_: { dataDir: string; log: Logger }): Promise<{ url: string; stop(): Promise<void> }> { throw new Error('not there yet'); }
