/* SPDX-License-Identifier: MIT */
/*
** What an upload in parts has done so far, so that a put of the same bytes to
** the same place goes on where a process died.
**
** A file of this user's, $XDG_STATE_HOME/choir/uploads/<name>; the name is the
** SHA-256 of the URL, the size and the size of a part, and of a copy what it is
** a copy of:
**
**   choir-upload 1
**   <the upload's name, percent-encoded> <its mark>
**   <part> <CRC-64 of its bytes> <ETag>       for every part that has arrived;
**                                             of a copy: of the object's ETag
**
** It is locked while its upload goes on (whoever finds it locked does without)
** and gone when the upload has ended, in whatever way. A last line that is cut
** short is not there.
**
** Nothing in it is trusted: a part is left out when the source still has bytes
** of this CRC, and the completion names every part with its ETag, which the
** store compares. A file that says something wrong costs an upload.
*/
#include "object_s3.h"
#ifndef CHOIR_OMIT_NET
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESUME_MAX ((i64)4 << 20)
static const char zResumeHead[] = "choir-upload 1";

static char *resumeFile(ChoirErr *pErr, const char *zWhat) {
  char *zDir = choirStateDir(pErr);
  char zHex[65], *zFile;
  u8 aHash[32];
  choirSha256(zWhat, strlen(zWhat), aHash);
  choirHex(aHash, 32, zHex);
  zFile = choirMprintf(pErr, "%s/uploads/%s", zDir, zHex);
  sqlite3_free(zDir);
  if (zFile) {
    choirStateFolder(pErr, zFile);
  }
  return zFile;
}

/* All of the file, as far as its lines end; caller frees. */
static char *resumeRead(ChoirErr *pErr, int fd) {
  struct stat st;
  char *z;
  if (fstat(fd, &st) != 0 || st.st_size == 0 || st.st_size > RESUME_MAX) {
    return NULL;
  }
  z = choirMalloc(pErr, (u64)st.st_size + 1);
  if (z) {
    ssize_t n = pread(fd, z, (size_t)st.st_size, 0);
    n = n < 0 ? 0 : n;
    while (n > 0 && z[n - 1] != '\n') {
      n--;
    }
    z[n] = 0;
  }
  return z;
}

/* The next line of *pz, ended by NUL; NULL: there is none. */
static char *resumeLine(char **pz) {
  char *z = *pz, *zEnd = z ? strchr(z, '\n') : NULL;
  if (zEnd) {
    *zEnd = 0;
    *pz = zEnd + 1;
  }
  return zEnd ? z : NULL;
}

static void resumeParse(ChoirS3Resume *p, ChoirErr *pErr, char *z) {
  char *zLine = resumeLine(&z), *zMark;
  size_t nId;
  if (zLine == NULL || strcmp(zLine, zResumeHead) != 0 ||
      (zLine = resumeLine(&z)) == NULL) {
    return;
  }
  nId = strcspn(zLine, " ");
  zMark = zLine + nId + (zLine[nId] == ' ');
  if (nId == 0 || strlen(zMark) != sizeof(p->zWrite) - 1) {
    return;
  }
  p->zId = choirMprintf(pErr, "%.*s", (int)nId, zLine);
  memcpy(p->zWrite, zMark, sizeof(p->zWrite));
  while (p->zId && (zLine = resumeLine(&z)) != NULL) {
    char *zEtag;
    long iPart = strtol(zLine, &zEtag, 10);
    u64 crc = strtoull(zEtag, &zEtag, 16);
    if (iPart >= 1 && iPart <= p->nPart && *zEtag == ' ' && zEtag[1] &&
        strlen(zEtag + 1) < sizeof(p->aPart->zEtag)) {
      ChoirS3Done *pDone = &p->aPart[iPart - 1];
      pDone->crc = crc;
      memcpy(pDone->zEtag, zEtag + 1, strlen(zEtag + 1) + 1);
    }
  }
}

CHOIR_PRIVATE void choirS3ResumeOpen(ChoirS3Resume *p, ChoirErr *pErr,
                                     const char *zWhat) {
  ChoirErr err = {SQLITE_OK, NULL};
  char *zFile = pErr->rc == SQLITE_OK ? resumeFile(&err, zWhat) : NULL;
  char *z = NULL;
  p->fd = -1;
  if (err.rc == SQLITE_OK && zFile) {
    p->fd =
        open(zFile, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  }
  if (p->fd >= 0 && flock(p->fd, LOCK_EX | LOCK_NB) == 0) {
    struct stat here, there;
    if (fstat(p->fd, &here) == 0 && stat(zFile, &there) == 0 &&
        here.st_ino == there.st_ino) { /* not one that was just removed */
      p->zFile = zFile;
      zFile = NULL;
      z = resumeRead(&err, p->fd);
    }
  }
  resumeParse(p, &err, z);
  if (p->zFile == NULL && p->fd >= 0) {
    close(p->fd);
    p->fd = -1;
  }
  sqlite3_free(z);
  sqlite3_free(zFile);
  if (err.rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  }
  choirErrClear(&err);
}

/* Adds a line; where that fails, there is no file any more. */
static void resumeAdd(ChoirS3Resume *p, const char *z, size_t n) {
  if (p->fd >= 0 && write(p->fd, z, n) != (ssize_t)n) {
    choirS3ResumeEnd(p);
  }
}

CHOIR_PRIVATE void choirS3ResumeBegin(ChoirS3Resume *p, const char *zId,
                                      const char *zWrite) {
  ChoirErr err = {SQLITE_OK, NULL};
  char *z = p->fd >= 0
                ? choirMprintf(&err, "%s\n%s %s\n", zResumeHead, zId, zWrite)
                : NULL;
  if (z && ftruncate(p->fd, 0) == 0) {
    resumeAdd(p, z, strlen(z));
  } else {
    choirS3ResumeEnd(p);
  }
  sqlite3_free(z);
  choirErrClear(&err);
}

CHOIR_PRIVATE void choirS3ResumePart(ChoirS3Resume *p, int iPart) {
  char z[160];
  sqlite3_snprintf(sizeof(z), z, "%d %016llx %s\n", iPart,
                   p->aPart[iPart - 1].crc, p->aPart[iPart - 1].zEtag);
  resumeAdd(p, z, strlen(z));
}

CHOIR_PRIVATE void choirS3ResumeEnd(ChoirS3Resume *p) {
  if (p->fd >= 0) {
    unlink(p->zFile);
    close(p->fd);
    p->fd = -1;
  }
  sqlite3_free(p->zFile);
  p->zFile = NULL;
}
#endif /* CHOIR_OMIT_NET */
