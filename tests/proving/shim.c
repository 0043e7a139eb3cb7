/* SPDX-License-Identifier: MIT */
/*
** The shim of the proving ground, loaded by LD_PRELOAD. It stands between the
** process and the C library's calls on files, processes and sockets.
**
**   shim_root(dir)        only files below dir count for faults
**   shim_arm(n, mode, r)  the n-th call from now on meets with the fault; r is
**                         the seed of what TORN keeps
**   shim_count()          calls counted since shim_arm
**   shim_power()          the end of LOST and TORN without waiting for a call
**   shim_watch(on)        1: begins a list of what reaches out of the process
**   shim_seen()           that list: files written, made, renamed, removed;
**                         programs; sockets
**
** KILL, HALF (half of the write is done), LOST and TORN end the process. LOST
** first takes back every write, truncation, and new, renamed or removed name
** that no fsync has followed, as a power failure may; TORN a random part of
** them: sectors of 512 bytes in any order, names from some moment on. A name
** counts as safe only when its folder has been synced.
**
** Writing faults count calls that change files, READ_* and SHORT those that
** read them, INTR both kinds.
*/
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum {
  OFF,
  COUNT,
  KILL,
  HALF,
  NOSPACE,
  FAIL,
  INTR,
  READ_COUNT,
  READ_FAIL,
  SHORT,
  LOST,
  TORN,
  INTR_COUNT
};
enum { SECTOR = 512, BUCKETS = 4096, PATHS = 4096 };

typedef struct Sector Sector;
struct Sector { /* what was there at the last fsync */
  Sector *pNext;
  off_t iOff;
  ssize_t n;
  char a[SECTOR];
};
typedef struct File File;
struct File { /* with writes that no fsync has followed */
  File *pNext;
  ino_t ino;
  off_t szSafe;
  char *zPath;
  Sector *aHash[BUCKETS];
};
typedef struct Name { /* a name that no fsync of its folder has followed */
  char eOp;           /* c made, d removed, r renamed, m folder made */
  char *zName, *zFrom, *zStash;
} Name;

static int eMode, iAt, iCall, bBusy, nStash, nName, bWatch;
static unsigned uSeed;
static char zRoot[PATHS], zSeen[65536];
static File *pFiles;
static Name aName[10000];

void shim_root(const char *z);
void shim_arm(int iN, int e, unsigned uRandom);
int shim_count(void);
void shim_power(void);
void shim_watch(int b);
const char *shim_seen(void);

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REAL(name)                                                             \
  static __typeof__(&name) x;                                                  \
  x = x ? x : NEXT(name)

static ssize_t realRead(int fd, void *a, size_t n, off64_t i) {
  REAL(pread64);
  return x(fd, a, n, i);
}

static ssize_t realWrite(int fd, const void *a, size_t n, off64_t i) {
  REAL(pwrite64);
  return x(fd, a, n, i);
}

static int realTruncate(int fd, off64_t n) {
  REAL(ftruncate64);
  return x(fd, n);
}

static int realUnlink(const char *z) {
  REAL(unlink);
  return x(z);
}

static int realOpen(const char *z, int flags) {
  REAL(open64);
  return x(z, flags);
}

/* ------------------------------------------------------------------ paths */

static int pathOfFd(int fd, char *z) {
  char zLink[40];
  snprintf(zLink, sizeof(zLink), "/proc/self/fd/%d", fd);
  ssize_t n = readlink(zLink, z, PATHS - 1);
  z[n > 0 ? n : 0] = 0;
  return n > 0;
}

/* The absolute form of zName below fd, without looking at what it is. */
static void pathOf(int fd, const char *zName, char *z) {
  char zDir[PATHS];
  if (!zName || zName[0] == '/') {
    snprintf(z, PATHS, "%s", zName ? zName : "");
    return;
  }
  if (fd == AT_FDCWD ? !getcwd(zDir, sizeof(zDir)) : !pathOfFd(fd, zDir)) {
    zDir[0] = 0;
  }
  if (snprintf(z, PATHS, "%s/%s", zDir, zName) >= PATHS) {
    z[0] = 0;
  }
}

static int isMine(const char *z) {
  size_t n = strlen(zRoot);
  return n && strncmp(z, zRoot, n) == 0 && (z[n] == '/' || z[n] == 0);
}

static int fdIsMine(int fd) {
  char z[PATHS];
  return eMode != OFF && pathOfFd(fd, z) && isMine(z);
}

static void seen(const char *zWhat, const char *zPath) {
  if (bWatch) {
    size_t n = strlen(zSeen);
    snprintf(zSeen + n, sizeof(zSeen) - n, "%s %s\n", zWhat, zPath);
  }
}

/* ------------------------------------------------ what no fsync has followed */

static int isPower(void) { return (eMode == LOST || eMode == TORN) && !bBusy; }

static File *fileOf(int fd, struct stat *pStat) {
  if (fstat(fd, pStat) != 0 || !S_ISREG(pStat->st_mode)) {
    return NULL;
  }
  File *p = pFiles;
  while (p && p->ino != pStat->st_ino) {
    p = p->pNext;
  }
  return p;
}

static void saveSectors(int fd, off_t iFrom, off_t iEnd) {
  struct stat st;
  char zPath[PATHS];
  if (!isPower() || !fdIsMine(fd) || !pathOfFd(fd, zPath)) {
    return;
  }
  File *p = fileOf(fd, &st);
  if (!S_ISREG(st.st_mode)) {
    return;
  }
  if (!p) {
    p = calloc(1, sizeof(*p));
    *p = (File){.pNext = pFiles, .ino = st.st_ino, .szSafe = st.st_size};
    p->zPath = strdup(zPath);
    pFiles = p;
  }
  for (off_t i = iFrom - iFrom % SECTOR; i < iEnd && i < p->szSafe;
       i += SECTOR) {
    Sector **pp = &p->aHash[i / SECTOR % BUCKETS], *pS = *pp;
    while (pS && pS->iOff != i) {
      pS = pS->pNext;
    }
    if (!pS) {
      pS = malloc(sizeof(*pS));
      *pS = (Sector){.pNext = *pp, .iOff = i};
      pS->n = realRead(fd, pS->a, SECTOR, i);
      *pp = pS;
    }
  }
}

static void synced(int fd) {
  struct stat st;
  char zPath[PATHS];
  if (!isPower() || fstat(fd, &st) != 0) {
    return;
  }
  if (S_ISDIR(st.st_mode) && pathOfFd(fd, zPath)) {
    size_t n = strlen(zPath);
    int nKept = 0;
    for (int i = 0; i < nName; i++) {
      const char *z = aName[i].zName;
      if (strncmp(z, zPath, n) != 0 || z[n] != '/' || strchr(z + n + 1, '/')) {
        aName[nKept++] = aName[i];
      }
    }
    nName = nKept;
    return;
  }
  for (File **pp = &pFiles; *pp; pp = &(*pp)->pNext) {
    if ((*pp)->ino == st.st_ino) {
      *pp = (*pp)->pNext;
      return;
    }
  }
}

/* zFrom and zStash are taken over. */
static void named(char eOp, const char *zName, char *zFrom, char *zStash) {
  if (isPower() && isMine(zName) &&
      nName < (int)(sizeof(aName) / sizeof(aName[0]))) {
    aName[nName++] = (Name){eOp, strdup(zName), zFrom, zStash};
  }
}

/* Another name for what is about to lose the name z: NULL: there is nothing. */
static char *stash(const char *z) {
  char zStash[PATHS + 32];
  struct stat st;
  if (!isPower() || !isMine(z) || lstat(z, &st) != 0) {
    return NULL;
  }
  snprintf(zStash, sizeof(zStash), "%s.stash/%d-%d", zRoot, getpid(), nStash++);
  bBusy = 1;
  int rc = link(z, zStash);
  bBusy = 0;
  return rc == 0 ? strdup(zStash) : NULL;
}

static unsigned coin(void) {
  uSeed = uSeed * 1103515245u + 12345u;
  return eMode == TORN ? uSeed >> 16 : 0;
}

static void loseWrites(File *p) {
  struct stat st;
  char aZero[SECTOR] = {0};
  int fd = realOpen(p->zPath, O_RDWR);
  if (fd < 0 || fstat(fd, &st) != 0 || st.st_ino != p->ino) {
    return;
  }
  int bKeepSize = eMode == TORN && coin() & 1;
  off_t szNow = st.st_size;
  for (int i = 0; i < BUCKETS; i++) {
    for (Sector *pS = p->aHash[i]; pS; pS = pS->pNext) {
      int bBack = eMode == LOST || coin() & 1 || pS->iOff >= szNow;
      if (bBack && pS->n > 0 && !(bKeepSize && pS->iOff >= szNow)) {
        realWrite(fd, pS->a, (size_t)pS->n, pS->iOff);
      }
    }
  }
  if (!bKeepSize) {
    realTruncate(fd, p->szSafe);
  } else {
    for (off_t i = p->szSafe; i < szNow; i += SECTOR) {
      if (coin() & 1) {
        realWrite(fd, aZero, (size_t)(szNow - i < SECTOR ? szNow - i : SECTOR),
                  i);
      }
    }
  }
}

static void loseName(Name *p) {
  if (p->eOp == 'c') {
    realUnlink(p->zName);
  } else if (p->eOp == 'm') {
    rmdir(p->zName);
  } else if (p->eOp == 'r') {
    rename(p->zName, p->zFrom);
  }
  if (p->zStash) {
    link(p->zStash, p->zName);
  }
}

static void powerOff(void) {
  bBusy = 1;
  int nKeep =
      eMode == TORN && nName ? (int)(coin() % (unsigned)(nName + 1)) : 0;
  for (File *p = pFiles; p; p = p->pNext) {
    loseWrites(p);
  }
  while (nName > nKeep) {
    loseName(&aName[--nName]);
  }
}

/* ---------------------------------------------------------------- the fault */

void shim_root(const char *z) { snprintf(zRoot, sizeof(zRoot), "%s", z); }

void shim_arm(int iN, int e, unsigned uRandom) {
  iAt = iN;
  eMode = e;
  uSeed = uRandom;
  iCall = 0;
}

int shim_count(void) { return iCall; }

void shim_power(void) {
  if (isPower()) {
    powerOff();
  }
  kill(getpid(), SIGKILL);
}

void shim_watch(int b) {
  bWatch = b;
  zSeen[0] = 0;
}

const char *shim_seen(void) { return zSeen; }

/* What a call may meet with, beside being the last of its process. */
enum { READS = 1, INTERRUPTIBLE = 2, NEEDS_SPACE = 4 };

/* 1: this call fails (errno is set). Does not return when it kills. */
static int hit(int m) {
  int bRead = m & READS, bInterruptible = m & INTERRUPTIBLE;
  int bReads = eMode == READ_FAIL || eMode == READ_COUNT || eMode == SHORT;
  int bIntr = eMode == INTR || eMode == INTR_COUNT;
  if (eMode == OFF || bBusy || (bIntr ? !bInterruptible : bRead != bReads)) {
    return 0;
  }
  iCall++;
  if (iAt == 0 || iCall < iAt) {
    return 0;
  }
  switch (eMode) {
  case KILL:
  case HALF:
  case LOST:
  case TORN:
    shim_power();
    return 0;
  case NOSPACE: /* it stays full */
    errno = ENOSPC;
    return (m & NEEDS_SPACE) != 0;
  case FAIL:
  case READ_FAIL:
    errno = EIO;
    return iCall == iAt;
  case INTR:
    errno = EINTR;
    return iCall == iAt;
  default:
    return 0;
  }
}

static int isShort(void) { return eMode == SHORT && iCall == iAt; }

/* ---------------------------------------------------------------- the calls */

ssize_t pwrite64(int fd, const void *a, size_t n, off64_t i) {
  if (bWatch || fdIsMine(fd)) {
    if (eMode == HALF && iCall + 1 == iAt) {
      realWrite(fd, a, n / 2, i);
    }
    if (hit(INTERRUPTIBLE | NEEDS_SPACE)) {
      return -1;
    }
    saveSectors(fd, i, i + (off_t)n);
  }
  return realWrite(fd, a, n, i);
}

ssize_t pwrite(int fd, const void *a, size_t n, off_t i) {
  return pwrite64(fd, a, n, i);
}

ssize_t write(int fd, const void *a, size_t n) {
  REAL(write);
  if (eMode != OFF && fdIsMine(fd)) {
    if (eMode == HALF && iCall + 1 == iAt) {
      x(fd, a, n / 2);
    }
    if (hit(INTERRUPTIBLE | NEEDS_SPACE)) {
      return -1;
    }
    off_t i = lseek(fd, 0, SEEK_CUR);
    saveSectors(fd, i, i + (off_t)n);
  }
  return x(fd, a, n);
}

ssize_t pread64(int fd, void *a, size_t n, off64_t i) {
  if (eMode != OFF && fdIsMine(fd)) {
    if (hit(READS | INTERRUPTIBLE)) {
      return -1;
    }
    n = isShort() && n > 1 ? n / 2 : n;
  }
  return realRead(fd, a, n, i);
}

ssize_t pread(int fd, void *a, size_t n, off_t i) {
  return pread64(fd, a, n, i);
}

ssize_t __pread_chk(int fd, void *a, size_t n, off_t i, size_t nMax);
ssize_t __pread_chk(int fd, void *a, size_t n, off_t i, size_t nMax) {
  (void)nMax;
  return pread64(fd, a, n, i);
}

ssize_t read(int fd, void *a, size_t n) {
  REAL(read);
  if (eMode != OFF && fdIsMine(fd)) {
    if (hit(READS | INTERRUPTIBLE)) {
      return -1;
    }
    n = isShort() && n > 1 ? n / 2 : n;
  }
  return x(fd, a, n);
}

ssize_t __read_chk(int fd, void *a, size_t n, size_t nMax);
ssize_t __read_chk(int fd, void *a, size_t n, size_t nMax) {
  (void)nMax;
  return read(fd, a, n);
}

static int opened(int fdDir, const char *zName, int flags, mode_t mode) {
  REAL(openat64);
  char z[PATHS];
  struct stat st;
  int bNew = 0,
      bWrites = (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0;
  if (eMode == OFF && !(bWatch && bWrites)) {
    return x(fdDir, zName, flags, mode);
  }
  pathOf(fdDir, zName, z);
  if (bWrites) {
    seen("open", z);
  }
  if (isMine(z)) {
    if (hit(INTERRUPTIBLE | (flags & O_CREAT ? NEEDS_SPACE : READS))) {
      return -1;
    }
    bNew = (flags & O_CREAT) && lstat(z, &st) != 0;
    int fd = isPower() && flags & O_TRUNC && !bNew ? realOpen(z, O_RDONLY) : -1;
    if (fd >= 0 && fstat(fd, &st) == 0) {
      saveSectors(fd, 0, st.st_size);
    }
  }
  int fd = x(fdDir, zName, flags, mode);
  if (fd >= 0 && bNew) {
    named('c', z, NULL, NULL);
  }
  return fd;
}

#define OPEN(name, params, dir)                                                \
  int name params {                                                            \
    mode_t mode = 0;                                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                                       \
      va_list ap;                                                              \
      va_start(ap, flags);                                                     \
      mode = va_arg(ap, mode_t);                                               \
      va_end(ap);                                                              \
    }                                                                          \
    return opened(dir, z, flags, mode);                                        \
  }
OPEN(open, (const char *z, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *z, int flags, ...), AT_FDCWD)
OPEN(openat, (int fd, const char *z, int flags, ...), fd)
OPEN(openat64, (int fd, const char *z, int flags, ...), fd)

int __open_2(const char *z, int flags) { return opened(AT_FDCWD, z, flags, 0); }

int __openat_2(int fd, const char *z, int flags) {
  return opened(fd, z, flags, 0);
}

static int syncs(int fd, int (*x)(int)) {
  if (fdIsMine(fd) && hit(INTERRUPTIBLE | NEEDS_SPACE)) {
    return -1;
  }
  int rc = x(fd);
  synced(fd);
  return rc;
}

int fsync(int fd) {
  REAL(fsync);
  return syncs(fd, x);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  return syncs(fd, x);
}

int ftruncate64(int fd, off64_t n) {
  struct stat st;
  if (fdIsMine(fd)) {
    if (hit(INTERRUPTIBLE | NEEDS_SPACE)) {
      return -1;
    }
    if (fstat(fd, &st) == 0) {
      saveSectors(fd, n, st.st_size > n ? st.st_size : n);
    }
  }
  return realTruncate(fd, n);
}

int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }

int unlinkat(int fd, const char *zName, int flags) {
  REAL(unlinkat);
  char z[PATHS], *zStash = NULL;
  if (eMode != OFF || bWatch) {
    pathOf(fd, zName, z);
    seen("unlink", z);
    if (isMine(z)) {
      if (hit(0)) {
        return -1;
      }
      zStash = stash(z);
    }
  }
  int rc = x(fd, zName, flags);
  if (rc == 0 && zStash) {
    named('d', z, NULL, zStash);
  }
  return rc;
}

int unlink(const char *z) { return unlinkat(AT_FDCWD, z, 0); }

int renameat2(int fd, const char *zFrom, int fdTo, const char *zTo,
              unsigned flags) {
  REAL(renameat2);
  char z[PATHS], z2[PATHS], *zStash = NULL;
  if (eMode == OFF && !bWatch) {
    return x(fd, zFrom, fdTo, zTo, flags);
  }
  pathOf(fd, zFrom, z);
  pathOf(fdTo, zTo, z2);
  seen("rename", z2);
  if (isMine(z2)) {
    if (hit(NEEDS_SPACE)) {
      return -1;
    }
    zStash = stash(z2);
  }
  int rc = x(fd, zFrom, fdTo, zTo, flags);
  if (rc == 0) {
    named('r', z2, strdup(z), zStash);
    for (File *p = pFiles; p; p = p->pNext) {
      p->zPath = strcmp(p->zPath, z) ? p->zPath : strdup(z2);
    }
  }
  return rc;
}

int renameat(int fd, const char *zFrom, int fdTo, const char *zTo) {
  return renameat2(fd, zFrom, fdTo, zTo, 0);
}

int rename(const char *zFrom, const char *zTo) {
  return renameat2(AT_FDCWD, zFrom, AT_FDCWD, zTo, 0);
}

int linkat(int fd, const char *zFrom, int fdTo, const char *zTo, int flags) {
  REAL(linkat);
  char z[PATHS];
  if (eMode == OFF && !bWatch) {
    return x(fd, zFrom, fdTo, zTo, flags);
  }
  pathOf(fdTo, zTo, z);
  seen("link", z);
  if (isMine(z) && hit(NEEDS_SPACE)) {
    return -1;
  }
  int rc = x(fd, zFrom, fdTo, zTo, flags);
  if (rc == 0) {
    named('c', z, NULL, NULL);
  }
  return rc;
}

int mkdirat(int fd, const char *zName, mode_t mode) {
  REAL(mkdirat);
  char z[PATHS];
  if (eMode == OFF && !bWatch) {
    return x(fd, zName, mode);
  }
  pathOf(fd, zName, z);
  seen("mkdir", z);
  if (isMine(z) && hit(NEEDS_SPACE)) {
    return -1;
  }
  int rc = x(fd, zName, mode);
  if (rc == 0) {
    named('m', z, NULL, NULL);
  }
  return rc;
}

int mkdir(const char *z, mode_t mode) { return mkdirat(AT_FDCWD, z, mode); }

int flock(int fd, int op) {
  REAL(flock);
  return fdIsMine(fd) && hit(INTERRUPTIBLE) ? -1 : x(fd, op);
}

/* ------------------------------------------------- only looked at, not hurt */

int socket(int domain, int type, int protocol) {
  REAL(socket);
  seen("socket", domain == AF_UNIX ? "unix" : "inet");
  return x(domain, type, protocol);
}

int connect(int fd, const struct sockaddr *p, socklen_t n) {
  REAL(connect);
  seen("connect", "");
  return x(fd, p, n);
}

int getaddrinfo(const char *zHost, const char *zPort, const struct addrinfo *p,
                struct addrinfo **pp) {
  REAL(getaddrinfo);
  seen("lookup", zHost ? zHost : "");
  return x(zHost, zPort, p, pp);
}

int posix_spawnp(pid_t *p, const char *z, const posix_spawn_file_actions_t *pA,
                 const posix_spawnattr_t *pB, char *const az[],
                 char *const azEnv[]) {
  REAL(posix_spawnp);
  seen("spawn", z);
  return x(p, z, pA, pB, az, azEnv);
}
