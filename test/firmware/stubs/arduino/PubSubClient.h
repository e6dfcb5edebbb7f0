#pragma once
#include <functional>
#include "Arduino.h"

class PubSubClient {
 public:
  explicit PubSubClient(Client& client);
  PubSubClient& setServer(const char* domain, uint16_t port);
  PubSubClient& setCallback(std::function<void(char*, uint8_t*, unsigned int)> callback);
  PubSubClient& setKeepAlive(uint16_t seconds);
  bool setBufferSize(uint16_t bytes);
  uint16_t getBufferSize();
  bool connect(const char* id, const char* user, const char* password);
  void disconnect();
  bool publish(const char* topic, const uint8_t* payload, unsigned int length);
  bool subscribe(const char* topic, uint8_t qos);
  bool loop();
  bool connected();
  int state();
};
