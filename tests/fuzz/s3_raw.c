/* SPDX-License-Identifier: MIT */
/* The same with a status and headers of the store's own choice: errors, ETags,
** dates, ranges, regions. */
#include "fuzz.h"

#define SECRET                                                                 \
  "SELECT choir_secret('s', json_object('type', 's3', 'access_key_id', 'a',"   \
  " 'secret_access_key', 'b', 'region', 'r', 'endpoint',"                      \
  " 'http://127.0.0.1:%d', 'url_style', 'path')); "

FUZZ(s3_raw) {
  static const char *const azSql[] = {
      SECRET "SELECT * FROM s3_list('s3://b/f/')",
      SECRET "SELECT s3_get('s3://b/k', 1, 2)",
      SECRET "SELECT s3_get('s3://b/k')",
      SECRET "SELECT s3_head('s3://b/k')",
      SECRET "SELECT s3_put('s3://b/k', 'x', '{\"if_absent\":true}')",
      SECRET "SELECT s3_delete('s3://b/k', 'e')",
      SECRET "SELECT s3_copy('s3://b/k', 's3://b/l')",
      NULL};
  fuzzHttp(azSql, a, n, 1);
}
