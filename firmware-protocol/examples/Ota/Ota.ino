// Updates itself by sys.ota: {"ver":"1.4.3","url":"https://…"}. The answer is the version that greets afterwards.
#include <HTTPUpdate.h>
#include <MQTT.h>
#include <WiFi.h>
#include <WiFiClientSecure.h>
#include <FpArduino.h>

const char SSID[] = "…", PASSWORD[] = "…", KEY[] = "pbd_…", ROOT_CA[] = "-----BEGIN CERTIFICATE-----…";

WiFiClientSecure net;
MQTTClient mq(512);
FpArduino<MQTTClient> fp(mq);
uint32_t updateId = 0;
char updateUrl[300];

fp_st onCommand(const fp_cmd& cmd, fp_w& result) {
  fp_span v;
  if (!fp_eq(cmd.name, FP_SYS_OTA)) return FP_ST_NO;
  if (!fp_get(cmd.args, "url", &v) || !fp_str(v, updateUrl, sizeof updateUrl)) {
    fp_fail(&result, "args", "url is missing or too long");
    return FP_ST_NO;
  }
  updateId = cmd.id;
  return FP_ST_RUN;
}

void update() {
  WiFiClientSecure download;
  download.setCACert(ROOT_CA);
  httpUpdate.rebootOnUpdate(false);
  bool isDone = httpUpdate.update(download, updateUrl) == HTTP_UPDATE_OK;
  // A board that restarts with the new version says so in its hello; one that does not must say that it failed.
  if (isDone) ESP.restart();
  fp.done(updateId, FP_ST_ERR);
  updateId = 0;
}

void setup() {
  WiFi.begin(SSID, PASSWORD);
  net.setCACert(ROOT_CA);
  mq.begin(net);
  fp.firmware("1.4.2", "thermo-1").packetSize(512).noDelay(net);
  fp.onCommand(onCommand);
  fp.begin("iot.example.com", 8883, KEY);
}

void loop() {
  fp.loop();
  if (updateId != 0) update();
}
