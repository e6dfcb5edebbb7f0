import { formatCount, formatMs, formatTable } from './figures.ts';
import type { RekeyOutcome } from './rekey-run.ts';
import type { MachineDescription } from './results.ts';

/** Rates in messages a second, times in seconds. */
export interface RekeyRun {
  readonly outcome: RekeyOutcome;
  readonly readingS: number;
  readonly graceS: number;
  readonly offeredPerS: number;
}

/** A load that was not sent as offered proves nothing. */
const SENT_SHARE_MIN = 0.97;

/** Whether no reading was lost, nobody locked out, and every old key refused. */
export function isRekeyGoalMet(run: RekeyRun): boolean {
  return verdicts(run).every(({ isMet }) => isMet);
}

/** The section of bench/RESULTS.md, with its heading. */
export function rekeySection(machine: MachineDescription, run: RekeyRun): string {
  const { outcome, readingS, graceS, offeredPerS } = run;
  const { devices, fates, campaign, counts, puback, load, resent } = outcome;
  const times = [
    pubackRow(`${formatCount(devices)} boards`, devices / readingS, puback),
    ...(load === null ? [] : [pubackRow('load beside', load.perS, load)]),
  ];
  return `## New keys for ${formatCount(devices)} devices

Made by \`npm run bench:rekey\`: connected boards publish a numbered reading every ${readingS} s with QoS 1, and a
campaign changes their keys in waves while a second load of ${formatCount(offeredPerS)} messages/s is stored. Some of them lose
the connection as they ask (${fates['cut_asking']}) or as the answer comes (${fates['answer_lost']}), lose power before the new key is saved and forget
that they were asked (${fates['forgets']}), lose power between saving and connecting (${fates['power_cut']}), are back with their old key
afterwards (${fates['falls_back']}), or sleep most of the time (${fates['asleep']}); ${fates['deaf']} never answers. Old keys end ${graceS} s behind the first use
of the new one (\`KEY_GRACE_S\`). Then each reading is looked for in the database by device, number and time,
and a connect tried with each key that must have ended. Boards, load, program and database shared the
processors.

- Machine: ${machine.machine}; load before the run: ${machine.loadBefore.toFixed(1)}
- Node.js ${machine.node}; commit ${machine.commit}, ${machine.date}

${formatTable(
  ['wave', 'new keys', 'failed', 'first to last', 'devices/s', 'a device p50', 'p99', 'max'],
  campaign.waves.map((wave) => [
    wave.wave === 0 ? 'canary' : String(wave.wave),
    formatCount(wave.succeeded),
    String(wave.failed),
    formatMs(wave.seconds * 1000),
    (wave.succeeded / wave.seconds).toFixed(1),
    formatMs(wave.p50S * 1000),
    formatMs(wave.p99S * 1000),
    formatMs(wave.maxS * 1000),
  ]),
)}

${formatTable(['during the campaign', 'messages/s', 'PUBACK p50', 'p99', 'max'], times)}

- The whole campaign: ${campaign.seconds.toFixed(1)} s, with the times that waves settle and the time that is given to who does not answer
- ${formatCount(counts.connects - devices)} reconnects, ${formatCount(counts.powerCuts)} losses of power, ${formatCount(counts.asked)} requests for a key, ${formatCount(resent)} readings sent again, ${formatCount(counts.refused)} refused connects of boards that then took their other key
${verdicts(run)
  .map(({ text, isMet }) => `- ${text}: ${isMet ? 'met' : 'NOT MET'}`)
  .join('\n')}`;
}

interface Verdict {
  readonly text: string;
  readonly isMet: boolean;
}

function verdicts(run: RekeyRun): Verdict[] {
  return [...readingVerdicts(run), ...keyVerdicts(run.outcome)];
}

function readingVerdicts({ outcome, offeredPerS }: RekeyRun): Verdict[] {
  const { readings, load } = outcome;
  const { acknowledged, missing, twice, different, unacknowledged } = readings;
  const isConserved = missing + twice + different + unacknowledged === 0;
  const own: Verdict = {
    text: `${formatCount(acknowledged + missing)} readings acknowledged, lost ${missing}, stored twice ${twice}, at another time ${different}, never acknowledged ${unacknowledged}`,
    isMet: isConserved && acknowledged > 0,
  };
  if (load === null) return [own];
  const isSent = load.perS >= offeredPerS * SENT_SHARE_MIN;
  return [
    own,
    {
      text: `beside it ${formatCount(load.acknowledged)} acknowledged, ${formatCount(load.stored)} stored, at ${formatCount(load.perS)} of ${formatCount(offeredPerS)} messages/s`,
      isMet: load.stored === load.acknowledged && isSent,
    },
  ];
}

function keyVerdicts(outcome: RekeyOutcome): Verdict[] {
  const { devices, fates, campaign, counts, rekeyed, deafConnected, oldKeys } = outcome;
  const deaf = fates['deaf'] ?? 0;
  const said = campaign.others.filter((text) => / (timeout|expired)$/.test(text)).length;
  const isOnlyDeaf = said === deaf && campaign.others.length === deaf;
  return [
    {
      text: `${formatCount(rekeyed)} of ${formatCount(devices)} boards connected with a new key, ${deafConnected} that never answered with its old one, and the campaign (${campaign.state}) says so: ${campaign.others.join(', ') || 'nothing'}`,
      isMet: rekeyed === devices - deaf && deafConnected === deaf && isOnlyDeaf,
    },
    {
      text: `boards locked out: ${counts.lockedOut.size}`,
      isMet: counts.lockedOut.size === 0,
    },
    {
      text: `within the grace ${counts.oldKeyAccepted} boards were let in with their old keys; behind it ${formatCount(oldKeys.refused)} of ${formatCount(oldKeys.tried)} keys refused with CONNACK 5${oldKeys.others.length === 0 ? '' : ` (others: ${oldKeys.others.join(', ')})`}`,
      isMet:
        oldKeys.refused === oldKeys.tried && counts.oldKeyAccepted >= (fates['falls_back'] ?? 0),
    },
  ];
}

function pubackRow(
  what: string,
  perS: number,
  { p50Ms, p99Ms, maxMs }: { p50Ms: number; p99Ms: number; maxMs: number },
): string[] {
  return [what, formatCount(perS), formatMs(p50Ms), formatMs(p99Ms), formatMs(maxMs)];
}
