/* A device over libmosquitto: libmosquitto HOST PORT KEY CAFILE|- VALUE
 * Subscribes its inbox, waits for the greeting, publishes VALUE to VALUE + 2 at QoS 0, 1 and 2 and prints
 * each acknowledgement. Exit status 0 when everything came. */
#include <mosquitto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int connected = 0, granted = 0, greeted = 0, published = 0;

static void on_connect(struct mosquitto *client, void *context, int code) {
  (void)client;
  (void)context;
  if (code != 0) {
    fprintf(stderr, "CONNACK %d\n", code);
    exit(2);
  }
  connected = 1;
}

static void on_subscribe(struct mosquitto *client, void *context, int id, int count,
                         const int *qos) {
  (void)client;
  (void)context;
  (void)id;
  for (int at = 0; at < count; at += 1) printf("granted %d\n", qos[at]);
  granted = 1;
}

static void on_message(struct mosquitto *client, void *context,
                       const struct mosquitto_message *message) {
  (void)client;
  (void)context;
  printf("%s %.*s\n", message->topic, message->payloadlen, (const char *)message->payload);
  if (strcmp(message->topic, "v1/me/in/hello") == 0) greeted = 1;
}

static void on_publish(struct mosquitto *client, void *context, int id) {
  (void)client;
  (void)context;
  (void)id;
  published += 1;
}

static int run_until(struct mosquitto *client, const int *flag, int wanted) {
  for (int turn = 0; turn < 1000 && *flag < wanted; turn += 1) {
    int code = mosquitto_loop(client, 10, 1);
    if (code != MOSQ_ERR_SUCCESS) {
      fprintf(stderr, "loop: %s\n", mosquitto_strerror(code));
      exit(3);
    }
  }
  return *flag >= wanted;
}

int main(int argc, char **argv) {
  if (argc != 6) return 64;
  mosquitto_lib_init();
  struct mosquitto *client = mosquitto_new("libmosquitto", true, NULL);
  mosquitto_username_pw_set(client, "device", argv[3]);
  if (strcmp(argv[4], "-") != 0) mosquitto_tls_set(client, argv[4], NULL, NULL, NULL, NULL);
  mosquitto_connect_callback_set(client, on_connect);
  mosquitto_subscribe_callback_set(client, on_subscribe);
  mosquitto_message_callback_set(client, on_message);
  mosquitto_publish_callback_set(client, on_publish);
  int code = mosquitto_connect(client, argv[1], atoi(argv[2]), 60);
  if (code != MOSQ_ERR_SUCCESS) {
    fprintf(stderr, "connect: %s\n", mosquitto_strerror(code));
    return 1;
  }
  if (!run_until(client, &connected, 1)) return 4;
  mosquitto_subscribe(client, NULL, "v1/me/in/+", 1);
  if (!run_until(client, &granted, 1) || !run_until(client, &greeted, 1)) return 5;
  for (int qos = 0; qos <= 2; qos += 1) {
    char payload[64];
    int length = snprintf(payload, sizeof payload, "{\"mosquitto\":%d}", atoi(argv[5]) + qos);
    mosquitto_publish(client, NULL, "v1/me/data", length, payload, qos, false);
    if (!run_until(client, &published, qos + 1)) return 6;
    printf("published at QoS %d\n", qos);
  }
  mosquitto_disconnect(client);
  mosquitto_destroy(client);
  mosquitto_lib_cleanup();
  return 0;
}
