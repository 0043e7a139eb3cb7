/* SPDX-License-Identifier: MIT */
/*
** state_import: JSON becomes keys of the state, from a text, a file or a folder
** of files.
**
** As seeds (the default) values make keys that were never there; each is also
** kept in the checkpoint `seed`. So a first run starts from the files, later
** runs keep the live state (a key that was deleted stays away), and the files
** are still there to go back to. One savepoint: all of it or nothing.
*/
#include "store.h"

#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define SEED_FILE ((i64)64 << 20) /* bytes of a file */
#define SEED_DEPTH 16             /* folders in folders */

typedef struct SeedRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirStoreOwn own;
  ChoirStoreReport report;
  int bReplace;
  i64 nNew, nKept, nChanged;
} SeedRun;

/* One key and its JSON. */
static void seedKey(SeedRun *p, const char *zKey, const char *zJson) {
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, p->pErr, "SELECT 1 FROM ~.state_storage WHERE key_name=?1");
  int bThere, bFirst = 1;
  choirBindText(p->pErr, pStmt, 1, zKey, -1);
  bThere = choirStep(p->pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  if (p->pErr->rc == SQLITE_OK &&
      (zKey[0] == 0 || strlen(zKey) > CHOIR_STORE_NAME_MAX)) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "a key must have 1 to %d bytes, got %d: %.60s",
                CHOIR_STORE_NAME_MAX, (int)strlen(zKey), zKey);
  }
  if (!p->bReplace) {
    bFirst = choirStoreSeedPut(p->pConn, p->pErr, zKey, zJson);
  }
  if (!p->bReplace && (bThere || !bFirst)) {
    p->nKept++;
  } else if (choirStoreStatePut(p->pConn, p->pErr, zKey, zJson, 0)) {
    p->nNew += !bThere;
    p->nChanged += bThere;
  } else {
    p->nKept++;
  }
  p->report.nFile++;
}

/* Every member of a JSON object is a key. A number that is not an integer of 64
** bits is looked up, to be kept as it was written. */
static void seedObject(SeedRun *p, const char *zJson) {
  sqlite3_stmt *pStmt = choirJsonStmt(
      p->pConn, p->pErr,
      "SELECT key, CASE type WHEN 'object' THEN value WHEN 'array' THEN value"
      " WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'"
      " WHEN 'text' THEN json_quote(value) WHEN 'null' THEN 'null'"
      " WHEN iif(typeof(value)='integer', type, '') THEN value"
      " ELSE coalesce(?1 -> fullkey, json_quote(value)) END FROM "
      "json_each(?1)",
      zJson, -1);
  while (choirStep(p->pErr, pStmt)) {
    const char *zKey = (const char *)sqlite3_column_text(pStmt, 0);
    const char *z = (const char *)sqlite3_column_text(pStmt, 1);
    if (zKey == NULL || z == NULL) {
      choirErrNomem(p->pErr);
    } else {
      seedKey(p, zKey, z);
    }
  }
  sqlite3_finalize(pStmt);
}

static void seedText(SeedRun *p, const char *zJson, const char *zWhat) {
  if (p->pErr->rc == SQLITE_OK && !choirIsJson(p->pConn, p->pErr, zJson)) {
    choirErrSet(p->pErr, SQLITE_ERROR, "%s is not valid JSON", zWhat);
  }
  if (p->pErr->rc == SQLITE_OK && zJson[strspn(zJson, " \t\r\n")] != '{') {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "%s must be a JSON object of keys and their values", zWhat);
  }
  seedObject(p, zJson);
}

#if !defined(_WIN32)

/* The value of one file, without white space around it, at zKey. */
static void seedFile(SeedRun *p, int fdDir, const char *zName,
                     const char *zShow, const char *zKey) {
  char *z = choirStoreReadText(p->pErr, &p->own, fdDir, zName, O_NOFOLLOW,
                               zShow, SEED_FILE);
  sqlite3_stmt *pStmt;
  if (z && !choirIsJson(p->pConn, p->pErr, z)) {
    choirErrSet(p->pErr, SQLITE_ERROR, "%s is not valid JSON", zShow);
  }
  pStmt = choirStmt(p->pConn, p->pErr, "SELECT json(?1)");
  choirBindText(p->pErr, pStmt, 1, z, -1);
  if (choirStep(p->pErr, pStmt)) {
    seedKey(p, zKey, (const char *)sqlite3_column_text(pStmt, 0));
  }
  choirStmtDone(p->pConn, pStmt);
  sqlite3_free(z);
}

static int seedIsJson(const char *z) {
  size_t n = strlen(z);
  return n > 5 && sqlite3_stricmp(z + n - 5, ".json") == 0;
}

/* Names that differ only by case side by side. */
static int seedOrder(const void *pA, const void *pB) {
  const char *zA = *(char *const *)pA, *zB = *(char *const *)pB;
  int c = sqlite3_stricmp(zA, zB);
  return c ? c : strcmp(zA, zB);
}

/* Two names that are one on a file system that ignores case. */
static void seedCase(SeedRun *p, const ChoirStoreNames *pNames, int i,
                     const char *zShow) {
  if (i > 0 && sqlite3_stricmp(pNames->az[i], pNames->az[i - 1]) == 0) {
    char *z = choirMprintf(p->pErr, "differs from %s only by case",
                           pNames->az[i - 1]);
    choirStoreProblem(&p->report, zShow, z ? z : "");
    sqlite3_free(z);
  }
}

/* The files of folder fd, whose keys begin with zPrefix. */
static void seedFolder(SeedRun *p, int fd, const char *zShow,
                       const char *zPrefix, int nDepth) {
  ChoirStoreNames names;
  int i;
  if (!choirStoreNamesRead(&names, p->pErr, fd) || nDepth > SEED_DEPTH) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot read %s: %s", zShow,
                nDepth > SEED_DEPTH ? "more than 16 folders deep"
                                    : strerror(errno));
  }
  if (names.n) {
    qsort(names.az, (size_t)names.n, sizeof(*names.az), seedOrder);
  }
  for (i = 0; i < names.n && p->pErr->rc == SQLITE_OK; i++) {
    const char *zName = names.az[i];
    char *zFile = choirMprintf(p->pErr, "%s/%s", zShow, zName);
    struct stat st;
    if (zName[0] == '.' || fstatat(fd, zName, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      /* hidden, or gone meanwhile */
    } else if (S_ISLNK(st.st_mode)) {
      choirStoreProblem(&p->report, zFile, "a symbolic link is not followed");
    } else if (S_ISDIR(st.st_mode)) {
      char *zKeys = choirMprintf(p->pErr, "%s%s/", zPrefix, zName);
      int fdSub =
          openat(fd, zName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
      seedCase(p, &names, i, zFile);
      if (fdSub < 0) {
        choirErrSet(p->pErr, SQLITE_ERROR, "cannot read %s: %s", zFile,
                    strerror(errno));
      } else {
        seedFolder(p, fdSub, zFile, zKeys, nDepth + 1);
        close(fdSub);
      }
      sqlite3_free(zKeys);
    } else if (seedIsJson(zName)) {
      char *zKey = choirMprintf(p->pErr, "%s%.*s", zPrefix,
                                (int)strlen(zName) - 5, zName);
      seedCase(p, &names, i, zFile);
      seedFile(p, fd, zName, zFile, zKey);
      sqlite3_free(zKey);
    }
    sqlite3_free(zFile);
  }
  choirStoreNamesFree(&names);
}

static void seedPath(SeedRun *p, const char *zPath) {
  struct stat st;
  char *z = NULL;
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (stat(zPath, &st) == 0 && S_ISDIR(st.st_mode)) {
    int fd = open(zPath, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n = (int)strlen(zPath);
    while (n > 1 && zPath[n - 1] == '/') {
      n--;
    }
    z = choirMprintf(p->pErr, "%.*s", n, zPath);
    if (fd < 0) {
      choirErrSet(p->pErr, SQLITE_ERROR, "cannot read %s: %s", zPath,
                  strerror(errno));
    } else {
      seedFolder(p, fd, z, "", 0);
      close(fd);
    }
  } else {
    z = choirStoreReadText(p->pErr, &p->own, AT_FDCWD, zPath, 0, zPath,
                           SEED_FILE);
    seedText(p, z, zPath);
  }
  sqlite3_free(z);
}

#else
static void seedPath(SeedRun *p, const char *zPath) {
  choirErrSet(p->pErr, SQLITE_ERROR, "cannot read %s: not on this system",
              zPath);
}
#endif

CHOIR_PRIVATE void choirStoreSeedImport(ChoirCall *pCall, const char *zFrom,
                                        int bReplace) {
  SeedRun run;
  ChoirTxn txn;
  ChoirErr *pErr = &pCall->err;
  char *zCounts;
  int bText = zFrom && zFrom[strspn(zFrom, " \t\r\n")] == '{';
  memset(&run, 0, sizeof(run));
  run.pConn = pCall->pConn;
  run.pErr = pErr;
  run.bReplace = bReplace;
  choirStoreReportInit(&run.report, pErr, pCall->pFunc->zName);
  choirNeedWorkspace(run.pConn, pErr);
  choirStoreOwnInit(&run.own, run.pConn, pErr);
  choirTxnBegin(&txn, run.pConn, pErr);
  if (bText) {
    seedText(&run, zFrom, "the text");
  } else {
    seedPath(&run, zFrom);
  }
  choirTxnEnd(&txn, pErr);
  zCounts = choirMprintf(
      pErr, "\"keys\":%lld,\"new\":%lld,\"changed\":%lld,\"kept\":%lld",
      run.report.nFile, run.nNew, run.nChanged, run.nKept);
  choirStoreReportResult(&run.report, "from", bText ? "json" : zFrom, zCounts,
                         pCall->pCtx);
  sqlite3_free(zCounts);
  choirBufFree(&run.report.problems);
  choirStoreOwnFree(&run.own);
}

/*
** SQL: state_import(json_or_file[, mode]) -> TEXT
**
** Brings keys into the state and returns a summary. One savepoint: an error
** leaves the state as it was.
**
**   json_or_file  TEXT: a JSON object {key: value, …}; or a file that holds
**                 one; or a folder, of which every *.json below it is a key
**                 (a/b.json is the key a/b)
**   mode          TEXT, seed (the default): keys that are there, or that an
**                 earlier import brought and somebody deleted, stay as they
**                 are, so that it can run at every start; replace: the values
**                 given take their place
**
** The seeds are the checkpoint seed too: state_restore('seed') goes back to
** them, and a value that is damaged is read from there.
**
** The summary is a JSON object: from; keys = new + changed + kept; problems,
** at most 100 objects of file and problem (a link, names that differ only by
** case).
**
** NULL: the first argument must be given; a NULL mode means seed.
** Errors: not JSON, not an object; a file that cannot be read.
**
** > WITH s AS MATERIALIZED (SELECT
** >   state_import('{"Identity":{"name":"Nola"},"Mood":"calm"}') AS a,
** >   state_set('Mood', '$', 'cross') AS b,
** >   state_import('{"Identity":{"name":"Nola"},"Mood":"calm"}') AS c)
** > SELECT a ->> 'new', c ->> 'kept', state_get('Mood') FROM s
** = 2|2|cross
*/
static void seedImport(ChoirCall *p) {
  static const char *const azMode[] = {"seed", "replace"};
  const char *zFrom = choirArgText(&p->err, p->apArg[0], "json_or_file");
  const char *zMode =
      p->nArg > 1 ? choirArgTextOrNull(&p->err, p->apArg[1], "mode") : NULL;
  if (zMode && strcmp(zMode, azMode[0]) != 0 && strcmp(zMode, azMode[1]) != 0) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "mode must be seed or replace, got '%.60s'", zMode);
  }
  choirStoreSeedImport(p, zFrom, zMode && zMode[0] == 'r');
}

static const ChoirFunc aSeedFunc[] = {
    {"state_import", 1, 2, CHOIR_EFFECT, 0, seedImport, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirStoreSeedRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aSeedFunc);
}
