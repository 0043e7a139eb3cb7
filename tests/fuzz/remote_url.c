/* SPDX-License-Identifier: MIT */
/* A URL of a stranger where a store, a list of NATS servers, a database or a
** collection is expected: no request is made, for the host is not allowed. */
#include "fuzz.h"

FUZZ(remote_url) {
  static const char *const azStory[] = {
      "SELECT s3_presign('GET', ?1, 60)",
      "SELECT s3_presign('PUT', 's3://' || ?1, 60)",
      "SELECT key FROM s3_list('file:///nonexistent/' || ?1) LIMIT 9",
      "SELECT s3_head('file:///nonexistent/' || ?1)",
      "SELECT s3_get(?1)",
      "SELECT s3_get('s3://' || ?1)",
      "SELECT source FROM s3_credentials(?1)",
      "SELECT response_status FROM http_get(?1)",
      "SELECT row FROM libsql_query(?1, 'SELECT 1')",
      "SELECT state FROM sync_status(?1)",
      "SELECT choir_secret('fuzz', json_object('type', 's3', 'scope', ?1,"
      " 'access_key_id', 'a', 'secret_access_key', 'b'))",
      NULL};
  sqlite3 *db = fuzzDb();
  fuzzMust(db, "SELECT choir_config('http.allow', 'nobody.invalid'),"
               " choir_config('http.attempts', 1),"
               " choir_config('http.timeout_ms', 200),"
               " choir_secret('fuzz', '{\"type\":\"s3\",\"access_key_id\":"
               "\"a\",\"secret_access_key\":\"b\",\"region\":\"r\"}')");
  fuzzStory(db, azStory, a, n);
  fuzzMust(db, "SELECT choir_secret('fuzz', NULL),"
               " choir_config('http.allow', NULL)");
}
