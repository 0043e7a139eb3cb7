/* SPDX-License-Identifier: MIT */
/*
** What every fuzz target stands on. A target is a file of this folder:
**
**   FUZZ(url) {              build/fuzz/url, corpus tests/fuzz/corpus/url
**     … a, n …               any bytes, the target's own copy of them
**     MUST(what has to hold);
**   }
**
** `make fuzz` runs each with libFuzzer (fuzz_main.c); tests/unit/fuzz_test.c
** runs all of them over the corpus, and over mutations of it, without.
**
** A target takes its input apart from the front: FuzzIn. What it makes of it
** must not depend on anything else, so that a failure can be replayed.
*/
#ifndef CHOIR_FUZZ_H
#define CHOIR_FUZZ_H
#include "../../ext/core/core.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct FuzzTarget {
  const char *zName;
  void (*xRun)(const u8 *a, u64 n);
  struct FuzzTarget *pNext;
} FuzzTarget;

extern FuzzTarget *fuzzTargets;
void fuzzAdd(FuzzTarget *);
FuzzTarget *fuzzFind(const char *zName);

#define FUZZ(name)                                                             \
  static void fuzz_##name(const u8 *a, u64 n);                                 \
  __attribute__((constructor)) static void fuzzAdd_##name(void) {              \
    static FuzzTarget target = {#name, fuzz_##name, NULL};                     \
    fuzzAdd(&target);                                                          \
  }                                                                            \
  static void fuzz_##name(const u8 *a, u64 n)

#define MUST(x)                                                                \
  ((x) ? (void)0                                                               \
       : (fprintf(stderr, "%s:%d: not: %s\n", __FILE__, __LINE__, #x),         \
          abort()))

/* The front of the input. Past the end there are zeros. */
typedef struct FuzzIn {
  const u8 *a;
  u64 n;
} FuzzIn;
u8 fuzzByte(FuzzIn *);
i64 fuzzInt(FuzzIn *); /* eight bytes */
/* The rest up to the next 0xff, which no UTF-8 has; NUL-terminated, to be freed
** by sqlite3_free. *pn may be NULL. */
char *fuzzPart(FuzzIn *, u64 *pn);

/* A connection with choir on it, a workspace in the file; and one of them in
** memory, for all that leave it as they found it. */
sqlite3 *fuzzOpen(const char *zFile);
sqlite3 *fuzzDb(void);
/* Runs SQL that has to succeed. */
void fuzzMust(sqlite3 *, const char *zFmt, ...);
/* Every statement of zSql: ?1 the bytes as text, ?2 as a blob, ?3 its first
** eight as an integer, ?4 as a real number; reads all it gives. An error is a
** fine answer, one without a message or with other text than UTF-8 is not. */
void fuzzSql(sqlite3 *, const char *zSql, const u8 *a, u64 n);
/* The first byte chooses one of the stories, NULL at the end; it is run as above
** and taken back. */
void fuzzStory(sqlite3 *, const char *const *azStory, const u8 *a, u64 n);
/* The first value of a query that has to give one, as text; sqlite3_free. */
char *fuzzOne(sqlite3 *, const char *zFmt, ...);

/* A folder of this process, removed at its end. */
const char *fuzzDir(void);
void fuzzWrite(const char *zFile, const void *a, u64 n);

/* A server on 127.0.0.1: the port. It answers what fuzzServe was given last:
** aReply[0], then aReply[1], …, the last one some times more, then nothing.
** bHello: without waiting for a request. The bytes stay the caller's. */
typedef struct FuzzReply {
  const void *a;
  u64 n;
} FuzzReply;
int fuzzPort(void);
void fuzzServe(const FuzzReply *aReply, int nReply, int bHello);
/* The first byte chooses one of azSql (NULL at the end), where %d is the port;
** it is run on a new connection. The parts of the rest (up to 8, 0xff between
** them) are the bodies of the replies that it gets, with status 200; bRaw: they
** are all of the replies. Requests are made once and do not wait for long. */
void fuzzHttp(const char *const *azSql, const u8 *a, u64 n, int bRaw);

#endif /* CHOIR_FUZZ_H */
