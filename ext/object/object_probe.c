/* SPDX-License-Identifier: MIT */
/*
** s3_probe(url): what a store really does, by trying it on a scratch object.
**
** Stores differ from what their documents say: some ignore conditions, some
** check them before the body is stored and not again, some want an ETag without
** its quotes. Each row is one thing that choir, or a program beside it, may
** rely on. The scratch object lies below the root, has a random name and is
** deleted at the end, whatever came before.
*/
#include "object.h"
#include "object_s3.h"

typedef struct Probe {
  ChoirCursor *pCur;
  ChoirObject *pStore;
  char zKey[64];   /* of the scratch object */
  ChoirErr err;    /* of the check under way */
  char zFirst[96]; /* the ETag of the first put, stale after the second */
  char zNow[96];   /* the present one */
  ChoirBuf got;    /* bytes of a get */
  int nListed;     /* times that the key was listed */
} Probe;

/* One row. What went wrong says so itself; an interrupt ends it all. */
static void probeSay(Probe *p, const char *zCheck, int bYes,
                     const char *zDetail) {
  ChoirCursor *pCur = p->pCur;
  if (p->err.rc == SQLITE_INTERRUPT || p->err.rc == SQLITE_NOMEM) {
    if (pCur->err.rc == SQLITE_OK) {
      pCur->err = p->err;
      memset(&p->err, 0, sizeof(p->err));
    }
  }
  choirRowText(pCur, zCheck);
  choirRowText(pCur, p->err.rc ? "error" : bYes ? "yes" : "no");
  choirRowText(pCur, p->err.rc ? p->err.zMsg : zDetail);
  choirErrClear(&p->err);
}

static int probePut(Probe *p, const char *zText, int eIf, const char *zEtag,
                    ChoirObjectMeta *pNew) {
  ChoirObjectSource source = choirObjectOfText(zText);
  return choirObjectPut(p->pStore, &p->err, p->zKey, &source, eIf, zEtag, pNew);
}

/* Is [iOff, iOff+n) of the object zText? */
static void probeRead(Probe *p, const char *zCheck, i64 iOff, i64 n,
                      const char *zText) {
  ChoirObjectMeta meta;
  choirBufInit(&p->got, &p->err, CHOIR_BUF_SQL);
  choirObjectGet(p->pStore, &p->err, p->zKey, iOff, n, &meta, choirObjectToBuf,
                 &p->got);
  probeSay(p, zCheck,
           p->got.n == strlen(zText) &&
               memcmp(p->got.a, zText, strlen(zText)) == 0,
           p->got.a ? p->got.a : "nothing");
  choirBufFree(&p->got);
}

static void probeListed(void *pArg, ChoirErr *pErr, const char *zKey,
                        const ChoirObjectMeta *pMeta) {
  Probe *p = pArg;
  (void)pErr;
  p->nListed += strcmp(zKey, p->zKey) == 0 && pMeta->zEtag[0];
}

static void probeList(Probe *p, const char *zCheck, const char *zFrom,
                      int bAfter, int nWant) {
  ChoirObjectRange range = {p->zKey, zFrom, (u8)bAfter, 10};
  p->nListed = 0;
  choirObjectListRange(p->pStore, &p->err, &range, probeListed, p);
  probeSay(p, zCheck, p->nListed == nWant,
           p->nListed ? "the key is listed" : "the key is not listed");
}

/* What every store has to offer. */
static void probeBasics(Probe *p) {
  ChoirObjectMeta meta;
  int e = probePut(p, "0123456789", CHOIR_IF_ANY, NULL, &meta);
  memcpy(p->zFirst, meta.zEtag, sizeof(meta.zEtag));
  probeSay(p, "put", e == CHOIR_OBJECT_OK, meta.zEtag);
  if (e != CHOIR_OBJECT_OK) {
    return;
  }
  probeRead(p, "get", 0, -1, "0123456789");
  probeRead(p, "get_range", 3, 4, "3456");
  e = choirObjectHead(p->pStore, &p->err, p->zKey, &meta);
  probeSay(p, "head",
           e == CHOIR_OBJECT_OK && meta.nByte == 10 &&
               strcmp(meta.zEtag, p->zFirst) == 0,
           meta.zEtag);
  probeList(p, "list", NULL, 0, 1);
  probeList(p, "list_from", p->zKey, 0, 1);
  probeList(p, "list_after", p->zKey, 1, 0);
}

/* What compare-and-swap stands on. */
static void probeConditions(Probe *p) {
  ChoirObjectMeta meta;
  int e = probePut(p, "again", CHOIR_IF_ABSENT, NULL, &meta);
  probeSay(p, "create_if_absent", e == CHOIR_OBJECT_CHANGED,
           e == CHOIR_OBJECT_OK ? "an object was overwritten"
                                : "a second creation is refused");
  e = choirObjectHead(p->pStore, &p->err, p->zKey, &meta);
  if (e == CHOIR_OBJECT_OK) {
    memcpy(p->zFirst, meta.zEtag, sizeof(meta.zEtag));
    e = probePut(p, "second", CHOIR_IF_MATCH, p->zFirst, &meta);
  }
  memcpy(p->zNow, meta.zEtag, sizeof(meta.zEtag));
  probeSay(p, "swap", e == CHOIR_OBJECT_OK,
           e == CHOIR_OBJECT_OK ? "by If-Match with the present etag"
                                : "If-Match with the present etag is refused");
  e = probePut(p, "third", CHOIR_IF_MATCH, p->zFirst, &meta);
  probeSay(p, "swap_stale_refused", e == CHOIR_OBJECT_CHANGED,
           e == CHOIR_OBJECT_OK ? "an object was overwritten"
                                : "If-Match with an old etag is refused");
}

#ifndef CHOIR_OMIT_NET
/* The status of one request on zKey. */
static int probeRequest(Probe *p, const char *zMethod, const char *zKey,
                        const char *zName, const char *zValue,
                        const char *zSource) {
  ChoirS3Call call;
  char *zCode;
  int iStatus;
  choirS3Begin(&call, p->pStore, &p->err, zMethod, zKey);
  if (zSource) {
    choirS3Header(&call, "x-amz-copy-source", zSource);
  }
  choirS3Header(&call, zName, zValue);
  choirS3Send(&call);
  iStatus = call.bHttp && p->err.rc == SQLITE_OK ? call.http.iStatus : 0;
  zCode =
      iStatus == 200 ? choirXmlFirst(&p->err, call.http.body.a, "Code") : NULL;
  if (zCode && strcmp(zCode, "PreconditionFailed") == 0) {
    iStatus = 412; /* said after 200 */
  }
  sqlite3_free(zCode);
  if (iStatus != 200 && iStatus != 204 && iStatus != 412) {
    choirS3Fail(&call);
  }
  choirS3Free(&call);
  return iStatus;
}

static void probeRefused(Probe *p, const char *zCheck, int iStatus) {
  probeSay(p, zCheck, iStatus == 412,
           iStatus == 412 ? "a condition that does not hold is refused"
                          : "the condition is ignored");
}

/* What only some S3 stores do; the last of these may cost the object. */
static void probeS3(Probe *p) {
  ChoirS3Store *pS3 = (ChoirS3Store *)p->pStore;
  ChoirObjectSource source = choirObjectOfText("parts");
  ChoirObjectMeta meta;
  char *zSource;
  int e, iStatus;
  probeSay(p, "etag_quoted", !pS3->pKnown->bUnquoted,
           pS3->pKnown->bUnquoted ? "If-Match wants the etag without its quotes"
                                  : "If-Match takes the etag as it was given");
  e = choirS3PutParts(p->pStore, &p->err, p->zKey, &source, CHOIR_IF_ANY, NULL,
                      &meta);
  probeSay(p, "multipart", e == CHOIR_OBJECT_OK, meta.zEtag);
  pS3->bBlind = 1;
  e = choirS3PutParts(p->pStore, &p->err, p->zKey, &source, CHOIR_IF_ABSENT,
                      NULL, &meta);
  pS3->bBlind = 0;
  probeRefused(p, "multipart_if_absent", e == CHOIR_OBJECT_CHANGED ? 412 : 200);
  choirObjectSweepUploads(p->pStore, &p->err, p->zKey, 1);
  probeSay(p, "multipart_list", 1, "unfinished uploads can be listed");
  zSource =
      choirMprintf(&p->err, "/%s/%s%s", pS3->zBucket, pS3->zRoot, p->zKey);
  if (zSource) {
    char zCopy[64];
    sqlite3_snprintf(sizeof(zCopy), zCopy, "%s-copy", p->zKey);
    iStatus = probeRequest(p, "PUT", zCopy, "x-amz-copy-source-if-match",
                           p->zFirst, zSource);
    probeRefused(p, "copy_if_match", iStatus);
    if (iStatus == 200) {
      choirObjectDelete(p->pStore, &p->err, zCopy, NULL);
    }
  }
  sqlite3_free(zSource);
  iStatus = probeRequest(p, "DELETE", p->zKey, "If-Match", p->zFirst, NULL);
  probeRefused(p, "delete_if_match", iStatus);
}
#endif

/* The scratch object goes, also after an interrupt. */
static void probeDelete(Probe *p) {
  ChoirObjectMeta meta;
  int e;
#ifndef CHOIR_OMIT_NET
  if (choirS3Is(p->pStore)) {
    ((ChoirS3Store *)p->pStore)->bCleanup = 1;
  }
#endif
  e = choirObjectDelete(p->pStore, &p->err, p->zKey, NULL);
  if (p->err.rc == SQLITE_OK) {
    e = choirObjectHead(p->pStore, &p->err, p->zKey, &meta);
  }
  probeSay(p, "delete", e == CHOIR_OBJECT_ABSENT,
           e == CHOIR_OBJECT_ABSENT ? "the scratch object is gone"
                                    : "the scratch object is still there");
}

/*
** SQL: s3_probe(url) -> TABLE(check, status, detail)
**
** What a store really does, tried on an object with a random name below url,
** which is deleted at the end. status is yes, no or error: put, get, get_range,
** head, list, list_from, list_after, create_if_absent, swap and
** swap_stale_refused (what compare-and-swap stands on; sync needs them),
** delete; for s3:// also etag_quoted, multipart, multipart_if_absent,
** multipart_list, copy_if_match and delete_if_match (conditions that are refused
** when they do not hold).
**
**   url  TEXT, a root: s3://bucket/folder/ or file:///folder/
**
** Errors: not a root; an interrupt. A refusal by the store is a row.
**
** > SELECT status, count(*) FROM s3_probe('file:///tmp/') GROUP BY status
** = yes|11
*/
static void probeFilter(ChoirCursor *pCur) {
  const char *zUrl = choirArgText(&pCur->err, pCur->apArg[0], "url");
  Probe probe;
  memset(&probe, 0, sizeof(probe));
  probe.pCur = pCur;
  probe.pStore = zUrl ? choirObjectOpen(pCur->pConn, &pCur->err, zUrl) : NULL;
  if (probe.pStore && probe.pStore->zKey[0]) {
    choirErrSet(&pCur->err, SQLITE_ERROR, "the root '%s' must end in '/'",
                probe.pStore->zUrl);
  }
  if (pCur->err.rc == SQLITE_OK) {
    memcpy(probe.zKey, "choir-probe-", 12);
    choirUuid4(probe.zKey + 12);
    probeBasics(&probe);
    if (probe.zFirst[0] && pCur->err.rc == SQLITE_OK) {
      probeConditions(&probe);
    }
#ifndef CHOIR_OMIT_NET
    if (probe.zFirst[0] && pCur->err.rc == SQLITE_OK &&
        choirS3Is(probe.pStore) && !((ChoirS3Store *)probe.pStore)->bMinted) {
      probeS3(&probe);
    }
#endif
    probeDelete(&probe);
  }
  choirObjectClose(probe.pStore);
}

static const ChoirTvf aProbeTvf[] = {
    {"s3_probe", "\"check\", status, detail, url HIDDEN", 3, 1, 1, CHOIR_EFFECT,
     0, 0, probeFilter, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirObjectProbeRegister(ChoirConn *pConn,
                                                       ChoirErr *pErr) {
  choirTvfs(pConn, pErr, aProbeTvf);
}
