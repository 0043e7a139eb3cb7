/* SPDX-License-Identifier: MIT */
/*
** One connection to a NATS server, synchronous and without threads: the
** protocol runs while a call waits for it, in a poll loop that sees the host's
** interrupt within 50 ms and never sleeps past a deadline.
**
** Between calls the socket is kept. The next call first reads what has come
** meanwhile (PINGs, the end of the connection) and connects anew where needed,
** at the next server of the list that answers. After fork() the child closes
** its copy of the socket, which ends nothing for the parent.
**
** A call that fails half way leaves nothing queued: what was not sent is given
** up together with the connection.
*/
#include "nats.h"
#include "../choir.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* there SO_NOSIGPIPE is set on the socket */
#endif

enum { WIRE_TICK_MS = 50, WIRE_READ = 1 << 16, WIRE_TLS_READ = 1 << 14 };

struct ChoirNats {
  ChoirConn *pConn;
  ChoirErr *pErr; /* of the call that has borrowed it */
  ChoirErr idle;  /* what pErr is between calls */
  char *zSetup;   /* the settings it was made with */
  i64 iSecret;    /* and the generation of secrets */
  int pid;
  int fd;      /* -1: not connected */
  int iServer; /* of the list, the one to try first */
  u8 bEof;     /* the server has ended it */
  u8 bDrop;    /* not to be kept after this call */
  ChoirTls *pTls;
  ChoirWs *pWs;
  ChoirBuf in; /* protocol received, from iIn not parsed */
  u64 iIn;
  ChoirBuf out; /* protocol to send, from iOut */
  u64 iOut;
  ChoirBuf inFrames, outFrames; /* with WebSocket: the same in frames */
  ChoirBuf wire; /* out as the socket gets it, where it differs */
  u64 iWire;
  char zInbox[32]; /* "_INBOX.<random>." */
  i64 iReply, iSid, nPong;
  ChoirNatsAbout about;
};

typedef struct NatsState {
  ChoirNats *p;
} NatsState;

/* ------------------------------------------------------------------ state */

/* What credentials went through, once it is sent. */
static void natsWipe(ChoirNats *p) {
  choirWipe(p->out.a, p->out.nAlloc);
  choirWipe(p->outFrames.a, p->outFrames.nAlloc);
  choirWipe(p->wire.a, p->wire.nAlloc);
}

static void natsDrop(ChoirNats *p) {
  if (p->fd >= 0) {
    close(p->fd);
  }
  p->fd = -1;
  choirTlsFree(p->pTls);
  p->pTls = NULL;
  choirWsFree(p->pWs);
  p->pWs = NULL;
  natsWipe(p);
  choirBufFree(&p->in);
  choirBufFree(&p->out);
  choirBufFree(&p->inFrames);
  choirBufFree(&p->outFrames);
  choirBufFree(&p->wire);
  p->iIn = p->iOut = p->iWire = 0;
  p->bEof = p->bDrop = 0;
}

static void natsStateFree(void *pArg) {
  ChoirNats *p = ((NatsState *)pArg)->p;
  if (p) {
    natsDrop(p);
    choirWipeFree(p->zSetup);
    sqlite3_free(p);
  }
}

static const ChoirStateType natsState = {"nats", sizeof(NatsState),
                                         natsStateFree};

static void natsBorrow(ChoirNats *p, ChoirErr *pErr) {
  p->pErr = p->in.pErr = p->out.pErr = p->wire.pErr = pErr;
  p->inFrames.pErr = p->outFrames.pErr = pErr;
}

static void natsLost(ChoirNats *p, const char *zWhy) {
  choirErrSet(p->pErr, SQLITE_ERROR, "the connection to %s is lost: %s",
              p->about.zServer, zWhy);
  p->bDrop = 1;
}

CHOIR_PRIVATE ChoirErr *choirNatsErr(ChoirNats *p) { return p->pErr; }
CHOIR_PRIVATE ChoirConn *choirNatsConn(ChoirNats *p) { return p->pConn; }
CHOIR_PRIVATE const ChoirNatsAbout *choirNatsAbout(ChoirNats *p) {
  return &p->about;
}

static i64 natsTimeout(ChoirConn *pConn) {
  i64 n = choirConfigInt(pConn, "nats.timeout_ms", 5000);
  return n < 1 ? 1 : n > 3600000 ? 3600000 : n;
}

CHOIR_PRIVATE i64 choirNatsDeadline(ChoirNats *p) {
  return choirMonotonic() + natsTimeout(p->pConn);
}

CHOIR_PRIVATE u64 choirNatsUnsent(ChoirNats *p) {
  return p->out.n - p->iOut + p->outFrames.n + p->wire.n - p->iWire;
}

CHOIR_PRIVATE void choirNatsLate(ChoirNats *p, const char *zWhat) {
  choirErrSet(p->pErr, SQLITE_ERROR, "%s did not answer %s within %lld ms",
              p->about.zServer, zWhat, natsTimeout(p->pConn));
  p->bDrop = 1;
}

/* ------------------------------------------------------------------- I/O */

/* Reads once; 1 when something came. */
static int natsReceive(ChoirNats *p) {
  ssize_t n;
  if (p->iIn > 0) { /* the rest of an operation moves to the front */
    p->in.n -= p->iIn;
    memmove(p->in.a, p->in.a + p->iIn, (size_t)p->in.n);
    p->iIn = 0;
  }
  if (p->pTls) {
    char a[WIRE_TLS_READ];
    n = recv(p->fd, a, sizeof(a), 0);
    if (n > 0) {
      choirTlsFeed(p->pTls, p->pErr, a, (u64)n);
    }
  } else {
    ChoirBuf *b = p->pWs ? &p->inFrames : &p->in;
    char *a = choirBufSpace(b, WIRE_READ);
    n = a ? recv(p->fd, a, WIRE_READ, 0) : 0;
    b->n -= a ? WIRE_READ - (u64)(n > 0 ? n : 0) : 0;
    if (a == NULL) {
      return 0;
    }
  }
  if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
    p->bEof = 1;
  }
  return n > 0;
}

/* The plain bytes of what TLS has received. */
static void natsDecrypt(ChoirNats *p) {
  if (p->pTls) {
    p->bEof |=
        choirTlsRead(p->pTls, p->pErr, p->pWs ? &p->inFrames : &p->in) != 0;
    p->bDrop |= p->pErr->rc != SQLITE_OK;
  }
}

/* What has been received, as protocol. */
static void natsUnwrap(ChoirNats *p) {
  natsDecrypt(p);
  if (p->pWs) {
    p->bEof |=
        choirWsRead(p->pWs, p->pErr, &p->inFrames, &p->in, &p->outFrames) != 0;
    p->bDrop |= p->pErr->rc != SQLITE_OK;
  }
}

static void natsSendBuf(ChoirNats *p, ChoirBuf *b, u64 *piAt) {
  while (p->pErr->rc == SQLITE_OK && *piAt < b->n) {
    ssize_t n = send(p->fd, b->a + *piAt, (size_t)(b->n - *piAt), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      p->bEof |= errno != EAGAIN; /* the reader says why */
      return;
    }
    *piAt += (u64)n;
  }
  if (*piAt == b->n) {
    b->n = *piAt = 0;
  }
}

/* a[0..n) of the protocol as the socket gets it, behind what is ready. */
static void natsSeal(ChoirNats *p, const char *a, u64 n) {
  if (p->pWs) {
    if (n) {
      choirWsWrite(a, n, &p->outFrames);
    }
    a = p->outFrames.a;
    n = p->outFrames.n;
    p->outFrames.n = 0;
  }
  if (p->pTls) {
    choirTlsWrite(p->pTls, p->pErr, a, n);
    choirTlsDrain(p->pTls, p->pErr, &p->wire);
  } else if (n) {
    choirBufAppend(&p->wire, a, n);
  }
}

/* Sends what the socket takes. */
static void natsTransmit(ChoirNats *p) {
  if (p->pTls == NULL && p->pWs == NULL) {
    natsSendBuf(p, &p->out, &p->iOut);
    return;
  }
  natsSeal(p, NULL, 0); /* a handshake, an answer to a ping */
  natsSendBuf(p, &p->wire, &p->iWire);
  while (p->pErr->rc == SQLITE_OK && p->out.n > p->iOut &&
         p->wire.n == p->iWire) {
    u64 n = p->out.n - p->iOut;
    n = n > 1 << 20 ? 1 << 20 : n;
    natsSeal(p, p->out.a + p->iOut, n);
    p->iOut += n;
    if (p->iOut == p->out.n) {
      p->out.n = p->iOut = 0;
    }
    natsSendBuf(p, &p->wire, &p->iWire);
  }
}

/* One turn of the loop; 0 when the deadline has passed or on failure. */
static int natsTurn(ChoirNats *p, i64 iDeadline) {
  struct pollfd poller;
  i64 nLeft = iDeadline - choirMonotonic();
  if (p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (choirInterrupted(p->pConn)) {
    choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
    return 0;
  }
  if (p->bEof || p->fd < 0) {
    natsLost(p, "closed by the server");
    return 0;
  }
  natsTransmit(p);
  poller.fd = p->fd;
  poller.events = (short)(POLLIN | (choirNatsUnsent(p) ? POLLOUT : 0));
  poller.revents = 0;
  if (poll(&poller, 1,
           nLeft <= 0             ? 0
           : nLeft < WIRE_TICK_MS ? (int)nLeft
                                  : WIRE_TICK_MS) > 0 &&
      (poller.revents & (POLLIN | POLLHUP | POLLERR))) {
    natsReceive(p);
  }
  return p->pErr->rc == SQLITE_OK && nLeft > 0;
}

/* --------------------------------------------------------------- protocol */

static void natsServerError(ChoirNats *p, const ChoirNatsFrame *f) {
  ChoirNatsShown shown;
  const char *z = choirNatsShow(&shown, f->aBody, f->nBody);
  int bAuth = sqlite3_strlike("%authoriz%", z, 0) == 0 ||
              sqlite3_strlike("%authent%", z, 0) == 0;
  int bPermission = sqlite3_strlike("%permissions violation%", z, 0) == 0;
  choirErrSet(p->pErr, bAuth || bPermission ? SQLITE_AUTH : SQLITE_ERROR,
              "%s refused: %s%s", p->about.zServer, z,
              bAuth ? "; see choir_secret() and nats.creds" : "");
  p->bDrop |= !bPermission;
}

CHOIR_PRIVATE int choirNatsReady(ChoirNats *p, ChoirNatsFrame *f) {
  while (p->pErr->rc == SQLITE_OK) {
    u64 n;
    if (p->iIn == p->in.n) {
      natsUnwrap(p);
    }
    n = choirNatsParse(p->pErr, p->in.a ? p->in.a + p->iIn : "",
                       p->in.n - p->iIn, f);
    if (n == 0) {
      u64 nBefore = p->in.n;
      p->bDrop |= p->pErr->rc != SQLITE_OK;
      natsUnwrap(p); /* the rest of it may be there */
      if (p->in.n == nBefore) {
        return 0;
      }
      continue;
    }
    p->iIn += n;
    if (f->eOp == CHOIR_NATS_MSG) {
      return 1;
    } else if (f->eOp == CHOIR_NATS_PING) {
      choirBufText(&p->out, "PONG\r\n");
    } else if (f->eOp == CHOIR_NATS_PONG) {
      p->nPong++;
    } else if (f->eOp == CHOIR_NATS_ERROR) {
      natsServerError(p, f);
    }
  }
  return 0;
}

CHOIR_PRIVATE int choirNatsNext(ChoirNats *p, ChoirNatsFrame *f,
                                i64 iDeadline) {
  int bOn = 1;
  for (;;) {
    if (choirNatsReady(p, f)) {
      return 1;
    }
    if (!bOn) {
      return 0;
    }
    bOn = natsTurn(p, iDeadline);
  }
}

CHOIR_PRIVATE void choirNatsSync(ChoirNats *p) {
  ChoirNatsFrame f;
  i64 iDeadline = choirNatsDeadline(p), nPong = p->nPong;
  choirBufText(&p->out, "PING\r\n");
  while (p->nPong == nPong && p->pErr->rc == SQLITE_OK) {
    if (!choirNatsReady(p, &f) && p->nPong == nPong &&
        !natsTurn(p, iDeadline) && p->pErr->rc == SQLITE_OK) {
      choirNatsLate(p, "PING");
    }
  }
}

/* ---------------------------------------------------------------- connect */

/* A socket that is connected, or -1. */
static int natsSocket(ChoirNats *p, const struct addrinfo *pAddr,
                      i64 iDeadline) {
  int fd = socket(pAddr->ai_family, SOCK_STREAM, 0), bOn = 1, e = 0;
  socklen_t n = sizeof(e);
  if (fd < 0) {
    return -1;
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &bOn, sizeof(bOn));
#ifdef SO_NOSIGPIPE
  setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &bOn, sizeof(bOn));
#endif
  e = connect(fd, pAddr->ai_addr, pAddr->ai_addrlen) == 0 ? 0 : errno;
  while (e == EINPROGRESS || e == EINTR) {
    struct pollfd poller = {fd, POLLOUT, 0};
    i64 nLeft = iDeadline - choirMonotonic();
    if (choirInterrupted(p->pConn)) {
      choirErrSet(p->pErr, SQLITE_INTERRUPT, "interrupted");
      break;
    }
    if (poll(&poller, 1, nLeft < WIRE_TICK_MS ? (int)nLeft : WIRE_TICK_MS) >
        0) {
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
    } else if (nLeft <= 0) {
      e = ETIMEDOUT;
    }
  }
  if (e != 0) {
    close(fd);
    errno = e;
    return -1;
  }
  return fd;
}

static void natsDial(ChoirNats *p, const ChoirNatsServer *pServer,
                     i64 iDeadline) {
  struct addrinfo hints, *pFirst = NULL, *pAddr;
  int rc;
  memset(&hints, 0, sizeof(hints));
  hints.ai_socktype = SOCK_STREAM;
  rc = getaddrinfo(pServer->zHost, pServer->zPort, &hints, &pFirst);
  if (rc != 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot reach %s: %s", pServer->zName,
                gai_strerror(rc));
    return;
  }
  for (pAddr = pFirst; pAddr && p->fd < 0 && p->pErr->rc == SQLITE_OK;
       pAddr = pAddr->ai_next) {
    p->fd = natsSocket(p, pAddr, iDeadline);
    rc = errno;
  }
  if (p->fd < 0) {
    choirErrSet(p->pErr, SQLITE_ERROR, "cannot reach %s: %s", pServer->zName,
                strerror(rc));
  }
  freeaddrinfo(pFirst);
}

static void natsTls(ChoirNats *p, const ChoirNatsServer *pServer,
                    i64 iDeadline) {
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  p->pTls = choirTlsNew(p->pConn, p->pErr, pServer->zHost);
  if (p->pTls && p->in.n > p->iIn) { /* came behind INFO already */
    choirTlsFeed(p->pTls, p->pErr, p->in.a + p->iIn, p->in.n - p->iIn);
    p->iIn = p->in.n;
  }
  while (p->pTls && !choirTlsHandshake(p->pTls, p->pErr)) {
    choirTlsDrain(p->pTls, p->pErr, &p->wire);
    if (!natsTurn(p, iDeadline)) {
      if (p->pErr->rc == SQLITE_OK) {
        choirNatsLate(p, "the TLS handshake");
      }
      break;
    }
  }
  p->about.bTls = 1;
}

static void natsWebSocket(ChoirNats *p, const ChoirNatsServer *pServer,
                          i64 iDeadline) {
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  p->pWs = choirWsNew(p->pErr, pServer, &p->outFrames);
  while (p->pWs &&
         !choirWsAccepted(p->pWs, p->pErr, &p->inFrames, pServer->zName)) {
    if (!natsTurn(p, iDeadline)) {
      if (p->pErr->rc == SQLITE_OK) {
        choirNatsLate(p, "the request for a WebSocket");
      }
      break;
    }
    natsDecrypt(p);
  }
}

/* The first line of a server. */
static char *natsInfo(ChoirNats *p, i64 iDeadline) {
  ChoirNatsFrame f;
  char *z = NULL;
  while (z == NULL && p->pErr->rc == SQLITE_OK) {
    u64 n;
    natsUnwrap(p);
    n = choirNatsParse(p->pErr, p->in.a ? p->in.a + p->iIn : "",
                       p->in.n - p->iIn, &f);
    if (n == 0 && p->pErr->rc == SQLITE_OK) {
      if (!natsTurn(p, iDeadline) && p->pErr->rc == SQLITE_OK) {
        choirNatsLate(p, "with its INFO");
      }
    } else if (n && f.eOp == CHOIR_NATS_INFO) {
      z = choirMprintf(p->pErr, "%.*s", (int)f.nBody, f.aBody);
      p->iIn += n;
    } else if (n && f.eOp == CHOIR_NATS_ERROR) {
      natsServerError(p, &f);
    } else if (n) {
      natsLost(p, "its first line is not INFO");
    }
  }
  return z;
}

static void natsText(char *zTo, int nTo, sqlite3_stmt *pStmt, int iCol) {
  const char *z = (const char *)sqlite3_column_text(pStmt, iCol);
  ChoirNatsShown shown;
  choirNatsShow(&shown, z ? z : "", z ? strlen(z) : 0);
  sqlite3_snprintf(nTo, zTo, "%s", shown.z);
}

/* Reads INFO; the nonce, caller frees. *pbTls: the server wants TLS, *pbCan:
** it can. */
static char *natsInfoRead(ChoirNats *p, const char *zInfo, int *pbTls,
                          int *pbCan) {
  sqlite3_stmt *pStmt = choirJsonStmt(
      p->pConn, p->pErr,
      "SELECT json_extract(?1,'$.server_id'), json_extract(?1,'$.version'),"
      " json_extract(?1,'$.max_payload'), json_extract(?1,'$.headers'),"
      " json_extract(?1,'$.jetstream'), json_extract(?1,'$.tls_required'),"
      " json_extract(?1,'$.tls_available'), json_extract(?1,'$.nonce')",
      zInfo, -1);
  char *zNonce = NULL;
  int rc = p->pErr->rc == SQLITE_OK ? sqlite3_step(pStmt) & 0xff : SQLITE_OK;
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(p->pErr);
  } else if (rc == SQLITE_ROW) {
    const char *z = (const char *)sqlite3_column_text(pStmt, 7);
    natsText(p->about.zId, sizeof(p->about.zId), pStmt, 0);
    natsText(p->about.zVersion, sizeof(p->about.zVersion), pStmt, 1);
    p->about.nMaxPayload = sqlite3_column_int64(pStmt, 2);
    p->about.bHeaders = sqlite3_column_int(pStmt, 3) != 0;
    p->about.bJetStream = sqlite3_column_int(pStmt, 4) != 0;
    *pbTls = sqlite3_column_int(pStmt, 5) != 0;
    *pbCan = *pbTls || sqlite3_column_int(pStmt, 6) != 0;
    zNonce = choirMprintf(p->pErr, "%s", z ? z : "");
  } else if (p->pErr->rc == SQLITE_OK) {
    natsLost(p, "its INFO is not JSON");
  }
  sqlite3_finalize(pStmt);
  if (p->about.nMaxPayload <= 0 ||
      (u64)p->about.nMaxPayload > CHOIR_NATS_BYTES) {
    p->about.nMaxPayload = 1 << 20;
  }
  return zNonce;
}

static void natsHello(ChoirNats *p, const ChoirNatsServer *pServer,
                      const char *zNonce) {
  choirBufPrintf(&p->out,
                 "CONNECT {\"verbose\":false,\"pedantic\":false,"
                 "\"tls_required\":%s,\"name\":\"choir\",\"lang\":\"c\","
                 "\"version\":\"%s\",\"protocol\":1,\"headers\":true,"
                 "\"no_responders\":true,\"echo\":true",
                 p->about.bTls ? "true" : "false", CHOIR_VERSION);
  choirNatsAuth(p->pConn, p->pErr, pServer, zNonce, &p->out);
  choirBufText(&p->out, "}\r\n");
  choirNatsSync(p);
  if (p->pErr->rc == SQLITE_OK) {
    u8 a[8];
    char z[17];
    natsWipe(p);
    sqlite3_randomness(8, a);
    choirHex(a, 8, z);
    sqlite3_snprintf(sizeof(p->zInbox), p->zInbox, "_INBOX.%s.", z);
    p->iSid = 1;
    choirBufPrintf(&p->out, "SUB %s* 1\r\n", p->zInbox);
  }
}

/* Connects to one server and logs in. */
static void natsConnect(ChoirNats *p, const ChoirNatsServer *pServer) {
  i64 iDeadline = choirNatsDeadline(p);
  const char *zMode = choirConfig(p->pConn, "nats.tls");
  int bFirst =
      pServer->bWs ? pServer->bTls : zMode && strcmp(zMode, "first") == 0;
  int bLater = !bFirst && !pServer->bWs; /* TLS behind INFO, if any */
  int bWants = 0, bCan = 0;
  char *zInfo = NULL, *zNonce = NULL;
  choirBufInit(&p->in, p->pErr, CHOIR_NATS_BYTES + CHOIR_NATS_LINE_INFO);
  choirBufInit(&p->out, p->pErr, 2 * CHOIR_NATS_BYTES);
  choirBufInit(&p->inFrames, p->pErr, 4 * WIRE_READ + CHOIR_NATS_BYTES);
  choirBufInit(&p->outFrames, p->pErr, 4 * CHOIR_NATS_BYTES);
  choirBufInit(&p->wire, p->pErr, 4 * CHOIR_NATS_BYTES);
  memset(&p->about, 0, sizeof(p->about));
  sqlite3_snprintf(sizeof(p->about.zServer), p->about.zServer, "%s",
                   pServer->zName);
  natsDial(p, pServer, iDeadline);
  if (bFirst) {
    natsTls(p, pServer, iDeadline);
  }
  if (pServer->bWs) {
    natsWebSocket(p, pServer, iDeadline);
  }
  zInfo = natsInfo(p, iDeadline);
  if (zInfo) {
    zNonce = natsInfoRead(p, zInfo, &bWants, &bCan);
    if (p->pErr->rc == SQLITE_OK && bLater && pServer->bTls && !bCan) {
      choirErrSet(p->pErr, SQLITE_ERROR,
                  "%s offers no TLS and its URL begins with tls://",
                  pServer->zName);
    } else if (bLater && (bWants || pServer->bTls)) {
      natsTls(p, pServer, iDeadline);
    }
    natsHello(p, pServer, zNonce);
  }
  sqlite3_free(zInfo);
  sqlite3_free(zNonce);
  if (p->pErr->rc != SQLITE_OK) {
    natsDrop(p);
  }
}

/* Tries the servers of the list, beginning with the one that worked last. */
static void natsConnectAny(ChoirNats *p, const char *zUrls) {
  ChoirErr first = {SQLITE_OK, NULL};
  ChoirErr *pErr = p->pErr;
  ChoirNatsServer server;
  int i, n = 1;
  const char *z;
  for (z = zUrls; (z = strchr(z, ',')) != NULL; z++) {
    n++;
  }
  for (i = 0; i < n && p->fd < 0; i++) {
    ChoirErr err = {SQLITE_OK, NULL};
    natsBorrow(p, &err);
    if (choirNatsServer(&err, zUrls, (p->iServer + i) % n, &server)) {
      natsConnect(p, &server);
      choirNatsServerFree(&server);
    }
    if (p->fd >= 0) {
      p->iServer = (p->iServer + i) % n;
    }
    if (first.rc == SQLITE_OK) {
      first = err;
    } else {
      choirErrClear(&err);
    }
    if (first.rc == SQLITE_INTERRUPT || first.rc == SQLITE_NOMEM) {
      break;
    }
  }
  natsBorrow(p, pErr);
  if (p->fd < 0 && n > 1 && first.zMsg) {
    choirErrSet(pErr, first.rc, "none of %d servers can be used; the first: %s",
                n, first.zMsg);
    choirErrClear(&first);
  } else if (p->fd < 0) {
    *pErr = first;
  } else {
    choirErrClear(&first);
  }
}

/* ------------------------------------------------------------ open, close */

/* Everything that a connection depends on, to notice a change. */
static char *natsSetup(ChoirConn *pConn, ChoirErr *pErr) {
  static const char *const azKey[] = {"nats.url",       "nats.tls",
                                      "nats.creds",     "nats.ca_file",
                                      "nats.cert_file", "nats.key_file"};
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < (int)(sizeof(azKey) / sizeof(azKey[0])); i++) {
    const char *z = choirConfig(pConn, azKey[i]);
    choirBufText(&b, z ? z : "");
    choirBufText(&b, "\n");
  }
  return choirBufTake(&b);
}

/* Reads what has come since the last call. The connection goes when it has
** ended, or when something is not as it should be. */
static void natsAlive(ChoirNats *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirNatsFrame f;
  natsBorrow(p, &err);
  do {
    while (choirNatsReady(p, &f)) { /* a reply that nobody waits for */
    }
  } while (err.rc == SQLITE_OK && !p->bEof && natsReceive(p));
  if (err.rc != SQLITE_OK || p->bEof) {
    natsDrop(p);
  }
  choirErrClear(&err);
}

CHOIR_PRIVATE ChoirNats *choirNatsOpen(ChoirConn *pConn, ChoirErr *pErr) {
  NatsState *pState = choirState(pConn, pErr, &natsState);
  char *zSetup = natsSetup(pConn, pErr);
  i64 iSecret = choirSecretGeneration(pConn, pErr);
  ChoirNats *p;
  if (pState && pState->p == NULL) {
    pState->p = choirMalloc(pErr, sizeof(ChoirNats));
    if (pState->p) {
      pState->p->fd = -1;
      pState->p->pConn = pConn;
    }
  }
  p = pState ? pState->p : NULL;
  if (p == NULL || pErr->rc != SQLITE_OK) {
    choirWipeFree(zSetup);
    return NULL;
  }
  if (p->zSetup == NULL || strcmp(p->zSetup, zSetup) != 0 ||
      p->iSecret != iSecret || p->pid != choirPid()) {
    natsDrop(p);
    p->iServer = 0;
  } else if (p->fd >= 0) {
    natsAlive(p);
  }
  choirWipeFree(p->zSetup);
  p->zSetup = zSetup;
  p->iSecret = iSecret;
  p->pid = choirPid();
  natsBorrow(p, pErr);
  if (p->fd < 0) {
    natsConnectAny(p, choirConfig(pConn, "nats.url"));
  }
  if (pErr->rc != SQLITE_OK) {
    choirNatsDone(p);
    return NULL;
  }
  return p;
}

CHOIR_PRIVATE void choirNatsDone(ChoirNats *p) {
  if (p == NULL) {
    return;
  }
  if (p->bDrop || p->bEof ||
      (p->pErr->rc != SQLITE_OK &&
       (choirNatsUnsent(p) || p->pErr->rc == SQLITE_NOMEM ||
        p->pErr->rc == SQLITE_TOOBIG))) {
    natsDrop(p);
  }
  natsBorrow(p, &p->idle);
}

/* --------------------------------------------------------------- messages */

CHOIR_PRIVATE void choirNatsPub(ChoirNats *p, const char *zSubject,
                                const char *zReply, const char *aHead,
                                u64 nHead, const void *aBody, u64 nBody) {
  char z[48];
  choirNatsSubject(p->pErr, zSubject);
  if (p->pErr->rc == SQLITE_OK && nHead + nBody > (u64)p->about.nMaxPayload) {
    choirErrSet(p->pErr, SQLITE_TOOBIG,
                "the message is %llu bytes and %s takes at most %lld",
                nHead + nBody, p->about.zServer, p->about.nMaxPayload);
  }
  if (p->pErr->rc == SQLITE_OK && aHead && !p->about.bHeaders) {
    choirErrSet(p->pErr, SQLITE_ERROR, "%s does not know headers",
                p->about.zServer);
  }
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  choirBufText(&p->out, aHead ? "HPUB " : "PUB ");
  choirBufText(&p->out, zSubject);
  choirBufText(&p->out, " ");
  if (zReply) {
    choirBufText(&p->out, zReply);
    choirBufText(&p->out, " ");
  }
  if (aHead) {
    sqlite3_snprintf(sizeof(z), z, "%llu %llu\r\n", nHead, nHead + nBody);
  } else {
    sqlite3_snprintf(sizeof(z), z, "%llu\r\n", nBody);
  }
  choirBufText(&p->out, z);
  choirBufAppend(&p->out, aHead, nHead);
  choirBufAppend(&p->out, aBody, nBody);
  choirBufText(&p->out, "\r\n");
}

CHOIR_PRIVATE i64 choirNatsInbox(ChoirNats *p, char zInbox[64]) {
  sqlite3_snprintf(64, zInbox, "%s%lld", p->zInbox, ++p->iReply);
  return p->iReply;
}

CHOIR_PRIVATE i64 choirNatsInboxOf(ChoirNats *p, const ChoirNatsFrame *f) {
  u64 i = strlen(p->zInbox);
  i64 v = 0;
  if (f->iSid != 1 || f->nSubject <= i || f->nSubject > i + 18 ||
      memcmp(f->zSubject, p->zInbox, (size_t)i) != 0) {
    return 0;
  }
  for (; i < f->nSubject; i++) {
    if (f->zSubject[i] < '0' || f->zSubject[i] > '9') {
      return 0;
    }
    v = v * 10 + (f->zSubject[i] - '0');
  }
  return v;
}

CHOIR_PRIVATE i64 choirNatsSubscribe(ChoirNats *p, char zInbox[64]) {
  p->iSid++;
  sqlite3_snprintf(64, zInbox, "%sS%lld", p->zInbox, p->iSid);
  choirBufPrintf(&p->out, "SUB %s %lld\r\n", zInbox, p->iSid);
  return p->iSid;
}

CHOIR_PRIVATE void choirNatsUnsubscribe(ChoirNats *p, i64 iSid) {
  choirBufPrintf(&p->out, "UNSUB %lld\r\n", iSid);
}

CHOIR_PRIVATE int choirNatsRequest(ChoirNats *p, const char *zSubject,
                                   const char *aHead, u64 nHead,
                                   const void *aBody, u64 nBody, i64 iDeadline,
                                   ChoirNatsFrame *f) {
  char zInbox[64];
  i64 iWant = choirNatsInbox(p, zInbox);
  choirNatsPub(p, zSubject, zInbox, aHead, nHead, aBody, nBody);
  while (choirNatsNext(p, f, iDeadline)) {
    if (choirNatsInboxOf(p, f) == iWant) {
      return 1;
    }
  }
  return 0;
}
