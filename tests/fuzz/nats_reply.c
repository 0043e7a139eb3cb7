/* SPDX-License-Identifier: MIT */
/* What a NATS server says from its INFO on: the whole client, over a socket. The
** rest of the input follows an INFO that is right when the first byte is odd. */
#include "fuzz.h"
#include "../../ext/choir.h"

FUZZ(nats_reply) {
  static const char *const azSql[] = {
      "SELECT nats_ping()",
      "SELECT nats_publish('a.b', 'x')",
      "SELECT nats_request('a.b', 'x', 50)",
      "SELECT nats_js_publish('a.b', 'x', 'id')",
      "SELECT * FROM nats_fetch('S', 'c', 3, 20)",
      "SELECT * FROM nats_streams",
      "SELECT nats_stream_create('S', 'a.>')",
      "SELECT nats_ack('$JS.ACK.S.c.1.2.3.4.5')"};
  static const char zInfo[] =
      "INFO {\"server_id\":\"A\",\"version\":\"2.9.10\",\"headers\":true,"
      "\"jetstream\":true,\"max_payload\":1048576,\"port\":4222}\r\nPONG\r\n";
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  u64 nAll = in.n + sizeof(zInfo);
  char *aAll = sqlite3_malloc64(nAll), *z;
  FuzzReply reply = {aAll, 0};
  sqlite3 *db;
  if (c & 1) {
    memcpy(aAll, zInfo, reply.n = sizeof(zInfo) - 1);
  }
  memcpy(aAll + reply.n, in.a, in.n);
  reply.n += in.n;
  MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
  MUST(sqlite3_choir_init(db, NULL, NULL) == SQLITE_OK);
  fuzzServe(&reply, 1, 1);
  z = sqlite3_mprintf("SELECT choir_config('nats.url', 'nats://127.0.0.1:%d'),"
                      " choir_config('nats.timeout_ms', 100); %s",
                      fuzzPort(), azSql[c / 2 % 8]);
  fuzzSql(db, z, in.a, in.n);
  sqlite3_free(z);
  MUST(sqlite3_close(db) == SQLITE_OK);
  fuzzServe(NULL, 0, 0);
  sqlite3_free(aAll);
}
