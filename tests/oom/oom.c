/* SPDX-License-Identifier: MIT */
/*
** Fails every allocation of every SQL function, one at a time.
**
**   oom CASES.sql                 all cases, two at a time; in a case of many
**                                 allocations the first 100 and as many spread
**                                 over the rest, half of that for ever
**                                 (OOM_ALL=1: all)
**   oom CASES.sql NAME            one case
**   oom CASES.sql NAME N once|ever  one run in this process, for a debugger
**
** A case is a line `-- case NAME` and statements, run in a fresh workspace in
** memory (`-- case NAME @empty`: in an empty database; `@drops`: what failed may
** have dropped some of what it drops, because SQLite cannot roll back a DROP that
** runs out of memory before the host's own statement ends). For n = 1, 2, … a
** forked child runs it while the n-th allocation fails, once or from there on,
** until a run gets by without reaching n. Each child must show:
**
**   - SQLITE_NOMEM, or what the case gives when nothing fails
**   - no transaction left open that the case does not leave open itself
**   - the rest of the case, run again from the statement that failed, gives
**     what it gives when nothing fails, and choir_check() too
**   - after sqlite3_close(): every allocation freed
**   - no crash, no hang
*/
#define _GNU_SOURCE
#include "../../ext/choir.h"
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CASE 2048
#define MAX_SHOWN 3 /* failures printed per case */

typedef struct Case {
  char *zName;
  char *zSql;
  int bEmpty;
  int bDrops;
} Case;

typedef struct Result {
  int rc;
  char *zText; /* rows and error, malloc'd */
  size_t n, nAlloc;
  const char *zAt; /* the statement that failed, or the end */
  void *pBefore;   /* the database before that statement, sqlite3_malloc'd */
  sqlite3_int64 nBefore;
} Result;

typedef struct Shared { /* counters of all processes */
  long nFault, nBad, nCase, nDone;
} Shared;

static sqlite3_mem_methods memReal;
static long nCount;  /* allocations asked for since the fault was armed */
static long iFail;   /* the one that fails; 0: none */
static int bForEver; /* and all after it */
static long nFailed; /* how many failed */
static long nLiving; /* allocations not freed */
static Shared *pShared;
static Case aCase[MAX_CASE];
static int nCase;
static char *azName[MAX_CASE]; /* functions of choir */
static int nName;

static int memFails(void) {
  nCount++;
  if (iFail && (nCount == iFail || (bForEver && nCount > iFail))) {
    nFailed++;
    return 1;
  }
  return 0;
}

static void *memMalloc(int n) {
  void *p = memFails() ? NULL : memReal.xMalloc(n);
  nLiving += p != NULL;
  return p;
}

static void memFree(void *p) {
  nLiving -= p != NULL;
  memReal.xFree(p);
}

static void *memRealloc(void *p, int n) {
  return memFails() ? NULL : memReal.xRealloc(p, n);
}

static void memInstall(void) {
  sqlite3_mem_methods mem;
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memReal);
  mem = memReal;
  mem.xMalloc = memMalloc;
  mem.xFree = memFree;
  mem.xRealloc = memRealloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &mem);
  sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* would hide failures */
}

static void arm(long n, int bEver) {
  nCount = nFailed = 0;
  iFail = n;
  bForEver = bEver;
}

static void add(Result *p, const char *z, size_t n) {
  if (p->n + n + 1 > p->nAlloc) {
    p->nAlloc = (p->n + n + 1) * 2;
    p->zText = realloc(p->zText, p->nAlloc);
  }
  memcpy(p->zText + p->n, z, n);
  p->n += n;
  p->zText[p->n] = 0;
}

/* Reading a row is the host's part, whatever is armed. */
static void addRow(Result *p, sqlite3_stmt *pStmt) {
  long nArmed = nCount, iArmed = iFail;
  int i;
  iFail = 0;
  for (i = 0; i < sqlite3_column_count(pStmt); i++) {
    const void *a = sqlite3_column_blob(pStmt, i);
    int n = sqlite3_column_bytes(pStmt, i);
    if (a) {
      add(p, a, (size_t)n);
    }
    add(p, i + 1 < sqlite3_column_count(pStmt) ? "|" : "\n", 1);
  }
  nCount = nArmed;
  iFail = iArmed;
}

/* The database as bytes, whatever is armed. */
static void *snapshot(sqlite3 *db, sqlite3_int64 *pn) {
  long n = nCount, i = iFail;
  void *p;
  iFail = 0;
  p = sqlite3_serialize(db, "main", pn, 0);
  nCount = n;
  iFail = i;
  return p;
}

/* Runs statements from zSql on, until one fails. */
static void run(sqlite3 *db, const char *zSql, Result *p) {
  memset(p, 0, sizeof(*p));
  add(p, "", 0);
  p->zAt = zSql;
  while (p->rc == SQLITE_OK && *p->zAt) {
    sqlite3_stmt *pStmt = NULL;
    const char *zTail = NULL;
    size_t nBefore = p->n;
    sqlite3_free(p->pBefore);
    p->pBefore = snapshot(db, &p->nBefore);
    p->rc = sqlite3_prepare_v2(db, p->zAt, -1, &pStmt, &zTail);
    while (pStmt && sqlite3_step(pStmt) == SQLITE_ROW) {
      addRow(p, pStmt);
    }
    if (pStmt) {
      int rc = sqlite3_finalize(pStmt);
      p->rc = rc ? rc : p->rc;
    }
    if (p->rc == SQLITE_OK) {
      p->zAt = zTail;
    } else {
      p->n = nBefore; /* rows before the error do not count */
      p->zText[p->n] = 0;
      add(p, "error: ", 7);
      add(p, sqlite3_errmsg(db), strlen(sqlite3_errmsg(db)));
    }
  }
}

static void freeResult(Result *p) {
  free(p->zText);
  sqlite3_free(p->pBefore);
}

static int isNomem(int rc) {
  return (rc & 0xff) == SQLITE_NOMEM || rc == SQLITE_IOERR_NOMEM;
}

static sqlite3 *openCase(const Case *p) {
  sqlite3 *db = NULL;
  sqlite3_open(":memory:", &db);
  sqlite3_choir_init(db, NULL, NULL);
  if (!p->bEmpty) {
    sqlite3_exec(db, "SELECT choir_init()", NULL, NULL, NULL);
  }
  sqlite3_exec(db, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
  return db;
}

/* ------------------------------------------------ a folder for each child */

static int removeOne(const char *z, const struct stat *st, int e,
                     struct FTW *ftw) {
  (void)st, (void)e, (void)ftw;
  return remove(z);
}

static void enterFolder(char zDir[64]) {
  strcpy(zDir, "/tmp/choir-oom-XXXXXX");
  if (mkdtemp(zDir) == NULL || chdir(zDir) != 0) {
    perror("oom: mkdtemp");
    _exit(99);
  }
  setenv("HOME", zDir, 1);
}

static void leaveFolder(const char *zDir) {
  if (chdir("/") == 0) {
    nftw(zDir, removeOne, 16, FTW_DEPTH | FTW_PHYS);
  }
}

/* ---------------------------------------------------------------- one run */

typedef struct Baseline {
  Result all, check; /* the case, and choir_check() after it */
  int bAutocommit, bVolatile;
  long nLiving; /* after close */
  long nCount;  /* allocations of the case */
} Baseline;

static int complain(const Case *p, long n, int bEver, const char *zWhat,
                    const char *zMore) {
  printf("oom: %s, allocation %ld%s: %s%s%.200s\n", p->zName, n,
         bEver ? " and all after it" : "", zWhat, zMore ? ": " : "",
         zMore ? zMore : "");
  fflush(stdout); /* or every child to come prints it again */
  return 1;
}

/* An error whose message could not be copied keeps its code alone. */
static int differs(const Baseline *b, const Result *p, const Result *want) {
  if (p->rc != SQLITE_OK && p->rc == want->rc &&
      strstr(p->zText, sqlite3_errstr(p->rc))) {
    return 0;
  }
  return p->rc != want->rc || (!b->bVolatile && strcmp(p->zText, want->zText));
}

/* Functions that drop tables: when memory runs out inside SQLite's own DROP,
** nothing can be run or reset any more that would end the transaction (see
** ChoirTxn), and the host's ROLLBACK has to. */
static int dropsTables(const Case *p) {
  return strstr(p->zSql, "choir_uninstall") ||
         strstr(p->zSql, "log_untrack") ||
         strstr(p->zSql, "vec_index_drop") ||
         strstr(p->zSql, "ALTER TABLE"); /* triggers are made anew */
}

/* The statement at z begins with a call whose text result SQLite copies once
** more after the call has committed: without memory for that the host gets
** NOMEM, and the work is done. It is idempotent: done again it gives the same. */
static int losesResult(const char *z) {
  return strncmp(z, "SELECT event_define(", 20) == 0;
}

/* How many calls of choir are in the statement at z? */
static int callsIn(const char *z) {
  const char *zEnd = strchr(z, ';');
  int i, n = 0;
  for (i = 0; i < nName; i++) {
    const char *zAt = z;
    while ((zAt = strstr(zAt, azName[i])) != NULL && zAt < zEnd) {
      zAt += strlen(azName[i]);
      n += *zAt == '(';
    }
  }
  return n;
}

/* What failed left nothing behind and works when tried again. A statement with
** several calls may fail after one of them has done its work. */
static int runAgain(const Case *p, sqlite3 *db, const Baseline *b, long n,
                    int bEver, const Result *pFailed) {
  size_t nGood = pFailed->n - strlen(strstr(pFailed->zText, "error: "));
  sqlite3_int64 nNow;
  void *pNow = snapshot(db, &nNow);
  int bSame = nNow == pFailed->nBefore &&
              (nNow == 0 || memcmp(pNow, pFailed->pBefore, (size_t)nNow) == 0);
  Result r;
  int bad = 0;
  sqlite3_free(pNow);
  bSame |= pFailed->nBefore == 0 && nNow <= 4096; /* still no table */
  bSame |= p->bDrops || losesResult(pFailed->zAt);
  if (!bSame && callsIn(pFailed->zAt) < 2) {
    bad = complain(p, n, bEver, "the failed call changed the database", NULL);
  }
  run(db, pFailed->zAt, &r);
  if (bSame &&
      (r.rc != b->all.rc ||
       (!b->bVolatile && strcmp(r.zText, b->all.zText + nGood) != 0))) {
    bad = complain(p, n, bEver, "run again it gives", r.zText);
  }
  freeResult(&r);
  return bad;
}

/* The run of a child: 0 good, 1 bad, 2 good and n was not reached. */
static int runFault(const Case *p, sqlite3 *db, const Baseline *b, long n,
                    int bEver) {
  Result r, check;
  int bad = 0, bReached;
  arm(n, bEver);
  run(db, p->zSql, &r);
  bReached = nFailed > 0;
  arm(0, 0);
  if (!bReached) {
    sqlite3_close(db);
    return 2;
  }
  if (!isNomem(r.rc) && differs(b, &r, &b->all)) {
    bad =
        complain(p, n, bEver, "neither out of memory nor the result", r.zText);
  }
  if (sqlite3_get_autocommit(db) == 0 && b->bAutocommit) {
    if (!dropsTables(p)) {
      bad = complain(p, n, bEver, "a transaction is left open", NULL);
    }
    sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
  }
  if (isNomem(r.rc)) {
    bad |= runAgain(p, db, b, n, bEver, &r);
  }
  if (n % 8 == 0) { /* it costs more than most cases */
    run(db, "SELECT choir_check()", &check);
    if (differs(b, &check, &b->check)) {
      bad = complain(p, n, bEver, "choir_check()", check.zText);
    }
    freeResult(&check);
  }
  freeResult(&r);
  if (sqlite3_close(db) != SQLITE_OK) {
    bad = complain(p, n, bEver, "sqlite3_close", sqlite3_errmsg(db));
  } else if (nLiving > b->nLiving) {
    bad = complain(p, n, bEver, "allocations are leaked", NULL);
  }
  return bad;
}

/* Loading choir itself, from an empty connection. */
static int runLoad(const Case *p, long n, int bEver, long nBase) {
  sqlite3 *db = NULL;
  char *zErr = NULL;
  int rc, bReached, bad = 0;
  sqlite3_open(":memory:", &db);
  arm(n, bEver);
  rc = sqlite3_choir_init(db, &zErr, NULL);
  bReached = nFailed > 0;
  arm(0, 0);
  sqlite3_free(zErr);
  if (rc != SQLITE_OK && !isNomem(rc)) {
    bad = complain(p, n, bEver, "loading fails otherwise", sqlite3_errstr(rc));
  }
  if (sqlite3_close(db) != SQLITE_OK) {
    bad = complain(p, n, bEver, "sqlite3_close", NULL);
  } else if (nLiving > nBase) {
    bad = complain(p, n, bEver, "allocations are leaked", NULL);
  }
  return bad ? 1 : bReached ? 0 : 2;
}

/* ------------------------------------------------------------ a case's sweep
 */

static void baseline(const Case *p, Baseline *b) {
  Result second;
  int i;
  memset(&second, 0, sizeof(second));
  memset(b, 0, sizeof(*b));
  for (i = 0; i < 2; i++) {
    char zDir[64];
    sqlite3 *db;
    enterFolder(zDir);
    db = openCase(p);
    arm(0, 0);
    run(db, p->zSql, i ? &second : &b->all);
    b->nCount = nCount;
    b->bAutocommit = sqlite3_get_autocommit(db);
    if (i) {
      run(db, "SELECT choir_check()", &b->check);
    }
    sqlite3_free(i ? second.pBefore : b->all.pBefore);
    sqlite3_free(b->check.pBefore);
    second.pBefore = b->all.pBefore = b->check.pBefore = NULL;
    sqlite3_close(db);
    leaveFolder(zDir);
    usleep(2000);
  }
  b->nLiving = nLiving;
  b->bVolatile = strcmp(second.zText, b->all.zText) != 0;
  freeResult(&second);
  if (isNomem(b->all.rc)) {
    complain(p, 0, 0, "out of memory when nothing fails", NULL);
    __sync_fetch_and_add(&pShared->nBad, 1);
  }
}

static int child(const Case *p, sqlite3 *db, const Baseline *b, long n,
                 int bEver) {
  int rc;
  char zDir[64];
  alarm(30);
  enterFolder(zDir);
  rc =
      p->zSql ? runFault(p, db, b, n, bEver) : runLoad(p, n, bEver, b->nLiving);
  leaveFolder(zDir);
  fflush(stdout);
  return rc;
}

static void sweep(const Case *p) {
  Baseline b;
  sqlite3 *db = NULL;
  int bEver, nShown = 0, nWorst = 0, bAll = getenv("OOM_ALL") != NULL;
  long nStep;
  memset(&b, 0, sizeof(b));
  if (p->zSql) {
    baseline(p, &b);
    db = openCase(p);
  }
  nStep = b.nCount / 100 + 1;
  for (bEver = 0; bEver < 2; bEver++) {
    long n;
    for (n = 1; nShown < MAX_SHOWN;
         n += bAll || n < 100 >> bEver ? 1 : nStep << bEver) {
      int status = 0;
      pid_t pid = fork();
      if (pid == 0) {
        _exit(child(p, db, &b, n, bEver));
      }
      waitpid(pid, &status, 0);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
        break;
      }
      __sync_fetch_and_add(&pShared->nFault, 1);
      if (WIFSIGNALED(status)) {
        complain(p, n, bEver, strsignal(WTERMSIG(status)), NULL);
      }
      if (status != 0) {
        nShown++;
        nWorst = 1;
      }
    }
  }
  if (db) {
    sqlite3_close(db);
  }
  __sync_fetch_and_add(&pShared->nBad, nWorst);
  if (__sync_add_and_fetch(&pShared->nDone, 1) % 25 == 0) {
    printf("oom: %ld of %d cases, %ld failures\n", pShared->nDone, nCase,
           pShared->nFault);
  }
  fflush(stdout);
}

/* ------------------------------------------------------------------- cases */

static void readCases(const char *zFile) {
  FILE *f = fopen(zFile, "rb");
  char *z, *zNext;
  size_t n;
  if (f == NULL) {
    perror(zFile);
    exit(1);
  }
  z = malloc(1 << 24);
  n = fread(z, 1, (1 << 24) - 1, f);
  z[n] = 0;
  fclose(f);
  aCase[nCase++].zName = "load"; /* no SQL: the entry point itself */
  for (z = strstr(z, "-- case "); z && nCase < MAX_CASE; z = zNext) {
    Case *p = &aCase[nCase++];
    char *zEnd = strchr(z, '\n'), *zFlag;
    p->zName = z + 8;
    *zEnd = 0;
    p->zSql = zEnd + 1;
    zNext = strstr(p->zSql, "-- case ");
    if (zNext) {
      zNext[-1] = 0;
    }
    p->bEmpty = strstr(p->zName, " @empty") != NULL;
    p->bDrops = strstr(p->zName, " @drops") != NULL;
    zFlag = strstr(p->zName, " @");
    if (zFlag) {
      *zFlag = 0;
    }
  }
}

static void readNames(void) {
  sqlite3 *db = NULL;
  sqlite3_stmt *p = NULL;
  sqlite3_open(":memory:", &db);
  sqlite3_choir_init(db, NULL, NULL);
  sqlite3_prepare_v2(db, "SELECT name FROM choir_help", -1, &p, NULL);
  while (sqlite3_step(p) == SQLITE_ROW) {
    azName[nName++] = strdup((const char *)sqlite3_column_text(p, 0));
  }
  sqlite3_finalize(p);
  sqlite3_close(db);
}

/* Is every function of choir in a case? */
static int allCovered(void) {
  int i, j, bad = 0;
  for (i = 0; i < nName; i++) {
    for (j = 0; j < nCase; j++) {
      if (aCase[j].zSql && strstr(aCase[j].zSql, azName[i])) {
        break;
      }
    }
    if (j == nCase) {
      printf("oom: %s is in no case; add one to tests/oom/calls.sql\n",
             azName[i]);
      bad = 1;
    }
  }
  return bad;
}

static int one(const char *zName, const char *zN, const char *zMode) {
  int i;
  for (i = 0; i < nCase; i++) {
    if (strcmp(aCase[i].zName, zName) == 0) {
      Baseline b;
      if (zN == NULL) {
        sweep(&aCase[i]);
        continue;
      }
      memset(&b, 0, sizeof(b));
      if (aCase[i].zSql) {
        baseline(&aCase[i], &b);
      }
      return child(&aCase[i], aCase[i].zSql ? openCase(&aCase[i]) : NULL, &b,
                   atol(zN), zMode && strcmp(zMode, "ever") == 0);
    }
  }
  return pShared->nBad > 0;
}

int main(int argc, char **argv) {
  pid_t aPid[2];
  int i, w, bad;
  if (argc < 2) {
    fprintf(stderr, "usage: oom CASES.sql [NAME [N [once|ever]]]\n");
    return 2;
  }
  pShared = mmap(NULL, sizeof(*pShared), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  memInstall();
  sqlite3_initialize();
  readCases(argv[1]);
  readNames();
  if (argc > 2) {
    return one(argv[2], argc > 3 ? argv[3] : NULL, argc > 4 ? argv[4] : NULL);
  }
  bad = allCovered();
  fflush(stdout);
  for (w = 0; w < 2; w++) {
    aPid[w] = fork();
    if (aPid[w] == 0) {
      while ((i = (int)__sync_fetch_and_add(&pShared->nCase, 1)) < nCase) {
        sweep(&aCase[i]);
      }
      _exit(0);
    }
  }
  for (w = 0; w < 2; w++) {
    int status = 0;
    waitpid(aPid[w], &status, 0);
    bad |= status != 0;
  }
  printf("%d cases, %ld allocations failed, %ld cases bad\n", nCase,
         pShared->nFault, pShared->nBad);
  return bad || pShared->nBad > 0;
}
