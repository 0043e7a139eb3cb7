/* SPDX-License-Identifier: MIT */
/*
** TLS by OpenSSL, opened when a server first asks for it. It works on buffers
** (memory BIOs) and never on the socket: the poll loop, the deadline and
** SIGPIPE stay where they are, in nats_wire.c. The certificate is always
** verified, for the name or the address of the URL.
*/
#include "nats.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define TLS_FUNCTIONS(X)                                                       \
  X(BIO_ctrl)                                                                  \
  X(BIO_new)                                                                   \
  X(BIO_read)                                                                  \
  X(BIO_s_mem)                                                                 \
  X(BIO_write)                                                                 \
  X(ERR_clear_error)                                                           \
  X(ERR_error_string_n)                                                        \
  X(ERR_get_error)                                                             \
  X(SSL_CTX_ctrl)                                                              \
  X(SSL_CTX_free)                                                              \
  X(SSL_CTX_load_verify_locations)                                             \
  X(SSL_CTX_new)                                                               \
  X(SSL_CTX_set_default_verify_paths)                                          \
  X(SSL_CTX_set_verify)                                                        \
  X(SSL_CTX_use_PrivateKey_file)                                               \
  X(SSL_CTX_use_certificate_chain_file)                                        \
  X(SSL_connect)                                                               \
  X(SSL_ctrl)                                                                  \
  X(SSL_free)                                                                  \
  X(SSL_get0_param)                                                            \
  X(SSL_get_error)                                                             \
  X(SSL_get_verify_result)                                                     \
  X(SSL_new)                                                                   \
  X(SSL_read)                                                                  \
  X(SSL_set1_host)                                                             \
  X(SSL_set_bio)                                                               \
  X(SSL_write)                                                                 \
  X(TLS_client_method)                                                         \
  X(X509_VERIFY_PARAM_set1_ip_asc)                                             \
  X(X509_verify_cert_error_string)

typedef struct TlsLib {
#define X(name) __typeof__(&name) name;
  TLS_FUNCTIONS(X)
#undef X
} TlsLib;

struct ChoirTls {
  TlsLib lib;
  SSL_CTX *pCtx;
  SSL *pSsl;
  BIO *pIn, *pOut; /* owned by pSsl */
};

/* libcrypto is a dependency of libssl: its symbols are found through it. */
static void tlsLibOpen(ChoirErr *pErr, TlsLib *p) {
  static const char *const azFile[] = {"libssl.so.3", "libssl.so.1.1",
                                       "libssl.3.dylib", NULL};
#define X(name) #name,
  static const char *const azSymbol[] = {TLS_FUNCTIONS(X) NULL};
#undef X
  static const ChoirLib lib = {azFile, azSymbol,
                               "libssl3 (OpenSSL 1.1.1 or newer)"};
  choirLibOpen(pErr, &lib, p);
}

/* OpenSSL's own words for the first error in its queue, which is emptied. */
static void tlsFailed(ChoirTls *p, ChoirErr *pErr, const char *zWhat) {
  unsigned long e = p->lib.ERR_get_error();
  long iVerify =
      p->pSsl ? p->lib.SSL_get_verify_result(p->pSsl) : (long)X509_V_OK;
  char z[200] = "no reason given";
  if (e) {
    p->lib.ERR_error_string_n(e, z, sizeof(z));
  }
  choirErrSet(
      pErr, SQLITE_ERROR, "TLS: %s: %s", zWhat,
      iVerify != X509_V_OK ? p->lib.X509_verify_cert_error_string(iVerify) : z);
  p->lib.ERR_clear_error();
}

static void tlsFiles(ChoirTls *p, ChoirConn *pConn, ChoirErr *pErr) {
  const char *zCa = choirConfig(pConn, "nats.ca_file");
  const char *zCert = choirConfig(pConn, "nats.cert_file");
  const char *zKey = choirConfig(pConn, "nats.key_file");
  if (zCa ? p->lib.SSL_CTX_load_verify_locations(p->pCtx, zCa, NULL) != 1
          : p->lib.SSL_CTX_set_default_verify_paths(p->pCtx) != 1) {
    tlsFailed(p, pErr, "the certificate authorities of nats.ca_file");
  }
  if (zCert && pErr->rc == SQLITE_OK &&
      p->lib.SSL_CTX_use_certificate_chain_file(p->pCtx, zCert) != 1) {
    tlsFailed(p, pErr, "the certificate of nats.cert_file");
  }
  if (zCert && pErr->rc == SQLITE_OK &&
      p->lib.SSL_CTX_use_PrivateKey_file(p->pCtx, zKey ? zKey : zCert,
                                         SSL_FILETYPE_PEM) != 1) {
    tlsFailed(p, pErr, "the key of nats.key_file");
  }
}

CHOIR_PRIVATE ChoirTls *choirTlsNew(ChoirConn *pConn, ChoirErr *pErr,
                                    const char *zHost) {
  ChoirTls *p = choirMalloc(pErr, sizeof(*p));
  u8 aAddr[16];
  if (p == NULL) {
    return NULL;
  }
  tlsLibOpen(pErr, &p->lib);
  if (pErr->rc == SQLITE_OK) {
    p->lib.ERR_clear_error();
    p->pCtx = p->lib.SSL_CTX_new(p->lib.TLS_client_method());
  }
  if (p->pCtx) {
    p->lib.SSL_CTX_ctrl(p->pCtx, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION,
                        NULL);
    p->lib.SSL_CTX_set_verify(p->pCtx, SSL_VERIFY_PEER, NULL);
    tlsFiles(p, pConn, pErr);
  }
  if (p->pCtx && pErr->rc == SQLITE_OK) {
    p->pSsl = p->lib.SSL_new(p->pCtx);
    p->pIn = p->lib.BIO_new(p->lib.BIO_s_mem());
    p->pOut = p->lib.BIO_new(p->lib.BIO_s_mem());
  }
  if (pErr->rc == SQLITE_OK && (!p->pSsl || !p->pIn || !p->pOut)) {
    choirErrNomem(pErr);
  }
  if (pErr->rc == SQLITE_OK) {
    int bAddr = inet_pton(AF_INET, zHost, aAddr) == 1 ||
                inet_pton(AF_INET6, zHost, aAddr) == 1;
    p->lib.SSL_set_bio(p->pSsl, p->pIn, p->pOut);
    if (bAddr ? p->lib.X509_VERIFY_PARAM_set1_ip_asc(
                    p->lib.SSL_get0_param(p->pSsl), zHost) != 1
              : p->lib.SSL_set1_host(p->pSsl, zHost) != 1) {
      tlsFailed(p, pErr, "the name of the server");
    } else if (!bAddr) {
      p->lib.SSL_ctrl(p->pSsl, SSL_CTRL_SET_TLSEXT_HOSTNAME,
                      TLSEXT_NAMETYPE_host_name, (void *)(intptr_t)zHost);
    }
  }
  if (pErr->rc != SQLITE_OK) {
    choirTlsFree(p);
    p = NULL;
  }
  return p;
}

/* The socket is closed without a farewell: nobody waits for one, and after a
** fork it would end the parent's session. */
CHOIR_PRIVATE void choirTlsFree(ChoirTls *p) {
  if (p == NULL) {
    return;
  }
  if (p->pSsl) {
    p->lib.SSL_free(p->pSsl);
  }
  if (p->pCtx) {
    p->lib.SSL_CTX_free(p->pCtx);
  }
  sqlite3_free(p);
}

CHOIR_PRIVATE int choirTlsHandshake(ChoirTls *p, ChoirErr *pErr) {
  int n, e;
  if (pErr->rc != SQLITE_OK) {
    return 0;
  }
  p->lib.ERR_clear_error();
  n = p->lib.SSL_connect(p->pSsl);
  if (n == 1) {
    return 1;
  }
  e = p->lib.SSL_get_error(p->pSsl, n);
  if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) {
    tlsFailed(p, pErr, "the handshake failed");
  }
  return 0;
}

CHOIR_PRIVATE void choirTlsFeed(ChoirTls *p, ChoirErr *pErr, const void *a,
                                u64 n) {
  if (pErr->rc == SQLITE_OK && n &&
      p->lib.BIO_write(p->pIn, a, (int)n) != (int)n) {
    choirErrNomem(pErr);
  }
}

CHOIR_PRIVATE int choirTlsRead(ChoirTls *p, ChoirErr *pErr, ChoirBuf *pTo) {
  while (pErr->rc == SQLITE_OK) {
    char *a = choirBufSpace(pTo, 16384);
    int n, e;
    if (a == NULL) {
      break;
    }
    p->lib.ERR_clear_error();
    n = p->lib.SSL_read(p->pSsl, a, 16384);
    pTo->n -= (u64)(16384 - (n > 0 ? n : 0));
    if (n > 0) {
      continue;
    }
    e = p->lib.SSL_get_error(p->pSsl, n);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
      return 0;
    }
    if (e != SSL_ERROR_ZERO_RETURN) {
      tlsFailed(p, pErr, "receiving failed");
    }
    return 1;
  }
  return 0;
}

CHOIR_PRIVATE void choirTlsWrite(ChoirTls *p, ChoirErr *pErr, const void *a,
                                 u64 n) {
  if (pErr->rc == SQLITE_OK && n) {
    p->lib.ERR_clear_error();
    if (p->lib.SSL_write(p->pSsl, a, (int)n) != (int)n) {
      tlsFailed(p, pErr, "sending failed");
    }
  }
}

CHOIR_PRIVATE void choirTlsDrain(ChoirTls *p, ChoirErr *pErr, ChoirBuf *pTo) {
  long n;
  while (pErr->rc == SQLITE_OK &&
         (n = p->lib.BIO_ctrl(p->pOut, BIO_CTRL_PENDING, 0, NULL)) > 0) {
    char *a = choirBufSpace(pTo, (u64)n);
    if (a && p->lib.BIO_read(p->pOut, a, (int)n) != (int)n) {
      choirErrNomem(pErr);
    }
  }
}
