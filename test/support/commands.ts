import type { Command } from '../../commands/command.ts';

/** A command that was just queued, for tests of what is done with commands. */
export function testCommand(more: Partial<Command> = {}): Command {
  const createdAt = new Date('2026-11-21T10:00:00Z');
  return {
    commandId: '01991e6c-0000-7000-8000-000000000001',
    organizationId: 1,
    organization: 'acme',
    deviceId: 7,
    device: 'boiler-7',
    name: 'relay',
    args: {},
    state: 'queued',
    wireId: null,
    ref: null,
    replaceKey: null,
    isRetrySafe: false,
    attempts: 0,
    precondition: null,
    createdAt,
    expiresAt: new Date(createdAt.getTime() + 3_600_000),
    publishedAt: null,
    sentAt: null,
    startedAt: null,
    endedAt: null,
    progress: null,
    result: null,
    code: null,
    message: null,
    isLate: false,
    origin: 'api',
    actor: 'A1b2C3d4',
    campaignId: null,
    approvedBy: null,
    approvedAt: null,
    cancelAskedAt: null,
    ...more,
  };
}
