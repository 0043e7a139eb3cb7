/* SPDX-License-Identifier: MIT */
/* The cache of embeddings as a file of a stranger: rows of any kind, and the
** file itself. A cache that cannot be read is an empty one. */
#include "fuzz.h"
#include "../../ext/embed/embed.h"
#include <unistd.h>

FUZZ(embed_cache) {
  static const u8 aKey[1][32] = {{1}};
  static ChoirConn *pConn;
  FuzzIn in = {a, n};
  u8 c = fuzzByte(&in);
  ChoirErr err = {SQLITE_OK, NULL};
  float aVec[4] = {1, 0, 0, 0};
  char zFile[128], z[150];
  sqlite3 *db;
  snprintf(zFile, sizeof(zFile), "%s/embed-%d.db", fuzzDir(), c & 1);
  snprintf(z, sizeof(z), "%s-wal", zFile);
  pConn = pConn ? pConn : choirConnPrivate(&err, 0);
  choirConfigSet(pConn, &err, "embed.cache", zFile);
  if (c & 1) {
    fuzzWrite(zFile, in.a, in.n);
  } else {
    choirEmbedCachePut(pConn, 1, aKey, 4, aVec);
    MUST(choirEmbedCacheGet(pConn, aKey[0], 4, aVec));
    choirEmbedCacheDimPut(pConn, "m", 4);
    MUST(sqlite3_open(zFile, &db) == SQLITE_OK);
    fuzzSql(db,
            c & 2 ? "UPDATE vector SET v = ?2" : "UPDATE model SET dim = ?3",
            in.a, in.n);
    fuzzSql(db, c & 4 ? "UPDATE vector SET used = ?1" : "SELECT 1", in.a, in.n);
    MUST(sqlite3_close(db) == SQLITE_OK);
  }
  choirEmbedCacheGet(pConn, aKey[0], 4, aVec);
  choirEmbedCacheDim(pConn, "m");
  choirEmbedCachePut(pConn, 1, aKey, 4, aVec);
  choirConfigSet(pConn, &err, "embed.cache", "off");
  choirEmbedCacheGet(pConn, aKey[0], 4, aVec); /* which closes the file */
  unlink(zFile);
  unlink(z);
  choirErrClear(&err);
}
