/* SPDX-License-Identifier: MIT */
/*
** Secrets: credentials that live in this process's memory, on one connection,
** and nowhere else. A room asks for the one whose scope covers the URL it is
** about to reach; without a scope that covers it nothing is attached.
**
** choir_secret() and choir_secrets are the SQL surface. What may be shown of a
** secret is an allow-list (azSecretPublic): a field is hidden unless it is
** named there. Secrets are parsed on a private connection (core_json.c) and
** overwritten before their memory is given back.
*/
#include "core.h"
#include <stdlib.h>

/* Fields that are not secret. They are also the ones that provider env takes
** literally; the others name an environment variable. */
static const char *const azSecretPublic[] = {
    "type",      "provider", "scope", "region",      "endpoint",
    "url_style", "profile",  "url",   "sts_endpoint"};
#define SECRET_PUBLIC_N (int)(sizeof(azSecretPublic) / sizeof(char *))

static const char *const azSecretType[] = {
    "http", "libsql", "nats", "presign", "qdrant", "s3", "sync"};
#define SECRET_TYPE_N (int)(sizeof(azSecretType) / sizeof(char *))

static const char *const azSecretProvider[] = {"config", "env", "chain",
                                               "none"};

typedef struct SecretField {
  char *zKey, *zValue;
} SecretField;

struct ChoirSecret {
  char *zName;
  SecretField *aField;
  int nField, nAlloc;
  struct ChoirSecret *pNext;
};

typedef struct SecretState {
  ChoirSecret *pFirst;
  i64 iGeneration;
} SecretState;

CHOIR_PRIVATE void choirWipe(void *p, u64 n) {
  volatile u8 *a = p;
  while (n-- > 0) {
    *a++ = 0;
  }
}

CHOIR_PRIVATE void choirWipeFree(char *z) {
  if (z) {
    choirWipe(z, strlen(z));
    sqlite3_free(z);
  }
}

static void secretFree(ChoirSecret *p) {
  int i;
  if (p == NULL) {
    return;
  }
  for (i = 0; i < p->nField; i++) {
    sqlite3_free(p->aField[i].zKey);
    choirWipeFree(p->aField[i].zValue);
  }
  sqlite3_free(p->aField);
  sqlite3_free(p->zName);
  sqlite3_free(p);
}

static void secretStateFree(void *pArg) {
  SecretState *pState = pArg;
  while (pState->pFirst) {
    ChoirSecret *p = pState->pFirst;
    pState->pFirst = p->pNext;
    secretFree(p);
  }
}

static const ChoirStateType secretState = {"secret", sizeof(SecretState),
                                           secretStateFree};

static int secretPublic(const char *zKey) {
  int i;
  for (i = 0; i < SECRET_PUBLIC_N; i++) {
    if (strcmp(azSecretPublic[i], zKey) == 0) {
      return 1;
    }
  }
  return 0;
}

/* -------------------------------------------------------------- the C API */

/* The i-th value of field zKey as written, or NULL. */
static const char *secretField(const ChoirSecret *p, const char *zKey, int i) {
  int j;
  for (j = 0; j < p->nField; j++) {
    if (strcmp(p->aField[j].zKey, zKey) == 0 && i-- == 0) {
      return p->aField[j].zValue;
    }
  }
  return NULL;
}

/* What a field gives: provider env keeps the name of a variable in it. */
static const char *secretValue(const ChoirSecret *p,
                               const SecretField *pField) {
  const char *z = pField->zValue;
  if (!secretPublic(pField->zKey) &&
      strcmp(choirSecretGet(p, "provider"), "env") == 0) {
    z = getenv(z);
    z = z && z[0] ? z : NULL;
  }
  return z;
}

CHOIR_PRIVATE const char *choirSecretGet(const ChoirSecret *p,
                                         const char *zKey) {
  int i;
  for (i = 0; p && i < p->nField; i++) {
    if (strcmp(p->aField[i].zKey, zKey) == 0) {
      return secretValue(p, &p->aField[i]);
    }
  }
  return NULL;
}

CHOIR_PRIVATE int choirSecretNth(const ChoirSecret *p, int i,
                                 const char **pzKey, const char **pzValue) {
  if (p == NULL || i >= p->nField) {
    return 0;
  }
  *pzKey = p->aField[i].zKey;
  *pzValue = secretValue(p, &p->aField[i]);
  return 1;
}

CHOIR_PRIVATE const char *choirSecretName(const ChoirSecret *p) {
  return p->zName;
}

CHOIR_PRIVATE i64 choirSecretGeneration(ChoirConn *pConn, ChoirErr *pErr) {
  SecretState *pState = choirState(pConn, pErr, &secretState);
  return pState ? pState->iGeneration : 0;
}

/* Does zScope cover zUrl? A scope ends at the end of a name: `https://a.b`
** covers https://a.b/c, never https://a.b.c/ or https://a.b:8443/. */
static int secretCovers(const char *zScope, const char *zUrl) {
  size_t n = strlen(zScope);
  if (strncmp(zScope, zUrl, n) != 0) {
    return 0;
  }
  return n == 0 || zScope[n - 1] == '/' || zUrl[n] == 0 || zUrl[n] == '/' ||
         zUrl[n] == '?' || zUrl[n] == '#';
}

CHOIR_PRIVATE const ChoirSecret *choirSecretFor(ChoirConn *pConn,
                                                ChoirErr *pErr,
                                                const char *zType,
                                                const char *zUrl) {
  SecretState *pState = choirState(pConn, pErr, &secretState);
  const ChoirSecret *p, *pBest = NULL;
  size_t nBest = 0;
  const char *zScope;
  int i;
  for (p = pState ? pState->pFirst : NULL; p; p = p->pNext) {
    if (strcmp(choirSecretGet(p, "type"), zType) != 0) {
      continue;
    }
    for (i = 0; (zScope = secretField(p, "scope", i)) != NULL; i++) {
      if (secretCovers(zScope, zUrl) &&
          (pBest == NULL || strlen(zScope) > nBest)) {
        pBest = p;
        nBest = strlen(zScope);
      }
    }
  }
  return pBest;
}

CHOIR_PRIVATE const ChoirSecret *choirSecretNamed(ChoirConn *pConn,
                                                  ChoirErr *pErr,
                                                  const char *zType,
                                                  const char *zName) {
  SecretState *pState = choirState(pConn, pErr, &secretState);
  const ChoirSecret *p = pState ? pState->pFirst : NULL;
  while (p && (strcmp(choirSecretGet(p, "type"), zType) != 0 ||
               strcmp(p->zName, zName) != 0)) {
    p = p->pNext;
  }
  return p;
}

/* ---------------------------------------------------------------- parsing */

static void secretAdd(ChoirErr *pErr, ChoirSecret *p, const char *zKey,
                      const char *zValue) {
  if (pErr->rc == SQLITE_OK && p->nField == p->nAlloc) {
    int nNew = p->nAlloc ? p->nAlloc * 2 : 8;
    void *a = choirRealloc(pErr, p->aField, (u64)nNew * sizeof(SecretField));
    if (a) {
      p->aField = a;
      p->nAlloc = nNew;
    }
  }
  if (pErr->rc == SQLITE_OK) {
    SecretField *pField = &p->aField[p->nField];
    pField->zKey = choirMprintf(pErr, "%s", zKey);
    pField->zValue = choirMprintf(pErr, "%s", zValue);
    if (pErr->rc == SQLITE_OK) {
      p->nField++;
    } else {
      sqlite3_free(pField->zKey); /* the value came last and is NULL */
    }
  }
}

/* What choir_secret() has made there. */
CHOIR_PRIVATE void choirSecretCopy(ChoirConn *pTo, ChoirErr *pErr,
                                   ChoirConn *pFrom);
CHOIR_PRIVATE void choirSecretCopy(ChoirConn *pTo, ChoirErr *pErr,
                                   ChoirConn *pFrom) {
  SecretState *pState = choirState(pFrom, pErr, &secretState);
  SecretState *pNew = choirState(pTo, pErr, &secretState);
  ChoirSecret **pp = pNew ? &pNew->pFirst : NULL;
  const ChoirSecret *p;
  for (p = pState ? pState->pFirst : NULL; p && pErr->rc == SQLITE_OK;
       p = p->pNext) {
    ChoirSecret *pCopy = choirMalloc(pErr, sizeof(*pCopy));
    int i;
    if (pCopy == NULL) {
      return;
    }
    *pp = pCopy;
    pp = &pCopy->pNext;
    pCopy->zName = choirMprintf(pErr, "%s", p->zName);
    for (i = 0; i < p->nField; i++) {
      secretAdd(pErr, pCopy, p->aField[i].zKey, p->aField[i].zValue);
    }
  }
}

static int secretIn(const char *z, const char *const *az, int n) {
  int i;
  for (i = 0; i < n; i++) {
    if (strcmp(az[i], z) == 0) {
      return 1;
    }
  }
  return 0;
}

/* A secret that nothing could ever use is an error: what it was to protect would
** go unprotected. */
static void secretCheckType(ChoirErr *pErr, const ChoirSecret *p) {
  const char *zType = secretField(p, "type", 0);
  const char *zProvider = secretField(p, "provider", 0);
  if (zType == NULL || !secretIn(zType, azSecretType, SECRET_TYPE_N)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s%.40s%s; it is http, libsql, nats, presign, qdrant, s3 or"
                " sync",
                zType ? "no type '" : "the secret has no type",
                zType ? zType : "", zType ? "'" : "");
  } else if (!secretIn(zProvider, azSecretProvider, 4)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "no provider '%s'; it is config, env, chain or none",
                zProvider);
  } else if (strcmp(zProvider, "chain") == 0 && strcmp(zType, "s3") != 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "provider chain is for type s3, this secret's is '%s'", zType);
  }
}

static void secretCheckScope(ChoirErr *pErr, ChoirSecret *p) {
  const char *zScope;
  int i;
  if (pErr->rc == SQLITE_OK && secretField(p, "scope", 0) == NULL) {
    const char *zType = secretField(p, "type", 0);
    if (strcmp(zType, "s3") == 0) {
      secretAdd(pErr, p, "scope", "s3://");
    } else {
      choirErrSet(pErr, SQLITE_ERROR,
                  "type %s needs a scope; add \"scope\":\"https://host/\"",
                  zType);
    }
  }
  for (i = 0;
       pErr->rc == SQLITE_OK && (zScope = secretField(p, "scope", i)) != NULL;
       i++) {
    if (strstr(zScope, "://") == NULL) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "a scope is the beginning of URLs, such as s3://bucket/ or"
                  " https://host/");
    }
  }
}

/* Type, provider and scope are there and make sense. */
static void secretCheck(ChoirErr *pErr, ChoirSecret *p) {
  if (secretField(p, "provider", 0) == NULL) {
    secretAdd(pErr, p, "provider", "config");
  }
  if (pErr->rc == SQLITE_OK) {
    secretCheckType(pErr, p);
    secretCheckScope(pErr, p);
  }
}

/* Fields of a JSON object, one level deep: {"a":{"b":1}} gives a.b, an array
** repeats its key. */
static ChoirSecret *secretParse(ChoirConn *pConn, ChoirErr *pErr,
                                const char *zName, const char *zJson) {
  ChoirSecret *p = choirMalloc(pErr, sizeof(*p));
  sqlite3_stmt *pStmt;
  int rc;
  if (p == NULL) {
    return NULL;
  }
  p->zName = choirMprintf(pErr, "%s", zName);
  /* json_type(), for json_valid() is 0 when memory runs out, too. */
  pStmt = choirJsonStmt(pConn, pErr, "SELECT json_type(?1)", zJson, -1);
  rc = pErr->rc == SQLITE_OK ? sqlite3_step(pStmt) & 0xff : SQLITE_OK;
  if (rc == SQLITE_NOMEM) {
    choirErrNomem(pErr);
  } else if (rc == SQLITE_ERROR ||
             (rc == SQLITE_ROW &&
              sqlite3_stricmp((const char *)sqlite3_column_text(pStmt, 0),
                              "object") != 0)) {
    choirErrSet(pErr, SQLITE_ERROR, "the secret is not a JSON object");
  }
  sqlite3_finalize(pStmt);
  pStmt = choirJsonStmt(
      pConn, pErr,
      "SELECT key, atom FROM json_each(?1) WHERE atom IS NOT NULL"
      " UNION ALL SELECT iif(o.type='object', o.key||'.'||i.key, o.key), i.atom"
      " FROM json_each(?1) o, json_each(iif(o.type IN ('object','array'),"
      " o.value, '[]')) i WHERE i.atom IS NOT NULL",
      zJson, -1);
  while (choirStep(pErr, pStmt)) {
    const char *zKey = (const char *)sqlite3_column_text(pStmt, 0);
    const char *zValue = (const char *)sqlite3_column_text(pStmt, 1);
    if (zKey == NULL || zValue == NULL) {
      choirErrNomem(pErr);
    } else {
      secretAdd(pErr, p, zKey, zValue);
    }
  }
  sqlite3_finalize(pStmt);
  if (pErr->rc == SQLITE_OK) {
    secretCheck(pErr, p);
  }
  if (pErr->rc != SQLITE_OK) {
    secretFree(p);
    p = NULL;
  }
  return p;
}

/*
** SQL: choir_secret(name, json) -> TEXT
**
** Gives this connection a credential, in memory only, and returns its name.
** The same name replaces it; NULL as json forgets it. It is attached to a
** request only when one of its scopes covers the URL; the longest scope wins.
**
**   name  TEXT
**   json  TEXT, an object: type (s3, http, presign, qdrant, nats, libsql, sync),
**         scope (a URL prefix or an array of them; s3 defaults to "s3://"),
**         provider, and the fields of the type:
**         s3    access_key, secret_key, session_token, region, endpoint,
**               url_style (path or vhost), profile, sts_endpoint
**         http  bearer_token, or headers: an object of header names and values
**         nats  creds (the text of a .creds file), creds_file, nkey (a seed),
**               token, or user and password; scope nats://host:port
**         sync  key (32 bytes in hexadecimal or base64) or passphrase, or arrays
**               of them: folder remotes in the scope are encrypted
**
**   provider  config  the fields are the values (the default)
**             env     the fields name environment variables, read at each use
**             chain   s3: environment, web identity, shared files with
**                     source_profile and credential_process, ECS, IMDSv2
**             none    s3: requests are not signed
**
** Bind the JSON rather than writing it into the statement: SQL text ends up in
** shell histories and traces.
**
** NULL: a NULL name is an error.
** Errors: not a JSON object; no type or an unknown one; no scope where one is
** needed, or one that is no URL; an unknown provider. No message shows a secret.
**
** > SELECT choir_secret('data', '{"type":"s3","provider":"env",
** >   "access_key":"MY_KEY","secret_key":"MY_SECRET","region":"eu-west-1",
** >   "scope":"s3://data/"}')
** = data
** > SELECT choir_secret('data', '{"type":"http"}')
** ! choir_secret: type http needs a scope; add "scope":"https://host/"
*/
static void secretFunc(ChoirCall *pCall) {
  const char *zName = choirArgText(&pCall->err, pCall->apArg[0], "name");
  const char *zJson = choirArgTextOrNull(&pCall->err, pCall->apArg[1], "json");
  SecretState *pState = choirState(pCall->pConn, &pCall->err, &secretState);
  ChoirSecret *pNew = NULL, **pp;
  if (zJson && pCall->err.rc == SQLITE_OK) {
    pNew = secretParse(pCall->pConn, &pCall->err, zName, zJson);
  }
  if (pCall->err.rc != SQLITE_OK) {
    return;
  }
  for (pp = &pState->pFirst; *pp; pp = &(*pp)->pNext) {
    if (strcmp((*pp)->zName, zName) == 0) {
      ChoirSecret *pOld = *pp;
      *pp = pOld->pNext;
      secretFree(pOld);
      break;
    }
  }
  if (pNew) {
    pNew->pNext = pState->pFirst;
    pState->pFirst = pNew;
  }
  pState->iGeneration++;
  choirResultText(pCall, zName);
}

/*
** SQL: choir_secrets -> TABLE(name, type, provider, scope, settings, hidden)
**
** The secrets of this connection without their values. settings is a JSON
** object of the fields that are not secret, hidden the names of the others;
** several scopes are joined by a space.
**
** > SELECT choir_secret('api', '{"type":"http","scope":"https://api.test/",
** >   "bearer_token":"s3cr3t"}');
** > SELECT name, type, scope, hidden FROM choir_secrets
** = api|http|https://api.test/|bearer_token
*/
static void secretList(ChoirCursor *pCur) {
  SecretState *pState = choirState(pCur->pConn, &pCur->err, &secretState);
  const ChoirSecret *p;
  for (p = pState ? pState->pFirst : NULL; p; p = p->pNext) {
    ChoirBuf aBuf[3]; /* scope, settings, hidden */
    int i;
    for (i = 0; i < 3; i++) {
      choirBufInit(&aBuf[i], &pCur->err, CHOIR_BUF_SQL);
      choirBufText(&aBuf[i], "");
    }
    for (i = 0; i < p->nField; i++) {
      const SecretField *pField = &p->aField[i];
      if (strcmp(pField->zKey, "type") == 0 ||
          strcmp(pField->zKey, "provider") == 0) {
        continue;
      }
      if (strcmp(pField->zKey, "scope") == 0) {
        choirBufText(&aBuf[0], aBuf[0].n ? " " : "");
        choirBufText(&aBuf[0], pField->zValue);
      } else if (secretPublic(pField->zKey)) {
        choirBufText(&aBuf[1], aBuf[1].n ? "," : "{");
        choirBufJson(&aBuf[1], pField->zKey, -1);
        choirBufText(&aBuf[1], ":");
        choirBufJson(&aBuf[1], pField->zValue, -1);
      } else {
        choirBufText(&aBuf[2], aBuf[2].n ? ", " : "");
        choirBufText(&aBuf[2], pField->zKey);
      }
    }
    choirBufText(&aBuf[1], aBuf[1].n ? "}" : "{}");
    choirRowText(pCur, p->zName);
    choirRowText(pCur, choirSecretGet(p, "type"));
    choirRowText(pCur, choirSecretGet(p, "provider"));
    for (i = 0; i < 3; i++) {
      choirRowText(pCur, aBuf[i].a);
      choirBufFree(&aBuf[i]);
    }
  }
}

static const ChoirFunc aSecretFunc[] = {
    {"choir_secret", 2, 2, CHOIR_SETTING, 0, secretFunc, NULL},
};

static const ChoirTvf aSecretTvf[] = {
    {"choir_secrets", "name, type, provider, scope, settings, hidden", 6, 0, 0,
     CHOIR_READ, 0, 0, secretList, NULL, NULL, NULL},
};

CHOIR_PRIVATE CHOIR_COLD void choirSecretRegister(ChoirConn *pConn,
                                                  ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aSecretFunc);
  choirTvfs(pConn, pErr, aSecretTvf);
}
