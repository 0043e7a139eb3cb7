/* SPDX-License-Identifier: MIT */
/*
** object: named byte strings somewhere else, behind one interface.
**
**   store     open, head, get, put, delete, list   object.c
**   file      the file:// backend, private files   object_file.c
**   s3        the s3:// backend                     object_s3.c, object_s3.h
**   presign   presigned URLs, given or minted       object_presign.c
**   sql       s3_get, s3_put, s3_copy, …            object_sql.c
**   blob      s3_list and s3_blob: stores as tables object_blob.c
**   probe     s3_probe: what a store really does    object_probe.c
**   artifact  artifact_flush, _fetch, _sweep, …     object_artifact.c
**
** A store is opened by URL: everything up to the last '/' is its root, what
** follows is zKey (empty when the URL ends in '/'). Keys are relative to the
** root, parts separated by '/', already percent-decoded; a part may not be
** empty, "." or "..", nor begin with ".choir-" (the backend's own files).
**
** What may fail: every function takes the sticky ChoirErr; "not there" and
** "somebody was faster" are not errors but outcomes.
*/
#ifndef CHOIR_OBJECT_H
#define CHOIR_OBJECT_H

#include "../core/core.h"

/* --------------------------------------------------------------- store ---- */

/* Outcomes. */
enum {
  CHOIR_OBJECT_OK = 0,
  CHOIR_OBJECT_ABSENT,  /* no such object */
  CHOIR_OBJECT_CHANGED, /* the condition of a put or delete does not hold */
  CHOIR_OBJECT_FAILED   /* the ChoirErr is set */
};

/* Conditions of a put. */
enum { CHOIR_IF_ANY = 0, CHOIR_IF_ABSENT, CHOIR_IF_MATCH };

typedef struct ChoirObject ChoirObject;

typedef struct ChoirObjectMeta {
  u64 nByte;
  i64 iModified;  /* Unix milliseconds */
  char zEtag[96]; /* opaque: equal while the object is the same write */
} ChoirObjectMeta;

/* Receives the bytes of a get, in order. */
typedef void (*ChoirObjectWrite)(void *pArg, ChoirErr *, const void *a, u64 n);
/* Receives one listed object. */
typedef void (*ChoirObjectEach)(void *pArg, ChoirErr *, const char *zKey,
                                const ChoirObjectMeta *);

/* The bytes of a put: any range of them, at any time, more than once. */
typedef struct ChoirObjectSource {
  u64 nByte;
  void (*xRead)(void *pArg, ChoirErr *, u64 iOff, void *a, u64 n);
  void *pArg;
} ChoirObjectSource;

/* What a listing gives: the first nMax (0: all) of the keys that begin with
** zPrefix, from zFrom (NULL: the first) on, without zFrom itself when bAfter. */
typedef struct ChoirObjectRange {
  const char *zPrefix;
  const char *zFrom;
  u8 bAfter;
  i64 nMax;
} ChoirObjectRange;

typedef struct ChoirObjectMethods {
  int (*xHead)(ChoirObject *, ChoirErr *, const char *zKey, ChoirObjectMeta *);
  /* Bytes [iOff, iOff+nByte) as far as they exist; nByte < 0: to the end. */
  int (*xGet)(ChoirObject *, ChoirErr *, const char *zKey, i64 iOff, i64 nByte,
              ChoirObjectMeta *, ChoirObjectWrite, void *pArg);
  /* All or nothing, durable on return; pNew describes what was written. */
  int (*xPut)(ChoirObject *, ChoirErr *, const char *zKey,
              const ChoirObjectSource *, int eIf, const char *zEtag,
              ChoirObjectMeta *pNew);
  /* zEtag NULL: whatever it is. */
  int (*xDelete)(ChoirObject *, ChoirErr *, const char *zKey,
                 const char *zEtag);
  /* In the byte order of keys. */
  int (*xList)(ChoirObject *, ChoirErr *, const ChoirObjectRange *,
               ChoirObjectEach, void *pArg);
  /* Removes what puts of keys that begin with zPrefix left behind, if it
  ** is of iBefore (Unix milliseconds) or older; how many. */
  i64 (*xSweep)(ChoirObject *, ChoirErr *, const char *zPrefix, i64 iBefore);
  /* Has the store copy by itself, whatever is at zTo, between two stores of this
  ** backend: 0 when it does not, for whatever reason. */
  int (*xCopy)(ChoirObject *pFrom, ChoirErr *, const char *zFrom,
               ChoirObject *pTo, const char *zTo, ChoirObjectMeta *pNew);
  void (*xClose)(ChoirObject *);
} ChoirObjectMethods;

struct ChoirObject {
  const ChoirObjectMethods *pMethods;
  ChoirConn *pConn;
  char *zUrl;        /* as given, for messages */
  char *zKey;        /* the URL's last part, decoded; "" when it ends in '/' */
  const char *zType; /* what is put is of this media type; NULL: not said */
  u8 bHidden;    /* the last ABSENT may as well be an object that must not be
              ** read: the store does not tell those apart */
  u8 bForbidden; /* the last AUTH was about what is asked for, not who asks */
};

/* Sticky when the URL holds credentials: to be asked before anything quotes it
** in a message. */
CHOIR_PRIVATE void choirObjectUrlCheck(ChoirErr *, const char *zUrl);
/* NULL and sticky when the URL is not one a backend knows. */
CHOIR_PRIVATE ChoirObject *choirObjectOpen(ChoirConn *, ChoirErr *,
                                           const char *zUrl);
CHOIR_PRIVATE void choirObjectClose(ChoirObject *);
CHOIR_PRIVATE int choirObjectHead(ChoirObject *, ChoirErr *, const char *zKey,
                                  ChoirObjectMeta *);
CHOIR_PRIVATE int choirObjectGet(ChoirObject *, ChoirErr *, const char *zKey,
                                 i64 iOff, i64 nByte, ChoirObjectMeta *,
                                 ChoirObjectWrite, void *pArg);
CHOIR_PRIVATE int choirObjectPut(ChoirObject *, ChoirErr *, const char *zKey,
                                 const ChoirObjectSource *, int eIf,
                                 const char *zEtag, ChoirObjectMeta *pNew);
CHOIR_PRIVATE int choirObjectDelete(ChoirObject *, ChoirErr *, const char *zKey,
                                    const char *zEtag);
/* Every key that begins with zPrefix. */
CHOIR_PRIVATE int choirObjectList(ChoirObject *, ChoirErr *,
                                  const char *zPrefix, ChoirObjectEach,
                                  void *pArg);
/* A ChoirObjectWrite that appends to the ChoirBuf pArg. */
CHOIR_PRIVATE void choirObjectToBuf(void *pArg, ChoirErr *, const void *a,
                                    u64 n);
CHOIR_PRIVATE int choirObjectListRange(ChoirObject *, ChoirErr *,
                                       const ChoirObjectRange *,
                                       ChoirObjectEach, void *pArg);
/* By the store itself where it can, without a condition; otherwise the bytes
** pass through this process, by way of a file without a name. OK, ABSENT, or
** CHANGED when eIf is CHOIR_IF_ABSENT and there is one already. */
CHOIR_PRIVATE int choirObjectCopy(ChoirObject *pFrom, ChoirErr *,
                                  const char *zFrom, ChoirObject *pTo,
                                  const char *zTo, int eIf,
                                  ChoirObjectMeta *pNew);
/* Unfinished uploads and temporary files of keys that begin with zPrefix, those
** of iBefore or older, removed; how many. */
CHOIR_PRIVATE i64 choirObjectSweepUploads(ChoirObject *, ChoirErr *,
                                          const char *zPrefix, i64 iBefore);
/* A ChoirObjectWrite into the ChoirObjectFd pArg, and an xRead out of it. */
typedef struct ChoirObjectFd {
  int fd;
  const char *zFor; /* in messages, NULL: a temporary file */
  u64 n;            /* bytes written */
} ChoirObjectFd;
CHOIR_PRIVATE void choirObjectToFd(void *pArg, ChoirErr *, const void *a,
                                   u64 n);
CHOIR_PRIVATE void choirObjectFromFd(void *pArg, ChoirErr *, u64 iOff, void *a,
                                     u64 n);
/* The bytes of a BLOB or TEXT value, which stays; sticky for another type. */
CHOIR_PRIVATE ChoirObjectSource choirObjectOfValue(ChoirErr *, sqlite3_value *);
/* Those of zText, which stays. */
CHOIR_PRIVATE ChoirObjectSource choirObjectOfText(const char *zText);
/* Sticky error unless zKey is a key as described above. */
CHOIR_PRIVATE void choirObjectKeyCheck(ChoirErr *, const char *zKey);

/* ---------------------------------------------------------------- file ---- */

/* Opens the folder of a file:// URL; object.c calls it. */
CHOIR_PRIVATE ChoirObject *choirFileOpen(ChoirConn *, ChoirErr *,
                                         const char *zUrl);

/* A file that appears under its name complete or not at all: written to a
** private name (O_EXCL, 0600) in the folder it is for, then published. */
typedef struct ChoirTemp {
  int fdDir;         /* the folder; borrowed, unless zLast is set */
  int fd;            /* open for reading and writing, -1: none */
  const char *zLast; /* of choirTempBeside: the last part of its path */
  char zName[40];
} ChoirTemp;

/* For the path zFile of a user, which stays: opens its folder and removes what
** processes that were killed left there. */
CHOIR_PRIVATE void choirTempBeside(ChoirTemp *, ChoirErr *, const char *zFile);
/* Sticky when zName in the folder is a file of a database that is open on this
** connection, or would be taken for one. */
CHOIR_PRIVATE void choirFileNotOwn(ChoirErr *, ChoirConn *, int fdDir,
                                   const char *zName, const char *zShow);
/* zFor is the file's name in messages. */
CHOIR_PRIVATE void choirTempOpen(ChoirTemp *, ChoirErr *, int fdDir,
                                 const char *zFor);
/* fsync, then give it its name, over whatever has it or only when nothing does
** (OK or CHANGED); then fsync the folder. */
CHOIR_PRIVATE int choirTempPublish(ChoirTemp *, ChoirErr *, const char *zName,
                                   int bReplace);
/* Close, and remove what was not published. */
CHOIR_PRIVATE void choirTempClose(ChoirTemp *);
/* A file without a name in the folder for temporary files, 0600; gone when
** closed. -1 and sticky on failure. */
CHOIR_PRIVATE int choirTempAnonymous(ChoirErr *);
/* Writes all of it at iOff, to a file that is zFor in messages. */
CHOIR_PRIVATE void choirFileWrite(ChoirErr *, int fd, const char *zFor,
                                  u64 iOff, const void *a, u64 n);
/* The same to a temporary file; reads exactly n bytes from iOff. */
CHOIR_PRIVATE void choirFdWrite(ChoirErr *, int fd, u64 iOff, const void *a,
                                u64 n);
CHOIR_PRIVATE void choirFdRead(ChoirErr *, int fd, u64 iOff, void *a, u64 n);
/* `cannot <zDo> '<zWhat>': <reason>` with the code that errno stands for. */
CHOIR_PRIVATE void choirErrno(ChoirErr *, int iErrno, const char *zDo,
                              const char *zWhat);

/* ------------------------------------------------------------------ s3 ---- */

/* Opens a bucket and folder; object.c calls it. */
CHOIR_PRIVATE ChoirObject *choirS3Open(ChoirConn *, ChoirErr *,
                                       const char *zUrl);
/* Opens an http:// or https:// URL for one object; object.c calls it. */
CHOIR_PRIVATE ChoirObject *choirUrlOpen(ChoirConn *, ChoirErr *,
                                        const char *zUrl);
/* A URL that does one thing without credentials; caller frees. */
CHOIR_PRIVATE char *choirS3Presign(ChoirConn *, ChoirErr *, const char *zMethod,
                                   const char *zUrl, i64 nSeconds);

/* ------------------------------------------------------------ artifact ---- */

typedef struct ChoirArtifactFlushed {
  int nMoved, nLeft;
  i64 nByte;
} ChoirArtifactFlushed;

/* Moves large content out of the workspace; no place configured is an error
** only when bMust. */
CHOIR_PRIVATE void choirArtifactFlush(ChoirConn *, ChoirErr *, int bMust,
                                      ChoirArtifactFlushed *);
CHOIR_PRIVATE CHOIR_COLD void choirObjectArtifactRegister(ChoirConn *,
                                                          ChoirErr *);

CHOIR_PRIVATE CHOIR_COLD void choirObjectBlobRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirObjectProbeRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirObjectRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_OBJECT_H */
