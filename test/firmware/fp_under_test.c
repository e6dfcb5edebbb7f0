/* A device with the core over libmosquitto, for the conformance kit: fp_under_test HOST PORT KEY SPEED SLEEP_S [CA]
 * Keeps its samples until PUBACK, keeps its record over restarts, and lives SPEED times as fast as the
 * core's times say. Sleeps SLEEP_S of the core's seconds between contacts; 0: it is always on. Runs until it is
 * killed. With a file of CA it speaks TLS. */
#define _POSIX_C_SOURCE 200809L
#include <mosquitto.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../firmware-protocol/src/fp.h"

enum { KEPT_SAMPLES = 64, OPEN_IDS = 64, SAMPLE_EVERY = 100 };

static struct mosquitto *mq;
static const char *ca;
static fp_client fp;
static unsigned speed;
static int connack, is_over, sleeps;
static jmp_buf reset_vector;
static char flash[2][sizeof(fp_kept)];
static bool is_written[2];
/* The slots of keys; the first is flashed. */
static char users[2][FP_USER_MAX + 1] = {"device"}, keys[2][FP_KEY_CHARS + 1];
static char rx[1024], tx[512];
/* Samples without PUBACK by their time, and the packets that carry them; 0: free. */
static uint64_t samples[KEPT_SAMPLES];
static int sample_ids[KEPT_SAMPLES];
static int open_ids[OPEN_IDS];
static int sent_id;

static uint64_t real_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static uint64_t now_ms(void) {
  static uint64_t start;
  if (start == 0) start = real_ms() - 1;
  return (real_ms() - start) * speed;
}

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  if (mosquitto_publish(mq, &sent_id, topic, (int)n, payload, qos, false) != MOSQ_ERR_SUCCESS) return FP_SENT_NOT;
  if (qos == 0) return FP_SENT_DONE;
  for (int i = 0; i < OPEN_IDS; i++) {
    if (open_ids[i] == 0) {
      open_ids[i] = sent_id;
      return FP_SENT_OPEN;
    }
  }
  return FP_SENT_DONE;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  return mosquitto_subscribe(mq, NULL, filter, qos) == MOSQ_ERR_SUCCESS;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  if (is_written[slot]) memcpy(record, flash[slot], n);
  return is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  memcpy(flash[slot], record, n);
  is_written[slot] = true;
  return true;
}

static bool keep_key(void *ctx, unsigned slot, const char *user, const char *key) {
  (void)ctx;
  strcpy(users[slot], user);
  strcpy(keys[slot], key);
  return true;
}

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  if (!fp_eq(cmd->name, "relay")) return FP_ST_NO;
  fp_add_bool(result, "on", true);
  return FP_ST_OK;
}

static bool config(void *ctx, fp_span cfg, fp_w *report) {
  (void)ctx;
  (void)cfg;
  (void)report;
  return true;
}

static void restart(void *ctx) {
  (void)ctx;
  longjmp(reset_vector, 1);
}

static const fp_port port = {
    .publish = publish, .subscribe = subscribe, .load = load, .save = save,
    .command = command, .config = config, .keep_key = keep_key, .restart = restart};
static fp_about about = {.fw = "1.0.0", .hw = "host", .mps = 512, .qos = 1};

static void on_connect(struct mosquitto *client, void *ctx, int code) {
  (void)client;
  (void)ctx;
  connack = code;
  if (code == 0) fp_on_connected(&fp, now_ms());
}

static void on_disconnect(struct mosquitto *client, void *ctx, int code) {
  (void)client;
  (void)ctx;
  (void)code;
  is_over = 1;
}

static void on_message(struct mosquitto *client, void *ctx, const struct mosquitto_message *m) {
  (void)client;
  (void)ctx;
  /* What does not fit the buffer of a board is dropped. */
  if (strlen(m->topic) + (size_t)m->payloadlen + 7 > about.mps) return;
  fp_on_message(&fp, now_ms(), m->topic, m->payload, (size_t)m->payloadlen);
}

static void on_publish(struct mosquitto *client, void *ctx, int id) {
  (void)client;
  (void)ctx;
  for (int i = 0; i < OPEN_IDS; i++) {
    if (open_ids[i] != id) continue;
    open_ids[i] = 0;
    fp_on_puback(&fp);
  }
  for (int i = 0; i < KEPT_SAMPLES; i++) {
    if (samples[i] != 0 && sample_ids[i] == id) samples[i] = 0;
  }
}

/* Sends what was not sent over this connection. */
static void send_samples(void) {
  for (int i = 0; i < KEPT_SAMPLES; i++) {
    if (samples[i] == 0 || sample_ids[i] != 0) continue;
    char payload[64];
    int n = snprintf(payload, sizeof payload, "{\"ts\":%llu,\"temp\":21.5}", (unsigned long long)samples[i]);
    if (fp_publish(&fp, FP_TOPIC_DATA, payload, (size_t)n, 1)) sample_ids[i] = sent_id;
  }
}

static void take_sample(void) {
  static uint64_t due;
  if (real_ms() < due || fp_clock_ms(&fp, now_ms()) == 0) return;
  due = real_ms() + SAMPLE_EVERY;
  for (int i = 0; i < KEPT_SAMPLES; i++) {
    if (samples[i] != 0) continue;
    samples[i] = fp_clock_ms(&fp, now_ms());
    sample_ids[i] = 0;
    return;
  }
}

static void one_connection(const char *host, int port_number) {
  unsigned slot = keys[fp.key_slot][0] ? fp.key_slot : fp.key_slot ^ 1;
  mq = mosquitto_new("fp", true, NULL);
  mosquitto_username_pw_set(mq, users[slot], keys[slot]);
  if (ca != NULL) mosquitto_tls_set(mq, ca, NULL, NULL, NULL, NULL);
  mosquitto_connect_callback_set(mq, on_connect);
  mosquitto_disconnect_callback_set(mq, on_disconnect);
  mosquitto_message_callback_set(mq, on_message);
  mosquitto_publish_callback_set(mq, on_publish);
  memset(open_ids, 0, sizeof open_ids);
  memset(sample_ids, 0, sizeof sample_ids);
  connack = is_over = sleeps = 0;
  if (mosquitto_connect(mq, host, port_number, 60) != MOSQ_ERR_SUCCESS) is_over = 1;
  while (!is_over && mosquitto_loop(mq, 5, 1) == MOSQ_ERR_SUCCESS && connack == 0) {
    fp_tick(&fp, now_ms());
    take_sample();
    if (fp.is_greeted) send_samples();
    if (about.sleep_s > 0 && fp_can_sleep(&fp, now_ms())) {
      mosquitto_disconnect(mq);
      sleeps = 1;
      return;
    }
    if (fp_wants_reconnect(&fp)) {
      mosquitto_disconnect(mq);
      return;
    }
  }
}

/* What a board does when it wakes from deep sleep, or boots: memory is new. */
static void wake(bool is_boot) {
  fp_init(&fp, &port, &about);
  fp_buffers(&fp, rx, sizeof rx, tx, sizeof tx);
  fp_begin(&fp, now_ms(), is_boot);
}

int main(int argc, char **argv) {
  if (argc != 6 && argc != 7) return 64;
  if (strlen(argv[3]) != FP_KEY_CHARS) return 64;
  strcpy(keys[0], argv[3]);
  ca = argc == 7 ? argv[6] : NULL;
  about.sleep_s = (uint32_t)atoi(argv[5]);
  speed = (unsigned)atoi(argv[4]);
  mosquitto_lib_init();
  /* The same in each run, so that no run meets waits that only look regular. */
  srand(7);
  if (setjmp(reset_vector) != 0) mosquitto_destroy(mq);
  wake(true);
  for (;;) {
    one_connection(argv[1], atoi(argv[2]));
    if (connack == 0 && fp.is_connected) fp_on_disconnected(&fp);
    else fp_on_refused(&fp, (uint8_t)connack);
    mosquitto_destroy(mq);
    uint32_t wait = sleeps ? about.sleep_s * 1000 : fp_retry_ms(&fp, (uint32_t)rand() * 2u);
    wait /= speed;
    struct timespec t = {wait / 1000, (long)(wait % 1000) * 1000000};
    nanosleep(&t, NULL);
    if (sleeps) wake(false);
  }
}
