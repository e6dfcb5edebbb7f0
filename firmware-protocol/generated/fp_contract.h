/* The contract of Puback for firmware. Made by npm run protocol:gen; do not edit. */

#ifndef FP_CONTRACT_H
#define FP_CONTRACT_H

/* Version of this contract: the first level of topics, and p of hello */
#define FP_PROTOCOL_MAJOR 1
#define FP_PROTOCOL_MINOR 1

/* Topics */
#define FP_TOPIC_DATA "v1/me/data"
#define FP_TOPIC_DATA_PREFIX "v1/me/data/"
#define FP_TOPIC_SENML "v1/me/senml"
#define FP_TOPIC_EVENT_PREFIX "v1/me/event/"
#define FP_TOPIC_LOG "v1/me/log"
#define FP_TOPIC_HELLO "v1/me/hello"
#define FP_TOPIC_ACK "v1/me/ack"
#define FP_TOPIC_CFG "v1/me/cfg"
#define FP_TOPIC_KEY "v1/me/key"
#define FP_TOPIC_STATUS "v1/me/status"
#define FP_TOPIC_INBOX "v1/me/in/+"
#define FP_TOPIC_IN_PREFIX "v1/me/in/"
#define FP_TOPIC_IN_CMD "v1/me/in/cmd"
#define FP_TOPIC_IN_CFG "v1/me/in/cfg"
#define FP_TOPIC_IN_HELLO "v1/me/in/hello"
#define FP_TOPIC_IN_ERR "v1/me/in/err"
#define FP_TOPIC_IN_KEY "v1/me/in/key"
#define FP_IN_CMD "cmd"
#define FP_IN_CFG "cfg"
#define FP_IN_HELLO "hello"
#define FP_IN_ERR "err"
#define FP_IN_KEY "key"
#define FP_TOPIC_MAX 128 /* bytes of a topic */
#define FP_TOPIC_LEVELS_MAX 6 /* levels of a topic */

/* Limits; bytes where nothing else is said */
#define FP_PACKET_MAX 65536 /* bytes of a packet to the broker, unless it is set lower */
#define FP_PACKET_DEFAULT 256 /* mps until hello says it, bytes */
#define FP_SAMPLE_METRICS_MAX 64 /* metrics of a sample */
#define FP_MESSAGE_SAMPLES_MAX 500 /* samples of a message */
#define FP_MESSAGE_POINTS_MAX 2000 /* values of a message */
#define FP_NESTING_MAX 3 /* names that nested objects join */
#define FP_TEXT_MAX 256 /* bytes of a text value */
#define FP_METRIC_NAME_MAX 64 /* characters of the name of a metric or event */
#define FP_EVENT_MAX 2048 /* bytes of an event */
#define FP_LOG_MAX 8192 /* bytes of a message of log lines */
#define FP_HELLO_MAX 8192 /* bytes of a hello */
#define FP_HELLO_TEXT_MAX 31 /* bytes of a text in hello */
#define FP_SLEEP_S_MAX 31622400 /* seconds between contacts, a year */
#define FP_SEQUENCE_WINDOW 64 /* numbers of seq that are remembered */

/* Commands */
#define FP_CMD_NAME_MAX 32 /* characters of the name of a command */
#define FP_CMD_ID_MAX 4294967295 /* largest id of a command */
#define FP_SYSTEM_PREFIX "sys."
#define FP_SYS_REBOOT "sys.reboot"
#define FP_SYS_OTA "sys.ota"
#define FP_SYS_REKEY "sys.rekey"
#define FP_SYS_LOG "sys.log"
#define FP_SYS_CANCEL "sys.cancel"
#define FP_SYS_HELLO "sys.hello"
#define FP_ACK_MAX 2048 /* bytes of an answer */
#define FP_ACK_RESULT_MAX 1024 /* bytes of its r */
#define FP_ACK_CODE_MAX 32 /* bytes of its code; more is cut */
#define FP_ACK_MSG_MAX 200 /* bytes of its msg; more is cut */
#define FP_ST_TEXT_OK "ok"
#define FP_ST_TEXT_RUN "run"
#define FP_ST_TEXT_ERR "err"
#define FP_ST_TEXT_NO "no"
#define FP_ST_TEXT_DUP "dup"

/* Configuration */
#define FP_CFG_MAX 8192 /* bytes of a report */
#define FP_CFG_VERSION_MAX 4294967295 /* largest version */
#define FP_CFG_MSG_MAX 200 /* bytes of msg of a report; more is cut */

/* Keys */
#define FP_KEY_CHARS 46 /* characters of a key */
#define FP_KEY_PREFIX_DEVICE "pbd_"
#define FP_KEY_PREFIX_ADMIN "pba_"
#define FP_KEY_PREFIX_INTEGRATOR "pbi_"
#define FP_KEY_PREFIX_CLAIM "pbc_"
#define FP_USER_MAX 73 /* characters of organization/device */
#define FP_KEY_OK "ok"
#define FP_KEY_WAIT "wait"
#define FP_KEY_NO "no"
#define FP_KEY_DENIAL_TLS "tls"
#define FP_KEY_DENIAL_UNASKED "unasked"
#define FP_KEY_DENIAL_RETIRING "retiring"
#define FP_KEY_DENIAL_CLAIMED "claimed"
#define FP_KEY_DENIAL_QUOTA "quota"
#define FP_KEY_DENIAL_EXPIRED "expired"
#define FP_KEY_DENIAL_MODEL "model"
#define FP_KEY_DENIAL_DENIED "denied"
#define FP_KEY_DENIAL_NAME "name"

/* States of an image: ota of hello */
#define FP_OTA_NEW "new"
#define FP_OTA_PENDING "pending"
#define FP_OTA_VALID "valid"
#define FP_OTA_INVALID "invalid"
#define FP_OTA_ABORTED "aborted"

/* Codes of in/err */
#define FP_ERR_BAD_JSON "bad_json"
#define FP_ERR_BAD_CBOR "bad_cbor"
#define FP_ERR_BAD_SENML "bad_senml"
#define FP_ERR_BAD_NAME "bad_name"
#define FP_ERR_BAD_TYPE "bad_type"
#define FP_ERR_BAD_SERIES "bad_series"
#define FP_ERR_TOO_DEEP "too_deep"
#define FP_ERR_TOO_BIG "too_big"
#define FP_ERR_TOO_MANY "too_many"
#define FP_ERR_TOO_OLD "too_old"
#define FP_ERR_CLOCK "clock"
#define FP_ERR_RATE "rate"
#define FP_ERR_FORBIDDEN "forbidden"
#define FP_ERR_UNKNOWN_CHANNEL "unknown_channel"
#define FP_ERR_QUOTA "quota"

/* Times that firmware keeps to, in milliseconds */
#define FP_GREETING_WAIT_MS 3000 /* how long a board that sleeps waits for in/hello */
#define FP_AWAKE_MS 10000 /* how long it stays awake for commands */
#define FP_BACKOFF_MIN_MS 1000 /* bound of the first random wait before CONNECT */
#define FP_BACKOFF_MAX_MS 300000 /* it doubles up to this */
#define FP_BACKOFF_REFUSED_MS 60000 /* least wait after CONNACK 4 and 5 */

#endif
