/* SPDX-License-Identifier: MIT */
/*
** WebSocket (RFC 6455) under the protocol of NATS, for servers that only HTTP
** reaches. A filter as TLS is: it works on buffers and never on the socket.
**
** Frames carry a stream. Where the server cuts it into messages means nothing,
** so what a data frame holds is handed on as it comes. Compression is never
** offered. What is sent is masked, because the standard wants that; it hides
** nothing.
*/
#include "nats.h"

enum {
  WS_BINARY = 2,
  WS_CLOSE = 8,
  WS_PING = 9,
  WS_PONG = 10,
  WS_CONTROL = 125,   /* a control frame holds at most this */
  WS_REPLY = 1 << 14, /* cap for the reply to the upgrade */
};

struct ChoirWs {
  char zAccept[32]; /* what a server answers that has read the key */
  u8 bClosed;
  u64 nLeft; /* of a data frame, not received yet */
};

/* ---------------------------------------------------------------- upgrade */

CHOIR_PRIVATE ChoirWs *choirWsNew(ChoirErr *pErr, const ChoirNatsServer *pTo,
                                  ChoirBuf *pOut) {
  ChoirWs *p = choirMalloc(pErr, sizeof(*p));
  u8 aNonce[16], aSum[20];
  ChoirBuf b;
  choirBufInit(&b, pErr, 128);
  sqlite3_randomness(sizeof(aNonce), aNonce);
  choirBufBase64(&b, aNonce, sizeof(aNonce), 0);
  choirBufPrintf(pOut,
                 "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\n"
                 "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: %.*s\r\n\r\n",
                 pTo->zPath, pTo->zName, (int)b.n, b.a ? b.a : "");
  choirBufText(&b, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
  if (pErr->rc == SQLITE_OK) {
    choirSha1(b.a, b.n, aSum);
    b.n = 0;
    choirBufBase64(&b, aSum, sizeof(aSum), 0);
  }
  if (pErr->rc == SQLITE_OK) {
    memcpy(p->zAccept, b.a, (size_t)b.n);
  } else {
    sqlite3_free(p);
    p = NULL;
  }
  choirBufFree(&b);
  return p;
}

/* 1: the line z[0..n) is the header that acknowledges the key. */
static int wsAccepts(const ChoirWs *p, const char *z, u64 n) {
  static const char zName[] = "Sec-WebSocket-Accept:";
  u64 nName = sizeof(zName) - 1;
  if (n <= nName || sqlite3_strnicmp(z, zName, (int)nName) != 0) {
    return 0;
  }
  for (z += nName, n -= nName; n && (*z == ' ' || *z == '\t'); z++, n--) {
  }
  for (; n && (z[n - 1] == ' ' || z[n - 1] == '\t'); n--) {
  }
  return n == strlen(p->zAccept) && memcmp(z, p->zAccept, (size_t)n) == 0;
}

/* The line break at or behind z[0..n), or its end. */
static u64 wsLine(const char *z, u64 n) {
  u64 i;
  for (i = 0; i + 1 < n && (z[i] != '\r' || z[i + 1] != '\n'); i++) {
  }
  return i + 1 < n ? i : n;
}

CHOIR_PRIVATE int choirWsAccepted(ChoirWs *p, ChoirErr *pErr, ChoirBuf *pIn,
                                  const char *zServer) {
  const char *z = pIn->a;
  u64 n = pIn->n, nFirst = wsLine(z, n), i = nFirst, nLine;
  int bKey = 0;
  ChoirNatsShown shown;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  while (i < n && (nLine = wsLine(z + i + 2, n - i - 2)) > 0) {
    bKey |= wsAccepts(p, z + i + 2, nLine);
    i += 2 + nLine;
  }
  if (i + 4 > n) { /* no empty line yet */
    if (n > WS_REPLY) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the reply of %s to the WebSocket has more than %d bytes",
                  zServer, WS_REPLY);
    }
    return 0;
  }
  if (nFirst < 12 || memcmp(z, "HTTP/1.1 101", 12) != 0) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is no WebSocket: it answers '%s'",
                zServer, choirNatsShow(&shown, z, nFirst));
    return 0;
  }
  if (!bKey) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is no WebSocket: it does not acknowledge the key", zServer);
    return 0;
  }
  pIn->n = n - (i + 4);
  memmove(pIn->a, pIn->a + i + 4, (size_t)pIn->n);
  return 1;
}

CHOIR_PRIVATE void choirWsFree(ChoirWs *p) { sqlite3_free(p); }

/* ----------------------------------------------------------------- frames */

static void wsFrame(int eOp, const void *a, u64 n, ChoirBuf *pTo) {
  u8 aHead[14] = {(u8)(0x80 | eOp)};
  int nLength = n < 126 ? 0 : n < 65536 ? 2 : 8, i;
  u8 *aMask = aHead + 2 + nLength;
  u64 j;
  char *z;
  aHead[1] = (u8)(0x80 | (nLength == 0 ? n : nLength == 2 ? 126 : 127));
  for (i = 0; i < nLength; i++) {
    aHead[2 + i] = (u8)(n >> 8 * (nLength - 1 - i));
  }
  sqlite3_randomness(4, aMask);
  choirBufAppend(pTo, aHead, (u64)nLength + 6);
  z = n ? choirBufSpace(pTo, n) : NULL;
  for (j = 0; z && j < n; j++) {
    z[j] = (char)(((const u8 *)a)[j] ^ aMask[j & 3]);
  }
}

CHOIR_PRIVATE void choirWsWrite(const void *a, u64 n, ChoirBuf *pTo) {
  wsFrame(WS_BINARY, a, n, pTo);
}

/* The bytes before what a frame holds, 0: there are more to come, or it is none
** that a server may send (sticky error). *pn: what it holds. */
static u64 wsHead(ChoirErr *pErr, const u8 *a, u64 n, u64 *pn) {
  int nShort, nLength, eOp, i;
  if (n < 2) {
    return 0;
  }
  nShort = a[1] & 127;
  nLength = nShort < 126 ? 0 : nShort == 126 ? 2 : 8;
  if (n < 2 + (u64)nLength) {
    return 0;
  }
  *pn = nLength ? 0 : (u64)nShort;
  for (i = 0; i < nLength; i++) {
    *pn = *pn << 8 | a[2 + i];
  }
  eOp = a[0] & 15;
  if ((a[0] & 0x70) || (a[1] & 0x80) || (eOp > WS_BINARY && eOp < WS_CLOSE) ||
      eOp > WS_PONG || *pn > CHOIR_NATS_BYTES + CHOIR_NATS_LINE_INFO ||
      (eOp >= WS_CLOSE && (*pn > WS_CONTROL || !(a[0] & 0x80)))) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a WebSocket frame begins with %02x %02x and %llu bytes, as"
                " none of a server does",
                a[0], a[1], *pn);
    return 0;
  }
  return 2 + (u64)nLength;
}

CHOIR_PRIVATE int choirWsRead(ChoirWs *p, ChoirErr *pErr, ChoirBuf *pIn,
                              ChoirBuf *pTo, ChoirBuf *pReply) {
  u64 i = 0;
  while (pErr->rc == SQLITE_OK && !p->bClosed && i < pIn->n) {
    const u8 *a = (const u8 *)pIn->a + i;
    u64 n = pIn->n - i, nBody = 0, nHead;
    if (p->nLeft) {
      n = n < p->nLeft ? n : p->nLeft;
      choirBufAppend(pTo, a, n);
      p->nLeft -= n;
      i += n;
      continue;
    }
    nHead = wsHead(pErr, a, n, &nBody);
    if (nHead == 0) {
      break;
    }
    if ((a[0] & 15) < WS_CLOSE) {
      p->nLeft = nBody;
      i += nHead;
      continue;
    }
    if (n < nHead + nBody) {
      break;
    }
    p->bClosed = (a[0] & 15) == WS_CLOSE;
    if ((a[0] & 15) == WS_PING) {
      wsFrame(WS_PONG, a + nHead, nBody, pReply);
    }
    i += nHead + nBody;
  }
  if (i > 0) {
    pIn->n -= i;
    memmove(pIn->a, pIn->a + i, (size_t)pIn->n);
  }
  return p->bClosed;
}
