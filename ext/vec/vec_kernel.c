/* SPDX-License-Identifier: MIT */
/*
** Which kernel tier a connection uses: vec_kernel() tells, the setting
** vec.kernel forces one (to compare tiers, or to rule one out). A tier named
** by the environment or the config file that this machine lacks is reported by
** choir_doctor and the automatic choice is used.
*/
#include "vec.h"

typedef struct VecState {
  const ChoirKern *pKern; /* NULL: to be found at the next use */
} VecState;

static const ChoirStateType vecStateType = {"vec", sizeof(VecState), NULL};

static const ChoirKern *vecKernSetting(ChoirConn *pConn, const char **pzBad) {
  const char *z = choirConfig(pConn, "vec.kernel");
  const ChoirKern *p = NULL;
  if (z && strcmp(z, "auto") != 0) {
    p = choirKernFind(z);
    *pzBad = p ? NULL : z;
  }
  return p ? p : choirKernAuto();
}

CHOIR_PRIVATE const ChoirKern *choirVecKern(ChoirConn *pConn) {
  ChoirErr err = {SQLITE_OK, NULL};
  VecState *p = choirState(pConn, &err, &vecStateType);
  const char *zBad = NULL;
  choirErrClear(&err);
  if (p == NULL) {
    return choirKernAuto();
  }
  if (p->pKern == NULL) {
    p->pKern = vecKernSetting(pConn, &zBad);
  }
  return p->pKern;
}

/* "scalar, sse2, v2": the tiers of this machine. */
static void vecKernList(ChoirBuf *pBuf) {
  int i;
  for (i = 0; choirKernSupported(i); i++) {
    choirBufPrintf(pBuf, "%s%s", i ? ", " : "", choirKernSupported(i)->zName);
  }
}

static void vecKernHook(ChoirConn *pConn, ChoirErr *pErr, const char *z) {
  VecState *p = choirState(pConn, pErr, &vecStateType);
  if (z && strcmp(z, "auto") != 0 && choirKernFind(z) == NULL) {
    ChoirBuf b;
    ChoirErr err = {SQLITE_OK, NULL};
    choirBufInit(&b, &err, CHOIR_BUF_SQL);
    vecKernList(&b);
    choirErrSet(pErr, SQLITE_ERROR,
                "vec.kernel '%s' is not on this machine; auto, %s", z,
                b.a ? b.a : "");
    choirBufFree(&b);
    choirErrClear(&err);
  } else if (p) {
    p->pKern = NULL;
  }
}

/*
** SQL: vec_kernel() -> TEXT
**
** The tier of distance kernels that this connection uses: scalar, sse2, v2, v3,
** v4 or vnni on x86-64, neon on ARM, wasm in WebAssembly.
**
** The best one of the machine is found at the first use. choir_config(
** 'vec.kernel', name) forces another, 'auto' goes back.
**
** > SELECT choir_config('vec.kernel', 'scalar'), vec_kernel()
** = scalar|scalar
** > SELECT vec_distance_l2('[1, 2]', '[4, 6]')
** = 5.0
*/
static void vecKernel(ChoirCall *p) {
  choirResultText(p, choirVecKern(p->pConn)->zName);
}

static void vecDoctor(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  const char *zBad = NULL;
  int i;
  (void)pErr;
  (void)vecKernSetting(pConn, &zBad);
  choirRowText(pCur, "vector kernels");
  choirRowText(pCur, zBad || choirKernFailed(0) ? "warn" : "ok");
  choirRowText(pCur, choirVecKern(pConn)->zName);
  choirRowText(pCur, zBad ? "the setting vec.kernel names a tier that is not on"
                            " this machine; unset it"
                          : NULL);
  for (i = 0; choirKernFailed(i); i++) {
    choirRowText(pCur, "vector kernel self-test");
    choirRowText(pCur, "warn");
    choirRowText(pCur, choirKernFailed(i)->zName);
    choirRowText(pCur, "results are right, from a slower tier; please report"
                       " this processor");
  }
}

static const ChoirPart vecPart = {.zName = "vec", .xDoctor = vecDoctor};

static const ChoirFunc aKernelFunc[] = {
    {"vec_kernel", 0, 0, CHOIR_VOLATILE, 0, vecKernel, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirVecFuncRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirVecDistanceRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirVecAggRegister(ChoirConn *, ChoirErr *);

CHOIR_PRIVATE CHOIR_COLD void choirVecRegister(ChoirConn *pConn,
                                               ChoirErr *pErr) {
  choirConfigHook(pConn, "vec.kernel", vecKernHook);
  choirPartAdd(pConn, &vecPart);
  choirFuncs(pConn, pErr, aKernelFunc);
  choirVecFuncRegister(pConn, pErr);
  choirVecDistanceRegister(pConn, pErr);
  choirVecAggRegister(pConn, pErr);
}
