/* SPDX-License-Identifier: MIT */
/* What fuzz.h promises to targets. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "../../ext/choir.h"
#include <arpa/inet.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

FuzzTarget *fuzzTargets;

void fuzzAdd(FuzzTarget *p) {
  p->pNext = fuzzTargets;
  fuzzTargets = p;
}

FuzzTarget *fuzzFind(const char *zName) {
  FuzzTarget *p = fuzzTargets;
  while (p && strcmp(p->zName, zName) != 0) {
    p = p->pNext;
  }
  return p;
}

/* ------------------------------------------------------------------ input */

u8 fuzzByte(FuzzIn *p) { return p->n ? (p->n--, *p->a++) : 0; }

i64 fuzzInt(FuzzIn *p) {
  u64 v = 0;
  int i;
  for (i = 0; i < 8; i++) {
    v = v << 8 | fuzzByte(p);
  }
  return (i64)v;
}

char *fuzzPart(FuzzIn *p, u64 *pn) {
  const u8 *aEnd = p->n ? memchr(p->a, 0xff, p->n) : NULL;
  u64 n = aEnd ? (u64)(aEnd - p->a) : p->n;
  char *z = sqlite3_malloc64(n + 1);
  if (n) {
    memcpy(z, p->a, n);
  }
  z[n] = 0;
  if (p->n) {
    p->a += n + (aEnd != NULL);
    p->n -= n + (aEnd != NULL);
  }
  if (pn) {
    *pn = n;
  }
  return z;
}

/* -------------------------------------------------------------------- SQL */

void fuzzMust(sqlite3 *db, const char *zFmt, ...) {
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  if (sqlite3_exec(db, z, NULL, NULL, NULL) != SQLITE_OK) {
    fprintf(stderr, "%s\n%s\n", z, sqlite3_errmsg(db));
    abort();
  }
  sqlite3_free(z);
}

char *fuzzOne(sqlite3 *db, const char *zFmt, ...) {
  sqlite3_stmt *p = NULL;
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  MUST(sqlite3_prepare_v2(db, z, -1, &p, NULL) == SQLITE_OK);
  sqlite3_free(z);
  MUST(sqlite3_step(p) == SQLITE_ROW);
  z = sqlite3_mprintf("%s", sqlite3_column_text(p, 0));
  sqlite3_finalize(p);
  return z;
}

sqlite3 *fuzzOpen(const char *zFile) {
  sqlite3 *db;
  setenv("HOME", fuzzDir(), 1); /* nobody's settings, nobody's caches */
  MUST(sqlite3_open(zFile, &db) == SQLITE_OK);
  MUST(sqlite3_choir_init(db, NULL, NULL) == SQLITE_OK);
  fuzzMust(db, "SELECT choir_init()");
  return db;
}

sqlite3 *fuzzDb(void) {
  static sqlite3 *db;
  db = db ? db : fuzzOpen(":memory:");
  return db;
}

/* Reads a row to its last byte, so that a sanitizer sees what is not there. */
static void fuzzRow(sqlite3_stmt *p) {
  static volatile u8 iSum;
  int i, j;
  for (i = 0; i < sqlite3_column_count(p); i++) {
    const u8 *a = sqlite3_column_blob(p, i);
    int n = sqlite3_column_bytes(p, i);
    for (j = 0; j < n; j++) {
      iSum = (u8)(iSum + a[j]);
    }
  }
}

static void fuzzMessage(sqlite3 *db) {
  const char *z = sqlite3_errmsg(db);
  MUST(z && z[0]);
  MUST(choirUtf8Valid(z, (i64)strlen(z)) == (i64)strlen(z));
}

void fuzzSql(sqlite3 *db, const char *zSql, const u8 *a, u64 n) {
  char *zText = sqlite3_malloc64(n + 1); /* its own bytes */
  u8 aInt[8] = {0};
  i64 iInt;
  double rReal;
  if (n) {
    memcpy(zText, a, n);
    memcpy(aInt, a, n < 8 ? n : 8);
  }
  zText[n] = 0;
  memcpy(&iInt, aInt, 8);
  memcpy(&rReal, aInt, 8);
  while (zSql && zSql[0]) {
    sqlite3_stmt *p = NULL;
    int rc = sqlite3_prepare_v2(db, zSql, -1, &p, &zSql);
    /* The target's own SQL has to fit the tables that it is about. */
    MUST(rc == SQLITE_OK || strncmp(sqlite3_errmsg(db), "no such ", 8) != 0);
    if (rc == SQLITE_OK && p) {
      sqlite3_bind_text64(p, 1, zText, n, SQLITE_STATIC, SQLITE_UTF8);
      sqlite3_bind_blob64(p, 2, zText, n, SQLITE_STATIC);
      sqlite3_bind_int64(p, 3, iInt);
      sqlite3_bind_double(p, 4, rReal);
      while ((rc = sqlite3_step(p)) == SQLITE_ROW) {
        fuzzRow(p);
      }
    }
    if (rc != SQLITE_OK && rc != SQLITE_DONE) {
      fuzzMessage(db);
    }
    sqlite3_finalize(p);
  }
  sqlite3_free(zText);
}

void fuzzStory(sqlite3 *db, const char *const *azStory, const u8 *a, u64 n) {
  int nStory = 0;
  while (azStory[nStory]) {
    nStory++;
  }
  if (n) {
    fuzzMust(db, "SAVEPOINT fuzz");
    fuzzSql(db, azStory[a[0] % nStory], a + 1, n - 1);
    fuzzMust(db, "ROLLBACK TO fuzz; RELEASE fuzz");
  }
}

/* ------------------------------------------------------------------ files */

static int fuzzRemove(const char *z, const struct stat *p, int e,
                      struct FTW *q) {
  (void)p, (void)e, (void)q;
  return remove(z);
}

static char zFuzzDir[64];
static pid_t fuzzPid;

static void fuzzDirEnd(void) {
  if (fuzzPid == getpid()) {
    nftw(zFuzzDir, fuzzRemove, 16, FTW_DEPTH | FTW_PHYS);
  }
}

const char *fuzzDir(void) {
  if (zFuzzDir[0] == 0) {
    strcpy(zFuzzDir, "/tmp/choir-fuzz-XXXXXX");
    MUST(mkdtemp(zFuzzDir));
    fuzzPid = getpid();
    atexit(fuzzDirEnd);
  }
  return zFuzzDir;
}

void fuzzWrite(const char *zFile, const void *a, u64 n) {
  FILE *f = fopen(zFile, "wb");
  MUST(f && (n == 0 || fwrite(a, 1, n, f) == n) && fclose(f) == 0);
}

/* ---------------------------------------------------------------- network */

#define FUZZ_AGAIN 8

static pthread_mutex_t fuzzLock = PTHREAD_MUTEX_INITIALIZER;
static const FuzzReply *aFuzzReply;
static int nFuzzReply, iFuzzReply, bFuzzHello, fdFuzz = -1, iFuzzPort;

/* Reads a request: its head, and a body as long as that says. */
static void fuzzRequest(int fd) {
  static char z[1 << 16];
  u64 n = 0, nAll = sizeof(z) - 1;
  char *p = NULL;
  while (n < nAll) {
    ssize_t nGot = read(fd, z + n, nAll - n);
    if (nGot <= 0) {
      break;
    }
    n += (u64)nGot;
    z[n] = 0;
    if (p == NULL && (p = strstr(z, "\r\n\r\n")) != NULL) {
      char *zLen = strcasestr(z, "content-length:");
      u64 nBody = zLen && zLen < p ? strtoull(zLen + 15, NULL, 10) : 0;
      nAll = (u64)(p + 4 - z) + nBody;
      nAll = nAll < sizeof(z) - 1 ? nAll : sizeof(z) - 1;
    }
  }
}

static void *fuzzServer(void *pArg) {
  (void)pArg;
  for (;;) {
    struct pollfd p = {accept(fdFuzz, NULL, NULL), POLLIN, 0};
    char z[4096];
    ssize_t n = 0;
    int bHello;
    if (p.fd < 0) {
      continue;
    }
    pthread_mutex_lock(&fuzzLock);
    bHello = bFuzzHello;
    pthread_mutex_unlock(&fuzzLock);
    if (!bHello) {
      fuzzRequest(p.fd);
    }
    pthread_mutex_lock(&fuzzLock);
    if (iFuzzReply < nFuzzReply + FUZZ_AGAIN) {
      const FuzzReply *pReply =
          &aFuzzReply[iFuzzReply < nFuzzReply ? iFuzzReply : nFuzzReply - 1];
      iFuzzReply++;
      n = send(p.fd, pReply->a, pReply->n, MSG_NOSIGNAL);
    }
    pthread_mutex_unlock(&fuzzLock);
    shutdown(p.fd, SHUT_WR);
    while (poll(&p, 1, 20) > 0 && read(p.fd, z, sizeof(z)) > 0) {
    }
    (void)n;
    close(p.fd);
  }
  return NULL;
}

int fuzzPort(void) {
  if (fdFuzz < 0) {
    struct sockaddr_in at;
    socklen_t n = sizeof(at);
    pthread_t id;
    memset(&at, 0, sizeof(at));
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fdFuzz = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(bind(fdFuzz, (struct sockaddr *)&at, sizeof(at)) == 0);
    MUST(listen(fdFuzz, 64) == 0);
    MUST(getsockname(fdFuzz, (struct sockaddr *)&at, &n) == 0);
    iFuzzPort = ntohs(at.sin_port);
    MUST(pthread_create(&id, NULL, fuzzServer, NULL) == 0);
  }
  return iFuzzPort;
}

void fuzzServe(const FuzzReply *aReply, int nReply, int bHello) {
  pthread_mutex_lock(&fuzzLock);
  aFuzzReply = aReply;
  nFuzzReply = nReply;
  iFuzzReply = nReply ? 0 : FUZZ_AGAIN;
  bFuzzHello = bHello;
  pthread_mutex_unlock(&fuzzLock);
}

/* A body as a reply of status 200; sqlite3_free. */
static char *fuzzReply(const char *zBody, u64 nBody, u64 *pn) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirBuf b;
  choirBufInit(&b, &err, (u64)1 << 30);
  choirBufPrintf(&b,
                 "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n"
                 "Content-Type: application/json\r\nETag: \"e\"\r\n"
                 "Connection: close\r\n\r\n",
                 (i64)nBody);
  choirBufAppend(&b, zBody, nBody);
  *pn = b.n;
  return choirBufTake(&b);
}

void fuzzHttp(const char *const *azSql, const u8 *a, u64 n, int bRaw) {
  static const char zQuick[] =
      "SELECT choir_config('http.attempts', 1), choir_config("
      "'http.timeout_ms', 2000), choir_config('embed.cache', 'off'),"
      " choir_config('user', 'ada')";
  FuzzIn in = {a, n};
  FuzzReply aReply[8];
  char *az[8] = {NULL}, *z;
  int i, nSql = 0, nReply = 0;
  u8 c = fuzzByte(&in);
  sqlite3 *db;
  while (azSql[nSql]) {
    nSql++;
  }
  do {
    az[nReply] = fuzzPart(&in, &aReply[nReply].n);
    if (!bRaw) {
      z = az[nReply];
      az[nReply] = fuzzReply(z, aReply[nReply].n, &aReply[nReply].n);
      sqlite3_free(z);
    }
    aReply[nReply].a = az[nReply];
    nReply++;
  } while (in.n && nReply < 8);
  setenv("HOME", fuzzDir(), 1);
  MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
  MUST(sqlite3_choir_init(db, NULL, NULL) == SQLITE_OK);
  fuzzMust(db, "%s", zQuick);
  z = sqlite3_mprintf(azSql[c % nSql], fuzzPort(), fuzzPort(), fuzzPort());
  fuzzServe(aReply, nReply, 0);
  fuzzSql(db, z, a, n);
  sqlite3_free(z);
  MUST(sqlite3_close(db) == SQLITE_OK);
  fuzzServe(NULL, 0, 0);
  for (i = 0; i < nReply; i++) {
    sqlite3_free(az[i]);
  }
}
