/* SPDX-License-Identifier: MIT */
/* A remote that somebody else wrote, a plain file or one LTX: bytes of a real
** one are replaced (first byte: which; then offset, length, bytes). Pulled, it
** is refused, or the file is sound afterwards and says so. */
#include "fuzz.h"
#include <sys/stat.h>
#include <unistd.h>

static u8 *aPull[2];
static u64 anPull[2];
static char zPull[2][128];

static void pullRead(int i) {
  FILE *f = fopen(zPull[i], "rb");
  MUST(f != NULL);
  aPull[i] = sqlite3_malloc64(1 << 20);
  anPull[i] = fread(aPull[i], 1, 1 << 20, f);
  MUST(anPull[i] > 1000 && anPull[i] < 1 << 20);
  fclose(f);
}

static void pullMake(void) {
  sqlite3 *db;
  char z[128];
  snprintf(z, sizeof(z), "%s/from.db", fuzzDir());
  db = fuzzOpen(z);
  fuzzMust(db, "SELECT artifact_put('/a', 'tea'), state_set('k', '$', 1)");
  fuzzMust(db, "SELECT sync_push('file://%q/r.db')", fuzzDir());
  snprintf(zPull[1], sizeof(zPull[1]), "%s/r", fuzzDir());
  mkdir(zPull[1], 0700);
  fuzzMust(db, "SELECT sync_push('file://%q/r/')", fuzzDir());
  sqlite3_close(db);
  snprintf(zPull[0], sizeof(zPull[0]), "%s/r.db", fuzzDir());
  snprintf(zPull[1], sizeof(zPull[1]), "%s/r/ltx/0/%016x-%016x.ltx", fuzzDir(),
           1, 1);
  if (access(zPull[1], R_OK) != 0) { /* the second push of this file */
    snprintf(zPull[1], sizeof(zPull[1]), "%s/r/ltx/0/%016x-%016x.ltx",
             fuzzDir(), 2, 2);
  }
  if (access(zPull[1], R_OK) != 0) {
    snprintf(zPull[1], sizeof(zPull[1]), "%s/r/ltx/9/%016x-%016x.ltx",
             fuzzDir(), 1, 1);
  }
  pullRead(0);
  pullRead(1);
}

FUZZ(pull) {
  static const char *const azUrl[] = {"r.db", "r/"};
  FuzzIn in = {a, n};
  int i = fuzzByte(&in) & 1;
  char zFile[128], *z;
  sqlite3 *db;
  u8 *aNew;
  if (aPull[0] == NULL) {
    pullMake();
  }
  aNew = sqlite3_malloc64(anPull[i]);
  memcpy(aNew, aPull[i], anPull[i]);
  while (in.n > 3) {
    u64 iOff = (u64)fuzzByte(&in) << 16 | (u64)fuzzByte(&in) << 8;
    u64 nRun = fuzzByte(&in) % 16 + 1;
    iOff = (iOff | fuzzByte(&in)) % anPull[i];
    while (nRun-- && in.n && iOff < anPull[i]) {
      aNew[iOff++] = fuzzByte(&in);
    }
  }
  fuzzWrite(zPull[i], aNew, anPull[i]);
  snprintf(zFile, sizeof(zFile), "%s/to.db", fuzzDir());
  db = fuzzOpen(zFile);
  z = sqlite3_mprintf("SELECT sync_pull('file://%q/%s'); SELECT * FROM"
                      " sync_status('file://%q/%s'); SELECT sync_verify("
                      "'file://%q/%s', 1); SELECT * FROM sync_log("
                      "'file://%q/%s')",
                      fuzzDir(), azUrl[i], fuzzDir(), azUrl[i], fuzzDir(),
                      azUrl[i], fuzzDir(), azUrl[i]);
  fuzzSql(db, z, a, n);
  sqlite3_free(z);
  z = fuzzOne(db, "SELECT group_concat(integrity_check) FROM"
                  " pragma_integrity_check");
  MUST(strcmp(z, "ok") == 0);
  sqlite3_free(z);
  MUST(sqlite3_close(db) == SQLITE_OK);
  unlink(zFile);
  sqlite3_free(aNew);
}
