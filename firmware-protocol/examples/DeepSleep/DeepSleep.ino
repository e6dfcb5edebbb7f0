// Wakes each hour, sends what was measured, takes what waits, and sleeps again: within a second where nothing waits.
#include <WiFi.h>
#include <espMqttClient.h>
#include <esp_sleep.h>
#include <FpArduino.h>

const char SSID[] = "…", PASSWORD[] = "…", KEY[] = "pbd_…", ROOT_CA[] = "-----BEGIN CERTIFICATE-----…";
const uint32_t PERIOD_S = 3600;

espMqttClientSecure mq(espMqttClientTypes::UseInternalTask::NO);
FpArduino<espMqttClientSecure, 1024> fp(mq);
bool isSent = false;

bool onConfig(fp_span cfg, fp_w& report) {
  fp_span v;
  uint32_t every;
  if (!fp_get(cfg, "every", &v) || !fp_u32(v, &every) || every < 60) {
    fp_fail(&report, nullptr, "every < 60");
    return false;
  }
  return true;
}

void setup() {
  WiFi.begin(SSID, PASSWORD);
  mq.setCACert(ROOT_CA);
  fp.firmware("1.0.0", "thermo-1").sleeps(PERIOD_S);
  fp.onConfig(onConfig);
  fp.begin("iot.example.com", 8883, KEY);
}

void loop() {
  fp.loop();
  if (!isSent) isSent = fp.send("temp", analogRead(0) * 0.1);
  // Not before the reading is out, its PUBACK in, and nothing waits; after 10 s in any case.
  if (fp.canSleep()) esp_deep_sleep(PERIOD_S * 1000000ULL);
}
