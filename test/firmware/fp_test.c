/* Facts of the core that need no other program: fp_test prints one line for each and exits with 1 when one
 * does not hold. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../firmware-protocol/src/fp.h"

static int failures;
static const char *fact;

static void check(bool holds, int at, const char *what) {
  if (holds) return;
  failures++;
  printf("not ok %s, line %d: %s\n", fact, at, what);
}
#define CHECK(holds) check(holds, __LINE__, #holds)
#define CHECK_TEXT(given, wanted) check(strcmp(given, wanted) == 0, __LINE__, given)

/* ---- a board and what it is connected to ------------------------------------------------------------ */

static fp_client c;
static char rx[256], tx[256];
static char sent[16][300];     /* "topic payload" */
static unsigned sent_count, subscribed;
static fp_sent fate;           /* of publishes */
static unsigned char slots[2][sizeof(fp_kept)];
static bool is_written[2];
static unsigned saves, saves_left;
static char order[64];         /* what happened: s save, x execute, a ack */
static unsigned executed;
static fp_st outcome;
static void (*during)(fp_w *w);
static char seen[300];         /* last arguments, configuration, refusal or key */
static bool is_applied;
static bool is_after;
static unsigned restarts;
static uint32_t kept_slot;

static void note(char what) {
  size_t n = strlen(order);
  if (n + 1 < sizeof order) order[n] = what;
}

static fp_sent publish(void *ctx, const char *topic, const char *payload, size_t n, int qos) {
  (void)ctx;
  (void)qos;
  if (fate == FP_SENT_NOT) return fate;
  snprintf(sent[sent_count++ % 16], sizeof sent[0], "%s %.*s", topic, (int)n, payload);
  if (strcmp(topic, FP_TOPIC_ACK) == 0) note('a');
  return fate;
}

static bool subscribe(void *ctx, const char *filter, int qos) {
  (void)ctx;
  subscribed += strcmp(filter, "v1/me/in/+") == 0 && qos == 1;
  return true;
}

static bool load(void *ctx, unsigned slot, void *record, size_t n) {
  (void)ctx;
  memcpy(record, slots[slot], n);
  return is_written[slot];
}

static bool save(void *ctx, unsigned slot, const void *record, size_t n) {
  (void)ctx;
  if (saves_left == 0) return false;
  saves_left--;
  saves++;
  note('s');
  is_written[slot] = true;
  memcpy(slots[slot], record, n);
  return true;
}

static void see(fp_span v) { snprintf(seen, sizeof seen, "%.*s", (int)v.n, v.p); }

static fp_st command(void *ctx, const fp_cmd *cmd, fp_w *result) {
  (void)ctx;
  executed++;
  note('x');
  if (during) during(result);
  see(cmd->args);
  return outcome;
}

static bool save_after(void *ctx, const fp_cmd *cmd) {
  (void)ctx;
  (void)cmd;
  return is_after;
}

static bool config(void *ctx, fp_span cfg, fp_w *report) {
  (void)ctx;
  see(cfg);
  executed++;
  if (during) during(report);
  return is_applied;
}

static void refused(void *ctx, fp_span code, fp_span channel, fp_span msg) {
  (void)ctx;
  snprintf(seen, sizeof seen, "%.*s %.*s %.*s", (int)code.n, code.p, (int)channel.n, channel.p, (int)msg.n, msg.p);
}

static bool keep_key(void *ctx, unsigned slot, const char *user, const char *key) {
  (void)ctx;
  kept_slot = slot;
  snprintf(seen, sizeof seen, "%s %s", user, key);
  return true;
}

static bool is_restarting;
static jmp_buf power;

static void restart(void *ctx) {
  (void)ctx;
  restarts++;
  if (is_restarting) longjmp(power, 1);
}

static fp_port port = {NULL, publish, subscribe, load, save, command, save_after, config, refused, keep_key, restart};
static fp_about about = {"1.4.2", "valid", "thermo-1", "esp32c3", "poweron", "{\"temp\":\"Cel\"}", 256, 0, 1, false};

/* Loses power and starts again; what is saved stays. */
static void boot(void) {
  fp_init(&c, &port, &about);
  fp_buffers(&c, rx, sizeof rx, tx, sizeof tx);
  fp_begin(&c, 1000, true);
}

static void forget_sent(void) {
  sent_count = 0;
  memset(order, 0, sizeof order);
  memset(sent, 0, sizeof sent);
}

static void connect_at(uint32_t now) {
  fp_on_connected(&c, now);
  fp_tick(&c, now);
  forget_sent();
}

static void start(const char *what) {
  fact = what;
  memset(slots, 0, sizeof slots);
  memset(is_written, 0, sizeof is_written);
  saves = executed = subscribed = restarts = 0;
  saves_left = 1000;
  fate = FP_SENT_DONE;
  outcome = FP_ST_OK;
  during = NULL;
  is_applied = true;
  is_after = false;
  memset(seen, 0, sizeof seen);
  boot();
  connect_at(1000);
}

static void hear_at(uint32_t now, const char *topic, const char *payload) {
  fp_on_message(&c, now, topic, payload, strlen(payload));
}

static void hear(const char *topic, const char *payload) { hear_at(2000, topic, payload); }

static void obey(const char *slot) {
  hear(FP_TOPIC_IN_CMD, slot);
  fp_tick(&c, 2000);
}

/* ---- connection and clock --------------------------------------------------------------------------- */

static void greets(void) {
  start("connecting subscribes once and says hello");
  fp_on_connected(&c, 1200);
  fp_tick(&c, 1234);
  fp_tick(&c, 1235);
  CHECK(subscribed == 2 && sent_count == 1);
  CHECK_TEXT(sent[0],
             "v1/me/hello {\"p\":1,\"up\":1234,\"sleep\":0,\"mps\":256,\"boot\":1,\"fw\":\"1.4.2\",\"ota\":\"valid\","
             "\"mdl\":\"thermo-1\",\"hw\":\"esp32c3\",\"rst\":\"poweron\",\"u\":{\"temp\":\"Cel\"}}");
  boot();
  fp_on_connected(&c, 1200);
  forget_sent();
  fp_tick(&c, 1200);
  CHECK(strstr(sent[0], "\"boot\":2") != NULL);
}

static void says_what_fits(void) {
  start("hello leaves out what does not fit the client's buffer");
  static const char LONG[] = "a model with a name that is longer than anybody would want to type or to send";
  const char *mdl = about.mdl;
  about.mdl = LONG;
  about.mps = 150;
  connect_at(1000);
  fp_hello(&c);
  fp_tick(&c, 1100);
  CHECK(strlen(sent[0]) <= sizeof FP_TOPIC_HELLO + 150 - 24);
  CHECK(strstr(sent[0], "mdl") == NULL && strstr(sent[0], "\"rst\":\"poweron\"") != NULL);
  about.mps = 64;
  forget_sent();
  fp_hello(&c);
  fp_tick(&c, 1100);
  CHECK_TEXT(sent[0], "v1/me/hello {\"p\":1,\"up\":1100,\"sleep\":0,\"mps\":64}");
  about.mdl = mdl;
  about.mps = 256;
}

static void keeps_time(void) {
  start("the clock is the server's time plus half of the round trip");
  CHECK(fp_clock_ms(&c, 1500) == 0);
  hear_at(1400, FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":1000,\"cmd\":0,\"cfg\":0}");
  CHECK(fp_clock_ms(&c, 1400) == 1795235432057);
  CHECK(fp_clock_ms(&c, 2400) == 1795235433057);
  /* Not an echo: how long it was under way is unknown. */
  hear_at(9000, FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":17,\"cmd\":0,\"cfg\":0}");
  CHECK(fp_clock_ms(&c, 1400) == 1795235432057);
  fact = "the clock goes on when the uptime wraps";
  uint32_t now = 1400;
  for (int day = 0; day < 60; day++) fp_tick(&c, now += 86400000);
  CHECK(fp_clock_ms(&c, now) == 1795235432057 + 60ull * 86400000);
}

static void asks_again(void) {
  start("a greeting that does not come is asked for again after 30 s");
  fp_tick(&c, 30000);
  CHECK(sent_count == 0 && subscribed == 1);
  fp_tick(&c, 31000);
  CHECK(sent_count == 1 && subscribed == 2);
  fp_tick(&c, 32000);
  CHECK(sent_count == 1);
}

static void retries_what_was_not_taken(void) {
  start("what the client does not take is published a second later");
  fate = FP_SENT_NOT;
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{}}");
  CHECK(executed == 1 && sent_count == 0);
  fp_tick(&c, 2100);
  fate = FP_SENT_DONE;
  fp_tick(&c, 2500);
  CHECK(sent_count == 0);
  fp_tick(&c, 3200);
  CHECK(sent_count == 1 && executed == 1);
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
}

static void counts_pubacks(void) {
  start("a publish at QoS 1 is open until its PUBACK");
  fate = FP_SENT_OPEN;
  CHECK(fp_publish(&c, FP_TOPIC_DATA, "{}", 2, 1) && c.unacked == 1);
  fp_on_puback(&c);
  fp_on_puback(&c);
  CHECK(c.unacked == 0);
}

static void is_quiet(void) {
  char buffer[64];
  fp_w w;
  start("nothing is sent for as long as in/err rate says");
  fp_w_init(&w, buffer, sizeof buffer);
  fp_obj(&w, NULL);
  fp_add_num(&w, "t", 21.5);
  fp_obj_end(&w);
  CHECK(fp_send(&c, 2000, &w, 0));
  CHECK_TEXT(sent[0], "v1/me/data {\"t\":21.5}");
  hear(FP_TOPIC_IN_ERR, "{\"code\":\"rate\",\"retry\":5000,\"msg\":\"slow down\"}");
  CHECK(!fp_send(&c, 6999, &w, 0) && fp_send(&c, 7000, &w, 0));
  CHECK_TEXT(seen, "\"rate\"  \"slow down\"");
}

/* ---- commands --------------------------------------------------------------------------------------- */

static void add_result(fp_w *w) { fp_add_bool(w, "on", true); }
static void add_failure(fp_w *w) { fp_fail(w, "valve", "stuck"); }
static void overflow(fp_w *w) {
  for (int i = 0; i < 100; i++) fp_add_int(w, "number", i);
}
static void leave_open(fp_w *w) { fp_obj(w, "open"); }
static void publish_inside(fp_w *w) {
  CHECK(fp_publish(&c, FP_TOPIC_DATA, "{\"t\":1}", 7, 0));
  fp_tick(&c, 2000);
  fp_add_int(w, "n", 1);
}
static void hear_inside(fp_w *w) {
  hear(FP_TOPIC_IN_CMD, "{\"id\":6,\"cmd\":\"other\",\"args\":{\"b\":2}}");
  fp_add_int(w, "n", 1);
}

static void executes(void) {
  start("L-12 a command is saved, executed, saved and answered, once");
  during = add_result;
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{\"on\":true},\"n\":2,\"exp\":1795239040}");
  CHECK_TEXT(order, "sxsa");
  CHECK_TEXT(sent[0], "v1/me/ack {\"r\":{\"on\":true},\"id\":5,\"st\":\"ok\"}");
  CHECK_TEXT(seen, "{\"on\":true}");
  CHECK(c.waiting == 2);
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{\"on\":true},\"n\":2,\"exp\":1795239040}");
  CHECK_TEXT(order, "sxsaa");
  CHECK_TEXT(sent[1], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
  fact = "L-12 the answer is the same after a reboot";
  boot();
  connect_at(1000);
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{\"on\":true}}");
  CHECK_TEXT(order, "a");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
  fact = "a command older than the last is not executed, and the last is named";
  obey("{\"id\":4,\"cmd\":\"relay\",\"args\":{}}");
  CHECK_TEXT(sent[1], "v1/me/ack {\"id\":4,\"st\":\"dup\",\"last\":5}");
  CHECK(executed == 1);
}

static void saves_after(void) {
  start("a command that may be repeated is saved after it was executed");
  is_after = true;
  obey("{\"id\":5,\"cmd\":\"set\",\"args\":{}}");
  CHECK_TEXT(order, "xsa");
}

static void fails(void) {
  start("a failure is told with its code, and again with it after a reboot");
  outcome = FP_ST_ERR;
  during = add_failure;
  obey("{\"id\":5,\"cmd\":\"valve\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"err\",\"code\":\"valve\",\"msg\":\"stuck\"}");
  boot();
  connect_at(1000);
  obey("{\"id\":5,\"cmd\":\"valve\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"err\",\"code\":\"valve\"}");
  fact = "an unknown command is answered no";
  outcome = FP_ST_NO;
  during = NULL;
  obey("{\"id\":6,\"cmd\":\"what\",\"args\":{}}");
  CHECK_TEXT(sent[1], "v1/me/ack {\"id\":6,\"st\":\"no\",\"code\":\"unknown\"}");
  fact = "a command without arguments gets an empty object";
  obey("{\"id\":7,\"cmd\":\"what\"}");
  CHECK_TEXT(seen, "{}");
}

static void expires(void) {
  start("L-10 an expired command is not executed, now or later");
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795239040000,\"up\":1000,\"cmd\":1,\"cfg\":0}");
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{},\"exp\":1795239040}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"no\",\"code\":\"expired\"}");
  boot();
  connect_at(1000);
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{},\"exp\":1795239040}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"no\",\"code\":\"expired\"}");
  CHECK(executed == 0);
  fact = "L-10 without a clock a command is executed";
  obey("{\"id\":6,\"cmd\":\"relay\",\"args\":{},\"exp\":1}");
  CHECK(executed == 1);
}

static void is_cut(void) {
  start("a slot that was cut off is not executed");
  char slot[] = "{\"id\":5,\"cmd\":\"relay\",\"args\":{\"on\":true},\"n\":1}";
  for (size_t n = 1; n < sizeof slot - 1; n++) {
    fp_on_message(&c, 2000, FP_TOPIC_IN_CMD, slot, n);
    fp_tick(&c, 2000);
  }
  CHECK(executed == 0 && sent_count == 0);
}

static void cannot_save(void) {
  start("a command that cannot be saved is not executed");
  saves_left = 0;
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"no\",\"code\":\"storage\"}");
  CHECK(executed == 0);
  saves_left = 1000;
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{}}");
  CHECK(executed == 1);
}

static void loses_record(void) {
  start("with a damaged record the first command is not executed, the next is");
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{}}");
  slots[0][9] ^= 1;
  slots[1][9] ^= 1;
  boot();
  connect_at(1000);
  CHECK(c.is_lost && c.kept.last == 0);
  obey("{\"id\":5,\"cmd\":\"relay\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"dup\",\"last\":5}");
  CHECK(executed == 1);
  obey("{\"id\":6,\"cmd\":\"relay\",\"args\":{}}");
  CHECK(executed == 2);
  fact = "a torn write leaves what was before it";
  memset(slots[(c.kept.generation & 1)] + 20, 0xff, 20);
  boot();
  CHECK(!c.is_lost && c.kept.last == 6 && c.kept.st == FP_ST_UNKNOWN);
  fact = "storage that was never written is no damage";
  memset(slots, 0xff, sizeof slots);
  boot();
  CHECK(!c.is_lost && c.kept.last == 0 && c.kept.boot == 1);
}

static void runs(void) {
  char buffer[64];
  fp_w w;
  start("a command that runs is answered twice and keeps the board awake");
  outcome = FP_ST_RUN;
  obey("{\"id\":5,\"cmd\":\"fill\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"run\"}");
  CHECK(!fp_can_sleep(&c, 100000));
  CHECK(fp_progress(&c, 5, 40));
  CHECK_TEXT(sent[1], "v1/me/ack {\"pct\":40,\"id\":5,\"st\":\"run\"}");
  fp_result(&w, buffer, sizeof buffer);
  fp_add_num(&w, "litres", 2.5);
  CHECK(fp_done(&c, 5, FP_ST_OK, &w));
  CHECK_TEXT(sent[2], "v1/me/ack {\"r\":{\"litres\":2.5},\"id\":5,\"st\":\"ok\"}");
  CHECK(fp_can_sleep(&c, 100000));
  obey("{\"id\":5,\"cmd\":\"fill\",\"args\":{}}");
  CHECK_TEXT(sent[3], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
  fact = "the outcome of a command that ran into a reset is unknown";
  obey("{\"id\":6,\"cmd\":\"fill\",\"args\":{}}");
  boot();
  connect_at(1000);
  obey("{\"id\":6,\"cmd\":\"fill\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":6,\"st\":\"dup\",\"last\":6}");
}

static void trims_results(void) {
  start("a result that does not fit, or is no JSON, is left out");
  during = overflow;
  obey("{\"id\":5,\"cmd\":\"a\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
  during = leave_open;
  obey("{\"id\":6,\"cmd\":\"a\",\"args\":{}}");
  CHECK_TEXT(sent[1], "v1/me/ack {\"id\":6,\"st\":\"ok\"}");
}

static void is_reentered(void) {
  start("a handler may publish, and tick, and hear");
  during = publish_inside;
  obey("{\"id\":5,\"cmd\":\"a\",\"args\":{\"a\":1}}");
  CHECK_TEXT(seen, "{\"a\":1}");
  CHECK_TEXT(sent[1], "v1/me/ack {\"r\":{\"n\":1},\"id\":5,\"st\":\"ok\"}");
  during = hear_inside;
  unsigned before = subscribed;
  obey("{\"id\":6,\"cmd\":\"a\",\"args\":{\"a\":2}}");
  CHECK_TEXT(seen, "{\"a\":2}");
  fact = "what came meanwhile comes again with a subscription";
  CHECK(executed == 2 && subscribed == before + 1);
}

static void empties(void) {
  start("an empty slot says that nothing waits, and takes back what was not begun");
  hear(FP_TOPIC_IN_CMD, "{\"id\":5,\"cmd\":\"a\",\"args\":{},\"n\":3}");
  CHECK(c.waiting > 0);
  obey("");
  CHECK(c.waiting == 0 && executed == 0);
}

static void obeys_system(void) {
  start("sys.hello brings a hello");
  obey("{\"id\":5,\"cmd\":\"sys.hello\",\"args\":{}}");
  CHECK(sent_count == 2 && strstr(sent[1], FP_TOPIC_HELLO) != NULL);
  fact = "sys.reboot is answered by the board that has restarted";
  is_restarting = true;
  if (setjmp(power) == 0) obey("{\"id\":6,\"cmd\":\"sys.reboot\",\"args\":{}}");
  is_restarting = false;
  CHECK(restarts == 1 && sent_count == 2);
  boot();
  connect_at(1000);
  obey("{\"id\":6,\"cmd\":\"sys.reboot\",\"args\":{}}");
  CHECK(restarts == 1);
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":6,\"st\":\"ok\"}");
  fact = "sys.reboot is not executed by the core when nothing is saved: it would come again for ever";
  start(fact);
  port.save = NULL;
  obey("{\"id\":6,\"cmd\":\"sys.reboot\",\"args\":{}}");
  CHECK(restarts == 0 && executed == 1);
  port.save = save;
  fact = "sys.reboot fails when the board is still there";
  start(fact);
  obey("{\"id\":6,\"cmd\":\"sys.reboot\",\"args\":{}}");
  CHECK_TEXT(sent[0], "v1/me/ack {\"id\":6,\"st\":\"err\"}");
}

/* ---- sleep ------------------------------------------------------------------------------------------ */

static void sleeps(void) {
  about.sleep_s = 3600;
  start("a board sleeps when it is greeted and nothing waits");
  CHECK(!fp_can_sleep(&c, 1500));
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":1000,\"cmd\":0,\"cfg\":0}");
  CHECK(fp_can_sleep(&c, 2000));
  fact = "not while a PUBACK is missing";
  fate = FP_SENT_OPEN;
  fp_publish(&c, FP_TOPIC_DATA, "{}", 2, 1);
  CHECK(!fp_can_sleep(&c, 2000));
  fp_on_puback(&c);
  CHECK(fp_can_sleep(&c, 2000));
  fate = FP_SENT_DONE;
  fact = "not while a command waits, until the slot is empty";
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":1000,\"cmd\":1,\"cfg\":0}");
  CHECK(!fp_can_sleep(&c, 2000));
  obey("{\"id\":5,\"cmd\":\"a\",\"args\":{},\"n\":1}");
  CHECK(!fp_can_sleep(&c, 2000));
  obey("");
  CHECK(fp_can_sleep(&c, 2000));
  fact = "not before the configuration that is wanted was seen";
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":1000,\"cmd\":0,\"cfg\":7}");
  CHECK(!fp_can_sleep(&c, 2000));
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{}}");
  fp_tick(&c, 2000);
  CHECK(fp_can_sleep(&c, 2000));
  start("without a greeting it sleeps after 3 s");
  CHECK(!fp_can_sleep(&c, 3999) && fp_can_sleep(&c, 4000));
  fact = "and in any case after 10 s";
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"up\":1000,\"cmd\":1,\"cfg\":0}");
  CHECK(!fp_can_sleep(&c, 10999) && fp_can_sleep(&c, 11000));
  fp_on_disconnected(&c);
  CHECK(!fp_can_sleep(&c, 10999) && fp_can_sleep(&c, 11000));
  about.sleep_s = 0;
}

/* ---- configuration ---------------------------------------------------------------------------------- */

static void configures(void) {
  start("a configuration is applied once and reported each time");
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{\"every\":60}}");
  fp_tick(&c, 2000);
  CHECK_TEXT(seen, "{\"every\":60}");
  CHECK_TEXT(sent[0], "v1/me/cfg {\"v\":7,\"ok\":true}");
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{\"every\":60}}");
  fp_tick(&c, 2000);
  CHECK(executed == 1 && sent_count == 2);
  CHECK_TEXT(sent[1], "v1/me/cfg {\"v\":7,\"ok\":true}");
  fact = "and again after a boot, unless the application keeps it";
  boot();
  connect_at(1000);
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{\"every\":60}}");
  fp_tick(&c, 2000);
  CHECK(executed == 2);
  about.keeps_config = true;
  boot();
  connect_at(1000);
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{\"every\":60}}");
  fp_tick(&c, 2000);
  CHECK(executed == 2 && sent_count == 1);
  about.keeps_config = false;
  fact = "one that is not applied says why, and with which values in effect";
  is_applied = false;
  during = add_failure;
  hear(FP_TOPIC_IN_CFG, "{\"v\":8,\"cfg\":{\"every\":1}}");
  fp_tick(&c, 2000);
  CHECK_TEXT(sent[1], "v1/me/cfg {\"v\":8,\"ok\":false,\"msg\":\"stuck\"}");
  is_applied = true;
  during = add_result;
  hear(FP_TOPIC_IN_CFG, "{\"v\":9,\"cfg\":{\"every\":1}}");
  fp_tick(&c, 2000);
  CHECK_TEXT(sent[2], "v1/me/cfg {\"cfg\":{\"on\":true},\"v\":9,\"ok\":true}");
}

static void crash(fp_w *w) {
  (void)w;
  longjmp(power, 1);
}

static void survives_config(void) {
  start("a configuration that resets the board is tried twice");
  during = crash;
  for (volatile unsigned attempt = 1; attempt <= 2; attempt++) {
    hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{}}");
    if (setjmp(power) == 0) fp_tick(&c, 2000);
    CHECK(executed == attempt);
    boot();
    connect_at(1000);
  }
  during = NULL;
  hear(FP_TOPIC_IN_CFG, "{\"v\":7,\"cfg\":{}}");
  fp_tick(&c, 2000);
  CHECK(executed == 2);
  CHECK_TEXT(sent[0], "v1/me/cfg {\"v\":7,\"ok\":false,\"msg\":\"reset\"}");
  hear(FP_TOPIC_IN_CFG, "{\"v\":8,\"cfg\":{}}");
  fp_tick(&c, 2000);
  CHECK(executed == 3);
}

/* ---- pieces ----------------------------------------------------------------------------------------- */

static void piece(const char *topic, const char *payload, size_t from, size_t to) {
  fp_span name = {topic, topic ? strlen(topic) : 0}, part = {payload + from, to - from};
  fp_on_part(&c, 2000, name, part, from, strlen(payload));
}

static void reassembles(void) {
  const char *slot = "{\"id\":5,\"cmd\":\"relay\",\"args\":{\"on\":true},\"n\":1}";
  size_t n = strlen(slot);
  start("F6 a payload in pieces is one payload, wherever it is cut");
  for (size_t cut = 1; cut < n; cut++) {
    start(fact);
    piece(FP_TOPIC_IN_CMD, slot, 0, cut);
    fp_tick(&c, 2000);
    piece(NULL, slot, cut, n);
    fp_tick(&c, 2000);
    CHECK(executed == 1 && strcmp(seen, "{\"on\":true}") == 0);
  }
  fact = "F6 a piece that is missing or out of order loses the message, and no more";
  start(fact);
  piece(FP_TOPIC_IN_CMD, slot, 0, 10);
  piece(NULL, slot, 20, n);
  piece(NULL, slot, 10, 20);
  fp_tick(&c, 2000);
  CHECK(executed == 0);
  obey(slot);
  CHECK(executed == 1);
  fact = "pieces of an unknown channel are ignored";
  piece("v1/me/in/new", slot, 0, 10);
  piece(NULL, slot, 10, n);
  fp_tick(&c, 2000);
  CHECK(executed == 1);
}

static void has_room(void) {
  char big[300];
  start("a message that never fits is counted, one that does not fit now comes again");
  memset(big, ' ', sizeof big);
  fp_on_message(&c, 2000, FP_TOPIC_IN_CMD, big, sizeof big);
  CHECK(c.too_big == 1 && c.due == 0);
  fp_on_message(&c, 2000, FP_TOPIC_IN_CFG, big, 200);
  fp_on_message(&c, 2000, FP_TOPIC_IN_CMD, big, 100);
  CHECK(c.cmd_n == 0 && c.due != 0);
  unsigned before = subscribed;
  fp_tick(&c, 2000);
  CHECK(subscribed == before + 1);
}

/* ---- keys ------------------------------------------------------------------------------------------- */

static const char *made_key;

static void rotates(void) {
  char answer[200];
  start("sys.rekey asks for a key, keeps it in the other slot and is done then");
  obey("{\"id\":5,\"cmd\":\"sys.rekey\",\"args\":{}}");
  fp_tick(&c, 2000);
  CHECK(sent_count == 1);
  CHECK_TEXT(sent[0], "v1/me/key {}");
  obey("{\"id\":5,\"cmd\":\"sys.rekey\",\"args\":{}}");
  CHECK(sent_count == 1);
  fact = "a lost answer is asked for again";
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"cmd\":0,\"cfg\":0}");
  fp_tick(&c, 32001);
  CHECK(sent_count == 2);
  snprintf(answer, sizeof answer, "{\"st\":\"ok\",\"user\":\"acme/a4\",\"key\":\"%.45sx\"}", made_key);
  hear(FP_TOPIC_IN_KEY, answer);
  fact = "a key with a typing error is not kept";
  CHECK(seen[0] == 0);
  snprintf(answer, sizeof answer, "{\"st\":\"ok\",\"user\":\"acme/a4\",\"key\":\"%s\"}", made_key);
  hear(FP_TOPIC_IN_KEY, answer);
  fact = "a key is kept in the other slot, and the command done then";
  CHECK(kept_slot == 1 && c.key_slot == 1 && strncmp(seen, "acme/a4 pbd_", 12) == 0);
  fp_tick(&c, 32002);
  CHECK_TEXT(sent[2], "v1/me/ack {\"id\":5,\"st\":\"ok\"}");
  CHECK(fp_wants_reconnect(&c));
  fact = "the connection to be given up is that of the old key, and not the next";
  fp_on_disconnected(&c);
  CHECK(!fp_wants_reconnect(&c));
  fact = "a key that is refused gives way to the one before it, and what is greeted stays";
  fp_on_refused(&c, 5);
  CHECK(c.key_slot == 0 && c.kept.key_slot == 1);
  boot();
  CHECK(c.key_slot == 1);
  fp_on_refused(&c, 4);
  connect_at(1000);
  CHECK(!fp_wants_reconnect(&c));
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"cmd\":0,\"cfg\":0}");
  boot();
  CHECK(c.key_slot == 0);
  fact = "a key that is denied fails the command with the reason";
  start(fact);
  obey("{\"id\":5,\"cmd\":\"sys.rekey\",\"args\":{}}");
  hear(FP_TOPIC_IN_KEY, "{\"st\":\"no\",\"code\":\"tls\"}");
  fp_tick(&c, 2000);
  CHECK_TEXT(sent[1], "v1/me/ack {\"id\":5,\"st\":\"err\",\"code\":\"tls\"}");
  fact = "a key that nobody asked for is ignored";
  connect_at(1000);
  seen[0] = 0;
  hear(FP_TOPIC_IN_KEY, answer);
  CHECK(seen[0] == 0);
}

static void claims(void) {
  start("a claim says the model, waits as long as it is told, and ends with no");
  fp_claim(&c);
  fp_tick(&c, 2000);
  CHECK_TEXT(sent[0], "v1/me/key {\"mdl\":\"thermo-1\"}");
  hear(FP_TOPIC_IN_KEY, "{\"st\":\"wait\",\"retry\":60}");
  fp_tick(&c, 61999);
  CHECK(sent_count == 1 || c.is_greeted == 0);
  forget_sent();
  fp_tick(&c, 62000);
  CHECK_TEXT(sent[0], "v1/me/key {\"mdl\":\"thermo-1\"}");
  hear(FP_TOPIC_IN_KEY, "{\"st\":\"no\",\"code\":\"claimed\"}");
  forget_sent();
  hear(FP_TOPIC_IN_HELLO, "{\"ts\":1795235431857,\"cmd\":0,\"cfg\":0}");
  fp_tick(&c, 200000);
  CHECK(sent_count == 0);
}

int main(int argc, char **argv) {
  made_key = argc > 1 ? argv[1] : "";
  void (*const facts[])(void) = {greets, says_what_fits, keeps_time, asks_again, retries_what_was_not_taken, counts_pubacks,
                                 is_quiet, executes, saves_after, fails, expires, is_cut, cannot_save,
                                 loses_record, runs, trims_results, is_reentered, empties, obeys_system,
                                 sleeps, configures, survives_config, reassembles, has_room, rotates, claims};
  for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
    int before = failures;
    facts[i]();
    if (failures == before) printf("ok %s\n", fact);
  }
  return failures ? 1 : 0;
}
