/* SPDX-License-Identifier: MIT */
/*
** Encrypted objects of a folder remote: docs/formats.md, "Encrypted folder
** remote", has the bytes. sync_folder.c hands every get and put over when the
** remote is encrypted; offsets and sizes stay those of the content.
**
** The head of an object is additional data of each of its chunks, so the first
** chunk that opens proves what the head says; then it is compared with what was
** asked for. Heads are kept, so that a range costs one request.
*/
#include "sync.h"

#define CRYPT_HEAD 192
#define CRYPT_FIRST ((u64)CHOIR_LTX_HEADER) /* content of chunk 0 */
#define CRYPT_CHUNK ((u64)16384)            /* of the others */
#define CRYPT_FORMAT 1
#define CRYPT_OTHER 255 /* instead of a level: no LTX file */
#define CRYPT_KEPT 64   /* heads */

typedef struct CryptHead {
  u8 a[CRYPT_HEAD];
  u8 aKey[32]; /* of the object */
} CryptHead;

struct ChoirCrypt {
  ChoirKeyring *pRing;
  char *zUser;
  u8 bLineage;
  u8 aLineage[CHOIR_SYNC_ID];
  /* The chain of what was read, from the link before iFirst to that of iLast;
  ** 0: none. */
  u64 iFirst, iLast;
  u8 aFirst[32], aLast[32];
  CryptHead aKept[CRYPT_KEPT];
  u64 nKept;
};

/* One get, or the bytes of one put. */
typedef struct CryptRead {
  ChoirRemote *p;
  const char *zKey;
  CryptHead head;
  ChoirCipher *pCipher; /* made when the head is known */
  u8 bHead;             /* the head is known to be true */
  u8 bLast;             /* the last chunk was met */
  u64 iChunk;           /* the next chunk */
  u64 iFrom, iTo;       /* the wanted range of the content */
  ChoirObjectWrite x;
  void *pArg;
  u64 n; /* bytes in a */
  u8 a[CRYPT_CHUNK + CHOIR_KEY_TAG];
} CryptRead;

typedef struct CryptWrite {
  const ChoirObjectSource *pSource;
  CryptHead head;
  ChoirCipher *pCipher;
  u64 iChunk; /* that is in a; CRYPT_NONE: none */
  u8 a[CRYPT_CHUNK + CHOIR_KEY_TAG];
} CryptWrite;

#define CRYPT_NONE (~(u64)0)

/* ------------------------------------------------------------------ places */

static u64 cryptChunkOf(u64 iOff) {
  return iOff < CRYPT_FIRST ? 0 : 1 + (iOff - CRYPT_FIRST) / CRYPT_CHUNK;
}

/* Where a chunk begins, in the content and as it is stored. */
static u64 cryptBegin(u64 iChunk) {
  return iChunk ? CRYPT_FIRST + (iChunk - 1) * CRYPT_CHUNK : 0;
}

static u64 cryptStored(u64 iChunk) {
  return CRYPT_HEAD + cryptBegin(iChunk) + iChunk * CHOIR_KEY_TAG;
}

static u64 cryptStoredSize(u64 nByte) {
  u64 nChunk = nByte ? cryptChunkOf(nByte - 1) + 1 : 1;
  return CRYPT_HEAD + nByte + nChunk * CHOIR_KEY_TAG;
}

CHOIR_PRIVATE u64 choirCryptSize(u64 nStored) {
  u64 n = nStored > CRYPT_HEAD + CHOIR_KEY_TAG
              ? nStored - CRYPT_HEAD - CHOIR_KEY_TAG
              : 0;
  if (n > CRYPT_FIRST) {
    u64 nOne = CRYPT_CHUNK + CHOIR_KEY_TAG;
    n -= (n - CRYPT_FIRST + nOne - 1) / nOne * CHOIR_KEY_TAG;
  }
  return n;
}

/* -------------------------------------------------------------------- open */

CHOIR_PRIVATE ChoirCrypt *choirCryptOpen(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zUrl) {
  ChoirKeyring *pRing = choirKeyringOpen(pConn, pErr, zUrl);
  ChoirCrypt *p = pRing ? choirMalloc(pErr, sizeof(*p)) : NULL;
  const char *zUser = choirConfig(pConn, "user");
  if (p == NULL) {
    choirKeyringFree(pRing);
    return NULL;
  }
  p->pRing = pRing;
  p->zUser = choirMprintf(pErr, "%s", zUser ? zUser : "");
  return p;
}

CHOIR_PRIVATE void choirCryptFree(ChoirCrypt *p) {
  if (p) {
    choirKeyringFree(p->pRing);
    sqlite3_free(p->zUser);
    choirWipe(p, sizeof(*p));
    sqlite3_free(p);
  }
}

static void cryptUser(ChoirErr *pErr, const ChoirCrypt *p, const u8 *aKey,
                      u8 aOut[16]) {
  u8 a[32];
  char *z = choirMprintf(pErr, "choir sync user %s", p->zUser);
  if (z) {
    choirHmacSha256(aKey, 32, z, strlen(z), a);
    memcpy(aOut, a, 16);
  }
  sqlite3_free(z);
}

/* HKDF-SHA256 of one block. */
static void cryptObjectKey(const u8 *aKey, const u8 *aSalt, u8 aOut[32]) {
  static const char zInfo[] = "choir sync object\1";
  u8 aPrk[32];
  choirHmacSha256(aSalt, 32, aKey, 32, aPrk);
  choirHmacSha256(aPrk, 32, zInfo, sizeof(zInfo) - 1, aOut);
  choirWipe(aPrk, sizeof(aPrk));
}

/* Level and transactions that a name means. */
static int cryptName(const ChoirRemote *p, const char *zKey, ChoirFile *pFile) {
  memset(pFile, 0, sizeof(*pFile));
  return choirFolderFile(p, zKey, pFile) ? pFile->iLevel : CRYPT_OTHER;
}

CHOIR_PRIVATE void choirCryptLineage(ChoirRemote *p, ChoirErr *pErr,
                                     const char *zLineage) {
  ChoirCrypt *c = p->pCrypt;
  char z[2 * CHOIR_SYNC_ID + 1];
  int i;
  if (c == NULL || pErr->rc != SQLITE_OK) {
    return;
  }
  choirHex(c->aLineage, CHOIR_SYNC_ID, z);
  if (c->bLineage && strcmp(z, zLineage) != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the remote %s belongs to another workspace; push to another"
                " name, or pull it into an empty file",
                p->zUrl);
  }
  for (i = 0; i < CHOIR_SYNC_ID && !c->bLineage; i++) {
    c->aLineage[i] = (u8)(choirHexDigit(zLineage[2 * i]) << 4 |
                          choirHexDigit(zLineage[2 * i + 1]));
  }
  c->bLineage = 1;
}

/* ------------------------------------------------------------------- chain */

CHOIR_PRIVATE void choirCryptChain(ChoirRemote *p) {
  if (p->pCrypt) {
    p->pCrypt->iFirst = p->pCrypt->iLast = 0;
  }
}

/* Transaction iTxid has a link; what follows it names one. */
static void cryptFollows(ChoirErr *pErr, const u8 *aLink, const u8 *aNamed,
                         u64 iTxid) {
  if (memcmp(aLink, aNamed, 32) != 0) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "the history is forked: transaction %llu is not the one that"
                " what follows it was made after, one of the two was put in its"
                " place",
                iTxid);
  }
}

/* An object was read, with the tag of its chunk 0. */
static void cryptLink(ChoirErr *pErr, ChoirCrypt *c, const u8 *aHead,
                      const u8 *aTag) {
  u64 iMin = choirGet64(aHead + 16), iMax = choirGet64(aHead + 24);
  u8 aLink[32];
  ChoirSha256 sha;
  if (aHead[10] == CRYPT_OTHER) {
    return;
  }
  memcpy(aLink, aHead + 152, 32);
  if (aHead[10] == 0) {
    choirSha256Init(&sha);
    choirSha256Update(&sha, aHead, CRYPT_HEAD);
    choirSha256Update(&sha, aTag, CHOIR_KEY_TAG);
    choirSha256Final(&sha, aLink);
  }
  if (c->iLast && iMax + 1 == c->iFirst) { /* read from the newest on */
    cryptFollows(pErr, aLink, c->aFirst, iMax);
  } else {
    if (c->iLast && c->iLast + 1 == iMin) {
      cryptFollows(pErr, c->aLast, aHead + 120, c->iLast);
      iMin = 0;
    }
    c->iLast = iMax;
    memcpy(c->aLast, aLink, 32);
  }
  if (iMin) { /* it is the first now */
    c->iFirst = iMin;
    memcpy(c->aFirst, aHead + 120, 32);
  }
}

CHOIR_PRIVATE void choirCryptSeen(ChoirRemote *p, ChoirErr *pErr, u64 iTxid,
                                  int bOther) {
  const char *zWhat = NULL;
  if (p->pCrypt == NULL || p->bAnyway || pErr->rc != SQLITE_OK) {
    return;
  }
  if (p->eHead != CHOIR_OBJECT_OK || p->iTxid < iTxid) {
    zWhat = "rolled back";
  } else if (bOther) {
    zWhat = "rewritten";
  }
  if (zWhat) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "the remote %s was %s: this file has seen transaction %llu"
                " there, and %s %llu; bring the missing objects back, push to"
                " an empty folder, or sync_pull('%s', 'theirs') takes what is"
                " there and keeps a copy of this file",
                p->zUrl, zWhat, iTxid,
                bOther && p->iTxid >= iTxid ? "another one is there as"
                                            : "the newest is",
                bOther && p->iTxid >= iTxid ? iTxid : p->iTxid, p->zUrl);
  }
}

/* -------------------------------------------------------------------- read */

/* The head that was read, before anything proves it: which key? */
static void cryptHead(CryptRead *r, ChoirErr *pErr) {
  const u8 *a = r->head.a;
  ChoirErr err = {0, NULL};
  u8 aKey[32] = {0};
  if (memcmp(a, "LTX1", 4) == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the remote %s is not encrypted and a secret of type sync"
                " covers it; push to an empty folder, or narrow the scope of"
                " the secret",
                r->p->zUrl);
  } else if (memcmp(a, CHOIR_CRYPT_MAGIC, 8) != 0) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "it does not begin as an encrypted object");
  } else if (a[8] != CRYPT_FORMAT) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "its encryption has format %d and this choir knows %d", a[8],
                CRYPT_FORMAT);
  }
  if (pErr->rc == SQLITE_OK) {
    choirKeyringFind(&err, r->p->pCrypt->pRing, a[9], a + 40, a + 32, aKey);
    if (err.rc == SQLITE_ERROR) {
      choirErrSet(pErr, err.rc, "the remote %s: %s: %s", r->p->zUrl, r->zKey,
                  err.zMsg ? err.zMsg : "");
    } else if (err.rc != SQLITE_OK) {
      choirErrNomem(pErr);
    }
    choirErrClear(&err);
    cryptObjectKey(aKey, a + 88, r->head.aKey);
    choirWipe(aKey, sizeof(aKey));
  }
}

static CryptHead *cryptKept(ChoirRemote *p, const char *zKey) {
  ChoirCrypt *c = p->pCrypt;
  ChoirFile file;
  int iLevel = cryptName(p, zKey, &file);
  u64 i;
  for (i = 0; i < c->nKept && i < CRYPT_KEPT; i++) {
    const u8 *a = c->aKept[i].a;
    if (a[10] == iLevel && choirGet64(a + 16) == file.iMin &&
        choirGet64(a + 24) == file.iMax) {
      return &c->aKept[i];
    }
  }
  return NULL;
}

/* A chunk has opened, so the head is true: is it what was asked for? */
static void cryptCheck(CryptRead *r, ChoirErr *pErr) {
  ChoirCrypt *c = r->p->pCrypt;
  const u8 *a = r->head.a;
  u64 iMin = choirGet64(a + 16), iMax = choirGet64(a + 24);
  ChoirFile file;
  u8 aKey[32], aUser[16];
  int iLevel = cryptName(r->p, r->zKey, &file);
  r->bHead = 1;
  choirKeyringFind(pErr, c->pRing, a[9], a + 40, a + 32, aKey);
  cryptUser(pErr, c, aKey, aUser);
  choirWipe(aKey, sizeof(aKey));
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (memcmp(aUser, a + 72, 16) != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the remote %s was stored under another choir_config('user')"
                " than '%s'; every device needs the same",
                r->p->zUrl, c->zUser);
  } else if (c->bLineage && memcmp(c->aLineage, a + 56, 16) != 0) {
    choirErrSet(pErr, SQLITE_CORRUPT, "it belongs to another workspace");
  } else if (a[10] != iLevel || iMin != file.iMin || iMax != file.iMax) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "it was stored under another name, as transactions %llu to %llu"
                " of level %d",
                iMin, iMax, a[10]);
  } else {
    CryptHead *pKept = cryptKept(r->p, r->zKey);
    pKept = pKept ? pKept : &c->aKept[c->nKept++ % CRYPT_KEPT];
    *pKept = r->head;
    c->bLineage = 1;
    memcpy(c->aLineage, a + 56, 16);
  }
}

/* The n bytes at r->a are chunk r->iChunk. */
static void cryptOpenChunk(CryptRead *r, ChoirErr *pErr) {
  u64 iBegin = cryptBegin(r->iChunk), iA, iB;
  u64 n = r->n > CHOIR_KEY_TAG ? r->n - CHOIR_KEY_TAG : 0;
  u8 *aTag = r->a + n;
  u8 aOut[CRYPT_CHUNK];
  int bOk = 0;
  if (n == (r->iChunk ? CRYPT_CHUNK : CRYPT_FIRST)) {
    bOk = choirCipherChunk(r->pCipher, r->iChunk, 0, r->head.a, CRYPT_HEAD,
                           r->a, (int)n, aOut, aTag);
  }
  if (!bOk && r->n >= CHOIR_KEY_TAG) {
    bOk = r->bLast = (u8)choirCipherChunk(r->pCipher, r->iChunk, 1, r->head.a,
                                          CRYPT_HEAD, r->a, (int)n, aOut, aTag);
  }
  if (!bOk) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "chunk %llu is not what was encrypted: it was changed, cut, or"
                " is from another object",
                r->iChunk);
    return;
  }
  if (!r->bHead) {
    cryptCheck(r, pErr);
  }
  if (r->iChunk == 0 && pErr->rc == SQLITE_OK) {
    cryptLink(pErr, r->p->pCrypt, r->head.a, aTag);
  }
  iA = r->iFrom > iBegin ? r->iFrom - iBegin : 0;
  iB = r->iTo - iBegin < n ? r->iTo - iBegin : n;
  if (iA < iB && pErr->rc == SQLITE_OK) {
    r->x(r->pArg, pErr, aOut + iA, iB - iA);
  }
  r->iChunk++;
  r->n = 0;
}

/* The next stored bytes: the head when it is not known, then chunks. */
static void cryptFeed(void *pArg, ChoirErr *pErr, const void *aIn, u64 nIn) {
  CryptRead *r = pArg;
  const u8 *a = aIn;
  while (nIn && pErr->rc == SQLITE_OK) {
    u64 nWant = r->pCipher == NULL
                    ? CRYPT_HEAD
                    : (r->iChunk ? CRYPT_CHUNK : CRYPT_FIRST) + CHOIR_KEY_TAG;
    u64 n = nWant - r->n < nIn ? nWant - r->n : nIn;
    if (r->bLast) {
      choirErrSet(pErr, SQLITE_CORRUPT, "there are bytes behind its end");
      return;
    }
    memcpy(r->a + r->n, a, (size_t)n);
    r->n += n;
    a += n;
    nIn -= n;
    if (r->n == nWant && r->pCipher == NULL) {
      memcpy(r->head.a, r->a, CRYPT_HEAD);
      cryptHead(r, pErr);
      r->pCipher = choirCipherNew(pErr, r->p->pCrypt->pRing, r->head.aKey, 0);
      r->n = 0;
    } else if (r->n == nWant) {
      cryptOpenChunk(r, pErr);
    }
  }
}

static void cryptNothing(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  (void)pArg, (void)pErr, (void)a, (void)n;
}

CHOIR_PRIVATE int choirCryptGet(ChoirRemote *p, ChoirErr *pErr,
                                const char *zKey, i64 iOff, i64 nByte,
                                ChoirObjectMeta *pMeta, ChoirObjectWrite x,
                                void *pArg) {
  u64 iFirst = cryptChunkOf((u64)iOff), iStart = 0;
  CryptHead *pKept = iFirst ? cryptKept(p, zKey) : NULL;
  CryptRead *r;
  i64 nStored = -1;
  int e;
  if (iFirst && pKept == NULL) {
    e = choirCryptGet(p, pErr, zKey, 0, (i64)CRYPT_FIRST, pMeta, cryptNothing,
                      NULL);
    pKept = cryptKept(p, zKey);
    if (e != CHOIR_OBJECT_OK || pErr->rc != SQLITE_OK || pKept == NULL) {
      return e;
    }
  }
  r = choirMalloc(pErr, sizeof(*r));
  if (r == NULL) {
    return CHOIR_OBJECT_FAILED;
  }
  r->p = p;
  r->zKey = zKey;
  r->x = x;
  r->pArg = pArg;
  r->iFrom = (u64)iOff;
  r->iTo = nByte < 0 ? CRYPT_NONE : (u64)(iOff + nByte);
  r->iChunk = iFirst;
  if (pKept) {
    r->head = *pKept;
    r->bHead = 1;
    r->pCipher = choirCipherNew(pErr, p->pCrypt->pRing, r->head.aKey, 0);
    iStart = cryptStored(iFirst);
  }
  if (nByte > 0) {
    nStored = (i64)(cryptStored(cryptChunkOf(r->iTo - 1) + 1) - iStart);
  }
  e = pErr->rc == SQLITE_OK ? choirObjectGet(p->pStore, pErr, zKey, (i64)iStart,
                                             nStored, pMeta, cryptFeed, r)
                            : CHOIR_OBJECT_FAILED;
  if (e == CHOIR_OBJECT_OK && pErr->rc == SQLITE_OK) {
    if (r->pCipher && r->n) {
      cryptOpenChunk(r, pErr);
    }
    if (r->pCipher == NULL || (nByte < 0 && !r->bLast)) {
      choirErrSet(pErr, SQLITE_CORRUPT, "it ends too early: it was cut");
    }
    pMeta->nByte = choirCryptSize(pMeta->nByte);
  }
  choirCipherFree(r->pCipher);
  choirWipe(r, sizeof(*r));
  sqlite3_free(r);
  return pErr->rc == SQLITE_OK ? e : CHOIR_OBJECT_FAILED;
}

/* ------------------------------------------------------------------- write */

/* Stored bytes of a put: any range, more than once, always the same. */
static void cryptSource(void *pArg, ChoirErr *pErr, u64 iOff, void *pOut,
                        u64 nOut) {
  CryptWrite *w = pArg;
  u8 *aOut = pOut;
  while (nOut && pErr->rc == SQLITE_OK) {
    const u8 *aFrom = w->head.a;
    u64 iBegin = 0, nPart = CRYPT_HEAD, n;
    if (iOff >= CRYPT_HEAD) {
      u64 nOne = CRYPT_CHUNK + CHOIR_KEY_TAG, iChunk, iPlain, nPlain;
      iChunk = iOff < cryptStored(1) ? 0 : 1 + (iOff - cryptStored(1)) / nOne;
      iPlain = cryptBegin(iChunk);
      nPlain = cryptBegin(iChunk + 1) - iPlain;
      nPlain = w->pSource->nByte - iPlain < nPlain ? w->pSource->nByte - iPlain
                                                   : nPlain;
      if (w->iChunk != iChunk) {
        u8 a[CRYPT_CHUNK];
        w->pSource->xRead(w->pSource->pArg, pErr, iPlain, a, nPlain);
        if (pErr->rc == SQLITE_OK &&
            !choirCipherChunk(
                w->pCipher, iChunk, iPlain + nPlain == w->pSource->nByte,
                w->head.a, CRYPT_HEAD, a, (int)nPlain, w->a, w->a + nPlain)) {
          choirErrNomem(pErr);
        }
        w->iChunk = pErr->rc == SQLITE_OK ? iChunk : CRYPT_NONE;
      }
      aFrom = w->a;
      iBegin = cryptStored(iChunk);
      nPart = nPlain + CHOIR_KEY_TAG;
    }
    n = iBegin + nPart - iOff < nOut ? iBegin + nPart - iOff : nOut;
    memcpy(aOut, aFrom + (iOff - iBegin), (size_t)n);
    aOut += n;
    iOff += n;
    nOut -= n;
  }
}

/* The links of both ends of what is to be put. */
static void cryptLinks(ChoirRemote *p, ChoirErr *pErr, const ChoirFile *pFile,
                       u8 *aHead) {
  ChoirCrypt *c = p->pCrypt;
  int bPush = pFile->iLevel == 0;
  if (pFile->iMin > 1 && bPush && c->iLast != pFile->iMin - 1) {
    ChoirLtxHead head;
    choirFolderPush(p, pErr, pFile->iMin - 1, &head, NULL);
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if ((pFile->iMin > 1 &&
       (bPush ? c->iLast != pFile->iMin - 1 : c->iFirst != pFile->iMin)) ||
      (!bPush && c->iLast != pFile->iMax)) {
    choirErrSet(pErr, SQLITE_BUSY,
                "the files of %s are removed while they are read; try again",
                p->zUrl);
    return;
  }
  if (pFile->iMin > 1) {
    memcpy(aHead + 120, bPush ? c->aLast : c->aFirst, 32);
  }
  if (!bPush) {
    memcpy(aHead + 152, c->aLast, 32);
  }
}

static void cryptNewHead(ChoirRemote *p, ChoirErr *pErr, const char *zKey,
                         CryptHead *pHead) {
  ChoirCrypt *c = p->pCrypt;
  u8 aKey[32], aSalt[CHOIR_KEY_SALT];
  u8 *a = pHead->a;
  ChoirFile file;
  int iLevel = cryptName(p, zKey, &file);
  if (!c->bLineage) { /* known from what is there */
    choirFolderNewest(pErr, p);
  }
  memset(a, 0, CRYPT_HEAD);
  memcpy(a, CHOIR_CRYPT_MAGIC, 8);
  a[8] = CRYPT_FORMAT;
  a[10] = (u8)iLevel;
  choirPut64(a + 16, file.iMin);
  choirPut64(a + 24, file.iMax);
  if (iLevel != CRYPT_OTHER) {
    cryptLinks(p, pErr, &file, a);
  }
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  a[9] = (u8)choirKeyringFirst(pErr, c->pRing, aSalt, aKey);
  choirKeyId(aKey, a + 32);
  memcpy(a + 40, aSalt, CHOIR_KEY_SALT);
  memcpy(a + 56, c->aLineage, CHOIR_SYNC_ID);
  cryptUser(pErr, c, aKey, a + 72);
  choirKeyRandom(pErr, c->pRing, a + 88, 32);
  cryptObjectKey(aKey, a + 88, pHead->aKey);
  choirWipe(aKey, sizeof(aKey));
}

CHOIR_PRIVATE int choirCryptPut(ChoirRemote *p, ChoirErr *pErr,
                                const char *zKey,
                                const ChoirObjectSource *pSource, int eIf,
                                ChoirObjectMeta *pMeta) {
  CryptWrite *w = choirMalloc(pErr, sizeof(*w));
  ChoirObjectSource source = {cryptStoredSize(pSource->nByte), cryptSource, w};
  int e = CHOIR_OBJECT_FAILED;
  if (w == NULL) {
    return e;
  }
  w->pSource = pSource;
  w->iChunk = CRYPT_NONE;
  cryptNewHead(p, pErr, zKey, &w->head);
  w->pCipher = choirCipherNew(pErr, p->pCrypt->pRing, w->head.aKey, 1);
  if (pErr->rc == SQLITE_OK) {
    e = choirObjectPut(p->pStore, pErr, zKey, &source, eIf, NULL, pMeta);
  }
  choirCipherFree(w->pCipher);
  choirWipe(w, sizeof(*w));
  sqlite3_free(w);
  return e;
}
