import {
  ACK_BYTES_MAX,
  ACK_CODE_BYTES_MAX,
  ACK_MESSAGE_BYTES_MAX,
  ACK_RESULT_BYTES_MAX,
  ACK_STATES,
} from './ack.ts';
import {
  CLIENT_PACKET_BYTES_DEFAULT,
  SLOT_ID_MAX,
  SYSTEM_COMMAND_PREFIX,
  SYSTEM_COMMANDS,
} from './command.ts';
import {
  CONFIGURATION_MESSAGE_BYTES_MAX,
  CONFIGURATION_REPORT_BYTES_MAX,
  CONFIGURATION_VERSION_MAX,
} from './configuration.ts';
import {
  CONTRACT_MINOR,
  MESSAGE_POINTS_MAX,
  MESSAGE_SAMPLES_MAX,
  NESTING_MAX,
  PACKET_BYTES_MAX,
  REFUSAL_CODES,
  SAMPLE_METRICS_MAX,
  TEXT_BYTES_MAX,
  TOPIC_BYTES_MAX,
  TOPIC_LEVELS_MAX,
} from './contract.ts';
import {
  AWAKE_MAX_MS,
  BACKOFF_MAX_MS,
  BACKOFF_MIN_MS,
  GREETING_WAIT_MS,
  REFUSED_WAIT_MS,
  SEQUENCE_WINDOW,
} from './device-rules.ts';
import { EVENT_BYTES_MAX } from './event.ts';
import { HELLO_BYTES_MAX, HELLO_TEXT_BYTES_MAX, OTA_STATES, SLEEP_S_MAX } from './hello.ts';
import { KEY_ANSWERS, KEY_DENIALS } from './key-request.ts';
import { KEY_CHARS, KEY_PREFIXES } from './keys.ts';
import { LOG_BYTES_MAX } from './log-entry.ts';
import { aliasTopic } from './topics.ts';

/** A macro: its name, its value and, of a number, what it bounds. */
export type Macro = readonly [name: string, value: string | number, meaning?: string];
/** A group of macros, and what it is about. */
export type MacroGroup = readonly [title: string, macros: readonly Macro[]];

const COMMAND_NAME_CHARS_MAX = 32;
const METRIC_NAME_CHARS_MAX = 64;
/** Organization, `/`, device. */
const USER_CHARS_MAX = 24 + 1 + 48;
const INBOX_CHANNELS = ['cmd', 'cfg', 'hello', 'err', 'key'] as const;

/** Title of the group of versions. */
export const VERSIONS = 'Version of this contract: the first level of topics, and p of hello';
/** Title of the group of times. */
export const TIMES = 'Times that firmware keeps to, in milliseconds';

/** What `fp_contract.h` defines. Names are part of the contract: none goes, and none changes its meaning. */
export const MACRO_GROUPS: readonly MacroGroup[] = [
  [
    VERSIONS,
    [
      ['FP_PROTOCOL_MAJOR', 1],
      ['FP_PROTOCOL_MINOR', CONTRACT_MINOR],
    ],
  ],
  ['Topics', topicMacros()],
  [
    'Limits; bytes where nothing else is said',
    [
      [
        'FP_PACKET_MAX',
        PACKET_BYTES_MAX,
        'bytes of a packet to the broker, unless it is set lower',
      ],
      ['FP_PACKET_DEFAULT', CLIENT_PACKET_BYTES_DEFAULT, 'mps until hello says it, bytes'],
      ['FP_SAMPLE_METRICS_MAX', SAMPLE_METRICS_MAX, 'metrics of a sample'],
      ['FP_MESSAGE_SAMPLES_MAX', MESSAGE_SAMPLES_MAX, 'samples of a message'],
      ['FP_MESSAGE_POINTS_MAX', MESSAGE_POINTS_MAX, 'values of a message'],
      ['FP_NESTING_MAX', NESTING_MAX, 'names that nested objects join'],
      ['FP_TEXT_MAX', TEXT_BYTES_MAX, 'bytes of a text value'],
      ['FP_METRIC_NAME_MAX', METRIC_NAME_CHARS_MAX, 'characters of the name of a metric or event'],
      ['FP_EVENT_MAX', EVENT_BYTES_MAX, 'bytes of an event'],
      ['FP_LOG_MAX', LOG_BYTES_MAX, 'bytes of a message of log lines'],
      ['FP_HELLO_MAX', HELLO_BYTES_MAX, 'bytes of a hello'],
      ['FP_HELLO_TEXT_MAX', HELLO_TEXT_BYTES_MAX, 'bytes of a text in hello'],
      ['FP_SLEEP_S_MAX', SLEEP_S_MAX, 'seconds between contacts, a year'],
      ['FP_SEQUENCE_WINDOW', SEQUENCE_WINDOW, 'numbers of seq that are remembered'],
    ],
  ],
  [
    'Commands',
    [
      ['FP_CMD_NAME_MAX', COMMAND_NAME_CHARS_MAX, 'characters of the name of a command'],
      ['FP_CMD_ID_MAX', SLOT_ID_MAX, 'largest id of a command'],
      ['FP_SYSTEM_PREFIX', SYSTEM_COMMAND_PREFIX],
      ...SYSTEM_COMMANDS.map((name) => [macro('FP', name), name] as const),
      ['FP_ACK_MAX', ACK_BYTES_MAX, 'bytes of an answer'],
      ['FP_ACK_RESULT_MAX', ACK_RESULT_BYTES_MAX, 'bytes of its r'],
      ['FP_ACK_CODE_MAX', ACK_CODE_BYTES_MAX, 'bytes of its code; more is cut'],
      ['FP_ACK_MSG_MAX', ACK_MESSAGE_BYTES_MAX, 'bytes of its msg; more is cut'],
      ...ACK_STATES.map((state) => [macro('FP_ST_TEXT', state), state] as const),
    ],
  ],
  [
    'Configuration',
    [
      ['FP_CFG_MAX', CONFIGURATION_REPORT_BYTES_MAX, 'bytes of a report'],
      ['FP_CFG_VERSION_MAX', CONFIGURATION_VERSION_MAX, 'largest version'],
      ['FP_CFG_MSG_MAX', CONFIGURATION_MESSAGE_BYTES_MAX, 'bytes of msg of a report; more is cut'],
    ],
  ],
  [
    'Keys',
    [
      ['FP_KEY_CHARS', KEY_CHARS, 'characters of a key'],
      ...Object.entries(KEY_PREFIXES).map(
        ([kind, prefix]) => [macro('FP_KEY_PREFIX', kind), `${prefix}_`] as const,
      ),
      ['FP_USER_MAX', USER_CHARS_MAX, 'characters of organization/device'],
      ...KEY_ANSWERS.map((state) => [macro('FP_KEY', state), state] as const),
      ...KEY_DENIALS.map((code) => [macro('FP_KEY_DENIAL', code), code] as const),
    ],
  ],
  [
    'States of an image: ota of hello',
    OTA_STATES.map((state) => [macro('FP_OTA', state), state] as const),
  ],
  ['Codes of in/err', REFUSAL_CODES.map((code) => [macro('FP_ERR', code), code] as const)],
  [
    TIMES,
    [
      ['FP_GREETING_WAIT_MS', GREETING_WAIT_MS, 'how long a board that sleeps waits for in/hello'],
      ['FP_AWAKE_MS', AWAKE_MAX_MS, 'how long it stays awake for commands'],
      ['FP_BACKOFF_MIN_MS', BACKOFF_MIN_MS, 'bound of the first random wait before CONNECT'],
      ['FP_BACKOFF_MAX_MS', BACKOFF_MAX_MS, 'it doubles up to this'],
      ['FP_BACKOFF_REFUSED_MS', REFUSED_WAIT_MS, 'least wait after CONNACK 4 and 5'],
    ],
  ],
];

/** The text of `generated/fp_contract.h`: it stands alone and only defines macros. */
export function headerText(): string {
  const groups = MACRO_GROUPS.map(([title, macros]) =>
    [`/* ${title} */`, ...macros.map(definition)].join('\n'),
  );
  return [
    '/* The contract of Puback for firmware. Made by npm run protocol:gen; do not edit. */',
    '#ifndef FP_CONTRACT_H\n#define FP_CONTRACT_H',
    ...groups,
    '#endif\n',
  ].join('\n\n');
}

function topicMacros(): Macro[] {
  return [
    ['FP_TOPIC_DATA', aliasTopic('data')],
    ['FP_TOPIC_DATA_PREFIX', aliasTopic('data/')],
    ['FP_TOPIC_SENML', aliasTopic('senml')],
    ['FP_TOPIC_EVENT_PREFIX', aliasTopic('event/')],
    ['FP_TOPIC_LOG', aliasTopic('log')],
    ['FP_TOPIC_HELLO', aliasTopic('hello')],
    ['FP_TOPIC_ACK', aliasTopic('ack')],
    ['FP_TOPIC_CFG', aliasTopic('cfg')],
    ['FP_TOPIC_KEY', aliasTopic('key')],
    ['FP_TOPIC_STATUS', aliasTopic('status')],
    ['FP_TOPIC_INBOX', aliasTopic('in/+')],
    ['FP_TOPIC_IN_PREFIX', aliasTopic('in/')],
    ...INBOX_CHANNELS.map(
      (channel) => [macro('FP_TOPIC_IN', channel), aliasTopic(`in/${channel}`)] as const,
    ),
    ...INBOX_CHANNELS.map((channel) => [macro('FP_IN', channel), channel] as const),
    ['FP_TOPIC_MAX', TOPIC_BYTES_MAX, 'bytes of a topic'],
    ['FP_TOPIC_LEVELS_MAX', TOPIC_LEVELS_MAX, 'levels of a topic'],
  ];
}

function definition([name, value, meaning]: Macro): string {
  const about = meaning === undefined ? '' : ` /* ${meaning} */`;
  return `#define ${name} ${literal(value)}${about}`;
}

function macro(prefix: string, name: string): string {
  return `${prefix}_${name.toUpperCase().replaceAll('.', '_')}`;
}

/** Numbers plain, texts in quotes; all texts here are ASCII without quotes and backslashes. */
function literal(value: string | number): string {
  return typeof value === 'number' ? String(value) : `"${value}"`;
}
