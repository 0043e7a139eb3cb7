/* SPDX-License-Identifier: MIT */
/*
** What a server may send, taken apart: INFO, MSG, HMSG, PING, PONG, +OK, -ERR.
**
**   MSG <subject> <sid> [reply] <bytes>\r\n<payload>\r\n
**   HMSG <subject> <sid> [reply] <header bytes> <bytes>\r\n<header><payload>\r\n
**
** The reader keeps no state: it is given the front of the buffer until it
** finds a whole operation there. Every length is checked against a cap before
** it is believed. Also here: what may be a subject or a name.
*/
#include "nats.h"

CHOIR_PRIVATE const char *choirNatsShow(ChoirNatsShown *p, const char *z,
                                        u64 n) {
  u64 i;
  for (i = 0; i < n && i < sizeof(p->z) - 1; i++) {
    p->z[i] = z[i] >= ' ' && z[i] <= '~' ? z[i] : '?';
  }
  p->z[i] = 0;
  return p->z;
}

static void lineBad(ChoirErr *pErr, const char *z, u64 n) {
  ChoirNatsShown shown;
  choirErrSet(pErr, SQLITE_ERROR,
              "the server sent what is not the protocol of NATS: '%s'",
              choirNatsShow(&shown, z, n < 60 ? n : 60));
}

/* The next word of [*pz, zEnd); 0 when there is none. */
static u64 lineWord(const char **pz, const char *zEnd, const char **pzWord) {
  const char *z = *pz;
  while (z < zEnd && (*z == ' ' || *z == '\t')) {
    z++;
  }
  *pzWord = z;
  while (z < zEnd && *z != ' ' && *z != '\t') {
    z++;
  }
  *pz = z;
  return (u64)(z - *pzWord);
}

/* A decimal number of at most 15 digits, or -1. */
static i64 lineNumber(const char *z, u64 n) {
  i64 v = 0;
  u64 i;
  if (n == 0 || n > 15) {
    return -1;
  }
  for (i = 0; i < n; i++) {
    if (z[i] < '0' || z[i] > '9') {
      return -1;
    }
    v = v * 10 + (z[i] - '0');
  }
  return v;
}

/* Is z[0..n) this operation, in either case? *pz: what follows it. */
static int lineIs(const char *z, u64 n, const char *zOp, const char **pz) {
  u64 nOp = strlen(zOp);
  if (n < nOp || sqlite3_strnicmp(z, zOp, (int)nOp) != 0 ||
      (n > nOp && z[nOp] != ' ' && z[nOp] != '\t')) {
    return 0;
  }
  *pz = z + nOp;
  return 1;
}

/* MSG and HMSG: a[0..nLine) is the line, nTotal bytes follow from aRest. */
static u64 lineMessage(ChoirErr *pErr, const char *a, u64 nLine,
                       const char *zArgs, int bHead, const char *aRest,
                       u64 nRest, ChoirNatsFrame *p) {
  const char *azWord[5];
  u64 anWord[5];
  const char *z = zArgs, *zEnd = a + nLine, *zMore;
  int nWord = 0, nFixed = bHead ? 4 : 3;
  i64 nHead = 0, nAll;
  while (nWord < 5 && (anWord[nWord] = lineWord(&z, zEnd, &azWord[nWord]))) {
    nWord++;
  }
  if (nWord < nFixed || nWord > nFixed + 1 || lineWord(&z, zEnd, &zMore) != 0) {
    lineBad(pErr, a, nLine);
    return 0;
  }
  nAll = lineNumber(azWord[nWord - 1], anWord[nWord - 1]);
  nHead = bHead ? lineNumber(azWord[nWord - 2], anWord[nWord - 2]) : 0;
  p->iSid = lineNumber(azWord[1], anWord[1]);
  if (nAll < 0 || nHead < 0 || nHead > nAll || p->iSid < 0) {
    lineBad(pErr, a, nLine);
    return 0;
  }
  if ((u64)nAll > CHOIR_NATS_BYTES) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "the server announces a message of %lld bytes, more than the"
                " limit of %llu",
                nAll, CHOIR_NATS_BYTES);
    return 0;
  }
  if (nRest < (u64)nAll + 2) {
    return 0;
  }
  if (aRest[nAll] != '\r' || aRest[nAll + 1] != '\n') {
    lineBad(pErr, a, nLine);
    return 0;
  }
  p->eOp = CHOIR_NATS_MSG;
  p->zSubject = azWord[0];
  p->nSubject = anWord[0];
  if (nWord > nFixed) {
    p->zReply = azWord[2];
    p->nReply = anWord[2];
  }
  p->aHead = bHead ? aRest : NULL;
  p->nHead = (u64)nHead;
  p->aBody = aRest + nHead;
  p->nBody = (u64)(nAll - nHead);
  return (u64)nAll + 2;
}

CHOIR_PRIVATE u64 choirNatsParse(ChoirErr *pErr, const char *a, u64 n,
                                 ChoirNatsFrame *p) {
  const char *zEol, *zArgs = NULL;
  u64 nLine, nUsed, nCap = CHOIR_NATS_LINE;
  memset(p, 0, sizeof(*p));
  if (pErr->rc != SQLITE_OK || n == 0) {
    return 0;
  }
  zEol = memchr(a, '\n', n > CHOIR_NATS_LINE_INFO ? CHOIR_NATS_LINE_INFO : n);
  if (lineIs(a, n < 5 ? n : 5, "INFO", &zArgs)) {
    nCap = CHOIR_NATS_LINE_INFO;
  }
  nLine = zEol ? (u64)(zEol - a) : n;
  if (nLine >= nCap) {
    choirErrSet(pErr, SQLITE_TOOBIG,
                "the server sent a line of more than %llu bytes", nCap);
    return 0;
  }
  if (zEol == NULL) {
    return 0;
  }
  nUsed = nLine + 1;
  if (nLine && a[nLine - 1] == '\r') {
    nLine--;
  }
  if (lineIs(a, nLine, "MSG", &zArgs) || lineIs(a, nLine, "HMSG", &zArgs)) {
    u64 nBody = lineMessage(pErr, a, nLine, zArgs, a[0] == 'H' || a[0] == 'h',
                            a + nUsed, n - nUsed, p);
    return nBody ? nUsed + nBody : 0;
  }
  p->eOp = lineIs(a, nLine, "PING", &zArgs)   ? CHOIR_NATS_PING
           : lineIs(a, nLine, "PONG", &zArgs) ? CHOIR_NATS_PONG
           : lineIs(a, nLine, "+OK", &zArgs)  ? CHOIR_NATS_OK
           : lineIs(a, nLine, "-ERR", &zArgs) ? CHOIR_NATS_ERROR
           : lineIs(a, nLine, "INFO", &zArgs) ? CHOIR_NATS_INFO
                                              : 0;
  if (p->eOp == 0) {
    lineBad(pErr, a, nLine);
    return 0;
  }
  while (zArgs < a + nLine && *zArgs == ' ') {
    zArgs++;
  }
  p->aBody = zArgs;
  p->nBody = (u64)(a + nLine - zArgs);
  return nUsed;
}

/* ---------------------------------------------------------------- headers */

CHOIR_PRIVATE const char *choirNatsHeader(const ChoirNatsFrame *p,
                                          const char *zName, u64 *pn) {
  const char *z = p->aHead, *zEnd = z ? z + p->nHead : NULL;
  u64 nName = strlen(zName);
  while (z && z < zEnd) {
    const char *zEol = memchr(z, '\n', (size_t)(zEnd - z));
    const char *zStop = zEol ? zEol : zEnd;
    if ((u64)(zStop - z) > nName && z[nName] == ':' &&
        sqlite3_strnicmp(z, zName, (int)nName) == 0) {
      z += nName + 1;
      while (z < zStop && (*z == ' ' || *z == '\t')) {
        z++;
      }
      while (zStop > z && (zStop[-1] == '\r' || zStop[-1] == ' ')) {
        zStop--;
      }
      *pn = (u64)(zStop - z);
      return z;
    }
    z = zEol ? zEol + 1 : NULL;
  }
  *pn = 0;
  return NULL;
}

CHOIR_PRIVATE int choirNatsStatus(const ChoirNatsFrame *p, const char **pz,
                                  u64 *pn) {
  const char *z = p->aHead, *zEnd, *zWord;
  u64 nWord;
  i64 iStatus;
  *pz = "";
  *pn = 0;
  if (z == NULL || p->nHead < 8 || memcmp(z, "NATS/1.0", 8) != 0) {
    return 0;
  }
  zEnd = memchr(z, '\r', (size_t)p->nHead);
  zEnd = zEnd ? zEnd : z + p->nHead;
  z += 8;
  nWord = z < zEnd ? lineWord(&z, zEnd, &zWord) : 0;
  iStatus = nWord ? lineNumber(zWord, nWord) : 0;
  while (z < zEnd && *z == ' ') {
    z++;
  }
  *pz = z;
  *pn = (u64)(zEnd - z);
  return iStatus > 0 && iStatus < 1000 ? (int)iStatus : 0;
}

CHOIR_PRIVATE int choirNatsNobody(const ChoirNatsFrame *p) {
  const char *z;
  u64 n;
  return choirNatsStatus(p, &z, &n) == 503;
}

/* --------------------------------------------------------------- subjects */

#define LINE_SUBJECT_MAX 1024 /* the server's line is limited to 4,096 */

CHOIR_PRIVATE void choirNatsSubject(ChoirErr *pErr, const char *z) {
  const char *zWhy = NULL;
  ChoirNatsShown shown;
  size_t i, n = z ? strlen(z) : 0, iToken = 0;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (n == 0 || n > LINE_SUBJECT_MAX) {
    zWhy = "1 to 1024 bytes are allowed";
  }
  for (i = 0; i <= n && zWhy == NULL; i++) {
    if (i == n || z[i] == '.') {
      zWhy = i == iToken ? "a part between dots is empty" : NULL;
      if (i == iToken + 1 && (z[iToken] == '*' || z[iToken] == '>')) {
        zWhy = "one does not publish to a wildcard";
      }
      iToken = i + 1;
    } else if ((u8)z[i] <= ' ' || z[i] == 0x7f) {
      zWhy = "it has a blank or a control character";
    }
  }
  if (zWhy) {
    choirErrSet(pErr, SQLITE_ERROR, "'%s' is not a subject: %s",
                choirNatsShow(&shown, z ? z : "", n), zWhy);
  }
}

CHOIR_PRIVATE void choirNatsName(ChoirErr *pErr, const char *zWhat,
                                 const char *z) {
  ChoirNatsShown shown;
  size_t i, n = z ? strlen(z) : 0;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  for (i = 0; i < n && (u8)z[i] > ' ' && strchr(".*>/\\\x7f", z[i]) == NULL;
       i++) {
  }
  if (n == 0 || n > 255 || i < n) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' is not the name of a %s: 1 to 255 bytes without blanks,"
                " '.', '*', '>', '/' and '\\'",
                choirNatsShow(&shown, z ? z : "", n), zWhat);
  }
}
