/* SPDX-License-Identifier: MIT */
/*
** Configuration of one connection. A value comes from, in this order:
** choir_config(key, value) · the environment · $XDG_CONFIG_HOME/choir/config
** (`key = value` lines, refused unless only its owner may read it) · the
** default. Nothing is read from the database file. What the environment says is
** looked up at each use, so that a host may change it.
**
** choir_config() and choir_settings are the SQL surface; docs/reference/
** config.md is generated from aConfigKey.
*/
#include "core.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#if !defined(_WIN32)
#include <fcntl.h>
#include <unistd.h>
#endif

enum {
  CONFIG_SECRET = 1, /* shown masked */
  CONFIG_FIXED = 2,  /* of the environment or the config file only */
  CONFIG_USER = 4,   /* masked when there is user:password@ in it */
  CONFIG_NUMBER = 8  /* a whole number, not negative */
};

/* In the order of keys. */
static const struct {
  const char *zKey;
  const char *zEnv;     /* comma separated, the first that is set counts */
  const char *zDefault; /* NULL: unset */
  int mFlags;
  const char *zDoc;
} aConfigKey[] = {
    {"cache.max_bytes", "CHOIR_CACHE_MAX_BYTES", "67108864", CONFIG_NUMBER,
     "limit for keys and values of the cache; 0: none"},
    {"embed.cache", "CHOIR_EMBED_CACHE", NULL, 0,
     "file of vectors a service has made, kept so that no text is sent twice;"
     " off: none; unset: $XDG_CACHE_HOME/choir/embed.db"},
    {"embed.cache_bytes", "CHOIR_EMBED_CACHE_BYTES", "268435456", CONFIG_NUMBER,
     "limit of that file; what was not used for longest goes first"},
    {"embed.dimensions", "CHOIR_EMBED_DIMENSIONS", NULL, CONFIG_NUMBER,
     "length of vectors to ask a service for; unset: the model's own"},
    {"embed.document_prefix", "CHOIR_EMBED_DOCUMENT_PREFIX", NULL, 0,
     "put before a document, as some models want: 'passage: '"},
    {"embed.model", "CHOIR_EMBED_MODEL", NULL, 0,
     "model of the service; unset: text-embedding-3-small of openai, all-minilm"
     " of ollama"},
    {"embed.provider", "CHOIR_EMBED_PROVIDER", "hash-384", 0,
     "what turns text into vectors: hash-384 (built in, lexical) or a service:"
     " openai, ollama, tei"},
    {"embed.query_prefix", "CHOIR_EMBED_QUERY_PREFIX", NULL, 0,
     "put before a query, as some models want: 'query: '"},
    {"embed.truncate", "CHOIR_EMBED_TRUNCATE", "0", CONFIG_NUMBER,
     "1: a service may cut texts that are too long for its model; 0: an error"},
    {"embed.url", "CHOIR_EMBED_URL", NULL, 0,
     "where the service is; unset: OPENAI_BASE_URL or"
     " https://api.openai.com/v1, OLLAMA_HOST or http://127.0.0.1:11434,"
     " http://127.0.0.1:8080 for tei"},
    {"http.allow", "CHOIR_HTTP_ALLOW", NULL, 0,
     "hosts that requests may go to, comma separated: api.test, *.test,"
     " 127.0.0.1:8080; unset: any. Those for credentials are among them"
     " (sts.<region>.amazonaws.com, 169.254.169.254 on EC2, 169.254.170.2 in a"
     " container); what the environment or the config file leaves out,"
     " choir_config() cannot add. NATS has nats.url instead"},
    {"http.attempts", "CHOIR_HTTP_ATTEMPTS,AWS_MAX_ATTEMPTS", "3",
     CONFIG_NUMBER, "how often an idempotent request is tried"},
    {"http.ca_file",
     "CHOIR_HTTP_CA_FILE,AWS_CA_BUNDLE,CURL_CA_BUNDLE,SSL_CERT_FILE", NULL, 0,
     "PEM file of the certificate authorities to trust; unset: the system's"},
    {"http.connect_timeout_ms", "CHOIR_HTTP_CONNECT_TIMEOUT_MS", "10000",
     CONFIG_NUMBER, "limit for connecting, name lookup and TLS included"},
    {"http.max_bytes", "CHOIR_HTTP_MAX_BYTES", "67108864", CONFIG_NUMBER,
     "limit for a reply that is kept in memory, after decompression; an object"
     " may be as long as SQLite lets a value be"},
    {"http.proxy", "CHOIR_HTTP_PROXY", NULL, CONFIG_SECRET,
     "proxy URL, or 'env' for http_proxy and friends; unset: none"},
    {"http.redirects", "CHOIR_HTTP_REDIRECTS", "0", CONFIG_NUMBER,
     "how many redirects http_get follows; none carries a credential to"
     " another host"},
    {"http.stall_ms", "CHOIR_HTTP_STALL_MS", "60000", CONFIG_NUMBER,
     "limit for a transfer slower than 1 KiB/s, waiting for a reply included"},
    {"http.timeout_ms", "CHOIR_HTTP_TIMEOUT_MS", "0", CONFIG_NUMBER,
     "limit for a whole call, retries included; 0: none"},
    {"libsql.token", "CHOIR_LIBSQL_TOKEN,LIBSQL_AUTH_TOKEN,TURSO_AUTH_TOKEN",
     NULL, CONFIG_SECRET | CONFIG_FIXED,
     "token that belongs to LIBSQL_URL; other URLs: choir_secret()"},
    {"libsql.url",
     "CHOIR_LIBSQL_URL,LIBSQL_URL,TURSO_CONNECTION_URL,TURSO_DATABASE_URL",
     NULL, 0, "the database that a NULL url means in libsql_* functions"},
    {"nats.ca_file", "CHOIR_NATS_CA_FILE,NATS_CA", NULL, 0,
     "PEM file of the certificate authorities to trust; unset: the system's"},
    {"nats.cert_file", "CHOIR_NATS_CERT_FILE,NATS_CERT", NULL, 0,
     "PEM file of the certificate to show to a server that asks for one"},
    {"nats.creds", "CHOIR_NATS_CREDS,NATS_CREDS", NULL, 0,
     "file of credentials (.creds), or of an nkey's seed alone"},
    {"nats.key_file", "CHOIR_NATS_KEY_FILE,NATS_KEY", NULL, 0,
     "PEM file of the key of nats.cert_file; unset: in the same file"},
    {"nats.stream", "CHOIR_NATS_STREAM", "CHOIROS", 0,
     "stream that nats_flush() publishes to"},
    {"nats.timeout_ms", "CHOIR_NATS_TIMEOUT_MS", "5000", CONFIG_NUMBER,
     "limit for connecting to a server and for each of its answers"},
    {"nats.tls", "CHOIR_NATS_TLS", "auto", 0,
     "auto: when the URL is tls:// or the server wants it; first: before the"
     " server has said anything"},
    {"nats.url", "CHOIR_NATS_URL,NATS_URL", "nats://127.0.0.1:4222",
     CONFIG_USER,
     "servers, comma separated: nats://host:4222, tls://host, ws://host/path,"
     " wss://host"},
    {"qdrant.api_key", "CHOIR_QDRANT_API_KEY,QDRANT_API_KEY", NULL,
     CONFIG_SECRET | CONFIG_FIXED,
     "key that belongs to QDRANT_URL; other URLs: choir_secret()"},
    {"qdrant.collection", "CHOIR_QDRANT_COLLECTION,QDRANT_COLLECTION",
     "artifacts", 0, "collection that the qdrant_ functions use"},
    {"qdrant.url", "CHOIR_QDRANT_URL,QDRANT_URL", "http://127.0.0.1:6333", 0,
     "where the Qdrant server is"},
    {"qdrant.vector", "CHOIR_QDRANT_VECTOR", NULL, 0,
     "name of the vector that the qdrant_ functions search and write, where"
     " points have several; unset: the one without a name"},
    {"remote", "CHOIR_REMOTE", NULL, 0,
     "where sync_push() and sync_pull() go, e.g. file:///srv/ws.sqlite"},
    {"remote.artifacts", "CHOIR_REMOTE_ARTIFACTS", NULL, 0,
     "where content over 1 MiB goes, below users/{user}/artifacts/, e.g."
     " s3://bucket/; unset: what stands before users/{user}/ in remote"},
    {"s3.conditional_bytes", "CHOIR_S3_CONDITIONAL_BYTES", "5368709120",
     CONFIG_NUMBER,
     "an object of more bytes that is put under a condition goes in parts; not"
     " every store checks conditions then"},
    {"s3.copy_bytes", "CHOIR_S3_COPY_BYTES", "5368709120", CONFIG_NUMBER,
     "an object of more bytes is copied by the store in parts, at most"
     " 5368709120 at once"},
    {"s3.multipart_bytes", "CHOIR_S3_MULTIPART_BYTES", "16777216",
     CONFIG_NUMBER, "an object of more bytes goes in parts"},
    {"s3.parallel", "CHOIR_S3_PARALLEL", "4", CONFIG_NUMBER,
     "how many parts are under way at a time, 1 to 16"},
    {"s3.part_bytes", "CHOIR_S3_PART_BYTES", "8388608", CONFIG_NUMBER,
     "bytes of a part, at least 5242880; more where 10000 would not do"},
    {"schema", "CHOIR_SCHEMA", "main", 0,
     "attached database that the workspace functions act on"},
    {"user", "CHOIR_USER", NULL, 0,
     "user id: letters, digits, '.', '_', '-'; part of remote keys"},
    {"vec.cache_bytes", "CHOIR_VEC_CACHE_BYTES", "134217728", CONFIG_NUMBER,
     "memory for the codes of each vector index on this connection"},
    {"vec.kernel", "CHOIR_VEC_KERNEL", "auto", 0,
     "distance kernels: auto or the name of a tier (see vec_kernel())"},
};
#define CONFIG_N ((int)(sizeof(aConfigKey) / sizeof(aConfigKey[0])))

typedef struct ConfigHook {
  const char *zKey;
  void (*x)(ChoirConn *, ChoirErr *, const char *);
  struct ConfigHook *pNext;
} ConfigHook;

struct ChoirConfig {
  char *azSet[CONFIG_N];  /* by choir_config() */
  char *azFile[CONFIG_N]; /* by the config file */
  u8 bRead;               /* the file was looked for */
  char *zRefused;         /* why it was not used, or NULL */
  ConfigHook *pHook;
};

CHOIR_PRIVATE void choirConfigFree(ChoirConn *pConn) {
  struct ChoirConfig *p = pConn->pConfig;
  int i;
  if (p == NULL) {
    return;
  }
  for (i = 0; i < CONFIG_N; i++) {
    sqlite3_free(p->azSet[i]);
    sqlite3_free(p->azFile[i]);
  }
  while (p->pHook) {
    ConfigHook *pHook = p->pHook;
    p->pHook = pHook->pNext;
    sqlite3_free(pHook);
  }
  sqlite3_free(p->zRefused);
  sqlite3_free(p);
  pConn->pConfig = NULL;
}

static int configKey(const char *zKey) {
  int iFrom = 0, iTo = CONFIG_N;
  while (iFrom < iTo) {
    int i = (iFrom + iTo) / 2;
    int c = strcmp(zKey, aConfigKey[i].zKey);
    if (c == 0) {
      return i;
    }
    iFrom = c > 0 ? i + 1 : iFrom;
    iTo = c > 0 ? iTo : i;
  }
  return -1;
}

static struct ChoirConfig *configGet(ChoirConn *pConn) {
  if (pConn->pConfig == NULL) {
    pConn->pConfig = sqlite3_malloc64(sizeof(struct ChoirConfig));
    if (pConn->pConfig) {
      memset(pConn->pConfig, 0, sizeof(struct ChoirConfig));
    }
  }
  return pConn->pConfig;
}

/* zVar's directory or ~/zHome, plus /choir; caller frees. */
static char *configDir(const char *zVar, const char *zHome) {
  const char *z = getenv(zVar);
  if (z && z[0] == '/') {
    return sqlite3_mprintf("%s/choir", z);
  }
  z = getenv("HOME");
  return z && z[0] == '/' ? sqlite3_mprintf("%s/%s/choir", z, zHome) : NULL;
}

static char *configPlace(ChoirErr *pErr, const char *zWhat, const char *zVar,
                         const char *zHome) {
  char *z = NULL;
  if (pErr->rc == SQLITE_OK) {
    z = configDir(zVar, zHome);
    if (z == NULL) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "no place for %s; set HOME or %s to an absolute path", zWhat,
                  zVar);
    }
  }
  return z;
}

CHOIR_PRIVATE char *choirStateDir(ChoirErr *pErr) {
  return configPlace(pErr, "state", "XDG_STATE_HOME", ".local/state");
}

CHOIR_PRIVATE char *choirCacheDir(ChoirErr *pErr) {
  return configPlace(pErr, "a cache", "XDG_CACHE_HOME", ".cache");
}

CHOIR_PRIVATE void choirStateFolder(ChoirErr *pErr, const char *zFile) {
#if !defined(_WIN32)
  char *zDir = choirMprintf(pErr, "%s", zFile);
  char *z;
  for (z = zDir ? zDir + 1 : NULL; z && *z && pErr->rc == SQLITE_OK; z++) {
    if (*z == '/') {
      *z = 0;
      if (mkdir(zDir, 0700) != 0 && errno != EEXIST) {
        choirErrSet(pErr, SQLITE_CANTOPEN, "cannot create the folder %s: %s",
                    zDir, strerror(errno));
      }
      *z = '/';
    }
  }
  sqlite3_free(zDir);
#else
  (void)pErr, (void)zFile;
#endif
}

static char *configTrim(char *z) {
  size_t n;
  while (*z == ' ' || *z == '\t') {
    z++;
  }
  n = strlen(z);
  while (n && (z[n - 1] == ' ' || z[n - 1] == '\t' || z[n - 1] == '\r')) {
    z[--n] = 0;
  }
  return z;
}

/* `key = value` lines; '#' starts a comment line; unknown keys are kept for
** rooms to come and ignored. */
static void configParse(struct ChoirConfig *p, char *z) {
  while (z) {
    char *zNext = strchr(z, '\n');
    char *zEq;
    if (zNext) {
      *zNext++ = 0;
    }
    z = configTrim(z);
    zEq = strchr(z, '=');
    if (*z != '#' && zEq) {
      int i;
      *zEq = 0;
      i = configKey(configTrim(z));
      if (i >= 0) {
        sqlite3_free(p->azFile[i]);
        p->azFile[i] = sqlite3_mprintf("%s", configTrim(zEq + 1));
      }
    }
    z = zNext;
  }
}

static void configRead(struct ChoirConfig *p) {
  char *zDir = configDir("XDG_CONFIG_HOME", ".config");
  char *zFile = zDir ? sqlite3_mprintf("%s/config", zDir) : NULL;
  p->bRead = 1;
#if !defined(_WIN32)
  if (zFile) {
    int fd = open(zFile, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0) {
      char *z = NULL;
      if (st.st_mode & 077) {
        p->zRefused = sqlite3_mprintf(
            "%s is readable by others (mode %03o); run chmod 600 on it", zFile,
            (unsigned)(st.st_mode & 0777));
      } else if (!S_ISREG(st.st_mode) || st.st_size > 1 << 20) {
        p->zRefused =
            sqlite3_mprintf("%s is not a file of at most 1 MiB", zFile);
      } else if ((z = sqlite3_malloc64((u64)st.st_size + 1)) != NULL) {
        ssize_t n = read(fd, z, (size_t)st.st_size);
        z[n > 0 ? n : 0] = 0;
        configParse(p, z);
      }
      sqlite3_free(z);
    }
    if (fd >= 0) {
      close(fd);
    }
  }
#endif
  sqlite3_free(zFile);
  sqlite3_free(zDir);
}

/* The first of these variables that is set and not empty, or NULL. */
static const char *configEnv(const char *zEnv) {
  const char *z = NULL, *zComma;
  char zName[64];
  while (z == NULL && zEnv) {
    zComma = strchr(zEnv, ',');
    if (zComma) { /* every name is shorter than zName */
      memcpy(zName, zEnv, (size_t)(zComma - zEnv));
      zName[zComma - zEnv] = 0;
    }
    z = getenv(zComma ? zName : zEnv);
    z = z && z[0] ? z : NULL;
    zEnv = zComma ? zComma + 1 : NULL;
  }
  return z;
}

/* The value of key i and where it comes from. */
static const char *configFixed(ChoirConn *pConn, int i, const char **pzSource) {
  struct ChoirConfig *p = configGet(pConn);
  const char *z = configEnv(aConfigKey[i].zEnv);
  *pzSource = "environment";
  if (z == NULL && p) {
    if (!p->bRead) {
      configRead(p);
    }
    z = p->azFile[i];
    *pzSource = "file";
  }
  if (z == NULL) {
    z = aConfigKey[i].zDefault;
    *pzSource = z ? "default" : "unset";
  }
  return z;
}

static const char *configValue(ChoirConn *pConn, int i, const char **pzSource) {
  struct ChoirConfig *p = configGet(pConn);
  const char *zSource = "session";
  const char *z =
      p && p->azSet[i] ? p->azSet[i] : configFixed(pConn, i, &zSource);
  if (pzSource) {
    *pzSource = zSource;
  }
  return z;
}

CHOIR_PRIVATE const char *choirConfigFixed(ChoirConn *pConn, const char *zKey) {
  int i = configKey(zKey);
  const char *zSource;
  return i < 0 ? NULL : configFixed(pConn, i, &zSource);
}

CHOIR_PRIVATE const char *choirConfig(ChoirConn *pConn, const char *zKey) {
  int i = configKey(zKey);
  return i < 0 ? NULL : configValue(pConn, i, NULL);
}

/* 0 to 999999999999999999, and nothing else. */
static int configIsNumber(const char *z) {
  size_t n = strspn(z, "0123456789");
  return n > 0 && n <= 18 && z[n] == 0;
}

CHOIR_PRIVATE i64 choirConfigInt(ChoirConn *pConn, const char *zKey,
                                 i64 iDefault) {
  const char *z = choirConfig(pConn, zKey);
  return z && configIsNumber(z) ? strtoll(z, NULL, 10) : iDefault;
}

CHOIR_PRIVATE int choirNameFits(const char *z) {
  size_t n = strlen(z);
  return n > 0 && n <= 128 && z[0] != '.' &&
         strspn(z, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                   "0123456789._-") == n;
}

static void configUser(ChoirConn *pConn, ChoirErr *pErr, const char *z) {
  (void)pConn;
  if (z && !choirNameFits(z)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "user must be 1 to 128 letters, digits, '.', '_' or '-' and"
                " not start with '.', got '%.200s'",
                z);
  }
}

CHOIR_PRIVATE const char *choirUser(ChoirConn *pConn, ChoirErr *pErr) {
  const char *z = choirConfig(pConn, "user");
  if (z == NULL || z[0] == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no user; set it by choir_config('user', …) or CHOIR_USER");
  }
  configUser(pConn, pErr, z);
  return pErr->rc == SQLITE_OK ? z : NULL;
}

CHOIR_PRIVATE void choirConfigHook(ChoirConn *pConn, const char *zKey,
                                   void (*x)(ChoirConn *, ChoirErr *,
                                             const char *zValue)) {
  struct ChoirConfig *p = configGet(pConn);
  ConfigHook *pHook = p ? sqlite3_malloc64(sizeof(*pHook)) : NULL;
  if (pHook) {
    pHook->zKey = zKey;
    pHook->x = x;
    pHook->pNext = p->pHook;
    p->pHook = pHook;
  }
}

/* schema: kept statements name the old one. */
static void configSchema(ChoirConn *pConn, ChoirErr *pErr, const char *zValue) {
  if (zValue && sqlite3_db_readonly(pConn->db, zValue) < 0) {
    choirErrSet(pErr, SQLITE_ERROR, "no attached database '%s'", zValue);
  }
  choirStmtFlush(pConn);
}

/* scheme://user:password@host: no room takes it, and it is not shown. */
static int configHasUser(const char *z) {
  const char *zHost = strstr(z, "://");
  return zHost && zHost[3 + strcspn(zHost + 3, "@/?#")] == '@';
}

static const char *configMasked(int i, const char *z) {
  int m = aConfigKey[i].mFlags;
  return z && (m & CONFIG_SECRET || (m & CONFIG_USER && strchr(z, '@')) ||
               configHasUser(z))
             ? "********"
             : z;
}

static int configArgKey(ChoirErr *pErr, const char *zKey) {
  const char *azKey[CONFIG_N];
  const char *zNear;
  int i = zKey ? configKey(zKey) : -1;
  if (i >= 0 || pErr->rc != SQLITE_OK || zKey == NULL) {
    return i;
  }
  for (i = 0; i < CONFIG_N; i++) {
    azKey[i] = aConfigKey[i].zKey;
  }
  zNear = choirNearest(zKey, azKey, CONFIG_N);
  choirErrSet(pErr, SQLITE_ERROR, "no setting '%s'; %s%s%s", zKey,
              zNear ? "did you mean '" : "see the table choir_settings",
              zNear ? zNear : "", zNear ? "'?" : "");
  return -1;
}

CHOIR_PRIVATE void choirConfigSet(ChoirConn *pConn, ChoirErr *pErr,
                                  const char *zKey, const char *zValue) {
  struct ChoirConfig *pConfig = configGet(pConn);
  int i = configArgKey(pErr, zKey);
  char *zCopy = zValue ? choirMprintf(pErr, "%s", zValue) : NULL;
  ConfigHook *pHook;
  if (pConfig == NULL) {
    choirErrNomem(pErr);
  }
  if (i >= 0 && zValue && (aConfigKey[i].mFlags & CONFIG_FIXED)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is taken from the environment or the config file only",
                zKey);
  }
  if (i >= 0 && zValue && (aConfigKey[i].mFlags & CONFIG_NUMBER) &&
      !configIsNumber(zValue)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is a whole number, not negative, got '%.40s'", zKey,
                zValue);
  }
  for (pHook = pErr->rc == SQLITE_OK ? pConfig->pHook : NULL;
       pHook && pErr->rc == SQLITE_OK; pHook = pHook->pNext) {
    if (strcmp(pHook->zKey, zKey) == 0) {
      pHook->x(pConn, pErr, zCopy);
    }
  }
  if (pErr->rc == SQLITE_OK) {
    sqlite3_free(pConfig->azSet[i]);
    pConfig->azSet[i] = zCopy;
  } else {
    sqlite3_free(zCopy);
  }
}

/*
** SQL: choir_config(key[, value]) -> TEXT
**
** Reads a setting of this connection, or changes it and returns the new value.
** A value of NULL goes back to the environment, the config file or the
** default. choir_settings lists every key.
**
**   key    TEXT, a name from choir_settings
**   value  TEXT, number or NULL
**
** NULL: a NULL key is an error.
** Errors: an unknown key names the nearest one; a value that the setting does
** not allow, such as text for a number.
**
** > SELECT choir_config('user', 'ada')
** = ada
** > SELECT choir_config('usr')
** ! choir_config: no setting 'usr'; did you mean 'user'?
*/
static void configFunc(ChoirCall *p) {
  const char *zKey = choirArgText(&p->err, p->apArg[0], "key");
  int i = configArgKey(&p->err, zKey);
  if (p->nArg == 2 && p->err.rc == SQLITE_OK) {
    int eType = sqlite3_value_type(p->apArg[1]);
    const char *zValue = eType == SQLITE_TEXT || eType == SQLITE_BLOB
                             ? choirArgText(&p->err, p->apArg[1], "value")
                             : (const char *)sqlite3_value_text(p->apArg[1]);
    if (zValue == NULL && eType != SQLITE_NULL) {
      choirErrNomem(&p->err);
    }
    choirConfigSet(p->pConn, &p->err, zKey, zValue);
  }
  if (p->err.rc == SQLITE_OK) {
    choirResultText(p, configMasked(i, configValue(p->pConn, i, NULL)));
  }
}

/*
** SQL: choir_settings -> TABLE(key, value, source, env, default, description)
**
** Every setting: its value on this connection (secrets masked), where that
** comes from (session, environment, file, default, unset), the environment
** names that set it, its default and its meaning.
**
** > SELECT value, source FROM choir_settings WHERE key = 'schema'
** = main|default
*/
static void configSettings(ChoirCursor *p) {
  int i;
  for (i = 0; i < CONFIG_N; i++) {
    const char *zSource;
    const char *z = configValue(p->pConn, i, &zSource);
    choirRowText(p, aConfigKey[i].zKey);
    choirRowText(p, configMasked(i, z));
    choirRowText(p, zSource);
    choirRowText(p, aConfigKey[i].zEnv);
    choirRowText(p, aConfigKey[i].zDefault);
    choirRowText(p, aConfigKey[i].zDoc);
  }
}

/* What choir_config() has set there, but for the schema. */
CHOIR_PRIVATE void choirConfigCopy(ChoirConn *pTo, ChoirErr *pErr,
                                   ChoirConn *pFrom);
CHOIR_PRIVATE void choirConfigCopy(ChoirConn *pTo, ChoirErr *pErr,
                                   ChoirConn *pFrom) {
  const struct ChoirConfig *p = pFrom->pConfig;
  int i;
  for (i = 0; p && i < CONFIG_N; i++) {
    if (p->azSet[i] && strcmp(aConfigKey[i].zKey, "schema") != 0) {
      choirConfigSet(pTo, pErr, aConfigKey[i].zKey, p->azSet[i]);
    }
  }
}

/* What the environment or the file says is not refused anywhere: it is told. */
static void configDoctorNumbers(ChoirConn *pConn, ChoirErr *pErr,
                                ChoirCursor *pCur) {
  const char *zSource;
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, CHOIR_BUF_SQL);
  for (i = 0; i < CONFIG_N; i++) {
    const char *z = aConfigKey[i].mFlags & CONFIG_NUMBER
                        ? configValue(pConn, i, &zSource)
                        : NULL;
    if (z && !configIsNumber(z)) {
      choirBufPrintf(&b, "%s%s is '%.40s' (%s)", b.n ? ", " : "",
                     aConfigKey[i].zKey, z, zSource);
    }
  }
  choirRowText(pCur, "settings");
  choirRowText(pCur, b.n ? "warn" : "ok");
  choirRowText(pCur, b.n ? b.a : "numbers are numbers");
  choirRowText(pCur, b.n ? "write whole numbers; the defaults count" : NULL);
  choirBufFree(&b);
}

static void configDoctor(ChoirConn *pConn, ChoirErr *pErr, ChoirCursor *pCur) {
  struct ChoirConfig *p = configGet(pConn);
  (void)pErr;
  configValue(pConn, 0, NULL);
  if (p && !p->bRead) {
    configRead(p);
  }
  choirRowText(pCur, "config file");
  choirRowText(pCur, p && p->zRefused ? "fail" : "ok");
  choirRowText(pCur, p && p->zRefused ? p->zRefused : "readable or absent");
  choirRowText(pCur, p && p->zRefused ? "chmod 600 the file" : NULL);
  configDoctorNumbers(pConn, pErr, pCur);
}

static const ChoirPart configPart = {.zName = "config",
                                     .xDoctor = configDoctor};

static const ChoirFunc aConfigFunc[] = {
    {"choir_config", 1, 2, CHOIR_SETTING, 0, configFunc, NULL},
};

static const ChoirTvf aConfigTvf[] = {
    {"choir_settings", "key, value, source, env, \"default\", description", 6,
     0, 0, CHOIR_READ, 0, 0, configSettings, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirConfigRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirConfigHook(pConn, "schema", configSchema);
  choirConfigHook(pConn, "user", configUser);
  choirPartAdd(pConn, &configPart);
  choirFuncs(pConn, pErr, aConfigFunc);
  choirTvfs(pConn, pErr, aConfigTvf);
}
