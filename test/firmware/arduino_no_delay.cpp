// FpArduino over a client that is only pretended: what is told to the socket, and when. Ends with the line that is wrong.
#include <PubSubClient.h>
#include <Preferences.h>
#include <WiFiClientSecure.h>

#include "FpArduino.h"

static bool isUp = false, isReachable = true;
static int noDelays = 0, published = 0, publishedBefore = -1;
static unsigned long ms = 1;
EspClass ESP;

unsigned long millis() { return ms; }
long random(long) { return 0; }
void EspClass::restart() {}
bool Preferences::begin(const char*, bool) { return true; }
size_t Preferences::getBytes(const char*, void*, size_t) { return 0; }
size_t Preferences::putBytes(const char*, const void*, size_t n) { return n; }
size_t Preferences::getString(const char*, char*, size_t) { return 0; }
size_t Preferences::putString(const char*, const char*) { return 1; }
uint32_t Preferences::getUInt(const char*, uint32_t) { return 0; }
size_t Preferences::putUInt(const char*, uint32_t) { return 1; }
bool Preferences::isKey(const char*) { return false; }
bool Preferences::remove(const char*) { return true; }
PubSubClient::PubSubClient(Client&) {}
PubSubClient& PubSubClient::setServer(const char*, uint16_t) { return *this; }
PubSubClient& PubSubClient::setCallback(std::function<void(char*, uint8_t*, unsigned int)>) { return *this; }
PubSubClient& PubSubClient::setKeepAlive(uint16_t) { return *this; }
uint16_t PubSubClient::getBufferSize() { return 256; }
bool PubSubClient::connect(const char*, const char*, const char*) { return isUp = isReachable; }
void PubSubClient::disconnect() { isUp = false; }
bool PubSubClient::publish(const char*, const uint8_t*, unsigned int) { return ++published > 0; }
bool PubSubClient::subscribe(const char*, uint8_t) { return ++published > 0; }
bool PubSubClient::loop() { return isUp; }
bool PubSubClient::connected() { return isUp; }
int PubSubClient::state() { return -2; }
int WiFiClient::setNoDelay(bool isSet) {
  if (isSet && isUp) noDelays++;
  if (publishedBefore < 0) publishedBefore = published;
  return 0;
}

template <class Fp>
static void live(Fp& fp, unsigned loops) {
  for (unsigned i = 0; i < loops; i++, ms += 1000) fp.loop();
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
  CHECK(isUp && noDelays == 2);
  return 0;
}
