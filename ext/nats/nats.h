/* SPDX-License-Identifier: MIT */
/*
** nats: messages, by a synchronous client of choir's own: no thread, nothing
** moves between calls.
**
**   line     what a server may send, taken apart        nats_line.c
**   key      nkeys, .creds and base32                   nats_key.c
**   tls      OpenSSL, opened when a server asks for it  nats_tls.c
**   ws       WebSocket, for ws:// and wss://            nats_ws.c
**   server   the list of servers and who may log in     nats_server.c
**   wire     one connection: connect, send, receive     nats_wire.c
**   stream   JetStream: publish, fetch, acknowledge     nats_stream.c
**   sql      the functions                              nats_sql.c
**   flush    nats_flush(): the action log goes out      nats_flush.c
**   apply    nats_apply(): events come in               nats_apply.c
*/
#ifndef CHOIR_NATS_H
#define CHOIR_NATS_H

#include "../core/core.h"

typedef struct ChoirNats ChoirNats;
typedef struct ChoirNatsFrame ChoirNatsFrame;
typedef struct ChoirNatsServer ChoirNatsServer;
typedef struct ChoirTls ChoirTls;
typedef struct ChoirWs ChoirWs;

/* --------------------------------------------------------------- line ---- */

enum {
  CHOIR_NATS_INFO = 1,
  CHOIR_NATS_MSG,
  CHOIR_NATS_PING,
  CHOIR_NATS_PONG,
  CHOIR_NATS_OK,
  CHOIR_NATS_ERROR
};

#define CHOIR_NATS_LINE (1 << 16)        /* cap for a line */
#define CHOIR_NATS_LINE_INFO (1 << 20)   /* cap for INFO */
#define CHOIR_NATS_BYTES ((u64)65 << 20) /* cap for a message with header */

/* One operation of the protocol; pointers go into the bytes parsed. */
struct ChoirNatsFrame {
  int eOp;
  i64 iSid;
  const char *zSubject, *zReply; /* not terminated; zReply NULL: none */
  u64 nSubject, nReply;
  const char *aHead; /* "NATS/1.0…", or NULL */
  u64 nHead;
  const char *aBody; /* payload; the text of INFO and -ERR */
  u64 nBody;
};

/* Takes the operation at the front of a[0..n) apart. Gives its length, 0 when
** more bytes are needed or when it is none (sticky error). */
CHOIR_PRIVATE u64 choirNatsParse(ChoirErr *, const char *a, u64 n,
                                 ChoirNatsFrame *);
/* The value of a header, or NULL; not terminated. */
CHOIR_PRIVATE const char *choirNatsHeader(const ChoirNatsFrame *,
                                          const char *zName, u64 *pn);
/* 503 of "NATS/1.0 503 …"; 0 when there is none. *pz, *pn: what follows. */
CHOIR_PRIVATE int choirNatsStatus(const ChoirNatsFrame *, const char **pz,
                                  u64 *pn);
/* 1: the server says that nobody listens on the subject of a request. */
CHOIR_PRIVATE int choirNatsNobody(const ChoirNatsFrame *);
/* Printable ASCII of z, at most 119 characters, others as '?'. */
typedef struct ChoirNatsShown {
  char z[120];
} ChoirNatsShown;
CHOIR_PRIVATE const char *choirNatsShow(ChoirNatsShown *, const char *z, u64 n);
/* Sticky error unless z is a subject to publish to. */
CHOIR_PRIVATE void choirNatsSubject(ChoirErr *, const char *z);
/* Sticky error unless z is the name of a stream or consumer. */
CHOIR_PRIVATE void choirNatsName(ChoirErr *, const char *zWhat, const char *z);

/* ---------------------------------------------------------------- key ---- */

typedef struct ChoirNatsLogin {
  char zPublic[64];    /* "U…" */
  char zSignature[96]; /* of the server's nonce, base64url */
  char *zJwt;          /* caller frees, or NULL */
} ChoirNatsLogin;

/* zCreds: the text of a .creds file, or a seed alone ("SU…"). */
CHOIR_PRIVATE void choirNatsSign(ChoirErr *, const char *zCreds,
                                 const char *zNonce, ChoirNatsLogin *);
/* A small file with a secret in it; caller wipes and frees. */
CHOIR_PRIVATE char *choirNatsFile(ChoirErr *, const char *zPath);

/* ---------------------------------------------------------------- tls ----
** A filter between bytes of the wire and bytes of the protocol; it never
** touches the socket.
*/
CHOIR_PRIVATE ChoirTls *choirTlsNew(ChoirConn *, ChoirErr *, const char *zHost);
CHOIR_PRIVATE void choirTlsFree(ChoirTls *);
/* One step of the handshake; 1 when it is done. */
CHOIR_PRIVATE int choirTlsHandshake(ChoirTls *, ChoirErr *);
/* What came over the wire. */
CHOIR_PRIVATE void choirTlsFeed(ChoirTls *, ChoirErr *, const void *a, u64 n);
/* Appends what can be read; 1 when the other side has ended the session. */
CHOIR_PRIVATE int choirTlsRead(ChoirTls *, ChoirErr *, ChoirBuf *);
CHOIR_PRIVATE void choirTlsWrite(ChoirTls *, ChoirErr *, const void *a, u64 n);
/* Appends what is to be sent over the wire. */
CHOIR_PRIVATE void choirTlsDrain(ChoirTls *, ChoirErr *, ChoirBuf *);

/* ------------------------------------------------------------- server ---- */

struct ChoirNatsServer {
  char zHost[256];
  char zPort[8];
  char zName[272]; /* "host:port", for people */
  char *zUser;     /* from the URL, percent-decoded, or NULL; wiped */
  char *zPassword; /* NULL: zUser is a token */
  char zPath[256]; /* of ws:// and wss://, "/…" */
  u8 bTls;         /* tls:// or wss:// */
  u8 bWs;          /* ws:// or wss:// */
};

/* Server i of the list zUrls; 0 past the last one or on failure. */
CHOIR_PRIVATE int choirNatsServer(ChoirErr *, const char *zUrls, int i,
                                  ChoirNatsServer *);
CHOIR_PRIVATE void choirNatsServerFree(ChoirNatsServer *);
/* Appends `,"user":…` and what else lets us in at this server. */
CHOIR_PRIVATE void choirNatsAuth(ChoirConn *, ChoirErr *,
                                 const ChoirNatsServer *, const char *zNonce,
                                 ChoirBuf *);

/* ----------------------------------------------------------------- ws ----
** A filter like TLS, between it (or the wire) and the protocol.
*/
/* Appends the request for a WebSocket. */
CHOIR_PRIVATE ChoirWs *choirWsNew(ChoirErr *, const ChoirNatsServer *,
                                  ChoirBuf *pOut);
CHOIR_PRIVATE void choirWsFree(ChoirWs *);
/* 1 when the server has agreed; its reply is taken from the front of pIn. */
CHOIR_PRIVATE int choirWsAccepted(ChoirWs *, ChoirErr *, ChoirBuf *pIn,
                                  const char *zServer);
/* Takes frames from the front of pIn: what they hold goes to pTo, the answer to
** a ping to pReply. 1 when the other side has closed. */
CHOIR_PRIVATE int choirWsRead(ChoirWs *, ChoirErr *, ChoirBuf *pIn,
                              ChoirBuf *pTo, ChoirBuf *pReply);
/* Appends a[0..n) as one frame. */
CHOIR_PRIVATE void choirWsWrite(const void *a, u64 n, ChoirBuf *pTo);

/* --------------------------------------------------------------- wire ----
** A connection is kept between calls. A call borrows it: choirNatsOpen()
** connects where needed and gives NULL on failure, everything that follows
** reports to the same ChoirErr, choirNatsDone() gives it back. A deadline is
** in choirMonotonic() milliseconds.
*/
typedef struct ChoirNatsAbout {
  char zServer[272]; /* host:port */
  char zId[80];      /* of the server's process: another after a restart */
  char zVersion[32];
  i64 nMaxPayload;
  u8 bHeaders, bJetStream, bTls;
} ChoirNatsAbout;

CHOIR_PRIVATE ChoirNats *choirNatsOpen(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE void choirNatsDone(ChoirNats *);
CHOIR_PRIVATE ChoirErr *choirNatsErr(ChoirNats *);
CHOIR_PRIVATE ChoirConn *choirNatsConn(ChoirNats *);
CHOIR_PRIVATE const ChoirNatsAbout *choirNatsAbout(ChoirNats *);
/* Now and the configured time for a reply. */
CHOIR_PRIVATE i64 choirNatsDeadline(ChoirNats *);
/* Bytes waiting to be sent. */
CHOIR_PRIVATE u64 choirNatsUnsent(ChoirNats *);

/* Queues a message. zReply, aHead may be NULL; aHead is a whole header. */
CHOIR_PRIVATE void choirNatsPub(ChoirNats *, const char *zSubject,
                                const char *zReply, const char *aHead,
                                u64 nHead, const void *aBody, u64 nBody);
/* A reply subject of our own; what arrives there has iSid 1. Gives the number
** it ends in. */
CHOIR_PRIVATE i64 choirNatsInbox(ChoirNats *, char zInbox[64]);
/* The number that a frame of iSid 1 was sent to, 0: none of ours. */
CHOIR_PRIVATE i64 choirNatsInboxOf(ChoirNats *, const ChoirNatsFrame *);
/* A subscription for more than one message: its iSid, its subject. */
CHOIR_PRIVATE i64 choirNatsSubscribe(ChoirNats *, char zInbox[64]);
CHOIR_PRIVATE void choirNatsUnsubscribe(ChoirNats *, i64 iSid);
/* Sends and receives until a message is there (1) or the deadline has passed
** (0). The frame is good until the next call. */
CHOIR_PRIVATE int choirNatsNext(ChoirNats *, ChoirNatsFrame *, i64 iDeadline);
/* The same without waiting. */
CHOIR_PRIVATE int choirNatsReady(ChoirNats *, ChoirNatsFrame *);
/* Sticky: the server did not answer zWhat in time. The connection is given
** up. */
CHOIR_PRIVATE void choirNatsLate(ChoirNats *, const char *zWhat);
/* PING and wait for PONG: the server has processed what was sent. */
CHOIR_PRIVATE void choirNatsSync(ChoirNats *);
/* Sends and waits for the one reply; 0: none came in time (no error). */
CHOIR_PRIVATE int choirNatsRequest(ChoirNats *, const char *zSubject,
                                   const char *aHead, u64 nHead,
                                   const void *aBody, u64 nBody, i64 iDeadline,
                                   ChoirNatsFrame *);

/* ------------------------------------------------------------- stream ---- */

/* $JS.API.<zVerb> with a body; the reply as JSON, caller frees. An error of
** the server is sticky, unless *piError is given: its err_code then. */
CHOIR_PRIVATE char *choirNatsApi(ChoirNats *, const char *zVerb,
                                 const char *zBody, int *piError);

typedef struct ChoirNatsAck {
  char zStream[256];
  i64 iSeq;
  u8 bDuplicate;
} ChoirNatsAck;
/* What reads acknowledgements of publishes; the caller finalizes. */
CHOIR_PRIVATE sqlite3_stmt *choirNatsAckStmt(ChoirNats *);
/* An error when the frame is no acknowledgement. */
CHOIR_PRIVATE void choirNatsAckParse(ChoirNats *, ChoirErr *, sqlite3_stmt *,
                                     const ChoirNatsFrame *,
                                     const char *zSubject, ChoirNatsAck *);
/* Appends "NATS/1.0…Nats-Msg-Id: zId…"; zStream, or NULL: only this one. */
CHOIR_PRIVATE void choirNatsIdHeader(ChoirBuf *, const char *zStream,
                                     const char *zId);

typedef struct ChoirNatsMsg {
  u64 iSubject, nSubject; /* offsets into ChoirNatsBatch.bytes */
  u64 iAck, nAck;
  u64 iId, nId; /* nId 0: none */
  u64 iBody, nBody;
  i64 iSeq, iTime, nDelivered; /* in the stream, ms, 1 the first time */
} ChoirNatsMsg;

typedef struct ChoirNatsBatch {
  ChoirBuf bytes;
  ChoirNatsMsg *aMsg;
  int nMsg, nAlloc;
} ChoirNatsBatch;

/* Up to nMax messages for a pull consumer, which is made (zOptions: JSON over
** the defaults, or NULL) when it is missing. Waits nWaitMs for the first. */
CHOIR_PRIVATE void choirNatsFetch(ChoirNats *, const char *zStream,
                                  const char *zConsumer, const char *zOptions,
                                  int nMax, i64 nWaitMs, ChoirNatsBatch *);
CHOIR_PRIVATE void choirNatsBatchFree(ChoirNatsBatch *);
/* Queues an acknowledgement, zWhat as in "+ACK"; gives its number. */
CHOIR_PRIVATE i64 choirNatsAckSend(ChoirNats *, const char *zToken,
                                   const char *zWhat);
/* Waits until the server has processed nAck of them, the first iFirst. */
CHOIR_PRIVATE void choirNatsAckWait(ChoirNats *, i64 iFirst, int nAck);

/* ---------------------------------------------------------------- sql ---- */

CHOIR_PRIVATE CHOIR_COLD void choirNatsFlushRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirNatsApplyRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirNatsRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_NATS_H */
