// FpArduino over a client that is only pretended, which connects at once: what is told to the socket, and when; a change
// of the key. arduino_glue KEY SECOND THIRD; ends with the number of the line that is wrong.
#include <PubSubClient.h>
#include <Preferences.h>
#include <WiFiClientSecure.h>
#include <map>
#include <string>

#include "FpArduino.h"

static bool isUp = false, isReachable = true;
static int noDelays = 0, published = 0, publishedBefore = -1;
static int connects = 0;
static unsigned long ms = 1;
static std::string usedKey, refusedKey;
static bool isKeyAsked = false;
static std::map<std::string, std::string> flash;
static std::function<void(char*, uint8_t*, unsigned int)> hear;
EspClass ESP;

unsigned long millis() { return ms; }
long random(long) { return 0; }
void EspClass::restart() {}
bool Preferences::begin(const char*, bool) { return true; }
size_t Preferences::getBytes(const char*, void*, size_t) { return 0; }
size_t Preferences::putBytes(const char*, const void*, size_t n) { return n; }
size_t Preferences::getString(const char* name, char* value, size_t) { return strlen(strcpy(value, flash[name].c_str())); }
size_t Preferences::putString(const char* name, const char* value) { return (flash[name] = value).size(); }
uint32_t Preferences::getUInt(const char*, uint32_t) { return 0; }
size_t Preferences::putUInt(const char*, uint32_t) { return 1; }
bool Preferences::isKey(const char* name) { return flash.count(name) > 0; }
bool Preferences::remove(const char* name) { return flash.erase(name) > 0; }
PubSubClient::PubSubClient(Client&) {}
PubSubClient& PubSubClient::setServer(const char*, uint16_t) { return *this; }
PubSubClient& PubSubClient::setCallback(std::function<void(char*, uint8_t*, unsigned int)> callback) {
  hear = callback;
  return *this;
}
PubSubClient& PubSubClient::setKeepAlive(uint16_t) { return *this; }
uint16_t PubSubClient::getBufferSize() { return 256; }
bool PubSubClient::connect(const char*, const char*, const char* key) {
  usedKey = key;
  connects++;
  return isUp = isReachable && usedKey != refusedKey;
}
void PubSubClient::disconnect() { isUp = false; }
bool PubSubClient::publish(const char* topic, const uint8_t*, unsigned int) {
  if (strcmp(topic, FP_TOPIC_KEY) == 0) isKeyAsked = true;
  return ++published > 0;
}
bool PubSubClient::subscribe(const char*, uint8_t) { return ++published > 0; }
bool PubSubClient::loop() { return isUp; }
bool PubSubClient::connected() { return isUp; }
int PubSubClient::state() { return usedKey == refusedKey ? 5 : -2; }
int WiFiClient::setNoDelay(bool isSet) {
  if (isSet && isUp) noDelays++;
  if (publishedBefore < 0) publishedBefore = published;
  return 0;
}

template <class Fp>
static void live(Fp& fp, unsigned loops) {
  for (unsigned i = 0; i < loops; i++, ms += 1000) fp.loop();
}

static void tell(const char* topic, std::string payload) {
  std::string name(topic);
  hear(&name[0], reinterpret_cast<uint8_t*>(&payload[0]), static_cast<unsigned int>(payload.size()));
}

// The key that it asks for comes.
template <class Fp>
static void changeKey(Fp& fp, const char* id, const char* key) {
  isKeyAsked = false;
  tell(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"cmd\":0,\"cfg\":0}");
  tell(FP_TOPIC_IN_CMD, std::string("{\"id\":") + id + ",\"cmd\":\"sys.rekey\",\"args\":{}}");
  live(fp, 3);
  tell(FP_TOPIC_IN_KEY, std::string("{\"st\":\"ok\",\"user\":\"acme/a4\",\"key\":\"") + key + "\"}");
}

#define CHECK(fact) \
  if (!(fact)) return __LINE__

int main(int, char** argv) {
  WiFiClientSecure net;
  PubSubClient mq(net);
  FpArduino<PubSubClient> fp(mq), plain(mq);
  CHECK(fp.noDelay(net).begin("host", 8883, argv[1]));
  CHECK(noDelays == 0);
  live(fp, 5);
  CHECK(noDelays == 1 && publishedBefore == 0 && published > 0);
  isUp = isReachable = false;
  live(fp, 60);
  CHECK(noDelays == 1);
  isReachable = true;
  live(fp, 60);
  CHECK(noDelays == 2);
  isUp = false;
  CHECK(plain.begin("host", 8883, argv[1]));
  live(plain, 5);
  CHECK(isUp && noDelays == 2 && usedKey == argv[1]);

  // A new key: one connection with it, which stays.
  changeKey(plain, "1795000001", argv[2]);
  CHECK(isKeyAsked);
  connects = 0;
  live(plain, 20);
  CHECK(isUp && connects == 1 && usedKey == argv[2]);
  // The next one is refused: a minute later it is back with the one before.
  refusedKey = argv[3];
  changeKey(plain, "1795000002", argv[3]);
  CHECK(isKeyAsked);
  connects = 0;
  live(plain, 50);
  CHECK(!isUp && connects == 1 && usedKey == argv[3]);
  live(plain, 15);
  CHECK(isUp && connects == 2 && usedKey == argv[2]);
  return 0;
}
