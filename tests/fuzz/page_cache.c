/* SPDX-License-Identifier: MIT */
/* The file of page hashes, as it is, and with a checksum and a digest that are
** right: what is taken is what was written, anything else is no cache. */
#include "fuzz.h"
#include "../../ext/sync/sync.h"
#include <unistd.h>

FUZZ(page_cache) {
  static ChoirConn *pConn;
  static ChoirPosition pos;
  FuzzIn in = {a, n};
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirCache cache;
  ChoirPages pages;
  char *zFile;
  u8 c = fuzzByte(&in);
  int bOurs = c & 1;
  if (pConn == NULL) {
    zFile = sqlite3_mprintf("%s/cached.db", fuzzDir());
    setenv("XDG_STATE_HOME", fuzzDir(), 1);
    MUST((pConn = choirConnFile(&err, zFile)) != NULL);
    memset(pos.zLineage, 'a', 2 * CHOIR_SYNC_ID);
    sqlite3_free(zFile);
  }
  zFile = choirSyncStateFile(pConn, &err, &pos, "pages", "file:///r");
  MUST(zFile != NULL);
  choirStateFolder(&err, zFile);
  if (bOurs) { /* one that choir wrote, over what lies there */
    choirCacheRead(pConn, &err, &cache, &pos, "file:///r");
    memset(&pages, 0, sizeof(pages));
    pages.szPage = 4096;
    choirPagesSize(&err, &pages, 1 + c / 2);
    for (c = 0; c < pages.nPage && c < 100; c++) {
      memset(pages.aHash + c * CHOIR_PAGE_HASH, fuzzByte(&in), 16);
    }
    choirPagesDigest(&pages, cache.aDigest);
    choirCacheWrite(&cache, &pages);
    choirCacheFree(&cache);
  } else {
    fuzzWrite(zFile, in.a, in.n);
  }
  choirCacheRead(pConn, &err, &cache, &pos, "file:///r");
  MUST(cache.bValid || !bOurs);
  choirCacheLoad(&err, &cache);
  if (cache.bValid) {
    u8 aDigest[32];
    MUST(cache.pages.nPage == cache.nPage && cache.nPage > 0);
    choirPagesDigest(&cache.pages, aDigest);
    MUST(memcmp(aDigest, cache.aDigest, 32) == 0);
  }
  choirCacheFree(&cache);
  choirErrClear(&err);
  unlink(zFile);
  sqlite3_free(zFile);
}
