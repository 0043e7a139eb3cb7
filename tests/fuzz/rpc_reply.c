/* SPDX-License-Identifier: MIT */
/* The bodies of JSON-RPC and GraphQL answers. */
#include "fuzz.h"

FUZZ(rpc_reply) {
  static const char *const azSql[] = {
      "SELECT jsonrpc('http://127.0.0.1:%d/', 'm')",
      "SELECT jsonrpc('http://127.0.0.1:%d/', 'm', '{\"a\":1}')",
      "SELECT graphql('http://127.0.0.1:%d/', '{a}')",
      "SELECT graphql('http://127.0.0.1:%d/', '{a}', '{\"b\":2}')", NULL};
  fuzzHttp(azSql, a, n, 0);
}
