/* SPDX-License-Identifier: MIT */
/*
** Every allocation of the NATS client fails once, while it talks to a server:
** a thread of this program that answers as a real one does. Each run must give
** what it gives when nothing fails, or SQLITE_NOMEM; the next call works; after
** sqlite3_close() every allocation is free.
*/
#include "../../ext/choir.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* ----------------------------------------------------------------- server */

static int fdListen;
static int iPort;

static void say(int fd, const char *z, size_t n) {
  while (n > 0) {
    ssize_t k = send(fd, z, n, MSG_NOSIGNAL);
    if (k <= 0) {
      return;
    }
    z += k;
    n -= (size_t)k;
  }
}

static void reply(int fd, const char *zTo, const char *zBody) {
  char z[2048];
  int n = snprintf(z, sizeof(z), "MSG %s 1 %zu\r\n%s\r\n", zTo, strlen(zBody),
                   zBody);
  say(fd, z, (size_t)n);
}

/* A pull: two messages and the end, to the subscription made last. */
static void pull(int fd, const char *zTo, int iSid) {
  char z[2048];
  int i, n = 0;
  for (i = 1; i <= 2; i++) {
    n += snprintf(z + n, sizeof(z) - (size_t)n,
                  "HMSG choiros.user.ada.event.v1.Tea %d"
                  " $JS.ACK.S.C.1.%d.%d.1795268653107378190.0 29 41\r\n"
                  "NATS/1.0\r\nNats-Msg-Id: m%d\r\n\r\n{\"grams\":%d2}\r\n",
                  iSid, i, i, i, i);
  }
  n += snprintf(z + n, sizeof(z) - (size_t)n,
                "HMSG %s %d 32 32\r\nNATS/1.0 408 Request Timeout\r\n\r\n\r\n",
                zTo, iSid);
  say(fd, z, (size_t)n);
}

static void answer(int fd, const char *zSubject, const char *zReply, int iSid,
                   long iSeq) {
  char z[128];
  if (strstr(zSubject, "MSG.NEXT")) {
    pull(fd, zReply, iSid);
  } else if (strstr(zSubject, "STREAM.LIST")) {
    reply(fd, zReply,
          iSeq % 2 ? "{\"streams\":[]}"
                   : "{\"streams\":[{\"config\":{\"name\":\"S\",\"subjects\":"
                     "[\"a\"]},\"state\":{\"messages\":1}}]}");
  } else if (strncmp(zSubject, "$JS.API", 7) == 0) {
    reply(fd, zReply,
          "{\"config\":{\"name\":\"S\",\"max_ack_pending\":9},\"state\":{"
          "\"messages\":0},\"created\":\"now\"}");
  } else if (strncmp(zSubject, "$JS.ACK", 7) == 0) {
    reply(fd, zReply, "");
  } else {
    snprintf(z, sizeof(z), "{\"stream\":\"CHOIROS\",\"seq\":%ld}", iSeq);
    reply(fd, zReply, z);
  }
}

static void serve(int fd) {
  static char z[65536], zBody[65536];
  FILE *p = fdopen(fd, "r");
  int iSid = 1;
  long iSeq = 0;
  static const char zInfo[] =
      "INFO {\"server_id\":\"X\",\"version\":\"2.9.10\",\"max_payload\":1048576"
      ",\"headers\":true,\"jetstream\":true}\r\n";
  say(fd, zInfo, sizeof(zInfo) - 1);
  while (p && fgets(z, sizeof(z), p)) {
    char zSubject[256], zReply[256];
    int nHead = 0, nAll = 0;
    if (strncmp(z, "PING", 4) == 0) {
      say(fd, "PONG\r\n", 6);
    } else if (strncmp(z, "SUB", 3) == 0) {
      iSid = atoi(strrchr(z, ' ') + 1);
    } else if (sscanf(z, "HPUB %255s %255s %d %d", zSubject, zReply, &nHead,
                      &nAll) == 4 ||
               sscanf(z, "PUB %255s %255s %d", zSubject, zReply, &nAll) == 3) {
      if (nAll + 2 > (int)sizeof(zBody) ||
          fread(zBody, 1, (size_t)nAll + 2, p) != (size_t)nAll + 2) {
        break;
      }
      answer(fd, zSubject, zReply, iSid,
             strstr(zSubject, "LIST") && strstr(zBody, ":0") ? 0 : ++iSeq | 1);
    } else if (sscanf(z, "PUB %255s %d", zSubject, &nAll) == 2 &&
               fread(zBody, 1, (size_t)nAll + 2, p) != (size_t)nAll + 2) {
      break;
    }
  }
  if (p) {
    fclose(p);
  }
}

static void *server(void *pArg) {
  int fd;
  (void)pArg;
  while ((fd = accept(fdListen, NULL, NULL)) >= 0) {
    int bOn = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &bOn, sizeof(bOn));
    serve(fd);
  }
  return NULL;
}

/* ----------------------------------------------------------------- memory */

static sqlite3_mem_methods memReal;
static __thread int bCounted; /* this thread's allocations count */
static long nCount, iFail, nFailed;

static int fails(void) {
  if (bCounted && iFail && ++nCount == iFail) {
    nFailed++;
    return 1;
  }
  return 0;
}
static void *failMalloc(int n) { return fails() ? NULL : memReal.xMalloc(n); }
static void *failRealloc(void *p, int n) {
  return fails() ? NULL : memReal.xRealloc(p, n);
}

/* ------------------------------------------------------------------- runs */

static const char *const azSql[] = {
    "SELECT json_extract(nats_ping(), '$.version')",
    "SELECT nats_publish('a', 'b')",
    "SELECT nats_js_publish('a', 'b', 'id')",
    "SELECT nats_request('a', 'b')",
    "SELECT nats_stream_create('S', '[\"a\"]', '{\"max_msgs\":5}')",
    "SELECT stream, subjects, messages FROM nats_streams",
    "SELECT subject, payload, msg_id, ack FROM nats_fetch('S', 'C', 5, 100)",
    "SELECT nats_ack(json_array('$JS.ACK.S.C.1.1.1.1.0',"
    " '$JS.ACK.S.C.1.2.2.2.0'), 'nak', 5)",
    "SELECT json_extract(nats_flush(), '$.published')",
    "SELECT json_extract(nats_apply('S', 'C'), '$.applied')"};

static unsigned char *aImage; /* a workspace with something to flush */
static sqlite3_int64 nImage;

static int makeImage(void **pp) {
  static const char *const azSetup[] = {
      "SELECT choir_init()",
      "INSERT INTO action_log(action_type, pk, tbl) VALUES('A', 1.5, 't'),"
      "('B', x'01', 't')",
      "SELECT event_define('v1.Tea', '{\"grams\":\"number\"}', '')",
      "SELECT event_emit('v1.Tea', '{\"grams\":1}')"};
  sqlite3 *db = NULL;
  char *z;
  size_t i;
  (void)pp;
  z = sqlite3_mprintf("nats://u:p@127.0.0.1:%d", iPort);
  setenv("NATS_URL", z, 1);
  setenv("CHOIR_USER", "ada", 1);
  setenv("CHOIR_NATS_TIMEOUT_MS", "30000", 1);
  sqlite3_free(z);
  assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
  assert_int_equal(sqlite3_choir_init(db, &z, NULL), SQLITE_OK);
  for (i = 0; i < sizeof(azSetup) / sizeof(azSetup[0]); i++) {
    assert_int_equal(sqlite3_exec(db, azSetup[i], NULL, NULL, NULL), SQLITE_OK);
  }
  aImage = sqlite3_serialize(db, "main", &nImage, 0);
  assert_non_null(aImage);
  return sqlite3_close(db);
}

static int freeImage(void **pp) {
  (void)pp;
  sqlite3_free(aImage);
  return 0;
}

static sqlite3 *openDb(int bFresh) {
  sqlite3 *db = NULL;
  unsigned char *a = sqlite3_malloc64((sqlite3_uint64)nImage);
  char *z;
  memcpy(a, aImage, (size_t)nImage);
  assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
  assert_int_equal(sqlite3_deserialize(db, "main", a, nImage, nImage,
                                       SQLITE_DESERIALIZE_FREEONCLOSE |
                                           SQLITE_DESERIALIZE_RESIZEABLE),
                   SQLITE_OK);
  assert_int_equal(sqlite3_choir_init(db, &z, NULL), SQLITE_OK);
  if (!bFresh) {
    assert_int_equal(sqlite3_exec(db, azSql[0], NULL, NULL, NULL), SQLITE_OK);
  }
  return db;
}

static int append(void *pArg, int n, char **az, char **azName) {
  char *z = pArg;
  int i;
  (void)azName;
  for (i = 0; i < n; i++) {
    snprintf(z + strlen(z), 4096 - strlen(z), "%s|", az[i] ? az[i] : "NULL");
  }
  return 0;
}

/* One statement on a connection of its own, the iFail-th allocation failing. */
static long run(const char *zSql, int bFresh, long i, const char *zWant,
                char *zGot) {
  char *zErr = NULL, zAgain[4096] = "";
  sqlite3_int64 nBefore = sqlite3_memory_used();
  sqlite3 *db = openDb(bFresh);
  int rc;
  zGot[0] = 0;
  nCount = 0;
  iFail = i;
  bCounted = 1;
  rc = sqlite3_exec(db, zSql, append, zGot, &zErr);
  bCounted = 0;
  iFail = 0;
  if (zWant) {
    if (rc == SQLITE_OK) {
      assert_string_equal(zGot, zWant);
    } else if (rc != SQLITE_NOMEM) {
      fail_msg("%s, allocation %ld: %d %s", zSql, i, rc, zErr);
    } else {
      rc = sqlite3_exec(db, zSql, append, zAgain, NULL);
      if (rc != SQLITE_OK) {
        fail_msg("%s, after allocation %ld: %s", zSql, i, sqlite3_errmsg(db));
      }
    }
    assert_true(sqlite3_get_autocommit(db));
  } else {
    if (rc != SQLITE_OK) {
      fail_msg("%s: %s", zSql, zErr);
    }
  }
  sqlite3_free(zErr);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  assert_true(sqlite3_memory_used() == nBefore);
  return nCount;
}

static void everyAllocation(void **pp) {
  char zWant[4096], zGot[4096];
  size_t j;
  (void)pp;
  for (j = 0; j < sizeof(azSql) / sizeof(azSql[0]); j++) {
    int bFresh;
    for (bFresh = 0; bFresh < 2; bFresh++) {
      long i = 0, n = 1 << 30, nStep;
      run(azSql[j], bFresh, 0, NULL, zWant);
      n = run(azSql[j], bFresh, 1 << 30, zWant, zGot);
      /* the first forty, and as many spread over the rest */
      nStep = n > 40 ? (n - 40) / 40 + 1 : 1;
      for (i = 1; i <= n; i += i < 40 || getenv("OOM_ALL") ? 1 : nStep) {
        run(azSql[j], bFresh, i, zWant, zGot);
      }
    }
  }
  assert_true(nFailed > 1000);
}

int main(void) {
  const struct CMUnitTest a[] = {cmocka_unit_test(everyAllocation)};
  sqlite3_mem_methods mem;
  struct sockaddr_in addr;
  socklen_t n = sizeof(addr);
  pthread_t thread;
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memReal);
  mem = memReal;
  mem.xMalloc = failMalloc;
  mem.xRealloc = failRealloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &mem);
  sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 1);
  memset(&addr, 0, sizeof(addr));
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  fdListen = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(fdListen, (struct sockaddr *)&addr, n) != 0 ||
      listen(fdListen, 16) != 0 ||
      getsockname(fdListen, (struct sockaddr *)&addr, &n) != 0) {
    return 1;
  }
  iPort = ntohs(addr.sin_port);
  pthread_create(&thread, NULL, server, NULL);
  return cmocka_run_group_tests_name("nats_oom", a, makeImage, freeImage);
}
