/* SPDX-License-Identifier: MIT */
/* What a store or an endpoint for presigned URLs answers: listings, errors,
** uploads in parts, objects. */
#include "fuzz.h"

#define SECRET                                                                 \
  "SELECT choir_secret('s', json_object('type', 's3', 'access_key_id', 'a',"   \
  " 'secret_access_key', 'b', 'region', 'r', 'endpoint',"                      \
  " 'http://127.0.0.1:%d', 'url_style', 'path')); "
#define PRESIGN                                                                \
  "SELECT choir_secret('s', json_object('type', 'presign', 'url',"             \
  " 'http://127.0.0.1:%d/sign')); "

FUZZ(s3_reply) {
  static const char *const azSql[] = {
      SECRET "SELECT * FROM s3_list('s3://b/f/')",
      SECRET "SELECT key FROM s3_blob('s3://b/') WHERE key > 'a' LIMIT 3",
      SECRET "SELECT s3_get('s3://b/k'), s3_get('s3://b/k', 1, 2)",
      SECRET "SELECT s3_head('s3://b/k')",
      SECRET "SELECT s3_put('s3://b/k', 'x'), s3_delete('s3://b/k')",
      SECRET "SELECT s3_put('s3://b/k', zeroblob(9000000))",
      SECRET "SELECT s3_copy('s3://b/k', 's3://b/l')",
      SECRET "SELECT * FROM sync_status('s3://b/ws.db')",
      SECRET "SELECT * FROM sync_log('s3://b/ws/')",
      PRESIGN "SELECT s3_get('s3://b/k'), s3_presign('GET', 's3://b/k', 9)",
      PRESIGN "SELECT s3_put('s3://b/k', 'x')",
      NULL};
  fuzzHttp(azSql, a, n, 0);
}
