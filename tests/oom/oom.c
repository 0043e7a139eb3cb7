/* SPDX-License-Identifier: MIT */
/*
** Fails every allocation of every SQL function, one at a time.
**
**   oom CASES.sql               all cases, two at a time; of each case about
**                               100 places that ask for memory (stacks) and 20
**                               more allocations that the seed chooses, and half
**                               as many from there on for ever
**   oom CASES.sql NAME          one case
**   oom CASES.sql NAME S.N once|ever
**                               one run in this process, for a debugger: in
**                               statement S allocation N fails, or all from N on
**
**   OOM_SEED=7     other choices than those of seed 1
**   OOM_PLACES=1   every place
**   OOM_ALL=1      every allocation (OOM_ALL=5: every fifth, from the seed on)
**   OOM_JOBS=2     cases at a time
**   OOM_SHOW=3     failures printed of a case, which ends there
**
** A case is a line `-- case NAME` and statements, run in a fresh workspace in
** memory, in an empty folder (`@empty`: in an empty database). A forked child
** runs one statement while the n-th allocation of it fails, once or from there
** on. Each child must show:
**
**   - SQLITE_NOMEM, or what the statement gives when nothing fails
**   - no transaction left open that the statement does not leave open itself
**   - a statement that failed changed nothing; run again, it gives what it
**     gives when nothing fails, and (in every 8th child) so do the rest of the
**     case and choir_check()
**   - after sqlite3_close(): every allocation freed
**   - no crash, no hang
**
** Clock and randomness repeat themselves (world.c): what a seed chooses is the
** same allocation in every run of one build. Not so where the case talks to a
** server (`@net`, with the server's address in the environment variable NAME of
** `@net=NAME`: without it the case is left out): there each child begins from
** the first statement with a connection of its own, and results are compared
** without their digits. `@drops`: what failed may have dropped some of what it
** drops, because SQLite cannot roll back a DROP that runs out of memory before
** the host's own statement ends.
*/
#include "oom.h"
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_CASE 2048
#define MAX_TEXT (1 << 20)  /* bytes of a result that are compared */
#define MAX_POINT (1 << 20) /* allocations of a statement that can fail */
#define PLACES 100 /* of a case, chosen by the seed; half as many for ever */
#define OTHERS 20  /* likewise of all its allocations */

typedef struct Case {
  char *zName;
  char *zSql; /* NULL: loading choir */
  int bEmpty, bDrops, bAlone, bNet, bSkip;
} Case;

typedef struct Result { /* of one statement */
  int rc;
  char *zText; /* rows or error, malloc'd */
  size_t n, nAlloc;
  const char *zTail;
} Result;

typedef struct Probe { /* of one statement when nothing fails; shared */
  int rc, bEnd, bAutocommit;
  long nAsked;
  int rcRest, rcCheck;
  char zStep[MAX_TEXT], zRest[MAX_TEXT], zCheck[MAX_TEXT];
} Probe;

typedef struct Run { /* a case being swept */
  const Case *p;
  sqlite3 *db;
  const char *zAt; /* the statement */
  int iStep;       /* its number, from 1 */
  int nStep;       /* how many the case has, about */
  int bAutocommit; /* before it */
  void *pBefore;   /* the database before it, sqlite3_malloc'd */
  sqlite3_int64 nBefore;
  Probe *pProbe; /* two of them; the second in another world */
  int bVolatile; /* they differ */
  long nBase;    /* allocations living before the connection */
  int nShown;
  char zDir[64];
} Run;

static Case aCase[MAX_CASE];
static int nCase, nSkip;
static long iSeed = 1, nStride, nShow = 3;
static int bPlaces;
static unsigned long long *aStack; /* of a statement's allocations; shared */
static unsigned long long aSeen[1 << 17]; /* stacks of this case: a hash set */

static long envInt(const char *zName, long iDefault) {
  const char *z = getenv(zName);
  return z && *z ? atol(z) : iDefault;
}

/* ------------------------------------------------------------- statements */

static void add(Result *p, const char *z, size_t n) {
  if (p->n + n + 1 > p->nAlloc) {
    p->nAlloc = (p->n + n + 1) * 2;
    p->zText = realloc(p->zText, p->nAlloc);
  }
  memcpy(p->zText + p->n, z, n);
  p->n += n;
  p->zText[p->n] = 0;
}

/* Reading a row is the host's part: nothing fails there. */
static void addRow(Result *p, sqlite3_stmt *pStmt) {
  int i, j, nCol = sqlite3_column_count(pStmt);
  worldPause();
  for (i = 0; i < nCol; i++) {
    int bBlob = sqlite3_column_type(pStmt, i) == SQLITE_BLOB;
    const char *a = sqlite3_column_blob(pStmt, i);
    int n = sqlite3_column_bytes(pStmt, i);
    for (j = 0; bBlob && j < n; j++) {
      char zHex[3];
      sqlite3_snprintf(3, zHex, "%02x", (unsigned char)a[j]);
      add(p, zHex, 2);
    }
    if (a && !bBlob) {
      add(p, a, (size_t)n);
    }
    add(p, i + 1 < nCol ? "|" : "\n", 1);
  }
  worldResume();
}

/* Adds what the statement at zSql gives. The host's part, see worldInside(). */
static void HOST step(sqlite3 *db, const char *zSql, Result *p) {
  sqlite3_stmt *pStmt = NULL;
  size_t nBefore = p->n;
  if (p->zText == NULL) {
    add(p, "", 0);
  }
  p->rc = sqlite3_prepare_v2(db, zSql, -1, &pStmt, &p->zTail);
  while (pStmt && sqlite3_step(pStmt) == SQLITE_ROW) {
    addRow(p, pStmt);
  }
  if (pStmt) {
    int rc = sqlite3_finalize(pStmt);
    p->rc = rc ? rc : p->rc;
  }
  if (p->rc != SQLITE_OK) { /* rows before the error do not count */
    p->n = nBefore;
    p->zText[p->n] = 0;
    add(p, "error: ", 7);
    add(p, sqlite3_errmsg(db), strlen(sqlite3_errmsg(db)));
  }
}

/* All statements from zSql on, until one fails. */
static void rest(sqlite3 *db, const char *zSql, Result *p) {
  memset(p, 0, sizeof(*p));
  add(p, "", 0);
  while (p->rc == SQLITE_OK && *zSql) {
    step(db, zSql, p);
    zSql = p->zTail;
  }
}

static void *snapshot(sqlite3 *db, sqlite3_int64 *pn) {
  void *p;
  worldPause();
  p = sqlite3_serialize(db, "main", pn, 0);
  worldResume();
  return p;
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

static const char *zCopyTo; /* of copyOne */

static int copyOne(const char *z, const struct stat *st, int e,
                   struct FTW *ftw) {
  char zTo[512], a[65536];
  ssize_t n;
  (void)ftw;
  if (strcmp(z, ".") == 0) {
    return 0;
  }
  snprintf(zTo, sizeof(zTo), "%s/%s", zCopyTo, z);
  if (e == FTW_D) {
    return mkdir(zTo, st->st_mode & 0777);
  }
  if (e == FTW_F) {
    int in = open(z, O_RDONLY);
    int out = open(zTo, O_WRONLY | O_CREAT, st->st_mode & 0777);
    struct timespec at[2] = {st->st_atim, st->st_mtim};
    while ((n = read(in, a, sizeof(a))) > 0 && write(out, a, (size_t)n) == n) {
    }
    futimens(out, at);
    close(in);
    close(out);
  }
  return 0;
}

static int removeOne(const char *z, const struct stat *st, int e,
                     struct FTW *ftw) {
  (void)st, (void)e, (void)ftw;
  return remove(z);
}

/* Into a new folder, a copy of the one we are in when bCopy. */
static void enterFolder(char zDir[64], int bCopy) {
  strcpy(zDir, "/tmp/choir-oom-XXXXXX");
  zCopyTo = zDir;
  if (mkdtemp(zDir) == NULL ||
      (bCopy && nftw(".", copyOne, 16, FTW_PHYS) != 0) || chdir(zDir) != 0) {
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

/* ------------------------------------------------------- what is expected */

/* Equal but for digits, also hexadecimal ones: ids, times, ports. */
static int alike(const char *zA, const char *zB) {
  static const char *const zDigits = "0123456789abcdef";
  for (;; zA++, zB++) {
    zA += strspn(zA, zDigits);
    zB += strspn(zB, zDigits);
    if (*zA != *zB) {
      return 0;
    }
    if (*zA == 0) {
      return 1;
    }
  }
}

/* An error whose message could not be copied keeps its code alone. */
static int differs(const Run *r, int rc, const char *z, int rcWant,
                   const char *zWant) {
  if (rc != rcWant) {
    return 1;
  }
  if (rc != SQLITE_OK && strstr(z, sqlite3_errstr(rc))) {
    return 0;
  }
  return r->bVolatile ? !alike(z, zWant) : strncmp(z, zWant, MAX_TEXT - 1) != 0;
}

static void keepText(char zTo[MAX_TEXT], const char *z) {
  sqlite3_snprintf(MAX_TEXT, zTo, "%s", z);
}

/* ---------------------------------------------------------------- one run */

static int complain(const Run *r, long n, int bEver, const char *zWhat,
                    const char *zMore) {
  printf("oom: %s %d.%ld %s: %s%s%.300s\n", r->p->zName, r->iStep, n,
         bEver ? "ever" : "once", zWhat, zMore ? ": " : "", zMore ? zMore : "");
  printf("oom:   replay: tests/oom/run.py %s %d.%ld %s\n", r->p->zName,
         r->iStep, n, bEver ? "ever" : "once");
  worldWhere(1, NULL);
  fflush(stdout); /* or every child to come prints it again */
  return 1;
}

static int isName(const char *z, const char *zEnd, const char *zName) {
  return (long)strlen(zName) == zEnd - z &&
         strncmp(z, zName, strlen(zName)) == 0;
}

/* May the statement have failed after a call of choir has done its work and
** committed it? Where it calls choir twice, or a function with effects, which
** works in steps; or memory ran out in SQLite's own work for the host: it copies
** a text once more for the row that the host sees, and no function can do
** anything about it. */
static int failsLater(const Run *r) {
  const char *z = r->zAt, *zEnd = strchr(z, ';');
  int n = 0;
  for (; z < zEnd; z++) {
    const char *zName = z;
    int i;
    z += strspn(z, "abcdefghijklmnopqrstuvwxyz0123456789_");
    for (i = 0; *z == '(' && i < pShared->nFunction; i++) {
      if (isName(zName, z, pShared->azFunction[i])) {
        n += 1 + pShared->aEffect[i];
      }
    }
    for (i = 0; *z == '(' && i < pShared->nModule; i++) {
      n += isName(zName, z, pShared->aModule[i].zName);
    }
  }
  return n > 1 || !worldInside();
}

/* What failed left nothing behind and works when tried again. */
static int runAgain(const Run *r, long n, int bEver) {
  sqlite3_int64 nNow;
  void *pNow = snapshot(r->db, &nNow);
  Result again;
  int bad = 0;
  int bSame = nNow == r->nBefore &&
              (nNow == 0 || memcmp(pNow, r->pBefore, (size_t)nNow) == 0);
  sqlite3_free(pNow);
  bSame |= r->nBefore == 0 && nNow <= 4096; /* still no table */
  bSame |= r->p->bDrops;
  if (!bSame && !failsLater(r)) {
    bad = complain(r, n, bEver, "the failed call changed the database", NULL);
  }
  memset(&again, 0, sizeof(again));
  step(r->db, r->zAt, &again);
  /* What is done at the server is done: a delete finds nothing any more. */
  if (bSame && (r->p->bNet && failsLater(r)
                    ? again.rc != r->pProbe->rc
                    : differs(r, again.rc, again.zText, r->pProbe->rc,
                              r->pProbe->zStep))) {
    bad = complain(r, n, bEver, "run again it gives", again.zText);
  }
  free(again.zText);
  return bad;
}

static int checkRest(const Run *r, long n, int bEver) {
  Result more;
  int bad = 0;
  rest(r->db, r->pProbe->rc == SQLITE_OK ? r->zAt + r->pProbe->bEnd : "",
       &more);
  if (differs(r, more.rc, more.zText, r->pProbe->rcRest, r->pProbe->zRest)) {
    bad = complain(r, n, bEver, "the rest of the case gives", more.zText);
  }
  free(more.zText);
  rest(r->db, "SELECT choir_check()", &more);
  if (differs(r, more.rc, more.zText, r->pProbe->rcCheck, r->pProbe->zCheck)) {
    bad = complain(r, n, bEver, "choir_check() gives", more.zText);
  }
  free(more.zText);
  return bad;
}

/* The statement with a failure: 0 good, 1 bad, 2 n was not reached. */
static int runFault(const Run *r, long n, int bEver) {
  const Probe *want = r->pProbe;
  Result now;
  int bad = 0, bReached, bAutocommit;
  memset(&now, 0, sizeof(now));
  worldArm(n, bEver, NULL, 0);
  step(r->db, r->zAt, &now);
  bReached = nFailed > 0;
  nFailed = 0;
  worldArm(0, 0, NULL, 0);
  if (!bReached) {
    sqlite3_close(r->db);
    return 2;
  }
  if (!isNomem(now.rc) &&
      differs(r, now.rc, now.zText, want->rc, want->zStep)) {
    bad = complain(r, n, bEver, "neither out of memory nor the result",
                   now.zText);
  }
  bAutocommit = isNomem(now.rc) ? r->bAutocommit : want->bAutocommit;
  if (sqlite3_get_autocommit(r->db) == 0 && bAutocommit) {
    /* When memory runs out around SQLite's own DROP, nothing can be run or
    ** reset any more that would end the transaction (see ChoirTxn), and the
    ** host's ROLLBACK has to. */
    if (!worldWhere(0, "stmtExecDrop")) {
      bad = complain(r, n, bEver, "a transaction is left open", NULL);
    }
    sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
  }
  /* Without memory SQLite may roll back a transaction of the host's. */
  if (isNomem(now.rc) && sqlite3_get_autocommit(r->db) == r->bAutocommit) {
    bad |= runAgain(r, n, bEver);
  }
  if (n % 8 == 0 && !bad && (!isNomem(now.rc) || !failsLater(r)) &&
      sqlite3_get_autocommit(r->db) == want->bAutocommit) {
    bad = checkRest(r, n, bEver); /* it costs more than most cases */
  }
  free(now.zText);
  if (sqlite3_close(r->db) != SQLITE_OK) {
    bad = complain(r, n, bEver, "sqlite3_close", sqlite3_errmsg(r->db));
  } else if (nLiving > r->nBase + (r->pBefore != NULL)) {
    bad = complain(r, n, bEver, "allocations are leaked", NULL);
  }
  return bad;
}

/* Loading choir itself, on an empty connection. */
static int runLoad(const Run *r, long n, int bEver) {
  sqlite3 *db = NULL;
  char *zErr = NULL;
  int rc, bReached, bad = 0;
  sqlite3_open(":memory:", &db);
  worldArm(n, bEver, n ? NULL : aStack, n ? 0 : MAX_POINT);
  rc = sqlite3_choir_init(db, &zErr, NULL);
  bReached = nFailed > 0;
  if (n == 0) {
    r->pProbe->nAsked = nAsked;
  }
  worldArm(0, 0, NULL, 0);
  sqlite3_free(zErr);
  if (rc != SQLITE_OK && !isNomem(rc)) {
    bad = complain(r, n, bEver, "loading fails otherwise", sqlite3_errstr(rc));
  }
  if (sqlite3_close(db) != SQLITE_OK) {
    bad = complain(r, n, bEver, "sqlite3_close", NULL);
  } else if (nLiving > r->nBase + (r->pBefore != NULL)) {
    bad = complain(r, n, bEver, "allocations are leaked", NULL);
  }
  return bad ? 1 : bReached || n == 0 ? 0 : 2;
}

/* ------------------------------------------------------------- a statement */

/* A world of its own: the one of the statements before, or all of them again
** where they talk to a server. */
static void beginRun(Run *r, char zDir[64]) {
  alarm(120);
  enterFolder(zDir, !r->p->bAlone);
  if (r->p->bAlone) {
    const char *z = r->p->zSql;
    r->db = openCase(r->p);
    while (z < r->zAt) {
      Result before;
      memset(&before, 0, sizeof(before));
      step(r->db, z, &before);
      z = before.zTail + strspn(before.zTail, " \n");
      free(before.zText);
    }
    sqlite3_free(r->pBefore);
    r->pBefore = snapshot(r->db, &r->nBefore);
    r->bAutocommit = sqlite3_get_autocommit(r->db);
  }
}

static int noteCall(void *pArg, int e, const char *zA, const char *zB,
                    const char *zC, const char *zD) {
  int i;
  (void)pArg, (void)zA, (void)zC, (void)zD;
  for (i = 0; e == SQLITE_FUNCTION && zB && i < pShared->nFunction; i++) {
    if (sqlite3_stricmp(zB, pShared->azFunction[i]) == 0) {
      pShared->aCalled[i] = 1;
    }
  }
  return SQLITE_OK;
}

/* The statement when nothing fails; in another world the second time. */
static void probe(Run *r, int iOther) {
  Probe *p = &r->pProbe[iOther];
  Result now;
  char zDir[64];
  memset(&now, 0, sizeof(now));
  beginRun(r, zDir);
  if (iOther) {
    worldBegin(1, r->p->bNet);
    sqlite3_set_authorizer(r->db, noteCall, NULL);
  }
  worldArm(0, 0, iOther ? NULL : aStack, iOther ? 0 : MAX_POINT);
  step(r->db, r->zAt, &now);
  p->nAsked = nAsked;
  worldArm(0, 0, NULL, 0);
  p->rc = now.rc;
  p->bAutocommit = sqlite3_get_autocommit(r->db);
  p->bEnd = (int)(now.zTail - r->zAt);
  keepText(p->zStep, now.zText);
  rest(r->db, now.rc == SQLITE_OK ? now.zTail : "", &now);
  p->rcRest = now.rc;
  keepText(p->zRest, now.zText);
  rest(r->db, "SELECT choir_check()", &now);
  p->rcCheck = now.rc;
  keepText(p->zCheck, now.zText);
  sqlite3_close(r->db);
  leaveFolder(zDir);
}

static int fault(Run *r, long n, int bEver) {
  char zDir[64];
  int rc;
  beginRun(r, zDir);
  rc = r->p->zSql ? runFault(r, n, bEver) : runLoad(r, n, bEver);
  leaveFolder(zDir);
  fflush(stdout);
  return rc;
}

static unsigned long long mix(unsigned long long h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdull;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ull;
  return h ^ h >> 33;
}

/* Has this case asked for memory with this stack before? */
static int seen(unsigned long long h) {
  size_t i = (size_t)(mix(h) % (sizeof(aSeen) / sizeof(aSeen[0])));
  int nTry = 0;
  while (aSeen[i] && aSeen[i] != h && nTry++ < 64) {
    i = (i + 1) % (sizeof(aSeen) / sizeof(aSeen[0]));
  }
  if (aSeen[i] == h) {
    return 1;
  }
  aSeen[i] = h;
  return 0;
}

/* Shall allocation n of the statement fail? bNew: the first from its place, one
** of nNew. */
static int chosen(const Run *r, long n, int bEver, int bNew, long nNew) {
  unsigned long long h = mix((unsigned long long)iSeed * 1000003ull +
                             (unsigned long long)r->iStep);
  long nMany = r->pProbe->nAsked * r->nStep;
  h = mix(h ^ (unsigned long long)n * 2 ^ (unsigned long long)bEver);
  if (nStride) {
    return (n + iSeed) % nStride == 0;
  }
  if (bPlaces) {
    return bNew;
  }
  return (bNew && (long)(h % (unsigned long long)(nNew * r->nStep)) < PLACES >>
                      bEver) ||
         (long)((h >> 32) % (unsigned long long)nMany) < OTHERS >> bEver;
}

static void oneFault(Run *r, long n, int bEver) {
  int status = 0;
  pid_t pid = fork();
  if (pid == 0) {
    _exit(fault(r, n, bEver));
  }
  waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
    return;
  }
  __sync_fetch_and_add(&pShared->nFault, 1);
  if (WIFSIGNALED(status)) {
    complain(r, n, bEver, strsignal(WTERMSIG(status)), NULL);
  }
  r->nShown += status != 0;
}

static void sweepStep(Run *r) {
  static unsigned char abNew[MAX_POINT];
  long n, nNew = 0, nPoint = r->pProbe->nAsked;
  nPoint = nPoint < MAX_POINT ? nPoint : MAX_POINT;
  for (n = 0; n < nPoint; n++) {
    abNew[n] = (unsigned char)!seen(aStack[n]);
    nNew += abNew[n];
  }
  for (n = 0; n < nPoint * 2 && r->nShown < nShow; n++) {
    if (chosen(r, n / 2 + 1, n % 2, abNew[n / 2], nNew)) {
      oneFault(r, n / 2 + 1, n % 2);
    }
  }
}

/* Both probes; 0 when the statement cannot be swept. */
static int probeStep(Run *r) {
  int i, status = 0;
  for (i = 0; i < 2; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      probe(r, i);
      fflush(stdout);
      _exit(0);
    }
    waitpid(pid, &status, 0);
    if (status != 0) {
      r->nShown += complain(r, 0, 0, "it fails when nothing fails", NULL);
      return 0;
    }
  }
  if (isNomem(r->pProbe->rc)) {
    r->nShown += complain(r, 0, 0, "out of memory when nothing fails", NULL);
    return 0;
  }
  r->bVolatile = strcmp(r->pProbe[0].zStep, r->pProbe[1].zStep) != 0 ||
                 strcmp(r->pProbe[0].zRest, r->pProbe[1].zRest) != 0;
  return 1;
}

/* ------------------------------------------------------------------- a case */

static int stepsIn(const char *z) {
  int n = 0;
  while (z && (z = strstr(z, ";\n")) != NULL) {
    z++;
    n++;
  }
  return n ? n : 1;
}

static void beginCase(Run *r, const Case *p) {
  memset(r, 0, sizeof(*r));
  r->p = p;
  r->iStep = 1;
  r->zAt = p->zSql;
  r->nStep = stepsIn(p->zSql);
  r->pProbe = mmap(NULL, 2 * sizeof(Probe), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  enterFolder(r->zDir, 0);
  worldBegin(0, p->bNet);
  r->nBase = nLiving;
  r->db = p->zSql && !p->bAlone ? openCase(p) : NULL;
}

/* Are there statements left? What is before the next one is remembered. */
static int nextStep(Run *r) {
  r->zAt += strspn(r->zAt, " \n");
  if (r->db) {
    sqlite3_free(r->pBefore);
    r->pBefore = snapshot(r->db, &r->nBefore);
  }
  r->bAutocommit = r->db == NULL || sqlite3_get_autocommit(r->db);
  return *r->zAt != 0;
}

/* Past the statement at r->zAt. */
static void passStep(Run *r) {
  Result now;
  memset(&now, 0, sizeof(now));
  if (r->db) {
    step(r->db, r->zAt, &now);
    r->zAt = now.zTail;
    free(now.zText);
  } else {
    r->zAt += r->pProbe->bEnd;
  }
  r->iStep++;
}

static void endCase(Run *r) {
  sqlite3_free(r->pBefore);
  sqlite3_close(r->db);
  leaveFolder(r->zDir);
}

/* Returns 1 when something is bad. */
static int sweepCase(const Case *p) {
  Run r;
  beginCase(&r, p);
  if (p->zSql == NULL) {
    runLoad(&r, 0, 0);
    sweepStep(&r);
  }
  while (p->zSql && nextStep(&r) && r.nShown < nShow && probeStep(&r)) {
    sweepStep(&r);
    if (r.pProbe->rc != SQLITE_OK) {
      if (p->bNet) { /* these are there for what succeeds */
        r.nShown += complain(&r, 0, 0, "it fails", r.pProbe->zStep);
      }
      break;
    }
    passStep(&r);
  }
  endCase(&r);
  return r.nShown > 0;
}

/* Statement iStep with a failure, in this process. */
static int replay(const Case *p, int iStep, long n, int bEver) {
  Run r;
  beginCase(&r, p);
  while (p->zSql && nextStep(&r) && probeStep(&r) && r.iStep < iStep) {
    passStep(&r);
  }
  alarm(0);
  return fault(&r, n, bEver);
}

/* ------------------------------------------------------------------- cases */

/* z with the address of the server in the place of each $NAME; malloc'd. */
static char *withAddress(const char *z, const char *zName) {
  Result r;
  const char *zAt;
  memset(&r, 0, sizeof(r));
  for (; (zAt = strchr(z, '$')) != NULL; z = zAt) {
    add(&r, z, (size_t)(zAt - z));
    if (strncmp(zAt + 1, zName, strlen(zName)) == 0) {
      add(&r, getenv(zName), strlen(getenv(zName)));
      zAt += strlen(zName);
    } else {
      add(&r, "$", 1);
    }
    zAt++;
  }
  add(&r, z, strlen(z));
  return r.zText;
}

static void readCases(const char *zFile) {
  FILE *f = fopen(zFile, "rb");
  char *z, *zNext;
  size_t n;
  if (f == NULL) {
    perror(zFile);
    exit(1);
  }
  z = malloc(1 << 24);
  z[0] = '\n';
  n = fread(z + 1, 1, (1 << 24) - 2, f);
  z[n + 1] = 0;
  fclose(f);
  aCase[nCase++].zName = "load"; /* no SQL: the entry point itself */
  for (z = strstr(z, "\n-- case "); z && nCase < MAX_CASE; z = zNext) {
    Case *p = &aCase[nCase++];
    char *zEnd = strchr(z + 1, '\n'), *zFlag;
    p->zName = z + 9;
    *zEnd = 0;
    p->zSql = zEnd + 1;
    zNext = strstr(p->zSql, "\n-- case ");
    if (zNext) {
      *zNext = 0;
    }
    p->bEmpty = strstr(p->zName, " @empty") != NULL;
    p->bDrops = strstr(p->zName, " @drops") != NULL;
    zFlag = strstr(p->zName, " @net=");
    p->bNet = zFlag != NULL;
    p->bAlone = p->bNet || strstr(p->zName, " @alone") != NULL;
    p->bSkip = zFlag && getenv(zFlag + 6) == NULL;
    if (p->bNet && !p->bSkip) {
      p->zSql = withAddress(p->zSql, zFlag + 6);
    }
    zFlag = strstr(p->zName, " @");
    if (zFlag) {
      *zFlag = 0;
    }
  }
}

/* The names of choir_help, of functions or of virtual tables. */
static void readNames(sqlite3 *db, int bTable) {
  sqlite3_stmt *p = NULL;
  int i;
  sqlite3_prepare_v2(db,
                     "SELECT name, risk = 'effect' FROM choir_help"
                     " WHERE kind IN ('table', 'module') = ?1",
                     -1, &p, NULL);
  sqlite3_bind_int(p, 1, bTable);
  while (sqlite3_step(p) == SQLITE_ROW) {
    const char *zName = (const char *)sqlite3_column_text(p, 0);
    for (i = 0; bTable && i < pShared->nModule; i++) {
      pShared->aModule[i].bOurs |=
          strcmp(pShared->aModule[i].zName, zName) == 0;
    }
    if (!bTable && pShared->nFunction < MAX_FUNCTION) {
      i = pShared->nFunction++;
      pShared->aEffect[i] = (unsigned char)sqlite3_column_int(p, 1);
      sqlite3_snprintf(48, pShared->azFunction[i], "%s", zName);
    }
  }
  sqlite3_finalize(p);
}

static void readHelp(void) {
  sqlite3 *db = NULL;
  sqlite3_open(":memory:", &db);
  sqlite3_choir_init(db, NULL, NULL);
  readNames(db, 0);
  readNames(db, 1);
  sqlite3_close(db);
}

/* Was every function called, and every method of every virtual table? Methods
** that only rows or the end of a table need are told, not demanded. */
static int allCovered(void) {
  static const char *const azMethod[] = {
      "xCreate", "xConnect",  "xBestIndex", "xDisconnect", "xDestroy",
      "xOpen",   "xClose",    "xFilter",    "xNext",       "xEof",
      "xColumn", "xRowid",    "xUpdate",    "xBegin",      "xSync",
      "xCommit", "xRollback", "xSavepoint", "xRelease",    "xRollbackTo"};
  int i, j, nBad = 0, nHas = 0, nTable = 0;
  for (i = 0; i < pShared->nFunction; i++) {
    if (!pShared->aCalled[i]) {
      printf("oom: %s is called in no case; add one to tests/oom/calls.sql\n",
             pShared->azFunction[i]);
      nBad++;
    }
  }
  for (i = 0; i < pShared->nModule; i++) {
    const Module *p = &pShared->aModule[i];
    nTable += p->bOurs;
    for (j = 0; p->bOurs && j < M_COUNT; j++) {
      if (((p->mHas >> j) & 1) == 0) {
        continue;
      }
      nHas++;
      if (((p->mCalled >> j) & 1) == 0) {
        int bMust = ((1u << j) & M_LOOSE) == 0;
        if (bMust || j == M_COLUMN) {
          printf("oom: %s of %s is called in no case%s\n", azMethod[j],
                 p->zName, bMust ? "; add one to tests/oom/calls.sql" : "");
        }
        nBad += bMust;
      }
    }
  }
  printf("%d functions, %d virtual tables with %d methods, %d never called\n",
         pShared->nFunction, nTable, nHas, nBad);
  return nBad > 0;
}

/* ------------------------------------------------------------------- main */

static void oneCase(const Case *p) {
  struct timespec a, b;
  long nFault = pShared->nFault;
  int bad;
  clock_gettime(CLOCK_MONOTONIC, &a);
  bad = sweepCase(p);
  worldBegin(0, 1);
  clock_gettime(CLOCK_MONOTONIC, &b);
  __sync_fetch_and_add(&pShared->nBad, bad);
  if (getenv("OOM_VERBOSE")) {
    printf("oom: case %s: %ld failures, %d bad, %ld ms\n", p->zName,
           pShared->nFault - nFault, bad,
           (long)(b.tv_sec - a.tv_sec) * 1000 +
               (b.tv_nsec - a.tv_nsec) / 1000000);
  }
  fflush(stdout);
}

/* Each in a process of its own, so that a replay finds the same memory. */
static int allCases(void) {
  int i, status, bad = 0, nRunning = 0;
  long nJob = envInt("OOM_JOBS", 2);
  for (i = nCase - 1; i >= 0; i--) { /* those of calls.sql are the longest */
    if (aCase[i].bSkip) {
      nSkip++;
      continue;
    }
    if (nRunning == nJob) {
      wait(&status);
      bad |= status != 0;
      nRunning--;
    }
    if (fork() == 0) {
      oneCase(&aCase[i]);
      _exit(0);
    }
    nRunning++;
  }
  while (wait(&status) > 0) {
    bad |= status != 0;
  }
  return bad;
}

int main(int argc, char **argv) {
  int i, bad = 1;
  if (argc < 2) {
    fprintf(stderr, "usage: oom CASES.sql [NAME [S.N [once|ever]]]\n");
    return 2;
  }
  iSeed = envInt("OOM_SEED", 1);
  nStride = envInt("OOM_ALL", 0);
  bPlaces = envInt("OOM_PLACES", 0) != 0;
  nShow = envInt("OOM_SHOW", 3);
  worldInstall();
  sqlite3_initialize();
  aStack = mmap(NULL, MAX_POINT * sizeof(*aStack), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  readCases(argv[1]);
  readHelp();
  fflush(stdout);
  if (argc < 3) {
    bad = allCases();
    bad |= allCovered() && !nSkip; /* servers that are not here */
    printf("%d cases, seed %ld: %ld allocations failed, %ld cases bad\n", nCase,
           iSeed, pShared->nFault, pShared->nBad);
    return bad || pShared->nBad > 0;
  }
  for (i = 0; i < nCase; i++) {
    if (strcmp(aCase[i].zName, argv[2]) != 0) {
      continue;
    }
    if (argc > 3) {
      char *zN = strchr(argv[3], '.');
      return replay(&aCase[i], atoi(argv[3]), zN ? atol(zN + 1) : 0,
                    argc > 4 && strcmp(argv[4], "ever") == 0);
    }
    oneCase(&aCase[i]);
    bad = pShared->nBad > 0;
  }
  return bad;
}
