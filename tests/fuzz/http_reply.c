/* SPDX-License-Identifier: MIT */
/* Whatever a server sends: status line, headers, chunks, gzip, redirects, cookies;
** and what is made of a JSON-RPC or GraphQL answer. */
#include "fuzz.h"

FUZZ(http_reply) {
  static const char *const azSql[] = {
      "SELECT * FROM http_get('http://127.0.0.1:%d/a?b')",
      "SELECT choir_config('http.redirects', 3); SELECT * FROM"
      " http_get('http://127.0.0.1:%d/a')",
      "SELECT * FROM http_do('HEAD', 'http://127.0.0.1:%d/')",
      "SELECT * FROM http_post('http://127.0.0.1:%d/', NULL, ?1)",
      "SELECT * FROM http_get('http://127.0.0.1:%d/', ?1)",
      "SELECT http_headers(?1, ?1, 'a', ?3);"
      " SELECT * FROM http_get('http://127.0.0.1:%d/', http_headers('a', ?1))",
      "SELECT jsonrpc('http://127.0.0.1:%d/', 'm', '[1]')",
      "SELECT graphql('http://127.0.0.1:%d/', '{a}')",
      "SELECT choir_config('http.max_bytes', 64); SELECT * FROM"
      " http_get('http://127.0.0.1:%d/'); SELECT * FROM choir_transfers",
      NULL};
  fuzzHttp(azSql, a, n, 1);
}
