/* SPDX-License-Identifier: MIT */
/*
** Keys of encrypted remotes, and the cipher: docs/formats.md, "Encrypted folder
** remote".
**
** The keys come from a choir_secret of type sync: `key`, 32 bytes in
** hexadecimal or base64, or `passphrase`, stretched by scrypt. Each may be an
** array: the first of all encrypts, the others decrypt what is older. A
** stretched key is kept for the connection, because stretching is slow by
** design.
**
** AES-256-GCM, scrypt and random bytes are OpenSSL's, opened when the first
** encrypted remote is. No message shows a key or a passphrase, only key ids.
*/
#include "sync.h"

#define KEY_MAX 16     /* keys in a secret */
#define KEY_PASS_MIN 8 /* bytes of a passphrase */
#define KEY_LOG2_N 17  /* of scrypt: 128 MiB, some 0.3 s */

/* OpenSSL's, whose headers are not needed: its types stay opaque. */
#define KEY_GET_TAG 0x10 /* EVP_CTRL_AEAD_GET_TAG */
#define KEY_SET_TAG 0x11

#define KEY_LIB_FUNCTIONS(X)                                                   \
  X(void *, EVP_CIPHER_CTX_new, (void))                                        \
  X(void, EVP_CIPHER_CTX_free, (void *))                                       \
  X(int, EVP_CIPHER_CTX_ctrl, (void *, int, int, void *))                      \
  X(int, EVP_CipherInit_ex,                                                    \
    (void *, const void *, void *, const u8 *, const u8 *, int))               \
  X(int, EVP_CipherUpdate, (void *, u8 *, int *, const u8 *, int))             \
  X(int, EVP_CipherFinal_ex, (void *, u8 *, int *))                            \
  X(const void *, EVP_aes_256_gcm, (void))                                     \
  X(int, EVP_PBE_scrypt,                                                       \
    (const char *, size_t, const u8 *, size_t, uint64_t, uint64_t, uint64_t,   \
     uint64_t, u8 *, size_t))                                                  \
  X(int, RAND_bytes, (u8 *, int))

typedef struct KeyLib {
#define X(type, name, params) type(*name) params;
  KEY_LIB_FUNCTIONS(X)
#undef X
} KeyLib;

typedef struct KeyOne {
  char *zPass; /* NULL: aKey is given */
  u8 aKey[32];
} KeyOne;

struct ChoirKeyring {
  ChoirConn *pConn;
  KeyLib lib;
  char *zName; /* of the secret */
  KeyOne a[KEY_MAX];
  int n;
  u8 bSalt; /* the first key is a passphrase met with this salt */
  u8 aSalt[CHOIR_KEY_SALT];
};

struct ChoirCipher {
  const KeyLib *pLib;
  void *pCtx;
  int bSeal;
};

static void keyLibOpen(ChoirErr *pErr, KeyLib *p) {
  static const char *const azFile[] = {"libcrypto.so.3", "libcrypto.so.1.1",
                                       "libcrypto.3.dylib", NULL};
#define X(type, name, params) #name,
  static const char *const azSymbol[] = {KEY_LIB_FUNCTIONS(X) NULL};
#undef X
  static const ChoirLib lib = {azFile, azSymbol,
                               "libssl3 (OpenSSL 1.1.1 or newer)"};
  choirLibOpen(pErr, &lib, p);
}

/* -------------------------------------------------------------- stretching */

#define KEY_KEPT 8

typedef struct KeyKept {
  u8 aOf[32]; /* SHA-256 of salt and passphrase */
  u8 aKey[32];
} KeyKept;

typedef struct KeyState {
  KeyKept a[KEY_KEPT];
  int n;
} KeyState;

static void keyStateFree(void *p) { choirWipe(p, sizeof(KeyState)); }

static const ChoirStateType keyState = {"sync key", sizeof(KeyState),
                                        keyStateFree};

static void keyStretch(ChoirErr *pErr, ChoirKeyring *p, const char *zPass,
                       const u8 *aSalt, u8 aKey[32]) {
  KeyState *pState = choirState(p->pConn, pErr, &keyState);
  ChoirSha256 sha;
  KeyKept *q;
  u8 aOf[32];
  int i;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  choirSha256Init(&sha);
  choirSha256Update(&sha, aSalt, CHOIR_KEY_SALT);
  choirSha256Update(&sha, zPass, strlen(zPass));
  choirSha256Final(&sha, aOf);
  for (i = 0; i < KEY_KEPT && i < pState->n; i++) {
    if (memcmp(pState->a[i].aOf, aOf, 32) == 0) {
      memcpy(aKey, pState->a[i].aKey, 32);
      return;
    }
  }
  if (p->lib.EVP_PBE_scrypt(zPass, strlen(zPass), aSalt, CHOIR_KEY_SALT,
                            (u64)1 << KEY_LOG2_N, 8, 1, (u64)1 << 28, aKey,
                            32) != 1) {
    choirErrNomem(pErr);
    return;
  }
  q = &pState->a[pState->n++ % KEY_KEPT];
  memcpy(q->aOf, aOf, 32);
  memcpy(q->aKey, aKey, 32);
}

/* ---------------------------------------------------------------- material */

/* 64 hexadecimal digits, or base64 of 32 bytes. */
static int keyDecode(ChoirErr *pErr, const char *z, u8 aKey[32]) {
  size_t n = strlen(z), i;
  ChoirBuf b;
  int bOk;
  if (n == 64) {
    for (i = 0; i < 32; i++) {
      int iHigh = choirHexDigit(z[2 * i]), iLow = choirHexDigit(z[2 * i + 1]);
      if (iHigh < 0 || iLow < 0) {
        return 0;
      }
      aKey[i] = (u8)(iHigh << 4 | iLow);
    }
    return 1;
  }
  choirBufInit(&b, pErr, 1024);
  bOk = n < 64 && choirBufUnbase64(&b, z, n) && b.n == 32;
  if (bOk) {
    memcpy(aKey, b.a, 32);
  }
  if (b.a) {
    choirWipe(b.a, b.n);
  }
  choirBufFree(&b);
  return bOk;
}

static void keyAdd(ChoirErr *pErr, ChoirKeyring *p, const char *zField,
                   const char *zValue) {
  int bPass = strcmp(zField, "passphrase") == 0;
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (zValue == NULL) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the environment variable that the %s of the secret '%s' names"
                " is not set",
                zField, p->zName);
  } else if (p->n == KEY_MAX) {
    choirErrSet(pErr, SQLITE_ERROR, "the secret '%s' has more than %d keys",
                p->zName, KEY_MAX);
  } else if (bPass && strlen(zValue) < KEY_PASS_MIN) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the passphrase of the secret '%s' has %d bytes; use %d or more"
                " (a sentence, not a word)",
                p->zName, (int)strlen(zValue), KEY_PASS_MIN);
  } else if (bPass) {
    p->a[p->n].zPass = choirMprintf(pErr, "%s", zValue);
    p->n += p->a[p->n].zPass != NULL;
  } else if (keyDecode(pErr, zValue, p->a[p->n].aKey)) {
    p->n++;
  } else {
    choirErrSet(pErr, SQLITE_ERROR,
                "the key of the secret '%s' must be 32 bytes, as 64 hexadecimal"
                " digits or in base64, got %d characters",
                p->zName, (int)strlen(zValue));
  }
}

CHOIR_PRIVATE ChoirKeyring *choirKeyringOpen(ChoirConn *pConn, ChoirErr *pErr,
                                             const char *zUrl) {
  const ChoirSecret *pSecret = choirSecretFor(pConn, pErr, "sync", zUrl);
  ChoirKeyring *p =
      pSecret && pErr->rc == SQLITE_OK ? choirMalloc(pErr, sizeof(*p)) : NULL;
  const char *zField, *zValue;
  int i;
  if (p == NULL) {
    return NULL;
  }
  p->pConn = pConn;
  p->zName = choirMprintf(pErr, "%s", choirSecretName(pSecret));
  for (i = 0; choirSecretNth(pSecret, i, &zField, &zValue); i++) {
    if (strcmp(zField, "key") == 0 || strcmp(zField, "passphrase") == 0) {
      keyAdd(pErr, p, zField, zValue);
    }
  }
  if (p->n == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the secret '%s' of type sync has neither key nor passphrase",
                p->zName);
  }
  keyLibOpen(pErr, &p->lib);
  if (pErr->rc != SQLITE_OK) {
    choirKeyringFree(p);
    p = NULL;
  }
  return p;
}

CHOIR_PRIVATE void choirKeyringFree(ChoirKeyring *p) {
  int i;
  if (p) {
    for (i = 0; i < KEY_MAX; i++) {
      choirWipeFree(p->a[i].zPass);
    }
    sqlite3_free(p->zName);
    choirWipe(p, sizeof(*p));
    sqlite3_free(p);
  }
}

CHOIR_PRIVATE void choirKeyId(const u8 aKey[32], u8 aId[CHOIR_KEY_ID]) {
  static const char zLabel[] = "choir sync key";
  u8 a[32];
  choirHmacSha256(aKey, 32, zLabel, sizeof(zLabel) - 1, a);
  memcpy(aId, a, CHOIR_KEY_ID);
}

/* The keys that there are, for a message. */
static char *keyNames(ChoirErr *pErr, ChoirKeyring *p, int eStretch,
                      const u8 *aSalt) {
  u8 aKey[32], aId[CHOIR_KEY_ID];
  char z[2 * CHOIR_KEY_ID + 1];
  ChoirBuf b;
  int i;
  choirBufInit(&b, pErr, 1024);
  for (i = 0; i < p->n && pErr->rc == SQLITE_OK; i++) {
    if ((p->a[i].zPass != NULL) != (eStretch != 0)) {
      choirBufPrintf(&b, "%s%s", b.n ? ", " : "",
                     p->a[i].zPass ? "a passphrase" : "a key");
      continue;
    }
    memcpy(aKey, p->a[i].aKey, 32);
    if (p->a[i].zPass) {
      keyStretch(pErr, p, p->a[i].zPass, aSalt, aKey);
    }
    choirKeyId(aKey, aId);
    choirHex(aId, CHOIR_KEY_ID, z);
    choirBufPrintf(&b, "%s%s", b.n ? ", " : "", z);
  }
  choirWipe(aKey, sizeof(aKey));
  return choirBufTake(&b);
}

CHOIR_PRIVATE void choirKeyringFind(ChoirErr *pErr, ChoirKeyring *p,
                                    int eStretch, const u8 *aSalt,
                                    const u8 *aId, u8 aKey[32]) {
  char z[2 * CHOIR_KEY_ID + 1], *zHave;
  u8 aGot[CHOIR_KEY_ID];
  int i;
  if (pErr->rc == SQLITE_OK && eStretch != 0 && eStretch != KEY_LOG2_N) {
    choirErrSet(pErr, SQLITE_ERROR,
                "its key is stretched in a way (%d) that this choir does not"
                " know; load a newer choir",
                eStretch);
  }
  for (i = 0; i < p->n && pErr->rc == SQLITE_OK; i++) {
    if ((p->a[i].zPass != NULL) != (eStretch != 0)) {
      continue;
    }
    memcpy(aKey, p->a[i].aKey, 32);
    if (p->a[i].zPass) {
      keyStretch(pErr, p, p->a[i].zPass, aSalt, aKey);
    }
    choirKeyId(aKey, aGot);
    if (pErr->rc == SQLITE_OK && memcmp(aGot, aId, CHOIR_KEY_ID) == 0) {
      if (i == 0 && p->a[0].zPass) {
        p->bSalt = 1;
        memcpy(p->aSalt, aSalt, CHOIR_KEY_SALT);
      }
      return;
    }
  }
  zHave = keyNames(pErr, p, eStretch, aSalt);
  choirHex(aId, CHOIR_KEY_ID, z);
  choirErrSet(pErr, SQLITE_ERROR,
              "it is encrypted with the key %s (%s) and the secret '%s' has %s;"
              " add that key to the secret",
              z, eStretch ? "of a passphrase" : "32 bytes", p->zName,
              zHave ? zHave : "");
  sqlite3_free(zHave);
}

CHOIR_PRIVATE int choirKeyringFirst(ChoirErr *pErr, ChoirKeyring *p,
                                    u8 aSalt[CHOIR_KEY_SALT], u8 aKey[32]) {
  memset(aSalt, 0, CHOIR_KEY_SALT);
  memcpy(aKey, p->a[0].aKey, 32);
  if (p->a[0].zPass == NULL) {
    return 0;
  }
  if (!p->bSalt) {
    choirKeyRandom(pErr, p, p->aSalt, CHOIR_KEY_SALT);
    p->bSalt = pErr->rc == SQLITE_OK;
  }
  memcpy(aSalt, p->aSalt, CHOIR_KEY_SALT);
  keyStretch(pErr, p, p->a[0].zPass, aSalt, aKey);
  return KEY_LOG2_N;
}

CHOIR_PRIVATE void choirKeyRandom(ChoirErr *pErr, ChoirKeyring *p, u8 *a,
                                  int n) {
  if (pErr->rc == SQLITE_OK && p->lib.RAND_bytes(a, n) != 1) {
    choirErrSet(pErr, SQLITE_ERROR, "OpenSSL has no random bytes");
  }
}

/* ------------------------------------------------------------------ cipher */

CHOIR_PRIVATE ChoirCipher *choirCipherNew(ChoirErr *pErr, ChoirKeyring *pRing,
                                          const u8 aKey[32], int bSeal) {
  ChoirCipher *p = choirMalloc(pErr, sizeof(*p));
  if (p) {
    p->pLib = &pRing->lib;
    p->bSeal = bSeal;
    p->pCtx = p->pLib->EVP_CIPHER_CTX_new();
    if (p->pCtx == NULL ||
        p->pLib->EVP_CipherInit_ex(p->pCtx, p->pLib->EVP_aes_256_gcm(), NULL,
                                   aKey, NULL, bSeal) != 1) {
      choirErrNomem(pErr);
      choirCipherFree(p);
      p = NULL;
    }
  }
  return p;
}

CHOIR_PRIVATE void choirCipherFree(ChoirCipher *p) {
  if (p) {
    p->pLib->EVP_CIPHER_CTX_free(p->pCtx);
    sqlite3_free(p);
  }
}

CHOIR_PRIVATE int choirCipherChunk(ChoirCipher *p, u64 iChunk, int bLast,
                                   const u8 *aMore, int nMore, const u8 *aIn,
                                   int n, u8 *aOut, u8 aTag[CHOIR_KEY_TAG]) {
  const KeyLib *q = p->pLib;
  u8 aNonce[12] = {0}, aEnd[16];
  int i, nOut = 0;
  for (i = 0; i < 8; i++) {
    aNonce[10 - i] = (u8)(iChunk >> (8 * i));
  }
  aNonce[11] = (u8)(bLast != 0);
  return q->EVP_CipherInit_ex(p->pCtx, NULL, NULL, NULL, aNonce, p->bSeal) ==
             1 &&
         q->EVP_CipherUpdate(p->pCtx, NULL, &nOut, aMore, nMore) == 1 &&
         (n == 0 || (q->EVP_CipherUpdate(p->pCtx, aOut, &nOut, aIn, n) == 1 &&
                     nOut == n)) &&
         (p->bSeal || q->EVP_CIPHER_CTX_ctrl(p->pCtx, KEY_SET_TAG,
                                             CHOIR_KEY_TAG, aTag) == 1) &&
         q->EVP_CipherFinal_ex(p->pCtx, aEnd, &nOut) == 1 &&
         (!p->bSeal || q->EVP_CIPHER_CTX_ctrl(p->pCtx, KEY_GET_TAG,
                                              CHOIR_KEY_TAG, aTag) == 1);
}
