/* SPDX-License-Identifier: MIT */
/* What a libSQL server answers: cursors line by line, pipelines whole. */
#include "fuzz.h"

FUZZ(hrana_reply) {
  static const char *const azSql[] = {
      "SELECT * FROM libsql_query('http://127.0.0.1:%d', 'SELECT 1')",
      "SELECT * FROM libsql_query('http://127.0.0.1:%d', 'SELECT ?', '[1]')",
      "SELECT libsql_batch('http://127.0.0.1:%d', '[\"SELECT 1\"]')",
      "SELECT libsql_pull('http://127.0.0.1:%d', 't', 'here')",
      "CREATE TABLE h(a INTEGER PRIMARY KEY, b); INSERT INTO h VALUES(1, 2);"
      " SELECT libsql_push('http://127.0.0.1:%d', 'h', 't')",
      "CREATE VIRTUAL TABLE temp.t USING libsql('http://127.0.0.1:%d', t)",
      NULL};
  fuzzHttp(azSql, a, n, 0);
}
