import {
  decodeConfigurationReport,
  encodeDesiredConfiguration,
  type ConfigurationReport,
} from '../../firmware-protocol/configuration.ts';
import {
  CLIENT_PACKET_BYTES_DEFAULT,
  publishPacketBytes,
} from '../../firmware-protocol/command.ts';
import { Refusal } from '../../firmware-protocol/contract.ts';
import { awaitContact } from './commands.ts';
import { channelOf, type Happening } from './contact.ts';
import type { Exam } from './exam.ts';

/** Member that only the second document of a version has. */
const MARK = 'x-conformance';

/** A configuration is reported, and the same version is reported again and not applied again. */
export async function giveConfiguration(exam: Exam): Promise<void> {
  const { platform, verdicts, options } = exam;
  options.say('giving it a configuration');
  await awaitContact(exam);
  const version = Math.max(Math.floor(Date.now() / 1000), (exam.hello.cfg ?? 0) + 1);
  const bytes = packetBytes(exam, version);
  const mps = exam.hello.mps ?? CLIENT_PACKET_BYTES_DEFAULT;
  if (bytes > mps) {
    verdicts.skip('configuration', `it would be a packet of ${bytes} bytes, and mps is ${mps}`);
    verdicts.skip('configuration-again', 'as above');
    return;
  }
  platform.configurationVersion = version;
  const first = await desire(exam, version, options.configuration);
  if (first === null) {
    const isAsked = platform.contact?.readsConfiguration !== false;
    verdicts.fail('configuration', isAsked ? 'no report on cfg' : 'it does not read in/cfg');
    verdicts.skip('configuration-again', 'it has no configuration');
    return;
  }
  verdicts.pass('configuration', JSON.stringify(first));
  const again = await desire(exam, version, { ...options.configuration, [MARK]: 1 });
  if (again === null) verdicts.fail('configuration-again', 'no report of the repeated version');
  else if (again.cfg?.[MARK] !== undefined && first.cfg?.[MARK] === undefined) {
    verdicts.fail('configuration-again', 'applied the same version again');
  } else if (again.ok !== first.ok) {
    verdicts.fail('configuration-again', `reported ok ${first.ok} first, and ${again.ok} then`);
  } else verdicts.pass('configuration-again');
}

/** Of the larger of the two documents. */
function packetBytes({ platform, options }: Exam, version: number): number {
  const document = { ...options.configuration, [MARK]: 1 };
  const topic = `${platform.contact?.prefix ?? 'v1/me'}/in/cfg`;
  return publishPacketBytes(topic, encodeDesiredConfiguration(version, document).length);
}

async function desire(
  { platform, pace, now }: Exam,
  version: number,
  document: object,
): Promise<ConfigurationReport | null> {
  platform.retain('in/cfg', encodeDesiredConfiguration(version, document));
  return platform.waitFor(
    (happening) => {
      const report = reportOf(happening);
      return report?.v === version ? report : null;
    },
    now,
    pace.answerMs,
  );
}

function reportOf(happening: Happening): ConfigurationReport | null {
  if (happening.kind !== 'publish' || channelOf(happening.topic) !== 'cfg') return null;
  const report = decodeConfigurationReport(happening.payload);
  return report instanceof Refusal ? null : report;
}
