#pragma once
#include <functional>
#include "Arduino.h"

class MQTTClient;
typedef void (*MQTTClientCallbackAdvanced)(MQTTClient* client, char topic[], char bytes[], int length);
typedef std::function<void(MQTTClient* client, char topic[], char bytes[], int length)> MQTTClientCallbackAdvancedFunction;
enum lwmqtt_return_code_t { LWMQTT_CONNECTION_ACCEPTED = 0, LWMQTT_UNKNOWN_RETURN_CODE = 6 };

class MQTTClient {
 public:
  explicit MQTTClient(int bytes = 128);
  void begin(Client& client);
  void setHost(const char hostname[], int port);
  void setKeepAlive(int seconds);
  void dropOverflow(bool enabled);
  void onMessageAdvanced(MQTTClientCallbackAdvanced callback);
  void onMessageAdvanced(MQTTClientCallbackAdvancedFunction callback);
  bool connect(const char id[], const char user[], const char password[], bool skip = false);
  bool publish(const char topic[], const char payload[], int length, bool retained, int qos);
  bool subscribe(const char topic[], int qos);
  bool loop();
  bool connected();
  bool disconnect();
  lwmqtt_return_code_t returnCode();
};
