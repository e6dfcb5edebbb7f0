// Puback for Arduino: PubSubClient 2.8, MQTT (256dpi/arduino-mqtt) and espMqttClient, told apart by what they can do.
// Header only, one instance. Everything runs in loop(): construct espMqttClient with UseInternalTask::NO.
//
// Readings are the sketch's to keep until send() has returned true; with PubSubClient, which publishes at QoS 0 only,
// until client().stored_seq has passed their seq.
#pragma once

#include <Arduino.h>
#include <string.h>

#include "fp.h"

#if defined(__has_include)
#if __has_include(<Preferences.h>)
#include <Preferences.h>
#define FP_HAS_PREFERENCES 1
#endif
#endif
#ifndef FP_HAS_PREFERENCES
#warning "no Preferences library: the last command id is lost at a reset, and commands may be executed twice"
#endif

namespace fplink {

// What the callbacks of the clients reach: those of two of them are plain functions.
struct Board {
  fp_client core;
  int connack = 0;
  static Board*& current() {
    static Board* board = nullptr;
    return board;
  }
};

inline void hear(const char* topic, const void* payload, size_t n) {
  fp_on_message(&Board::current()->core, millis(), topic, payload, n);
}

struct PubSubTag {};
struct LwmqttTag {};
struct AsyncTag {};

// Which of the three a client is.
template <class C>
struct Kind {
  template <class T>
  static decltype(static_cast<T*>(nullptr)->getBufferSize(), PubSubTag()) probe(int, int);
  template <class T>
  static decltype(static_cast<T*>(nullptr)->clearQueue(), AsyncTag()) probe(int, long);
  template <class T>
  static LwmqttTag probe(...);
  typedef decltype(probe<C>(0, 0)) Tag;
};

template <class C, class Tag>
struct Link;

template <class C>
struct Link<C, PubSubTag> {
  static const int QOS = 0;
  static size_t packetMax(C& mq, size_t) { return mq.getBufferSize(); }
  static void hearMessage(char* topic, uint8_t* payload, unsigned int n) { hear(topic, payload, n); }
  static void setUp(C& mq, const char* host, uint16_t port) {
    mq.setServer(host, port);
    mq.setKeepAlive(60);
    mq.setCallback(hearMessage);
  }
  static bool isIdle(C& mq) { return !mq.connected(); }
  // Returns the code of CONNACK, or a negative number when it did not come that far.
  static int connect(C& mq, const char* user, const char* key) { return mq.connect("fp", user, key) ? 0 : mq.state(); }
  static bool subscribe(C& mq, const char* filter, int qos) { return mq.subscribe(filter, static_cast<uint8_t>(qos)); }
  static fp_sent publish(C& mq, const char* topic, const char* payload, size_t n, int) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(payload);
    return mq.publish(topic, bytes, static_cast<unsigned int>(n)) ? FP_SENT_DONE : FP_SENT_NOT;
  }
};

template <class C>
struct Link<C, LwmqttTag> {
  static const int QOS = 1;
  static size_t packetMax(C&, size_t stated) { return stated; }
  static void hearMessage(C*, char topic[], char bytes[], int n) { hear(topic, bytes, static_cast<size_t>(n)); }
  static void setUp(C& mq, const char* host, uint16_t port) {
    mq.setHost(host, port);
    mq.setKeepAlive(60);
    // Otherwise a packet that is too large closes the connection; a retained one does so again and again.
    mq.dropOverflow(true);
    mq.onMessageAdvanced(hearMessage);
  }
  static bool isIdle(C& mq) { return !mq.connected(); }
  static int connect(C& mq, const char* user, const char* key) {
    if (mq.connect("fp", user, key)) return 0;
    int code = static_cast<int>(mq.returnCode());
    return code > 0 && code < 6 ? code : -1;
  }
  static bool subscribe(C& mq, const char* filter, int qos) { return mq.subscribe(filter, qos); }
  // Returns after the PUBACK.
  static fp_sent publish(C& mq, const char* topic, const char* payload, size_t n, int qos) {
    return mq.publish(topic, payload, static_cast<int>(n), false, qos) ? FP_SENT_DONE : FP_SENT_NOT;
  }
};

template <class C>
struct Link<C, AsyncTag> {
  static const int QOS = 1;
  static size_t packetMax(C&, size_t) { return SIZE_MAX; }
  template <class Properties>
  static void hearPiece(const Properties&, const char* topic, const uint8_t* payload, size_t n, size_t index, size_t total) {
    fp_span name = {topic, strlen(topic)}, piece = {reinterpret_cast<const char*>(payload), n};
    fp_on_part(&Board::current()->core, millis(), name, piece, index, total);
  }
  struct OnMessage {
    template <class Properties>
    void operator()(const Properties& p, const char* topic, const uint8_t* payload, size_t n, size_t index, size_t total) const {
      hearPiece(p, topic, payload, n, index, total);
    }
  };
  struct OnDisconnect {
    template <class Reason>
    void operator()(Reason reason) const { Board::current()->connack = static_cast<int>(reason); }
  };
  static void setUp(C& mq, const char* host, uint16_t port) {
    mq.setServer(host, port);
    mq.setKeepAlive(60);
    mq.onMessage(OnMessage());
    mq.onDisconnect(OnDisconnect());
    mq.onPublish([](uint16_t) { fp_on_puback(&Board::current()->core); });
  }
  static bool isIdle(C& mq) { return mq.disconnected(); }
  // Only begins to connect; loop() sees how it ended.
  static int connect(C& mq, const char* user, const char* key) {
    mq.setCredentials(user, key);
    return mq.connect() ? 0 : -1;
  }
  static bool subscribe(C& mq, const char* filter, int qos) { return mq.subscribe(filter, static_cast<uint8_t>(qos)) != 0; }
  static fp_sent publish(C& mq, const char* topic, const char* payload, size_t n, int qos) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(payload);
    if (mq.publish(topic, static_cast<uint8_t>(qos), false, bytes, n) == 0) return FP_SENT_NOT;
    return qos > 0 ? FP_SENT_OPEN : FP_SENT_DONE;
  }
};

}  // namespace fplink

// Client: one of the three. Bytes: the largest packet that is received; as many again are for answers.
template <class Client, size_t Bytes = 512>
class FpArduino : private fplink::Board {
 public:
  typedef fp_st (*CommandHandler)(const fp_cmd& cmd, fp_w& result);
  typedef bool (*ConfigHandler)(fp_span cfg, fp_w& report);
  typedef bool (*CommandRule)(const fp_cmd& cmd);
  typedef void (*RefusalHandler)(fp_span code, fp_span channel, fp_span msg);

  explicit FpArduino(Client& client) : mq(client) {
    memset(&port, 0, sizeof port);
    memset(&about, 0, sizeof about);
    port.ctx = this;
    port.publish = publishOf;
    port.subscribe = [](void* me, const char* filter, int qos) { return Link::subscribe(of(me).mq, filter, qos); };
    port.command = commandOf;
    port.save_after = [](void* me, const fp_cmd* cmd) { return of(me).afterRule && of(me).afterRule(*cmd); };
    port.refused = refusedOf;
    port.restart = [](void*) { ESP.restart(); };
#ifdef FP_HAS_PREFERENCES
    port.load = [](void* me, unsigned slot, void* bytes, size_t n) {
      return of(me).prefs.getBytes(slot ? "r1" : "r0", bytes, n) == n;
    };
    port.save = [](void* me, unsigned slot, const void* bytes, size_t n) {
      return of(me).prefs.putBytes(slot ? "r1" : "r0", bytes, n) == n;
    };
    port.keep_key = [](void* me, unsigned slot, const char* user, const char* key) {
      Preferences& kept = of(me).prefs;
      return kept.putString(slot ? "user1" : "user0", user) > 0 && kept.putString(slot ? "key1" : "key0", key) > 0;
    };
#endif
  }

  // What hello says of the board; all before begin(). The texts must stay valid.
  FpArduino& firmware(const char* version, const char* model = nullptr) {
    about.fw = version;
    about.mdl = model;
    return *this;
  }
  // JSON, for example {"temp":"Cel"}.
  FpArduino& units(const char* json) {
    about.units = json;
    return *this;
  }
  // Planned seconds between contacts of a board that sleeps.
  FpArduino& sleeps(uint32_t seconds) {
    about.sleep_s = seconds;
    return *this;
  }
  // Read buffer of MQTT (256dpi), which cannot be asked for it. Default 128, as it has.
  FpArduino& packetSize(size_t bytes) {
    statedPacket = bytes;
    return *this;
  }
  // What PubSubClient and MQTT send through, if it has setNoDelay(), as WiFiClient and WiFiClientSecure do: answers do
  // not wait until what was sent before is confirmed. Set anew with each connection. espMqttClient does it itself.
  template <class Net>
  FpArduino& noDelay(Net& net) {
    netOfClient = &net;
    setNoDelay = [](void* it) { static_cast<Net*>(it)->setNoDelay(true); };
    return *this;
  }
  // The sketch stores its configuration itself: it is not applied anew at each boot.
  FpArduino& keepsConfig() {
    about.keeps_config = true;
    return *this;
  }

  // `key`: a device key (pbd_), or a claim key (pbc_), with which the board asks for one of its own; `name`: its
  // name for a claim. Texts must stay valid. False: the key has a typing error. Does not connect; loop() does.
  bool begin(const char* host, uint16_t tcpPort, const char* key, const char* name = "device") {
    if (!fp_key_ok(key)) return false;
    flashedKey = key;
    flashedUser = name;
    current() = this;
    size_t packet = Link::packetMax(mq, statedPacket);
    about.mps = static_cast<uint32_t>(packet < Bytes ? packet : Bytes);
    about.qos = Link::QOS;
#ifdef FP_HAS_PREFERENCES
    prefs.begin("fp", false);
    // Another key was flashed: what the old one was changed to counts no more.
    uint32_t seed = fp_crc32(key, FP_KEY_CHARS);
    if (prefs.getUInt("seed", 0) != seed) {
      prefs.remove("key0");
      prefs.remove("key1");
      prefs.putUInt("seed", seed);
    }
#endif
    fp_init(&core, &port, &about);
    fp_buffers(&core, rx, sizeof rx, tx, sizeof tx);
    fp_begin(&core, millis(), true);
    Link::setUp(mq, host, tcpPort);
    return true;
  }

  void onCommand(CommandHandler handler) { commandHandler = handler; }
  // Commands for which it says true are saved after they were executed: they may be repeated after a crash.
  void onSaveAfter(CommandRule rule) { afterRule = rule; }
  void onConfig(ConfigHandler handler) {
    configHandler = handler;
    port.config = [](void* me, fp_span cfg, fp_w* report) { return of(me).configHandler(cfg, *report); };
  }
  void onRefused(RefusalHandler handler) { refusalHandler = handler; }

  // Connects, with backoff, and does what is due. Call it often.
  void loop() {
    isInCallback = true;
    mq.loop();
    isInCallback = false;
    uint32_t now = millis();
    if (mq.connected()) {
      isConnecting = false;
      if (!core.is_connected) begun(now);
    } else {
      reconnect(now);
    }
    fp_tick(&core, now);
    if (fp_wants_reconnect(&core)) {
      mq.disconnect();
      fp_on_disconnected(&core);
      waitMs = 0;
    }
  }

  // True at once and then every so many seconds; up to four different intervals.
  bool every(uint32_t seconds) {
    uint32_t now = millis();
    for (Timer& timer : timers) {
      bool isFree = timer.seconds == 0;
      if (!isFree && timer.seconds != seconds) continue;
      if (!isFree && now - timer.at < seconds * 1000) return false;
      timer.seconds = seconds;
      timer.at = now;
      return true;
    }
    return false;
  }

  // Publishes one reading, with its time when the clock is set. False: not taken; send it again.
  bool send(const char* metric, double value) {
    char text[128];
    fp_w w;
    fp_w_init(&w, text, sizeof text);
    fp_obj(&w, nullptr);
    uint64_t ms = clockMs();
    if (ms) fp_add_int(&w, "ts", static_cast<int64_t>(ms));
    fp_add_num(&w, metric, value);
    fp_obj_end(&w);
    return send(w);
  }
  // Publishes a sample, an array of samples or a series.
  bool send(fp_w& w) { return !isInCallback && fp_send(&core, millis(), &w, Link::QOS); }
  bool event(const char* name, const char* json = "") {
    char topic[sizeof FP_TOPIC_EVENT_PREFIX + FP_METRIC_NAME_MAX];
    if (isInCallback || strlen(name) > FP_METRIC_NAME_MAX) return false;
    strcpy(topic, FP_TOPIC_EVENT_PREFIX);
    strcat(topic, name);
    return fp_publish(&core, topic, json, strlen(json), Link::QOS);
  }

  // Answers a command whose handler returned FP_ST_RUN; `result` was begun with fp_result.
  bool done(uint32_t id, fp_st st, fp_w* result = nullptr) { return !isInCallback && fp_done(&core, id, st, result); }
  bool progress(uint32_t id, unsigned percent) { return !isInCallback && fp_progress(&core, id, percent); }
  bool canSleep() const { return fp_can_sleep(&core, millis()); }
  // Unix ms, 0 while nobody has told.
  uint64_t clockMs() const { return fp_clock_ms(&core, millis()); }
  const fp_client& client() const { return core; }

 private:
  typedef fplink::Link<Client, typename fplink::Kind<Client>::Tag> Link;
  struct Timer {
    uint32_t seconds;
    uint32_t at;
  };

  static FpArduino& of(void* me) { return *static_cast<FpArduino*>(me); }
  static fp_sent publishOf(void* me, const char* topic, const char* payload, size_t n, int qos) {
    return Link::publish(of(me).mq, topic, payload, n, qos);
  }
  static fp_st commandOf(void* me, const fp_cmd* cmd, fp_w* result) {
    return of(me).commandHandler ? of(me).commandHandler(*cmd, *result) : FP_ST_NO;
  }
  static void refusedOf(void* me, fp_span code, fp_span channel, fp_span msg) {
    if (of(me).refusalHandler) of(me).refusalHandler(code, channel, msg);
  }

  void begun(uint32_t now) {
    if (setNoDelay) setNoDelay(netOfClient);
    fp_on_connected(&core, now);
    if (strncmp(loginKey, FP_KEY_PREFIX_CLAIM, 4) == 0) fp_claim(&core);
  }

  void reconnect(uint32_t now) {
    bool hasFailed = core.is_connected || (isConnecting && Link::isIdle(mq));
    if (hasFailed) failed(now, core.is_connected ? 0 : connack);
    if (isConnecting || !Link::isIdle(mq) || now - failedAt < waitMs) return;
    connack = 0;
    chooseKey();
    isConnecting = true;
    int code = Link::connect(mq, loginUser, loginKey);
    if (code != 0) failed(millis(), code);
  }

  void failed(uint32_t now, int code) {
    isConnecting = false;
    fp_on_refused(&core, static_cast<uint8_t>(code > 0 ? code : 0));
    waitMs = fp_retry_ms(&core, static_cast<uint32_t>(random(0x7fffffff)));
    failedAt = now;
  }

  // A stored key of the slot, of the other one, or what was flashed.
  void chooseKey() {
    strncpy(loginKey, flashedKey, sizeof loginKey - 1);
    strncpy(loginUser, flashedUser, sizeof loginUser - 1);
#ifdef FP_HAS_PREFERENCES
    bool isSecond = core.key_slot != 0;
    const char* name = isSecond ? "key1" : "key0";
    if (!prefs.isKey(name)) return;
    prefs.getString(name, loginKey, sizeof loginKey);
    prefs.getString(isSecond ? "user1" : "user0", loginUser, sizeof loginUser);
#endif
  }

  Client& mq;
  fp_port port;
  fp_about about;
  CommandHandler commandHandler = nullptr;
  CommandRule afterRule = nullptr;
  ConfigHandler configHandler = nullptr;
  RefusalHandler refusalHandler = nullptr;
  void* netOfClient = nullptr;
  void (*setNoDelay)(void* it) = nullptr;
  const char* flashedKey = nullptr;
  const char* flashedUser = nullptr;
  size_t statedPacket = 128;
  uint32_t waitMs = 0;
  uint32_t failedAt = 0;
  bool isConnecting = false;
  bool isInCallback = false;
  Timer timers[4] = {};
  char loginUser[FP_USER_MAX + 1] = {};
  char loginKey[FP_KEY_CHARS + 1] = {};
  char rx[Bytes];
  char tx[Bytes];
#ifdef FP_HAS_PREFERENCES
  Preferences prefs;
#endif
};
