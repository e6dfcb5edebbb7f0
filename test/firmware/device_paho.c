/* The client of a simulated board: paho-c, with its synchronous interface. */
#define _POSIX_C_SOURCE 200809L
#include <MQTTClient.h>
#include <stdio.h>
#include <string.h>

#include "device_board.h"

enum { LOOP_MS = 5 };

const int client_qos_max = 1;

static MQTTClient mq;
static size_t packet_size;
static int open_count;

int client_connect(const board_options *options, const char *host, const char *port, const char *user,
                   const char *key) {
  char url[128];
  MQTTClient_connectOptions connect = MQTTClient_connectOptions_initializer;
  packet_size = options->packet_size;
  if (mq) MQTTClient_destroy(&mq);
  snprintf(url, sizeof url, "tcp://%s:%s", host, port);
  if (MQTTClient_create(&mq, url, "board", MQTTCLIENT_PERSISTENCE_NONE, NULL) != MQTTCLIENT_SUCCESS) return -1;
  connect.username = user;
  connect.password = key;
  connect.MQTTVersion = MQTTVERSION_3_1_1;
  connect.keepAliveInterval = 60;
  connect.connectTimeout = 5;
  open_count = 0;
  int code = MQTTClient_connect(mq, &connect);
  return code >= 0 ? code : -1;
}

fp_sent client_publish(const char *topic, const char *payload, size_t n, int qos) {
  MQTTClient_deliveryToken token;
  if (MQTTClient_publish(mq, topic, (int)n, payload, qos, 0, &token) != MQTTCLIENT_SUCCESS) return FP_SENT_NOT;
  if (qos == 0) return FP_SENT_DONE;
  open_count++;
  return FP_SENT_OPEN;
}

bool client_subscribe(const char *filter, int qos) {
  return MQTTClient_subscribe(mq, filter, qos) == MQTTCLIENT_SUCCESS;
}

/* Those that it still waits for are listed; the others have their PUBACK. */
static void count_pubacks(void) {
  MQTTClient_deliveryToken *tokens = NULL;
  int pending = 0;
  if (open_count == 0 || MQTTClient_getPendingDeliveryTokens(mq, &tokens) != MQTTCLIENT_SUCCESS) return;
  while (tokens && tokens[pending] != -1) pending++;
  if (tokens) MQTTClient_free(tokens);
  for (; open_count > pending; open_count--) board_puback();
}

bool client_loop(void) {
  char *topic = NULL;
  int topic_n = 0;
  MQTTClient_message *m = NULL;
  int code = MQTTClient_receive(mq, &topic, &topic_n, &m, LOOP_MS);
  if (m) {
    size_t n = (size_t)m->payloadlen, rest = strlen(topic) + n + 2 + (m->qos > 0 ? 2 : 0);
    size_t bytes = rest + (rest > 127 ? 3 : 2);
    if (bytes > packet_size)
      board_overflow(bytes);
    else
      board_message(topic, m->payload, n, bytes);
    MQTTClient_freeMessage(&m);
    MQTTClient_free(topic);
  }
  count_pubacks();
  return code != MQTTCLIENT_DISCONNECTED && MQTTClient_isConnected(mq);
}

void client_close(bool says_so) {
  if (says_so) MQTTClient_disconnect(mq, 1000);
  else MQTTClient_destroy(&mq);
}
