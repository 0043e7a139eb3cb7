/* SPDX-License-Identifier: MIT */
/*
** Path rules and kinds of files. Pure functions: nothing here reads the
** database or the disk.
*/
#include "store.h"

/* One part of a path, n bytes: sticky error when it cannot be one. */
static void pathPart(ChoirErr *pErr, const char *zPath, const char *zPart,
                     size_t n, const char *zArg) {
  size_t i;
  if ((n == 1 && zPart[0] == '.') ||
      (n == 2 && zPart[0] == '.' && zPart[1] == '.')) {
    choirErrSet(pErr, SQLITE_ERROR, "%s has a part '%.*s': %.200s", zArg,
                (int)n, zPart, zPath);
  }
  for (i = 0; i < n; i++) {
    u8 c = (u8)zPart[i];
    if (c < 0x20 || c == 0x7f) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "%s has a control character 0x%02x at byte %d: %.200s", zArg,
                  c, (int)(zPart - zPath) + (int)i, zPath);
    }
  }
}

CHOIR_PRIVATE char *choirStorePath(ChoirErr *pErr, const char *zPath,
                                   const char *zArg, int eKind) {
  size_t n = zPath ? strlen(zPath) : 0;
  const char *z = zPath;
  i64 nValid;
  ChoirBuf b;
  if (pErr->rc != SQLITE_OK || zPath == NULL) {
    return NULL;
  }
  if (n == 0) {
    choirErrSet(pErr, SQLITE_ERROR, "%s is empty", zArg);
    return NULL;
  }
  nValid = choirUtf8Valid(zPath, (i64)n);
  if (nValid < (i64)n) { /* an argument is checked; this comes from a file */
    choirErrSet(pErr, SQLITE_ERROR, "%s is not valid UTF-8 at byte %lld", zArg,
                nValid);
    return NULL;
  }
  if (n > CHOIR_STORE_PATH_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG, "%s has %d bytes, the limit is %d: %.60s…",
                zArg, (int)n, CHOIR_STORE_PATH_MAX, zPath);
    return NULL;
  }
  choirBufInit(&b, pErr, CHOIR_STORE_PATH_MAX + 2);
  while (*z) {
    size_t nPart = strcspn(z, "/");
    if (nPart) {
      pathPart(pErr, zPath, z, nPart, zArg);
      choirBufText(&b, "/");
      choirBufAppend(&b, z, nPart);
    }
    z += nPart + (z[nPart] == '/');
  }
  if (eKind == CHOIR_STORE_FILE && zPath[n - 1] == '/') {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s names a directory, not a file: %.200s; leave out the last"
                " '/'",
                zArg, zPath);
  }
  if (eKind == CHOIR_STORE_DIR || zPath[n - 1] == '/') {
    choirBufText(&b, "/");
  }
  if (b.n > CHOIR_STORE_PATH_MAX) {
    choirErrSet(pErr, SQLITE_TOOBIG, "%s has %d bytes, the limit is %d: %.60s…",
                zArg, (int)b.n, CHOIR_STORE_PATH_MAX, zPath);
  }
  return choirBufTake(&b);
}

CHOIR_PRIVATE const char *choirStoreArgName(ChoirErr *pErr, sqlite3_value *v,
                                            const char *zArg) {
  const char *z = choirArgText(pErr, v, zArg);
  size_t n = z ? strlen(z) : 1;
  if (n == 0 || n > CHOIR_STORE_NAME_MAX) {
    choirErrSet(pErr, SQLITE_ERROR, "%s must have 1 to %d bytes, got %d", zArg,
                CHOIR_STORE_NAME_MAX, (int)n);
  }
  return z;
}

CHOIR_PRIVATE const char *choirStoreName(const char *zPath) {
  const char *z = strrchr(zPath, '/');
  return z ? z + 1 : zPath;
}

CHOIR_PRIVATE char *choirStoreEnd(ChoirErr *pErr, const char *zDir) {
  char *z = choirMprintf(pErr, "%s", zDir);
  if (z) {
    z[strlen(z) - 1] = '/' + 1;
  }
  return z;
}

/* Ending and type, in order of the ending. */
static const struct PathMime {
  char zEnd[10];
  const char *zMime;
} aPathMime[] = {
    {"7z", "application/x-7z-compressed"},
    {"aac", "audio/aac"},
    {"avi", "video/x-msvideo"},
    {"avif", "image/avif"},
    {"bash", "text/x-shellscript"},
    {"bin", "application/octet-stream"},
    {"bmp", "image/bmp"},
    {"bz2", "application/x-bzip2"},
    {"c", "text/x-c"},
    {"cc", "text/x-c++"},
    {"cfg", "text/plain"},
    {"conf", "text/plain"},
    {"cpp", "text/x-c++"},
    {"css", "text/css"},
    {"csv", "text/csv"},
    {"db", "application/vnd.sqlite3"},
    {"doc", "application/msword"},
    {"docx",
     "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
    {"eml", "message/rfc822"},
    {"epub", "application/epub+zip"},
    {"exe", "application/vnd.microsoft.portable-executable"},
    {"flac", "audio/flac"},
    {"gif", "image/gif"},
    {"go", "text/x-go"},
    {"gz", "application/gzip"},
    {"h", "text/x-c"},
    {"hpp", "text/x-c++"},
    {"htm", "text/html"},
    {"html", "text/html"},
    {"ico", "image/vnd.microsoft.icon"},
    {"ics", "text/calendar"},
    {"ini", "text/plain"},
    {"ipynb", "application/x-ipynb+json"},
    {"jar", "application/java-archive"},
    {"java", "text/x-java"},
    {"jpeg", "image/jpeg"},
    {"jpg", "image/jpeg"},
    {"js", "text/javascript"},
    {"json", "application/json"},
    {"jsonl", "application/jsonl"},
    {"jsx", "text/javascript"},
    {"kt", "text/x-kotlin"},
    {"log", "text/plain"},
    {"lua", "text/x-lua"},
    {"m4a", "audio/mp4"},
    {"markdown", "text/markdown"},
    {"md", "text/markdown"},
    {"mjs", "text/javascript"},
    {"mov", "video/quicktime"},
    {"mp3", "audio/mpeg"},
    {"mp4", "video/mp4"},
    {"o", "application/octet-stream"},
    {"odt", "application/vnd.oasis.opendocument.text"},
    {"ogg", "audio/ogg"},
    {"pdf", "application/pdf"},
    {"php", "text/x-php"},
    {"png", "image/png"},
    {"pptx", "application/"
             "vnd.openxmlformats-officedocument.presentationml.presentation"},
    {"ps1", "text/x-powershell"},
    {"py", "text/x-python"},
    {"rb", "text/x-ruby"},
    {"rs", "text/x-rust"},
    {"rst", "text/x-rst"},
    {"rtf", "application/rtf"},
    {"sh", "text/x-shellscript"},
    {"so", "application/octet-stream"},
    {"sql", "application/sql"},
    {"sqlite", "application/vnd.sqlite3"},
    {"svg", "image/svg+xml"},
    {"swift", "text/x-swift"},
    {"tar", "application/x-tar"},
    {"tex", "text/x-tex"},
    {"tif", "image/tiff"},
    {"tiff", "image/tiff"},
    {"toml", "application/toml"},
    {"ts", "text/typescript"},
    {"tsv", "text/tab-separated-values"},
    {"tsx", "text/typescript"},
    {"ttf", "font/ttf"},
    {"txt", "text/plain"},
    {"wasm", "application/wasm"},
    {"wav", "audio/wav"},
    {"webm", "video/webm"},
    {"webp", "image/webp"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"xhtml", "application/xhtml+xml"},
    {"xlsx",
     "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
    {"xml", "application/xml"},
    {"xz", "application/x-xz"},
    {"yaml", "application/yaml"},
    {"yml", "application/yaml"},
    {"zip", "application/zip"},
    {"zst", "application/zstd"},
};

static int pathPlainText(const void *a, i64 n) {
  return (n == 0 || memchr(a, 0, (size_t)n) == NULL) &&
         choirUtf8Valid(a, n) == n;
}

CHOIR_PRIVATE const char *choirStoreMime(const char *zPath, const void *a,
                                         i64 n) {
  const char *zEnd = strrchr(choirStoreName(zPath), '.');
  int iLow = 0, iHigh = (int)(sizeof(aPathMime) / sizeof(aPathMime[0])) - 1;
  while (zEnd && iLow <= iHigh) {
    int iMid = (iLow + iHigh) / 2;
    int c = sqlite3_stricmp(zEnd + 1, aPathMime[iMid].zEnd);
    if (c == 0) {
      return aPathMime[iMid].zMime;
    }
    iLow = c > 0 ? iMid + 1 : iLow;
    iHigh = c < 0 ? iMid - 1 : iHigh;
  }
  return (a || n == 0) && pathPlainText(a, n) ? "text/plain"
                                              : "application/octet-stream";
}

CHOIR_PRIVATE int choirStoreIsText(const char *zMime, const void *a, i64 n) {
  static const char *const azLike[] = {
      "text/%",          "%+json",           "%+xml",
      "%/json",          "application/xml",  "application/yaml",
      "application/sql", "application/toml", "application/jsonl",
      "message/rfc822",
  };
  int i, bMime = zMime == NULL;
  for (i = 0; i < (int)(sizeof(azLike) / sizeof(azLike[0])) && !bMime; i++) {
    bMime = sqlite3_strlike(azLike[i], zMime, 0) == 0;
  }
  return bMime && pathPlainText(a, n);
}
