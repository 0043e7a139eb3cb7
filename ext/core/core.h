/* SPDX-License-Identifier: MIT */
/*
** core: what every room stands on. One section per file of this folder.
**
**   err       sticky errors                  core_err.c
**   buf       growing buffers with a cap     core_buf.c
**   hash      SHA-256, CRC-64                core_hash.c
**   id        UUIDs, clock, randomness       core_id.c
**   conn      what one connection owns       core_conn.c
**   stmt      cached statements, savepoints  core_stmt.c
**   registry  functions, risk classes        core_registry.c
**   tvf       table-valued functions         core_vtab.c
**   table     tables whose rows live elsewhere  core_vtab.c
**   config    settings and their sources     core_config.c
**   json      JSON of others, kept apart     core_json.c
**   lib       libraries opened at first use  core_lib.c
**   secret    credentials and their scopes   core_secret.c
**   work      choir_init, parts, migrations  core_work.c
**
** Vocabulary as in SQLite: z text, p pointer, n count, a array, b flag,
** e enum, m bit mask, pp out. Memory comes from sqlite3_malloc64 and nothing
** else; whoever allocates says who frees.
*/
#ifndef CHOIR_CORE_H
#define CHOIR_CORE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef SQLITE_CORE
#include "sqlite3.h"
#else
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT3
#endif

typedef sqlite3_int64 i64;
typedef sqlite3_uint64 u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

/* Shared between files of the tree, invisible outside; static when merged. */
#if defined(CHOIR_AMALGAMATION)
#define CHOIR_PRIVATE static __attribute__((unused))
#define CHOIR_DATA static /* generated tables: defined before their users */
#elif defined(__GNUC__)
#define CHOIR_PRIVATE __attribute__((visibility("hidden")))
#else
#define CHOIR_PRIVATE
#endif

#if defined(__GNUC__)
#define CHOIR_PRINTF(iFmt, iArg) /* sqlite3 formats (%w, %Q): unchecked */
#define CHOIR_UNUSED __attribute__((unused))
/* What only loading runs lies together, so that it maps little of the rest. */
#define CHOIR_COLD __attribute__((cold))
#else
#define CHOIR_PRINTF(iFmt, iArg)
#define CHOIR_UNUSED
#define CHOIR_COLD
#endif
#ifndef CHOIR_DATA
#define CHOIR_DATA CHOIR_PRIVATE
#endif

typedef struct ChoirBuf ChoirBuf;
typedef struct ChoirCall ChoirCall;
typedef struct ChoirConn ChoirConn;
typedef struct ChoirCursor ChoirCursor;
typedef struct ChoirErr ChoirErr;
typedef struct ChoirFunc ChoirFunc;
typedef struct ChoirModule ChoirModule;
typedef struct ChoirPart ChoirPart;
typedef struct ChoirRows ChoirRows;
typedef struct ChoirSecret ChoirSecret;
typedef struct ChoirTable ChoirTable;
typedef struct ChoirTvf ChoirTvf;
typedef struct ChoirTxn ChoirTxn;

/* ---------------------------------------------------------------- err ----
** A sticky error. Every helper that takes a ChoirErr is a no-op once it is
** set, so code runs in a straight line and reports once at the end. The first
** error wins. Messages say `<problem with both values>[; <remedy>]`, lower
** case, no full stop, no secret; the name of the SQL function in front is
** added where the error is reported.
*/
struct ChoirErr {
  int rc;     /* SQLITE_OK or the code to return */
  char *zMsg; /* sqlite3_malloc'd, or NULL (out of memory has no text) */
};

CHOIR_PRIVATE void choirErrSet(ChoirErr *pErr, int rc, const char *zFmt, ...);
CHOIR_PRIVATE void choirErrNomem(ChoirErr *pErr);
/* What the connection says about rc; no-op when rc is OK, ROW or DONE. */
CHOIR_PRIVATE void choirErrDb(ChoirErr *pErr, sqlite3 *db, int rc);
CHOIR_PRIVATE void choirErrClear(ChoirErr *pErr);
/* Report and clear: `zName: message` as the function's result. */
CHOIR_PRIVATE void choirErrResult(ChoirErr *pErr, sqlite3_context *pCtx,
                                  const char *zName);
/* Report and clear: as the virtual table's error; returns the code. */
CHOIR_PRIVATE int choirErrVtab(ChoirErr *pErr, sqlite3_vtab *pVtab,
                               const char *zName);
/* n zeroed bytes, caller frees by sqlite3_free; NULL and sticky on failure. */
CHOIR_PRIVATE void *choirMalloc(ChoirErr *pErr, u64 n);
CHOIR_PRIVATE void *choirRealloc(ChoirErr *pErr, void *p, u64 n);
CHOIR_PRIVATE char *choirMprintf(ChoirErr *pErr, const char *zFmt, ...);
CHOIR_PRIVATE char *choirVmprintf(ChoirErr *pErr, const char *zFmt, va_list);

/* ---------------------------------------------------------------- buf ----
** A growing byte buffer. Its cap is declared when it is made; going over it
** is an error that names the cap, never a truncation. Pointers into it die at
** the next append. Always zero-terminated one byte past n.
*/
struct ChoirBuf {
  char *a;        /* bytes; owned until choirBufTake */
  u64 n;          /* bytes used */
  u64 nAlloc;     /* bytes allocated */
  u64 nMax;       /* cap */
  ChoirErr *pErr; /* where failures stick */
};

#define CHOIR_BUF_SQL ((u64)1 << 20)  /* cap for SQL text */
#define CHOIR_BUF_JSON ((u64)1 << 28) /* cap for JSON results */

CHOIR_PRIVATE void choirBufInit(ChoirBuf *p, ChoirErr *pErr, u64 nMax);
CHOIR_PRIVATE void choirBufAppend(ChoirBuf *p, const void *a, u64 n);
CHOIR_PRIVATE void choirBufText(ChoirBuf *p, const char *z);
CHOIR_PRIVATE void choirBufPrintf(ChoirBuf *p, const char *zFmt, ...);
/* z as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
CHOIR_PRIVATE void choirBufJson(ChoirBuf *p, const char *z, i64 n);
/* Column i as JSON, exactly: what JSON cannot say is {"blob":hex}, {"text":hex}
** (not UTF-8) or {"real":"Inf"}; more than nMost bytes, unless it is negative,
** are {"bytes":n}. */
CHOIR_PRIVATE void choirBufColumn(ChoirBuf *p, sqlite3_stmt *, int i,
                                  i64 nMost);
/* n bytes of room at the end, to be filled by the caller; NULL on failure. */
CHOIR_PRIVATE char *choirBufSpace(ChoirBuf *p, u64 n);
/* Room for n bytes in all and no more, so that what comes is not moved. */
CHOIR_PRIVATE void choirBufReserve(ChoirBuf *p, u64 n);
/* Hands the bytes to the caller (sqlite3_free) and empties the buffer. */
CHOIR_PRIVATE char *choirBufTake(ChoirBuf *p);
CHOIR_PRIVATE void choirBufFree(ChoirBuf *p);
/* The buffer as a text result; the buffer is emptied. */
CHOIR_PRIVATE void choirBufResult(ChoirBuf *p, sqlite3_context *pCtx);

/* Appends a[0..n) in base64 with padding, or in base64url without. */
CHOIR_PRIVATE void choirBufBase64(ChoirBuf *p, const void *a, u64 n, int bUrl);
/* Appends the bytes that base64 text stands for, padded or not; 0: it is not
** base64. */
CHOIR_PRIVATE int choirBufUnbase64(ChoirBuf *p, const char *z, u64 n);

/* Elements of nWidth bytes from the order they are stored in, little-endian, to
** that of this machine, or back; nothing where the two are the same. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define CHOIR_BIG_ENDIAN 1
#else
#define CHOIR_BIG_ENDIAN 0
#endif
CHOIR_PRIVATE void choirLittleEndian(void *a, u64 nByte, int nWidth);

/* Length of valid UTF-8 at the front of z[0..n): n when all is valid. */
CHOIR_PRIVATE i64 choirUtf8Valid(const char *z, i64 n);

/* --------------------------------------------------------------- hash ---- */
typedef struct ChoirSha256 {
  u32 h[8];
  u64 n;    /* bytes hashed */
  u8 a[64]; /* the unfinished block */
} ChoirSha256;

/* FIPS 180-4. SHA-NI where the processor has it, portable C elsewhere. */
CHOIR_PRIVATE void choirSha256Init(ChoirSha256 *p);
CHOIR_PRIVATE void choirSha256Update(ChoirSha256 *p, const void *a, u64 n);
CHOIR_PRIVATE void choirSha256Final(ChoirSha256 *p, u8 aOut[32]);
CHOIR_PRIVATE void choirSha256(const void *a, u64 n, u8 aOut[32]);
/* RFC 2104. */
CHOIR_PRIVATE void choirHmacSha256(const void *aKey, u64 nKey, const void *a,
                                   u64 n, u8 aOut[32]);
/* For what a standard wants it for (UUID version 5, WebSocket); nothing relies on
** its being hard to break. */
CHOIR_PRIVATE void choirSha1(const void *a, u64 n, u8 aOut[20]);
/* 0: best available; 1: portable only (tests compare the two). */
CHOIR_PRIVATE void choirSha256Force(int bPortable);
/* CRC-64/GO-ISO (poly 0xD800000000000000 reflected), as LTX uses it. */
CHOIR_PRIVATE u64 choirCrc64(u64 crc, const void *a, u64 n);
/* Of A followed by B, from the CRC of each and the length of B. */
CHOIR_PRIVATE u64 choirCrc64Join(u64 crcA, u64 crcB, u64 nB);
/* Lower-case hexadecimal of n bytes into z[2n+1]. */
CHOIR_PRIVATE void choirHex(const u8 *a, int n, char *z);
/* What a hexadecimal digit stands for, -1: it is none. */
CHOIR_PRIVATE int choirHexDigit(int c);

/* ----------------------------------------------------------------- id ---- */
CHOIR_PRIVATE i64 choirNow(void);       /* Unix milliseconds */
CHOIR_PRIVATE i64 choirMonotonic(void); /* milliseconds, arbitrary start */
CHOIR_PRIVATE i64 choirNanos(void);     /* nanoseconds, the same start */
/* The id of this process, another one after fork(): a system call the first
** time and not again. */
CHOIR_PRIVATE int choirPid(void);
/* The text of 16 bytes, in which it sets version and variant (RFC 9562). */
CHOIR_PRIVATE void choirUuid(u8 a[16], int iVersion, char z[37]);
CHOIR_PRIVATE void choirUuid4(char z[37]);
/* RFC 9562 version 7 (method 3): 48-bit milliseconds, 12 bits of a fraction
** of one, then random; sorts by time. */
CHOIR_PRIVATE void choirUuid7(char z[37]);

/* --------------------------------------------------------------- conn ----
** What one database connection owns. Referenced by every function and module
** registered on it and freed with the last of them; cached statements are
** finalized earlier, when the anchor table is disconnected, so that
** sqlite3_close() finds nothing left open.
*/
typedef struct ChoirStateType {
  const char *zName;
  u64 nByte;              /* size of the zeroed state */
  void (*xFree)(void *p); /* releases what it holds, not p itself */
} ChoirStateType;

typedef struct ChoirStmtSlot {
  const char *zSql;    /* address of a static string: the key */
  sqlite3_stmt *pStmt; /* NULL: free */
  u8 bBusy;            /* handed out */
} ChoirStmtSlot;

#define CHOIR_STMT_MAX 512

struct ChoirConn {
  sqlite3 *db;
  int nRef;
  u8 bReadonly;     /* loaded by sqlite3_choir_readonly_init */
  u8 bLocked;       /* choir_lock() was called */
  u8 bPrivate;      /* made by choirConnPrivate */
  u8 bAnchored;     /* the anchor table is connected: statements may be kept */
  u8 bAnchorFailed; /* something shadows it: keep no statements */
  ChoirStmtSlot *aStmt; /* CHOIR_STMT_MAX slots, allocated at first use */
  int nStmt;            /* slots in use */
  i64 nCall;            /* calls of functions that read, write, reach out */
  i64 nNanos;           /* nanoseconds they took */
  struct ChoirConfig *pConfig; /* core_config.c */
  struct ChoirState *pState;   /* list of room states */
  ChoirTxn *pTxn;              /* the innermost call that writes, or NULL */
  struct ChoirBind *pBind;     /* every registered function, list */
  const ChoirPart *apPart[16]; /* parts of a workspace, in room order */
  int nPart;
  sqlite3 *dbJson; /* core_json.c, made at first use */
  u8 bJsonShort;   /* memory ran out there during this call */
  char *zKept;     /* names another extension kept, comma separated, or NULL */
  /* The connection is being closed and still has its database. */
  void (*xClosing)(ChoirConn *);
  /* Registers everything on another connection (choir.c). */
  ChoirConn *(*xLoad)(sqlite3 *, ChoirErr *, int bReadonly);
};

CHOIR_PRIVATE ChoirConn *choirConnNew(sqlite3 *db, int bReadonly);
/* A database of choir's own, empty, with the statement helpers of a connection
** and nothing registered on it; its schema is main. It lives in memory, or with
** bSpill in a temporary file that SQLite writes when the page cache is full and
** deletes at the end. choirConnUnref() closes it. */
CHOIR_PRIVATE ChoirConn *choirConnPrivate(ChoirErr *pErr, int bSpill);
/* The same over a file of choir's own (a cache), made when it is missing. */
CHOIR_PRIVATE ChoirConn *choirConnFile(ChoirErr *pErr, const char *zFile);
/* A private one in memory with this connection's settings and secrets, for work
** during which no statement may run on it. */
CHOIR_PRIVATE ChoirConn *choirConnAgent(ChoirConn *, ChoirErr *);
/* Another connection to the workspace's file, with everything of choir on it
** and this one's settings and secrets, for a thread of its own. Closed by
** sqlite3_close(). */
CHOIR_PRIVATE sqlite3 *choirConnTwin(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE void choirConnRef(ChoirConn *pConn);
CHOIR_PRIVATE void choirConnUnref(void *pConn);
/* A room's own state on this connection, made zeroed at the first call. */
CHOIR_PRIVATE void *choirState(ChoirConn *pConn, ChoirErr *pErr,
                               const ChoirStateType *pType);
/* The workspace's schema, unquoted ("main" unless configured). */
CHOIR_PRIVATE const char *choirSchema(ChoirConn *pConn);
/* 1 when the host interrupted the connection (steps a cached SELECT 1). */
CHOIR_PRIVATE int choirInterrupted(ChoirConn *pConn);

/* --------------------------------------------------------------- stmt ----
** zSql is a string literal; `~.` in it stands for the workspace's schema
** (`~.artifacts` becomes "main".artifacts). choirStmt() keeps the statement
** for the next call; a recursive call gets one of its own. Always give it
** back by choirStmtDone(), which resets and unbinds (NULL is fine).
*/
CHOIR_PRIVATE sqlite3_stmt *choirStmt(ChoirConn *pConn, ChoirErr *pErr,
                                      const char *zSql);
CHOIR_PRIVATE void choirStmtDone(ChoirConn *pConn, sqlite3_stmt *pStmt);
CHOIR_PRIVATE void choirStmtFlush(ChoirConn *pConn);
/* Not kept: for SQL built at run time. The caller finalizes. */
CHOIR_PRIVATE sqlite3_stmt *choirPrepare(ChoirConn *pConn, ChoirErr *pErr,
                                         const char *zSql);
/* Runs every statement of formatted SQL (%w identifiers, %Q values, `~.`, which
** has no meaning in what is filled in). */
CHOIR_PRIVATE void choirExec(ChoirConn *pConn, ChoirErr *pErr, const char *zFmt,
                             ...);
/* The same for a given text of any length, not formatted. */
CHOIR_PRIVATE void choirExecText(ChoirConn *pConn, ChoirErr *pErr,
                                 const char *zSql);

/* Step: 1 when there is a row, 0 when done or failed. */
CHOIR_PRIVATE int choirStep(ChoirErr *pErr, sqlite3_stmt *pStmt);
/* n < 0: up to the NUL. NULL z binds NULL. Bytes are not copied: they must
** stay until choirStmtDone. */
CHOIR_PRIVATE void choirBindText(ChoirErr *, sqlite3_stmt *, int i,
                                 const char *z, i64 n);
CHOIR_PRIVATE void choirBindBlob(ChoirErr *, sqlite3_stmt *, int i,
                                 const void *a, i64 n);
CHOIR_PRIVATE void choirBindInt(ChoirErr *, sqlite3_stmt *, int i, i64 v);
CHOIR_PRIVATE void choirBindReal(ChoirErr *, sqlite3_stmt *, int i, double v);
CHOIR_PRIVATE void choirBindValue(ChoirErr *, sqlite3_stmt *, int i,
                                  sqlite3_value *v);
/* One number from one row; iDefault when there is none. Cached. */
CHOIR_PRIVATE i64 choirQueryInt(ChoirConn *, ChoirErr *, const char *zSql,
                                i64 iDefault);
/* Does schema.name exist in the workspace's schema (type table, view, index
** or trigger, or NULL for any)? */
CHOIR_PRIVATE int choirExists(ChoirConn *, ChoirErr *, const char *zType,
                              const char *zName);

/* Sticky error unless the call stands alone: no transaction, no statement of
** this connection that reads the workspace's schema. */
CHOIR_PRIVATE void choirNeedAlone(ChoirConn *, ChoirErr *);

/* A savepoint around the writes of one call. The end releases it, or rolls
** back when pErr is set, and restores the host's last_insert_rowid().
**
** Once SQLite itself has run out of memory, no statement runs any more on the
** connection until the host's own has ended, so a roll-back would come too
** late. Resetting a statement that is reading makes SQLite roll back by
** itself then: pGuard is one, kept on its first row. A DROP TABLE lets go of
** it, because SQLite refuses that while a statement reads. An interrupt stops
** every statement too, ROLLBACK TO as well: see stmtInterruptWrite. After an
** I/O error in a journal only ROLLBACK helps: pRollback, where the savepoint is
** the whole transaction. */
struct ChoirTxn {
  ChoirConn *pConn;
  ChoirTxn *pOuter;        /* the call around this one, or NULL */
  sqlite3_stmt *pGuard;    /* reading, or NULL */
  sqlite3_stmt *pRelease;  /* RELEASE, prepared in time */
  sqlite3_stmt *pUndo;     /* ROLLBACK TO */
  sqlite3_stmt *pRollback; /* ROLLBACK, or NULL in a transaction of the host */
  i64 iRowid;
  u8 bOpen;
};
CHOIR_PRIVATE void choirTxnBegin(ChoirTxn *pTxn, ChoirConn *pConn,
                                 ChoirErr *pErr);
CHOIR_PRIVATE void choirTxnEnd(ChoirTxn *pTxn, ChoirErr *pErr);

/* ----------------------------------------------------------- registry ----
** Every SQL function is a row of a room's table and has one signature in C:
** a ChoirCall. The registry adds what its class demands: the flags, the lock
** check, the savepoint, the error's name.
**
**   CHOIR_PURE      deterministic, touches nothing: DETERMINISTIC|INNOCUOUS
**   CHOIR_VOLATILE  clock or randomness: INNOCUOUS
**   CHOIR_READ      reads this database: DIRECTONLY
**   CHOIR_WRITE     writes this database, inside a savepoint that the
**                   registry opens: DIRECTONLY|DETERMINISTIC
**   CHOIR_SETTING   changes this connection's configuration: the same flags,
**                   no savepoint
**   CHOIR_EFFECT    network, files, process: the same flags, refused after
**                   choir_lock()
**
** DIRECTONLY alone does not hold: before SQLite 3.50.2 a CHECK constraint of a
** foreign file may call a DIRECTONLY function unless it is DETERMINISTIC too.
*/
enum {
  CHOIR_PURE = 1,
  CHOIR_VOLATILE,
  CHOIR_READ,
  CHOIR_WRITE,
  CHOIR_SETTING,
  CHOIR_EFFECT
};

enum {
  CHOIR_LOCAL = 1,   /* EFFECT that stays local when the connection is
                     ** read-only: registered there too, checks bReadonly */
  CHOIR_SUBTYPE = 2, /* reads or sets value subtypes */
  CHOIR_ALIAS = 4,   /* registered only where the name is still free */
  CHOIR_SHARED = 8,  /* another extension may hold the name: keep theirs when
                     ** SQLite refuses (BUSY), and report it in the doctor */
  CHOIR_INNER = 16   /* called for each row by a function of choir's: looking
                     ** at the clock would cost more than the call */
};

struct ChoirCall {
  ChoirConn *pConn;
  const ChoirFunc *pFunc;
  sqlite3_context *pCtx;
  int nArg;
  sqlite3_value **apArg;
  ChoirErr err; /* set: the call fails, its savepoint is rolled back */
};

struct ChoirFunc {
  const char *zName;
  int nMin, nMax; /* numbers of arguments accepted; nMax -1: any */
  int eClass;
  int mFlags;
  void (*xCall)(ChoirCall *);  /* scalar, or the aggregate's step */
  void (*xFinal)(ChoirCall *); /* aggregates only (nArg is 0) */
};

CHOIR_PRIVATE void choirRegisterFuncs(ChoirConn *, ChoirErr *,
                                      const ChoirFunc *, int n);
/* Of a static table, at load. */
#define choirFuncs(pConn, pErr, a)                                             \
  choirRegisterFuncs(pConn, pErr, a, (int)(sizeof(a) / sizeof(a[0])))

/* Arguments. zArg is the argument's name in messages. All sticky; text is
** valid UTF-8 without NUL, and belongs to the value. */
CHOIR_PRIVATE const char *choirArgText(ChoirErr *, sqlite3_value *,
                                       const char *zArg);
/* NULL value or NULL pointer gives NULL. */
CHOIR_PRIVATE const char *choirArgTextOrNull(ChoirErr *, sqlite3_value *,
                                             const char *zArg);
CHOIR_PRIVATE i64 choirArgInt(ChoirErr *, sqlite3_value *, const char *zArg,
                              i64 iMin, i64 iMax);
CHOIR_PRIVATE double choirArgReal(ChoirErr *, sqlite3_value *, const char *zArg,
                                  double rMin, double rMax);
/* Is z, of the host's own, one JSON value? By a kept statement on the host's
** connection; for the JSON of others see choirJsonValid. */
CHOIR_PRIVATE int choirIsJson(ChoirConn *, ChoirErr *, const char *z);
/* Valid JSON text. */
CHOIR_PRIVATE const char *choirArgJson(ChoirConn *, ChoirErr *, sqlite3_value *,
                                       const char *zArg);
CHOIR_PRIVATE const char *choirTypeName(sqlite3_value *);
/* Text result, copied. */
CHOIR_PRIVATE void choirResultText(ChoirCall *, const char *z);
/* "did you mean": the nearest of azName to z, or NULL. */
CHOIR_PRIVATE const char *choirNearest(const char *z, const char *const *azName,
                                       int nName);

/* ---------------------------------------------------------------- tvf ----
** An eponymous table-valued function. The room gives the declaration and
** xFilter; rows come from one of three places:
**   - cur->pStmt set by xFilter (choirStmt or choirPrepare): stepped, its
**     columns are the function's, given back at the end;
**   - rows added to cur->rows by choirRow…();
**   - the room's own xNext and xColumn (xFilter leaves the cursor on the first
**     row or sets bEof).
** A table-valued function never writes to a local database.
*/
struct ChoirRows {
  struct ChoirCell *aCell; /* nCol cells per row */
  int nCell, nAlloc;
};

#define CHOIR_ARGS 12 /* arguments of a table-valued function */

struct ChoirCursor {
  sqlite3_vtab_cursor base;
  ChoirConn *pConn;
  const ChoirTvf *pTvf;
  ChoirErr err;
  sqlite3_value *apArg[CHOIR_ARGS]; /* copies; NULL where absent */
  sqlite3_stmt *pStmt;              /* rows from SQL, or NULL */
  u8 bOwnStmt; /* pStmt came from choirPrepare: finalize it */
  u8 bEof;
  ChoirRows rows; /* rows from memory */
  i64 iRow;       /* 0-based */
  int iPlan;      /* what xPlan chose: see ChoirModule */
  const char *zPlan;
  int nValue; /* values that xPlan asked for, during xFilter only */
  sqlite3_value **apValue;
};

struct ChoirTvf {
  const char *zName;
  const char *zColumns; /* "path, name, dir HIDDEN, recursive HIDDEN" */
  int nCol;             /* visible columns; arguments follow them */
  int nMin, nMax;       /* arguments required, accepted; <= CHOIR_ARGS */
  int eClass;           /* READ or EFFECT or PURE */
  int mFlags;
  int nCursor; /* sizeof the cursor, ChoirCursor first; 0: just that */
  void (*xFilter)(ChoirCursor *);
  void (*xNext)(ChoirCursor *);                           /* or NULL */
  void (*xColumn)(ChoirCursor *, sqlite3_context *, int); /* or NULL */
  void (*xReset)(ChoirCursor *); /* before xFilter and at close, or NULL */
};

CHOIR_PRIVATE void choirRegisterTvfs(ChoirConn *, ChoirErr *, const ChoirTvf *,
                                     int n);
#define choirTvfs(pConn, pErr, a)                                              \
  choirRegisterTvfs(pConn, pErr, a, (int)(sizeof(a) / sizeof(a[0])))
CHOIR_PRIVATE void choirRowText(ChoirCursor *, const char *z); /* NULL: null */
CHOIR_PRIVATE void choirRowInt(ChoirCursor *, i64 v);
CHOIR_PRIVATE void choirRowReal(ChoirCursor *, double v);
/* The rows as a JSON array of objects with these nCol keys. */
CHOIR_PRIVATE void choirRowsJson(const ChoirCursor *, ChoirBuf *,
                                 const char *const *azKey, int nCol);
CHOIR_PRIVATE void choirRowsFree(ChoirCursor *);

/* -------------------------------------------------------------- table ----
** A table whose rows live elsewhere (objects, points, a remote database):
**
**   CREATE VIRTUAL TABLE temp.name USING module(argument, …)
**
** in TEMP and nowhere else, so that no file ever names it. When tvf.zColumns
** is given the module is a table-valued function too, read-only there. The
** table's columns come from xOpen. Everything of ChoirTvf holds, and:
**
**   xOpen   reads the arguments (unquoted) and writes the columns, as in
**           CREATE TABLE; NULL: a table-valued function and nothing else, but
**           one that plans
**   xClose  releases what xOpen made
**   xPlan   xBestIndex for all columns but the arguments of the function, whose
**           values are asked for already: those that it asks for get argvIndex
**           from *pnValue + 1 on (count them there) and are the cursor's
**           apValue; *piPlan and pInfo->idxStr are its iPlan and zPlan. For a
**           plan that is impossible: choirErrSet(pErr, SQLITE_CONSTRAINT, "")
**   xWrite  xUpdate (sqlite.org/vtab.html): apValue and *piRowid are the same
**   xSync, xRollback   before the host's transaction commits, after it was
**           rolled back: for writes that xWrite keeps to send together
*/
struct ChoirTable {
  sqlite3_vtab base;
  struct VtabBind *pBind;
  ChoirConn *pConn;
  const ChoirModule *pModule; /* NULL: a plain ChoirTvf */
  const ChoirTvf *pTvf;
  int nCol;    /* visible columns; xOpen says how many of a created table */
  u8 bCreated; /* by CREATE VIRTUAL TABLE; 0: as a table-valued function */
};

struct ChoirModule {
  ChoirTvf tvf;
  int nTable; /* sizeof the table, ChoirTable first; 0: just that */
  u8 bKeyed;  /* WITHOUT ROWID: rows are told apart by their PRIMARY KEY */
  void (*xOpen)(ChoirTable *, ChoirErr *, int nArg, char **azArg,
                ChoirBuf *pColumns);
  void (*xClose)(ChoirTable *);
  void (*xPlan)(ChoirTable *, ChoirErr *, sqlite3_index_info *pInfo,
                int *pnValue, int *piPlan);
  i64 (*xRowid)(ChoirCursor *); /* NULL: the row's number from 1 */
  void (*xWrite)(ChoirTable *, ChoirErr *, int nValue, sqlite3_value **apValue,
                 i64 *piRowid); /* NULL: read-only */
  void (*xSync)(ChoirTable *, ChoirErr *);
  void (*xRollback)(ChoirTable *);
  /* With xSync: a savepoint (also that of a statement) begins, or with bBack
  ** the writes since then are undone. NULL: they cannot be. */
  void (*xSavepoint)(ChoirTable *, ChoirErr *, int iSavepoint, int bBack);
};

CHOIR_PRIVATE void choirRegisterModule(ChoirConn *, ChoirErr *,
                                       const ChoirModule *);
/* Strips one pair of quotes ('…' "…" `…` […]) and the space around, in
** place. */
CHOIR_PRIVATE char *choirUnquote(char *z);

/* ------------------------------------------------------------- config ----
** One table of every key in core_config.c: its default, environment names and
** meaning. Order: choir_config(), environment, config file, default.
*/
CHOIR_PRIVATE const char *choirConfig(ChoirConn *, const char *zKey);
/* The same without choir_config(): what was fixed before any SQL ran. */
CHOIR_PRIVATE const char *choirConfigFixed(ChoirConn *, const char *zKey);
/* zKey as a number; the default when unset or not one. */
CHOIR_PRIVATE i64 choirConfigInt(ChoirConn *, const char *zKey, i64 iDefault);
/* What choir_config(key, value) does; NULL: back to the default. */
CHOIR_PRIVATE void choirConfigSet(ChoirConn *, ChoirErr *, const char *zKey,
                                  const char *zValue);
/* Is z fit to be one part of a key or a subject: letters, digits, '.', '_' and
** '-', not beginning with '.', at most 128 bytes? */
CHOIR_PRIVATE int choirNameFits(const char *z);
/* The configured user, fit as above; sticky when unset or not fit. */
CHOIR_PRIVATE const char *choirUser(ChoirConn *, ChoirErr *);
/* Called with the new value (NULL: back to the default) before it is kept. */
CHOIR_PRIVATE void choirConfigHook(ChoirConn *, const char *zKey,
                                   void (*x)(ChoirConn *, ChoirErr *,
                                             const char *zValue));
/* $XDG_STATE_HOME/choir or ~/.local/state/choir; caller frees. */
CHOIR_PRIVATE char *choirStateDir(ChoirErr *);
/* $XDG_CACHE_HOME/choir or ~/.cache/choir: what may be lost; caller frees. */
CHOIR_PRIVATE char *choirCacheDir(ChoirErr *);
/* Makes the folders that zFile is to lie in, for this user alone. */
CHOIR_PRIVATE void choirStateFolder(ChoirErr *, const char *zFile);

/* --------------------------------------------------------------- json ----
** A private :memory: connection for JSON that came from elsewhere (replies,
** secrets): the host's hooks never see it.
**
** Where memory runs out, SQLite gives NULL for a text that it could not make.
** On this connection that is told as NOMEM by the next choirJson…() or at the
** end of the call, whatever was made of it meanwhile; on the host's SQLite sees
** to it. And json_valid() gives 0 then: SQL asks it twice, `json_valid(x) OR
** json_valid(x)`, and the second says NOMEM or what is true (+x of a constant,
** which would be evaluated once).
*/
/* Was memory short on the private connection? Then the error is NOMEM,
** whatever it was. Every function and every method of a table ends with it. */
CHOIR_PRIVATE void choirJsonMemory(ChoirConn *, ChoirErr *);
/* zSql prepared there with ?1 bound to zJson, not copied (nJson < 0: up to the
** NUL). The caller finalizes. */
CHOIR_PRIVATE sqlite3_stmt *choirJsonStmt(ChoirConn *, ChoirErr *,
                                          const char *zSql, const char *zJson,
                                          i64 nJson);
/* The same for JSON of strangers: ?1 is NULL unless zJson is JSON and UTF-8. */
CHOIR_PRIVATE sqlite3_stmt *choirJsonReply(ChoirConn *, ChoirErr *,
                                           const char *zSql, const char *zJson,
                                           i64 nJson);
/* Is it JSON, by SQLite's strict parser? */
CHOIR_PRIVATE int choirJsonValid(ChoirConn *, ChoirErr *, const char *zJson,
                                 i64 nJson);
/* The value at zPath as text, objects and arrays as JSON; caller frees. NULL
** when it is absent or null; an error when zJson is not JSON. */
CHOIR_PRIVATE char *choirJsonText(ChoirConn *, ChoirErr *, const char *zJson,
                                  i64 nJson, const char *zPath);

/* ---------------------------------------------------------------- lib ----
** A library that is opened when it is first needed, never linked. Its
** functions are called through a struct of pointers, one per symbol, in the
** order of azSymbol:
**
**   #define LZ4_FUNCTIONS(X) X(compress_default) X(decompress_safe)
**   typedef struct Lz4 {
**   #define X(name) __typeof__(&LZ4_##name) name;
**     LZ4_FUNCTIONS(X)
**   #undef X
**   } Lz4;
*/
typedef struct ChoirLib {
  const char *const *azFile;   /* names to try, NULL at the end */
  const char *const *azSymbol; /* NULL at the end */
  const char *zInstall;        /* for the error: "liblz4-1, 1.9 or newer" */
} ChoirLib;

/* Fills the struct at pTable. The library stays open. */
CHOIR_PRIVATE void choirLibOpen(ChoirErr *, const ChoirLib *, void *pTable);

/* ------------------------------------------------------------- secret ----
** Credentials of this connection, by the scope that covers a URL. Pointers
** stay good until the next choir_secret(); choirSecretGeneration() changes
** with it.
*/
/* Of this type, with the longest scope that covers zUrl, or NULL. */
CHOIR_PRIVATE const ChoirSecret *
choirSecretFor(ChoirConn *, ChoirErr *, const char *zType, const char *zUrl);
/* Of this type and name, or NULL. */
CHOIR_PRIVATE const ChoirSecret *
choirSecretNamed(ChoirConn *, ChoirErr *, const char *zType, const char *zName);
/* A field's value (provider env: the variable's), NULL when absent. */
CHOIR_PRIVATE const char *choirSecretGet(const ChoirSecret *, const char *zKey);
/* Field i, {"a":{"b":1}} being a.b; 0 past the last. */
CHOIR_PRIVATE int choirSecretNth(const ChoirSecret *, int i, const char **pzKey,
                                 const char **pzValue);
CHOIR_PRIVATE const char *choirSecretName(const ChoirSecret *);
CHOIR_PRIVATE i64 choirSecretGeneration(ChoirConn *, ChoirErr *);
/* Overwrite before freeing; not optimised away. */
CHOIR_PRIVATE void choirWipe(void *p, u64 n);
CHOIR_PRIVATE void choirWipeFree(char *z);

/* --------------------------------------------------------------- work ----
** A workspace is made of parts, one per room that owns something in the file.
** choir_init() runs every xInstall in room order inside one savepoint after
** the migrations; the others report. Every method may be NULL.
*/
struct ChoirPart {
  const char *zName;
  void (*xInstall)(ChoirConn *, ChoirErr *);   /* idempotent: make or repair */
  void (*xUninstall)(ChoirConn *, ChoirErr *); /* keep the user's own tables */
  /* A row per problem found: choirRowText(cur, what is wrong). */
  void (*xCheck)(ChoirConn *, ChoirErr *, ChoirCursor *);
  /* Rows of check, status (ok|warn|fail), detail, remedy. */
  void (*xDoctor)(ChoirConn *, ChoirErr *, ChoirCursor *);
  /* Rows of name, value, unit. */
  void (*xMetrics)(ChoirConn *, ChoirErr *, ChoirCursor *);
  /* Writes what was put off, if anything, before the file is copied to somewhere
  ** else. What cannot be written now must not keep it from being copied. */
  void (*xSettle)(ChoirConn *, ChoirErr *);
};

typedef struct ChoirMigration {
  int iVersion;                /* 1, 2, …: NNNN of sql/NNNN_name.sql */
  const char *zName;           /* "store" */
  const char *zSha256;         /* of the file, hexadecimal */
  const char *const *azSql;    /* statements with `~.`, NULL at the end */
  const char *const *azObject; /* names it creates, NULL at the end */
} ChoirMigration;

CHOIR_PRIVATE void choirPartAdd(ChoirConn *, const ChoirPart *);
/* Every xSettle. */
CHOIR_PRIVATE void choirPartsSettle(ChoirConn *, ChoirErr *);
/* Fails with `no workspace in schema main; run select choir_init()`. */
CHOIR_PRIVATE void choirNeedWorkspace(ChoirConn *, ChoirErr *);
/* 1 when the workspace exists in the configured schema. */
CHOIR_PRIVATE int choirHasWorkspace(ChoirConn *, ChoirErr *);
/* A value of _choir_meta (caller frees), NULL when absent. */
CHOIR_PRIVATE char *choirMetaGet(ChoirConn *, ChoirErr *, const char *zKey);
CHOIR_PRIVATE void choirMetaSet(ChoirConn *, ChoirErr *, const char *zKey,
                                const char *zValue);

/* Generated at build: sql/ and the doc blocks. */
typedef struct ChoirHelp {
  const char *zName, *zKind, *zRoom, *zRisk, *zSignature, *zSummary, *zExample;
  int bReadonly; /* registered by sqlite3_choir_readonly_init too */
} ChoirHelp;
#ifndef CHOIR_AMALGAMATION
extern CHOIR_PRIVATE const ChoirMigration choirMigrations[];
extern CHOIR_PRIVATE const int choirMigrationCount;
extern CHOIR_PRIVATE const ChoirHelp choirHelp[];
extern CHOIR_PRIVATE const int choirHelpCount;
#endif

CHOIR_PRIVATE CHOIR_COLD void choirCoreRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_CORE_H */
