/* SPDX-License-Identifier: MIT */
/*
** sync_push(): this file becomes the remote, by compare-and-swap.
**
** Order of things: look at the remote · may it be replaced? · commit a new
** position · snapshot · put, on condition that the remote is still what was
** looked at. Whatever fails leaves this file consistent and the next push
** works unaided; a version that was never stored stays in the history, where
** it harms nobody.
*/
#include "sync.h"
#if !defined(_WIN32)
#include <unistd.h>
#endif

typedef struct PushCopy {
  int fd;
  u64 nByte;
  u8 aDigest[32];
} PushCopy;

static void pushRead(void *pArg, ChoirErr *pErr, u64 iOff, void *a, u64 n) {
  choirFdRead(pErr, ((PushCopy *)pArg)->fd, iOff, a, n);
}

CHOIR_PRIVATE void choirPushConflict(ChoirSyncRun *p) {
  char *z = choirSyncWhere(p);
  choirErrSet(p->pErr, SQLITE_BUSY,
              "the remote has moved: %s; sync_pull('%s') if nothing was changed"
              " here; otherwise its mode %s",
              z ? z : "", p->there.zUrl, choirSyncWays(p));
  sqlite3_free(z);
}

/* Remembers what is at the remote. Facts may be lost, so failing is no error.
 */
static void pushLearn(ChoirSyncRun *p) {
  ChoirErr err = {0, NULL};
  if (p->pErr->rc == SQLITE_OK) {
    choirSealLearn(p->here.aSeal, p->there.zUrl, p->there.meta.zEtag,
                   p->here.aHead);
    choirPositionSeal(p->pConn, &err, &p->here);
    choirErrClear(&err);
  }
}

/* 1: the remote has this very content already. */
static int pushIsThere(ChoirSyncRun *p) {
  if (!p->bThere || !p->here.bHead ||
      memcmp(p->aThere, p->here.aHead, CHOIR_SYNC_ID) != 0) {
    return 0;
  }
  if (p->bFetched) { /* its own digest is the truth */
    memcpy(p->here.aSeal, p->there.aDigest, 32);
  }
  if (choirSyncChanged(p) || p->pErr->rc != SQLITE_OK) {
    return 0;
  }
  if (p->bFetched) {
    pushLearn(p);
  }
  return 1;
}

/* Sticky error unless what is at the remote is an ancestor of this file. */
static void pushMayReplace(ChoirSyncRun *p) {
  if (p->pErr->rc != SQLITE_OK || !p->bThere) {
    return;
  }
  if (p->zMode) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "'fork' makes a new remote and %s exists; choose another name",
                p->there.zUrl);
  } else if (p->bFetched &&
             strcmp(p->there.pos.zLineage, p->here.zLineage) != 0) {
    choirErrSet(p->pErr, SQLITE_ERROR,
                "the remote %s belongs to another workspace; push to another"
                " name, or pull it into an empty file",
                p->there.zUrl);
  } else if (!choirPositionKnows(p->pErr, p->pConn->db, choirSchema(p->pConn),
                                 p->aThere)) {
    choirPushConflict(p);
  }
}

/* A sealed copy of the file. bReuse: the head names this content already (an
** earlier push failed after its snapshot, or this is a second remote). */
static void pushCopy(ChoirSyncRun *p, PushCopy *pCopy, int bReuse) {
  ChoirSpool *pSpool;
  ChoirPosition pos;
  if (!bReuse) {
    choirPositionAdvance(p->pConn, p->pErr, &p->here, p->zMode != NULL);
  }
  pCopy->fd = choirTempAnonymous(p->pErr);
  pSpool = choirSpoolNew(p->pErr, pCopy->fd, 0);
  if (pSpool == NULL) {
    return;
  }
  choirSnapshot(p->pConn, p->pErr, pSpool, CHOIR_SEAL_ZERO, &pos,
                pCopy->aDigest);
  pCopy->nByte = choirSpoolSize(pSpool);
  choirFdWrite(p->pErr, pCopy->fd, choirSpoolSeal(pSpool), pCopy->aDigest, 32);
  choirSpoolFree(pSpool);
  if (p->pErr->rc == SQLITE_OK &&
      (memcmp(pos.aHead, p->here.aHead, CHOIR_SYNC_ID) != 0 ||
       (bReuse && memcmp(pCopy->aDigest, p->here.aSeal, 32) != 0))) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "another connection changed this file while it was copied; try"
                " again");
  }
}

/* The condition failed. When the remote now is what was sent, the put had
** succeeded and only its reply was lost. */
static void pushLost(ChoirSyncRun *p, const PushCopy *pCopy) {
  choirRemoteFetch(p->pConn, p->pErr, &p->there, 0);
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (p->there.eHead != CHOIR_OBJECT_OK) {
    choirErrSet(p->pErr, SQLITE_BUSY,
                "%s was removed during the push; try again", p->there.zUrl);
  } else if (memcmp(p->there.pos.aHead, p->here.aHead, CHOIR_SYNC_ID) != 0 ||
             memcmp(p->there.aDigest, pCopy->aDigest, 32) != 0) {
    choirPushConflict(p);
  }
}

static void pushSend(ChoirSyncRun *p, PushCopy *pCopy, int bReuse) {
  ChoirObjectSource source;
  ChoirObjectMeta meta;
  ChoirErr err = {0, NULL};
  char zEtag[sizeof(p->there.meta.zEtag)];
  int e;
  pushCopy(p, pCopy, bReuse);
  if (p->pErr->rc != SQLITE_OK) {
    return;
  }
  if (!bReuse) { /* what head's content is, for whatever comes next */
    memcpy(p->here.aSeal, pCopy->aDigest, 32);
    choirPositionSeal(p->pConn, &err, &p->here);
    choirErrClear(&err);
  }
  source.nByte = pCopy->nByte;
  source.xRead = pushRead;
  source.pArg = pCopy;
  memcpy(zEtag, p->there.meta.zEtag, sizeof(zEtag));
  p->there.pStore->zType = "application/x-sqlite3";
  e = choirObjectPut(p->there.pStore, p->pErr, p->there.pStore->zKey, &source,
                     p->bThere ? CHOIR_IF_MATCH : CHOIR_IF_ABSENT, zEtag,
                     &meta);
  if (e == CHOIR_OBJECT_CHANGED) {
    pushLost(p, pCopy);
  } else {
    p->there.meta = meta;
  }
  pushLearn(p);
}

static void pushEnd(ChoirSyncRun *p) {
  if (p->pErr->rc == SQLITE_OK) {
    choirDueDone(p->pConn);
  }
  choirSyncEnd(p);
}

/*
** SQL: sync_push([remote[, mode]]) -> TEXT
**
** Stores this workspace at the remote as its next version, provided that the
** remote still holds a version this file descends from; nobody else's push is
** ever overwritten. When nothing changed since the last one, nothing is sent.
** Gives a JSON object: pushed (1, or 0 when there was nothing to send),
** version, txid, bytes and ms.
**
** Call it alone, outside a transaction: SELECT sync_push(…).
**
** A remote that ends in '/' holds page deltas: a push sends the pages that
** changed, as one object that Litestream can read, and earlier versions stay.
** Rows that wait to be put into vector indexes are put there first, so that
** whoever pulls need not do it.
**
**   remote  TEXT, URL of a folder, ending in '/', or of a plain file, ending in
**           .sqlite or .db; for example file:///srv/backup/; default:
**           choir_config('remote')
**   mode    TEXT, 'fork': start a workspace of its own from this file, at a
**           remote that does not exist yet
**
** NULL: a NULL remote means the configured one; a NULL mode none.
** Errors: the remote has moved (somebody else pushed; the message names both
** versions and the way out); it belongs to another workspace; it was changed
** by another tool; inside a transaction or beside a FROM; no space, no
** permission. After an error this file is as usable as before.
**
** > SELECT sync_push('ws.sqlite')
** ! sync_push: 'ws.sqlite' is not a URL; write s3://bucket/folder/name or file:///folder/name
*/
static void pushFunc(ChoirCall *pCall) {
  ChoirSyncRun run;
  PushCopy copy;
  ChoirArtifactFlushed flushed; /* large content goes first */
  int bThere = 0, bReuse;
  memset(&copy, 0, sizeof(copy));
  copy.fd = -1;
  choirNeedWorkspace(pCall->pConn, &pCall->err);
  choirSyncBegin(&run, pCall, "fork", NULL);
  if (run.there.pCrypt == NULL) { /* an object would not be encrypted */
    choirArtifactFlush(pCall->pConn, &pCall->err, 0, &flushed);
  }
  choirPartsSettle(pCall->pConn, &pCall->err);
  if (run.there.bFolder) {
    u64 nByte = choirDeltaPush(&run);
    choirSyncResult(&run, pCall, "pushed", nByte > 0, nByte, NULL, NULL);
    pushEnd(&run);
    return;
  }
  choirSyncIdentify(&run, 0);
  pushMayReplace(&run);
  if (pCall->err.rc == SQLITE_OK) {
    bThere = pushIsThere(&run);
    bReuse = !bThere && !run.zMode &&
             !(run.bThere && memcmp(run.aThere, run.here.aHead, 16) == 0) &&
             !choirSyncChanged(&run);
    if (!bThere && pCall->err.rc == SQLITE_OK) {
      pushSend(&run, &copy, bReuse);
    }
  }
  choirSyncResult(&run, pCall, "pushed", !bThere, bThere ? 0 : copy.nByte, NULL,
                  NULL);
  if (copy.fd >= 0) {
    close(copy.fd);
  }
  pushEnd(&run);
}

static const ChoirFunc aPushFunc[] = {
    {"sync_push", 0, 2, CHOIR_EFFECT, 0, pushFunc, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirPushRegister(ChoirConn *pConn,
                                                ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aPushFunc);
}
