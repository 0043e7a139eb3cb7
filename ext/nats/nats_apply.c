/* SPDX-License-Identifier: MIT */
/*
** nats_apply(): events of other workspaces become events here.
**
** A batch is fetched, stored and applied in one transaction, and acknowledged
** after its commit. Killed in between, the batch comes again and is known by
** the ids in event_log; so is what this workspace published itself. What is
** taken in is not published again: its record in action_log is synced.
**
** Owns in the file, from the first call on: the index _choir_nats_event on
** event_log(id).
*/
#include "nats.h"
#include "../log/log.h"

enum { APPLY_MAX = 1000 };

typedef struct Apply {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirNatsBatch batch;
  u8 *abKeep; /* of each message: not to be acknowledged */
  i64 nApplied, nKnown, nSkipped, nRefused;
  char *zWhy; /* why the first was refused */
} Apply;

/* The name in choiros.user.<id>.event.<name>; NULL: another subject. */
static const char *applyName(const char *z, u64 n, u64 *pnName) {
  static const char zFront[] = "choiros.user.", zEvent[] = ".event.";
  const char *zEnd = z + n, *zDot;
  if (n < sizeof(zFront) || memcmp(z, zFront, sizeof(zFront) - 1) != 0) {
    return NULL;
  }
  z += sizeof(zFront) - 1;
  zDot = memchr(z, '.', (size_t)(zEnd - z));
  if (zDot == NULL || (u64)(zEnd - zDot) < sizeof(zEvent) ||
      memcmp(zDot, zEvent, sizeof(zEvent) - 1) != 0) {
    return NULL;
  }
  zDot += sizeof(zEvent) - 1;
  *pnName = (u64)(zEnd - zDot);
  return zDot;
}

/* Is there an event of this id? */
static int applyKnown(Apply *p, const char *zId) {
  sqlite3_stmt *pStmt =
      choirStmt(p->pConn, p->pErr, "SELECT 1 FROM ~.event_log WHERE id=?1");
  int bRow;
  choirBindText(p->pErr, pStmt, 1, zId, -1);
  bRow = choirStep(p->pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  return bRow;
}

/* Stores the event and marks its record, or undoes both. */
static void applyEmit(Apply *p, ChoirErr *pErr, const char *zName,
                      const ChoirNatsMsg *pMsg, const char *zId) {
  ChoirTxn txn;
  sqlite3_stmt *pStmt;
  i64 iBefore;
  choirTxnBegin(&txn, p->pConn, pErr);
  iBefore =
      choirQueryInt(p->pConn, pErr, "SELECT max(seq) FROM ~.action_log", 0);
  choirLogEmit(p->pConn, pErr, zName, p->batch.bytes.a + pMsg->iBody,
               (i64)pMsg->nBody, zId);
  pStmt = choirStmt(p->pConn, pErr,
                    "UPDATE ~.action_log SET synced=1 WHERE seq>?1 AND id=?2");
  choirBindInt(pErr, pStmt, 1, iBefore);
  choirBindText(pErr, pStmt, 2, zId, -1);
  choirStep(pErr, pStmt);
  choirStmtDone(p->pConn, pStmt);
  choirTxnEnd(&txn, pErr);
}

/* An error of the message itself, not of the database. */
static int applyRefuses(int rc) {
  return (rc & 0xff) == SQLITE_ERROR || (rc & 0xff) == SQLITE_CONSTRAINT ||
         (rc & 0xff) == SQLITE_TOOBIG || (rc & 0xff) == SQLITE_MISMATCH;
}

static void applyOne(Apply *p, const char *zStream, int i) {
  const ChoirNatsMsg *pMsg = &p->batch.aMsg[i];
  const char *a = p->batch.bytes.a;
  ChoirErr err = {SQLITE_OK, NULL};
  u64 nName = 0;
  const char *z = applyName(a + pMsg->iSubject, pMsg->nSubject, &nName);
  char *zName, *zId;
  if (z == NULL) {
    p->nSkipped++;
    return;
  }
  zName = choirMprintf(p->pErr, "%.*s", (int)nName, z);
  zId = pMsg->nId ? choirMprintf(p->pErr, "%.*s", (int)pMsg->nId, a + pMsg->iId)
                  : choirMprintf(p->pErr, "%s:%lld", zStream, pMsg->iSeq);
  if (p->pErr->rc == SQLITE_OK && applyKnown(p, zId)) {
    p->nKnown++;
  } else if (p->pErr->rc == SQLITE_OK) {
    applyEmit(p, &err, zName, pMsg, zId);
    if (err.rc == SQLITE_OK) {
      p->nApplied++;
    } else if (applyRefuses(err.rc)) {
      p->nRefused++;
      p->abKeep[i] = 1;
      if (p->zWhy == NULL) {
        p->zWhy = choirMprintf(p->pErr, "message %lld: %s", pMsg->iSeq,
                               err.zMsg ? err.zMsg : "");
      }
    } else {
      *p->pErr = err;
      err.zMsg = NULL;
    }
    choirErrClear(&err);
  }
  sqlite3_free(zName);
  sqlite3_free(zId);
}

static void applyBatch(Apply *p, const char *zStream) {
  ChoirTxn txn;
  int i;
  choirTxnBegin(&txn, p->pConn, p->pErr);
  if (!choirExists(p->pConn, p->pErr, "index", "_choir_nats_event")) {
    choirExec(p->pConn, p->pErr,
              "CREATE INDEX ~._choir_nats_event ON event_log(id)");
  }
  for (i = 0; i < p->batch.nMsg && p->pErr->rc == SQLITE_OK; i++) {
    applyOne(p, zStream, i);
  }
  choirTxnEnd(&txn, p->pErr);
}

static void applyAck(Apply *p, ChoirNats *pNats) {
  i64 iFirst = 0, iAck;
  int i, nAck = 0;
  for (i = 0; i < p->batch.nMsg && p->pErr->rc == SQLITE_OK; i++) {
    if (!p->abKeep[i]) {
      iAck = choirNatsAckSend(pNats, p->batch.bytes.a + p->batch.aMsg[i].iAck,
                              "+ACK");
      iFirst = nAck++ ? iFirst : iAck;
    }
  }
  choirNatsAckWait(pNats, iFirst, nAck);
}

static void applyResult(Apply *p, sqlite3_context *pCtx) {
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBufPrintf(&b,
                 "{\"applied\":%lld,\"known\":%lld,\"skipped\":%lld,"
                 "\"refused\":%lld",
                 p->nApplied, p->nKnown, p->nSkipped, p->nRefused);
  if (p->zWhy) {
    choirBufText(&b, ",\"error\":");
    choirBufJson(&b, p->zWhy, -1);
  }
  choirBufText(&b, "}");
  choirBufResult(&b, pCtx);
  choirBufFree(&b);
}

/*
** SQL: nats_apply(stream, consumer[, max]) -> TEXT
**
** Takes events from a stream: fetches what is there for a pull consumer (made
** when it is missing), stores and applies it as event_emit() would, in one
** transaction, and acknowledges after the commit. Each event once by its id,
** whatever dies in between; what this workspace published itself is known. Call
** it alone, outside a transaction: SELECT nats_apply(…), again until it gives
** zeros. Returns {applied, known, skipped, refused, error}.
**
**   stream    TEXT
**   consumer  TEXT, a name that keeps this workspace's place in the stream
**   max       INTEGER, at most so many messages, 1 to 65536 (1000)
**
** A message is an event when its subject is choiros.user.{user}.event.{name};
** its payload is that of the event, its Nats-Msg-Id the event's id (without one:
** stream:seq). Others are skipped and acknowledged. What the shape, the policy or
** the materializer refuses is not acknowledged and comes again, after those
** behind it; error says why the first was refused.
**
** NULL: an error for stream and consumer.
** Errors: no events are defined; no such stream; the connection is lost; inside
** a transaction.
**
** > SELECT nats_apply('CHOIROS', 'here')
** ! nats_apply: no events are defined; run select event_define(…)
*/
static void applyCall(ChoirCall *pCall) {
  ChoirErr *pErr = &pCall->err;
  const char *zStream = choirArgText(pErr, pCall->apArg[0], "stream");
  const char *zConsumer = choirArgText(pErr, pCall->apArg[1], "consumer");
  i64 nMax = APPLY_MAX;
  ChoirNats *pNats = NULL;
  Apply apply;
  memset(&apply, 0, sizeof(apply));
  apply.pConn = pCall->pConn;
  apply.pErr = pErr;
  if (pCall->nArg > 2 && sqlite3_value_type(pCall->apArg[2]) != SQLITE_NULL) {
    nMax = choirArgInt(pErr, pCall->apArg[2], "max", 1, 65536);
  }
  choirLogEventNeed(pCall->pConn, pErr);
  choirNeedAlone(pCall->pConn, pErr);
  if (pErr->rc == SQLITE_OK) {
    pNats = choirNatsOpen(pCall->pConn, pErr);
  }
  if (pNats) {
    choirNatsFetch(pNats, zStream, zConsumer, NULL, (int)nMax, 0, &apply.batch);
    apply.abKeep = choirMalloc(pErr, (u64)apply.batch.nMsg + 1);
    if (apply.batch.nMsg && pErr->rc == SQLITE_OK) {
      applyBatch(&apply, zStream);
      applyAck(&apply, pNats);
    }
    choirNatsDone(pNats);
  }
  applyResult(&apply, pCall->pCtx);
  choirNatsBatchFree(&apply.batch);
  sqlite3_free(apply.abKeep);
  sqlite3_free(apply.zWhy);
}

static const ChoirFunc aNatsApplyFunc[] = {
    {"nats_apply", 2, 3, CHOIR_EFFECT, 0, applyCall, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirNatsApplyRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aNatsApplyFunc);
}
