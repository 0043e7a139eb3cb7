/* SPDX-License-Identifier: MIT */
/*
** Page hashes: 16 bytes of SHA-256 for each page of a version. They find what
** changed, and their own SHA-256 is the digest of the version.
**
** The cache keeps the hashes of the version that a folder remote was last seen
** at, so that the next push sends the pages that differ. It is a file in the
** state folder, written in place without ceremony: whatever is torn, stale or
** another file's fails its checksums or names another version, and then every
** page counts as changed. docs/formats.md, "State folder", has the bytes.
*/
#include "sync.h"
#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define CACHE_HEADER 92
#define CACHE_MAX ((u64)1 << 32) /* bytes of hashes */

CHOIR_PRIVATE void choirPagesFree(ChoirPages *p) {
  sqlite3_free(p->aHash);
  memset(p, 0, sizeof(*p));
}

CHOIR_PRIVATE void choirPagesSize(ChoirErr *pErr, ChoirPages *p, u64 nPage) {
  u64 n = nPage * CHOIR_PAGE_HASH;
  if (pErr->rc == SQLITE_OK && n > p->nAlloc) {
    u64 nAlloc = p->nAlloc * 2 > n ? p->nAlloc * 2 : n + 1024;
    u8 *a = choirRealloc(pErr, p->aHash, nAlloc);
    if (a) {
      p->aHash = a;
      p->nAlloc = nAlloc;
    }
  }
  if (pErr->rc == SQLITE_OK) {
    if (nPage > p->nPage) {
      memset(p->aHash + (u64)p->nPage * CHOIR_PAGE_HASH, 0,
             (size_t)(nPage - p->nPage) * CHOIR_PAGE_HASH);
    }
    p->nPage = (u32)nPage;
  }
}

CHOIR_PRIVATE void choirPagesCopy(ChoirErr *pErr, ChoirPages *p,
                                  const ChoirPages *pFrom) {
  memset(p, 0, sizeof(*p));
  choirPagesSize(pErr, p, pFrom->nPage);
  if (pErr->rc == SQLITE_OK) {
    p->szPage = pFrom->szPage;
    if (pFrom->nPage) {
      memcpy(p->aHash, pFrom->aHash, (size_t)pFrom->nPage * CHOIR_PAGE_HASH);
    }
  }
}

CHOIR_PRIVATE void choirPagesSet(ChoirErr *pErr, ChoirPages *p, u64 iPage,
                                 const u8 *aPage) {
  u8 a[32];
  if (iPage > p->nPage) {
    choirPagesSize(pErr, p, iPage);
  }
  if (pErr->rc == SQLITE_OK) {
    choirSha256(aPage, p->szPage, a);
    memcpy(p->aHash + (iPage - 1) * CHOIR_PAGE_HASH, a, CHOIR_PAGE_HASH);
  }
}

CHOIR_PRIVATE int choirPagesSame(const ChoirPages *p, const ChoirPages *q,
                                 u64 iPage) {
  u64 i = (iPage - 1) * CHOIR_PAGE_HASH;
  return p->szPage == q->szPage && iPage <= p->nPage && iPage <= q->nPage &&
         memcmp(p->aHash + i, q->aHash + i, CHOIR_PAGE_HASH) == 0;
}

CHOIR_PRIVATE int choirPagesHas(const ChoirPages *p, u64 iPage,
                                const u8 *aPage) {
  u8 a[32];
  choirSha256(aPage, p->szPage, a);
  return iPage <= p->nPage && memcmp(p->aHash + (iPage - 1) * CHOIR_PAGE_HASH,
                                     a, CHOIR_PAGE_HASH) == 0;
}

CHOIR_PRIVATE void choirPagesDigest(const ChoirPages *p, u8 aDigest[32]) {
  choirSha256(p->aHash, (u64)p->nPage * CHOIR_PAGE_HASH, aDigest);
}

/* Journal mode, change counter, schema cookie, and who wrote last. */
CHOIR_PRIVATE void choirPageNormalise(u8 *a) {
  static const u8 aOne[4] = {0, 0, 0, 1};
  static const u8 aVersion[4] = {0x00, 0x2e, 0x63, 0x01}; /* 3040001 */
  a[18] = a[19] = 1;
  memcpy(a + 24, aOne, 4);
  memcpy(a + 40, aOne, 4);
  memcpy(a + 92, aOne, 4);
  memcpy(a + 96, aVersion, 4);
}

/* ------------------------------------------------------------------ cache */

static void cachePut(u8 *a, u64 v, int n) {
  int i;
  for (i = 0; i < n; i++) {
    a[i] = (u8)(v >> (8 * i));
  }
}

static u64 cacheGet(const u8 *a, int n) {
  u64 v = 0;
  while (n-- > 0) {
    v = v << 8 | a[n];
  }
  return v;
}

static void cacheHeader(const ChoirCache *p, u8 a[CACHE_HEADER]) {
  memset(a, 0, CACHE_HEADER);
  memcpy(a, "choirpg1", 8);
  memcpy(a + 8, p->aId, CHOIR_SYNC_ID);
  memcpy(a + 24, p->aDigest, 32);
  cachePut(a + 56, p->pages.szPage, 4);
  cachePut(a + 60, p->pages.nPage, 4);
  memcpy(a + 64, p->mark.aSalt, 8);
  cachePut(a + 72, p->mark.nFrame, 4);
  memcpy(a + 76, p->mark.aSum, 8);
  cachePut(a + 84, choirCrc64(0, a, 84), 8);
}

CHOIR_PRIVATE char *choirSyncStateFile(ChoirConn *pConn, ChoirErr *pErr,
                                       const ChoirPosition *pPos,
                                       const char *zWhat, const char *zUrl) {
  const char *zDb = sqlite3_db_filename(pConn->db, choirSchema(pConn));
  ChoirSha256 sha;
  u8 a[32];
  char z[17];
  char *zState, *zFile = NULL;
  if (zDb == NULL || zDb[0] == 0 || pErr->rc != SQLITE_OK) {
    return NULL;
  }
  choirSha256Init(&sha);
  choirSha256Update(&sha, zDb, strlen(zDb) + 1);
  choirSha256Update(&sha, zUrl, strlen(zUrl));
  choirSha256Final(&sha, a);
  choirHex(a, 8, z);
  zState = choirStateDir(pErr);
  if (zState) {
    zFile = choirMprintf(pErr, "%s/%s/%s-%s", zState, pPos->zLineage, zWhat, z);
  }
  sqlite3_free(zState);
  return zFile;
}

CHOIR_PRIVATE void choirCacheRead(ChoirConn *pConn, ChoirErr *pErr,
                                  ChoirCache *p, const ChoirPosition *pPos,
                                  const char *zUrl) {
  ChoirErr err = {0, NULL};
  u8 a[CACHE_HEADER];
  struct stat st;
  int fd;
  memset(p, 0, sizeof(*p));
  p->zFile = choirSyncStateFile(pConn, &err, pPos, "pages", zUrl);
  fd = p->zFile ? open(p->zFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
  if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= CACHE_HEADER) {
    u64 nPage;
    choirFdRead(&err, fd, 0, a, CACHE_HEADER);
    nPage = err.rc == SQLITE_OK ? cacheGet(a + 60, 4) : 0;
    if (nPage > 0 && memcmp(a, "choirpg1", 8) == 0 &&
        cacheGet(a + 84, 8) == choirCrc64(0, a, 84) &&
        nPage * CHOIR_PAGE_HASH <= CACHE_MAX &&
        (u64)st.st_size == CACHE_HEADER + nPage * CHOIR_PAGE_HASH) {
      p->bValid = 1;
      p->nPage = (u32)nPage;
      p->szPage = (u32)cacheGet(a + 56, 4);
      memcpy(p->aId, a + 8, CHOIR_SYNC_ID);
      memcpy(p->aDigest, a + 24, 32);
      memcpy(p->mark.aSalt, a + 64, 8);
      p->mark.nFrame = (u32)cacheGet(a + 72, 4);
      memcpy(p->mark.aSum, a + 76, 8);
    }
  }
  if (fd >= 0) {
    close(fd);
  }
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  }
  choirErrClear(&err);
}

CHOIR_PRIVATE void choirCacheLoad(ChoirErr *pErr, ChoirCache *p) {
  ChoirErr err = {0, NULL};
  u8 aDigest[32] = {0};
  int fd;
  if (!p->bValid || p->pages.nPage || pErr->rc != SQLITE_OK) {
    return;
  }
  fd = open(p->zFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  p->pages.szPage = p->szPage;
  choirPagesSize(&err, &p->pages, p->nPage);
  if (fd >= 0) {
    choirFdRead(&err, fd, CACHE_HEADER, p->pages.aHash,
                (u64)p->nPage * CHOIR_PAGE_HASH);
    close(fd);
  }
  if (fd >= 0 && err.rc == SQLITE_OK) {
    choirPagesDigest(&p->pages, aDigest);
  }
  if (memcmp(aDigest, p->aDigest, 32) != 0) {
    choirCacheForget(p);
  }
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  }
  choirErrClear(&err);
}

/* The hashes that differ, or all of them when there are none to compare. */
static void cacheWritePages(ChoirErr *pErr, int fd, const ChoirPages *pWas,
                            const ChoirPages *p) {
  u64 i = 0, n;
  while (i < p->nPage && pErr->rc == SQLITE_OK) {
    for (n = 0; i + n < p->nPage && !choirPagesSame(p, pWas, i + n + 1); n++) {
    }
    if (n) {
      choirFdWrite(pErr, fd, CACHE_HEADER + i * CHOIR_PAGE_HASH,
                   p->aHash + i * CHOIR_PAGE_HASH, n * CHOIR_PAGE_HASH);
    }
    i += n + 1;
  }
}

CHOIR_PRIVATE void choirCacheWrite(ChoirCache *p, ChoirPages *pNew) {
  ChoirErr err = {0, NULL};
  ChoirPages was = p->pages;
  u8 a[CACHE_HEADER];
  int fd;
  p->pages = *pNew;
  memset(pNew, 0, sizeof(*pNew));
  p->bValid = 1;
  if (p->zFile) {
    choirStateFolder(&err, p->zFile);
    fd = open(p->zFile, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
      u64 n = CACHE_HEADER + (u64)p->pages.nPage * CHOIR_PAGE_HASH;
      cacheHeader(p, a);
      choirFdWrite(&err, fd, 0, a, CACHE_HEADER);
      cacheWritePages(&err, fd, &was, &p->pages);
      if (err.rc != SQLITE_OK || ftruncate(fd, (off_t)n) != 0) {
        unlink(p->zFile);
      }
      close(fd);
    }
  }
  choirPagesFree(&was);
  choirErrClear(&err);
}

CHOIR_PRIVATE void choirCacheForget(ChoirCache *p) {
  choirPagesFree(&p->pages);
  memset(&p->mark, 0, sizeof(p->mark));
  p->bValid = 0;
}

CHOIR_PRIVATE void choirCacheFree(ChoirCache *p) {
  choirPagesFree(&p->pages);
  sqlite3_free(p->zFile);
  memset(p, 0, sizeof(*p));
}
