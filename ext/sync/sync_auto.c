/* SPDX-License-Identifier: MIT */
/*
** Pushes by the clock: sync_schedule and sync_due for hosts that run now and
** then, sync_auto for those that stay.
**
** The schedule is this device's: it lies in the state folder, beside the page
** cache, and nothing of it is in the workspace.
**
** sync_auto() is the one thread that choir starts, and only when asked. It has
** a connection of its own to the same file (choirConnTwin), sees the commits of
** others by PRAGMA data_version, and pushes when nobody has written for a
** while. It never checkpoints. It ends with the connection that started it:
** what it is doing then is interrupted.
**
**   quiet     nobody has committed for so long: push
**   12 quiet  somebody keeps committing: push all the same
**   error     try again after quiet, twice quiet, … up to ten minutes
*/
#include "sync.h"
#if !defined(_WIN32)
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define AUTO_QUIET_MIN 100
#define AUTO_BUSY 12 /* times quiet */
#define AUTO_BACKOFF_MS 600000
#define AUTO_TICK_MS 200
#define DUE_MAX_MS ((i64)366 * 86400000)

/* ---------------------------------------------------------------- schedule */

/* Every how many milliseconds, and when the next push is due. */
typedef struct DueState {
  i64 nEvery; /* 0: no schedule */
  i64 iDue;
} DueState;

static char *dueFile(ChoirConn *pConn, ChoirErr *pErr) {
  ChoirPosition pos;
  char *z;
  choirPositionRead(pErr, pConn->db, choirSchema(pConn), &pos);
  z = choirSyncStateFile(pConn, pErr, &pos, "due", "");
  if (z == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "schema %s has no file to keep a schedule for",
                choirSchema(pConn));
  }
  return z;
}

static DueState dueRead(const char *zFile) {
  DueState due = {0, 0};
  char z[64] = {0};
  char *zEnd;
  int fd = open(zFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd >= 0) {
    if (read(fd, z, sizeof(z) - 1) > 0) {
      due.nEvery = strtoll(z, &zEnd, 10);
      due.iDue = strtoll(zEnd, NULL, 10);
    }
    close(fd);
  }
  return due;
}

static void dueWrite(ChoirErr *pErr, const char *zFile, DueState due) {
  char z[64];
  int fd;
  choirStateFolder(pErr, zFile);
  fd = pErr->rc == SQLITE_OK
           ? open(zFile, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)
           : -1;
  /* One write of always as many bytes: there is no moment without a schedule */
  sqlite3_snprintf(sizeof(z), z, "%20lld %20lld\n", due.nEvery, due.iDue);
  if (fd < 0) {
    choirErrno(pErr, errno, "write", zFile);
  } else {
    choirFileWrite(pErr, fd, zFile, 0, z, strlen(z));
    close(fd);
  }
}

CHOIR_PRIVATE void choirDueDone(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  char *zFile = dueFile(pConn, &err);
  if (zFile) {
    DueState due = dueRead(zFile);
    if (due.nEvery > 0) {
      due.iDue = choirNow() + due.nEvery;
      dueWrite(&err, zFile, due);
    }
  }
  sqlite3_free(zFile);
  choirErrClear(&err);
}

/*
** SQL: sync_schedule([every_ms]) -> INTEGER
**
** Wants a push every so many milliseconds, for hosts that run now and then: a
** cron job, a script, an agent. sync_due() says when it is time; nothing runs
** by itself. The schedule is kept for this file on this device, outside the
** workspace, and survives the process. Returns the milliseconds, NULL without
** a schedule.
**
**   every_ms  INTEGER, 1000 to a year; 0 ends the schedule; left out: just ask
**
** NULL: as if left out.
** Errors: no workspace; a database without a file; no place for state.
**
** > SELECT sync_schedule(60000), sync_due(), sync_schedule(0), sync_due()
** = 60000|1|NULL|NULL
*/
static void autoSchedule(ChoirCall *p) {
  char *zFile;
  DueState due;
  choirNeedWorkspace(p->pConn, &p->err);
  zFile = dueFile(p->pConn, &p->err);
  if (zFile == NULL) {
    return;
  }
  due = dueRead(zFile);
  if (p->nArg && sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    i64 n = choirArgInt(&p->err, p->apArg[0], "every_ms", 0, DUE_MAX_MS);
    if (n > 0 && n < 1000) {
      choirErrSet(&p->err, SQLITE_ERROR,
                  "every_ms must be 0 or at least 1000, got %lld", n);
    }
    if (n > 0) { /* one that is due stays due */
      i64 iNext = choirNow() + n;
      due.iDue = due.nEvery == 0    ? choirNow()
                 : due.iDue < iNext ? due.iDue
                                    : iNext;
      due.nEvery = n;
      dueWrite(&p->err, zFile, due);
    } else if (p->err.rc == SQLITE_OK) {
      due.nEvery = 0;
      unlink(zFile);
    }
  }
  if (p->err.rc == SQLITE_OK && due.nEvery > 0) {
    sqlite3_result_int64(p->pCtx, due.nEvery);
  }
  sqlite3_free(zFile);
}

/*
** SQL: sync_due() -> INTEGER
**
** 1 when a push is due by sync_schedule(), 0 when not yet, NULL without a
** schedule. A push that succeeds, even one that had nothing to send, begins
** the next period; one that fails stays due.
**
** Write `SELECT sync_push() WHERE sync_due()` into a cron job.
**
** Errors: no workspace; a database without a file; no place for state.
**
** > SELECT sync_due()
** = NULL
*/
static void autoDue(ChoirCall *p) {
  char *zFile;
  choirNeedWorkspace(p->pConn, &p->err);
  zFile = dueFile(p->pConn, &p->err);
  if (zFile) {
    DueState due = dueRead(zFile);
    if (due.nEvery > 0) {
      sqlite3_result_int(p->pCtx, choirNow() >= due.iDue);
    }
  }
  sqlite3_free(zFile);
}

/* ------------------------------------------------------------------ thread */

typedef struct SyncAuto {
  ChoirConn *pHost;
  pthread_t thread;
  int pid;
  u8 bStarted;  /* the thread exists; the host's side only */
  sqlite3 *db;  /* the thread's, closed by whoever joins it */
  char *zUrl;   /* NULL: the configured remote */
  i64 nQuietMs; /* constant while it runs */

  pthread_mutex_t mutex; /* for all below */
  pthread_cond_t wake;
  u8 bStop, bDone;
  i64 nPush, nSent; /* pushes that succeeded, those that sent something */
  i64 iLast;        /* when the last one did, Unix milliseconds */
  i64 iRetry;       /* when the next try is after an error, 0 */
  char zError[400]; /* of the last push, empty: none */
} SyncAuto;

static void autoSleep(SyncAuto *p, i64 nMs) {
  struct timespec t;
  i64 iEnd = choirNow() + nMs;
  t.tv_sec = (time_t)(iEnd / 1000);
  t.tv_nsec = (long)(iEnd % 1000) * 1000000;
  pthread_cond_timedwait(&p->wake, &p->mutex, &t);
}

static i64 autoVersion(sqlite3_stmt *p) {
  i64 v = sqlite3_step(p) == SQLITE_ROW ? sqlite3_column_int64(p, 0) : -1;
  sqlite3_reset(p);
  return v;
}

/* One push, its outcome under the mutex; 1 when it succeeded. */
static int autoPush(SyncAuto *p) {
  sqlite3_stmt *pStmt = NULL;
  int rc, nSent = 0;
  rc = sqlite3_prepare_v2(p->db,
                          "SELECT json_extract(sync_push(?1), '$.pushed')", -1,
                          &pStmt, NULL);
  if (rc == SQLITE_OK) {
    sqlite3_bind_text(pStmt, 1, p->zUrl, -1, SQLITE_STATIC);
    if (sqlite3_step(pStmt) == SQLITE_ROW) {
      nSent = sqlite3_column_int(pStmt, 0);
    }
    rc = sqlite3_reset(pStmt);
  }
  pthread_mutex_lock(&p->mutex);
  p->zError[0] = 0;
  if (rc == SQLITE_OK) {
    p->nPush++;
    p->nSent += nSent;
    p->iLast = choirNow();
  } else {
    sqlite3_snprintf(sizeof(p->zError), p->zError, "%s", sqlite3_errmsg(p->db));
  }
  pthread_mutex_unlock(&p->mutex);
  sqlite3_finalize(pStmt);
  return rc == SQLITE_OK;
}

/* Is there something to push, and is it time? */
typedef struct AutoWatch {
  i64 iVersion;       /* PRAGMA data_version */
  i64 iFirst, iLast;  /* commits not pushed yet; iFirst 0: none */
  i64 iRetry, nRetry; /* not before; errors in a row */
} AutoWatch;

static void autoTick(SyncAuto *p, AutoWatch *w, sqlite3_stmt *pVersion) {
  i64 iNow = choirMonotonic(), v = autoVersion(pVersion);
  if (v != w->iVersion) {
    w->iVersion = v;
    w->iLast = iNow;
    w->iFirst = w->iFirst ? w->iFirst : iNow;
  }
  if (w->iFirst == 0 || iNow < w->iRetry ||
      (iNow - w->iLast < p->nQuietMs &&
       iNow - w->iFirst < AUTO_BUSY * p->nQuietMs)) {
    return;
  }
  if (__atomic_load_n(&p->pHost->bLocked, __ATOMIC_RELAXED)) {
    return; /* choir_lock() holds for the thread as well */
  }
  if (autoPush(p)) {
    w->iFirst = w->iRetry = w->nRetry = 0;
  } else {
    i64 nWait = p->nQuietMs << (w->nRetry < 20 ? w->nRetry : 20);
    w->nRetry++;
    nWait = nWait < AUTO_BACKOFF_MS ? nWait : AUTO_BACKOFF_MS;
    w->iRetry = choirMonotonic() + nWait;
  }
  pthread_mutex_lock(&p->mutex);
  p->iRetry = w->iRetry ? choirNow() + (w->iRetry - choirMonotonic()) : 0;
  pthread_mutex_unlock(&p->mutex);
}

static void *autoMain(void *pArg) {
  SyncAuto *p = pArg;
  AutoWatch watch = {-2, 0, 0, 0, 0}; /* what is there already counts */
  sqlite3_stmt *pVersion = NULL;
  i64 nTick = p->nQuietMs / 5 < AUTO_TICK_MS ? p->nQuietMs / 5 : AUTO_TICK_MS;
  int bStop = sqlite3_prepare_v2(p->db, "PRAGMA data_version", -1, &pVersion,
                                 NULL) != SQLITE_OK;
  while (!bStop) {
    autoTick(p, &watch, pVersion);
    pthread_mutex_lock(&p->mutex);
    if (!p->bStop) {
      autoSleep(p, nTick);
    }
    bStop = p->bStop;
    pthread_mutex_unlock(&p->mutex);
  }
  sqlite3_finalize(pVersion);
  pthread_mutex_lock(&p->mutex);
  p->bDone = 1;
  pthread_cond_signal(&p->wake);
  pthread_mutex_unlock(&p->mutex);
  return NULL;
}

/* Ends the thread, if there is one; what it does is interrupted. */
static void autoStop(SyncAuto *p) {
  if (p->bStarted && p->pid == choirPid()) { /* a fork has no such thread */
    pthread_mutex_lock(&p->mutex);
    p->bStop = 1;
    pthread_cond_signal(&p->wake);
    while (!p->bDone) {
      sqlite3_interrupt(p->db);
      autoSleep(p, 20);
    }
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    sqlite3_close(p->db);
    sqlite3_free(p->zUrl);
  }
  memset(p, 0, sizeof(*p));
}

static void autoFree(void *p) { autoStop(p); }

static const ChoirStateType autoState = {"sync_auto", sizeof(SyncAuto),
                                         autoFree};

/* Before the host's connection lets go of the file: the last one to close it
** is the host, as it expects. */
static void autoClosing(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  SyncAuto *p = choirState(pConn, &err, &autoState);
  if (p) {
    autoStop(p);
  }
  choirErrClear(&err);
}

static void autoStart(SyncAuto *p, ChoirConn *pConn, ChoirErr *pErr,
                      const char *zUrl, i64 nQuietMs) {
  sigset_t all, old;
  if (pErr->rc == SQLITE_OK && !sqlite3_threadsafe()) {
    choirErrSet(pErr, SQLITE_ERROR,
                "this SQLite was built without threads; use sync_schedule()");
  }
  if (pErr->rc == SQLITE_OK && zUrl == NULL &&
      choirConfig(pConn, "remote") == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no remote; give one, or run select choir_config('remote',"
                " 'file:///…/')");
  }
  p->pHost = pConn;
  p->nQuietMs = nQuietMs;
  p->zUrl = zUrl ? choirMprintf(pErr, "%s", zUrl) : NULL;
  p->db = choirConnTwin(pConn, pErr);
  if (p->db) {
    sqlite3_busy_timeout(p->db, 5000);
    sqlite3_wal_autocheckpoint(p->db, 0);
    sqlite3_db_config(p->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    sigfillset(&all); /* the host's signals are for the host's threads */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    p->pid = choirPid();
    p->bStarted = pthread_create(&p->thread, NULL, autoMain, p) == 0;
    pConn->xClosing = autoClosing;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!p->bStarted) {
      pthread_cond_destroy(&p->wake);
      pthread_mutex_destroy(&p->mutex);
      choirErrSet(pErr, SQLITE_ERROR, "the system gives no thread");
    }
  }
  if (!p->bStarted) {
    sqlite3_close(p->db);
    sqlite3_free(p->zUrl);
    memset(p, 0, sizeof(*p));
  }
}

CHOIR_PRIVATE char *choirAutoProblem(ChoirConn *pConn, ChoirErr *pErr) {
  SyncAuto *p = choirState(pConn, pErr, &autoState);
  char *z = NULL;
  if (p && p->bStarted) {
    pthread_mutex_lock(&p->mutex);
    z = p->zError[0] ? choirMprintf(pErr, "%s", p->zError) : NULL;
    pthread_mutex_unlock(&p->mutex);
  }
  return z;
}

static void autoReport(SyncAuto *p, ChoirCall *pCall) {
  ChoirBuf b;
  choirBufInit(&b, &pCall->err, CHOIR_BUF_JSON);
  if (!p->bStarted) {
    choirBufText(&b, "{\"running\":0}");
  } else {
    pthread_mutex_lock(&p->mutex);
    choirBufPrintf(&b,
                   "{\"running\":1,\"quiet_ms\":%lld,\"pushes\":%lld,"
                   "\"sent\":%lld,\"last\":",
                   p->nQuietMs, p->nPush, p->nSent);
    choirBufPrintf(&b, p->iLast ? "%lld" : "null", p->iLast);
    choirBufText(&b, ",\"error\":");
    if (p->zError[0]) {
      choirBufJson(&b, p->zError, -1);
      choirBufPrintf(&b, ",\"retry\":%lld}", p->iRetry);
    } else {
      choirBufText(&b, "null,\"retry\":null}");
    }
    pthread_mutex_unlock(&p->mutex);
  }
  choirBufResult(&b, pCall->pCtx);
}

/*
** SQL: sync_auto([quiet_ms[, remote]]) -> TEXT
**
** Pushes by itself from now on: a background thread with a connection of its
** own pushes when nobody has written to the file for quiet_ms, and at the
** latest after 12 times that while somebody keeps writing. What is unpushed
** when it starts is pushed too. It goes on after errors, waiting longer each
** time up to ten minutes, and ends with this connection. Settings and secrets
** are those of this connection when it starts. Called again it starts anew.
** Gives a JSON object: running, quiet_ms, pushes (that succeeded), sent (those
** that had something to send), last (Unix milliseconds), error (of the last
** try) and retry (when the next one is).
**
**   quiet_ms  INTEGER, 100 to 86400000, usually 5000; 0 ends the thread; left
**             out: just ask
**   remote    TEXT, URL; default: choir_config('remote')
**
** NULL: as if left out.
** Errors: no workspace; a database without a file; no remote.
**
** > SELECT sync_auto()
** = {"running":0}
*/
static void autoFunc(ChoirCall *pCall) {
  SyncAuto *p = choirState(pCall->pConn, &pCall->err, &autoState);
  const char *zUrl =
      pCall->nArg > 1
          ? choirArgTextOrNull(&pCall->err, pCall->apArg[1], "remote")
          : NULL;
  choirNeedWorkspace(pCall->pConn, &pCall->err);
  if (p && pCall->nArg && sqlite3_value_type(pCall->apArg[0]) != SQLITE_NULL) {
    i64 n = choirArgInt(&pCall->err, pCall->apArg[0], "quiet_ms", 0, 86400000);
    if (n > 0 && n < AUTO_QUIET_MIN) {
      choirErrSet(&pCall->err, SQLITE_ERROR,
                  "quiet_ms must be 0 or at least %d, got %lld", AUTO_QUIET_MIN,
                  n);
    }
    if (pCall->err.rc == SQLITE_OK) {
      autoStop(p);
    }
    if (n > 0) {
      autoStart(p, pCall->pConn, &pCall->err, zUrl, n);
    }
  }
  if (pCall->err.rc == SQLITE_OK) {
    autoReport(p, pCall);
  }
}

static const ChoirFunc aAutoFunc[] = {
    {"sync_schedule", 0, 1, CHOIR_EFFECT, 0, autoSchedule, NULL},
    {"sync_due", 0, 0, CHOIR_EFFECT, 0, autoDue, NULL},
    {"sync_auto", 0, 2, CHOIR_EFFECT, 0, autoFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirAutoRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aAutoFunc);
}

#else
CHOIR_PRIVATE void choirDueDone(ChoirConn *pConn) { (void)pConn; }
CHOIR_PRIVATE char *choirAutoProblem(ChoirConn *pConn, ChoirErr *pErr) {
  (void)pConn, (void)pErr;
  return NULL;
}
CHOIR_PRIVATE CHOIR_COLD void choirAutoRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  (void)pConn, (void)pErr;
}
#endif
