/* The client of a simulated board: libmosquitto. */
#include <mosquitto.h>
#include <stdlib.h>
#include <string.h>

#include "device_board.h"

enum { CONNECT_TURNS = 1000, LOOP_MS = 5 };

const int client_qos_max = 1;

static struct mosquitto *mq;
static size_t packet_size;
static int connack;
/* PUBACKs of publishes at QoS 0 are reported as well, at once. */
enum { OPEN_IDS = 64 };
static int open_ids[OPEN_IDS];

static void on_connect(struct mosquitto *client, void *ctx, int code) {
  (void)client;
  (void)ctx;
  connack = code;
}

static void on_message(struct mosquitto *client, void *ctx, const struct mosquitto_message *m) {
  (void)client;
  (void)ctx;
  size_t n = (size_t)m->payloadlen, rest = strlen(m->topic) + n + 2 + (m->qos > 0 ? 2 : 0);
  size_t bytes = rest + (rest > 127 ? 3 : 2);
  if (bytes > packet_size)
    board_overflow(bytes);
  else
    board_message(m->topic, m->payload, n, bytes);
}

static void on_publish(struct mosquitto *client, void *ctx, int id) {
  (void)client;
  (void)ctx;
  for (int at = 0; at < OPEN_IDS; at++) {
    if (open_ids[at] != id) continue;
    open_ids[at] = 0;
    board_puback();
  }
}

int client_connect(const board_options *options, const char *host, const char *port, const char *user,
                   const char *key) {
  packet_size = options->packet_size;
  if (mq) mosquitto_destroy(mq);
  else mosquitto_lib_init();
  memset(open_ids, 0, sizeof open_ids);
  mq = mosquitto_new("board", true, NULL);
  mosquitto_username_pw_set(mq, user, key);
  mosquitto_connect_callback_set(mq, on_connect);
  mosquitto_message_callback_set(mq, on_message);
  mosquitto_publish_callback_set(mq, on_publish);
  connack = -1;
  if (mosquitto_connect(mq, host, atoi(port), 60) != MOSQ_ERR_SUCCESS) return -1;
  for (int turn = 0; turn < CONNECT_TURNS && connack < 0; turn++) {
    if (mosquitto_loop(mq, LOOP_MS, 1) != MOSQ_ERR_SUCCESS) break;
  }
  return connack;
}

fp_sent client_publish(const char *topic, const char *payload, size_t n, int qos) {
  int at = 0, id = 0;
  while (at < OPEN_IDS && open_ids[at] != 0) at++;
  if (at == OPEN_IDS) return FP_SENT_NOT;
  if (mosquitto_publish(mq, &id, topic, (int)n, payload, qos, false) != MOSQ_ERR_SUCCESS) return FP_SENT_NOT;
  if (qos == 0) return FP_SENT_DONE;
  open_ids[at] = id;
  return FP_SENT_OPEN;
}

bool client_subscribe(const char *filter, int qos) {
  return mosquitto_subscribe(mq, NULL, filter, qos) == MOSQ_ERR_SUCCESS;
}

bool client_loop(void) { return mosquitto_loop(mq, LOOP_MS, 1) == MOSQ_ERR_SUCCESS; }

void client_close(bool says_so) {
  if (says_so) {
    mosquitto_disconnect(mq);
    mosquitto_loop(mq, LOOP_MS, 1);
  } else {
    mosquitto_destroy(mq);
    mq = mosquitto_new("closed", true, NULL);
  }
}
