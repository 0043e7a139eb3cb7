/* SPDX-License-Identifier: MIT */
/*
** The functions of the room but nats_flush() and nats_apply(): each borrows the connection,
** does one thing, and gives it back. Nothing here is undone by ROLLBACK.
*/
#include "nats.h"

/* TEXT or BLOB; NULL is an error. */
static const char *natsPayload(ChoirErr *pErr, sqlite3_value *v, u64 *pn) {
  int eType = sqlite3_value_type(v);
  const char *a;
  if (eType != SQLITE_TEXT && eType != SQLITE_BLOB) {
    choirErrSet(pErr, SQLITE_ERROR, "payload must be text or blob, got %s",
                choirTypeName(v));
    return NULL;
  }
  a = eType == SQLITE_TEXT ? (const char *)sqlite3_value_text(v)
                           : sqlite3_value_blob(v);
  *pn = (u64)sqlite3_value_bytes(v);
  if (a == NULL && *pn) {
    choirErrNomem(pErr);
  }
  return a ? a : "";
}

/* TEXT when it is text, else BLOB. */
static void natsResult(sqlite3_context *pCtx, const char *a, u64 n) {
  if (choirUtf8Valid(a, (i64)n) == (i64)n && memchr(a, 0, (size_t)n) == NULL) {
    sqlite3_result_text64(pCtx, a, n, SQLITE_TRANSIENT, SQLITE_UTF8);
  } else {
    sqlite3_result_blob64(pCtx, a, n, SQLITE_TRANSIENT);
  }
}

static const char *natsArgSubject(ChoirCall *p) {
  const char *z = choirArgText(&p->err, p->apArg[0], "subject");
  if (z) {
    choirNatsSubject(&p->err, z);
  }
  return z;
}

/*
** SQL: nats_publish(subject, payload) -> INTEGER
**
** Sends a message to whoever listens now, and returns 1 when the server has
** it. At most once: nobody may be listening, nothing is stored. What must
** arrive goes to a stream, by nats_js_publish() or nats_flush().
**
**   subject  TEXT, words between dots, up to 1,024 bytes
**   payload  TEXT or BLOB, up to the server's max_payload
**
** NULL: an error for either argument.
** Errors: not a subject; too large; no server of nats.url answers; not
** permitted.
**
** > SELECT nats_publish('orders..new', 'x')
** ! nats_publish: 'orders..new' is not a subject: a part between dots is empty
*/
static void natsPublishCall(ChoirCall *p) {
  const char *zSubject = natsArgSubject(p);
  u64 n = 0;
  const char *a = natsPayload(&p->err, p->apArg[1], &n);
  ChoirNats *pNats =
      p->err.rc == SQLITE_OK ? choirNatsOpen(p->pConn, &p->err) : NULL;
  if (pNats) {
    choirNatsPub(pNats, zSubject, NULL, NULL, 0, a, n);
    if (p->err.rc == SQLITE_OK) {
      choirNatsSync(pNats);
    }
    choirNatsDone(pNats);
  }
  sqlite3_result_int(p->pCtx, 1);
}

/*
** SQL: nats_js_publish(subject, payload[, msg_id]) -> TEXT
**
** Stores a message in the stream that takes its subject and returns
** {stream, seq, duplicate}. A message whose msg_id the stream has seen lately
** (two minutes unless the stream says otherwise) is not stored again.
**
**   subject  TEXT, words between dots
**   payload  TEXT or BLOB
**   msg_id   TEXT, or NULL: none
**
** NULL: an error for subject and payload.
** Errors: no stream takes the subject; the stream refuses it; no
** acknowledgement in nats.timeout_ms (then it may be stored or not: repeat it
** with the same msg_id).
**
** > SELECT nats_js_publish('orders.new', 'x', 'a b')
** ! nats_js_publish: msg_id must be 1 to 1024 bytes without blanks
*/
static void natsJsPublishCall(ChoirCall *p) {
  const char *zSubject = natsArgSubject(p);
  u64 n = 0;
  const char *a = natsPayload(&p->err, p->apArg[1], &n);
  const char *zId =
      p->nArg > 2 ? choirArgTextOrNull(&p->err, p->apArg[2], "msg_id") : NULL;
  ChoirNats *pNats = NULL;
  ChoirNatsAck ack;
  ChoirNatsFrame f;
  sqlite3_stmt *pStmt;
  ChoirBuf head, b;
  choirBufInit(&head, &p->err, CHOIR_BUF_SQL);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  if (zId) {
    choirNatsIdHeader(&head, NULL, zId);
  }
  if (p->err.rc == SQLITE_OK) {
    pNats = choirNatsOpen(p->pConn, &p->err);
  }
  if (pNats) {
    if (choirNatsRequest(pNats, zSubject, head.a, head.n, a, n,
                         choirNatsDeadline(pNats), &f)) {
      pStmt = choirNatsAckStmt(pNats);
      choirNatsAckParse(pNats, &p->err, pStmt, &f, zSubject, &ack);
      sqlite3_finalize(pStmt);
      choirBufText(&b, "{\"stream\":");
      choirBufJson(&b, ack.zStream, -1);
      choirBufPrintf(&b, ",\"seq\":%lld,\"duplicate\":%s}", ack.iSeq,
                     ack.bDuplicate ? "true" : "false");
    } else if (p->err.rc == SQLITE_OK) {
      choirNatsLate(pNats, zSubject);
    }
    choirNatsDone(pNats);
  }
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
  choirBufFree(&head);
}

/*
** SQL: nats_request(subject, payload[, timeout_ms]) -> TEXT or BLOB
**
** Sends a message and returns the first reply: TEXT when it is valid UTF-8
** without NUL, else BLOB.
**
**   timeout_ms  INTEGER, how long to wait for it; nats.timeout_ms unless given
**
** NULL: an error for subject and payload.
** Errors: nobody listens on the subject; no reply in time.
**
** > SELECT nats_request('time.*', '')
** ! nats_request: 'time.*' is not a subject: one does not publish to a wildcard
*/
static void natsRequestCall(ChoirCall *p) {
  const char *zSubject = natsArgSubject(p);
  u64 n = 0;
  const char *a = natsPayload(&p->err, p->apArg[1], &n);
  i64 nWait = p->nArg > 2
                  ? choirArgInt(&p->err, p->apArg[2], "timeout_ms", 1, 3600000)
                  : 0;
  ChoirNats *pNats =
      p->err.rc == SQLITE_OK ? choirNatsOpen(p->pConn, &p->err) : NULL;
  ChoirNatsFrame f;
  i64 iStart = choirMonotonic();
  if (pNats == NULL) {
    return;
  }
  if (choirNatsRequest(pNats, zSubject, NULL, 0, a, n,
                       nWait ? iStart + nWait : choirNatsDeadline(pNats), &f)) {
    if (choirNatsNobody(&f)) {
      choirErrSet(&p->err, SQLITE_ERROR, "nobody listens on '%s' at %s",
                  zSubject, choirNatsAbout(pNats)->zServer);
    }
    natsResult(p->pCtx, f.aBody, f.nBody);
  } else {
    choirErrSet(&p->err, SQLITE_ERROR, "no reply from '%s' within %lld ms",
                zSubject, choirMonotonic() - iStart);
  }
  choirNatsDone(pNats);
}

/*
** SQL: nats_ack(token[, what[, delay_ms]]) -> INTEGER
**
** Tells a consumer what became of messages that nats_fetch gave, waits until
** the server has taken note, and returns how many there were.
**
**   token     TEXT, column ack of nats_fetch; or a JSON array of them
**   what      TEXT: ack, done, never to come again (the default); nak, to come
**             again; term, never to come again though not done; progress, more
**             time
**   delay_ms  INTEGER, nak: come again after this time
**
** NULL: a NULL token is an error; NULL what means ack.
** Errors: not a token; no such consumer any more.
**
** > SELECT nats_ack('orders.new')
** ! nats_ack: 'orders.new' is not a token of nats_fetch
** > SELECT nats_ack('[]')
** = 0
*/
static void natsAckCall(ChoirCall *p) {
  static const char *const azWhat[] = {"ack", "nak", "term", "progress"};
  static const char *const azSend[] = {"+ACK", "-NAK", "+TERM", "+WPI"};
  const char *zToken = choirArgText(&p->err, p->apArg[0], "token");
  const char *zWhat =
      p->nArg > 1 ? choirArgTextOrNull(&p->err, p->apArg[1], "what") : NULL;
  i64 nDelay = p->nArg > 2 ? choirArgInt(&p->err, p->apArg[2], "delay_ms", 0,
                                         31536000000ll)
                           : 0;
  char zSend[64];
  int i = 0, nAck = 0;
  i64 iFirst = 0, iAck;
  ChoirNats *pNats = NULL;
  sqlite3_stmt *pStmt = NULL;
  while (zWhat && i < 4 && strcmp(zWhat, azWhat[i]) != 0) {
    i++;
  }
  if (i == 4) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "what must be ack, nak, term or progress, got '%.20s'", zWhat);
    i = 0;
  }
  sqlite3_snprintf(sizeof(zSend), zSend, "%s", azSend[i]);
  if (i == 1 && nDelay) {
    sqlite3_snprintf(sizeof(zSend), zSend, "-NAK {\"delay\":%lld000000}",
                     nDelay);
  }
  if (zToken && zToken[0] == '[') {
    zToken = choirArgJson(p->pConn, &p->err, p->apArg[0], "token");
    pStmt = choirJsonStmt(p->pConn, &p->err,
                          "SELECT atom, type FROM json_each(?1)", zToken, -1);
  } else {
    pStmt = choirJsonStmt(p->pConn, &p->err, "SELECT ?1, 'text'", zToken, -1);
  }
  while (choirStep(&p->err, pStmt)) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zType = (const char *)sqlite3_column_text(pStmt, 1);
    if (z == NULL && (zType == NULL || strcmp(zType, "text") == 0)) {
      choirErrNomem(&p->err);
      break;
    }
    if (strncmp(z ? z : "", "$JS.ACK.", 8) != 0) {
      choirErrSet(&p->err, SQLITE_ERROR, "'%.80s' is not a token of nats_fetch",
                  z ? z : "NULL");
      break;
    }
    pNats = pNats ? pNats : choirNatsOpen(p->pConn, &p->err);
    if (pNats) {
      iAck = choirNatsAckSend(pNats, z, zSend);
      iFirst = nAck++ ? iFirst : iAck;
    }
  }
  sqlite3_finalize(pStmt);
  if (pNats) {
    choirNatsAckWait(pNats, iFirst, nAck);
    choirNatsDone(pNats);
  }
  sqlite3_result_int(p->pCtx, nAck);
}

/*
** SQL: nats_stream_create(name, subjects[, options]) -> TEXT
**
** Makes a stream, or finds it as described, and returns {stream, messages,
** created}.
**
**   name      TEXT, without blanks, '.', '*' and '>'
**   subjects  TEXT, a JSON array: '["choiros.>"]'
**   options   TEXT, a JSON object over the server's defaults, in its own words
**             and units (nanoseconds, bytes): storage, retention, max_age,
**             max_bytes, max_msgs, duplicate_window, num_replicas, discard
**
** NULL: an error for name and subjects; NULL options: none.
** Errors: a stream of that name with another configuration, or one that takes
** these subjects already.
**
** > SELECT nats_stream_create('a.b', '["x"]')
** ! nats_stream_create: 'a.b' is not the name of a stream: 1 to 255 bytes without blanks, '.', '*', '>', '/' and '\'
*/
static void natsStreamCall(ChoirCall *p) {
  const char *zName = choirArgText(&p->err, p->apArg[0], "name");
  const char *zSubjects =
      choirArgJson(p->pConn, &p->err, p->apArg[1], "subjects");
  const char *zOptions =
      p->nArg > 2 && sqlite3_value_type(p->apArg[2]) != SQLITE_NULL
          ? choirArgJson(p->pConn, &p->err, p->apArg[2], "options")
          : "{}";
  ChoirNats *pNats = NULL;
  sqlite3_stmt *pStmt;
  char *zVerb, *zReply = NULL;
  if (zName) {
    choirNatsName(&p->err, "stream", zName);
  }
  if (p->err.rc == SQLITE_OK) {
    pNats = choirNatsOpen(p->pConn, &p->err);
  }
  if (pNats == NULL) {
    return;
  }
  pStmt = choirJsonStmt(p->pConn, &p->err,
                        "SELECT json_patch(json_object('name', ?2, 'subjects',"
                        " json(?3)), ?1)",
                        zOptions, -1);
  choirBindText(&p->err, pStmt, 2, zName, -1);
  choirBindText(&p->err, pStmt, 3, zSubjects, -1);
  zVerb = choirMprintf(&p->err, "STREAM.CREATE.%s", zName);
  if (choirStep(&p->err, pStmt)) {
    zReply = choirNatsApi(pNats, zVerb,
                          (const char *)sqlite3_column_text(pStmt, 0), NULL);
  }
  sqlite3_finalize(pStmt);
  sqlite3_free(zVerb);
  if (zReply) {
    pStmt = choirJsonStmt(
        p->pConn, &p->err,
        "SELECT json_object('stream', json_extract(?1, '$.config.name'),"
        " 'messages', json_extract(?1, '$.state.messages'),"
        " 'created', json_extract(?1, '$.created'))",
        zReply, -1);
    if (choirStep(&p->err, pStmt)) {
      choirResultText(p, (const char *)sqlite3_column_text(pStmt, 0));
    }
    sqlite3_finalize(pStmt);
  }
  sqlite3_free(zReply);
  choirNatsDone(pNats);
}

/*
** SQL: nats_streams() -> TABLE(stream, subjects, messages, bytes, first_seq,
**   last_seq, consumers, storage, created)
**
** The streams of the server that this connection may see. subjects is a JSON
** array.
**
** > SELECT choir_config('nats.url', 'http://127.0.0.1');
** > SELECT count(*) FROM nats_streams
** ! nats_streams: a server of nats.url has the scheme 'http'; it is nats://, tls://, ws:// or wss://
*/
static void natsStreamsFilter(ChoirCursor *p) {
  ChoirNats *pNats = choirNatsOpen(p->pConn, &p->err);
  int nSeen = 0, nNew = 1;
  while (pNats && nNew > 0 && p->err.rc == SQLITE_OK) {
    char zBody[48], *z;
    sqlite3_stmt *pStmt;
    sqlite3_snprintf(sizeof(zBody), zBody, "{\"offset\":%d}", nSeen);
    z = choirNatsApi(pNats, "STREAM.LIST", zBody, NULL);
    pStmt = choirJsonStmt(
        p->pConn, &p->err,
        "SELECT s.value->>'$.config.name', (SELECT"
        " json_group_array(e.value) FROM json_each(s.value,"
        " '$.config.subjects') AS e),"
        " s.value->>'$.state.messages', s.value->>'$.state.bytes',"
        " s.value->>'$.state.first_seq', s.value->>'$.state.last_seq',"
        " s.value->>'$.state.consumer_count', s.value->>'$.config.storage',"
        " s.value->>'$.created' FROM json_each(?1, '$.streams') AS s",
        z ? z : "{}", -1);
    for (nNew = 0; choirStep(&p->err, pStmt); nNew++) {
      int i;
      for (i = 0; i < 9; i++) {
        if (i >= 2 && i <= 6) {
          choirRowInt(p, sqlite3_column_int64(pStmt, i));
        } else {
          choirRowText(p, (const char *)sqlite3_column_text(pStmt, i));
        }
      }
    }
    sqlite3_finalize(pStmt);
    sqlite3_free(z);
    nSeen += nNew;
  }
  choirNatsDone(pNats);
}

typedef struct NatsFetch {
  ChoirCursor base;
  ChoirNatsBatch batch;
} NatsFetch;

/*
** SQL: nats_fetch(stream, consumer, batch, timeout_ms[, options]) ->
**   TABLE(subject, payload, msg_id, seq, ack, time, deliveries)
**
** Up to batch messages of a stream, for a pull consumer: those that are there,
** or, when there is none, the first that comes within timeout_ms and what is
** there then. The consumer is made when it is missing. A message comes again,
** to whoever fetches, until nats_ack(ack) is called for it; the consumer's
** ack_wait (30 seconds) is the time for that. At most 64 MiB are fetched at
** once, and all of them before the first row.
**
**   stream      TEXT
**   consumer    TEXT, a name that keeps its place in the stream
**   batch       INTEGER, 1 to 65536
**   timeout_ms  INTEGER, 0: do not wait
**   options     TEXT, a JSON object for a consumer that has to be made, in the
**               server's words: filter_subject, deliver_policy (all, new, last,
**               by_start_sequence), ack_wait (nanoseconds), max_deliver
**
** payload is TEXT when it is valid UTF-8 without NUL, else BLOB. msg_id may be
** NULL. time is when the stream took it, deliveries is 1 the first time.
**
** Errors: no such stream; the connection is lost (what was not acknowledged
** comes again).
**
** > SELECT seq FROM nats_fetch('S', 'C', 0, 0)
** ! nats_fetch: batch must be 1 to 65536, got 0
*/
static void natsFetchFilter(ChoirCursor *pCur) {
  NatsFetch *p = (NatsFetch *)pCur;
  ChoirErr *pErr = &pCur->err;
  const char *zStream = choirArgText(pErr, pCur->apArg[0], "stream");
  const char *zConsumer = choirArgText(pErr, pCur->apArg[1], "consumer");
  i64 nMax = choirArgInt(pErr, pCur->apArg[2], "batch", 1, 65536);
  i64 nWait = choirArgInt(pErr, pCur->apArg[3], "timeout_ms", 0, 3600000);
  const char *zOptions = NULL;
  ChoirNats *pNats = NULL;
  if (pCur->apArg[4] && sqlite3_value_type(pCur->apArg[4]) != SQLITE_NULL) {
    zOptions = choirArgJson(pCur->pConn, pErr, pCur->apArg[4], "options");
  }
  if (pErr->rc == SQLITE_OK) {
    pNats = choirNatsOpen(pCur->pConn, pErr);
  }
  if (pNats) {
    choirNatsFetch(pNats, zStream, zConsumer, zOptions, (int)nMax, nWait,
                   &p->batch);
    choirNatsDone(pNats);
  }
  pCur->bEof = p->batch.nMsg == 0;
}

static void natsFetchNext(ChoirCursor *pCur) {
  pCur->bEof = pCur->iRow >= ((NatsFetch *)pCur)->batch.nMsg;
}

static void natsFetchColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int i) {
  NatsFetch *p = (NatsFetch *)pCur;
  const ChoirNatsMsg *pMsg = &p->batch.aMsg[pCur->iRow];
  const char *a = p->batch.bytes.a;
  switch (i) {
  case 0:
    natsResult(pCtx, a + pMsg->iSubject, pMsg->nSubject);
    break;
  case 1:
    natsResult(pCtx, a + pMsg->iBody, pMsg->nBody);
    break;
  case 2:
    if (pMsg->nId) {
      natsResult(pCtx, a + pMsg->iId, pMsg->nId);
    }
    break;
  case 4:
    natsResult(pCtx, a + pMsg->iAck, pMsg->nAck);
    break;
  default:
    sqlite3_result_int64(pCtx, i == 3   ? pMsg->iSeq
                               : i == 5 ? pMsg->iTime
                                        : pMsg->nDelivered);
    break;
  }
}

static void natsFetchReset(ChoirCursor *pCur) {
  choirNatsBatchFree(&((NatsFetch *)pCur)->batch);
}

/*
** SQL: nats_ping() -> TEXT
**
** Connects where needed and returns {server, version, jetstream, tls,
** max_payload, ms}: who answers, and how long a round trip takes.
**
** Errors: no server of nats.url answers.
**
** > SELECT choir_config('nats.url', 'nats://127.0.0.1:http');
** > SELECT nats_ping()
** ! nats_ping: a server of nats.url is not nats://host:port
*/
static void natsPingCall(ChoirCall *p) {
  ChoirNats *pNats = choirNatsOpen(p->pConn, &p->err);
  const ChoirNatsAbout *pAbout;
  i64 iStart = choirMonotonic();
  ChoirBuf b;
  if (pNats == NULL) {
    return;
  }
  choirNatsSync(pNats);
  pAbout = choirNatsAbout(pNats);
  choirBufInit(&b, &p->err, CHOIR_BUF_SQL);
  choirBufText(&b, "{\"server\":");
  choirBufJson(&b, pAbout->zServer, -1);
  choirBufText(&b, ",\"version\":");
  choirBufJson(&b, pAbout->zVersion, -1);
  choirBufPrintf(&b,
                 ",\"jetstream\":%s,\"tls\":%s,\"max_payload\":%lld,"
                 "\"ms\":%lld}",
                 pAbout->bJetStream ? "true" : "false",
                 pAbout->bTls ? "true" : "false", pAbout->nMaxPayload,
                 choirMonotonic() - iStart);
  choirBufResult(&b, p->pCtx);
  choirBufFree(&b);
  choirNatsDone(pNats);
}

static const ChoirFunc aNatsFunc[] = {
    {"nats_publish", 2, 2, CHOIR_EFFECT, 0, natsPublishCall, NULL},
    {"nats_js_publish", 2, 3, CHOIR_EFFECT, 0, natsJsPublishCall, NULL},
    {"nats_request", 2, 3, CHOIR_EFFECT, 0, natsRequestCall, NULL},
    {"nats_ack", 1, 3, CHOIR_EFFECT, 0, natsAckCall, NULL},
    {"nats_stream_create", 2, 3, CHOIR_EFFECT, 0, natsStreamCall, NULL},
    {"nats_ping", 0, 0, CHOIR_EFFECT, 0, natsPingCall, NULL},
};

static const ChoirTvf aNatsTvf[] = {
    {"nats_streams",
     "stream, subjects, messages, bytes, first_seq, last_seq, consumers,"
     " storage, created",
     9, 0, 0, CHOIR_EFFECT, 0, 0, natsStreamsFilter, NULL, NULL, NULL},
    {"nats_fetch",
     "subject, payload, msg_id, seq, ack, time, deliveries, stream HIDDEN,"
     " consumer HIDDEN, batch HIDDEN, timeout_ms HIDDEN, options HIDDEN",
     7, 4, 5, CHOIR_EFFECT, 0, sizeof(NatsFetch), natsFetchFilter,
     natsFetchNext, natsFetchColumn, natsFetchReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirNatsRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aNatsFunc);
  choirTvfs(pConn, pErr, aNatsTvf);
  choirNatsFlushRegister(pConn, pErr);
  choirNatsApplyRegister(pConn, pErr);
}
