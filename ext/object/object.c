/* SPDX-License-Identifier: MIT */
/*
** The one way to an object store: looks at the URL's scheme, hands everything
** on to the backend, and checks what must hold for every backend (keys, sticky
** errors).
*/
#include "object.h"
#include <unistd.h>

static const struct {
  const char *zScheme;
  ChoirObject *(*xOpen)(ChoirConn *, ChoirErr *, const char *zUrl);
} aObjectBackend[] = {
    {"file:", choirFileOpen},
#ifndef CHOIR_OMIT_NET
    {"s3:", choirS3Open},
    {"https:", choirUrlOpen},
    {"http:", choirUrlOpen},
#endif
};

#define OBJECT_BACKEND_N (int)(sizeof(aObjectBackend) / sizeof(*aObjectBackend))

/* The scheme only is quoted: what follows may hold a password. */
static void objectNoStore(ChoirErr *pErr, const char *zUrl) {
  int n = (int)strcspn(zUrl, ":"), i;
  ChoirBuf b;
  if (zUrl[n] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "'%s' is not a URL; write s3://bucket/folder/name or"
                " file:///folder/name",
                zUrl);
    return;
  }
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < OBJECT_BACKEND_N; i++) {
    choirBufPrintf(&b, "%s%s", i ? ", " : "", aObjectBackend[i].zScheme);
  }
  choirErrSet(pErr, SQLITE_ERROR, "no store has URLs of %.*s:; there are %s", n,
              zUrl, b.a);
  choirBufFree(&b);
}

CHOIR_PRIVATE void choirObjectUrlCheck(ChoirErr *pErr, const char *zUrl) {
  const char *z = strstr(zUrl, "://");
  if (z && memchr(z + 3, '@', strcspn(z + 3, "/"))) {
    choirErrSet(pErr, SQLITE_ERROR,
                "credentials in a URL are refused; give them by"
                " choir_secret()");
  }
}

CHOIR_PRIVATE ChoirObject *choirObjectOpen(ChoirConn *pConn, ChoirErr *pErr,
                                           const char *zUrl) {
  int i;
  choirObjectUrlCheck(pErr, zUrl);
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  for (i = 0; i < OBJECT_BACKEND_N; i++) {
    const char *zScheme = aObjectBackend[i].zScheme;
    if (sqlite3_strnicmp(zUrl, zScheme, (int)strlen(zScheme)) == 0) {
      return aObjectBackend[i].xOpen(pConn, pErr, zUrl);
    }
  }
  objectNoStore(pErr, zUrl);
  return NULL;
}

CHOIR_PRIVATE void choirObjectClose(ChoirObject *p) {
  if (p) {
    p->pMethods->xClose(p);
  }
}

CHOIR_PRIVATE void choirObjectKeyCheck(ChoirErr *pErr, const char *zKey) {
  const char *z = zKey;
  if (zKey[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the key is empty; in a URL it is what follows the last '/'");
  }
  for (;;) {
    size_t n = strcspn(z, "/");
    if (n == 0) {
      choirErrSet(pErr, SQLITE_ERROR, "the name '%s' has an empty part", zKey);
    } else if (z[0] == '.' && (n == 1 || (n == 2 && z[1] == '.'))) {
      choirErrSet(pErr, SQLITE_ERROR, "the name '%s' has a part '%.*s'", zKey,
                  (int)n, z);
    } else if (n >= 7 && strncmp(z, ".choir-", 7) == 0) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "the name '%s' begins with '.choir-', which choir keeps for"
                  " itself",
                  zKey);
    } else if (n > 255) {
      choirErrSet(pErr, SQLITE_ERROR, "the name '%.40s…' is longer than 255",
                  zKey);
    }
    if (z[n] == 0 || pErr->rc != SQLITE_OK) {
      return;
    }
    z += n + 1;
  }
}

/* What a call came to, once the error is known. */
static int objectOutcome(ChoirErr *pErr, int eOutcome) {
  return pErr->rc == SQLITE_OK ? eOutcome : CHOIR_OBJECT_FAILED;
}

CHOIR_PRIVATE int choirObjectHead(ChoirObject *p, ChoirErr *pErr,
                                  const char *zKey, ChoirObjectMeta *pMeta) {
  int e = CHOIR_OBJECT_FAILED;
  memset(pMeta, 0, sizeof(*pMeta));
  if (p && pErr->rc == SQLITE_OK) {
    choirObjectKeyCheck(pErr, zKey);
    e = pErr->rc ? e : p->pMethods->xHead(p, pErr, zKey, pMeta);
  }
  return objectOutcome(pErr, e);
}

CHOIR_PRIVATE int choirObjectGet(ChoirObject *p, ChoirErr *pErr,
                                 const char *zKey, i64 iOff, i64 nByte,
                                 ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                                 void *pArg) {
  int e = CHOIR_OBJECT_FAILED;
  memset(pMeta, 0, sizeof(*pMeta));
  if (p && pErr->rc == SQLITE_OK) {
    choirObjectKeyCheck(pErr, zKey);
    e = pErr->rc
            ? e
            : p->pMethods->xGet(p, pErr, zKey, iOff, nByte, pMeta, x, pArg);
  }
  return objectOutcome(pErr, e);
}

CHOIR_PRIVATE int choirObjectPut(ChoirObject *p, ChoirErr *pErr,
                                 const char *zKey,
                                 const ChoirObjectSource *pSource, int eIf,
                                 const char *zEtag, ChoirObjectMeta *pNew) {
  int e = CHOIR_OBJECT_FAILED;
  memset(pNew, 0, sizeof(*pNew));
  if (p && pErr->rc == SQLITE_OK) {
    choirObjectKeyCheck(pErr, zKey);
    e = pErr->rc ? e
                 : p->pMethods->xPut(p, pErr, zKey, pSource, eIf, zEtag, pNew);
  }
  return objectOutcome(pErr, e);
}

CHOIR_PRIVATE int choirObjectDelete(ChoirObject *p, ChoirErr *pErr,
                                    const char *zKey, const char *zEtag) {
  int e = CHOIR_OBJECT_FAILED;
  if (p && pErr->rc == SQLITE_OK) {
    choirObjectKeyCheck(pErr, zKey);
    e = pErr->rc ? e : p->pMethods->xDelete(p, pErr, zKey, zEtag);
  }
  return objectOutcome(pErr, e);
}

CHOIR_PRIVATE int choirObjectListRange(ChoirObject *p, ChoirErr *pErr,
                                       const ChoirObjectRange *pRange,
                                       ChoirObjectEach x, void *pArg) {
  int e = CHOIR_OBJECT_FAILED;
  if (p && pErr->rc == SQLITE_OK) {
    e = p->pMethods->xList(p, pErr, pRange, x, pArg);
  }
  return objectOutcome(pErr, e);
}

CHOIR_PRIVATE void choirObjectToBuf(void *pArg, ChoirErr *pErr, const void *a,
                                    u64 n) {
  if (pErr->rc == SQLITE_OK) {
    choirBufAppend(pArg, a, n);
  }
}

CHOIR_PRIVATE int choirObjectList(ChoirObject *p, ChoirErr *pErr,
                                  const char *zPrefix, ChoirObjectEach x,
                                  void *pArg) {
  ChoirObjectRange range = {zPrefix, NULL, 0, 0};
  return choirObjectListRange(p, pErr, &range, x, pArg);
}

CHOIR_PRIVATE void choirObjectToFd(void *pArg, ChoirErr *pErr, const void *a,
                                   u64 n) {
  ChoirObjectFd *p = pArg;
  choirFileWrite(pErr, p->fd, p->zFor, p->n, a, n);
  p->n += n;
}

CHOIR_PRIVATE void choirObjectFromFd(void *pArg, ChoirErr *pErr, u64 iOff,
                                     void *a, u64 n) {
  choirFdRead(pErr, ((const ChoirObjectFd *)pArg)->fd, iOff, a, n);
}

static void objectFromBytes(void *pArg, ChoirErr *pErr, u64 iOff, void *a,
                            u64 n) {
  (void)pErr;
  memcpy(a, (const char *)pArg + iOff, (size_t)n);
}

CHOIR_PRIVATE ChoirObjectSource choirObjectOfText(const char *zText) {
  ChoirObjectSource source = {strlen(zText), objectFromBytes,
                              (void *)(size_t)zText};
  return source;
}

CHOIR_PRIVATE ChoirObjectSource choirObjectOfValue(ChoirErr *pErr,
                                                   sqlite3_value *v) {
  ChoirObjectSource source = {0, objectFromBytes, NULL};
  int eType = sqlite3_value_type(v);
  if (eType == SQLITE_NULL) {
    choirErrSet(pErr, SQLITE_ERROR, "content must be blob or text, got null");
    return source;
  }
  source.pArg = (void *)(size_t)(eType == SQLITE_BLOB
                                     ? sqlite3_value_blob(v)
                                     : (const void *)sqlite3_value_text(v));
  source.nByte = (u64)sqlite3_value_bytes(v);
  if (source.pArg == NULL && source.nByte) {
    choirErrNomem(pErr);
  }
  return source;
}

CHOIR_PRIVATE int choirObjectCopy(ChoirObject *pFrom, ChoirErr *pErr,
                                  const char *zFrom, ChoirObject *pTo,
                                  const char *zTo, int eIf,
                                  ChoirObjectMeta *pNew) {
  ChoirObjectFd file = {-1, NULL, 0};
  ChoirObjectSource source = {0, choirObjectFromFd, &file};
  int e;
  choirObjectKeyCheck(pErr, zTo);
  if (pErr->rc == SQLITE_OK && eIf == CHOIR_IF_ANY && pFrom && pTo &&
      pFrom->pMethods == pTo->pMethods && pFrom->pMethods->xCopy) {
    memset(pNew, 0, sizeof(*pNew));
    choirObjectKeyCheck(pErr, zFrom);
    if (pErr->rc == SQLITE_OK &&
        pFrom->pMethods->xCopy(pFrom, pErr, zFrom, pTo, zTo, pNew)) {
      return objectOutcome(pErr, CHOIR_OBJECT_OK);
    }
  }
  file.fd = choirTempAnonymous(pErr);
  e = choirObjectGet(pFrom, pErr, zFrom, 0, -1, pNew, choirObjectToFd, &file);
  if (e == CHOIR_OBJECT_OK) {
    source.nByte = file.n;
    e = choirObjectPut(pTo, pErr, zTo, &source, eIf, NULL, pNew);
  }
  if (file.fd >= 0) {
    close(file.fd);
  }
  return e;
}

CHOIR_PRIVATE i64 choirObjectSweepUploads(ChoirObject *p, ChoirErr *pErr,
                                          const char *zPrefix, i64 iBefore) {
  return p && pErr->rc == SQLITE_OK
             ? p->pMethods->xSweep(p, pErr, zPrefix, iBefore)
             : 0;
}
