/* SPDX-License-Identifier: MIT */
/*
** sync: one workspace on several devices, through one object or a folder.
**
**   position   where a file stands in its history     sync_position.c
**   pages      page hashes and their cache            sync_pages.c
**   spool      a private file as an SQLite database   sync_spool.c
**   wal        frames of a live WAL                   sync_wal.c
**   live       a live database, page by page          sync_live.c
**   snapshot   a copy of a live database, or the      sync_snapshot.c
**              pages that changed
**   ltx        files of pages                         sync_ltx.c
**   remote     fetch, verify and know the remote      sync_remote.c
**   folder     a remote of LTX files                  sync_folder.c
**   crypt      its objects, encrypted                 sync_crypt.c
**   key        keys and the cipher                    sync_key.c
**   delta      sync_push() to a folder                sync_delta.c
**   version    one version, page by page              sync_version.c
**   time       sync_log, sync_restore                 sync_time.c
**   at         a version attached read-only           sync_at.c
**   keep       sync_compact, sync_prune               sync_keep.c
**   backup     choir_backup(), copies kept by a pull  sync_backup.c
**   run        what every sync call begins with       sync.c
**   push       sync_push()                            sync_push.c
**   auto       sync_schedule, sync_due, sync_auto     sync_auto.c
**   pull       sync_pull()                            sync_pull.c
**   frames     changed pages, into the live WAL       sync_frames.c
**   sync       sync_status, sync_verify, the part     sync.c
**   diff       which tables differ                    sync_diff.c
**   merge      sync_pull(…, 'merge'): three versions  sync_merge.c
**   graft      … their schemas                        sync_graft.c
**   three      … the rows of one table                sync_three.c
**   rooms      … and what is choir's own              sync_rooms.c
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

/* Fact: transaction iTxid of the folder zUrl is version aId. Lookup gives the
** id and the transaction, or NULL. */
CHOIR_PRIVATE void choirSealLearnFolder(u8 *aSeal, const char *zUrl, u64 iTxid,
                                        const u8 *aId);
CHOIR_PRIVATE const u8 *choirSealFolder(const u8 *aSeal, const char *zUrl,
                                        u64 *piTxid);

/* --------------------------------------------------------------- pages ----
** Page hashes, and their cache on disk.
*/
#define CHOIR_PAGE_HASH 16

typedef struct ChoirPages {
  u32 szPage;
  u32 nPage;
  u64 nAlloc; /* bytes at aHash */
  u8 *aHash;  /* CHOIR_PAGE_HASH bytes a page, page 1 first */
} ChoirPages;

CHOIR_PRIVATE void choirPagesFree(ChoirPages *);
CHOIR_PRIVATE void choirPagesCopy(ChoirErr *, ChoirPages *, const ChoirPages *);
/* nPage pages, new ones with hashes of zeros. */
CHOIR_PRIVATE void choirPagesSize(ChoirErr *, ChoirPages *, u64 nPage);
/* The hash of page iPage (from 1); grows as needed. */
CHOIR_PRIVATE void choirPagesSet(ChoirErr *, ChoirPages *, u64 iPage,
                                 const u8 *aPage);
/* 1: page iPage of both has the same hash. */
CHOIR_PRIVATE int choirPagesSame(const ChoirPages *, const ChoirPages *,
                                 u64 iPage);
/* 1: the hash of page iPage is that of these bytes. */
CHOIR_PRIVATE int choirPagesHas(const ChoirPages *, u64 iPage, const u8 *aPage);
/* The digest of a version. */
CHOIR_PRIVATE void choirPagesDigest(const ChoirPages *, u8 aDigest[32]);
/* Sets what differs between copies of one content in a copy of page 1. */
CHOIR_PRIVATE void choirPageNormalise(u8 *aPage1);

/* Up to where the frames of a WAL were seen, as they stand in it. */
typedef struct ChoirWalMark {
  u8 aSalt[8]; /* zeros: no place in a WAL */
  u32 nFrame;
  u8 aSum[8]; /* of frame nFrame; unused when that is 0 */
} ChoirWalMark;

/* The pages of one version of this file as found at one remote. */
typedef struct ChoirCache {
  char *zFile; /* NULL: none (a database without a file) */
  u8 bValid;   /* the header holds; the pages are not read yet */
  u8 aId[CHOIR_SYNC_ID];
  u8 aDigest[32];
  u32 szPage, nPage;
  ChoirWalMark mark;
  ChoirPages pages;
} ChoirCache;

/* A file in the state folder for this database, and a remote or "": the name,
** caller frees; NULL for a database without a file. */
CHOIR_PRIVATE char *choirSyncStateFile(ChoirConn *, ChoirErr *,
                                       const ChoirPosition *, const char *zWhat,
                                       const char *zUrl);
CHOIR_PRIVATE void choirCacheRead(ChoirConn *, ChoirErr *, ChoirCache *,
                                  const ChoirPosition *, const char *zUrl);
/* Reads the pages when they were not; what does not hold is forgotten. */
CHOIR_PRIVATE void choirCacheLoad(ChoirErr *, ChoirCache *);
/* The pages become pNew's (taken over), and the file too. Failing is no error:
** the cache is gone then. */
CHOIR_PRIVATE void choirCacheWrite(ChoirCache *, ChoirPages *pNew);
/* It is of another version: no pages are known. */
CHOIR_PRIVATE void choirCacheForget(ChoirCache *);
CHOIR_PRIVATE void choirCacheFree(ChoirCache *);

typedef struct ChoirLive ChoirLive;

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
/* Its bytes go into the file zFile, which stays, and not into a temporary one. */
CHOIR_PRIVATE void choirSpoolFor(ChoirSpool *, const char *zFile);
/* Of a sink: only pages that differ from pBase are written, one after the
** other, and that of the seal. */
CHOIR_PRIVATE void choirSpoolDelta(ChoirSpool *, const ChoirPages *pBase);
/* Of a reader: pages that are equal in both are read from pLive, which may be
** NULL, instead of fd; but page 1 and iSealed. */
CHOIR_PRIVATE void choirSpoolLive(ChoirSpool *, ChoirLive *pLive,
                                  const ChoirPages *pOwn,
                                  const ChoirPages *pNew, u32 iSealed);
/* Whole pages, or bytes of page 1, of what a reader shows. */
CHOIR_PRIVATE void choirSpoolRead(ChoirSpool *, ChoirErr *, u64 iOff, void *a,
                                  u64 n);
/* A connection that writes the spool (pages ascending), or reads it. */
CHOIR_PRIVATE sqlite3 *choirSpoolOpen(ChoirErr *, ChoirSpool *, int bSink);
/* What PRAGMA quick_check finds wrong, caller frees; NULL: nothing. */
CHOIR_PRIVATE char *choirSpoolProblem(ChoirErr *, sqlite3 *);
/* And what PRAGMA integrity_check finds, which compares every index with its
** table. 0: it cannot be told, because an index needs a collation or a function of
** the host's. */
CHOIR_PRIVATE int choirSpoolIndexes(ChoirConn *, ChoirErr *, ChoirSpool *,
                                    char **pzProblem);
CHOIR_PRIVATE void choirSpoolSealAt(ChoirSpool *, u32 iRoot);
/* After the sink's connection is closed: the digest, the last bytes. */
CHOIR_PRIVATE void choirSpoolFinish(ChoirErr *, ChoirSpool *, u8 aDigest[32]);
CHOIR_PRIVATE u64 choirSpoolSize(const ChoirSpool *);
CHOIR_PRIVATE int choirSpoolPageSize(const ChoirSpool *);
/* Where the seal's bytes are in the file, 0: nowhere. */
CHOIR_PRIVATE u64 choirSpoolSeal(const ChoirSpool *);
/* The page hashes; the caller owns them from here on. */
CHOIR_PRIVATE void choirSpoolPages(ChoirSpool *, ChoirPages *);
/* Of a delta: the page numbers in the order in which they were written. */
CHOIR_PRIVATE u32 *choirSpoolKept(ChoirSpool *, u64 *pn);

/* ----------------------------------------------------------------- wal ----
** What the frames of a live WAL say, read through SQLite's own file.
*/
#define CHOIR_WAL_FRAME 24 /* bytes before the page of a frame */

typedef struct ChoirWalPage {
  u32 iPage;
  u32 iFrame; /* from 1 */
} ChoirWalPage;

typedef struct ChoirWal {
  sqlite3_file *pFile; /* belongs to the connection it was found on */
  u32 szPage;
  u8 bBig;      /* checksums of big-endian words */
  u8 aSalt[8];  /* of the header */
  u8 aFirst[8]; /* checksum of the header */
  u64 nByte;
} ChoirWal;

/* 1: db (own connection, in a read transaction) has a WAL with frames. */
CHOIR_PRIVATE int choirWalOpen(sqlite3 *db, ChoirWal *);
/* The pages in committed frames after pMark, ascending, each with its last
** frame; pMark moves to the end. nPage is the size of the database there, 0
** when there was no new commit. 0: the mark does not hold, scan instead.
** *paPage: caller frees. */
CHOIR_PRIVATE int choirWalWalk(ChoirErr *, const ChoirWal *, ChoirWalMark *,
                               ChoirWalPage **paPage, u64 *pn, u32 *pnPage);
CHOIR_PRIVATE int choirWalRead(const ChoirWal *, u32 iFrame, u8 *aPage);
/* 1: nobody began the WAL anew since it was opened. */
CHOIR_PRIVATE int choirWalHolds(const ChoirWal *);
/* 1: frame iFrame is valid after the one before it; header and page are in a,
** its checksum in s. */
CHOIR_PRIVATE int choirWalFrame(const ChoirWal *, u32 iFrame, u8 *a, u32 s[2]);
CHOIR_PRIVATE u64 choirWalOffset(const ChoirWal *, u64 iFrame);
/* Continues the chain over n bytes, a multiple of 8. */
CHOIR_PRIVATE void choirWalSum(int bBig, const u8 *a, u64 n, u32 s[2]);
/* 1: the text that a PRAGMA gives is zWant. */
CHOIR_PRIVATE int choirPragmaIs(sqlite3 *, const char *zSql, const char *zWant);

/* ---------------------------------------------------------------- live ---- */

/* The host's file, whose pages have the hashes pOwn and a seal in page iRoot, in
** a read transaction. NULL, without an error too: it is not known to be so, or not
** stored in a way that is understood here. */
CHOIR_PRIVATE ChoirLive *choirLiveOpen(ChoirConn *, ChoirErr *,
                                       const ChoirPages *pOwn, u32 iRoot);
CHOIR_PRIVATE void choirLiveClose(ChoirLive *);
/* Whole pages. */
CHOIR_PRIVATE void choirLiveRead(ChoirLive *, ChoirErr *, u64 iOff, u8 *a,
                                 u64 n);

/* ------------------------------------------------------------ snapshot ---- */

/* Differs when the content does, as of the connection's last look. */
CHOIR_PRIVATE unsigned choirDataVersion(sqlite3 *, const char *zSchema);
/* A connection of our own to the host's file, in no transaction, that never
** checkpoints by itself; the caller closes it. NULL without an error: there is no
** file, or the host locks it exclusively. */
CHOIR_PRIVATE sqlite3 *choirSnapshotOpen(ChoirConn *, ChoirErr *);
/* Copies the workspace's schema into the spool through a connection of its own
** (no checkpoint, no raw access), reads pPos (or NULL) from the same state,
** and gives the digest of the copy. */
CHOIR_PRIVATE void choirSnapshot(ChoirConn *, ChoirErr *, ChoirSpool *,
                                 int eSeal, ChoirPosition *pPos,
                                 u8 aDigest[32]);
/* The same, pages as they are, into schema zTo of a connection. */
CHOIR_PRIVATE void choirSnapshotInto(ChoirConn *, ChoirErr *, sqlite3 *dbTo,
                                     const char *zTo);
/* The digest alone: is the file still the version its seal names? */
CHOIR_PRIVATE int choirSnapshotChanged(ChoirConn *, ChoirErr *,
                                       const u8 aDigest[32]);

/* The content now, against that of a cache. */
typedef struct ChoirCapture {
  ChoirPosition pos; /* read from the same state */
  ChoirPages now;
  u8 aDigest[32];
  ChoirWalMark mark; /* for the next time */
  int fd;            /* the pages that differ, one after the other; -1 */
  u32 *aPage;        /* their numbers, in that order */
  u64 nKept;
  u64 iSeal; /* where the seal is in fd, 0: nowhere */
  u8 bWal;   /* found by reading the WAL alone */
  u8 bSame;  /* nobody committed since the base: it has no pages of its own */
  u8 bSeal;  /* set by the caller: the page of the seal is wanted too */
  u8 bQuick; /* set by the caller: from the WAL (bWal, bSame) or not at all */
} ChoirCapture;

/* All zeros before the first call but fd (-1 for the hashes alone, a file for
** the pages too) and bSeal. pBase may be invalid: then every page differs. The
** seal in fd is zeros; its page is kept whether it differs or not when it is
** met, and bSeal makes sure of that. A second call adds what was committed in
** between: a page may be there twice, the later one counts, and one that has
** become that of pBase again is to be left out. */
CHOIR_PRIVATE void choirCapture(ChoirConn *, ChoirErr *, ChoirCapture *,
                                ChoirCache *pBase);
CHOIR_PRIVATE void choirCaptureFree(ChoirCapture *);

/* ----------------------------------------------------------------- ltx ----
** docs/formats.md, "LTX files".
*/
#define CHOIR_LTX_HEADER 100
#define CHOIR_LTX_TRAILER 16
#define CHOIR_LTX_PAGE_MAX 65536
#define CHOIR_LTX_FRAME_MAX (CHOIR_LTX_PAGE_MAX + 522) /* LZ4's bound, and 10 */

typedef struct ChoirLtxHead {
  u32 szPage, nPage; /* of the database after it */
  u64 iMin, iMax;    /* transactions */
  i64 iTime;         /* Unix milliseconds */
  u8 aId[CHOIR_SYNC_ID];
  u8 aLineage[4];
  u64 iCrc;  /* of the frames as stored */
  u8 bChoir; /* choir wrote it: the three above are set */
} ChoirLtxHead;

typedef struct ChoirLtxWriter ChoirLtxWriter;
typedef struct ChoirLtxReader ChoirLtxReader;
typedef void (*ChoirLtxPage)(void *pArg, ChoirErr *, u32 iPage, const u8 *aPage,
                             u32 szPage);
typedef void (*ChoirLtxEntry)(void *pArg, ChoirErr *, u32 iPage, u64 iOff,
                              u32 nByte);

/* Big-endian numbers, as they are in every file that sync reads or writes. */
CHOIR_PRIVATE u32 choirGet32(const u8 *);
CHOIR_PRIVATE u64 choirGet64(const u8 *);
CHOIR_PRIVATE void choirPut32(u8 *, u32);
CHOIR_PRIVATE void choirPut64(u8 *, u64);
CHOIR_PRIVATE u32 choirLtxLockPage(u32 szPage);
CHOIR_PRIVATE void choirLtxHeadRead(ChoirErr *, const u8 *a, u64 n,
                                    ChoirLtxHead *);
/* Into fd from its beginning. */
CHOIR_PRIVATE ChoirLtxWriter *choirLtxWriteNew(ChoirErr *, int fd,
                                               const ChoirLtxHead *);
CHOIR_PRIVATE void choirLtxWritePage(ChoirLtxWriter *, ChoirErr *, u32 iPage,
                                     const u8 *aPage);
/* The size of the file. */
CHOIR_PRIVATE u64 choirLtxWriteEnd(ChoirLtxWriter *, ChoirErr *);
CHOIR_PRIVATE void choirLtxWriteFree(ChoirLtxWriter *);
/* A ChoirObjectWrite whose pArg is the reader. */
CHOIR_PRIVATE ChoirLtxReader *choirLtxReadNew(ChoirErr *, ChoirLtxPage,
                                              void *pArg);
CHOIR_PRIVATE void choirLtxReadFeed(void *pReader, ChoirErr *, const void *a,
                                    u64 n);
/* NULL before it was read. */
CHOIR_PRIVATE const ChoirLtxHead *choirLtxReadHead(const ChoirLtxReader *);
/* Sticky unless all of the file was fed and every checksum holds. */
CHOIR_PRIVATE void choirLtxReadEnd(ChoirLtxReader *, ChoirErr *);
CHOIR_PRIVATE void choirLtxReadFree(ChoirLtxReader *);
/* Single pages: the size of the index, from the last bytes of a file of nFile;
** its entries (without the size behind them); a frame. */
CHOIR_PRIVATE u64 choirLtxIndexSize(ChoirErr *, const u8 *aTail, u64 n,
                                    u64 nFile);
CHOIR_PRIVATE void choirLtxIndexRead(ChoirErr *, const u8 *a, u64 n,
                                     const ChoirLtxHead *, ChoirLtxEntry,
                                     void *pArg);
CHOIR_PRIVATE void choirLtxFrameRead(ChoirErr *, const u8 *a, u64 n, u32 iPage,
                                     u32 szPage, u8 *aOut);

/* ----------------------------------------------------------------- key ----
** docs/formats.md, "Encrypted folder remote".
*/
#define CHOIR_KEY_ID 8
#define CHOIR_KEY_SALT 16
#define CHOIR_KEY_TAG 16

typedef struct ChoirKeyring ChoirKeyring;
typedef struct ChoirCipher ChoirCipher;

/* NULL: no secret of type sync covers zUrl; or sticky: it makes no sense. */
CHOIR_PRIVATE ChoirKeyring *choirKeyringOpen(ChoirConn *, ChoirErr *,
                                             const char *zUrl);
CHOIR_PRIVATE void choirKeyringFree(ChoirKeyring *);
CHOIR_PRIVATE void choirKeyId(const u8 aKey[32], u8 aId[CHOIR_KEY_ID]);
/* The key of that id; sticky when the secret does not hold it. */
CHOIR_PRIVATE void choirKeyringFind(ChoirErr *, ChoirKeyring *, int eStretch,
                                    const u8 *aSalt, const u8 *aId,
                                    u8 aKey[32]);
/* The key to encrypt with; how it was stretched. */
CHOIR_PRIVATE int choirKeyringFirst(ChoirErr *, ChoirKeyring *,
                                    u8 aSalt[CHOIR_KEY_SALT], u8 aKey[32]);
CHOIR_PRIVATE void choirKeyRandom(ChoirErr *, ChoirKeyring *, u8 *a, int n);
CHOIR_PRIVATE ChoirCipher *choirCipherNew(ChoirErr *, ChoirKeyring *,
                                          const u8 aKey[32], int bSeal);
CHOIR_PRIVATE void choirCipherFree(ChoirCipher *);
/* Seals or opens a chunk with aMore as additional data; 0: the tag is wrong. */
CHOIR_PRIVATE int choirCipherChunk(ChoirCipher *, u64 iChunk, int bLast,
                                   const u8 *aMore, int nMore, const u8 *aIn,
                                   int n, u8 *aOut, u8 aTag[CHOIR_KEY_TAG]);

/* -------------------------------------------------------------- remote ---- */

typedef struct ChoirCrypt ChoirCrypt;

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
  ChoirPages pages;  /* their hashes */
  /* Of a folder: */
  u8 bFolder;
  u8 bNewest; /* iTxid is the newest transaction there */
  u8 bProbe;  /* listing is forbidden */
  u64 iTxid;  /* a transaction that is there, and its object's header */
  ChoirLtxHead head;
  u64 iBase; /* the transaction there that is this file's head, 0: none */
  ChoirCrypt *pCrypt; /* NULL: it is not encrypted */
  u8 bAnyway;         /* what was rolled back is taken too */
  u8 bOwn; /* fetched on top of this file's own pages, which are its head's */
  unsigned iOwn;    /* its data version before they were read */
  ChoirLive *pLive; /* where those are that fd has not, NULL: fd has all */
  ChoirPages own;   /* their hashes */
  u32 iOwnRoot;     /* and the page of their seal */
  u8 bCopy;         /* a copy of them, even where they could be read in place */
} ChoirRemote;

/* zUrl NULL: the configured one. */
CHOIR_PRIVATE void choirRemoteOpen(ChoirConn *, ChoirErr *, ChoirRemote *,
                                   const char *zUrl);
CHOIR_PRIVATE void choirRemoteClose(ChoirRemote *);
/* What is there now: eHead, meta. */
CHOIR_PRIVATE void choirRemoteLook(ChoirErr *, ChoirRemote *,
                                   const ChoirPosition *);
/* Downloads and verifies it. bForeign: a seal that does not match its bytes is
** reported in bSealed instead of as an error. */
CHOIR_PRIVATE void choirRemoteFetch(ChoirConn *, ChoirErr *, ChoirRemote *,
                                    int bForeign);
/* Transaction iTxid of a folder, fetched and verified; its size. */
CHOIR_PRIVATE u64 choirRemoteRestore(ChoirErr *, ChoirRemote *, u64 iTxid);
/* The fetched file is not read as a database any more. */
CHOIR_PRIVATE void choirRemoteLetGo(ChoirRemote *);
/* Gives the fetched file this seal and opens it afresh. */
CHOIR_PRIVATE void choirRemoteReseal(ChoirErr *, ChoirRemote *,
                                     const u8 *aSeal);

/* -------------------------------------------------------------- folder ----
** A remote of LTX files. docs/formats.md, "Folder remote".
*/
#define CHOIR_LEVEL_SNAPSHOT 9

typedef struct ChoirFile {
  u64 iMin, iMax; /* transactions */
  u64 nByte;      /* 0 when it was found by probing */
  i64 iModified;  /* at the server, Unix milliseconds */
  int iLevel;
} ChoirFile;

typedef struct ChoirFiles {
  ChoirFile *a; /* by level, then by transaction */
  u64 n, nAlloc;
} ChoirFiles;

CHOIR_PRIVATE char *choirFolderKey(ChoirErr *, const ChoirRemote *,
                                   const ChoirFile *);
/* 1: zKey is the name of an LTX file. */
CHOIR_PRIVATE int choirFolderFile(const ChoirRemote *, const char *zKey,
                                  ChoirFile *);
/* Every object of a folder is read and written through these two. */
CHOIR_PRIVATE int choirFolderGet(ChoirRemote *, ChoirErr *, const char *zKey,
                                 i64 iOff, i64 nByte, ChoirObjectMeta *,
                                 ChoirObjectWrite, void *pArg);
CHOIR_PRIVATE int choirFolderPut(ChoirRemote *, ChoirErr *, const char *zKey,
                                 const ChoirObjectSource *, int eIf,
                                 ChoirObjectMeta *);
/* The header of a file, checked against its name. OK or ABSENT; what may not
** be read counts as absent. */
CHOIR_PRIVATE int choirFolderHead(ChoirRemote *, ChoirErr *, const ChoirFile *,
                                  ChoirLtxHead *, ChoirObjectMeta *);
/* Transaction iTxid's push. */
CHOIR_PRIVATE int choirFolderPush(ChoirRemote *, ChoirErr *, u64 iTxid,
                                  ChoirLtxHead *, ChoirObjectMeta *);
CHOIR_PRIVATE void choirFolderList(ChoirRemote *, ChoirErr *, ChoirFiles *);
CHOIR_PRIVATE void choirFilesFree(ChoirFiles *);
CHOIR_PRIVATE void choirFilesAdd(ChoirErr *, ChoirFiles *, const ChoirFile *);
/* The files that make transaction iWant (0: the newest), in order; iFrom: a
** transaction that is had already, 0: none. *piGot: how far they lead. */
CHOIR_PRIVATE void choirFilesPlan(ChoirErr *, const ChoirFiles *, u64 iFrom,
                                  u64 iWant, ChoirFiles *pPlan, u64 *piGot);
/* What is known there: iTxid, head, eHead; is iTxid the newest? */
CHOIR_PRIVATE void choirFolderLook(ChoirErr *, ChoirRemote *,
                                   const ChoirPosition *);
CHOIR_PRIVATE void choirFolderNewest(ChoirErr *, ChoirRemote *);
/* 1: p->head is of this file's workspace, as far as a header says. */
CHOIR_PRIVATE int choirFolderOurs(const ChoirRemote *, const ChoirPosition *);
/* A whole file through the reader. ABSENT when it is gone. */
CHOIR_PRIVATE int choirFolderRead(ChoirRemote *, ChoirErr *, const ChoirFile *,
                                  ChoirLtxPage, void *pArg, ChoirLtxHead *,
                                  u64 *pnByte);
/* Transaction iWant (0: the newest) into p->fd; its size, 0 when there is
** nothing. With pConn, this file's own pages are used where its head is there.
*/
CHOIR_PRIVATE u64 choirFolderFetch(ChoirConn *pConn, ChoirErr *, ChoirRemote *,
                                   u64 iWant);

/* --------------------------------------------------------------- crypt ----
** The objects of a folder, encrypted. Offsets and sizes are of the content.
*/
#define CHOIR_CRYPT_MAGIC "choirenc"

/* NULL: it is not to be encrypted. */
CHOIR_PRIVATE ChoirCrypt *choirCryptOpen(ChoirConn *, ChoirErr *,
                                         const char *zUrl);
CHOIR_PRIVATE void choirCryptFree(ChoirCrypt *);
/* The size of the content of an object of nStored bytes. */
CHOIR_PRIVATE u64 choirCryptSize(u64 nStored);
/* What the next objects belong to; nothing for a plain remote. */
CHOIR_PRIVATE void choirCryptLineage(ChoirRemote *, ChoirErr *,
                                     const char *zLineage);
/* The objects read from here on are to be one chain. */
CHOIR_PRIVATE void choirCryptChain(ChoirRemote *);
/* Sticky when transaction iTxid, which this file has seen there, is gone or
** another one. bOther: it is there as another version. */
CHOIR_PRIVATE void choirCryptSeen(ChoirRemote *, ChoirErr *, u64 iTxid,
                                  int bOther);
CHOIR_PRIVATE int choirCryptGet(ChoirRemote *, ChoirErr *, const char *zKey,
                                i64 iOff, i64 nByte, ChoirObjectMeta *,
                                ChoirObjectWrite, void *pArg);
CHOIR_PRIVATE int choirCryptPut(ChoirRemote *, ChoirErr *, const char *zKey,
                                const ChoirObjectSource *, int eIf,
                                ChoirObjectMeta *);

/* ------------------------------------------------------------- version ----
** A version at a folder, read page by page.
*/
typedef struct ChoirVersion ChoirVersion;

/* The files that make iTxid (0: the newest), which is given back; sticky when it
** is not there. */
CHOIR_PRIVATE u64 choirVersionPlan(ChoirErr *, ChoirRemote *, u64 iTxid,
                                   ChoirFiles *pPlan);
/* iTxid 0: the newest. NULL and sticky when it is not there. */
CHOIR_PRIVATE ChoirVersion *choirVersionOpen(ChoirErr *, ChoirRemote *,
                                             u64 iTxid);
/* Page size, pages, transaction, time. */
CHOIR_PRIVATE const ChoirLtxHead *choirVersionHead(const ChoirVersion *);
/* Page iPage (from 1), a page of the database's size; zeros behind its end.
** Pruned files are looked for elsewhere; after an error it may be tried again.
*/
CHOIR_PRIVATE void choirVersionPage(ChoirVersion *, ChoirErr *, u32 iPage,
                                    u8 *aOut);
/* Requests for bytes so far. */
CHOIR_PRIVATE u64 choirVersionGets(const ChoirVersion *);
CHOIR_PRIVATE void choirVersionClose(ChoirVersion *);
/* A remote that keeps versions: a folder. */
CHOIR_PRIVATE void choirVersionRemote(ChoirConn *, ChoirErr *, ChoirRemote *,
                                      const char *zUrl);
/* The transaction that a text means: a number, or a time. It need not be there.
 */
CHOIR_PRIVATE u64 choirVersionFind(ChoirErr *, ChoirRemote *, const char *z);
/* The text of an argument that names a version. */
CHOIR_PRIVATE const char *choirVersionArg(ChoirErr *, sqlite3_value *);
/* Sticky: iTxid is not there, and what is nearest. Sorts the files. */
CHOIR_PRIVATE void choirVersionAbsent(ChoirErr *, const ChoirRemote *,
                                      ChoirFiles *, u64 iTxid);

/* ------------------------------------------------------------------ at ----
** The VFS choir_at: ATTACH of a version, read-only.
*/
/* Last at load: the VFS stays registered as long as choir is resident, so a
** load that fails must not have made it. */
CHOIR_PRIVATE int choirAtPublish(void);
CHOIR_PRIVATE CHOIR_COLD void choirAtRegister(ChoirConn *, ChoirErr *);

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
CHOIR_PRIVATE CHOIR_COLD void choirBackupRegister(ChoirConn *, ChoirErr *);

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
** remote. zMode, and zOther or NULL: the modes that are allowed. */
CHOIR_PRIVATE void choirSyncBegin(ChoirSyncRun *, ChoirCall *,
                                  const char *zMode, const char *zOther);
/* Which version is at the remote? From a fact, or by fetching it. */
CHOIR_PRIVATE void choirSyncIdentify(ChoirSyncRun *, int bForeign);
CHOIR_PRIVATE void choirSyncEnd(ChoirSyncRun *);
/* Is this file's content still that of its head? Reads the whole file. */
CHOIR_PRIVATE int choirSyncChanged(ChoirSyncRun *);
/* ` of 2026-01-02T03:04:05Z`, or nothing where the time is not known. */
CHOIR_PRIVATE void choirSyncTime(i64 iTime, char z[32]);
/* `<url> is at version 7 of 2026-01-02T03:04:05Z and this file at 6` */
CHOIR_PRIVATE char *choirSyncWhere(ChoirSyncRun *);
/* What can be done when both sides changed: the end of a message. */
CHOIR_PRIVATE const char *choirSyncWays(const ChoirSyncRun *);
/* The result: {"<zVerb>":n,"version":…,"txid":…,"bytes":…,[zMore,]
** ["saved":…,]"ms":…} */
CHOIR_PRIVATE void choirSyncResult(ChoirSyncRun *, ChoirCall *,
                                   const char *zVerb, int n, u64 nByte,
                                   const char *zMore, const char *zSaved);
/* 1: zSchema holds nothing of a user's: no object choir does not make, and no
** row in those it makes. */
CHOIR_PRIVATE int choirSyncIsEmpty(ChoirConn *, ChoirErr *);

/* Appends JSON objects, separated by commas: to pDigest the digest of each table
** of the other database, with bHere to pOut those in which this file's rows
** differ from its. */
CHOIR_PRIVATE void choirDiffTables(ChoirConn *, ChoirErr *, sqlite3 *,
                                   int bHere, ChoirBuf *pOut,
                                   ChoirBuf *pDigest);

/* Adds one value to the hash of its row (docs/formats.md, "Table digests"): v is an
** integer, a float's bits, or the length of the text or blob in aMore. */
CHOIR_PRIVATE void choirDiffHash(ChoirSha256 *, int eType, u64 v,
                                 const void *aMore);

/* Do two schemas of db have the same rows in a table? */
CHOIR_PRIVATE int choirDiffAlike(ChoirConn *, ChoirErr *, sqlite3 *db,
                                 const char *zA, const char *zB,
                                 const char *zTable);

/* --------------------------------------------------------------- merge ----
** Of this file and the remote's version, three ways. One private connection has
** four databases: main, the remote's version, which becomes the merged one; here,
** a copy of this file; base, the newest version that both descend from; work.
*/
typedef struct ChoirMerge {
  ChoirConn *pConn;
  ChoirErr *pErr;
  sqlite3 *db;
  i64 iBaseSeq;  /* base's last record of the log */
  i64 iThereSeq; /* after it, records of here are this side's new ones */
  i64 nUp;       /* by how much those were moved up */
  i64 nRow;      /* rows put or deleted */
  i64 nSeal;     /* seals of here that did not come along */
  u64 nTick;     /* rows looked at, for choirMergeStop() */
} ChoirMerge;

enum {
  CHOIR_MERGE_ROWS,  /* by row and column */
  CHOIR_MERGE_SIDE,  /* whole, of the side that changed it; refused when both */
  CHOIR_MERGE_WHOLE, /* the remote's; this side's where the remote has none */
  CHOIR_MERGE_APART, /* the same without rows: something else puts them in */
  CHOIR_MERGE_REMOTE /* the remote's; where it has none there is none */
};

typedef struct ChoirMergeRule {
  const char *zGlob;
  int eRule;
  const char *zGroup; /* columns that go together, separated by spaces, or "" */
  u8 bOwn;            /* of updated_at the later one stays */
  u8 bQuiet;          /* conflicts are not written down */
  const char *zRemedy; /* where it is refused */
} ChoirMergeRule;

/* A table as choirMergeImages() must know it. */
typedef struct ChoirMergeShape {
  const char *zTable;
  char *const *azCol;
  const int *aKey;
  int nKey; /* 0: no key */
  const char *zRowid;
  int bOwnRowid; /* it has a rowid beside its key */
} ChoirMergeShape;

CHOIR_PRIVATE sqlite3_stmt *choirMergePrepare(ChoirMerge *, const char *zFmt,
                                              ...);
CHOIR_PRIVATE void choirMergeExec(ChoirMerge *, const char *zFmt, ...);
CHOIR_PRIVATE i64 choirMergeInt(ChoirMerge *, const char *zFmt, ...);
/* Once a row: 1 when the host interrupts, or an error is there already. */
CHOIR_PRIVATE int choirMergeStop(ChoirMerge *);
/* Sticky: why the two cannot be merged. */
CHOIR_PRIVATE void choirMergeRefuse(ChoirMerge *, const char *zFmt, ...);
/* What the connection says about rc, as choirErrDb(). */
CHOIR_PRIVATE void choirMergeFailed(ChoirMerge *, int rc);
/* Have both sides the same rows in a table? */
CHOIR_PRIVATE int choirMergeAlike(ChoirMerge *, const char *zA, const char *zB,
                                  const char *zTable);
CHOIR_PRIVATE void choirGraft(ChoirMerge *);
CHOIR_PRIVATE void choirThreeTable(ChoirMerge *, const char *zTable,
                                   const ChoirMergeRule *);
/* All rows of here. */
CHOIR_PRIVATE void choirThreeCopy(ChoirMerge *, const char *zTable,
                                  const ChoirMergeRule *);
/* Numbers that both sides gave to new rows: this side's move. */
CHOIR_PRIVATE void choirThreeMove(ChoirMerge *, const char *zTable,
                                  const ChoirMergeRule *);
CHOIR_PRIVATE const ChoirMergeRule *choirMergeRuleOf(ChoirMerge *,
                                                     const char *zTable);
CHOIR_PRIVATE sqlite3_stmt *choirMergeIndexes(ChoirMerge *, const char *zTable);
/* References that lead nowhere: of main as it came, of here once its numbers are
** final. */
CHOIR_PRIVATE void choirRoomsOrphans(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsOwnOrphans(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsSequence(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsNumbers(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsBefore(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsRestore(ChoirMerge *);
CHOIR_PRIVATE void choirRoomsAfter(ChoirMerge *);
CHOIR_PRIVATE void choirMergeImages(ChoirMerge *, const ChoirMergeShape *);
CHOIR_PRIVATE void choirMergeFollow(ChoirMerge *, const char *zTable,
                                    const char *zKey);

/* The merged database, in main, as its head the remote's version and aSeal as
** its seal; the caller closes it. Its rows and conflicts as JSON into pTold,
** *pbConflict: there were some. */
CHOIR_PRIVATE sqlite3 *choirMerge(ChoirSyncRun *, const u8 *aSeal,
                                  ChoirBuf *pTold, int *pbConflict);

/* sync_push to a folder; the bytes sent, 0: there was nothing to send. */
CHOIR_PRIVATE u64 choirDeltaPush(ChoirSyncRun *);
CHOIR_PRIVATE void choirPushConflict(ChoirSyncRun *);

CHOIR_PRIVATE CHOIR_COLD void choirPushRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirPullRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirTimeRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirKeepRegister(ChoirConn *, ChoirErr *);
CHOIR_PRIVATE CHOIR_COLD void choirAutoRegister(ChoirConn *, ChoirErr *);

/* A push succeeded: the next period of sync_schedule() begins. */
CHOIR_PRIVATE void choirDueDone(ChoirConn *);
/* What went wrong with the last push of sync_auto(), caller frees; NULL:
** nothing. */
CHOIR_PRIVATE char *choirAutoProblem(ChoirConn *, ChoirErr *);

/* -------------------------------------------------------------- frames ---- */

/* The fetched version, which has bOwn, becomes the host's file unless somebody
** committed since data version *piVersion (BUSY_SNAPSHOT): only the pages that
** differ are written. DONE, and pMark is where it ends in the WAL; an error; or
** OK: not possible here, nothing was done, and *piVersion is what it is now. */
CHOIR_PRIVATE int choirFrames(ChoirConn *, ChoirErr *, ChoirRemote *,
                              unsigned *piVersion, ChoirWalMark *pMark);

/* ---------------------------------------------------------------- sync ---- */

CHOIR_PRIVATE CHOIR_COLD void choirSyncRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_SYNC_H */
