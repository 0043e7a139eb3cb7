/* SPDX-License-Identifier: MIT */
/*
** Threads of one process, each with a connection of its own: everything that
** is shared inside the library is used by all of them at once, first use
** included. `make tsan` runs it under ThreadSanitizer.
**
**   first use  tables and choices that are made once in a process
**   one file   four writers and readers of one workspace; nothing is lost
**   own files  everything from vectors to pushes, four workspaces
**   auto       sync_auto()'s thread beside its host, stopped by close
**   interrupt  from another thread, in the middle of anything
*/
#include "../../ext/choir.h"
#include "../../ext/embed/embed.h"
#include "../../ext/kern/kern.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 12

static char zDir[] = "/tmp/choir-threads-XXXXXX";
static int nCall, nFailed;

static sqlite3 *openDb(const char *zFile) {
  sqlite3 *db = NULL;
  char *zErr = NULL;
  if (sqlite3_open(zFile, &db) != SQLITE_OK ||
      sqlite3_busy_timeout(db, 60000) != SQLITE_OK ||
      sqlite3_choir_init(db, &zErr, NULL) != SQLITE_OK) {
    fprintf(stderr, "%s: %s\n", zFile, zErr ? zErr : sqlite3_errmsg(db));
    exit(1);
  }
  return db;
}

/* bMust: an error is a failure of the test. */
static void run(sqlite3 *db, int bMust, const char *zFmt, ...) {
  va_list ap;
  char *z;
  va_start(ap, zFmt);
  z = sqlite3_vmprintf(zFmt, ap);
  va_end(ap);
  __atomic_add_fetch(&nCall, 1, __ATOMIC_RELAXED);
  if (sqlite3_exec(db, z, NULL, NULL, NULL) != SQLITE_OK && bMust) {
    fprintf(stderr, "%s\n%s\n", z, sqlite3_errmsg(db));
    __atomic_add_fetch(&nFailed, 1, __ATOMIC_RELAXED);
  }
  sqlite3_free(z);
}

static int number(sqlite3 *db, const char *zSql) {
  sqlite3_stmt *p = NULL;
  int n = -1;
  if (sqlite3_prepare_v2(db, zSql, -1, &p, NULL) == SQLITE_OK &&
      sqlite3_step(p) == SQLITE_ROW) {
    n = sqlite3_column_int(p, 0);
  }
  sqlite3_finalize(p);
  return n;
}

static void equal(const char *zWhat, int n, int nWant) {
  if (n != nWant) {
    fprintf(stderr, "%s: %d instead of %d\n", zWhat, n, nWant);
    __atomic_add_fetch(&nFailed, 1, __ATOMIC_RELAXED);
  }
}

static void together(void *(*x)(void *), int n) {
  pthread_t a[THREADS];
  int i;
  for (i = 0; i < n; i++) {
    pthread_create(&a[i], NULL, x, (void *)(intptr_t)i);
  }
  for (i = 0; i < n; i++) {
    pthread_join(a[i], NULL);
  }
}

static pthread_barrier_t start;

static void *firstUse(void *pArg) {
  u8 a[32];
  (void)pArg;
  pthread_barrier_wait(&start);
  choirSha256("abc", 3, a);
  equal("sha256", a[0], 0xba);
  equal("crc64", choirCrc64(0, "123456789", 9) == 0xb90956c775a41001u, 1);
  equal("kernel", choirKernAuto() != NULL, 1);
  equal("model", choirHashModel()->nDim, 384);
  return NULL;
}

static void *oneFile(void *pArg) {
  int me = (int)(intptr_t)pArg, i;
  char z[100];
  sqlite3 *db;
  sqlite3_snprintf(sizeof(z), z, "%s/one.db", zDir);
  db = openDb(z);
  for (i = 0; i < ROUNDS; i++) {
    run(db, 1,
        "BEGIN IMMEDIATE;"
        "SELECT artifact_put('/%d/%d', 'green tea %d'), setting_set('s', %d);"
        "SELECT state_set('k%d', '$.n', %d), cache_set('c', %d);"
        "SELECT task_add('t', '{}'); COMMIT",
        me, i, i, i, me, i, i);
    run(db, 1,
        "SELECT * FROM choir_search('green tea', 3);"
        "SELECT * FROM timeline LIMIT 5; SELECT state_all()");
  }
  run(db, 1, "SELECT choir_check(); SELECT * FROM choir_metrics");
  equal("close", sqlite3_close(db), SQLITE_OK);
  return NULL;
}

static void *ownFile(void *pArg) {
  int me = (int)(intptr_t)pArg;
  char z[100];
  sqlite3 *db;
  sqlite3_snprintf(sizeof(z), z, "%s/own%d.db", zDir, me);
  db = openDb(z);
  run(db, 1,
      "SELECT choir_init(); PRAGMA journal_mode=WAL;"
      "SELECT choir_config('http.attempts', 1)");
  run(db, 1,
      "SELECT artifact_put('/a', 'tea'), choir_sha256('x'), embed('x'),"
      " choir_uuid4(); SELECT choir_index()");
  run(db, 1,
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
      "INSERT INTO t(v) SELECT vec_f32(json_array(value, 1, 2))"
      " FROM json_each('[1,2,3,4,5,6,7,8]');"
      "SELECT vec_index_create('i', 't', 'v'), log_track('t');"
      "SELECT * FROM vec_search('i', '[1,2,3]', 3); SELECT log_undo();"
      "SELECT log_seal(), log_verify()");
  sqlite3_snprintf(sizeof(z), z, "%s/r%d", zDir, me);
  mkdir(z, 0700);
  run(db, 1, "SELECT sync_push('file://%q/')", z);
  run(db, 1, "SELECT artifact_put('/b', 'x'); SELECT sync_push('file://%q/')",
      z);
  run(db, 1,
      "SELECT sync_verify('file://%q/', 1); SELECT sync_push("
      "'file://%q/w.db')",
      z, z);
  run(db, 0, "SELECT * FROM http_get('http://127.0.0.1:9/')"); /* libcurl */
  run(db, 0, "SELECT choir_config('nats.url', 'tls://127.0.0.1:9')");
  run(db, 0, "SELECT nats_ping()");
  equal("close", sqlite3_close(db), SQLITE_OK);
  return NULL;
}

static void *autoSync(void *pArg) {
  int me = (int)(intptr_t)pArg, i;
  char z[100];
  sqlite3 *db;
  sqlite3_snprintf(sizeof(z), z, "%s/own%d.db", zDir, me);
  db = openDb(z);
  sqlite3_snprintf(sizeof(z), z, "%s/r%d/", zDir, me);
  run(db, 1,
      "SELECT choir_config('remote', 'file://%q'); SELECT sync_auto(100)", z);
  for (i = 0; i < ROUNDS; i++) {
    run(db, 1,
        "SELECT artifact_put('/auto', '%d');"
        "SELECT * FROM sync_status; SELECT choir_config('user', 'u%d')",
        i, i);
    usleep(20000);
  }
  run(db, 1, i % 2 ? "SELECT sync_auto(0)" : "SELECT choir_lock()");
  equal("close", sqlite3_close(db), SQLITE_OK);
  return NULL;
}

static sqlite3 *pVictim;
static int bStop;

static void *interrupts(void *pArg) {
  (void)pArg;
  while (!__atomic_load_n(&bStop, __ATOMIC_ACQUIRE)) {
    sqlite3_interrupt(pVictim);
    usleep(300);
  }
  return NULL;
}

static void interrupted(void) {
  char z[100];
  pthread_t thread;
  int i;
  sqlite3_snprintf(sizeof(z), z, "%s/own0.db", zDir);
  pVictim = openDb(z);
  pthread_create(&thread, NULL, interrupts, NULL);
  for (i = 0; i < ROUNDS; i++) {
    run(pVictim, 0,
        "SELECT artifact_put('/i/%d', 'tea'); SELECT choir_index();"
        "SELECT sync_push('file://%q/r0/'); SELECT log_undo();"
        "SELECT vec_index_optimize('i')",
        i, zDir);
    run(pVictim, 0, "SELECT * FROM choir_search('tea')");
    run(pVictim, 0, "SELECT sync_verify('file://%q/r0/', 1)", zDir);
  }
  __atomic_store_n(&bStop, 1, __ATOMIC_RELEASE);
  pthread_join(thread, NULL);
  equal("transactions left open", !sqlite3_get_autocommit(pVictim), 0);
  equal("check after interrupts",
        number(pVictim, "SELECT choir_check() ->> 'ok'"), 1);
  equal("close", sqlite3_close(pVictim), SQLITE_OK);
}

int main(void) {
  char z[100];
  sqlite3 *db;
  sqlite3_initialize();
  if (mkdtemp(zDir) == NULL || setenv("HOME", zDir, 1) != 0) {
    return 1;
  }
  pthread_barrier_init(&start, NULL, THREADS);
  together(firstUse, THREADS);
  together(ownFile, THREADS);
  sqlite3_snprintf(sizeof(z), z, "%s/one.db", zDir);
  db = openDb(z);
  run(db, 1, "PRAGMA journal_mode=WAL; SELECT choir_init()");
  together(oneFile, THREADS);
  equal("artifacts", number(db, "SELECT count(*) FROM artifacts"),
        THREADS * ROUNDS);
  equal("tasks", number(db, "SELECT count(*) FROM agent_tasks"),
        THREADS * ROUNDS);
  equal("check", number(db, "SELECT choir_check() ->> 'ok'"), 1);
  equal("close", sqlite3_close(db), SQLITE_OK);
  together(autoSync, 2);
  interrupted();
  sqlite3_snprintf(sizeof(z), z, "rm -rf '%s'", zDir);
  if (system(z) != 0) {
    return 1;
  }
  printf("threads: %d calls, %d failures\n", nCall, nFailed);
  return nFailed != 0;
}
