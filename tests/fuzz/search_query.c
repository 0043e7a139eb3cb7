/* SPDX-License-Identifier: MIT */
/* A query of any bytes: FTS5 takes what is made of it, the score is finite, the
** passage shown is short and valid; and choir_search itself. */
#include "fuzz.h"
#include "../../ext/search/search.h"
#include <math.h>

static void searchDb(void) {
  static int bMade;
  if (!bMade) {
    bMade = 1;
    fuzzMust(fuzzDb(), "SELECT artifact_put('/tea.md', 'Green tea is steamed. "
                       "Black tea is not.'), artifact_put('/a/b', 'caf\xc3\xa9 "
                       "AND crème NEAR(3)')");
    fuzzMust(fuzzDb(), "SELECT choir_index()");
    fuzzMust(fuzzDb(), "CREATE VIRTUAL TABLE temp.ff USING fts5(t)");
  }
}

FUZZ(search_query) {
  static const char *const azStory[] = {
      "SELECT * FROM choir_search(?1)",
      "SELECT * FROM choir_search(?1, ?3)",
      "SELECT * FROM choir_search(?1, 5, 'text')",
      "SELECT * FROM choir_search(?1, 5, 'vector')",
      "SELECT * FROM choir_search('tea', 5, ?1)",
      "SELECT * FROM choir_search('tea', 5, 'text', ?1)",
      "SELECT artifact_put('/fuzz', ?1); SELECT * FROM choir_search('tea')",
      "SELECT artifact_put('/fuzz', ?1); SELECT choir_index();"
      " SELECT * FROM choir_search(?1, 3); SELECT choir_check()",
      "SELECT * FROM embed_chunks(?1, '{\"bytes\":64,\"overlap\":9}')",
      "SELECT * FROM embed_chunks('a b c', ?1)",
      "SELECT * FROM embed_each(?1)",
      "SELECT hex(embed(?1)), hex(embed('a', ?1))",
      "SELECT rrf(?4, ?4, ?4), rrf(?3, 1, ?3)",
      NULL};
  FuzzIn in = {a, n};
  u64 nQuery, nText;
  char *zQuery, *zText, *z;
  ChoirErr err = {SQLITE_OK, NULL};
  SearchTerms terms;
  sqlite3_stmt *p = NULL;
  double r;
  int bAll, i;
  searchDb();
  fuzzByte(&in);
  zQuery = fuzzPart(&in, &nQuery);
  zText = fuzzPart(&in, &nText);
  choirSearchTerms(&terms, zQuery, (i64)nQuery);
  choirSearchNear(&terms, &err, zText, (i64)nText);
  choirSearchMend(&terms);
  for (i = 0; i < terms.n; i++) {
    terms.a[i].nDf = i;
  }
  choirSearchWeigh(&terms, 40);
  r = choirSearchScore(&terms, zText, (i64)nText, &bAll);
  MUST(isfinite(r) && r >= 0);
  z = choirSearchMatch(
      &terms, &err, terms.n < 32 ? ((u32)1 << terms.n) - 1 : (u32)-1, " OR ");
  if (z && terms.n) {
    MUST(sqlite3_prepare_v2(fuzzDb(), "SELECT 1 FROM temp.ff WHERE ff MATCH ?1",
                            -1, &p, NULL) == SQLITE_OK);
    sqlite3_bind_text(p, 1, z, -1, SQLITE_STATIC);
    MUST(sqlite3_step(p) == SQLITE_DONE);
    sqlite3_finalize(p);
  }
  sqlite3_free(z);
  z = choirSearchPreview(&terms, &err, zText, (i64)nText);
  MUST(z == NULL || (strlen(z) < 600 && strchr(z, '\n') == NULL));
  sqlite3_free(z);
  choirSearchTermsFree(&terms);
  choirErrClear(&err);
  sqlite3_free(zQuery);
  sqlite3_free(zText);
  fuzzStory(fuzzDb(), azStory, a, n);
}
