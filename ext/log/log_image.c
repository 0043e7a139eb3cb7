/* SPDX-License-Identifier: MIT */
/*
** Triggers that keep rows as they were, for log_undo().
**
** A tracked table has a table of images, _choir_undo_<id>(n, tag, k, r, c1…):
**
**   n       order; later images have greater numbers
**   tag     the last record of the log when the image was made
**   k       how many columns it has: c1 to ck hold a row as it was, r its rowid;
**           0 there was no row of this key; -1 no row had a greater key, -2 nor
**           the key -1; -3 changes before this went unrecorded
**   c1…     values as stored, in columns without a type: bit for bit
**
** An image is a fact about the moment in which it was made. Hence it may be
** made in BEFORE triggers, in the order in which things happen, and does no harm
** when the statement then changes nothing: what a row was like after record S
** is its first image with a tag of at least S, and without one, what it is now.
**
** Which key SQLite will choose for a row is not known before it is inserted
** (NEW has -1). But it is greater than every key there is: that is the image.
** Only when the greatest possible rowid is taken does SQLite choose at random;
** a row inserted then has no image.
*/
#include "log.h"

/* Quicker than max(seq), which is an aggregate. */
#define IMAGE_TAG                                                              \
  "coalesce((SELECT seq FROM action_log ORDER BY seq DESC LIMIT 1),0)"

static int imageIsKey(const ChoirLogShape *p, const char *zColumn) {
  int i;
  for (i = 0; i < p->nKey; i++) {
    if (!p->bPseudo &&
        sqlite3_stricmp(choirLogKeyColumn(p, i)->zName, zColumn) == 0) {
      return 1;
    }
  }
  return 0;
}

/* INSERT INTO _choir_undo_1(tag,k,r,c1,…): all columns, or those of the key. */
static void imageInto(ChoirBuf *b, const ChoirLogShape *p, int bKey) {
  const ChoirLogImages *s = p->pImages;
  int i;
  choirBufPrintf(b, "INSERT INTO _choir_undo_%lld(tag,k", s->id);
  if (p->bPseudo || (!bKey && p->zRowid && !p->bRowid)) {
    choirBufText(b, ",r");
  }
  for (i = 0; i < s->nName; i++) {
    if (s->azName[i] && (!bKey || imageIsKey(p, s->azName[i]))) {
      choirBufPrintf(b, ",c%d", i + 1);
    }
  }
  choirBufText(b, ")");
}

/* The values for these columns, from zRow. */
static void imageValues(ChoirBuf *b, const ChoirLogShape *p, int bKey,
                        const char *zRow) {
  const ChoirLogImages *s = p->pImages;
  int i;
  if (p->bPseudo || (!bKey && p->zRowid && !p->bRowid)) {
    choirBufPrintf(b, ",%s.%s", zRow, p->zRowid);
  }
  for (i = 0; i < s->nName; i++) {
    if (s->azName[i] && (!bKey || imageIsKey(p, s->azName[i]))) {
      char *z = choirLogQuote(b->pErr, s->azName[i]);
      choirBufPrintf(b, ",%s.%s", zRow, z);
      sqlite3_free(z);
    }
  }
}

/* Keeps OLD. */
static void imageOld(ChoirBuf *b, const ChoirLogShape *p) {
  imageInto(b, p, 0);
  choirBufPrintf(b, "VALUES(" IMAGE_TAG ",%d", p->pImages->nName);
  imageValues(b, p, 0, "OLD");
  choirBufText(b, ");");
}

/* Keeps rows of the table; the caller appends FROM and WHERE. */
static void imageSelect(ChoirBuf *b, const ChoirLogShape *p) {
  imageInto(b, p, 0);
  choirBufPrintf(b, "SELECT " IMAGE_TAG ",%d", p->pImages->nName);
  imageValues(b, p, 0, p->zTable);
}

CHOIR_PRIVATE void choirLogImageConflict(ChoirBuf *b, const ChoirLogShape *p,
                                         const ChoirLogIndex *pIdx,
                                         int bUpdate) {
  if (p->pImages) {
    imageSelect(b, p);
    choirLogConflict(b, p, pIdx, bUpdate);
    choirBufText(b, ";");
  }
}

/* Keeps the row whose key NEW takes, or that there is none. */
static void imageTaken(ChoirBuf *b, const ChoirLogShape *p, int bUpdate) {
  imageSelect(b, p);
  choirBufPrintf(b, " FROM %s WHERE ", p->zTable);
  choirLogSlot(b, p, p->zTable, "NEW");
  if (bUpdate) {
    choirBufText(b, " AND NOT(");
    choirLogSlot(b, p, p->zTable, "OLD");
    choirBufText(b, ")");
  }
  choirBufText(b, ";");
  imageInto(b, p, 1);
  choirBufText(b, "SELECT " IMAGE_TAG ",0");
  imageValues(b, p, 1, "NEW");
  choirBufPrintf(b, " WHERE NOT EXISTS(SELECT 1 FROM %s WHERE ", p->zTable);
  choirLogSlot(b, p, p->zTable, "NEW");
  choirBufText(b, ");");
}

/* The same where SQLite may choose the key: the greatest one says it. */
static void imageTakenRowid(ChoirBuf *b, const ChoirLogShape *p) {
  const char *z = choirLogKeyColumn(p, 0)->zSql;
  imageInto(b, p, 1);
  choirBufPrintf(b,
                 "SELECT " IMAGE_TAG ",CASE WHEN NEW.%s<>-1 THEN 0 WHEN"
                 " EXISTS(SELECT 1 FROM %s WHERE %s=-1) THEN -1 ELSE -2 END,"
                 "CASE WHEN NEW.%s<>-1 THEN NEW.%s ELSE"
                 " coalesce((SELECT max(%s) FROM %s),-9223372036854775808) END"
                 " WHERE NEW.%s=-1 OR NOT EXISTS(SELECT 1 FROM %s WHERE"
                 " %s=NEW.%s);",
                 z, p->zTable, z, z, z, z, p->zTable, z, p->zTable, z, z);
  imageSelect(b, p);
  choirBufPrintf(b, " FROM %s WHERE %s.%s=NEW.%s;", p->zTable, p->zTable, z, z);
}

CHOIR_PRIVATE void choirLogImageInsert(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufPrintf(b, "BEFORE INSERT ON %s BEGIN ", p->zTable);
  if (p->bRowid) {
    imageTakenRowid(b, p);
  } else {
    imageTaken(b, p, 0);
  }
  choirBufText(b, "END");
}

CHOIR_PRIVATE void choirLogImageUpdate(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufText(b, "BEFORE UPDATE");
  choirLogOf(b, p, 5);
  choirBufPrintf(b, " ON %s WHEN NOT(", p->zTable);
  choirLogUnchanged(b, p);
  choirBufText(b, ") BEGIN ");
  imageOld(b, p);
  choirBufText(b, "END");
}

CHOIR_PRIVATE void choirLogImageDelete(ChoirBuf *b, const ChoirLogShape *p) {
  choirBufPrintf(b, "BEFORE DELETE ON %s BEGIN ", p->zTable);
  imageOld(b, p);
  choirBufText(b, "END");
}

/* A changed key takes the place of another row, or a free one. */
CHOIR_PRIVATE void choirLogImageKey(ChoirBuf *b, const ChoirLogShape *p) {
  int i;
  choirBufText(b, "BEFORE UPDATE");
  choirLogOf(b, p, 1);
  choirBufPrintf(b, " ON %s WHEN NOT(", p->zTable);
  for (i = 0; i < p->nKey; i++) {
    const char *z = choirLogKeyColumn(p, i)->zSql;
    choirBufPrintf(b, "%sOLD.%s IS NEW.%s", i ? " AND " : "", z, z);
    choirLogCollate(b, choirLogKeyColumn(p, i), p->aKey[i].zColl);
  }
  choirBufText(b, ") BEGIN ");
  imageTaken(b, p, 1);
  choirBufText(b, "END");
}
