/* SPDX-License-Identifier: MIT */
/*
** Every fuzz target on its corpus, and on mutations of it for a moment, without
** a fuzzer.
**
**   fuzz_test                 all of them
**   fuzz_test TARGET          one; FUZZ_MS=50 milliseconds of mutations
**   fuzz_test TARGET FILE…    on these inputs
**
** An input on which a target does not hold is left in build/fuzz/TARGET-failed.
*/
#include "../fuzz/fuzz.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define INPUT_MAX (1 << 16)

typedef struct Input {
  u8 *a;
  u64 n;
} Input;

static Input aInput[1024];
static int nInput;
static const char *zNow = "";
static Input now;

static void failed(int iSignal) {
  char z[200];
  int fd;
  sqlite3_snprintf(sizeof(z), z, "build/fuzz/%s-failed", zNow);
  mkdir("build/fuzz", 0777);
  fd = open(z, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd >= 0 && write(fd, now.a, now.n) == (ssize_t)now.n) {
    fprintf(stderr, "fuzz target %s, input %s\n", zNow, z);
  }
  signal(iSignal, SIG_DFL);
  raise(iSignal);
}

/* As libFuzzer does: bytes of its own, so that a sanitizer sees the end. */
static void run(const FuzzTarget *p, const u8 *a, u64 n) {
  now.a = sqlite3_malloc64(n ? n : 1);
  now.n = n;
  memcpy(now.a, a, n);
  p->xRun(now.a, n);
  sqlite3_free(now.a);
}

static void readInput(const char *zFile) {
  FILE *f = fopen(zFile, "rb");
  if (f && nInput < 1024) {
    Input *p = &aInput[nInput++];
    p->a = sqlite3_malloc64(INPUT_MAX);
    p->n = fread(p->a, 1, INPUT_MAX, f);
  }
  if (f) {
    fclose(f);
  }
}

static void readCorpus(const char *zName) {
  char z[600];
  struct dirent *p;
  DIR *pDir;
  while (nInput > 0) {
    sqlite3_free(aInput[--nInput].a);
  }
  sqlite3_snprintf(sizeof(z), z, "tests/fuzz/corpus/%s", zName);
  pDir = opendir(z);
  while (pDir && (p = readdir(pDir)) != NULL) {
    sqlite3_snprintf(sizeof(z), z, "tests/fuzz/corpus/%s/%s", zName, p->d_name);
    if (p->d_name[0] != '.') {
      readInput(z);
    }
  }
  if (pDir) {
    closedir(pDir);
  }
}

static u32 iSeed = 1;
static u32 next(u32 nBelow) {
  iSeed = iSeed * 1664525 + 1013904223;
  return nBelow ? (iSeed >> 8) % nBelow : 0;
}

/* One input changed in one to four places, or cut. */
static void mutate(const FuzzTarget *p) {
  static u8 a[INPUT_MAX + 8];
  const Input *pFrom = &aInput[next((u32)nInput)];
  u64 n = pFrom->n;
  int i;
  memcpy(a, pFrom->a, n);
  for (i = (int)next(4); i >= 0 && n > 1; i--) {
    u64 iAt = next((u32)n);
    switch (next(5)) {
    case 0:
      a[iAt] = (u8)next(256);
      break;
    case 1:
      a[iAt] ^= (u8)(1 << next(8));
      break;
    case 2:
      memmove(a + iAt, a + iAt + 1, n - iAt - 1);
      n--;
      break;
    case 3:
      n = n < INPUT_MAX ? n + 1 : n;
      memmove(a + iAt + 1, a + iAt, n - iAt - 1);
      break;
    default:
      n = iAt;
    }
  }
  run(p, a, n);
}

static long spentMs(void) { return (long)(clock() * 1000 / CLOCKS_PER_SEC); }

static long test(const FuzzTarget *p, long nMs) {
  long nRun = 0, iEnd;
  int i;
  zNow = p->zName;
  readCorpus(p->zName);
  if (nInput == 0) {
    fprintf(stderr, "tests/fuzz/corpus/%s has no input\n", p->zName);
    exit(1);
  }
  for (i = 0; i < nInput; i++, nRun++) {
    run(p, aInput[i].a, aInput[i].n);
  }
  for (iEnd = spentMs() + nMs; spentMs() < iEnd; nRun++) {
    mutate(p);
  }
  return nRun;
}

int main(int argc, char **argv) {
  const FuzzTarget *p = argc > 1 ? fuzzFind(argv[1]) : fuzzTargets;
  const char *zMs = getenv("FUZZ_MS");
  long nMs = zMs ? strtol(zMs, NULL, 10) : 20, nRun = 0;
  int i, n = 0;
  signal(SIGABRT, failed);
  signal(SIGSEGV, failed);
  signal(SIGFPE, failed);
  if (argc > 1 && p == NULL) {
    fprintf(stderr, "there is no fuzz target %s\n", argv[1]);
    return 1;
  }
  if (argc > 2) {
    zNow = p->zName;
    for (i = 2; i < argc; i++) {
      readInput(argv[i]);
      run(p, aInput[nInput - 1].a, aInput[nInput - 1].n);
    }
    return 0;
  }
  for (; p; p = argc > 1 ? NULL : p->pNext, n++) {
    long iStart = spentMs(), nMine = test(p, nMs);
    if (argc > 1 || zMs) {
      printf("%-14s %7ld runs %5ld ms\n", p->zName, nMine, spentMs() - iStart);
    }
    nRun += nMine;
  }
  printf("%d fuzz targets, %ld runs\n", n, nRun);
  return 0;
}
