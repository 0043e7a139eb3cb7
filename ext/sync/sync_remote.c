/* SPDX-License-Identifier: MIT */
/*
** The other side of a sync: a plain SQLite file in an object store, or a folder
** of LTX files (sync_folder.c) that make one.
**
** A fetched file goes into an anonymous temporary file and is believed only
** after it has been looked at there, through a connection that has neither
** choir's functions nor triggers nor views:
**
**   header    an SQLite database of the size it says
**   seal      SHA-256 of every byte but the seal's own equals the seal, so a
**             single flipped, missing or added byte is found
**   content   PRAGMA quick_check
**   position  the sync tables, and a format this choir knows
*/
#include "sync.h"
#include <stdlib.h>
#if !defined(_WIN32)
#include <unistd.h>
#endif

#define REMOTE_CHUNK ((u64)1 << 18)

CHOIR_PRIVATE void choirRemoteOpen(ChoirConn *pConn, ChoirErr *pErr,
                                   ChoirRemote *p, const char *zUrl) {
  size_t n;
  memset(p, 0, sizeof(*p));
  p->fd = -1;
  p->eHead = CHOIR_OBJECT_FAILED;
  zUrl = zUrl || pErr->rc ? zUrl : choirConfig(pConn, "remote");
  if (zUrl == NULL || zUrl[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no remote; name one, as in"
                " sync_push('file:///folder/'), or set it by"
                " choir_config('remote', …) or CHOIR_REMOTE");
    return;
  }
  choirObjectUrlCheck(pErr, zUrl);
  p->pCrypt = choirCryptOpen(pConn, pErr, zUrl);
  if (p->pCrypt && zUrl[strlen(zUrl) - 1] != '/') {
    choirErrSet(pErr, SQLITE_ERROR,
                "a secret of type sync covers %s, and only a folder can be"
                " encrypted; use one, ending in '/', or narrow the scope of the"
                " secret",
                zUrl);
  }
  if (sqlite3_strnicmp(zUrl, "http", 4) == 0) { /* most likely presigned */
    p->pStore = choirObjectOpen(pConn, pErr, zUrl);
    p->zUrl = p->pStore ? p->pStore->zUrl : NULL;
    return;
  }
  n = strlen(zUrl);
  p->bFolder = zUrl[n - 1] == '/';
  if (!p->bFolder && sqlite3_strlike("%.sqlite", zUrl, 0) != 0 &&
      sqlite3_strlike("%.db", zUrl, 0) != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "a remote must end in .sqlite or .db (a file), or in / (a"
                " folder of page deltas), got '%s'",
                zUrl);
  }
  p->pStore = choirObjectOpen(pConn, pErr, zUrl);
  p->zUrl = p->pStore ? p->pStore->zUrl : NULL;
  p->bFolder &= p->pStore != NULL;
}

static void remoteForget(ChoirRemote *p) {
  sqlite3_close(p->db);
  choirSpoolFree(p->pSpool);
  p->db = NULL;
  p->pSpool = NULL;
}

CHOIR_PRIVATE void choirRemoteLetGo(ChoirRemote *p) {
  remoteForget(p);
  choirLiveClose(p->pLive);
  p->pLive = NULL;
}

CHOIR_PRIVATE void choirRemoteClose(ChoirRemote *p) {
  choirRemoteLetGo(p);
  choirPagesFree(&p->pages);
  choirPagesFree(&p->own);
  choirCryptFree(p->pCrypt);
  p->pCrypt = NULL;
  if (p->fd >= 0) {
    close(p->fd);
    p->fd = -1;
  }
  choirObjectClose(p->pStore);
  p->pStore = NULL;
}

CHOIR_PRIVATE void choirRemoteLook(ChoirErr *pErr, ChoirRemote *p,
                                   const ChoirPosition *pPos) {
  if (p->bFolder) {
    choirFolderLook(pErr, p, pPos);
  } else if (p->pStore) {
    p->eHead = choirObjectHead(p->pStore, pErr, p->pStore->zKey, &p->meta);
  }
}

/* ------------------------------------------------------------------ fetch */

typedef struct RemoteSink {
  int fd;
  u64 nByte;
} RemoteSink;

static void remoteWrite(void *pArg, ChoirErr *pErr, const void *a, u64 n) {
  RemoteSink *p = pArg;
  choirFdWrite(pErr, p->fd, p->nByte, a, n);
  p->nByte += n;
}

static void remoteDamaged(ChoirErr *pErr, const ChoirRemote *p,
                          const char *zWhat) {
  choirErrSet(pErr, SQLITE_CORRUPT,
              "the remote %s is damaged: %s; nothing was changed here, replace"
              " it by an intact copy",
              p->zUrl, zWhat);
}

/* A database may be read only in rollback mode here, and its size must be what
** its header says. */
static int remoteHeader(ChoirErr *pErr, ChoirRemote *p, u64 nByte) {
  u8 a[100];
  u64 szPage, nPage;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (nByte < 512) {
    remoteDamaged(pErr, p, "it is too short to be a database");
    return 0;
  }
  choirFdRead(pErr, p->fd, 0, a, sizeof(a));
  if (pErr->rc == SQLITE_OK && memcmp(a, "SQLite format 3", 16) != 0) {
    remoteDamaged(pErr, p, "it is not an SQLite database");
    return 0;
  }
  szPage = (u64)a[16] << 8 | a[17];
  szPage = szPage == 1 ? 65536 : szPage;
  nPage = choirGet32(a + 28);
  if (szPage < 512 || (szPage & (szPage - 1)) || szPage > 65536) {
    remoteDamaged(pErr, p, "its page size is impossible");
  } else if (nPage * szPage != nByte) {
    char *z = choirMprintf(pErr, "it has %llu bytes and its header says %llu",
                           nByte, nPage * szPage);
    remoteDamaged(pErr, p, z ? z : "its size is wrong");
    sqlite3_free(z);
  }
  if (a[18] == 2 || a[19] == 2) { /* left in WAL mode by another tool */
    static const u8 aRollback[2] = {1, 1};
    p->bSealed = 0;
    choirFdWrite(pErr, p->fd, 18, aRollback, 2);
    return 0;
  }
  return 1;
}

static void remoteConnect(ChoirErr *pErr, ChoirRemote *p, u64 nByte) {
  p->pSpool = choirSpoolNew(pErr, p->fd, nByte);
  if (p->pSpool) {
    choirSpoolLive(p->pSpool, p->pLive, &p->own, &p->pages, p->iOwnRoot);
  }
  p->db = choirSpoolOpen(pErr, p->pSpool, 0);
}

static u64 remotePageSize(ChoirErr *pErr, ChoirRemote *p) {
  u8 a[2];
  u64 sz = 0;
  choirFdRead(pErr, p->fd, 16, a, 2);
  if (pErr->rc == SQLITE_OK) {
    sz = (u64)a[0] << 8 | a[1];
  }
  return sz == 1 ? 65536 : sz;
}

/* Offset of the seal in the fetched file, 0 when there is none. */
static u64 remoteSealOffset(ChoirErr *pErr, ChoirRemote *p) {
  u64 szPage = remotePageSize(pErr, p);
  u64 iPage = szPage * (u64)(p->pos.iRoot ? p->pos.iRoot - 1 : 0);
  u8 *a = iPage ? choirMalloc(pErr, szPage) : NULL;
  u64 iOff = 0;
  if (a) {
    int iIn;
    choirSpoolRead(p->pSpool, pErr, iPage, a, szPage);
    iIn = pErr->rc == SQLITE_OK ? choirSealFind(a, (int)szPage) : 0;
    iOff = iIn ? iPage + (u64)iIn : 0;
  }
  sqlite3_free(a);
  return iOff;
}

/* The hashes of bytes [iOff, iOff+n) of the fetched file as they are there, but
** with zeros for the seal. a: n bytes. */
static void remoteHash(ChoirErr *pErr, ChoirRemote *p, u64 iOff, u64 n,
                       u64 iSeal, u8 *a) {
  u64 szPage = p->pages.szPage, i;
  choirSpoolRead(p->pSpool, pErr, iOff, a, n);
  if (iSeal >= iOff && iSeal < iOff + n) { /* inside one page */
    memset(a + (iSeal - iOff), 0, CHOIR_SYNC_SEAL);
  }
  for (i = 0; i < n && pErr->rc == SQLITE_OK; i += szPage) {
    choirPagesSet(pErr, &p->pages, (iOff + i) / szPage + 1, a + i);
  }
}

/* The digest of the fetched file. The pages of a folder were hashed on their
** way, but for those that were given here or are nowhere. */
static void remoteDigest(ChoirErr *pErr, ChoirRemote *p, u64 nByte, u64 iSeal) {
  u64 szPage = remotePageSize(pErr, p), iOff, iLock;
  u8 *a = choirMalloc(pErr, REMOTE_CHUNK);
  if (a && p->bFolder && p->pages.szPage == szPage &&
      p->pages.nPage * szPage == nByte) {
    iLock = (choirLtxLockPage((u32)szPage) - 1) * szPage;
    remoteHash(pErr, p, 0, szPage, iSeal, a);
    remoteHash(pErr, p, iSeal - iSeal % szPage, szPage, iSeal, a);
    if (iLock < nByte) {
      remoteHash(pErr, p, iLock, szPage, iSeal, a);
    }
  } else if (a) {
    p->pages.szPage = (u32)szPage;
    p->pages.nPage = 0;
    for (iOff = 0; iOff < nByte && pErr->rc == SQLITE_OK;
         iOff += REMOTE_CHUNK) {
      u64 n = nByte - iOff < REMOTE_CHUNK ? nByte - iOff : REMOTE_CHUNK;
      remoteHash(pErr, p, iOff, n, iSeal, a);
    }
  }
  sqlite3_free(a);
  if (pErr->rc == SQLITE_OK) {
    choirPagesDigest(&p->pages, p->aDigest);
  }
}

static void remoteSealCheck(ChoirErr *pErr, ChoirRemote *p, u64 nByte) {
  static const u8 aZero[CHOIR_SYNC_SEAL];
  u64 iSeal = remoteSealOffset(pErr, p);
  if (iSeal == 0) {
    p->bSealed = 0;
    return;
  }
  remoteDigest(pErr, p, nByte, iSeal);
  if (p->pLive && p->pos.iRoot != p->iOwnRoot &&
      choirPagesSame(&p->own, &p->pages, p->pos.iRoot)) {
    p->bSealed = 0; /* fd has not the page that the seal goes into */
  }
  if (memcmp(p->aDigest, p->pos.aSeal, 32) != 0 ||
      memcmp(p->pos.aSeal + 32, aZero, CHOIR_SYNC_SEAL - 32) != 0) {
    p->bSealed = 0;
  }
}

static void remoteVerify(ChoirErr *pErr, ChoirRemote *p, u64 nByte,
                         int bForeign) {
  ChoirErr err = {0, NULL};
  char *zProblem;
  p->bSealed = 1;
  if (!remoteHeader(pErr, p, nByte)) {
    p->bSealed = 0;
  }
  remoteConnect(pErr, p, nByte);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  choirPositionRead(&err, p->db, "main", &p->pos);
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (err.rc != SQLITE_OK) {
    remoteDamaged(pErr, p, err.zMsg);
  } else if (p->bFolder && !p->head.bChoir) {
    p->bSealed = 0; /* another tool's, held together by its own checksums */
  } else if (!p->pos.bWorkspace || !p->pos.bHead) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is not a workspace that was pushed there; choose another"
                " remote",
                p->zUrl);
  } else if (p->pos.iFormat > choirMigrationCount) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the workspace at %s has format %d and this choir knows up to"
                " %d; load a newer choir",
                p->zUrl, p->pos.iFormat, choirMigrationCount);
  }
  choirErrClear(&err);
  remoteSealCheck(pErr, p, nByte);
  zProblem = choirSpoolProblem(pErr, p->db);
  if (zProblem) {
    remoteDamaged(pErr, p, zProblem);
  }
  sqlite3_free(zProblem);
  if (!p->bSealed && !bForeign && (!p->bFolder || p->head.bChoir)) {
    choirErrSet(pErr, SQLITE_CORRUPT,
                "%s is not as it was pushed: it was damaged or changed by"
                " another tool; sync_pull('%s', 'theirs') takes it as it is and"
                " keeps a copy of this file",
                p->zUrl, p->zUrl);
  }
}

/* Own pages read where they are may be those of a version that somebody is
** committing, or damaged since their hashes were taken: what does not hold with
** them is fetched again on top of a copy that is hashed. */
static void remoteFolder(ChoirConn *pConn, ChoirErr *pErr, ChoirRemote *p,
                         int bForeign) {
  u64 nByte = choirFolderFetch(pConn, pErr, p, 0);
  if (nByte) {
    remoteVerify(pErr, p, nByte, bForeign);
  }
  if (nByte && p->pLive && pErr->rc != SQLITE_NOMEM &&
      (pErr->rc != SQLITE_OK || !p->bSealed)) {
    choirErrClear(pErr);
    p->bCopy = 1;
    choirRemoteFetch(pConn, pErr, p, bForeign);
  }
}

CHOIR_PRIVATE void choirRemoteFetch(ChoirConn *pConn, ChoirErr *pErr,
                                    ChoirRemote *p, int bForeign) {
  RemoteSink sink;
  ChoirObjectMeta meta;
  int e;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  choirRemoteLetGo(p);
  choirPagesFree(&p->own);
  p->bOwn = 0;
  if (p->fd >= 0) {
    close(p->fd);
  }
  p->fd = choirTempAnonymous(pErr);
  if (p->bFolder) {
    remoteFolder(pConn, pErr, p, bForeign);
    return;
  }
  sink.fd = p->fd;
  sink.nByte = 0;
  e = choirObjectGet(p->pStore, pErr, p->pStore->zKey, 0, -1, &meta,
                     remoteWrite, &sink);
  p->eHead = e;
  if (e != CHOIR_OBJECT_OK) {
    return; /* gone since the look, or failed */
  }
  p->meta = meta;
  if (pErr->rc == SQLITE_OK && sink.nByte != meta.nByte) {
    choirErrSet(pErr, SQLITE_IOERR,
                "%s ended after %llu of %llu bytes; try again", p->zUrl,
                sink.nByte, meta.nByte);
  }
  remoteVerify(pErr, p, sink.nByte, bForeign);
}

CHOIR_PRIVATE u64 choirRemoteRestore(ChoirErr *pErr, ChoirRemote *p,
                                     u64 iTxid) {
  u64 nByte = 0;
  if (pErr->rc == SQLITE_OK) {
    p->fd = choirTempAnonymous(pErr);
    nByte = choirFolderFetch(NULL, pErr, p, iTxid);
  }
  if (pErr->rc == SQLITE_OK && nByte == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "nothing at %s yet", p->zUrl);
  }
  if (pErr->rc == SQLITE_OK) {
    remoteVerify(pErr, p, nByte, 0);
  }
  return nByte;
}

CHOIR_PRIVATE void choirRemoteReseal(ChoirErr *pErr, ChoirRemote *p,
                                     const u8 *aSeal) {
  u64 iSeal = remoteSealOffset(pErr, p);
  u64 nByte = choirSpoolSize(p->pSpool);
  if (iSeal) {
    choirFdWrite(pErr, p->fd, iSeal, aSeal, CHOIR_SYNC_SEAL);
  }
  remoteForget(p);
  remoteConnect(pErr, p, nByte);
}
