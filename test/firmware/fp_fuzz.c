/* libFuzzer target: a client between a broker that sends anything, in any pieces, a storage that tears and
 * a network that fails. What must hold whatever comes is checked with abort(). */
#include <stdlib.h>
#include <string.h>

#include "../../firmware-protocol/src/fp.h"

static unsigned char slots[2][sizeof(fp_kept)];
static bool is_written[2];
static uint32_t dice;
static uint32_t executed;
static fp_client client;

static uint32_t roll(void) {
  dice = dice * 1664525u + 1013904223u;
  return dice >> 16;
}

static void read_everything(fp_span v) {
  fp_span inner;
  double number;
  int64_t whole;
  uint32_t small;
  bool is_true;
  char text[24];
  fp_bool(v, &is_true);
  fp_num(v, &number);
  fp_i64(v, &whole);
  fp_u32(v, &small);
  if (fp_str(v, text, sizeof text) && memchr(text, 0, sizeof text) == NULL) abort();
  fp_eq(v, "relay");
  if (fp_at(v, 1, &inner) && (inner.p < v.p || inner.p + inner.n > v.p + v.n)) abort();
  if (fp_get(v, "a", &inner)) {
    if (inner.p < v.p || inner.p + inner.n > v.p + v.n) abort();
    fp_num(inner, &number);
    fp_str(inner, text, sizeof text);
  }
}

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  (void)topic;
  fp_span whole = {payload, n};
  if (!fp_json_ok(whole)) abort();
  uint32_t fate = roll() % 4;
  return fate == 0 ? FP_SENT_NOT : qos && fate == 1 ? FP_SENT_OPEN : FP_SENT_DONE;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  (void)filter;
  (void)qos;
  return roll() % 4 != 0;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  memcpy(record, slots[slot], n);
  return is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  uint32_t fate = roll() % 8;
  is_written[slot] = true;
  memcpy(slots[slot], record, fate == 0 ? n / 2 : n);
  return fate != 0;
}

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  if (cmd->id <= executed) abort();
  executed = cmd->id;
  read_everything(cmd->args);
  read_everything(cmd->name);
  fp_add_str(result, "name", "x");
  if (roll() % 2) fp_add_raw(result, "args", cmd->args);
  if (roll() % 8 == 0) fp_obj(result, "open");
  if (roll() % 4 == 0) fp_fail(result, "valve", "stuck \"fast\"");
  return (fp_st)(roll() % 5);
}

static bool config(void *ctx, fp_span cfg, fp_w *report) {
  (void)ctx;
  read_everything(cfg);
  fp_add_raw(report, "all", cfg);
  return roll() % 2;
}

static void refused(void *ctx, fp_span code, fp_span channel, fp_span msg) {
  (void)ctx;
  read_everything(code);
  read_everything(channel);
  read_everything(msg);
}

static bool keep_key(void *ctx, unsigned slot, const char *user, const char *key) {
  (void)ctx;
  if (slot > 1 || strlen(user) > FP_USER_MAX || !fp_key_ok(key)) abort();
  return roll() % 2;
}

static const fp_port PORT = {NULL, publish, subscribe, load, save, command, NULL, config, refused, keep_key, NULL};
static const fp_about ABOUT = {"1.0", "valid", "m", "esp32", "sw", "{\"t\":\"Cel\"}", 256, 60, 1, true};

static void write_everything(const unsigned char *bytes, size_t n) {
  char text[64], buffer[1024];
  double number = 0;
  fp_w w;
  memcpy(&number, bytes, n < sizeof number ? n : sizeof number);
  size_t length = n < sizeof text - 1 ? n : sizeof text - 1;
  memcpy(text, bytes, length);
  text[length] = 0;
  fp_w_init(&w, buffer, sizeof buffer);
  fp_obj(&w, NULL);
  fp_add_num(&w, "n", number);
  fp_add_str(&w, text, text);
  fp_obj_end(&w);
  size_t end = fp_w_end(&w);
  fp_span whole = {buffer, end};
  if (end == 0 || !fp_json_ok(whole)) abort();
  /* Each smaller buffer is full, and nothing is written behind it. */
  size_t capacity = roll() % (end + 1);
  memset(buffer, '#', sizeof buffer);
  fp_w_init(&w, buffer, capacity);
  fp_obj(&w, NULL);
  fp_add_num(&w, "n", number);
  fp_add_str(&w, text, text);
  fp_obj_end(&w);
  if (fp_w_end(&w) != 0 || buffer[capacity] != '#') abort();
}

static const char *const TOPICS[] = {FP_TOPIC_IN_CMD, FP_TOPIC_IN_CFG, FP_TOPIC_IN_HELLO,
                                     FP_TOPIC_IN_ERR, FP_TOPIC_IN_KEY, "v1/me/in/other"};

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n);
int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t n) {
  static char rx[128], tx[160];
  uint32_t now = 1;
  dice = (uint32_t)n * 2654435761u + (n ? bytes[0] : 0);
  executed = 0;
  memset(slots, 0, sizeof slots);
  memset(is_written, 0, sizeof is_written);
  fp_span all = {(const char *)bytes, n};
  fp_json_ok(all);
  read_everything(all);
  if (n > 0) write_everything(bytes, n);
  fp_init(&client, &PORT, &ABOUT);
  fp_buffers(&client, rx, sizeof rx, tx, sizeof tx);
  fp_begin(&client, now, true);
  fp_on_connected(&client, now);
  while (n > 2) {
    /* One byte says what happens, one how much follows. */
    size_t length = bytes[1] < n - 2 ? bytes[1] : n - 2;
    unsigned topic = bytes[0] % 6;
    /* The heap, so that a byte read behind the end is found. */
    char *payload = malloc(length + 1);
    memcpy(payload, bytes + 2, length);
    fp_span name = {TOPICS[topic], strlen(TOPICS[topic])};
    size_t cut = bytes[0] & 64 ? roll() % (length + 1) : length;
    char *first = malloc(cut + 1), *second = malloc(length - cut + 1);
    memcpy(first, payload, cut);
    memcpy(second, payload + cut, length - cut);
    fp_span piece = {first, cut}, rest = {second, length - cut};
    fp_on_part(&client, now, name, piece, 0, length);
    if (bytes[0] & 32) fp_tick(&client, now);
    if (cut < length) fp_on_part(&client, now, name, rest, cut, length);
    if (bytes[0] & 128) fp_tick(&client, now += 1500);
    if (roll() % 16 == 0) fp_claim(&client);
    if (roll() % 8 == 0) fp_on_puback(&client);
    if (roll() % 16 == 0) {
      fp_on_disconnected(&client);
      fp_on_connected(&client, now);
    }
    if (client.cmd_n + client.cfg_n > sizeof rx) abort();
    fp_can_sleep(&client, now);
    fp_tick(&client, now += 10);
    free(payload);
    free(first);
    free(second);
    bytes += length + 2;
    n -= length + 2;
  }
  return 0;
}
