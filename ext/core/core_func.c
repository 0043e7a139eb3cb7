/* SPDX-License-Identifier: MIT */
/*
** Functions of the whole extension: choir_version, choir_debug, choir_help,
** choir_lock, choir_uuid4, choir_uuid7, choir_sha256; and the order in which
** the files of core register.
*/
#include "../choir.h"
#include "core.h"

CHOIR_PRIVATE CHOIR_COLD void choirAnchorRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirConfigRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirSecretRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirWorkRegister(ChoirConn *, ChoirErr *);

/*
** SQL: choir_version() -> TEXT
**
** The version of choir.
**
** > SELECT choir_version() GLOB '[0-9]*.[0-9]*.[0-9]*'
** = 1
*/
static void coreVersion(ChoirCall *p) {
  sqlite3_result_text(p->pCtx, CHOIR_VERSION, -1, SQLITE_STATIC);
}

#if defined(__clang__)
#define CORE_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define CORE_COMPILER "gcc " __VERSION__
#else
#define CORE_COMPILER "unknown"
#endif

/*
** SQL: choir_debug() -> TEXT
**
** How this choir was built and where it runs, as a JSON object: version,
** compiler, the SQLite it was compiled against and the one it runs in.
**
** > SELECT json_extract(choir_debug(), '$.version') = choir_version()
** = 1
*/
static void coreDebug(ChoirCall *p) {
  ChoirBuf b;
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufText(&b, "{\"version\":\"" CHOIR_VERSION "\",\"compiler\":");
  choirBufJson(&b, CORE_COMPILER, -1);
  choirBufPrintf(&b,
                 ",\"sqlite_compiled\":\"" SQLITE_VERSION
                 "\",\"sqlite_running\":\"%s\",\"readonly\":%d,\"locked\":%d}",
                 sqlite3_libversion(), p->pConn->bReadonly, p->pConn->bLocked);
  choirBufResult(&b, p->pCtx);
}

/*
** SQL: choir_lock() -> INTEGER
**
** Turns off every function of risk class effect (network, files, process) on
** this connection until it is closed, and returns 1. There is no way back.
**
** > SELECT choir_lock()
** = 1
*/
static void coreLock(ChoirCall *p) {
  /* A thread of this connection (sync_auto) looks at it too. */
  __atomic_store_n(&p->pConn->bLocked, 1, __ATOMIC_RELAXED);
  sqlite3_result_int(p->pCtx, 1);
}

/*
** SQL: choir_uuid4() -> TEXT
**
** A random UUID (RFC 9562 version 4).
**
** > SELECT length(choir_uuid4()), substr(choir_uuid4(), 15, 1)
** = 36|4
*/
static void coreUuid4(ChoirCall *p) {
  char z[37];
  choirUuid4(z);
  choirResultText(p, z);
}

/*
** SQL: choir_uuid7() -> TEXT
**
** A UUID that sorts by its time of making (RFC 9562 version 7), the kind choir
** uses for ids: neighbours in time are neighbours in the index.
**
** > SELECT length(choir_uuid7()), substr(choir_uuid7(), 15, 1)
** = 36|7
*/
static void coreUuid7(ChoirCall *p) {
  char z[37];
  choirUuid7(z);
  choirResultText(p, z);
}

/*
** SQL: choir_sha256(x) -> TEXT
**
** SHA-256 of a value's bytes as 64 lower-case hexadecimal digits. Numbers are
** hashed as their text.
**
**   x  TEXT or BLOB
**
** NULL: gives NULL.
** Source: FIPS 180-4.
**
** > SELECT choir_sha256('abc')
** = ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
*/
static void coreSha256(ChoirCall *p) {
  sqlite3_value *v = p->apArg[0];
  u8 a[32];
  char z[65];
  const void *pData;
  if (sqlite3_value_type(v) == SQLITE_NULL) {
    return;
  }
  pData = sqlite3_value_type(v) == SQLITE_BLOB ? sqlite3_value_blob(v)
                                               : sqlite3_value_text(v);
  if (pData == NULL && sqlite3_value_bytes(v) > 0) {
    choirErrNomem(&p->err);
    return;
  }
  choirSha256(pData ? pData : "", (u64)sqlite3_value_bytes(v), a);
  choirHex(a, 32, z);
  choirResultText(p, z);
}

/* How well a function fits a topic: 0 by its name, … 3 not at all. */
static int coreHelpFit(const ChoirHelp *h, const char *zTopic,
                       const char *zLike) {
  if (zTopic == NULL || sqlite3_stricmp(zTopic, h->zName) == 0) {
    return 0;
  }
  if (sqlite3_strlike(zLike, h->zName, 0) == 0 ||
      sqlite3_stricmp(zTopic, h->zRoom) == 0) {
    return 1;
  }
  return sqlite3_strlike(zLike, h->zSummary, 0) == 0 ? 2 : 3;
}

static int coreHelpHas(const ChoirConn *pConn, const ChoirHelp *h) {
  return h->bReadonly || !pConn->bReadonly;
}

static void coreHelpNone(const ChoirConn *pConn, ChoirErr *pErr,
                         const char *zTopic) {
  const char **az = choirMalloc(pErr, (u64)choirHelpCount * sizeof(*az));
  const char *zNear;
  int i, n = 0;
  for (i = 0; az && i < choirHelpCount; i++) {
    if (coreHelpHas(pConn, &choirHelp[i])) {
      az[n++] = choirHelp[i].zName;
    }
  }
  zNear = az ? choirNearest(zTopic, az, n) : NULL;
  choirErrSet(pErr, SQLITE_ERROR, "nothing is about '%.40s'; %s%s%s", zTopic,
              zNear ? "did you mean '" : "select name, summary from choir_help",
              zNear ? zNear : "", zNear ? "'?" : "");
  sqlite3_free(az);
}

/*
** SQL: choir_help([topic]) -> TABLE(name, kind, signature, summary,
**   example, risk, room)
**
** Every function of this connection, or those that a topic is about: that of
** that name first, then those whose name holds it and all of the room of that
** name, then those whose summary does. kind is scalar, aggregate, table or
** module; risk is pure, volatile, read, write or effect.
**
** Errors: nothing is about the topic; the nearest name is told.
**
** > SELECT name, kind FROM choir_help('choir_uuid7')
** = choir_uuid7|scalar
**
** > SELECT name FROM choir_help('artefact_get')
** ! choir_help: nothing is about 'artefact_get'; did you mean 'artifact_get'?
*/
static void coreHelp(ChoirCursor *p) {
  const char *zTopic = choirArgTextOrNull(&p->err, p->apArg[0], "topic");
  char *zLike = zTopic ? choirMprintf(&p->err, "%%%s%%", zTopic) : NULL;
  int i, iFit, nRow = 0;
  for (iFit = 0; iFit < 3; iFit++) {
    for (i = 0; i < choirHelpCount && p->err.rc == SQLITE_OK; i++) {
      const ChoirHelp *h = &choirHelp[i];
      if (coreHelpHas(p->pConn, h) && coreHelpFit(h, zTopic, zLike) == iFit) {
        choirRowText(p, h->zName);
        choirRowText(p, h->zKind);
        choirRowText(p, h->zSignature);
        choirRowText(p, h->zSummary);
        choirRowText(p, h->zExample);
        choirRowText(p, h->zRisk);
        choirRowText(p, h->zRoom);
        nRow++;
      }
    }
  }
  if (nRow == 0 && p->err.rc == SQLITE_OK) {
    coreHelpNone(p->pConn, &p->err, zTopic);
  }
  sqlite3_free(zLike);
}

static const ChoirFunc aCoreFunc[] = {
    {"choir_version", 0, 0, CHOIR_PURE, 0, coreVersion, NULL},
    {"choir_debug", 0, 0, CHOIR_READ, 0, coreDebug, NULL},
    {"choir_lock", 0, 0, CHOIR_SETTING, 0, coreLock, NULL},
    {"choir_uuid4", 0, 0, CHOIR_VOLATILE, 0, coreUuid4, NULL},
    {"choir_uuid7", 0, 0, CHOIR_VOLATILE, 0, coreUuid7, NULL},
    {"choir_sha256", 1, 1, CHOIR_PURE, 0, coreSha256, NULL},
};

static const ChoirTvf aCoreTvf[] = {
    {"choir_help",
     "name, kind, signature, summary, example, risk, room,"
     " topic HIDDEN",
     7, 0, 1, CHOIR_PURE, 0, 0, coreHelp, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirCoreRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirAnchorRegister(pConn, pErr);
  choirFuncs(pConn, pErr, aCoreFunc);
  choirTvfs(pConn, pErr, aCoreTvf);
  choirConfigRegister(pConn, pErr);
  choirSecretRegister(pConn, pErr);
  choirWorkRegister(pConn, pErr);
}
