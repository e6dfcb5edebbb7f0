/* Puback for ESP-IDF 5.1 and newer: esp-mqtt, NVS and esp_https_ota around the core of fp.h. One client a board.
 *
 * Everything of the core runs in the task of esp-mqtt: handlers too, so they must be short; a long job returns
 * FP_ST_RUN and calls fp_esp_done later, from any task.
 *
 * esp-mqtt deletes what it could not send for 30 s from its outbox, silently. A reading that must not be lost is
 * kept by the application until fp_esp_is_acknowledged says that its PUBACK has come. */
#ifndef FP_ESP_H
#define FP_ESP_H

#include "esp_err.h"
#include "fp.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fp_esp_config {
  const char *uri;     /* mqtts://iot.example.com:8883 */
  const char *user;    /* "device"; for a claim the board's name; NULL: as in NVS fp/user, else "device" */
  const char *key;     /* pbd_ or pbc_; NULL: as in NVS fp/key (factory batch) */
  const char *root_ca; /* PEM; NULL: the certificate bundle */
  fp_about about;      /* fw, ota and mps are filled in where they are not given */
  fp_st (*command)(const fp_cmd *cmd, fp_w *result);
  bool (*save_after)(const fp_cmd *cmd);
  bool (*config)(fp_span cfg, fp_w *report);
  void (*refused)(fp_span code, fp_span channel, fp_span msg);
  bool updates;        /* sys.ota is executed here */
} fp_esp_config;

/* Starts to connect. NVS (nvs_flash_init) and the network must be up, `config` must stay valid. */
esp_err_t fp_esp_start(const fp_esp_config *config);
/* Queues what was written for `data` at QoS 1. Returns the id of the message, or -1: not taken, keep it. */
int fp_esp_send(fp_w *w);
/* Queues anything for a topic. */
int fp_esp_publish(const char *topic, const char *payload, size_t n, int qos);
/* Whether the PUBACK of fp_esp_send's message has come; only the last 16 are known. */
bool fp_esp_is_acknowledged(int id);
/* Answers a command that returned FP_ST_RUN; `code` may be NULL. False: another answer is not sent yet. */
bool fp_esp_done(uint32_t id, fp_st st, const char *code);
bool fp_esp_can_sleep(void);
/* Unix ms, 0 while nobody has told. */
uint64_t fp_esp_clock_ms(void);

#ifdef __cplusplus
}
#endif

#endif
