// Sends a reading each minute and switches a pin by command. Fill in the four texts, the certificate as R"(…)", and the server.
#include <PubSubClient.h>
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <FpArduino.h>

const char SSID[] = "…", PASSWORD[] = "…", KEY[] = "pbd_…", ROOT_CA[] = "-----BEGIN CERTIFICATE-----…";
const uint8_t RELAY_PIN = 2;

WiFiClientSecure net;
PubSubClient mq(net);
FpArduino<PubSubClient> fp(mq);
bool isDue = false;

fp_st onCommand(const fp_cmd& cmd, fp_w& result) {
  bool on;
  fp_span v;
  if (!fp_eq(cmd.name, "relay")) return FP_ST_NO;
  if (!fp_get(cmd.args, "on", &v) || !fp_bool(v, &on)) {
    fp_fail(&result, "args", "on is missing");
    return FP_ST_NO;
  }
  digitalWrite(RELAY_PIN, on);
  fp_add_bool(&result, "on", on);
  return FP_ST_OK;
}

void setup() {
  pinMode(RELAY_PIN, OUTPUT);
  WiFi.begin(SSID, PASSWORD);
  net.setCACert(ROOT_CA);
  mq.setBufferSize(512);
  fp.firmware("1.0.0", "relay-1").units("{\"temp\":\"Cel\"}").noDelay(net);
  fp.onCommand(onCommand);
  fp.begin("iot.example.com", 8883, KEY);
}

void loop() {
  fp.loop();
  if (fp.every(60)) isDue = true;
  // False while it is not connected: then it is tried again.
  if (isDue && fp.send("temp", analogRead(0) * 0.1)) isDue = false;
}
