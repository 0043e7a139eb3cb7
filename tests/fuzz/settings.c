/* SPDX-License-Identifier: MIT */
/* Settings and secrets of a stranger: choir_config, choir_secret, and the file
** ~/.config/choir/config, which a connection reads at its first question. */
#include "fuzz.h"
#include <sys/stat.h>
#include <unistd.h>

static void settingsFile(const u8 *a, u64 n) {
  ChoirErr err = {SQLITE_OK, NULL};
  char z[128];
  ChoirConn *pConn;
  snprintf(z, sizeof(z), "%s/choir", fuzzDir());
  mkdir(z, 0700);
  setenv("XDG_CONFIG_HOME", fuzzDir(), 1);
  snprintf(z, sizeof(z), "%s/choir/config", fuzzDir());
  fuzzWrite(z, a, n);
  chmod(z, 0600);
  pConn = choirConnPrivate(&err, 0);
  MUST(pConn && choirConfig(pConn, "vec.kernel") != NULL);
  choirConfigInt(pConn, "http.max_bytes", 1);
  choirUser(pConn, &err);
  choirErrClear(&err);
  choirConnUnref(pConn);
  unlink(z);
  unsetenv("XDG_CONFIG_HOME");
}

FUZZ(settings) {
  static const char *const azKey[] = {
      "user",           "schema",    "vec.kernel",       "http.allow",
      "http.proxy",     "nats.tls",  "vec.cache_bytes",  "http.timeout_ms",
      "embed.provider", "embed.url", "embed.dimensions", "qdrant.collection"};
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  sqlite3 *db = fuzzDb();
  char *z;
  if (c & 128) {
    settingsFile(in.a, in.n);
    return;
  }
  if (c & 64) {
    fuzzSql(db,
            "SELECT choir_secret('f', ?1); SELECT * FROM choir_secrets;"
            " SELECT choir_secret(?1, '{\"type\":\"http\"}');"
            " SELECT choir_secret('f', NULL), choir_secret(?1, NULL)",
            in.a, in.n);
    return;
  }
  z = sqlite3_mprintf("SELECT choir_config(%Q, ?1); SELECT key, value FROM"
                      " choir_settings; SELECT choir_config(%Q, NULL);"
                      " SELECT choir_config(?1); SELECT choir_config(?1, ?1);"
                      " SELECT * FROM choir_help(?1)",
                      azKey[c % 12], azKey[c % 12]);
  fuzzSql(db, z, in.a, in.n);
  sqlite3_free(z);
}
