/* SPDX-License-Identifier: MIT */
/*
** nats_flush(): what the action log has recorded goes to a stream.
**
** Rows with synced=0 are published in the order of seq, each under its id as
** Nats-Msg-Id, many at a time; synced=1 is written when the stream has said
** that it has them, in short transactions of their own. No lock of the
** database is held while the network is waited for.
**
** An acknowledgement is not durability: a server that dies may have lost the
** last messages that it acknowledged (it syncs its files every two minutes).
** So the place in _choir_cursor stays behind at what is known to be safe, and
** `nats.mark` in _choir_meta remembers the newest message: on a server process
** other than the one that took it, the message is looked up, and when it is
** not there everything since the place is published again, under the same ids.
** docs/formats.md, "Action log at a stream", has the bytes.
*/
#include "nats.h"
#include "../log/log.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <poll.h>
#endif

enum {
  FLUSH_WINDOW = 4096,    /* rows published and not yet written as synced */
  FLUSH_COMMIT = 2048,    /* rows of one transaction */
  FLUSH_READ = 256,       /* rows read at once */
  FLUSH_UNSENT = 1 << 20, /* bytes queued at once */
  FLUSH_SAFE_MS = 150000  /* a server has synced what is older */
};

typedef struct FlushRow {
  i64 iSeq;
  u8 bAcked;
} FlushRow;

/* nats.mark: `server stream seq stream_seq older older_time`. */
typedef struct FlushMark {
  char zServer[80], zStream[256];
  i64 iSeq, iStreamSeq;   /* the newest row acknowledged, its message */
  i64 iOlder, iOlderTime; /* one before it: safe after FLUSH_SAFE_MS */
} FlushMark;

typedef struct Flush {
  ChoirConn *pConn;
  ChoirErr *pErr;
  ChoirNats *pNats;
  sqlite3_stmt *pAck;
  const char *zUser, *zStream;
  char zAll[160]; /* "choiros.user.ada.>", for messages */
  FlushMark mark;
  i64 iPlace; /* _choir_cursor: every row up to here is safe */
  i64 iRead;  /* the last row read */
  i64 nLeft;  /* rows to read */
  u8 bEnd;    /* no more rows */
  FlushRow aRow[FLUSH_WINDOW];
  u64 iTail, iPrefix, iHead; /* written <= acknowledged <= published */
  i64 iReply;                /* inbox of row 0 */
  i64 iLastStreamSeq;
  ChoirBuf body, head, subject;
  i64 nPublished, nDuplicate, nResent;
} Flush;

/* --------------------------------------------------------------- messages */

/* The subject of an action, or of the event of this name; what it would break
** is an error. */
static void flushSubject(Flush *p, i64 iSeq, const char *zType,
                         const char *zEvent) {
  static const struct {
    const char *zType, *zSubject;
  } aKnown[] = {{"ARTIFACT_CREATE", "file.UPDATED"},
                {"ARTIFACT_UPDATE", "file.UPDATED"},
                {"ARTIFACT_MOVE", "file.MOVED"},
                {"ARTIFACT_DELETE", "file.DELETED"},
                {"SYNC_COMPLETE", "sync.complete"}};
  ChoirErr err = {SQLITE_OK, NULL};
  int i;
  p->subject.n = 0;
  choirBufText(&p->subject, "choiros.user.");
  choirBufText(&p->subject, p->zUser);
  choirBufText(&p->subject, ".");
  for (i = 0; i < 5 && strcmp(aKnown[i].zType, zType) != 0; i++) {
  }
  choirBufText(&p->subject, i < 5    ? aKnown[i].zSubject
                            : zEvent ? "event."
                                     : "action.");
  choirBufText(&p->subject, i < 5 ? "" : zEvent ? zEvent : zType);
  if (p->pErr->rc == SQLITE_OK) {
    choirNatsSubject(&err, p->subject.a);
    if (err.rc != SQLITE_OK) {
      choirErrSet(p->pErr, err.rc,
                  "row %lld of action_log cannot be published: %s; mend its"
                  " action_type, or set synced=1 to leave it out",
                  iSeq, err.zMsg);
    }
    choirErrClear(&err);
  }
}

static void flushKey(ChoirBuf *b, sqlite3_stmt *pRow, int iCol) {
  int eType = sqlite3_column_type(pRow, iCol);
  if (eType == SQLITE_TEXT) {
    choirBufJson(b, (const char *)sqlite3_column_text(pRow, iCol),
                 sqlite3_column_bytes(pRow, iCol));
  } else if (eType == SQLITE_INTEGER) {
    choirBufPrintf(b, "%lld", sqlite3_column_int64(pRow, iCol));
  } else if (eType == SQLITE_FLOAT) {
    choirBufPrintf(b, "\"%!.17g\"", sqlite3_column_double(pRow, iCol));
  } else if (eType == SQLITE_BLOB) {
    const u8 *a = sqlite3_column_blob(pRow, iCol);
    int i, n = sqlite3_column_bytes(pRow, iCol);
    char z[3];
    choirBufText(b, "{\"blob\":\"");
    for (i = 0; i < n; i++) {
      choirHex(a + i, 1, z);
      choirBufText(b, z);
    }
    choirBufText(b, "\"}");
  } else {
    choirBufText(b, "null");
  }
}

/* {"id","type","timestamp","seq","user","table","key","payload"} */
static void flushBody(Flush *p, sqlite3_stmt *pRow, const char *zId,
                      const char *zType) {
  ChoirBuf *b = &p->body;
  const char *zPayload = (const char *)sqlite3_column_text(pRow, 4);
  char z[96];
  b->n = 0;
  choirBufText(b, "{\"id\":");
  choirBufJson(b, zId, -1);
  choirBufText(b, ",\"type\":");
  choirBufJson(b, zType, -1);
  sqlite3_snprintf(sizeof(z), z, ",\"timestamp\":%lld,\"seq\":%lld,\"user\":",
                   sqlite3_column_int64(pRow, 2),
                   sqlite3_column_int64(pRow, 0));
  choirBufText(b, z);
  choirBufJson(b, p->zUser, -1);
  choirBufText(b, ",\"table\":");
  flushKey(b, pRow, 5);
  choirBufText(b, ",\"key\":");
  flushKey(b, pRow, 6);
  if (strcmp(zType, "SYNC_COMPLETE") == 0) {
    choirBufText(b, ",\"direction\":\"PUSH\"");
  }
  choirBufText(b, ",\"payload\":");
  if (sqlite3_column_int(pRow, 7)) {
    choirBufText(b, zPayload ? zPayload : "null");
  } else {
    choirBufJson(b, zPayload ? zPayload : "", -1);
  }
  choirBufText(b, "}");
}

/* An event goes out as it was emitted: its name in the subject, its payload
** alone. The statement is on its row, or NULL; the caller gives it back. */
static sqlite3_stmt *flushEvent(Flush *p, sqlite3_stmt *pRow, const char *zId,
                                const char *zType) {
  const char *zTable = (const char *)sqlite3_column_text(pRow, 5);
  sqlite3_stmt *pEvent;
  if (strcmp(zType, "EVENT") != 0 || zTable == NULL ||
      strcmp(zTable, "event_log") != 0 ||
      !choirLogEventMade(p->pConn, p->pErr)) {
    return NULL;
  }
  pEvent =
      choirStmt(p->pConn, p->pErr,
                "SELECT name, payload FROM ~.event_log WHERE seq=?1 AND id=?2");
  choirBindInt(p->pErr, pEvent, 1, sqlite3_column_int64(pRow, 6));
  choirBindText(p->pErr, pEvent, 2, zId, -1);
  if (!choirStep(p->pErr, pEvent) || sqlite3_column_text(pEvent, 0) == NULL) {
    choirStmtDone(p->pConn, pEvent); /* gone: the record is what is left */
    pEvent = NULL;
  }
  return pEvent;
}

static void flushPublish(Flush *p, sqlite3_stmt *pRow) {
  i64 iSeq = sqlite3_column_int64(pRow, 0);
  const char *zId = (const char *)sqlite3_column_text(pRow, 1);
  const char *zType = (const char *)sqlite3_column_text(pRow, 3);
  FlushRow *pFlight = &p->aRow[p->iHead % FLUSH_WINDOW];
  sqlite3_stmt *pEvent;
  ChoirErr err = {SQLITE_OK, NULL};
  char zInbox[64];
  i64 iReply;
  if (zId == NULL || zType == NULL) {
    choirErrNomem(p->pErr);
    return;
  }
  pEvent = flushEvent(p, pRow, zId, zType);
  if (pEvent) {
    flushSubject(p, iSeq, zType, (const char *)sqlite3_column_text(pEvent, 0));
    p->body.n = 0;
    choirBufAppend(&p->body, sqlite3_column_blob(pEvent, 1),
                   (u64)sqlite3_column_bytes(pEvent, 1));
    choirStmtDone(p->pConn, pEvent);
  } else {
    flushSubject(p, iSeq, zType, NULL);
    flushBody(p, pRow, zId, zType);
  }
  p->head.n = 0;
  p->head.pErr = &err;
  choirNatsIdHeader(&p->head, p->zStream, zId);
  p->head.pErr = p->pErr;
  if (err.rc != SQLITE_OK && p->pErr->rc == SQLITE_OK) {
    choirErrSet(p->pErr, err.rc, "row %lld of action_log: its id: %s", iSeq,
                err.zMsg);
  }
  choirErrClear(&err);
  iReply = choirNatsInbox(p->pNats, zInbox);
  if (p->iHead == 0) {
    p->iReply = iReply;
  }
  choirNatsPub(p->pNats, p->subject.a, zInbox, p->head.a, p->head.n, p->body.a,
               p->body.n);
  if (p->pErr->rc == SQLITE_OK) {
    pFlight->iSeq = iSeq;
    pFlight->bAcked = 0;
    p->iHead++;
  }
}

/* Reads and queues as much as the window takes. */
static void flushFill(Flush *p) {
  while (p->pErr->rc == SQLITE_OK && !p->bEnd &&
         p->iHead - p->iTail <= FLUSH_WINDOW - FLUSH_READ &&
         choirNatsUnsent(p->pNats) < FLUSH_UNSENT) {
    i64 nWant = p->nLeft < FLUSH_READ ? p->nLeft : FLUSH_READ, nGot = 0;
    sqlite3_stmt *pRow =
        choirStmt(p->pConn, p->pErr,
                  "SELECT seq, id, timestamp, action_type, payload, tbl, pk,"
                  " typeof(payload)='text' AND (json_valid(payload) OR"
                  " json_valid(payload)) FROM ~.action_log"
                  " WHERE seq>?1 AND synced=0 ORDER BY seq LIMIT ?2");
    choirBindInt(p->pErr, pRow, 1, p->iRead);
    choirBindInt(p->pErr, pRow, 2, nWant);
    while (choirStep(p->pErr, pRow)) {
      flushPublish(p, pRow);
      p->iRead = sqlite3_column_int64(pRow, 0);
      nGot++;
    }
    choirStmtDone(p->pConn, pRow);
    p->nLeft -= nGot;
    p->bEnd = nGot < nWant || p->nLeft == 0;
  }
}

/* ---------------------------------------------------------------- the mark */

static void flushMarkRead(Flush *p) {
  char *z = choirMetaGet(p->pConn, p->pErr, "nats.mark");
  FlushMark *m = &p->mark;
  i64 *const apNumber[] = {&m->iSeq, &m->iStreamSeq, &m->iOlder,
                           &m->iOlderTime};
  char *zAt = z, *zEnd;
  size_t n;
  int i;
  memset(m, 0, sizeof(*m));
  for (i = 0; zAt && i < 2; i++) {
    n = strcspn(zAt, " ");
    if (n < (i ? sizeof(m->zStream) : sizeof(m->zServer)) && zAt[n] == ' ') {
      memcpy(i ? m->zStream : m->zServer, zAt, n);
    }
    zAt += n + (zAt[n] == ' ');
  }
  for (i = 0; zAt && i < 4; i++) {
    *apNumber[i] = strtoll(zAt, &zEnd, 10);
    zAt = zEnd;
  }
  sqlite3_free(z);
  p->iPlace = choirQueryInt(
      p->pConn, p->pErr,
      "SELECT seq FROM ~._choir_cursor WHERE consumer='nats'", -1);
}

/* What the acknowledgement of row iSeq makes known. */
static void flushMarkMove(Flush *p, i64 iSeq) {
  FlushMark *m = &p->mark;
  const char *zServer = choirNatsAbout(p->pNats)->zId;
  i64 iNow = choirNow();
  int bOther = strcmp(m->zStream, p->zStream) != 0;
  if (bOther || strcmp(m->zServer, zServer) != 0) {
    /* Looked up before: what the other process took is still there. */
    p->iPlace = m->iSeq > p->iPlace ? m->iSeq : p->iPlace;
    sqlite3_snprintf(sizeof(m->zServer), m->zServer, "%s", zServer);
    sqlite3_snprintf(sizeof(m->zStream), m->zStream, "%s", p->zStream);
    m->iSeq = bOther ? 0 : m->iSeq;
    m->iOlder = 0;
  } else if (m->iOlder && iNow - m->iOlderTime >= FLUSH_SAFE_MS) {
    p->iPlace = m->iOlder > p->iPlace ? m->iOlder : p->iPlace;
    m->iOlder = 0;
  }
  if (iSeq > m->iSeq) {
    m->iSeq = iSeq;
    m->iStreamSeq = p->iLastStreamSeq;
  }
  if (m->iOlder == 0) {
    m->iOlder = m->iSeq;
    m->iOlderTime = iNow;
  }
}

/* One transaction: rows are synced, the place and the mark move. */
static void flushWriteOnce(Flush *p, ChoirErr *pErr) {
  FlushMark *m = &p->mark;
  sqlite3_stmt *pRow, *pPlace;
  ChoirTxn txn;
  char *z;
  i64 iPrefix =
      p->iPrefix > 0 ? p->aRow[(p->iPrefix - 1) % FLUSH_WINDOW].iSeq : -1;
  u64 i;
  choirTxnBegin(&txn, p->pConn, pErr);
  pRow = choirStmt(p->pConn, pErr,
                   "UPDATE ~.action_log SET synced=1 WHERE seq=?1 AND"
                   " synced=0");
  for (i = p->iTail; i < p->iHead && pErr->rc == SQLITE_OK; i++) {
    if (p->aRow[i % FLUSH_WINDOW].bAcked) {
      choirBindInt(pErr, pRow, 1, p->aRow[i % FLUSH_WINDOW].iSeq);
      choirStep(pErr, pRow);
      sqlite3_reset(pRow);
    }
  }
  choirStmtDone(p->pConn, pRow);
  if (p->iPrefix > p->iTail) {
    flushMarkMove(p, iPrefix);
    p->iPlace = p->iPlace < iPrefix ? p->iPlace : iPrefix;
    pPlace = choirStmt(p->pConn, pErr,
                       "INSERT INTO ~._choir_cursor(consumer, seq)"
                       " VALUES('nats', max(?1, 0)) ON CONFLICT(consumer) DO"
                       " UPDATE SET seq=excluded.seq");
    choirBindInt(pErr, pPlace, 1, p->iPlace);
    choirStep(pErr, pPlace);
    choirStmtDone(p->pConn, pPlace);
    z = choirMprintf(pErr, "%s %s %lld %lld %lld %lld", m->zServer, m->zStream,
                     m->iSeq, m->iStreamSeq, m->iOlder, m->iOlderTime);
    choirMetaSet(p->pConn, pErr, "nats.mark", z);
    sqlite3_free(z);
  }
  choirTxnEnd(&txn, pErr);
}

/* Another connection may be writing: as long as a server has for an answer. */
static void flushWrite(Flush *p, ChoirErr *pErr) {
  i64 iDeadline = choirNatsDeadline(p->pNats);
  FlushMark mark = p->mark;
  i64 iPlace = p->iPlace;
  for (;;) {
    flushWriteOnce(p, pErr);
    if ((pErr->rc & 0xff) != SQLITE_BUSY || choirMonotonic() > iDeadline ||
        choirInterrupted(p->pConn)) {
      break;
    }
    choirErrClear(pErr);
    p->mark = mark;
    p->iPlace = iPlace;
    poll(NULL, 0, 5);
  }
  if (pErr->rc == SQLITE_OK) {
    p->iTail = p->iPrefix;
  }
}

/* -------------------------------------------------------- lost messages */

/* How the stored header of row iSeq begins, in base64; NULL: the row is gone.
** Caller frees. */
static char *flushHeader64(Flush *p, i64 iSeq) {
  sqlite3_stmt *pRow =
      choirStmt(p->pConn, p->pErr, "SELECT id FROM ~.action_log WHERE seq=?1");
  char *z = NULL;
  ChoirBuf b;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirBindInt(p->pErr, pRow, 1, iSeq);
  p->head.n = 0;
  if (choirStep(p->pErr, pRow)) {
    choirNatsIdHeader(&p->head, NULL,
                      (const char *)sqlite3_column_text(pRow, 0));
    choirBufBase64(&b, p->head.a, p->head.n / 3 * 3 - 3, 0);
    z = choirBufTake(&b);
  }
  choirStmtDone(p->pConn, pRow);
  choirBufFree(&b);
  return z;
}

/* 1: the newest message that was acknowledged is not in the stream, though
** the stream has not dropped it by its own limits. */
static int flushIsLost(Flush *p) {
  char *zVerb = choirMprintf(p->pErr, "STREAM.MSG.GET.%s", p->zStream);
  char *zInfo = choirMprintf(p->pErr, "STREAM.INFO.%s", p->zStream);
  char *zBody = choirMprintf(p->pErr, "{\"seq\":%lld}", p->mark.iStreamSeq);
  char *zHead = flushHeader64(p, p->mark.iSeq), *z = NULL, *zText = NULL;
  int iError = 0, bLost = 0;
  if (zHead) { /* a row that was pruned cannot be sent again */
    z = choirNatsApi(p->pNats, zVerb, zBody, &iError);
  }
  if (z) {
    zText = choirJsonText(p->pConn, p->pErr, z, -1, "$.message.hdrs");
    bLost = zText == NULL || strncmp(zText, zHead, strlen(zHead)) != 0;
  } else if (iError) {
    z = choirNatsApi(p->pNats, zInfo, "", NULL);
    if (z) {
      zText = choirJsonText(p->pConn, p->pErr, z, -1, "$.state.first_seq");
      bLost = zText && strtoll(zText, NULL, 10) <= p->mark.iStreamSeq;
    }
  }
  sqlite3_free(zVerb);
  sqlite3_free(zInfo);
  sqlite3_free(zBody);
  sqlite3_free(zHead);
  sqlite3_free(zText);
  sqlite3_free(z);
  return bLost && p->pErr->rc == SQLITE_OK;
}

/* Puts back what another process of the server acknowledged and lost. */
static void flushAgain(Flush *p) {
  ChoirTxn txn;
  sqlite3_stmt *pStmt;
  if (p->mark.iSeq == 0 || strcmp(p->mark.zStream, p->zStream) != 0 ||
      strcmp(p->mark.zServer, choirNatsAbout(p->pNats)->zId) == 0 ||
      !flushIsLost(p)) {
    return;
  }
  choirTxnBegin(&txn, p->pConn, p->pErr);
  pStmt = choirStmt(p->pConn, p->pErr,
                    "UPDATE ~.action_log SET synced=0 WHERE seq>?1 AND"
                    " seq<=?2 AND synced=1");
  choirBindInt(p->pErr, pStmt, 1, p->iPlace);
  choirBindInt(p->pErr, pStmt, 2, p->mark.iSeq);
  choirStep(p->pErr, pStmt);
  p->nResent = sqlite3_changes64(p->pConn->db);
  choirStmtDone(p->pConn, pStmt);
  choirMetaSet(p->pConn, p->pErr, "nats.mark", NULL);
  choirTxnEnd(&txn, p->pErr);
  memset(&p->mark, 0, sizeof(p->mark));
}

/* ------------------------------------------------------------------- flush */

/* 1 when all there is to publish is SYNC_COMPLETE behind SYNC_COMPLETE: a push
** of what flushing itself has written. Flushing it would make the next push,
** and so on for ever; it goes out with the next action. */
static int flushIsQuiet(Flush *p) {
  sqlite3_stmt *pStmt = choirStmt(
      p->pConn, p->pErr,
      "WITH pending AS NOT MATERIALIZED (SELECT seq, action_type"
      " FROM ~.action_log WHERE seq>?1 AND synced=0)"
      " SELECT NOT EXISTS(SELECT 1 FROM pending WHERE"
      " action_type<>'SYNC_COMPLETE') AND (SELECT action_type='SYNC_COMPLETE'"
      " FROM ~.action_log WHERE seq<(SELECT seq FROM pending ORDER BY seq"
      " LIMIT 1) ORDER BY seq DESC LIMIT 1)");
  int bQuiet;
  choirBindInt(p->pErr, pStmt, 1, p->iPlace);
  bQuiet = choirStep(p->pErr, pStmt) && sqlite3_column_int(pStmt, 0);
  choirStmtDone(p->pConn, pStmt);
  return bQuiet;
}

static void flushAcked(Flush *p, const ChoirNatsFrame *f) {
  i64 i = choirNatsInboxOf(p->pNats, f) - p->iReply;
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirNatsAck ack;
  FlushRow *pRow;
  if (i < (i64)p->iTail || i >= (i64)p->iHead) {
    return;
  }
  pRow = &p->aRow[i % FLUSH_WINDOW];
  choirNatsAckParse(p->pNats, &err, p->pAck, f, p->zAll, &ack);
  if (err.rc != SQLITE_OK) {
    choirErrSet(p->pErr, err.rc,
                "row %lld of action_log: %s; it and those behind it stay",
                pRow->iSeq, err.zMsg);
    choirErrClear(&err);
    return;
  }
  p->nPublished += !pRow->bAcked;
  p->nDuplicate += !pRow->bAcked && ack.bDuplicate;
  pRow->bAcked = 1;
  while (p->iPrefix < p->iHead && p->aRow[p->iPrefix % FLUSH_WINDOW].bAcked) {
    if ((i64)p->iPrefix == i) {
      p->iLastStreamSeq = ack.iSeq;
    }
    p->iPrefix++;
  }
}

static void flushRun(Flush *p) {
  ChoirNatsFrame f;
  ChoirErr err = {SQLITE_OK, NULL};
  flushFill(p);
  while (p->pErr->rc == SQLITE_OK && p->iTail < p->iHead) {
    if (p->iPrefix - p->iTail >= FLUSH_COMMIT || p->iPrefix == p->iHead) {
      flushWrite(p, p->pErr);
    } else if (choirNatsReady(p->pNats, &f) ||
               choirNatsNext(p->pNats, &f, choirNatsDeadline(p->pNats))) {
      flushAcked(p, &f);
    } else if (p->pErr->rc == SQLITE_OK) {
      choirNatsLate(p->pNats, "for the stream");
    }
    flushFill(p);
  }
  if (p->pErr->rc != SQLITE_OK && p->pErr->rc != SQLITE_NOMEM &&
      p->iTail < p->iHead) {
    flushWrite(p, &err); /* what the stream has, whatever else failed */
    choirErrClear(&err);
  }
}

/*
** SQL: nats_flush([max]) -> TEXT
**
** Publishes what action_log has recorded and nobody has published (synced=0)
** to the stream of nats.stream, in the order of seq and each once by its id,
** then sets synced=1. Returns {published, duplicates, resent, ms}. Call it
** alone, outside a transaction: SELECT nats_flush().
**
**   max  INTEGER, at most so many rows
**
** The subject is choiros.user.{user}. and file.UPDATED (ARTIFACT_CREATE,
** ARTIFACT_UPDATE), file.MOVED, file.DELETED, sync.complete, or action.{TYPE};
** the payload a JSON object: id, type, timestamp, seq, user, table, key,
** payload. An event goes to event.{name} with its own payload. A process that dies, or a lost reply, costs nothing: the rows stay
** and go out again under the same ids. What a server acknowledged and lost
** when it died is found missing and published again (resent).
**
** NULL: max NULL means all.
** Errors: no user; no stream takes the subjects; the stream refuses a row (what
** was before it is published); the connection is lost; inside a transaction.
**
** > SELECT nats_flush()
** ! nats_flush: no user; run select choir_config('user', 'name')
*/
static void flushCall(ChoirCall *pCall) {
  ChoirErr *pErr = &pCall->err;
  Flush *p = choirMalloc(pErr, sizeof(*p));
  i64 iStart = choirMonotonic();
  if (p == NULL) {
    return;
  }
  p->pConn = pCall->pConn;
  p->pErr = pErr;
  p->nLeft = INT64_MAX;
  if (pCall->nArg > 0 && sqlite3_value_type(pCall->apArg[0]) != SQLITE_NULL) {
    p->nLeft = choirArgInt(pErr, pCall->apArg[0], "max", 1, INT64_MAX);
  }
  choirBufInit(&p->body, pErr, CHOIR_NATS_BYTES);
  choirBufInit(&p->head, pErr, CHOIR_BUF_SQL);
  choirBufInit(&p->subject, pErr, CHOIR_BUF_SQL);
  choirNeedWorkspace(p->pConn, pErr);
  choirNeedAlone(p->pConn, pErr);
  if (sqlite3_db_readonly(p->pConn->db, choirSchema(p->pConn)) == 1) {
    choirErrSet(pErr, SQLITE_READONLY,
                "the database is read-only and what is published is marked in"
                " it");
  }
  p->zStream = choirConfig(p->pConn, "nats.stream");
  p->zUser = choirConfig(p->pConn, "user");
  choirNatsName(pErr, "stream", p->zStream);
  if (p->zUser == NULL || p->zUser[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no user; run select choir_config('user', 'name')");
  } else if (strpbrk(p->zUser, " .*>\t") != NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the user '%s' cannot be one word of a subject: it has a '.',"
                " '*', '>' or a blank",
                p->zUser);
  }
  p->pNats = pErr->rc == SQLITE_OK ? choirNatsOpen(p->pConn, pErr) : NULL;
  if (p->pNats) {
    p->pAck = choirNatsAckStmt(p->pNats);
    sqlite3_snprintf(sizeof(p->zAll), p->zAll, "choiros.user.%s.>", p->zUser);
    flushMarkRead(p);
    flushAgain(p);
    p->iRead = p->iPlace;
    if (!flushIsQuiet(p)) {
      flushRun(p);
    }
    sqlite3_finalize(p->pAck);
    choirNatsDone(p->pNats);
  }
  p->body.n = 0;
  choirBufPrintf(&p->body,
                 "{\"published\":%lld,\"duplicates\":%lld,\"resent\":%lld,"
                 "\"ms\":%lld}",
                 p->nPublished, p->nDuplicate, p->nResent,
                 choirMonotonic() - iStart);
  choirBufResult(&p->body, pCall->pCtx);
  choirBufFree(&p->body);
  choirBufFree(&p->head);
  choirBufFree(&p->subject);
  sqlite3_free(p);
}

static const ChoirFunc aNatsFlushFunc[] = {
    {"nats_flush", 0, 1, CHOIR_EFFECT, 0, flushCall, NULL},
};

/* A row that is to be published again lies before the place. */
static const char zFlushTrigger[] =
    "CREATE TRIGGER ~._choir_nats_again AFTER UPDATE OF synced ON action_log"
    " WHEN NEW.synced=0 AND OLD.synced<>0 BEGIN UPDATE _choir_cursor SET"
    " seq=-1 WHERE consumer='nats' AND seq>=NEW.seq; END";

static void flushInstall(ChoirConn *pConn, ChoirErr *pErr) {
  if (!choirExists(pConn, pErr, "trigger", "_choir_nats_again")) {
    choirExecText(pConn, pErr, zFlushTrigger);
  }
}

static const ChoirPart natsFlushPart = {.zName = "nats",
                                        .xInstall = flushInstall};

CHOIR_PRIVATE CHOIR_COLD void choirNatsFlushRegister(ChoirConn *pConn,
                                                     ChoirErr *pErr) {
  choirPartAdd(pConn, &natsFlushPart);
  choirFuncs(pConn, pErr, aNatsFlushFunc);
}
