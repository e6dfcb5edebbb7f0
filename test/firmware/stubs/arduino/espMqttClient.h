#pragma once
#include <functional>
#include "Arduino.h"

namespace espMqttClientTypes {
enum class UseInternalTask { NO = 0, YES = 1 };
enum class DisconnectReason : int8_t { TCP_DISCONNECTED = 0, MQTT_NOT_AUTHORIZED = 5 };
struct MessageProperties {
  uint8_t qos;
  bool dup;
  bool retain;
  uint16_t packetId;
};
typedef std::function<void(DisconnectReason reason)> OnDisconnectCallback;
typedef std::function<void(const MessageProperties& properties, const char* topic, const uint8_t* payload, size_t len,
                           size_t index, size_t total)>
    OnMessageCallback;
typedef std::function<void(uint16_t packetId)> OnPublishCallback;
}  // namespace espMqttClientTypes

class espMqttClientSecure {
 public:
  explicit espMqttClientSecure(espMqttClientTypes::UseInternalTask useInternalTask);
  espMqttClientSecure& setServer(const char* host, uint16_t port);
  espMqttClientSecure& setCredentials(const char* username, const char* password);
  espMqttClientSecure& setKeepAlive(uint16_t seconds);
  espMqttClientSecure& setCACert(const char* pem);
  espMqttClientSecure& onMessage(espMqttClientTypes::OnMessageCallback callback);
  espMqttClientSecure& onDisconnect(espMqttClientTypes::OnDisconnectCallback callback);
  espMqttClientSecure& onPublish(espMqttClientTypes::OnPublishCallback callback);
  bool connected() const;
  bool disconnected() const;
  bool connect();
  bool disconnect(bool force = false);
  uint16_t subscribe(const char* topic, uint8_t qos);
  uint16_t publish(const char* topic, uint8_t qos, bool retain, const uint8_t* payload, size_t length);
  void clearQueue(bool deleteSessionData = false);
  void loop();
};
