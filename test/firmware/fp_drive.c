/* Reads one operation a line and prints one result a line, so that properties can be stated elsewhere.
 * Texts are hex. Writer: w O o A a N I B S E; reader: R json type path…; the rest: K C T. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../firmware-protocol/src/fp.h"

static char line[400000];
static char document[200000];
static char text[200000];

/* Decodes hex in place of `out`, adds a NUL. */
static size_t from_hex(const char *hex, char *out) {
  size_t n = 0;
  for (; hex[0] && hex[1]; hex += 2) {
    char pair[3] = {hex[0], hex[1], 0};
    out[n++] = (char)strtoul(pair, NULL, 16);
  }
  out[n] = 0;
  return n;
}

static void print_hex(const char *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) printf("%02x", (unsigned)(unsigned char)bytes[i]);
  putchar('\n');
}

/* The next word, as a name; "-" is none. */
static const char *name_of(char *out) {
  char *word = strtok(NULL, " ");
  if (strcmp(word, "-") == 0) return NULL;
  if (strcmp(word, "=") == 0) word = "";
  from_hex(word, out);
  return out;
}

static void print_value(fp_span v, const char *type) {
  double number;
  int64_t whole;
  uint32_t small;
  bool is_true;
  if (strcmp(type, "num") == 0 && fp_num(v, &number)) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    printf("%016" PRIx64 "\n", bits);
  } else if (strcmp(type, "i64") == 0 && fp_i64(v, &whole)) {
    printf("%" PRId64 "\n", whole);
  } else if (strcmp(type, "u32") == 0 && fp_u32(v, &small)) {
    printf("%" PRIu32 "\n", small);
  } else if (strcmp(type, "bool") == 0 && fp_bool(v, &is_true)) {
    puts(is_true ? "true" : "false");
  } else if (strcmp(type, "str") == 0 && fp_str(v, text, sizeof text)) {
    if (!fp_eq(v, text)) abort();
    print_hex(text, strlen(text));
  } else if (strcmp(type, "raw") == 0) {
    print_hex(v.p, v.n);
  } else {
    puts("no");
  }
}

static void read_json(void) {
  char *word = strtok(NULL, " ");
  fp_span v = {document, from_hex(strcmp(word, "=") == 0 ? "" : word, document)};
  char *type = strtok(NULL, " ");
  bool is_there = true;
  if (strcmp(type, "ok") == 0) {
    puts(fp_json_ok(v) ? "yes" : "no");
    return;
  }
  while (is_there && (word = strtok(NULL, " ")) != NULL) {
    if (*word == '.') {
      from_hex(word + 1, text);
      is_there = fp_get(v, text, &v);
    } else {
      is_there = fp_at(v, strtoul(word + 1, NULL, 10), &v);
    }
  }
  if (is_there)
    print_value(v, type);
  else
    puts("absent");
}

static void write_json(fp_w *w, char op) {
  static char name[20000], buffer[200000];
  if (op == 'w') {
    fp_w_init(w, buffer, strtoul(strtok(NULL, " "), NULL, 10));
  } else if (op == 'o') {
    fp_obj_end(w);
  } else if (op == 'a') {
    fp_arr_end(w);
  } else if (op == 'E') {
    size_t n = fp_w_end(w);
    print_hex(buffer, n);
  } else {
    const char *member = name_of(name);
    if (op == 'O') fp_obj(w, member);
    if (op == 'A') fp_arr(w, member);
    if (op == 'B') fp_add_bool(w, member, strtok(NULL, " ")[0] == '1');
    if (op == 'I') fp_add_int(w, member, strtoll(strtok(NULL, " "), NULL, 10));
    if (op == 'S') fp_add_str(w, member, name_of(text));
    if (op == 'N') {
      uint64_t bits = strtoull(strtok(NULL, " "), NULL, 16);
      double number;
      memcpy(&number, &bits, sizeof number);
      fp_add_num(w, member, number);
    }
  }
}

int main(void) {
  fp_w w = {NULL, 0, 0, NULL, NULL, false};
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    char op = *strtok(line, " ");
    if (op == 'R') {
      read_json();
    } else if (op == 'K') {
      from_hex(strtok(NULL, " "), text);
      puts(fp_key_ok(text) ? "yes" : "no");
    } else if (op == 'C') {
      size_t n = from_hex(strtok(NULL, " "), text);
      printf("%" PRIu32 "\n", fp_crc32(text, n));
    } else if (op == 'T') {
      unsigned attempt = (unsigned)strtoul(strtok(NULL, " "), NULL, 10);
      uint8_t connack = (uint8_t)strtoul(strtok(NULL, " "), NULL, 10);
      printf("%" PRIu32 "\n", fp_backoff_ms(attempt, connack, (uint32_t)strtoul(strtok(NULL, " "), NULL, 10)));
    } else {
      write_json(&w, op);
    }
  }
  return 0;
}
