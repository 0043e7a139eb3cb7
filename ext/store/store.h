/* SPDX-License-Identifier: MIT */
/*
** store: the tables of a workspace and the functions on them. One section per
** file of this folder.
**
**   store     triggers, checks, registration        store.c
**   path      path rules, kinds of files            store_path.c
**   artifact  artifact_put, get, delete, move, ls   store_artifact.c
**   content   an artifact's content in pieces       store_content.c
**   file      reading real files safely             store_file.c
**   import    artifact_import                       store_import.c
**   export    artifact_export                       store_export.c
**   chat      conversations, messages, settings     store_chat.c
**   cache     values that expire                    store_cache.c
**   agent     tasks, citations, personas            store_agent.c
**   state     nested JSON by key; server_state      store_state.c
**   point     checkpoints of the state              store_point.c
**   seed      state_import                          store_seed.c
**   foreign   choir_import                          store_foreign.c
**   agentfs   choir_export                          store_agentfs.c
*/
#ifndef CHOIR_STORE_H
#define CHOIR_STORE_H

#include "../core/core.h"

#define CHOIR_STORE_PATH_MAX 4096 /* bytes of a path */
#define CHOIR_STORE_NAME_MAX 1000 /* bytes of a setting's, a key's name */

/* --------------------------------------------------------------- path ----
** A path is absolute and says where a file is, '/docs/notes.md'; a directory
** is what paths have in common and ends in '/', '/docs/'. A missing first '/'
** is added and '//' becomes '/'; parts '.' and '..', control characters, more
** than 4,096 bytes and an empty path are errors.
*/
enum {
  CHOIR_STORE_FILE = 0,   /* a trailing '/' is an error */
  CHOIR_STORE_DIR = 1,    /* a trailing '/' is added */
  CHOIR_STORE_EITHER = 2, /* kept as it is */
};
/* zArg names the argument in messages; caller frees. */
CHOIR_PRIVATE char *choirStorePath(ChoirErr *, const char *zPath,
                                   const char *zArg, int eKind);
/* An argument that names something: text of 1 to 1,000 bytes. */
CHOIR_PRIVATE const char *choirStoreArgName(ChoirErr *, sqlite3_value *,
                                            const char *zArg);
/* The part after the last '/', in zPath. */
CHOIR_PRIVATE const char *choirStoreName(const char *zPath);
/* zDir ends in '/'; paths below it are >= zDir and < this. Caller frees. In
** UTF-16, whose bytes are compared, so are some others: hence the last term. */
CHOIR_PRIVATE char *choirStoreEnd(ChoirErr *, const char *zDir);
#define CHOIR_STORE_BELOW(zPath)                                               \
  zPath " >= ?1 AND " zPath " < ?2 AND substr(" zPath ", 1, length(?1)) = ?1"
/* MIME type by the name's ending, else by the content. Static text. */
CHOIR_PRIVATE const char *choirStoreMime(const char *zPath, const void *a,
                                         i64 n);
/* Is this content to be read and searched as text: a textual MIME type (or
** none) and valid UTF-8 without NUL? */
CHOIR_PRIVATE int choirStoreIsText(const char *zMime, const void *a, i64 n);

/* ----------------------------------------------------------- artifact ---- */
enum { CHOIR_STORE_SAME = 0, CHOIR_STORE_NEW, CHOIR_STORE_CHANGED };

typedef struct ChoirStorePut {
  const char *zPath; /* from choirStorePath */
  const void *a;     /* content; NULL: n zero bytes, written later */
  i64 n;
  int bText;         /* keep as TEXT, else as a BLOB */
  char zHash[65];    /* SHA-256 of the content, hexadecimal */
  const char *zMime; /* NULL: keep the one there, or guess */
  const char *zMeta; /* NULL: keep what is there, or {} */
  const char *zKey;  /* the content lies in the object store under this key: a
                     ** and n only describe it */
  char *zId; /* in: the id of a new artifact, or NULL; out: its id, caller
             ** frees */
  /* results */
  int eChange; /* CHOIR_STORE_SAME, _NEW or _CHANGED */
  int bStored; /* the content was stored, not only found to be there */
} ChoirStorePut;

/* A `mime` argument: NULL when it is, checked to look like one. */
CHOIR_PRIVATE const char *choirStoreArgMime(ChoirErr *, sqlite3_value *);
/* Makes or updates the live artifact at a path; the caller has a savepoint. */
CHOIR_PRIVATE void choirStorePutRow(ChoirConn *, ChoirErr *, ChoirStorePut *);
/* A statement on the live artifact that z (id or path) names, standing on its
** row, or NULL where there is none: columns id, path, content, s3_key,
** size_bytes, hash, rowid, mime_type. Give it back by choirStmtDone. */
CHOIR_PRIVATE sqlite3_stmt *choirStoreFind(ChoirConn *, ChoirErr *,
                                           const char *z);

/* ------------------------------------------------------------ content ----
** An artifact's content in pieces: TEXT is UTF-8 whatever the database's
** encoding, a large BLOB is streamed.
*/
#define CHOIR_STORE_CHUNK ((i64)1 << 20)

typedef struct ChoirStoreContent {
  ChoirConn *pConn;
  i64 n;               /* bytes */
  sqlite3_stmt *pStmt; /* holds a, or NULL */
  const char *a;
  sqlite3_blob *pBlob; /* instead of a */
  char *aChunk;        /* of CHOIR_STORE_CHUNK bytes, for pBlob */
} ChoirStoreContent;

CHOIR_PRIVATE void choirStoreContentOpen(ChoirConn *, ChoirErr *,
                                         ChoirStoreContent *, i64 iRowid);
/* Bytes [i, i+n), n <= CHOIR_STORE_CHUNK; they stay until the next call. */
CHOIR_PRIVATE const char *choirStoreContentAt(ChoirErr *, ChoirStoreContent *,
                                              i64 i, i64 n);
CHOIR_PRIVATE void choirStoreContentClose(ChoirStoreContent *);

/* --------------------------------------------------------------- file ----
** The files of every database on this connection (file, -wal, -shm, -journal)
** must never be opened beside SQLite: closing them would drop its locks. They
** are known by device and inode, and by folder and name where they do not
** exist yet. POSIX systems only.
*/
struct stat;
typedef struct ChoirStoreOwn {
  struct StoreOwnFile *a;
  int n;
} ChoirStoreOwn;

CHOIR_PRIVATE void choirStoreOwnInit(ChoirStoreOwn *, ChoirConn *, ChoirErr *);
CHOIR_PRIVATE void choirStoreOwnFree(ChoirStoreOwn *);
/* Is pStat one of them; is zName in the folder pDir one of them? */
CHOIR_PRIVATE int choirStoreIsOwn(const ChoirStoreOwn *, const struct stat *);
CHOIR_PRIVATE int choirStoreIsOwnName(const ChoirStoreOwn *,
                                      const struct stat *pDir,
                                      const char *zName);
/* Opens the regular file zName of folder fdDir for reading (mFlags: O_NOFOLLOW
** or 0); -1 and sticky, naming zShow, when it is not one or one of ours. */
CHOIR_PRIVATE int choirStoreOpen(ChoirErr *, const ChoirStoreOwn *, int fdDir,
                                 const char *zName, int mFlags,
                                 const char *zShow, struct stat *pStat);
/* The regular file zName of folder fdDir, at most nMax bytes of UTF-8 without
** NUL. Caller frees. */
CHOIR_PRIVATE char *choirStoreReadText(ChoirErr *, const ChoirStoreOwn *,
                                       int fdDir, const char *zName, int mFlags,
                                       const char *zShow, i64 nMax);
/* The names in a folder, without . and .., in byte order; 0 and errno when it
** cannot be read. */
typedef struct ChoirStoreNames {
  char **az;
  int n, nAlloc;
} ChoirStoreNames;
CHOIR_PRIVATE int choirStoreNamesRead(ChoirStoreNames *, ChoirErr *, int fdDir);
CHOIR_PRIVATE void choirStoreNamesFree(ChoirStoreNames *);
/* Puts the n bytes of the open file fd at pPut->zPath. */
CHOIR_PRIVATE void choirStorePutFd(ChoirConn *, ChoirErr *, ChoirStorePut *,
                                   int fd, i64 n);

/* ---------------------------------------------------- import and export ----
** What both report: counts, and the first problems by file.
*/
#define CHOIR_STORE_PROBLEMS 100

typedef struct ChoirStoreReport {
  ChoirBuf problems; /* JSON objects, comma separated */
  int nProblem;
  i64 nFile, nByte;    /* files done, bytes of them */
  i64 iStart, iShown;  /* choirMonotonic() */
  const char *zAction; /* what the progress line says */
} ChoirStoreReport;

CHOIR_PRIVATE void choirStoreReportInit(ChoirStoreReport *, ChoirErr *,
                                        const char *zAction);
CHOIR_PRIVATE void choirStoreProblem(ChoirStoreReport *, const char *zFile,
                                     const char *zProblem);
/* {"zKey":zName,zCounts,"problems":[…]} as the result. */
CHOIR_PRIVATE void choirStoreReportResult(ChoirStoreReport *, const char *zKey,
                                          const char *zName,
                                          const char *zCounts,
                                          sqlite3_context *);
/* After a second, on a terminal, every 200 ms: a line on stderr. */
CHOIR_PRIVATE void choirStoreProgress(ChoirStoreReport *, int bEnd);

/* ----------------------------------------------------- state and its points
** A key's value is JSON text. One that is not (written by plain SQL, or
** damaged) is corrupt; it is read from the newest checkpoint that has it.
*/
/* Value zJson at key zKey, made or changed; returns 1 when that changed
** something. iLevel 0 keeps the level, or gives a new key the default. */
CHOIR_PRIVATE int choirStoreStatePut(ChoirConn *, ChoirErr *, const char *zKey,
                                     const char *zJson, int iLevel);
/* The value of a key as valid JSON, or NULL where there is none. Caller
** frees. */
CHOIR_PRIVATE char *choirStoreStateValue(ChoirConn *, ChoirErr *,
                                         const char *zKey);
/* Appends {key: value, …} of the keys up to this level. */
CHOIR_PRIVATE void choirStoreStateJson(ChoirConn *, ChoirErr *, ChoirBuf *,
                                       int iLevel);
/* The newest good value of a key in a checkpoint; sticky when none has it.
** Caller frees. */
CHOIR_PRIVATE char *choirStorePointValue(ChoirConn *, ChoirErr *,
                                         const char *zKey);
/* Keeps zJson as the seed of a key; returns 1 when it had none before. */
CHOIR_PRIVATE int choirStoreSeedPut(ChoirConn *, ChoirErr *, const char *zKey,
                                    const char *zJson);
/* What state_import() does, its report as the result. */
CHOIR_PRIVATE void choirStoreSeedImport(ChoirCall *, const char *zFrom,
                                        int bReplace);
/* choirRow problems of the state and its checkpoints, for choir_check(). */
CHOIR_PRIVATE void choirStoreStateCheck(ChoirConn *, ChoirCursor *);

CHOIR_PRIVATE CHOIR_COLD void choirStoreArtifactRegister(ChoirConn *,
                                                         ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreImportRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreExportRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreChatRegister(ChoirConn *, ChoirErr *);
/* choirRow metrics of the cache. */
CHOIR_PRIVATE void choirStoreCacheMetrics(ChoirConn *, ChoirErr *,
                                          ChoirCursor *);

CHOIR_PRIVATE CHOIR_COLD void choirStoreCacheRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreAgentRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreStateRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStorePointRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreSeedRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreForeignRegister(ChoirConn *,
                                                        ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreAgentfsRegister(ChoirConn *,
                                                        ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirStoreRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_STORE_H */
