/* SPDX-License-Identifier: MIT */
/*
** The world of one run, see oom.h. Functions of the C library and of SQLite are
** taken over by defining them here: the executable's come first for libchoir.a,
** for SQLite and for every library.
*/
#include "oom.h"
#include <dlfcn.h>
#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MAX_FRAME 48
#define NEAR 4

Shared *pShared;
long nAsked, nFailed, nLiving;

static sqlite3_mem_methods memReal;
static long iFail;
static int bForEver, nPaused;
static unsigned long long *aHash;
static long nHash;
static void *apWhere[MAX_FRAME]; /* the stack of the first failure */
static int nWhere;
extern char __executable_start[], etext[]; /* by the linker */

/* ----------------------------------------------------------------- memory */

/* A place: the innermost frames, and all that are choir's. How deep SQLite's
** parser is in between makes no other place. */
static void memRecord(void) {
  void *ap[MAX_FRAME];
  int i, n = backtrace(ap, MAX_FRAME);
  unsigned long long h = 14695981039346656037ull;
  for (i = 2; i < n; i++) {
    char *z = ap[i];
    if (i >= 2 + NEAR && (z < __executable_start || z >= etext)) {
      continue;
    }
    h = (h ^ (unsigned long long)ap[i]) * 1099511628211ull;
    h ^= h >> 29;
  }
  aHash[nAsked - 1] = h;
}

static int memFails(void) {
  if (nPaused) {
    return 0;
  }
  nAsked++;
  if (nAsked <= nHash) {
    memRecord();
  }
  if (iFail == 0 || nAsked < iFail || (nAsked > iFail && !bForEver)) {
    return 0;
  }
  if (nFailed++ == 0) {
    nWhere = backtrace(apWhere, MAX_FRAME);
  }
  return 1;
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

void worldArm(long n, int bEver, unsigned long long *aStack, long nMax) {
  nAsked = nFailed = nPaused = 0;
  iFail = n;
  bForEver = bEver;
  aHash = aStack;
  nHash = nMax;
}

void worldPause(void) { nPaused++; }
void worldResume(void) { nPaused--; }

extern char __start_host_text[], __stop_host_text[]; /* by the linker */

static int whereSelf(const void *p) {
  Dl_info self, at;
  return dladdr((void *)worldInside, &self) && dladdr(p, &at) &&
         at.dli_fbase == self.dli_fbase;
}

int worldInside(void) {
  int i = 2;
  while (i < nWhere && !whereSelf(apWhere[i])) {
    i++;
  }
  return i < nWhere && ((char *)apWhere[i] < __start_host_text ||
                        (char *)apWhere[i] >= __stop_host_text);
}

int worldWhere(int bPrint, const char *zFunction) {
  char zCmd[4096], zLine[512];
  Dl_info self;
  int i, n, bIn = 0;
  FILE *f;
  if (nWhere == 0 || !dladdr((void *)worldInside, &self)) {
    return 0;
  }
  n = snprintf(zCmd, sizeof(zCmd), "addr2line -fspi -e /proc/%d/exe",
               (int)getpid());
  for (i = 2; i < nWhere && n < (int)sizeof(zCmd) - 32; i++) {
    if (whereSelf(apWhere[i])) {
      n += snprintf(
          zCmd + n, sizeof(zCmd) - (size_t)n, " %#lx",
          (unsigned long)((char *)apWhere[i] - (char *)self.dli_fbase - 1));
    }
  }
  fflush(stdout);
  f = popen(zCmd, "r");
  for (i = 0; f && fgets(zLine, sizeof(zLine), f); i++) {
    bIn |= zFunction && strstr(zLine, zFunction);
    if (bPrint && i < 9) {
      printf("oom:   in %s", zLine);
    }
  }
  if (f) {
    pclose(f);
  }
  fflush(stdout);
  return bIn;
}

/* ------------------------------------------------- the clock, randomness */

static int bRealClock = 1;
static long long iTick; /* microseconds of the day the world began */

static long long clockNow(void) {
  iTick += 1000;
  return 1800000000000000ll + iTick;
}

int clock_gettime(clockid_t id, struct timespec *p) {
  long long us;
  if (bRealClock) {
    return (int)syscall(SYS_clock_gettime, id, p);
  }
  us = clockNow();
  p->tv_sec = us / 1000000;
  p->tv_nsec = us % 1000000 * 1000;
  return 0;
}

int timespec_get(struct timespec *p, int eBase) {
  clock_gettime(CLOCK_REALTIME, p);
  return eBase;
}

int gettimeofday(struct timeval *restrict p, void *restrict pZone) {
  struct timespec t;
  (void)pZone;
  clock_gettime(CLOCK_REALTIME, &t);
  p->tv_sec = t.tv_sec;
  p->tv_usec = t.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *p) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (p) {
    *p = t.tv_sec;
  }
  return t.tv_sec;
}

void worldBegin(int iOther, int bReal) {
  bRealClock = bReal;
  iTick = iOther * 7654321000ll;
  sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, bReal ? 0 : 1 + iOther, NULL);
}

/* --------------------------------------------------------- virtual tables */

typedef struct Wrapped {
  sqlite3_module methods; /* first: a table's pModule is this */
  const sqlite3_module *pReal;
  Module *pModule;
  void *pAux;
  void (*xFree)(void *);
} Wrapped;

static Wrapped *wrapOf(sqlite3_vtab *p, enum Method e) {
  Wrapped *w = (Wrapped *)p->pModule;
  __sync_fetch_and_or(&w->pModule->mCalled, 1u << e);
  return w;
}

#define REAL(p, e) wrapOf(p, e)->pReal

static int wCreate(sqlite3 *db, void *pAux, int n, const char *const *az,
                   sqlite3_vtab **pp, char **pz) {
  Wrapped *w = pAux;
  __sync_fetch_and_or(&w->pModule->mCalled, 1u << M_CREATE);
  return w->pReal->xCreate(db, w->pAux, n, az, pp, pz);
}
static int wConnect(sqlite3 *db, void *pAux, int n, const char *const *az,
                    sqlite3_vtab **pp, char **pz) {
  Wrapped *w = pAux;
  __sync_fetch_and_or(&w->pModule->mCalled, 1u << M_CONNECT);
  return w->pReal->xConnect(db, w->pAux, n, az, pp, pz);
}
static int wBestIndex(sqlite3_vtab *p, sqlite3_index_info *pInfo) {
  return REAL(p, M_BESTINDEX)->xBestIndex(p, pInfo);
}
static int wDisconnect(sqlite3_vtab *p) {
  return REAL(p, M_DISCONNECT)->xDisconnect(p);
}
static int wDestroy(sqlite3_vtab *p) { return REAL(p, M_DESTROY)->xDestroy(p); }
static int wOpen(sqlite3_vtab *p, sqlite3_vtab_cursor **pp) {
  return REAL(p, M_OPEN)->xOpen(p, pp);
}
static int wClose(sqlite3_vtab_cursor *c) {
  return REAL(c->pVtab, M_CLOSE)->xClose(c);
}
static int wFilter(sqlite3_vtab_cursor *c, int i, const char *z, int n,
                   sqlite3_value **ap) {
  return REAL(c->pVtab, M_FILTER)->xFilter(c, i, z, n, ap);
}
static int wNext(sqlite3_vtab_cursor *c) {
  return REAL(c->pVtab, M_NEXT)->xNext(c);
}
static int wEof(sqlite3_vtab_cursor *c) {
  return REAL(c->pVtab, M_EOF)->xEof(c);
}
static int wColumn(sqlite3_vtab_cursor *c, sqlite3_context *pCtx, int i) {
  return REAL(c->pVtab, M_COLUMN)->xColumn(c, pCtx, i);
}
static int wRowid(sqlite3_vtab_cursor *c, sqlite3_int64 *pi) {
  return REAL(c->pVtab, M_ROWID)->xRowid(c, pi);
}
static int wUpdate(sqlite3_vtab *p, int n, sqlite3_value **ap,
                   sqlite3_int64 *pi) {
  return REAL(p, M_UPDATE)->xUpdate(p, n, ap, pi);
}
static int wBegin(sqlite3_vtab *p) { return REAL(p, M_BEGIN)->xBegin(p); }
static int wSync(sqlite3_vtab *p) { return REAL(p, M_SYNC)->xSync(p); }
static int wCommit(sqlite3_vtab *p) { return REAL(p, M_COMMIT)->xCommit(p); }
static int wRollback(sqlite3_vtab *p) {
  return REAL(p, M_ROLLBACK)->xRollback(p);
}
static int wSavepoint(sqlite3_vtab *p, int i) {
  return REAL(p, M_SAVEPOINT)->xSavepoint(p, i);
}
static int wRelease(sqlite3_vtab *p, int i) {
  return REAL(p, M_RELEASE)->xRelease(p, i);
}
static int wRollbackTo(sqlite3_vtab *p, int i) {
  return REAL(p, M_ROLLBACKTO)->xRollbackTo(p, i);
}

static void wrapFree(void *pArg) {
  Wrapped *w = pArg;
  if (w->xFree) {
    w->xFree(w->pAux);
  }
  free(w);
}

static Module *wrapModule(const char *zName) {
  int i;
  for (i = 0; i < pShared->nModule; i++) {
    if (strcmp(pShared->aModule[i].zName, zName) == 0) {
      return &pShared->aModule[i];
    }
  }
  if (i == MAX_MODULE) {
    fprintf(stderr, "oom: more than %d modules\n", MAX_MODULE);
    abort();
  }
  pShared->nModule++;
  snprintf(pShared->aModule[i].zName, 48, "%s", zName);
  return &pShared->aModule[i];
}

#define METHODS(X)                                                             \
  X(Create, M_CREATE)                                                          \
  X(Connect, M_CONNECT)                                                        \
  X(BestIndex, M_BESTINDEX)                                                    \
  X(Disconnect, M_DISCONNECT)                                                  \
  X(Destroy, M_DESTROY)                                                        \
  X(Open, M_OPEN)                                                              \
  X(Close, M_CLOSE)                                                            \
  X(Filter, M_FILTER)                                                          \
  X(Next, M_NEXT)                                                              \
  X(Eof, M_EOF)                                                                \
  X(Column, M_COLUMN)                                                          \
  X(Rowid, M_ROWID)                                                            \
  X(Update, M_UPDATE)                                                          \
  X(Begin, M_BEGIN)                                                            \
  X(Sync, M_SYNC)                                                              \
  X(Commit, M_COMMIT)                                                          \
  X(Rollback, M_ROLLBACK)                                                      \
  X(Savepoint, M_SAVEPOINT)                                                    \
  X(Release, M_RELEASE)                                                        \
  X(RollbackTo, M_ROLLBACKTO)

typedef int (*CreateModule)(sqlite3 *, const char *, const sqlite3_module *,
                            void *, void (*)(void *));

int sqlite3_create_module_v2(sqlite3 *db, const char *zName,
                             const sqlite3_module *pReal, void *pAux,
                             void (*xFree)(void *)) {
  static CreateModule xCreate;
  Wrapped *w = calloc(1, sizeof(*w));
  if (xCreate == NULL) {
    *(void **)&xCreate = dlsym(RTLD_NEXT, "sqlite3_create_module_v2");
  }
  w->methods = *pReal;
  w->pReal = pReal;
  w->pModule = wrapModule(zName);
  w->pAux = pAux;
  w->xFree = xFree;
#define WRAP(name, e)                                                          \
  if (pReal->x##name) {                                                        \
    w->methods.x##name = w##name;                                              \
    w->pModule->mHas |= 1u << e;                                               \
  }
  METHODS(WRAP)
#undef WRAP
  if (pReal->xCreate == pReal->xConnect) { /* SQLite: eponymous too */
    w->methods.xCreate = wConnect;
    w->pModule->mHas &= ~(1u << M_CREATE);
  }
  return xCreate(db, zName, &w->methods, w, wrapFree);
}

/* ------------------------------------------------------------------------ */

void worldInstall(void) {
  sqlite3_mem_methods mem;
  void *ap[2];
  backtrace(ap, 2); /* loads its library now */
  pShared = mmap(NULL, sizeof(*pShared), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memReal);
  mem = memReal;
  mem.xMalloc = memMalloc;
  mem.xFree = memFree;
  mem.xRealloc = memRealloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &mem);
  sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* would hide failures */
}
