#ifdef ESP_PLATFORM
#ifndef ARDUINO

#include "fp_esp.h"

#include <stdatomic.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_crt_bundle.h"
#include "esp_https_ota.h"
#include "esp_idf_version.h"
#include "esp_ota_ops.h"
#include "esp_random.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "mqtt_client.h"
#include "nvs.h"
#include "sdkconfig.h"

#define TICK_US 200000
#define ACKNOWLEDGED_MAX 16
/* An update that is broken off is taken up again this often, and then given up. */
#define DOWNLOADS_MAX 10
/* A new image that is not greeted for so long is given up for the one before it. */
#define TRIAL_MS (10 * 60 * 1000)

static const fp_esp_config *config;
static fp_about about;
static fp_client core;
static char rx[CONFIG_FP_PACKET_BYTES], tx[CONFIG_FP_PACKET_BYTES];
static esp_mqtt_client_handle_t mqtt;
static esp_timer_handle_t tick_timer, connect_timer;
static nvs_handle_t nvs;
static char user[FP_USER_MAX + 1], key[FP_KEY_CHARS + 1];
static uint8_t connack;
static bool is_trial;

/* From other tasks: how many publishes are open, which were acknowledged, which answer waits. */
static atomic_int open_count;
static atomic_int acknowledged[ACKNOWLEDGED_MAX];
static atomic_uint acknowledged_next;
static struct {
  atomic_bool is_waiting;
  uint32_t id;
  fp_st st;
  char code[16];
} answer;
static struct {
  uint32_t id;
  char url[384];
} update;

static uint32_t uptime(void) { return (uint32_t)(esp_timer_get_time() / 1000); }

/* ---- what the core calls ---------------------------------------------------------------------------- */

/* To the socket at once, not to the outbox: this is the task of esp-mqtt. */
static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  int id = esp_mqtt_client_publish(mqtt, topic, payload, (int)n, qos, 0);
  if (id < 0) return FP_SENT_NOT;
  return qos > 0 ? FP_SENT_OPEN : FP_SENT_DONE;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  return esp_mqtt_client_subscribe_single(mqtt, filter, qos) >= 0;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  size_t length = n;
  return nvs_get_blob(nvs, slot ? "r1" : "r0", record, &length) == ESP_OK && length == n;
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  return nvs_set_blob(nvs, slot ? "r1" : "r0", record, n) == ESP_OK && nvs_commit(nvs) == ESP_OK;
}

static bool keep_key(void *ctx, unsigned slot, const char *new_user, const char *new_key) {
  (void)ctx;
  return nvs_set_str(nvs, slot ? "user1" : "user0", new_user) == ESP_OK &&
         nvs_set_str(nvs, slot ? "key1" : "key0", new_key) == ESP_OK && nvs_commit(nvs) == ESP_OK;
}

static void restart(void *ctx) {
  (void)ctx;
  esp_restart();
}

static void download(void *ctx);

static fp_st begin_update(const fp_cmd *cmd, fp_w *result) {
  fp_span url;
  if (update.id != 0) {
    fp_fail(result, "busy", NULL);
    return FP_ST_ERR;
  }
  if (!fp_get(cmd->args, "url", &url) || !fp_str(url, update.url, sizeof update.url)) {
    fp_fail(result, "args", "url is missing or too long");
    return FP_ST_NO;
  }
  update.id = cmd->id;
  if (xTaskCreate(download, "fp_ota", 8192, NULL, 5, NULL) != pdPASS) {
    update.id = 0;
    fp_fail(result, "memory", NULL);
    return FP_ST_ERR;
  }
  return FP_ST_RUN;
}

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  if (config->updates && fp_eq(cmd->name, FP_SYS_OTA)) return begin_update(cmd, result);
  return config->command ? config->command(cmd, result) : FP_ST_NO;
}

static bool save_after(void *ctx, const fp_cmd *cmd) {
  (void)ctx;
  return config->save_after && config->save_after(cmd);
}

static bool apply(void *ctx, fp_span cfg, fp_w *report) {
  (void)ctx;
  return config->config(cfg, report);
}

static void refused(void *ctx, fp_span code, fp_span channel, fp_span msg) {
  (void)ctx;
  if (config->refused) config->refused(code, channel, msg);
}

static fp_port port = {
    .publish = publish,
    .subscribe = subscribe,
    .load = load,
    .save = save,
    .command = command,
    .save_after = save_after,
    .refused = refused,
    .keep_key = keep_key,
    .restart = restart,
};

/* ---- connection ------------------------------------------------------------------------------------- */

static bool read_text(const char *name, char *out, size_t capacity) {
  return nvs_get_str(nvs, name, out, &capacity) == ESP_OK;
}

/* The stored key of the slot; without one what was given; without that what the factory wrote. */
static void choose_key(void) {
  bool is_second = core.key_slot != 0;
  if (read_text(is_second ? "key1" : "key0", key, sizeof key)) {
    read_text(is_second ? "user1" : "user0", user, sizeof user);
    return;
  }
  strlcpy(user, "device", sizeof user);
  if (config->key)
    strlcpy(key, config->key, sizeof key);
  else
    read_text("key", key, sizeof key);
  if (config->user)
    strlcpy(user, config->user, sizeof user);
  else
    read_text("user", user, sizeof user);
}

static void configure(esp_mqtt_client_config_t *c) {
  memset(c, 0, sizeof *c);
  c->broker.address.uri = config->uri;
  c->broker.verification.certificate = config->root_ca;
  if (!config->root_ca) c->broker.verification.crt_bundle_attach = esp_crt_bundle_attach;
  c->credentials.username = user;
  c->credentials.authentication.password = key;
  c->session.keepalive = 60;
  /* Its own way to reconnect waits the same time always. */
  c->network.disable_auto_reconnect = true;
  c->buffer.size = CONFIG_FP_PACKET_BYTES;
}

static void connect_again(void *ctx) {
  (void)ctx;
  esp_mqtt_client_config_t c;
  configure(&c);
  esp_mqtt_set_config(mqtt, &c);
  esp_mqtt_client_reconnect(mqtt);
}

static void connect_later(uint32_t ms) {
  choose_key();
  esp_timer_stop(connect_timer);
  esp_timer_start_once(connect_timer, (uint64_t)ms * 1000);
}

static void on_disconnected(void) {
  bool is_wanted = fp_wants_reconnect(&core);
  atomic_store(&open_count, 0);
  fp_on_refused(&core, connack);
  connack = 0;
  connect_later(is_wanted ? 0 : fp_retry_ms(&core, esp_random()));
}

static void on_published(int id) {
  unsigned at = atomic_fetch_add(&acknowledged_next, 1) % ACKNOWLEDGED_MAX;
  atomic_store(&acknowledged[at], id);
  /* Those of the core and those of the application are counted together: none is open when all have come. */
  if (core.unacked > 0)
    fp_on_puback(&core);
  else if (atomic_load(&open_count) > 0)
    atomic_fetch_sub(&open_count, 1);
}

/* The image is good when the broker has greeted it. */
static void end_trial(void) {
  if (core.is_greeted) {
    esp_ota_mark_app_valid_cancel_rollback();
    about.ota = "valid";
    fp_hello(&core);
    is_trial = false;
  } else if (uptime() > TRIAL_MS) {
    esp_ota_mark_app_invalid_rollback_and_reboot();
  }
}

static void tick(void) {
  fp_tick(&core, uptime());
  if (is_trial) end_trial();
  if (atomic_load(&answer.is_waiting)) {
    char buffer[96];
    fp_w w;
    fp_result(&w, buffer, sizeof buffer);
    fp_fail(&w, answer.code[0] ? answer.code : NULL, NULL);
    if (fp_done(&core, answer.id, answer.st, &w)) atomic_store(&answer.is_waiting, false);
  }
  if (fp_wants_reconnect(&core)) esp_mqtt_client_disconnect(mqtt);
}

static void on_event(void *ctx, esp_event_base_t base, int32_t id, void *data) {
  (void)ctx;
  (void)base;
  esp_mqtt_event_handle_t event = data;
  switch ((esp_mqtt_event_id_t)id) {
    case MQTT_EVENT_CONNECTED:
      fp_on_connected(&core, uptime());
      if (strncmp(key, FP_KEY_PREFIX_CLAIM, 4) == 0) fp_claim(&core);
      tick();
      break;
    case MQTT_EVENT_DISCONNECTED:
      on_disconnected();
      break;
    case MQTT_EVENT_ERROR:
      if (event->error_handle->error_type == MQTT_ERROR_TYPE_CONNECTION_REFUSED)
        connack = (uint8_t)event->error_handle->connect_return_code;
      break;
    case MQTT_EVENT_PUBLISHED:
      on_published(event->msg_id);
      break;
    case MQTT_EVENT_DATA: {
      fp_span topic = {event->topic, (size_t)event->topic_len};
      fp_span piece = {event->data, (size_t)event->data_len};
      fp_on_part(&core, uptime(), topic, piece, (size_t)event->current_data_offset, (size_t)event->total_data_len);
      break;
    }
    case MQTT_USER_EVENT:
      tick();
      break;
    default:
      break;
  }
}

/* Brings the tick into the task of esp-mqtt, so that the core needs no lock. */
static void post_tick(void *ctx) {
  (void)ctx;
  esp_mqtt_event_t event = {.event_id = MQTT_USER_EVENT};
  esp_mqtt_dispatch_custom_event(mqtt, &event);
}

static const char *image_state(void) {
  static const char *const NAMES[] = {"new", "pending", "valid", "invalid", "aborted"};
  esp_ota_img_states_t state;
  if (esp_ota_get_state_partition(esp_ota_get_running_partition(), &state) != ESP_OK) return NULL;
  return (unsigned)state < 5 ? NAMES[state] : NULL;
}

static esp_err_t start_timer(esp_timer_handle_t *timer, esp_timer_cb_t callback, const char *name) {
  esp_timer_create_args_t args = {.callback = callback, .name = name};
  return esp_timer_create(&args, timer);
}

esp_err_t fp_esp_start(const fp_esp_config *c) {
  config = c;
  about = c->about;
  if (!about.fw) about.fw = esp_app_get_description()->version;
  if (!about.mdl) about.mdl = esp_app_get_description()->project_name;
  if (!about.ota) about.ota = image_state();
  if (!about.mps) about.mps = CONFIG_FP_PACKET_BYTES;
  about.qos = 1;
  is_trial = about.ota && strcmp(about.ota, "pending") == 0;
  if (c->config) port.config = apply;
  esp_err_t err = nvs_open("fp", NVS_READWRITE, &nvs);
  if (err != ESP_OK) return err;
  fp_init(&core, &port, &about);
  fp_buffers(&core, rx, sizeof rx, tx, sizeof tx);
  fp_begin(&core, uptime(), true);
  choose_key();
  if (!fp_key_ok(key)) return ESP_ERR_INVALID_ARG;
  esp_mqtt_client_config_t settings;
  configure(&settings);
  mqtt = esp_mqtt_client_init(&settings);
  if (!mqtt) return ESP_ERR_NO_MEM;
  err = esp_mqtt_client_register_event(mqtt, MQTT_EVENT_ANY, on_event, NULL);
  if (err == ESP_OK) err = start_timer(&connect_timer, connect_again, "fp_connect");
  if (err == ESP_OK) err = start_timer(&tick_timer, post_tick, "fp_tick");
  if (err == ESP_OK) err = esp_mqtt_client_start(mqtt);
  if (err == ESP_OK) err = esp_timer_start_periodic(tick_timer, TICK_US);
  return err;
}

/* ---- from any task ---------------------------------------------------------------------------------- */

int fp_esp_publish(const char *topic, const char *payload, size_t n, int qos) {
  if (!core.is_connected) return -1;
  if (qos > 0) atomic_fetch_add(&open_count, 1);
  int id = esp_mqtt_client_enqueue(mqtt, topic, payload, (int)n, qos, 0, true);
  if (id < 0 && qos > 0) atomic_fetch_sub(&open_count, 1);
  return id < 0 ? -1 : id;
}

int fp_esp_send(fp_w *w) {
  size_t n = fp_w_end(w);
  return n > 0 ? fp_esp_publish(FP_TOPIC_DATA, w->p, n, 1) : -1;
}

bool fp_esp_is_acknowledged(int id) {
  for (unsigned i = 0; i < ACKNOWLEDGED_MAX; i++)
    if (atomic_load(&acknowledged[i]) == id) return true;
  return false;
}

bool fp_esp_done(uint32_t id, fp_st st, const char *code) {
  if (atomic_load(&answer.is_waiting)) return false;
  answer.id = id;
  answer.st = st;
  strlcpy(answer.code, code ? code : "", sizeof answer.code);
  atomic_store(&answer.is_waiting, true);
  return true;
}

bool fp_esp_can_sleep(void) { return atomic_load(&open_count) == 0 && fp_can_sleep(&core, uptime()); }

uint64_t fp_esp_clock_ms(void) { return fp_clock_ms(&core, uptime()); }

/* ---- over-the-air update ---------------------------------------------------------------------------- */

/* Bytes of the image that are in flash already; 0 where esp_https_ota cannot go on from there. */
static esp_err_t download_once(uint32_t *written) {
  esp_http_client_config_t http = {.url = update.url, .cert_pem = config->root_ca, .keep_alive_enable = true};
  if (!config->root_ca) http.crt_bundle_attach = esp_crt_bundle_attach;
  esp_https_ota_config_t ota = {.http_config = &http, .partial_http_download = true, .max_http_request_size = 16384};
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 5, 0)
  ota.ota_resumption = *written > 0;
  ota.ota_image_bytes_written = *written;
#endif
  esp_https_ota_handle_t handle = NULL;
  esp_err_t err = esp_https_ota_begin(&ota, &handle);
  if (err != ESP_OK) return err;
  do {
    err = esp_https_ota_perform(handle);
    int length = esp_https_ota_get_image_len_read(handle);
    if (length > 0) *written = (uint32_t)length;
  } while (err == ESP_ERR_HTTPS_OTA_IN_PROGRESS);
  if (err == ESP_OK && esp_https_ota_is_complete_data_received(handle)) return esp_https_ota_finish(handle);
  esp_https_ota_abort(handle);
  return err == ESP_OK ? ESP_FAIL : err;
}

/* Ends with a restart into the new image, whose greeting is the answer, or with the answer that it failed. */
static void download(void *ctx) {
  (void)ctx;
  uint32_t written = 0;
  esp_err_t err = ESP_FAIL;
  for (unsigned attempt = 0; attempt < DOWNLOADS_MAX && err != ESP_OK; attempt++) {
    if (attempt > 0) vTaskDelay(pdMS_TO_TICKS(fp_backoff_ms(attempt, 0, esp_random())));
    err = download_once(&written);
    /* What was downloaded is no image for this board: it will not be one the next time. */
    if (err == ESP_ERR_OTA_VALIDATE_FAILED || err == ESP_ERR_INVALID_VERSION) break;
  }
  if (err == ESP_OK) esp_restart();
  while (!fp_esp_done(update.id, FP_ST_ERR, "download")) vTaskDelay(pdMS_TO_TICKS(1000));
  update.id = 0;
  vTaskDelete(NULL);
}

#endif
#endif
