/* Facts of the core without its client loop: linked with fp.c only. Prints one line for each, and exits with 1 when
 * one does not hold. */
#include <stdio.h>
#include <string.h>

#include "../../firmware-protocol/src/fp.h"

static int failures;
static char sent[200], seen[64];
static unsigned executed;
static fp_sent fate = FP_SENT_DONE;
static unsigned char slots[2][sizeof(fp_kept)];
static bool is_written[2];

static void check(bool holds, const char *fact, const char *given) {
  failures += !holds;
  printf("%s %s%s%s\n", holds ? "ok" : "not ok", fact, holds ? "" : ": ", holds ? "" : given);
}

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  (void)qos;
  if (fate != FP_SENT_NOT) snprintf(sent, sizeof sent, "%s %.*s", topic, (int)n, payload);
  return fate;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  memcpy(record, slots[slot], n);
  return is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  memcpy(slots[slot], record, n);
  is_written[slot] = true;
  return true;
}

static fp_st execute(fp_client *c, const fp_cmd *cmd, fp_w *result) {
  fp_span text;
  (void)c;
  executed++;
  if (!fp_get(cmd->args, "text", &text) || !fp_str(text, seen, sizeof seen)) return FP_ST_NO;
  fp_add_str(result, "text", seen);
  return FP_ST_OK;
}

static const fp_port PORT = {.publish = publish, .load = load, .save = save};
static const fp_about ABOUT = {.qos = 1};

static fp_span span(const char *text) {
  fp_span v = {text, strlen(text)};
  return v;
}

int main(void) {
  static char tx[256];
  static fp_client c;
  fp_span slot = span("{\"id\":5,\"cmd\":\"say\",\"args\":{\"text\":\"\\ud83d\\ude00\"},\"n\":1,\"exp\":1795239040}");
  fp_init(&c, &PORT, &ABOUT);
  fp_buffers(&c, NULL, 0, tx, sizeof tx);
  fp_begin(&c, 100, true);
  fp_on_connected(&c, 100);
  check(!fp_clock_set(&c, 100, span("{\"ts\":true}")) && fp_clock_ms(&c, 100) == 0, "no clock comes of nonsense", "");
  fp_clock_set(&c, 100, span("{\"ts\":1795235431857}"));
  check(fp_clock_ms(&c, 150) == 1795235431907, "a greeting sets the clock", "");
  fate = FP_SENT_NOT;
  check(!fp_obey(&c, 150, slot, execute) && executed == 1, "an answer that was not taken is open", sent);
  fate = FP_SENT_DONE;
  check(fp_answer(&c) && strcmp(sent, "v1/me/ack {\"id\":5,\"st\":\"ok\"}") == 0, "it is said again", sent);
  check(strcmp(seen, "\xf0\x9f\x98\x80") == 0, "a pair of escaped surrogates is one character", seen);
  fp_init(&c, &PORT, &ABOUT);
  fp_buffers(&c, NULL, 0, tx, sizeof tx);
  fp_begin(&c, 10, true);
  fp_on_connected(&c, 10);
  check(!fp_obey(&c, 20, slot, execute) && executed == 1, "L-12 after a reset it is not executed again", "");
  return failures ? 1 : 0;
}
