/* SPDX-License-Identifier: MIT */
/* A remote folder: names as a stranger may put them there, and which files lead
** to a version. A plan goes from one file to the next without a gap. */
#include "fuzz.h"
#include "../../ext/sync/sync.h"
#include <sys/stat.h>
#include <unistd.h>

static void folderPlan(FuzzIn *pIn) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirFiles files, plan;
  u64 iFrom = fuzzByte(pIn) % 8, iWant = fuzzByte(pIn) % 64, iGot = 0, i;
  iFrom = iWant && iFrom > iWant ? 0 : iFrom;
  memset(&files, 0, sizeof(files));
  memset(&plan, 0, sizeof(plan));
  while (pIn->n && files.n < 200) {
    ChoirFile f;
    memset(&f, 0, sizeof(f));
    f.iLevel = fuzzByte(pIn) % (CHOIR_LEVEL_SNAPSHOT + 1);
    f.iMin = 1 + fuzzByte(pIn) % 64;
    f.iMax = f.iMin + fuzzByte(pIn) % 16;
    f.nByte = fuzzByte(pIn);
    if (f.iLevel == CHOIR_LEVEL_SNAPSHOT) {
      f.iMin = 1;
    }
    choirFilesAdd(&err, &files, &f);
  }
  choirFilesPlan(&err, &files, iFrom, iWant, &plan, &iGot);
  MUST(err.rc == SQLITE_OK && (iWant == 0 || iGot <= iWant));
  for (i = 0; i < plan.n; i++) {
    u64 iHad = i ? plan.a[i - 1].iMax : iFrom;
    MUST(plan.a[i].iMin <= iHad + 1 && plan.a[i].iMax > iHad);
  }
  MUST(plan.n == 0 || iGot == plan.a[plan.n - 1].iMax);
  choirFilesFree(&plan);
  choirFilesFree(&files);
}

FUZZ(folder) {
  static sqlite3 *db;
  FuzzIn in = {a, n};
  char zDir[100], zFile[400], *zName;
  if (fuzzByte(&in) & 3) {
    folderPlan(&in);
    return;
  }
  snprintf(zDir, sizeof(zDir), "%s/folder", fuzzDir());
  mkdir(zDir, 0700);
  snprintf(zDir, sizeof(zDir), "%s/folder/ltx", fuzzDir());
  mkdir(zDir, 0700);
  snprintf(zDir, sizeof(zDir), "%s/folder/ltx/0", fuzzDir());
  mkdir(zDir, 0700);
  if (db == NULL) {
    db = fuzzOpen(":memory:");
    fuzzMust(db, "SELECT choir_config('remote', 'file://%q/folder/')",
             fuzzDir());
  }
  zName = fuzzPart(&in, NULL);
  snprintf(zFile, sizeof(zFile), "%s/%.200s", zDir, zName);
  if (strchr(zName, '/') || zName[0] == 0 || strcmp(zName, "..") == 0 ||
      strcmp(zName, ".") == 0) {
    snprintf(zFile, sizeof(zFile), "%s/%016d-%016d.ltx", zDir, 1, 1);
  }
  fuzzWrite(zFile, in.a, in.n);
  fuzzSql(db,
          "SELECT * FROM sync_log; SELECT * FROM sync_status;"
          " SELECT sync_verify(); SELECT sync_verify(NULL, 1);"
          " SELECT sync_pull()",
          in.a, in.n);
  unlink(zFile);
  sqlite3_free(zName);
}
