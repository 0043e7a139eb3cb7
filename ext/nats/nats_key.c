/* SPDX-License-Identifier: MIT */
/*
** nkeys and .creds: logging in by signing the server's nonce with Ed25519, by
** OpenSSL's libcrypto, opened when it is first needed.
**
** A seed is base32 of: 5 bits 18 ('S'), 5 bits of the kind (20, 'U', a user),
** 6 bits zero, 32 bytes, CRC-16 (XMODEM, little-endian). A public key is the
** same without the first 5 bits. A .creds file holds a JWT and a seed, each
** between lines of dashes.
*/
#include "nats.h"
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_CRYPTO_FUNCTIONS(X)                                                \
  X(EVP_PKEY_new_raw_private_key)                                              \
  X(EVP_PKEY_get_raw_public_key)                                               \
  X(EVP_PKEY_free)                                                             \
  X(EVP_MD_CTX_new)                                                            \
  X(EVP_MD_CTX_free)                                                           \
  X(EVP_DigestSignInit)                                                        \
  X(EVP_DigestSign)

typedef struct KeyCrypto {
#define X(name) __typeof__(&name) name;
  KEY_CRYPTO_FUNCTIONS(X)
#undef X
} KeyCrypto;

static void keyCryptoOpen(ChoirErr *pErr, KeyCrypto *p) {
  static const char *const azFile[] = {"libcrypto.so.3", "libcrypto.so.1.1",
                                       "libcrypto.3.dylib", NULL};
#define X(name) #name,
  static const char *const azSymbol[] = {KEY_CRYPTO_FUNCTIONS(X) NULL};
#undef X
  static const ChoirLib lib = {azFile, azSymbol,
                               "libssl3 (OpenSSL 1.1.1 or newer)"};
  choirLibOpen(pErr, &lib, p);
}

/* --------------------------------------------------------------- encoding */

static u16 keyCrc16(const u8 *a, int n) {
  u16 crc = 0;
  int i, j;
  for (i = 0; i < n; i++) {
    crc = (u16)(crc ^ (a[i] << 8));
    for (j = 0; j < 8; j++) {
      crc = (u16)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
  }
  return crc;
}

static const char zKey32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/* z[0..n) to bytes; how many, or -1. */
static int keyFrom32(const char *z, u64 n, u8 *a, int nMax) {
  u32 v = 0;
  int nBit = 0, nOut = 0;
  u64 i;
  for (i = 0; i < n; i++) {
    const char *zAt = z[i] ? strchr(zKey32, z[i]) : NULL;
    if (zAt == NULL) {
      return -1;
    }
    v = (v << 5 | (u32)(zAt - zKey32)) & 0xfff;
    nBit += 5;
    if (nBit >= 8) {
      if (nOut == nMax) {
        return -1;
      }
      nBit -= 8;
      a[nOut++] = (u8)(v >> nBit);
    }
  }
  return nOut;
}

static void keyTo32(const u8 *a, int n, char *z) {
  u32 v = 0;
  int i, nBit = 0;
  for (i = 0; i < n; i++) {
    v = (v << 8 | a[i]) & 0xffff;
    nBit += 8;
    while (nBit >= 5) {
      nBit -= 5;
      *z++ = zKey32[v >> nBit & 31];
    }
  }
  if (nBit) {
    *z++ = zKey32[v << (5 - nBit) & 31];
  }
  *z = 0;
}

/* ------------------------------------------------------------------ creds */

/* The text between two lines of dashes that name zWhat; NULL: none. */
static const char *keyBlock(const char *z, const char *zWhat, u64 *pn) {
  const char *zAt = strstr(z, zWhat);
  const char *zEnd;
  zAt = zAt ? strchr(zAt, '\n') : NULL;
  if (zAt == NULL) {
    return NULL;
  }
  zAt += strspn(zAt, " \t\r\n");
  zEnd = zAt + strcspn(zAt, " \t\r\n");
  *pn = (u64)(zEnd - zAt);
  return *pn ? zAt : NULL;
}

CHOIR_PRIVATE char *choirNatsFile(ChoirErr *pErr, const char *zPath) {
  enum { nMax = 1 << 16 };
  char *z = NULL;
  int fd = pErr->rc == SQLITE_OK ? open(zPath, O_RDONLY | O_CLOEXEC) : -1;
  ssize_t n = 0;
  if (pErr->rc != SQLITE_OK) {
    return NULL;
  }
  if (fd < 0) {
    choirErrSet(pErr, SQLITE_ERROR, "cannot open '%s': %s", zPath,
                strerror(errno));
    return NULL;
  }
  z = choirMalloc(pErr, nMax + 1);
  if (z) {
    n = read(fd, z, nMax);
    z[n > 0 ? n : 0] = 0;
    if (n <= 0 || n == nMax) {
      choirErrSet(pErr, SQLITE_ERROR,
                  "'%s' is not a file of 1 to %d bytes that can be read", zPath,
                  nMax - 1);
      choirWipeFree(z);
      z = NULL;
    }
  }
  close(fd);
  return z;
}

/* The 32 bytes of the seed at z[0..n) and the kind of key. */
static void keySeed(ChoirErr *pErr, const char *z, u64 n, u8 aSeed[32],
                    u8 *pKind) {
  u8 a[40];
  int nByte = z ? keyFrom32(z, n, a, (int)sizeof(a)) : -1;
  if (nByte != 36 || (a[0] & 0xf8) != 18 << 3 ||
      keyCrc16(a, 34) != (u16)(a[34] | a[35] << 8)) {
    choirErrSet(pErr, SQLITE_ERROR,
                "the seed of the nkey is not one: 58 characters that begin with"
                " SU");
  } else {
    *pKind = (u8)((a[0] & 7) << 5 | a[1] >> 3);
    memcpy(aSeed, a + 2, 32);
  }
  choirWipe(a, sizeof(a));
}

static void keySign(ChoirErr *pErr, const u8 aSeed[32], u8 kind,
                    const char *zNonce, ChoirNatsLogin *p) {
  KeyCrypto crypto;
  EVP_PKEY *pKey;
  EVP_MD_CTX *pCtx;
  u8 aPublic[35], aSign[64];
  size_t nPublic = 32, nSign = 64;
  ChoirBuf b;
  keyCryptoOpen(pErr, &crypto);
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  pKey = crypto.EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, aSeed, 32);
  pCtx = crypto.EVP_MD_CTX_new();
  if (pKey == NULL || pCtx == NULL ||
      crypto.EVP_PKEY_get_raw_public_key(pKey, aPublic + 1, &nPublic) != 1 ||
      crypto.EVP_DigestSignInit(pCtx, NULL, NULL, NULL, pKey) != 1 ||
      crypto.EVP_DigestSign(pCtx, aSign, &nSign, (const u8 *)zNonce,
                            strlen(zNonce)) != 1) {
    choirErrSet(pErr, SQLITE_ERROR, "OpenSSL could not sign with the nkey");
  } else {
    u16 crc;
    aPublic[0] = kind;
    crc = keyCrc16(aPublic, 33);
    aPublic[33] = (u8)crc;
    aPublic[34] = (u8)(crc >> 8);
    keyTo32(aPublic, 35, p->zPublic);
    choirBufInit(&b, pErr, sizeof(p->zSignature) - 1);
    choirBufBase64(&b, aSign, 64, 1);
    if (pErr->rc == SQLITE_OK) {
      memcpy(p->zSignature, b.a, (size_t)b.n + 1);
    }
    choirBufFree(&b);
  }
  crypto.EVP_MD_CTX_free(pCtx);
  crypto.EVP_PKEY_free(pKey);
}

CHOIR_PRIVATE void choirNatsSign(ChoirErr *pErr, const char *zCreds,
                                 const char *zNonce, ChoirNatsLogin *p) {
  u64 nSeed = 0, nJwt = 0;
  const char *zJwt = keyBlock(zCreds, "BEGIN NATS USER JWT", &nJwt);
  const char *zSeed = keyBlock(zCreds, "BEGIN USER NKEY SEED", &nSeed);
  u8 aSeed[32], kind = 0;
  memset(p, 0, sizeof(*p));
  if (zSeed == NULL) {
    zSeed = zCreds + strspn(zCreds, " \t\r\n");
    nSeed = strcspn(zSeed, " \t\r\n");
  }
  keySeed(pErr, zSeed, nSeed, aSeed, &kind);
  if (pErr->rc == SQLITE_OK) {
    keySign(pErr, aSeed, kind, zNonce, p);
  }
  if (zJwt) {
    p->zJwt = choirMprintf(pErr, "%.*s", (int)nJwt, zJwt);
  }
  choirWipe(aSeed, sizeof(aSeed));
}
