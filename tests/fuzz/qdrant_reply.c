/* SPDX-License-Identifier: MIT */
/* What a Qdrant server answers, through every function that reads it. */
#include "fuzz.h"

#define SERVER                                                                 \
  "SELECT choir_config('qdrant.url', 'http://127.0.0.1:%d'),"                  \
  " choir_config('qdrant.collection', 'c'); "

FUZZ(qdrant_reply) {
  static const char *const azSql[] = {
      SERVER "SELECT * FROM qdrant_search('tea', 'c', 5)",
      SERVER "SELECT * FROM qdrant_search(x'0000803f00000040', 'c', 5)",
      SERVER "SELECT * FROM qdrant_scroll('c')",
      SERVER "SELECT * FROM qdrant_groups('tea', 'c')",
      SERVER "SELECT * FROM qdrant_facet('path')",
      SERVER "SELECT qdrant_count(), qdrant_ping()",
      SERVER "SELECT * FROM qdrant_collections",
      SERVER "SELECT * FROM qdrant_similar('a', 'c')",
      SERVER "SELECT qdrant_upsert('a', 0, 'text', '{\"b\":1}')",
      SERVER "SELECT qdrant_init('c'), qdrant_delete('a')",
      SERVER
      "CREATE VIRTUAL TABLE temp.q USING qdrant(c, title TEXT, n INTEGER,"
      " r REAL, b BOOLEAN)",
      NULL};
  fuzzHttp(azSql, a, n, 0);
}
