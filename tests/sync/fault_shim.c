/* SPDX-License-Identifier: MIT */
/*
** Loaded by LD_PRELOAD: counts the calls that change files and, at the n-th,
** kills the process or makes the call fail. shim_arm(n, mode), shim_count().
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, HALF, ENOSPACE, EIOERR };

static int eMode, iAt, iCall;

void shim_arm(int iN, int e);
int shim_count(void);

void shim_arm(int iN, int e) {
  iAt = iN;
  eMode = e;
  iCall = 0;
}

int shim_count(void) { return iCall; }

/* 1: this call fails (errno is set). Does not return when it kills. */
static int shimHit(void) {
  if (eMode == OFF) {
    return 0;
  }
  iCall++;
  if (eMode == COUNT || iCall < iAt) {
    return 0;
  }
  if (eMode == KILL || eMode == HALF) {
    kill(getpid(), SIGKILL);
  }
  if (eMode == EIOERR && iCall > iAt) {
    return 0; /* once */
  }
  errno = eMode == ENOSPACE ? ENOSPC : EIO;
  return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *a, size_t n, off64_t i) {
  static ssize_t (*x)(int, const void *, size_t, off64_t);
  x = x ? x : NEXT(pwrite64);
  if (eMode == HALF && iCall + 1 == iAt) {
    x(fd, a, n / 2, i);
  }
  return shimHit() ? -1 : x(fd, a, n, i);
}

ssize_t pwrite(int fd, const void *a, size_t n, off_t i) {
  return pwrite64(fd, a, n, i);
}

#define SHIM(ret, name, params, args)                                          \
  ret name params {                                                            \
    static ret(*x) params;                                                     \
    x = x ? x : NEXT(name);                                                    \
    return shimHit() ? -1 : x args;                                            \
  }

SHIM(int, fsync, (int fd), (fd))
SHIM(int, fdatasync, (int fd), (fd))
SHIM(int, ftruncate, (int fd, off_t n), (fd, n))
SHIM(int, ftruncate64, (int fd, off64_t n), (fd, n))
SHIM(int, unlink, (const char *z), (z))
SHIM(int, unlinkat, (int fd, const char *z, int m), (fd, z, m))
SHIM(int, renameat, (int a, const char *y, int b, const char *z), (a, y, b, z))
SHIM(int, linkat, (int a, const char *y, int b, const char *z, int m),
     (a, y, b, z, m))
SHIM(int, mkdir, (const char *z, mode_t m), (z, m))
SHIM(int, flock, (int fd, int op), (fd, op))
