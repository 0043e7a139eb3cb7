/* SPDX-License-Identifier: MIT */
/* What an embedding service answers. */
#include "fuzz.h"

#define SERVICE(z)                                                             \
  "SELECT choir_config('embed.provider', '" z "'), choir_config("              \
  "'embed.model', 'm'), choir_config('embed.url', 'http://127.0.0.1:%d'); "

FUZZ(embed_reply) {
  static const char *const azSql[] = {
      SERVICE("openai") "SELECT hex(embed('tea'))",
      SERVICE("ollama") "SELECT hex(embed('tea', 'query'))",
      SERVICE("tei") "SELECT hex(embed('tea'))",
      SERVICE("openai") "SELECT * FROM embed_each('[\"a\",\"b\"]')",
      SERVICE("ollama") "SELECT embed_model()",
      SERVICE("tei") "SELECT embed_all(column1) FROM (VALUES('a'), ('b'))",
      NULL};
  fuzzHttp(azSql, a, n, 0);
}
