/* A device over paho-c: paho URL KEY CAFILE|- VALUE
 * Subscribes its inbox, waits for the greeting, publishes VALUE to VALUE + 2 at QoS 0, 1 and 2 and waits
 * for each acknowledgement. Exit status 0 when everything came. */
#include <MQTTClient.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int receive_greeting(MQTTClient client) {
  for (int turn = 0; turn < 20; turn += 1) {
    char *topic = NULL;
    int length = 0;
    MQTTClient_message *message = NULL;
    MQTTClient_receive(client, &topic, &length, &message, 500);
    if (message == NULL) continue;
    printf("%s %.*s\n", topic, message->payloadlen, (const char *)message->payload);
    int is_greeting = strcmp(topic, "v1/me/in/hello") == 0;
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    if (is_greeting) return 1;
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 5) return 64;
  MQTTClient client;
  MQTTClient_create(&client, argv[1], "paho", MQTTCLIENT_PERSISTENCE_NONE, NULL);
  MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
  MQTTClient_SSLOptions tls = MQTTClient_SSLOptions_initializer;
  options.username = "device";
  options.password = argv[2];
  options.keepAliveInterval = 60;
  options.MQTTVersion = MQTTVERSION_3_1_1;
  if (strcmp(argv[3], "-") != 0) {
    tls.trustStore = argv[3];
    tls.verify = 1;
    options.ssl = &tls;
  }
  int code = MQTTClient_connect(client, &options);
  if (code != MQTTCLIENT_SUCCESS) {
    fprintf(stderr, "connect: %d\n", code);
    return 2;
  }
  code = MQTTClient_subscribe(client, "v1/me/in/+", 1);
  if (code != MQTTCLIENT_SUCCESS) return 3;
  if (!receive_greeting(client)) return 4;
  for (int qos = 0; qos <= 2; qos += 1) {
    char payload[64];
    int length = snprintf(payload, sizeof payload, "{\"paho\":%d}", atoi(argv[4]) + qos);
    MQTTClient_deliveryToken token;
    code = MQTTClient_publish(client, "v1/me/data", length, payload, qos, 0, &token);
    if (code == MQTTCLIENT_SUCCESS && qos > 0) {
      code = MQTTClient_waitForCompletion(client, token, 5000);
    }
    if (code != MQTTCLIENT_SUCCESS) {
      fprintf(stderr, "publish at QoS %d: %d\n", qos, code);
      return 5;
    }
    printf("published at QoS %d\n", qos);
  }
  MQTTClient_disconnect(client, 1000);
  MQTTClient_destroy(&client);
  return 0;
}
