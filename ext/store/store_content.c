/* SPDX-License-Identifier: MIT */
/*
** An artifact's content in pieces, for whoever writes it somewhere else. TEXT
** and small BLOBs are held by a statement; a large BLOB is read through a
** handle, so that it never lies in memory as a whole.
*/
#include "store.h"

#define CONTENT_WHOLE ((i64)16 << 20) /* larger BLOBs are streamed */

CHOIR_PRIVATE void choirStoreContentOpen(ChoirConn *pConn, ChoirErr *pErr,
                                         ChoirStoreContent *p, i64 iRowid) {
  sqlite3_stmt *pStmt =
      choirStmt(pConn, pErr,
                "SELECT CASE typeof(content) WHEN 'blob' THEN length(content)"
                " ELSE 0 END FROM ~.artifacts WHERE rowid=?1");
  i64 nBlob;
  memset(p, 0, sizeof(*p));
  p->pConn = pConn;
  choirBindInt(pErr, pStmt, 1, iRowid);
  nBlob = choirStep(pErr, pStmt) ? sqlite3_column_int64(pStmt, 0) : 0;
  choirStmtDone(pConn, pStmt);
  if (nBlob > CONTENT_WHOLE) {
    p->aChunk = choirRealloc(pErr, NULL, (u64)CHOIR_STORE_CHUNK);
    if (p->aChunk) {
      choirErrDb(pErr, pConn->db,
                 sqlite3_blob_open(pConn->db, choirSchema(pConn), "artifacts",
                                   "content", iRowid, 0, &p->pBlob));
      p->n = p->pBlob ? sqlite3_blob_bytes(p->pBlob) : 0;
    }
    return;
  }
  p->pStmt =
      choirStmt(pConn, pErr, "SELECT content FROM ~.artifacts WHERE rowid=?1");
  choirBindInt(pErr, p->pStmt, 1, iRowid);
  if (choirStep(pErr, p->pStmt)) {
    p->a = sqlite3_column_type(p->pStmt, 0) == SQLITE_BLOB
               ? sqlite3_column_blob(p->pStmt, 0)
               : (const void *)sqlite3_column_text(p->pStmt, 0);
    p->n = sqlite3_column_bytes(p->pStmt, 0);
    if (p->a == NULL && p->n > 0) {
      choirErrNomem(pErr);
    }
  }
}

CHOIR_PRIVATE const char *
choirStoreContentAt(ChoirErr *pErr, ChoirStoreContent *p, i64 i, i64 n) {
  if (p->pBlob == NULL) {
    return p->a + i;
  }
  choirErrDb(pErr, p->pConn->db,
             sqlite3_blob_read(p->pBlob, p->aChunk, (int)n, (int)i));
  return p->aChunk;
}

CHOIR_PRIVATE void choirStoreContentClose(ChoirStoreContent *p) {
  choirStmtDone(p->pConn, p->pStmt);
  sqlite3_blob_close(p->pBlob);
  sqlite3_free(p->aChunk);
  p->pStmt = NULL;
  p->pBlob = NULL;
  p->aChunk = NULL;
}
