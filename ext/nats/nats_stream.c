/* SPDX-License-Identifier: MIT */
/*
** JetStream: the server's streams. Requests to $JS.API, the acknowledgement
** of a publish, pull consumers, acknowledgements of messages.
**
** Replies are JSON, read by SQLite. A message that was fetched has the subject
** of its acknowledgement as reply; the second form is the newer one:
**
**   $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<ns>.
**     <pending>
**   $JS.ACK.<domain>.<account>.<stream>.<consumer>.<deliveries>.<stream seq>.
**     <consumer seq>.<ns>.<pending>[.<random>]
*/
#include "nats.h"
#include <stdlib.h>

/* err_code of a reply: there is no such consumer. */
#define STREAM_NO_CONSUMER 10014
/* Bytes that one fetch asks for at most. */
#define STREAM_BATCH_BYTES (64 << 20)

CHOIR_PRIVATE char *choirNatsApi(ChoirNats *p, const char *zVerb,
                                 const char *zBody, int *piError) {
  ChoirErr *pErr = choirNatsErr(p);
  ChoirConn *pConn = choirNatsConn(p);
  ChoirNatsFrame f;
  char *zSubject = choirMprintf(pErr, "$JS.API.%s", zVerb), *z = NULL;
  char *zError = NULL;
  if (zBody == NULL || zSubject == NULL || pErr->rc != SQLITE_OK) {
    sqlite3_free(zSubject);
    return NULL;
  }
  if (!choirNatsRequest(p, zSubject, NULL, 0, zBody, strlen(zBody),
                        choirNatsDeadline(p), &f)) {
    if (pErr->rc == SQLITE_OK) {
      choirNatsLate(p, zSubject);
    }
  } else if (choirNatsNobody(&f)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s runs without JetStream; start it with -js",
                choirNatsAbout(p)->zServer);
  } else {
    z = choirMprintf(pErr, "%.*s", (int)f.nBody, f.aBody);
    zError = choirJsonText(pConn, pErr, z, -1, "$.error.description");
  }
  if (zError) {
    char *zCode = choirJsonText(pConn, pErr, z, -1, "$.error.err_code");
    int iCode = zCode ? (int)strtol(zCode, NULL, 10) : 0;
    ChoirNatsShown shown;
    if (piError) {
      *piError = iCode ? iCode : 1;
    } else {
      choirErrSet(pErr, SQLITE_ERROR, "%s says: %s (%d)",
                  choirNatsAbout(p)->zServer,
                  choirNatsShow(&shown, zError, strlen(zError)), iCode);
    }
    sqlite3_free(zCode);
    sqlite3_free(zError);
    sqlite3_free(z);
    z = NULL;
  }
  sqlite3_free(zSubject);
  return z;
}

/* ---------------------------------------------------------------- publish */

CHOIR_PRIVATE void choirNatsIdHeader(ChoirBuf *b, const char *zStream,
                                     const char *zId) {
  const char *z;
  for (z = zId; *z && (u8)*z > ' ' && *z != 0x7f; z++) {
  }
  if (*z || z == zId || z - zId > 1024) {
    choirErrSet(b->pErr, SQLITE_ERROR,
                "msg_id must be 1 to 1024 bytes without blanks");
  }
  choirBufText(b, "NATS/1.0\r\nNats-Msg-Id: ");
  choirBufText(b, zId);
  choirBufText(b, zStream ? "\r\nNats-Expected-Stream: " : "");
  choirBufText(b, zStream ? zStream : "");
  choirBufText(b, "\r\n\r\n");
}

CHOIR_PRIVATE sqlite3_stmt *choirNatsAckStmt(ChoirNats *p) {
  return choirJsonStmt(
      choirNatsConn(p), choirNatsErr(p),
      "SELECT json_extract(?1,'$.stream'), json_extract(?1,'$.seq'),"
      " json_extract(?1,'$.duplicate'), json_extract(?1,'$.error.description'),"
      " json_extract(?1,'$.error.err_code')",
      NULL, 0);
}

CHOIR_PRIVATE void choirNatsAckParse(ChoirNats *p, ChoirErr *pErr,
                                     sqlite3_stmt *pStmt,
                                     const ChoirNatsFrame *f,
                                     const char *zSubject, ChoirNatsAck *pAck) {
  ChoirNatsShown shown;
  const char *z;
  int rc;
  memset(pAck, 0, sizeof(*pAck));
  if (choirNatsNobody(f)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no stream of %s takes '%s'; make one by nats_stream_create()",
                choirNatsAbout(p)->zServer, zSubject);
    return;
  }
  sqlite3_reset(pStmt);
  choirBindText(pErr, pStmt, 1, f->aBody, (i64)f->nBody);
  rc = pErr->rc == SQLITE_OK ? sqlite3_step(pStmt) & 0xff : SQLITE_OK;
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc == SQLITE_ROW &&
             (z = (const char *)sqlite3_column_text(pStmt, 3)) != NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "the stream refuses '%s': %s (%d)",
                zSubject, choirNatsShow(&shown, z, strlen(z)),
                sqlite3_column_int(pStmt, 4));
  } else if (rc == SQLITE_ROW &&
             (z = (const char *)sqlite3_column_text(pStmt, 0)) != NULL) {
    sqlite3_snprintf(sizeof(pAck->zStream), pAck->zStream, "%s", z);
    pAck->iSeq = sqlite3_column_int64(pStmt, 1);
    pAck->bDuplicate = sqlite3_column_int(pStmt, 2) != 0;
  } else if (pErr->rc == SQLITE_OK) {
    choirErrSet(pErr, SQLITE_ERROR, "who answers to '%s' is not a stream: '%s'",
                zSubject,
                choirNatsShow(&shown, f->aBody, f->nBody < 60 ? f->nBody : 60));
  }
  sqlite3_reset(pStmt);
}

/* ------------------------------------------------------------------ fetch */

CHOIR_PRIVATE void choirNatsBatchFree(ChoirNatsBatch *p) {
  choirBufFree(&p->bytes);
  sqlite3_free(p->aMsg);
  memset(p, 0, sizeof(*p));
}

/* How many more messages a consumer may have unacknowledged, from what the
** server says of it. Asked for more than that, a server stays silent. */
static i64 streamRoom(ChoirNats *p, const char *zInfo) {
  ChoirErr *pErr = choirNatsErr(p);
  i64 nRoom = INT64_MAX;
  sqlite3_stmt *pStmt =
      choirJsonStmt(choirNatsConn(p), pErr,
                    "SELECT json_extract(?1,'$.config.max_ack_pending'),"
                    " json_extract(?1,'$.num_ack_pending')",
                    zInfo, -1);
  if (choirStep(pErr, pStmt) && sqlite3_column_int64(pStmt, 0) > 0) {
    nRoom = sqlite3_column_int64(pStmt, 0) - sqlite3_column_int64(pStmt, 1);
  }
  sqlite3_finalize(pStmt);
  return nRoom;
}

/* What the server says of the consumer, which is made when it is missing;
** caller frees. */
static char *streamConsumer(ChoirNats *p, const char *zStream,
                            const char *zConsumer, const char *zOptions) {
  ChoirErr *pErr = choirNatsErr(p);
  char *zVerb = choirMprintf(pErr, "CONSUMER.INFO.%s.%s", zStream, zConsumer);
  int iError = 0;
  sqlite3_stmt *pStmt;
  char *z = zVerb ? choirNatsApi(p, zVerb, "", &iError) : NULL;
  sqlite3_free(zVerb);
  if (iError == 0 || pErr->rc != SQLITE_OK) {
    return z;
  }
  if (iError != STREAM_NO_CONSUMER) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s has no stream '%s' (%d); make one by nats_stream_create()",
                choirNatsAbout(p)->zServer, zStream, iError);
    return NULL;
  }
  pStmt = choirJsonStmt(
      choirNatsConn(p), pErr,
      "SELECT json_object('stream_name', ?2, 'config', json_patch(json_object("
      "'durable_name', ?3, 'ack_policy', 'explicit', 'deliver_policy', 'all',"
      "'replay_policy', 'instant', 'max_ack_pending', 65536), ?1))",
      zOptions ? zOptions : "{}", -1);
  choirBindText(pErr, pStmt, 2, zStream, -1);
  choirBindText(pErr, pStmt, 3, zConsumer, -1);
  zVerb =
      choirMprintf(pErr, "CONSUMER.DURABLE.CREATE.%s.%s", zStream, zConsumer);
  if (zVerb && choirStep(pErr, pStmt)) {
    z = choirNatsApi(p, zVerb, (const char *)sqlite3_column_text(pStmt, 0),
                     NULL);
  }
  sqlite3_free(zVerb);
  sqlite3_finalize(pStmt);
  return z;
}

/* The numbers in the subject of an acknowledgement; 0 when it is not one. */
static int streamToken(const char *z, u64 n, ChoirNatsMsg *pMsg) {
  const char *azPart[16];
  int nPart = 0;
  u64 i;
  if (n < 8 || memcmp(z, "$JS.ACK.", 8) != 0) {
    return 0;
  }
  azPart[nPart++] = z;
  for (i = 0; i < n && nPart < 16; i++) {
    if (z[i] == '.') {
      azPart[nPart++] = z + i + 1;
    }
  }
  if (nPart != 9 && nPart != 11 && nPart != 12) {
    return 0;
  }
  nPart = nPart == 9 ? 4 : 6; /* where <deliveries> is */
  pMsg->nDelivered = strtoll(azPart[nPart], NULL, 10);
  pMsg->iSeq = strtoll(azPart[nPart + 1], NULL, 10);
  pMsg->iTime = strtoll(azPart[nPart + 3], NULL, 10) / 1000000;
  return 1;
}

static u64 streamKeep(ChoirBuf *b, const char *z, u64 n) {
  u64 i = b->n;
  choirBufAppend(b, z, n);
  return i;
}

static void streamAdd(ChoirNats *p, ChoirNatsBatch *pBatch,
                      const ChoirNatsFrame *f) {
  ChoirErr *pErr = choirNatsErr(p);
  ChoirNatsMsg *pMsg;
  const char *zId;
  if (pBatch->nMsg == pBatch->nAlloc) {
    int nNew = pBatch->nAlloc ? pBatch->nAlloc * 2 : 64;
    void *a = choirRealloc(pErr, pBatch->aMsg, (u64)nNew * sizeof(*pMsg));
    if (a == NULL) {
      return;
    }
    pBatch->aMsg = a;
    pBatch->nAlloc = nNew;
  }
  pMsg = &pBatch->aMsg[pBatch->nMsg];
  memset(pMsg, 0, sizeof(*pMsg));
  pMsg->nSubject = f->nSubject;
  pMsg->iSubject = streamKeep(&pBatch->bytes, f->zSubject, f->nSubject);
  pMsg->nAck = f->nReply;
  pMsg->iAck = streamKeep(&pBatch->bytes, f->zReply, f->nReply);
  choirBufAppend(&pBatch->bytes, "", 1);
  zId = choirNatsHeader(f, "Nats-Msg-Id", &pMsg->nId);
  pMsg->iId = streamKeep(&pBatch->bytes, zId, pMsg->nId);
  pMsg->nBody = f->nBody;
  pMsg->iBody = streamKeep(&pBatch->bytes, f->aBody, f->nBody);
  if (pErr->rc == SQLITE_OK &&
      !streamToken(pBatch->bytes.a + pMsg->iAck, pMsg->nAck, pMsg)) {
    choirErrSet(pErr, SQLITE_ERROR, "a message has no acknowledgement subject");
  }
  pBatch->nMsg += pErr->rc == SQLITE_OK;
}

/* One pull request. nWaitMs 0: what is there. */
static void streamPull(ChoirNats *p, const char *zSubject, int nMax,
                       i64 nWaitMs, ChoirNatsBatch *pBatch) {
  ChoirErr *pErr = choirNatsErr(p);
  char zInbox[64], zBody[128];
  i64 iSid = choirNatsSubscribe(p, zInbox);
  i64 iDeadline = choirNatsDeadline(p) + nWaitMs;
  int nGot = 0, iStatus = 0;
  ChoirNatsFrame f;
  ChoirNatsShown shown;
  const char *z = "";
  u64 n = 0;
  if (nWaitMs) {
    sqlite3_snprintf(sizeof(zBody), zBody,
                     "{\"batch\":%d,\"expires\":%lld000000,\"max_bytes\":%d}",
                     nMax, nWaitMs, STREAM_BATCH_BYTES);
  } else {
    sqlite3_snprintf(sizeof(zBody), zBody,
                     "{\"batch\":%d,\"no_wait\":true,\"max_bytes\":%d}", nMax,
                     STREAM_BATCH_BYTES);
  }
  choirNatsPub(p, zSubject, zInbox, NULL, 0, zBody, strlen(zBody));
  while (nGot < nMax && iStatus == 0 && choirNatsNext(p, &f, iDeadline)) {
    if (f.iSid != iSid) {
      continue;
    }
    iStatus = choirNatsStatus(&f, &z, &n);
    if (iStatus == 0) {
      streamAdd(p, pBatch, &f);
      nGot++;
      iDeadline = choirNatsDeadline(p) + nWaitMs;
    } else if (iStatus == 100) { /* still there */
      iStatus = 0;
    }
  }
  if (pErr->rc == SQLITE_OK && nGot < nMax && iStatus == 0) {
    choirNatsLate(p, zSubject);
  } else if (iStatus && iStatus != 404 && iStatus != 408 && nGot == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "the consumer gives no message: %d %s",
                iStatus, choirNatsShow(&shown, z, n));
  }
  choirNatsUnsubscribe(p, iSid);
}

CHOIR_PRIVATE void choirNatsFetch(ChoirNats *p, const char *zStream,
                                  const char *zConsumer, const char *zOptions,
                                  int nMax, i64 nWaitMs,
                                  ChoirNatsBatch *pBatch) {
  ChoirErr *pErr = choirNatsErr(p);
  char *zSubject, *zInfo;
  i64 nRoom = 0;
  memset(pBatch, 0, sizeof(*pBatch));
  choirBufInit(&pBatch->bytes, pErr, (u64)4 * STREAM_BATCH_BYTES);
  choirNatsName(pErr, "stream", zStream);
  choirNatsName(pErr, "consumer", zConsumer);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  zInfo = streamConsumer(p, zStream, zConsumer, zOptions);
  if (zInfo) {
    nRoom = streamRoom(p, zInfo);
  }
  sqlite3_free(zInfo);
  zSubject =
      choirMprintf(pErr, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", zStream, zConsumer);
  nMax = nRoom > 0 && nRoom < nMax ? (int)nRoom : nMax;
  if (pErr->rc == SQLITE_OK && nRoom <= 0) {
    /* Only what is to come again may come. */
    streamPull(p, zSubject, nMax, nWaitMs < 100 ? 100 : nWaitMs, pBatch);
  } else if (pErr->rc == SQLITE_OK) {
    streamPull(p, zSubject, nMax, 0, pBatch);
    if (pErr->rc == SQLITE_OK && pBatch->nMsg == 0 && nWaitMs > 0) {
      streamPull(p, zSubject, 1, nWaitMs, pBatch);
      if (pBatch->nMsg && nMax > 1 && pErr->rc == SQLITE_OK) {
        streamPull(p, zSubject, nMax - 1, 0, pBatch);
      }
    }
  }
  sqlite3_free(zSubject);
}

/* -------------------------------------------------------- acknowledgements */

CHOIR_PRIVATE i64 choirNatsAckSend(ChoirNats *p, const char *zToken,
                                   const char *zWhat) {
  ChoirNatsMsg msg;
  char zInbox[64];
  i64 iReply = choirNatsInbox(p, zInbox);
  if (!streamToken(zToken, strlen(zToken), &msg)) {
    ChoirNatsShown shown;
    choirErrSet(choirNatsErr(p), SQLITE_ERROR,
                "'%s' is not a token of nats_fetch",
                choirNatsShow(&shown, zToken, strlen(zToken)));
  }
  choirNatsPub(p, zToken, zInbox, NULL, 0, zWhat, strlen(zWhat));
  return iReply;
}

CHOIR_PRIVATE void choirNatsAckWait(ChoirNats *p, i64 iFirst, int nAck) {
  ChoirErr *pErr = choirNatsErr(p);
  i64 iDeadline = choirNatsDeadline(p);
  ChoirNatsFrame f;
  while (nAck > 0 && pErr->rc == SQLITE_OK) {
    if (!choirNatsNext(p, &f, iDeadline)) {
      if (pErr->rc == SQLITE_OK) {
        choirNatsLate(p, "an acknowledgement");
      }
    } else if (choirNatsInboxOf(p, &f) >= iFirst) {
      if (choirNatsNobody(&f)) {
        choirErrSet(pErr, SQLITE_ERROR,
                    "the consumer of the message is no longer there");
      }
      nAck--;
      iDeadline = choirNatsDeadline(p);
    }
  }
}
