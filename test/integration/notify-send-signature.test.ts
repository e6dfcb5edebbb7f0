import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { signatureOf } from '../../rules/notify/send-webhook.ts';
import { makeMessage, makeReceiver, makeSenders, startHttpReceiver } from '../support/senders.ts';
import { hasProgram, run } from '../support/programs.ts';

const hasPython = hasProgram('python3', 'the signature as the Python example checks it');
const PAGE = readFileSync(new URL('../../docs/notifications.md', import.meta.url), 'utf8');
const SECRET = 'Schlüssel-of-the-webhook';
const NOW = 1_795_264_354;

function example(language: string): string {
  return new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``).exec(PAGE)?.[1] ?? '';
}

/** Body, header and time; whether they are right. */
async function cases(): Promise<[string, string, number, boolean][]> {
  const receiver = await startHttpReceiver((response) => response.end());
  const senders = makeSenders({ now: () => NOW * 1000 + 999 });
  const url = `http://127.0.0.1:${receiver.port}/`;
  const { signal } = new AbortController();
  const to = makeReceiver('webhook', { url }, SECRET);
  const message = makeMessage({ organization: 'Köln 💥' });
  expect(await senders.webhook.send(to, message, signal)).toEqual({ ok: true });
  await receiver.close();
  const [request] = receiver.received;
  const body = request?.body ?? '';
  const header = String(request?.headers['x-puback-signature']);
  const other = signatureOf(body, 'another secret', NOW * 1000);
  return [
    [body, header, NOW, true],
    [body, header, NOW + 299, true],
    [body, header, NOW + 301, false],
    [body, header, NOW - 302, false],
    [`${body} `, header, NOW, false],
    [body, header.replace(`t=${NOW}`, `t=${NOW + 1}`), NOW, false],
    [body, other, NOW, false],
    [body, `${other},${header.slice(header.indexOf('v1='))}`, NOW, true],
    [body, header.slice(0, -2), NOW, false],
    [body, `t=${NOW},v1=`, NOW, false],
    [body, `t=${NOW},v1=é`, NOW, false],
    [body, '', NOW, false],
    [body, 'v1', NOW, false],
  ];
}

describe('examples of docs/notifications.md', () => {
  it('in Node.js tell a right signature from a wrong one', async () => {
    const all = await cases();
    const program = `${example('js')}
console.log(JSON.stringify(JSON.parse(process.argv[1])
  .map(([body, header, now]) => isFromPuback(body, header, ${JSON.stringify(SECRET)}, now))));`;
    const questions = JSON.stringify(all.map(([body, header, now]) => [body, header, now]));
    const { stdout } = await run(process.execPath, ['-e', program, questions]);
    expect(JSON.parse(stdout)).toEqual(all.map(([, , , isRight]) => isRight));
  });

  it.runIf(hasPython)('in Python tell a right signature from a wrong one', async () => {
    const all = await cases();
    const program = `${example('python')}
import json, sys
print(json.dumps([is_from_puback(b.encode(), h, ${JSON.stringify(SECRET)}, n) for b, h, n in json.loads(sys.argv[1])]))`;
    const questions = JSON.stringify(all.map(([body, header, now]) => [body, header, now]));
    const { stdout } = await run('python3', ['-c', program, questions]);
    expect(JSON.parse(stdout)).toEqual(all.map(([, , , isRight]) => isRight));
  });

  it('have every member of a message, and no other', () => {
    const shown = JSON.parse(example('json')) as Record<string, unknown>;
    const message = makeMessage();
    expect(Object.keys(shown).toSorted()).toEqual(['version', ...Object.keys(message)].toSorted());
    const [alert] = shown['alerts'] as object[];
    expect(Object.keys(alert ?? {}).toSorted()).toEqual(
      Object.keys(message.alerts[0] ?? {}).toSorted(),
    );
    const named = [...PAGE.matchAll(/^\| (`[a-zA-Z`, ]+`) +\|/gm)].flatMap(([, names = '']) =>
      [...names.matchAll(/`(\w+)`/g)].map(([, name]) => name ?? ''),
    );
    for (const member of [...Object.keys(shown), ...Object.keys(alert ?? {})]) {
      expect(named).toContain(member);
    }
  });
});
