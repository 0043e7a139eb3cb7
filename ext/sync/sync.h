/* SPDX-License-Identifier: MIT */
/*
** sync: one workspace on several devices, through one object.
**
**   position   where a file stands in its history     sync_position.c
**   spool      a private file as an SQLite database   sync_spool.c
**   snapshot   a consistent copy of a live database   sync_snapshot.c
**   remote     fetch, verify and know the remote      sync_remote.c
**   backup     choir_backup(), copies kept by a pull  sync_backup.c
**   run        what every sync call begins with       sync.c
**   push       sync_push()                            sync_push.c
**   pull       sync_pull()                            sync_pull.c
**   sync       sync_status, sync_verify, the part     sync.c
**
** docs/formats.md has the bytes and the protocol.
*/
#ifndef CHOIR_SYNC_H
#define CHOIR_SYNC_H

#include "../core/core.h"
#include "../object/object.h"

/* ------------------------------------------------------------ position ---- */

#define CHOIR_SYNC_ID 16   /* bytes of a push id */
#define CHOIR_SYNC_FACTS 4 /* facts in a seal */
#define CHOIR_SYNC_SEAL (32 + 32 * CHOIR_SYNC_FACTS)

/* Where a file stands. The seal: digest of the version `head`, then facts,
** each 16 bytes "hash of URL and etag" and 16 bytes "push id found there". */
typedef struct ChoirPosition {
  u8 bWorkspace; /* the sync tables exist */
  u8 bHead;      /* has a version: was pushed or pulled once */
  char zLineage[2 * CHOIR_SYNC_ID + 1]; /* hexadecimal, lower case */
  u8 aHead[CHOIR_SYNC_ID];
  i64 iTxid;
  i64 iTime;   /* when head was made, Unix milliseconds; 0 unknown */
  int iFormat; /* format of the workspace */
  u32 iRoot;   /* root page of the seal's table */
  u8 aSeal[CHOIR_SYNC_SEAL];
} ChoirPosition;

/* Reads zSchema of any connection. Not an error when there is no workspace. */
CHOIR_PRIVATE void choirPositionRead(ChoirErr *, sqlite3 *, const char *zSchema,
                                     ChoirPosition *);
/* Is aId the head of, or in the history of, zSchema? */
CHOIR_PRIVATE int choirPositionKnows(ChoirErr *, sqlite3 *, const char *zSchema,
                                     const u8 *aId);
/* Makes a new version of the host's file: head, history, sync_state and the
** action log in one transaction. bFork: under a new lineage. */
CHOIR_PRIVATE void choirPositionAdvance(ChoirConn *, ChoirErr *,
                                        ChoirPosition *, int bFork);
/* Writes the seal, provided that head is still the same. */
CHOIR_PRIVATE void choirPositionSeal(ChoirConn *, ChoirErr *,
                                     const ChoirPosition *);
CHOIR_PRIVATE int choirSealHasDigest(const ChoirPosition *);
/* Fact: at zUrl with zEtag is version aId. Lookup gives it or NULL. */
CHOIR_PRIVATE void choirSealLearn(u8 *aSeal, const char *zUrl,
                                  const char *zEtag, const u8 *aId);
CHOIR_PRIVATE const u8 *choirSealKnown(const u8 *aSeal, const char *zUrl,
                                       const char *zEtag);
/* Offset of the seal's bytes in its root page, 0 when it is not there. */
CHOIR_PRIVATE int choirSealFind(const u8 *aPage, int szPage);

/* --------------------------------------------------------------- spool ----
** A file that only this process can see, read and written through a VFS of
** its own: nothing is ever opened by name.
*/
typedef struct ChoirSpool ChoirSpool;

/* What is done with the seal in the copy. */
enum {
  CHOIR_SEAL_KEEP = 0, /* as it is: a faithful copy */
  CHOIR_SEAL_ZERO      /* zeroed: a version, sealed at the end */
};

/* fd: where the bytes go or are (not closed by the spool), -1: only the digest
** is wanted. nByte: how many there are, 0 for a sink. */
CHOIR_PRIVATE ChoirSpool *choirSpoolNew(ChoirErr *, int fd, u64 nByte);
CHOIR_PRIVATE void choirSpoolFree(ChoirSpool *);
/* A connection that writes the spool (pages ascending), or reads it. */
CHOIR_PRIVATE sqlite3 *choirSpoolOpen(ChoirErr *, ChoirSpool *, int bSink);
/* What PRAGMA quick_check finds wrong, caller frees; NULL: nothing. */
CHOIR_PRIVATE char *choirSpoolProblem(ChoirErr *, sqlite3 *);
CHOIR_PRIVATE void choirSpoolSealAt(ChoirSpool *, u32 iRoot);
/* After the sink's connection is closed: the digest, the last bytes. */
CHOIR_PRIVATE void choirSpoolFinish(ChoirErr *, ChoirSpool *, u8 aDigest[32]);
CHOIR_PRIVATE u64 choirSpoolSize(const ChoirSpool *);
CHOIR_PRIVATE int choirSpoolPageSize(const ChoirSpool *);
/* Where the seal's bytes are in the file, 0: nowhere. */
CHOIR_PRIVATE u64 choirSpoolSeal(const ChoirSpool *);

/* ------------------------------------------------------------ snapshot ---- */

/* Copies the workspace's schema into the spool through a connection of its own
** (no checkpoint, no raw access), reads pPos (or NULL) from the same state,
** and gives the digest of the copy. */
CHOIR_PRIVATE void choirSnapshot(ChoirConn *, ChoirErr *, ChoirSpool *,
                                 int eSeal, ChoirPosition *pPos,
                                 u8 aDigest[32]);
/* The digest alone: is the file still the version its seal names? */
CHOIR_PRIVATE int choirSnapshotChanged(ChoirConn *, ChoirErr *,
                                       const u8 aDigest[32]);

/* -------------------------------------------------------------- remote ---- */

typedef struct ChoirRemote {
  ChoirObject *pStore;
  const char *zUrl; /* belongs to pStore */
  int eHead;        /* CHOIR_OBJECT_OK or _ABSENT, after choirRemoteLook */
  ChoirObjectMeta meta;
  int fd;      /* the fetched file, -1: not fetched */
  sqlite3 *db; /* it as a database, without choir, or NULL */
  ChoirSpool *pSpool;
  ChoirPosition pos; /* of the fetched file */
  u8 bSealed;        /* its seal matches its bytes */
  u8 aDigest[32];    /* of its bytes as a version */
} ChoirRemote;

/* zUrl NULL: the configured one. */
CHOIR_PRIVATE void choirRemoteOpen(ChoirConn *, ChoirErr *, ChoirRemote *,
                                   const char *zUrl);
CHOIR_PRIVATE void choirRemoteClose(ChoirRemote *);
/* What is there now: eHead, meta. */
CHOIR_PRIVATE void choirRemoteLook(ChoirErr *, ChoirRemote *);
/* Downloads and verifies it. bForeign: a seal that does not match its bytes is
** reported in bSealed instead of as an error. */
CHOIR_PRIVATE void choirRemoteFetch(ChoirConn *, ChoirErr *, ChoirRemote *,
                                    int bForeign);
/* Gives the fetched file this seal and opens it afresh. */
CHOIR_PRIVATE void choirRemoteReseal(ChoirErr *, ChoirRemote *,
                                     const u8 *aSeal);

/* -------------------------------------------------------------- backup ---- */

typedef struct ChoirBackup {
  u64 nByte;
  i64 nPage;
  char zSha256[65];
} ChoirBackup;

/* A verified copy in a new file; an existing one is never touched. */
CHOIR_PRIVATE void choirBackupTo(ChoirConn *, ChoirErr *, const char *zFile,
                                 ChoirBackup *);
/* A copy of what a pull is about to replace, in the state folder; the path,
** caller frees. */
CHOIR_PRIVATE char *choirBackupKeep(ChoirConn *, ChoirErr *,
                                    const ChoirPosition *);
CHOIR_PRIVATE void choirBackupRegister(ChoirConn *, ChoirErr *);

/* ----------------------------------------------------------------- run ----
** One call: this file's position, the remote, and what is known of it.
*/
typedef struct ChoirSyncRun {
  ChoirConn *pConn;
  ChoirErr *pErr;
  i64 iStart;
  const char *zMode;  /* NULL or the word given */
  ChoirPosition here; /* this file */
  ChoirRemote there;
  u8 aThere[CHOIR_SYNC_ID]; /* the version at the remote, when bThere */
  u8 bThere;                /* the remote holds a version */
  u8 bFetched;              /* there.pos and there.db are valid */
} ChoirSyncRun;

/* Arguments [remote[, mode]], the rules of place, position and a look at the
** remote. zMode: the one mode that is allowed. */
CHOIR_PRIVATE void choirSyncBegin(ChoirSyncRun *, ChoirCall *,
                                  const char *zMode);
/* Which version is at the remote? From a fact, or by fetching it. */
CHOIR_PRIVATE void choirSyncIdentify(ChoirSyncRun *, int bForeign);
CHOIR_PRIVATE void choirSyncEnd(ChoirSyncRun *);
/* Is this file's content still that of its head? Reads the whole file. */
CHOIR_PRIVATE int choirSyncChanged(ChoirSyncRun *);
/* `<url> is at version 7 of 2026-01-02T03:04:05Z and this file at 6` */
CHOIR_PRIVATE char *choirSyncWhere(ChoirSyncRun *);
/* The result: {"<zVerb>":n,"version":…,"txid":…,"bytes":…,["saved":…,]"ms":…}
 */
CHOIR_PRIVATE void choirSyncResult(ChoirSyncRun *, ChoirCall *,
                                   const char *zVerb, int n, u64 nByte,
                                   const char *zSaved);
/* 1: zSchema holds nothing of a user's: no object choir does not make, and no
** row in those it makes. */
CHOIR_PRIVATE int choirSyncIsEmpty(ChoirConn *, ChoirErr *);

CHOIR_PRIVATE void choirPushRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE void choirPullRegister(ChoirConn *, ChoirErr *);

/* ---------------------------------------------------------------- sync ---- */

CHOIR_PRIVATE void choirSyncRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_SYNC_H */
