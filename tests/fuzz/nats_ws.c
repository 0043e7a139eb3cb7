/* SPDX-License-Identifier: MIT */
/*
** What comes over a WebSocket, on any bytes: a reply to the upgrade, up to the
** first 0xff, and frames, which no reply has to allow.
**
** The first byte says how they arrive: in pieces of that many bytes. What is
** handed on, answered and refused must not depend on how they were cut.
*/
#include "fuzz.h"
#include "../../ext/nats/nats.h"

typedef struct WsSeen {
  int rcReply, rc, bClosed;
  u64 nReply; /* bytes of answers to pings */
  ChoirBuf to;
  ChoirErr err;
} WsSeen;

static void wsRun(const char *zReply, u64 nReply, FuzzIn frames, u64 nPiece,
                  WsSeen *p) {
  ChoirNatsServer server = {.zName = "h:80", .zPath = "/"};
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirBuf in, out;
  ChoirWs *pWs;
  u64 i, n;
  memset(p, 0, sizeof(*p));
  choirBufInit(&p->to, &p->err, 1 << 20);
  choirBufInit(&in, &err, 1 << 20);
  choirBufInit(&out, &p->err, 1 << 20);
  pWs = choirWsNew(&p->err, &server, &out);
  MUST(pWs && out.n > 100);
  out.n = 0;
  for (i = 0; i < nReply && err.rc == SQLITE_OK; i += n) {
    n = nReply - i < nPiece ? nReply - i : nPiece;
    choirBufAppend(&in, zReply + i, n);
    MUST(!choirWsAccepted(pWs, &err, &in, "h:80")); /* it knows no key */
  }
  p->rcReply = err.rc;
  choirErrClear(&err);
  in.n = 0;
  for (i = 0; i < frames.n && p->err.rc == SQLITE_OK && !p->bClosed; i += n) {
    n = frames.n - i < nPiece ? frames.n - i : nPiece;
    choirBufAppend(&in, frames.a + i, n);
    p->bClosed = choirWsRead(pWs, &p->err, &in, &p->to, &out);
  }
  p->rc = p->err.rc;
  p->nReply = out.n;
  choirWsFree(pWs);
  choirBufFree(&in);
  choirBufFree(&out);
}

FUZZ(nats_ws) {
  FuzzIn in = {a, n};
  u64 nPiece = 1 + (u64)fuzzByte(&in), nReply, i;
  char *zReply = fuzzPart(&in, &nReply);
  WsSeen a2[2];
  wsRun(zReply, nReply, in, n + 1, &a2[0]);
  wsRun(zReply, nReply, in, nPiece, &a2[1]);
  MUST(a2[0].rcReply == a2[1].rcReply && a2[0].rc == a2[1].rc);
  MUST(a2[0].bClosed == a2[1].bClosed && a2[0].nReply == a2[1].nReply);
  MUST(a2[0].to.n == a2[1].to.n && a2[0].to.n <= in.n);
  MUST(a2[0].to.n == 0 ||
       memcmp(a2[0].to.a, a2[1].to.a, (size_t)a2[0].to.n) == 0);
  for (i = 0; i < 2; i++) {
    choirBufFree(&a2[i].to);
    choirErrClear(&a2[i].err);
  }
  sqlite3_free(zReply);
}
