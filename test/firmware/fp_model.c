/* Commands between a broker that never forgets and a board that loses power at any step: fp_model RUNS SEED
 * before|after. The broker is the reference: it keeps the queue, moves it on with the first answer, and says
 * what was executed how often. Prints what was counted; exit status 1 when something does not hold. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../firmware-protocol/src/fp.h"

enum { COMMANDS = 5 };

static jmp_buf power;
static bool is_faulty;
static uint32_t seed;
static bool is_save_after;

/* The broker. */
static uint32_t head;              /* index of the command in the slot; COMMANDS: none */
static uint32_t ids[COMMANDS];
static char reported[COMMANDS][4]; /* st of the first answer */
static bool is_greeting_due, is_slot_due;

/* What the board did. */
static uint32_t effects[COMMANDS];
static uint32_t crashes_of[COMMANDS];
static uint32_t last_effect;
static bool is_order_broken;

/* The board. */
static unsigned char slots[2][sizeof(fp_kept)];
static bool is_written[2];
static fp_client client;
static uint32_t now;

static unsigned long crashes, lost, repeated, unknown, executed;

static uint32_t roll(uint32_t sides) {
  seed = seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)(seed >> 1) * sides) >> 31);
}

/* A step at which power may be lost. */
static void step(void) {
  if (is_faulty && roll(20) == 0) {
    crashes++;
    if (head < COMMANDS) crashes_of[head]++;
    longjmp(power, 1);
  }
}

static uint32_t index_of(uint32_t id) {
  uint32_t at = 0;
  while (at < COMMANDS && ids[at] != id) at++;
  return at;
}

static void hear_ack(const char *payload, size_t n) {
  fp_span whole = {payload, n}, v;
  uint32_t id = 0;
  fp_get(whole, "id", &v);
  fp_u32(v, &id);
  uint32_t at = index_of(id);
  if (at != head) {
    repeated++;
    return;
  }
  fp_get(whole, "st", &v);
  fp_str(v, reported[at], sizeof reported[at]);
  head++;
  is_slot_due = true;
}

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  (void)qos;
  step();
  if (is_faulty && roll(10) == 0) return FP_SENT_NOT;
  bool is_lost = is_faulty && roll(3) == 0;
  lost += is_lost;
  if (!is_lost && strcmp(topic, FP_TOPIC_ACK) == 0) hear_ack(payload, n);
  if (!is_lost && strcmp(topic, FP_TOPIC_HELLO) == 0) is_greeting_due = true;
  step();
  return FP_SENT_DONE;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  (void)filter;
  (void)qos;
  step();
  is_greeting_due = is_slot_due = true;
  return true;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  memcpy(record, slots[slot], n);
  return is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  step();
  if (is_faulty && roll(25) == 0) return false;
  is_written[slot] = true;
  memcpy(slots[slot], record, n / 4 * roll(5));
  step();
  memcpy(slots[slot], record, n);
  step();
  return true;
}

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  step();
  uint32_t at = index_of(cmd->id);
  effects[at]++;
  executed++;
  if (at + 1 < last_effect) is_order_broken = true;
  last_effect = at + 1;
  step();
  fp_add_int(result, "n", cmd->id);
  return FP_ST_OK;
}

static bool save_after(void *ctx, const fp_cmd *cmd) {
  (void)ctx;
  (void)cmd;
  return is_save_after;
}

static const fp_port PORT = {NULL, publish, subscribe, load, save, command, save_after, NULL, NULL, NULL, NULL};
static const fp_about ABOUT = {"1", NULL, NULL, NULL, NULL, NULL, 256, 0, 1, false};

static void deliver(const char *topic, const char *payload) {
  if (is_faulty && roll(3) == 0) return;
  unsigned times = is_faulty && roll(5) == 0 ? 2 : 1;
  while (times--) fp_on_message(&client, now, topic, payload, strlen(payload));
}

static void be_broker(void) {
  char payload[128];
  if (is_greeting_due) {
    snprintf(payload, sizeof payload, "{\"ts\":1795235431857,\"cmd\":%u,\"cfg\":0}", (unsigned)(COMMANDS - head));
    is_greeting_due = false;
    deliver(FP_TOPIC_IN_HELLO, payload);
  }
  if (!is_slot_due) return;
  is_slot_due = false;
  payload[0] = 0;
  if (head < COMMANDS)
    snprintf(payload, sizeof payload, "{\"id\":%u,\"cmd\":\"relay\",\"args\":{\"on\":true},\"n\":%u,\"exp\":4000000000}",
             (unsigned)ids[head], (unsigned)(COMMANDS - head));
  deliver(FP_TOPIC_IN_CMD, payload);
}

static void boot(void) {
  static char rx[256], tx[256];
  fp_init(&client, &PORT, &ABOUT);
  fp_buffers(&client, rx, sizeof rx, tx, sizeof tx);
  fp_begin(&client, now, true);
  fp_on_connected(&client, now);
}

/* One life of five commands. Returns whether the board may sleep at the end. */
static bool live(void) {
  volatile uint32_t turn = 0;
  head = 0;
  last_effect = 0;
  memset(effects, 0, sizeof effects);
  memset(crashes_of, 0, sizeof crashes_of);
  memset(reported, 0, sizeof reported);
  memset(slots, 0, sizeof slots);
  memset(is_written, 0, sizeof is_written);
  for (uint32_t i = 0; i < COMMANDS; i++) ids[i] = (i ? ids[i - 1] : 1795235440) + 1 + roll(3);
  is_faulty = true;
  now = roll(1000);
  setjmp(power);
  for (bool is_booting = true; turn < 400; turn++, now += 20) {
    if (is_booting) boot();
    is_booting = false;
    /* Links break: retained messages come again. At the end nothing is faulty any more. */
    is_faulty = turn < 300;
    if (turn == 300 || (is_faulty && roll(15) == 0)) {
      fp_on_disconnected(&client);
      fp_on_connected(&client, now);
    }
    if (turn == 350) now += 1000;
    be_broker();
    fp_tick(&client, now);
  }
  return fp_can_sleep(&client, client.begun_at + 1);
}

static const char *fault_of(void) {
  if (head != COMMANDS) return "a queue stood still";
  if (is_order_broken) return "executed out of order";
  for (uint32_t i = 0; i < COMMANDS; i++) {
    bool is_ok = strcmp(reported[i], "ok") == 0;
    bool is_dup = strcmp(reported[i], "dup") == 0;
    unknown += is_dup;
    if (is_ok && effects[i] == 0) return "reported ok, and never executed";
    if (is_dup && crashes_of[i] == 0) return "outcome unknown without a crash";
    if (effects[i] > 1 && (!is_save_after || crashes_of[i] == 0)) return "executed twice";
    if (is_save_after && is_dup) return "outcome unknown although saved after";
  }
  return NULL;
}

int main(int argc, char **argv) {
  if (argc != 4) return 64;
  seed = (uint32_t)strtoul(argv[2], NULL, 10);
  is_save_after = strcmp(argv[3], "after") == 0;
  long runs = strtol(argv[1], NULL, 10);
  unsigned long awake = 0;
  for (long run = 0; run < runs; run++) {
    uint32_t from = seed;
    awake += !live();
    const char *fault = fault_of();
    if (fault) {
      printf("run %ld from seed %u: %s\n", run, (unsigned)from, fault);
      return 1;
    }
  }
  printf("{\"runs\":%ld,\"executed\":%lu,\"crashes\":%lu,\"lost\":%lu,\"repeated\":%lu,\"unknown\":%lu,\"awake\":%lu}\n",
         runs, executed, crashes, lost, repeated, unknown, awake);
  return 0;
}
