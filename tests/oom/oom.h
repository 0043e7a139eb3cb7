/* SPDX-License-Identifier: MIT */
/*
** What the allocation-failure sweep (oom.c) takes from the world it makes for
** each run (world.c): memory that fails when told to, a clock and randomness
** that repeat themselves, and counts of what was called.
*/
#ifndef OOM_H
#define OOM_H
#define _GNU_SOURCE
#include "../../ext/choir.h"

#define MAX_FUNCTION 512
#define MAX_MODULE 128

enum Method { /* of a virtual table, bits of Module.mHas and mCalled */
              M_CREATE,
              M_CONNECT,
              M_BESTINDEX,
              M_DISCONNECT,
              M_DESTROY,
              M_OPEN,
              M_CLOSE,
              M_FILTER,
              M_NEXT,
              M_EOF,
              M_COLUMN,
              M_ROWID,
              M_UPDATE,
              M_BEGIN,
              M_SYNC,
              M_COMMIT,
              M_ROLLBACK,
              M_SAVEPOINT,
              M_RELEASE,
              M_ROLLBACKTO,
              M_COUNT
};

#define M_LOOSE                                                                \
  (1u << M_CONNECT | 1u << M_DISCONNECT | 1u << M_DESTROY | 1u << M_NEXT |     \
   1u << M_EOF | 1u << M_COLUMN | 1u << M_ROWID)

typedef struct Module {
  char zName[48];
  unsigned mHas, mCalled;
  int bOurs; /* in choir_help */
} Module;

typedef struct Shared { /* of all processes */
  long nFault, nBad;
  char azFunction[MAX_FUNCTION][48];
  unsigned char aCalled[MAX_FUNCTION], aEffect[MAX_FUNCTION];
  Module aModule[MAX_MODULE];
  int nFunction, nModule;
} Shared;

extern Shared *pShared;
extern long nAsked;  /* allocations asked for since the world was armed */
extern long nFailed; /* how many of them failed */
extern long nLiving; /* allocations not freed */

/* Once, before SQLite is initialized. */
void worldInstall(void);
/* Clock and randomness begin again, the same every time; otherwise with
** iOther 1. With bReal they are the real ones. */
void worldBegin(int iOther, int bReal);
/* From now on allocation n fails, and all after it with bEver; 0: none. The
** stack of each allocation is written to aStack[0..nMax) as a hash. */
void worldArm(long n, int bEver, unsigned long long *aStack, long nMax);
/* Between these two nothing fails and nothing counts. */
void worldPause(void);
void worldResume(void);
/* Where the first failed allocation was. worldWhere() prints the stack of
** choir; was it in zFunction? worldInside(): was it in choir, or in SQLite's work
** for the host alone? */
int worldWhere(int bPrint, const char *zFunction);
int worldInside(void);
#define HOST __attribute__((noinline, section("host_text")))

#endif
