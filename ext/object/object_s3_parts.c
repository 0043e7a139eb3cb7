/* SPDX-License-Identifier: MIT */
/*
** Uploads in parts: an object too large for one request, or for one that would
** have to begin again from the start.
**
** The upload is created, s3.parallel parts are under way at a time over the
** connection's one multi handle, each read from the source as it is sent (so
** memory does not grow with the object) and tried again by itself; completion
** makes the object, all of it or nothing. Parts are s3.part_bytes, or as much
** as makes them 10,000.
**
** Whatever ends it early (an error, an interrupt) ends the upload at the store
** too, for up to five seconds. After a crash the next put of the same bytes goes
** on with the parts that arrived (object_s3_resume.c); one that the store refuses
** to go on with begins anew. What nobody takes up again, or a creation whose
** reply was lost, is found by choirS3Sweep.
**
** A condition hangs on the completion, and is looked at before, because not
** every store checks it there.
**
** A copy within a store of more than it copies at once goes the same way: parts
** are ranges of the other object, which the store fetches by itself, each on the
** condition that it is still the one that was there at the beginning. That it
** is is also looked at before the completion. Parts of a copy are large, a 64th
** of the object, as nothing of them passes here.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET

enum {
  PARTS_MAX = 10000,
  PARTS_AT_ONCE = 16,
  PARTS_ID_MAX = 2048,
  PARTS_READ = 1 << 16,
  PARTS_ABORTS = 4
};
#define PARTS_MIN ((i64)5 << 20)
#define PARTS_OBJECT_MAX ((u64)5 << 40)
#define PARTS_COPIES 64 /* parts of a copy, about */
#define PARTS_COPY_MAX ((i64)5 << 30)

typedef struct S3Part {
  ChoirS3Call call;
  int iPart; /* 1, 2, … */
  int nTry;  /* of a copy: how often it was asked for */
  char *zQuery;
  char zRange[64]; /* of a copy: x-amz-copy-source-range */
} S3Part;

/* What is copied. */
typedef struct S3From {
  ChoirObject *pObj;
  const char *zKey;
  ChoirObjectMeta meta;
  ChoirBuf path; /* x-amz-copy-source */
  ChoirBuf head; /* headers that go with it: name, NUL, value, NUL, … */
} S3From;

typedef struct S3Parts {
  ChoirObject *pObj;
  ChoirErr *pErr;
  const char *zKey;
  const ChoirObjectSource *pSource; /* what is put, */
  const S3From *pFrom;              /* or copied */
  u64 nByte;
  i64 nPartByte;
  int nPart, nSent; /* nSent: parts that were begun */
  char *zId; /* the upload's name, percent-encoded; NULL: there is none */
  ChoirS3Done *aDone; /* nPart of them */
  ChoirS3Resume resume;
  int bResumed;
  int iRefused;  /* the status by which the store refused, or 0 */
  S3Part *aPart; /* nAtOnce of them */
  int nAtOnce;
  char zWrite[37];
} S3Parts;

/* ?uploadId=…, after zBefore; caller frees. */
static char *partsQuery(S3Parts *p, const char *zBefore) {
  return choirMprintf(p->pErr, "%suploadId=%s", zBefore, p->zId ? p->zId : "");
}

static i64 partsBytes(const S3Parts *p) {
  i64 n = choirConfigInt(p->pObj->pConn, "s3.part_bytes", 8 << 20);
  i64 nLeast = (i64)(p->nByte / (p->pFrom ? PARTS_COPIES : PARTS_MAX));
  n = n < PARTS_MIN ? PARTS_MIN : n;
  if (nLeast >= n) {
    n = (nLeast | ((1 << 20) - 1)) + 1; /* whole MiB */
  }
  return p->pFrom && n > PARTS_COPY_MAX ? PARTS_COPY_MAX : n;
}

static void partsPlan(S3Parts *p) {
  i64 nAtOnce = choirConfigInt(p->pObj->pConn, "s3.parallel", 4);
  if (p->nByte > PARTS_OBJECT_MAX) {
    choirErrSet(p->pErr, SQLITE_TOOBIG,
                "%llu bytes, an object takes at most %llu", p->nByte,
                PARTS_OBJECT_MAX);
    return;
  }
  p->nPartByte = partsBytes(p);
  p->nPart = p->nByte
                 ? (int)((p->nByte + (u64)p->nPartByte - 1) / (u64)p->nPartByte)
                 : 1;
  p->nAtOnce = nAtOnce < 1               ? 1
               : nAtOnce > PARTS_AT_ONCE ? PARTS_AT_ONCE
                                         : (int)nAtOnce;
  p->aDone = choirMalloc(p->pErr, (u64)p->nPart * sizeof(*p->aDone));
  p->aPart = choirMalloc(p->pErr, (u64)p->nAtOnce * sizeof(*p->aPart));
}

/* By what a part of this very object is known again. */
static u64 fromCrc(const S3From *p) {
  return choirCrc64(0, p->meta.zEtag, strlen(p->meta.zEtag));
}

/* Is part iPart still what the source has there? */
static int partsSame(S3Parts *p, int iPart, char *a) {
  u64 iAt = (u64)(iPart - 1) * (u64)p->nPartByte, crc = 0;
  u64 iEnd = iAt + (u64)p->nPartByte;
  iEnd = iEnd < p->nByte ? iEnd : p->nByte;
  while (p->pSource && iAt < iEnd && p->pErr->rc == SQLITE_OK) {
    u64 n = iEnd - iAt < PARTS_READ ? iEnd - iAt : PARTS_READ;
    p->pSource->xRead(p->pSource->pArg, p->pErr, iAt, a, n);
    crc = choirCrc64(crc, a, n);
    iAt += n;
  }
  crc = p->pFrom ? fromCrc(p->pFrom) : crc;
  return p->pErr->rc == SQLITE_OK && crc == p->aDone[iPart - 1].crc;
}

/* Takes up what a process that died left, if there is something. The URL stands
** for the place; it is learnt without asking the store. 1: all of it is there,
** the object too. */
static int partsResume(S3Parts *p, ChoirObjectMeta *pNew) {
  ChoirS3Call call;
  char *zUrl, *zWhat = NULL, *a = NULL;
  int i, nSame = 0;
  choirS3Begin(&call, p->pObj, p->pErr, "PUT", p->zKey);
  choirAws(p->pObj->pConn, p->pErr, p->pObj->zUrl, 0, &call.aws);
  zUrl = p->pErr->rc == SQLITE_OK ? choirS3Url(&call) : NULL;
  if (zUrl) {
    zWhat =
        choirMprintf(p->pErr, "%s %llu %lld%s%s", zUrl, p->nByte, p->nPartByte,
                     p->pFrom ? " " : "", p->pFrom ? p->pFrom->path.a : "");
  }
  p->resume.aPart = p->aDone;
  p->resume.nPart = p->nPart;
  if (zWhat) {
    choirS3ResumeOpen(&p->resume, p->pErr, zWhat);
  }
  if (p->resume.zId) {
    p->zId = p->resume.zId;
    memcpy(p->zWrite, p->resume.zWrite, sizeof(p->zWrite));
    p->bResumed = 1;
    a = choirMalloc(p->pErr, PARTS_READ);
  }
  for (i = 1; a && i <= p->nPart; i++) {
    if (p->aDone[i - 1].zEtag[0] && partsSame(p, i, a)) {
      nSame++;
    } else {
      p->aDone[i - 1].zEtag[0] = 0;
    }
  }
  sqlite3_free(a);
  sqlite3_free(zUrl);
  sqlite3_free(zWhat);
  return nSame == p->nPart && p->pErr->rc == SQLITE_OK &&
         choirS3Mine(p->pObj, p->pErr, p->zKey, p->zWrite, pNew);
}

/* The headers of the object that is copied. */
static void partsMeta(const S3From *pFrom, ChoirS3Call *pCall) {
  const char *z = pFrom->head.a, *zEnd = z ? z + pFrom->head.n : NULL;
  while (z < zEnd) {
    const char *zValue = z + strlen(z) + 1;
    choirS3Header(pCall, z, zValue);
    z = zValue + strlen(zValue) + 1;
  }
}

static void partsCreate(S3Parts *p) {
  ChoirS3Call call;
  choirS3Begin(&call, p->pObj, p->pErr, "POST", p->zKey);
  call.zQuery = "uploads=";
  choirS3Header(&call, "x-amz-meta-choir-write", p->zWrite);
  if (p->pFrom) {
    partsMeta(p->pFrom, &call);
  } else if (p->pObj->zType) {
    choirS3Header(&call, "Content-Type", p->pObj->zType);
  }
  choirS3Send(&call);
  if (p->pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
    char *z = choirXmlFirst(p->pErr, call.http.body.a, "UploadId");
    size_t n = z ? strlen(z) : 0;
    if (n == 0 || n > PARTS_ID_MAX) {
      choirErrSet(p->pErr, SQLITE_ERROR, "the store gave the upload no name");
    } else {
      ChoirBuf b;
      choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
      choirUrlEncode(&b, z, (i64)n, 0);
      p->zId = choirBufTake(&b);
      if (p->zId) {
        choirS3ResumeBegin(&p->resume, p->zId, p->zWrite);
      }
    }
    sqlite3_free(z);
  } else {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
}

/* What part pPart is made of: bytes that are sent, or a range that the store
** copies. */
static void partsContent(S3Parts *p, S3Part *pPart) {
  ChoirS3Call *pCall = &pPart->call;
  u64 iFrom = (u64)(pPart->iPart - 1) * (u64)p->nPartByte;
  u64 nLeft = p->nByte - iFrom;
  i64 n = nLeft < (u64)p->nPartByte ? (i64)nLeft : p->nPartByte;
  if (p->pFrom) {
    sqlite3_snprintf(sizeof(pPart->zRange), pPart->zRange, "bytes=%llu-%llu",
                     iFrom, iFrom + (u64)n - 1);
    choirS3Header(pCall, "x-amz-copy-source", p->pFrom->path.a);
    choirS3Header(pCall, "x-amz-copy-source-if-match", p->pFrom->meta.zEtag);
    choirS3Header(pCall, "x-amz-copy-source-range", pPart->zRange);
  } else {
    pCall->pSource = p->pSource;
    pCall->iFrom = (i64)iFrom;
    pCall->bCrc = 1;
    pCall->nWant = n;
  }
}

/* Begins the next part, if there is one, in a free place. */
static void partsNext(S3Parts *p, S3Part *pPart) {
  char zBefore[32];
  while (p->nSent < p->nPart && p->aDone[p->nSent].zEtag[0]) {
    p->nSent++; /* before this process began */
  }
  if (p->nSent == p->nPart || p->pErr->rc != SQLITE_OK) {
    return;
  }
  pPart->iPart = ++p->nSent;
  pPart->nTry = 1;
  sqlite3_snprintf(sizeof(zBefore), zBefore, "partNumber=%d&", pPart->iPart);
  sqlite3_free(pPart->zQuery);
  pPart->zQuery = partsQuery(p, zBefore);
  choirS3Begin(&pPart->call, p->pObj, p->pErr, "PUT", p->zKey);
  pPart->call.zQuery = pPart->zQuery;
  partsContent(p, pPart);
  choirS3Start(&pPart->call);
}

/* The ETag of a part: the reply's, or of a copy what its text says. */
static void partsEtag(S3Parts *p, ChoirS3Call *pCall, char *zEtag, int n) {
  ChoirObjectMeta meta;
  if (p->pFrom) {
    char *z = choirXmlFirst(p->pErr, pCall->http.body.a, "ETag");
    sqlite3_snprintf(n, zEtag, "%s", z ? z : "");
    sqlite3_free(z);
  } else {
    choirS3Meta(pCall, &meta);
    sqlite3_snprintf(n, zEtag, "%s", meta.zEtag);
  }
}

/* A part has arrived, or not. */
static void partsArrived(S3Parts *p, S3Part *pPart) {
  ChoirS3Call *pCall = &pPart->call;
  ChoirS3Done *pDone = &p->aDone[pPart->iPart - 1];
  if (p->pErr->rc == SQLITE_OK && pCall->http.iStatus == 200) {
    partsEtag(p, pCall, pDone->zEtag, (int)sizeof(pDone->zEtag));
    if (pDone->zEtag[0] == 0 && p->pFrom) {
      choirS3Fail(pCall);
    } else if (pDone->zEtag[0] == 0) {
      choirErrSet(p->pErr, SQLITE_ERROR, "the store gave part %d no etag",
                  pPart->iPart);
    }
    pDone->crc = p->pFrom ? fromCrc(p->pFrom) : pCall->crc;
    if (p->pErr->rc == SQLITE_OK && pCall->nCrc == pCall->nWant) {
      choirS3ResumePart(&p->resume, pPart->iPart);
    }
  } else {
    p->iRefused = pCall->bHttp ? pCall->http.iStatus : 0;
    choirS3Fail(pCall);
  }
  choirS3Free(pCall);
}

/* A reply that says 200 before the store has done it may say then that it could
** not: does it, and may it the next time? */
static int partsPasses(ChoirErr *pErr, const char *zXml, int bCodeless) {
  char *zCode = choirXmlFirst(pErr, zXml, "Code");
  int b = zCode ? strcmp(zCode, "InternalError") == 0 ||
                      strcmp(zCode, "SlowDown") == 0 ||
                      strcmp(zCode, "ServiceUnavailable") == 0
                : bCodeless;
  sqlite3_free(zCode);
  return b;
}

/* Asks for a copy of a part once more, if that may help. */
static int partsAgain(S3Parts *p, S3Part *pPart) {
  ChoirS3Call *pCall = &pPart->call;
  if (p->pFrom == NULL || p->pErr->rc != SQLITE_OK ||
      pCall->http.iStatus != 200 ||
      pPart->nTry >= choirConfigInt(p->pObj->pConn, "http.attempts", 3) ||
      !partsPasses(p->pErr, pCall->http.body.a, 0)) {
    return 0;
  }
  sqlite3_sleep(100 << pPart->nTry++);
  choirS3Start(pCall);
  return p->pErr->rc == SQLITE_OK;
}

static void partsSend(S3Parts *p) {
  ChoirHttp *ap[PARTS_AT_ONCE];
  int i;
  for (i = 0; i < p->nAtOnce && p->pErr->rc == SQLITE_OK; i++) {
    ap[i] = &p->aPart[i].call.http;
    partsNext(p, &p->aPart[i]);
  }
  while (p->pErr->rc == SQLITE_OK &&
         (i = choirHttpWait(p->pObj->pConn, ap, p->nAtOnce)) >= 0) {
    if (choirS3Settled(&p->aPart[i].call) && !partsAgain(p, &p->aPart[i])) {
      partsArrived(p, &p->aPart[i]);
      partsNext(p, &p->aPart[i]);
    }
  }
  for (i = 0; i < p->nAtOnce && p->aPart; i++) {
    choirS3Free(&p->aPart[i].call); /* those under way are broken off */
    sqlite3_free(p->aPart[i].zQuery);
  }
}

static void partsXml(S3Parts *p, ChoirBuf *pXml) {
  int i;
  choirBufText(pXml, "<CompleteMultipartUpload xmlns="
                     "\"http://s3.amazonaws.com/doc/2006-03-01/\">");
  for (i = 0; i < p->nPart; i++) {
    const char *z = p->aDone[i].zEtag;
    choirBufPrintf(pXml, "<Part><PartNumber>%d</PartNumber><ETag>", i + 1);
    for (; *z; z++) {
      if (*z == '&' || *z == '<') {
        choirBufText(pXml, *z == '&' ? "&amp;" : "&lt;");
      } else {
        choirBufAppend(pXml, z, 1);
      }
    }
    choirBufText(pXml, "</ETag></Part>");
  }
  choirBufText(pXml, "</CompleteMultipartUpload>");
}

/* Does the condition hold now, and is what is copied still the same? */
static int partsHolds(S3Parts *p, int eIf, const char *zEtag) {
  ChoirObjectMeta now;
  int e;
  if (p->pFrom && (choirObjectHead(p->pFrom->pObj, p->pErr, p->pFrom->zKey,
                                   &now) != CHOIR_OBJECT_OK ||
                   strcmp(now.zEtag, p->pFrom->meta.zEtag) != 0)) {
    return 0;
  }
  if (eIf == CHOIR_IF_ANY || ((ChoirS3Store *)p->pObj)->bBlind) {
    return 1;
  }
  e = choirObjectHead(p->pObj, p->pErr, p->zKey, &now);
  return eIf == CHOIR_IF_ABSENT
             ? e == CHOIR_OBJECT_ABSENT
             : e == CHOIR_OBJECT_OK && strcmp(now.zEtag, zEtag) == 0;
}

/* The reply to a completion: 1 to ask again. */
static int partsRefused(S3Parts *p, ChoirS3Call *pCall, int nTry,
                        ChoirObjectMeta *pNew) {
  const char *zXml = pCall->http.body.a;
  char *zEtag, *zCode;
  int bAgain = 0;
  if (p->pErr->rc != SQLITE_OK || pCall->http.iStatus != 200) {
    return 0;
  }
  zCode = choirXmlFirst(p->pErr, zXml, "Code");
  zEtag = zCode ? NULL : choirXmlFirst(p->pErr, zXml, "ETag");
  if (zEtag) {
    sqlite3_snprintf(sizeof(pNew->zEtag), pNew->zEtag, "%s", zEtag);
  } else if (nTry < choirConfigInt(p->pObj->pConn, "http.attempts", 3) &&
             partsPasses(p->pErr, zXml, 1)) {
    bAgain = 1;
    sqlite3_sleep(100 << nTry);
  } else {
    choirS3Fail(pCall);
  }
  sqlite3_free(zCode);
  sqlite3_free(zEtag);
  return bAgain;
}

static int partsComplete(S3Parts *p, int eIf, const char *zEtag,
                         ChoirObjectMeta *pNew) {
  ChoirObjectMeta said;
  ChoirS3Call call;
  ChoirBuf xml;
  char *zQuery = partsQuery(p, "");
  int e = CHOIR_OBJECT_FAILED, nTry = 1, bAgain, bLost = p->bResumed;
  memset(&said, 0, sizeof(said));
  choirBufInit(&xml, p->pErr, CHOIR_BUF_JSON);
  partsXml(p, &xml);
  do {
    choirS3Begin(&call, p->pObj, p->pErr, "POST", p->zKey);
    call.zQuery = zQuery;
    call.pText = &xml;
    call.bLost = (u8)bLost;
    choirS3Condition(&call, eIf, zEtag);
    choirS3Send(&call);
    bAgain = partsRefused(p, &call, nTry++, &said);
    bLost |= bAgain;
    e = bAgain ? e : choirS3Outcome(&call, eIf, p->zWrite, pNew);
    p->iRefused = call.bHttp ? call.http.iStatus : 0;
    choirS3Free(&call);
  } while (bAgain && p->pErr->rc == SQLITE_OK);
  if (e == CHOIR_OBJECT_OK && said.zEtag[0]) {
    memcpy(pNew->zEtag, said.zEtag, sizeof(said.zEtag));
  } else if (e == CHOIR_OBJECT_OK && pNew->zEtag[0] == 0) {
    choirS3Mine(p->pObj, p->pErr, p->zKey, p->zWrite, pNew); /* Ceph: empty */
  }
  sqlite3_free(zQuery);
  choirBufFree(&xml);
  return e;
}

/* Tells the store to forget an upload: the status of its reply. */
static int partsAbort(ChoirObject *pObj, const char *zKey, const char *zQuery) {
  ChoirErr err = {SQLITE_OK, NULL};
  ChoirS3Call call;
  int iStatus;
  choirS3Begin(&call, pObj, &err, "DELETE", zKey);
  call.zQuery = zQuery;
  call.bCleanup = 1;
  choirS3Send(&call);
  iStatus = err.rc == SQLITE_OK && call.bHttp ? call.http.iStatus : 0;
  choirS3Free(&call);
  choirErrClear(&err);
  return iStatus;
}

/* Gives the upload up. A part that was broken off may still arrive and bring
** it back, so it is asked again until there is none; a sweep finds what is left
** after that. */
static void partsGiveUp(S3Parts *p) {
  ChoirErr err = {SQLITE_OK, NULL};
  char *zQuery = choirMprintf(&err, "uploadId=%s", p->zId);
  int nTry;
  for (nTry = 0; zQuery && nTry < PARTS_ABORTS &&
                 partsAbort(p->pObj, p->zKey, zQuery) != 404;
       nTry++) {
    if (p->nSent == 0) {
      break;
    }
    sqlite3_sleep(20 << nTry);
  }
  sqlite3_free(zQuery);
  choirErrClear(&err);
}

/* From the creation, or where another process stopped, to the completion. */
static int partsRun(S3Parts *p, int eIf, const char *zEtag,
                    ChoirObjectMeta *pNew) {
  int e = CHOIR_OBJECT_FAILED;
  if (!partsHolds(p, eIf, zEtag)) {
    e = CHOIR_OBJECT_CHANGED;
  } else if (p->pErr->rc == SQLITE_OK) {
    if (p->zId == NULL) {
      partsCreate(p);
    }
    if (p->zId) {
      partsSend(p);
    }
    if (p->pErr->rc == SQLITE_OK) {
      e = partsHolds(p, eIf, zEtag) ? partsComplete(p, eIf, zEtag, pNew)
                                    : CHOIR_OBJECT_CHANGED;
    }
  }
  if (p->zId && (p->pErr->rc != SQLITE_OK || e != CHOIR_OBJECT_OK)) {
    partsGiveUp(p);
  }
  return e;
}

/* The store does not go on with an upload that was taken up: it has forgotten
** it, or parts of it, or it is another's. Forget it here too. */
static int partsAnew(S3Parts *p, int e) {
  int bAnew = p->bResumed && e != CHOIR_OBJECT_OK &&
              p->pErr->rc != SQLITE_INTERRUPT && p->pErr->rc != SQLITE_NOMEM &&
              (p->iRefused == 400 || p->iRefused == 403 || p->iRefused == 404);
  if (bAnew) {
    choirErrClear(p->pErr);
    sqlite3_free(p->zId);
    p->zId = NULL;
    p->bResumed = p->nSent = p->iRefused = 0;
    memset(p->aDone, 0, (size_t)p->nPart * sizeof(*p->aDone));
    memset(p->aPart, 0, (size_t)p->nAtOnce * sizeof(*p->aPart));
    choirUuid4(p->zWrite);
  }
  return bAnew;
}

/* All of it, of a put or a copy. */
static int partsAll(S3Parts *p, int eIf, const char *zEtag,
                    ChoirObjectMeta *pNew) {
  int e = CHOIR_OBJECT_FAILED;
  p->resume.fd = -1;
  choirUuid4(p->zWrite);
  partsPlan(p);
  if (p->pErr->rc == SQLITE_OK && partsResume(p, pNew)) {
    e = CHOIR_OBJECT_OK;
  } else if (p->pErr->rc == SQLITE_OK) {
    e = partsRun(p, eIf, zEtag, pNew);
    if (partsAnew(p, e)) {
      e = partsRun(p, eIf, zEtag, pNew);
    }
  }
  choirS3ResumeEnd(&p->resume);
  pNew->nByte = p->nByte;
  sqlite3_free(p->zId);
  sqlite3_free(p->aDone);
  sqlite3_free(p->aPart);
  return e;
}

CHOIR_PRIVATE int choirS3PutParts(ChoirObject *pObj, ChoirErr *pErr,
                                  const char *zKey,
                                  const ChoirObjectSource *pSource, int eIf,
                                  const char *zEtag, ChoirObjectMeta *pNew) {
  S3Parts parts;
  memset(&parts, 0, sizeof(parts));
  parts.pObj = pObj;
  parts.pErr = pErr;
  parts.zKey = zKey;
  parts.pSource = pSource;
  parts.nByte = pSource->nByte;
  return partsAll(&parts, eIf, zEtag, pNew);
}

/* ------------------------------------------------------------------- copy */

/* Adds a line of a reply's header, if it goes with the object. */
static void fromHeader(S3From *p, const char *z, size_t n) {
  static const char *const az[] = {"content-type",        "content-encoding",
                                   "content-disposition", "content-language",
                                   "cache-control",       "expires"};
  const char *zColon = memchr(z, ':', n), *zValue;
  size_t nName = zColon ? (size_t)(zColon - z) : 0;
  int i, bGoes = nName > 11 && sqlite3_strnicmp(z, "x-amz-meta-", 11) == 0 &&
                 sqlite3_strnicmp(z, "x-amz-meta-choir-write", 22) != 0;
  for (i = 0; nName && i < (int)(sizeof(az) / sizeof(az[0])); i++) {
    bGoes |=
        strlen(az[i]) == nName && sqlite3_strnicmp(z, az[i], (int)nName) == 0;
  }
  if (bGoes) {
    zValue = zColon + 1 + strspn(zColon + 1, " \t");
    choirBufAppend(&p->head, z, nName);
    choirBufAppend(&p->head, "", 1);
    choirBufAppend(&p->head, zValue, (u64)(z + n - zValue));
    choirBufAppend(&p->head, "", 1);
  }
}

/* Size, ETag and headers of what is copied; 0: there is none. */
static int fromHead(S3From *p, ChoirErr *pErr) {
  ChoirS3Call call;
  int bThere;
  choirS3Begin(&call, p->pObj, pErr, "HEAD", p->zKey);
  choirS3Send(&call);
  bThere = pErr->rc == SQLITE_OK && call.http.iStatus == 200;
  if (bThere) {
    const char *z = call.http.header.a ? call.http.header.a : "";
    choirS3Meta(&call, &p->meta);
    while (*z) {
      size_t n = strcspn(z, "\r\n");
      fromHeader(p, z, n);
      z += n + strspn(z + n, "\r\n");
    }
  }
  choirS3Free(&call);
  return bThere && pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE int choirS3CopyParts(ChoirObject *pFrom, ChoirErr *pErr,
                                   const char *zFrom, ChoirObject *pTo,
                                   const char *zTo, ChoirObjectMeta *pNew) {
  S3From from;
  S3Parts parts;
  int e = CHOIR_OBJECT_FAILED;
  memset(&from, 0, sizeof(from));
  memset(&parts, 0, sizeof(parts));
  from.pObj = pFrom;
  from.zKey = zFrom;
  choirBufInit(&from.path, pErr, CHOIR_BUF_SQL);
  choirBufInit(&from.head, pErr, CHOIR_BUF_SQL);
  choirS3CopySource(pFrom, zFrom, &from.path);
  if (fromHead(&from, pErr) && from.meta.zEtag[0]) {
    parts.pObj = pTo;
    parts.pErr = pErr;
    parts.zKey = zTo;
    parts.pFrom = &from;
    parts.nByte = from.meta.nByte;
    e = partsAll(&parts, CHOIR_IF_ANY, NULL, pNew);
  }
  choirBufFree(&from.path);
  choirBufFree(&from.head);
  return e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK;
}

/* ------------------------------------------------------------------ sweep */

typedef struct S3Stale {
  ChoirS3Store *pStore;
  ChoirErr *pErr;
  i64 iBefore, nSwept;
  ChoirBuf key, id; /* of the upload under way, then where the next page is */
  int bEncoded;
} S3Stale;

static void staleText(S3Stale *p, ChoirBuf *pOut, const ChoirXml *pXml) {
  ChoirBuf b;
  pOut->n = 0;
  choirBufInit(&b, p->pErr, CHOIR_BUF_SQL);
  choirXmlText(&b, pXml);
  if (p->bEncoded && pOut == &p->key) {
    choirUrlDecode(pOut, b.a ? b.a : "", (i64)b.n);
  } else {
    choirBufAppend(pOut, b.a ? b.a : "", b.n);
  }
  choirBufFree(&b);
}

/* One <Upload>. */
static void staleUpload(S3Stale *p, const char *z, const char *zEnd) {
  size_t nRoot = strlen(p->pStore->zRoot);
  i64 iBegun = 0;
  ChoirXml xml;
  ChoirBuf query;
  p->key.n = p->id.n = 0;
  while (choirXmlNext(&z, zEnd, &xml)) {
    if (choirXmlIs(&xml, "Key")) {
      staleText(p, &p->key, &xml);
    } else if (choirXmlIs(&xml, "UploadId")) {
      staleText(p, &p->id, &xml);
    } else if (choirXmlIs(&xml, "Initiated")) {
      iBegun = choirXmlTime(&xml);
    }
  }
  if (iBegun == 0 || iBegun > p->iBefore || p->id.n == 0 || p->key.n <= nRoot ||
      memcmp(p->key.a, p->pStore->zRoot, nRoot) != 0) {
    return;
  }
  choirBufInit(&query, p->pErr, CHOIR_BUF_SQL);
  choirBufText(&query, "uploadId=");
  choirUrlEncode(&query, p->id.a, (i64)p->id.n, 0);
  if (p->pErr->rc == SQLITE_OK) {
    p->nSwept +=
        partsAbort(&p->pStore->base, p->key.a + nRoot, query.a) / 100 == 2;
  }
  choirBufFree(&query);
}

/* The uploads of one page; 1 when there is another, which begins at key and
** id. */
static int stalePage(S3Stale *p, const char *zXml) {
  char *zEncoding = choirXmlFirst(p->pErr, zXml, "EncodingType");
  char *zMore = choirXmlFirst(p->pErr, zXml, "IsTruncated");
  int bMore = zMore && strcmp(zMore, "true") == 0;
  const char *z = zXml, *zEnd;
  ChoirXml xml;
  p->bEncoded = zEncoding && strcmp(zEncoding, "url") == 0;
  sqlite3_free(zEncoding);
  sqlite3_free(zMore);
  while (p->pErr->rc == SQLITE_OK && (z = strstr(z, "<Upload>")) != NULL &&
         (zEnd = strstr(z, "</Upload>")) != NULL) {
    staleUpload(p, z + 8, zEnd);
    z = zEnd;
  }
  p->key.n = p->id.n = 0;
  while (bMore && choirXmlNext(&zXml, NULL, &xml)) {
    if (choirXmlIs(&xml, "NextKeyMarker")) {
      staleText(p, &p->key, &xml);
    } else if (choirXmlIs(&xml, "NextUploadIdMarker")) {
      staleText(p, &p->id, &xml);
    }
  }
  return bMore && p->key.n > 0 && p->pErr->rc == SQLITE_OK;
}

CHOIR_PRIVATE i64 choirS3Sweep(ChoirObject *pObj, ChoirErr *pErr,
                               const char *zPrefix, i64 iBefore) {
  S3Stale stale;
  const char *zRoot = ((ChoirS3Store *)pObj)->zRoot;
  int bMore = 0;
  memset(&stale, 0, sizeof(stale));
  stale.pStore = (ChoirS3Store *)pObj;
  stale.pErr = pErr;
  stale.iBefore = iBefore;
  choirBufInit(&stale.key, pErr, CHOIR_BUF_SQL);
  choirBufInit(&stale.id, pErr, CHOIR_BUF_SQL);
  do {
    ChoirS3Call call;
    ChoirBuf query;
    choirBufInit(&query, pErr, CHOIR_BUF_SQL);
    choirBufText(&query, "uploads=&encoding-type=url&prefix=");
    choirUrlEncode(&query, zRoot, (i64)strlen(zRoot), 0);
    choirUrlEncode(&query, zPrefix, (i64)strlen(zPrefix), 0);
    if (bMore) {
      choirBufText(&query, "&key-marker=");
      choirUrlEncode(&query, stale.key.a, (i64)stale.key.n, 0);
      choirBufText(&query, "&upload-id-marker=");
      choirUrlEncode(&query, stale.id.a, (i64)stale.id.n, 0);
    }
    choirS3Begin(&call, pObj, pErr, "GET", NULL);
    call.zQuery = query.a;
    choirS3Send(&call);
    if (pErr->rc == SQLITE_OK && call.http.iStatus == 200) {
      bMore = stalePage(&stale, call.http.body.a ? call.http.body.a : "");
    } else {
      choirS3Fail(&call);
    }
    choirS3Free(&call);
    choirBufFree(&query);
  } while (bMore && pErr->rc == SQLITE_OK);
  choirBufFree(&stale.key);
  choirBufFree(&stale.id);
  return stale.nSwept;
}
#endif /* CHOIR_OMIT_NET */
