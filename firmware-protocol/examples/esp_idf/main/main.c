/* A reading each minute that is sent again until its PUBACK has come, a relay by command, sys.ota. */
#include "esp_event.h"
#include "esp_netif.h"
#include "fp_esp.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "nvs_flash.h"
#include "protocol_examples_common.h"

static bool is_on;

static fp_st on_command(const fp_cmd *cmd, fp_w *result) {
  fp_span v;
  if (!fp_eq(cmd->name, "relay")) return FP_ST_NO;
  if (!fp_get(cmd->args, "on", &v) || !fp_bool(v, &is_on)) {
    fp_fail(result, "args", "on is missing");
    return FP_ST_NO;
  }
  fp_add_bool(result, "on", is_on);
  return FP_ST_OK;
}

static const fp_esp_config CONFIG = {
    .uri = "mqtts://iot.example.com:8883",
    .key = "pbd_…",
    .about = {.mdl = "relay-1", .units = "{\"temp\":\"Cel\"}"},
    .command = on_command,
    .updates = true,
};

static float read_temperature(void) { return 21.5f; }

void app_main(void) {
  ESP_ERROR_CHECK(nvs_flash_init());
  ESP_ERROR_CHECK(esp_netif_init());
  ESP_ERROR_CHECK(esp_event_loop_create_default());
  ESP_ERROR_CHECK(example_connect());
  ESP_ERROR_CHECK(fp_esp_start(&CONFIG));
  for (;;) {
    char text[96];
    fp_w w;
    fp_w_init(&w, text, sizeof text);
    fp_obj(&w, NULL);
    uint64_t ms = fp_esp_clock_ms();
    if (ms) fp_add_int(&w, "ts", (int64_t)ms);
    fp_add_num(&w, "temp", (double)read_temperature());
    fp_obj_end(&w);
    /* The same bytes again until they are committed: with a `ts` the copies are dropped. */
    for (int id = -1; !fp_esp_is_acknowledged(id);) {
      id = fp_esp_send(&w);
      vTaskDelay(pdMS_TO_TICKS(5000));
    }
    vTaskDelay(pdMS_TO_TICKS(55000));
  }
}
