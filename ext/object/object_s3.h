/* SPDX-License-Identifier: MIT */
/*
** What the files of the s3:// backend share.
**
**   methods   head, get, put, delete, list        object_s3.c
**   parts     uploads in parts, their leftovers   object_s3_parts.c
**   resume    what an upload has done so far      object_s3_resume.c
**   request   one signed request, put right       object_s3_request.c
**   presign   URLs instead of credentials         object_presign.c
**   xml       elements and their text             object_xml.c
*/
#ifndef CHOIR_OBJECT_S3_H
#define CHOIR_OBJECT_S3_H

#include "object.h"
#ifndef CHOIR_OMIT_NET
#include "../http/http.h"

enum { CHOIR_S3_HEADERS = 64, CHOIR_S3_KEY_MAX = 1024 };

/* What a bucket's replies have taught this connection. */
typedef struct ChoirS3Known {
  char *zBucket;
  i64 iGeneration; /* of the secrets by which it was learnt */
  char *zRegion;   /* NULL: as configured */
  i64 iSkew;       /* seconds to add to the clock */
  int nFetched;    /* how often credentials were fetched anew */
  u8 bUnquoted;    /* wants If-Match without quotes */
  struct ChoirS3Known *pNext;
} ChoirS3Known;

typedef struct ChoirS3Store {
  ChoirObject base;
  char *zBucket;
  char *zRoot; /* "" or "folder/" */
  ChoirS3Known *pKnown;
  u8 bCleanup;  /* of every call: see there */
  u8 bBlind;    /* conditions are left to the store: what does it do? */
  u8 bMinted;   /* presigned URLs instead of credentials */
  char *zFixed; /* the one presigned URL that is given, or NULL */
} ChoirS3Store;

typedef struct ChoirS3Call ChoirS3Call;
struct ChoirS3Call {
  /* The request; what it points to stays until choirS3Free. */
  ChoirS3Store *pStore;
  ChoirErr *pErr;
  const char *zMethod;
  const char *zKey;   /* NULL: the bucket */
  const char *zQuery; /* encoded, or NULL */
  ChoirSigv4Header aHeader[CHOIR_S3_HEADERS];
  int nHeader;
  char zMatch[100];                 /* what If-Match says */
  const ChoirObjectSource *pSource; /* sends [iFrom, iFrom+nWant) of it */
  const ChoirBuf *pText;            /* or this text */
  ChoirObjectWrite xWrite; /* gets [iFrom, iFrom+nWant); nWant < 0: the rest */
  void *pWriteArg;
  i64 iFrom, nWant;
  u64 crc;  /* of the first nCrc bytes that were sent of pSource */
  i64 nCrc; /* when bCrc */
  u8 bCrc;
  u8 bCleanup; /* goes on after an interrupt, once, for some seconds */
  /* The course. */
  ChoirAws aws;
  ChoirHttp http; /* the reply, until choirS3Free */
  u8 bHttp;       /* http is in use */
  u8 bLost;       /* the store may have acted on an attempt without a reply */
  int mDone;      /* what was put right */
  char zHash[65];
  int nFetched;   /* the bucket's, when this was signed */
  i64 iBase;      /* where this attempt's reply begins, from iFrom */
  i64 iGiven;     /* how much xWrite got */
  char zEtag[96]; /* of the reply that it got */
};

/* ------------------------------------------------------------- request ---- */
CHOIR_PRIVATE void choirS3Begin(ChoirS3Call *, ChoirObject *, ChoirErr *,
                                const char *zMethod, const char *zKey);
CHOIR_PRIVATE void choirS3Header(ChoirS3Call *, const char *zName,
                                 const char *zValue);
/* To its end, corrections included. A status of 404 is no error. */
CHOIR_PRIVATE void choirS3Send(ChoirS3Call *);
/* Several at once: start each, choirHttpWait for their http, and ask of each
** that is done whether it has settled; 0: it was put right and sent again. */
CHOIR_PRIVATE void choirS3Start(ChoirS3Call *);
CHOIR_PRIVATE int choirS3Settled(ChoirS3Call *);
/* Does the reply say that there is no such object? It may as well refuse, to
** those who may not list, so that nobody learns of it: noted in bHidden. That
** there is no such bucket is a failure. */
CHOIR_PRIVATE int choirS3Absent(ChoirS3Call *);
/* The reply as an error: what the store says, and where. */
CHOIR_PRIVATE void choirS3Fail(ChoirS3Call *);
/* Size, ETag and time from the headers of a reply. */
CHOIR_PRIVATE void choirS3Meta(ChoirS3Call *, ChoirObjectMeta *);
CHOIR_PRIVATE void choirS3Free(ChoirS3Call *);
/* The credentials as they are now, and the region as it was learnt: choirAws
** keeps them only until it is asked again. */
CHOIR_PRIVATE void choirS3Aws(ChoirS3Call *, int bRefresh);
/* The request's URL by p->aws; caller frees. */
CHOIR_PRIVATE char *choirS3Url(ChoirS3Call *);

/* ------------------------------------------------------------- methods ---- */
CHOIR_PRIVATE int choirS3Is(const ChoirObject *);
/* What became of a request that makes the object under condition eIf. Every
** such object carries zWrite: after a lost reply that tells one's own. */
CHOIR_PRIVATE int choirS3Outcome(ChoirS3Call *, int eIf, const char *zWrite,
                                 ChoirObjectMeta *pNew);
/* Is the object as this very write made it? If so, *pNew describes it. */
CHOIR_PRIVATE int choirS3Mine(ChoirObject *, ChoirErr *, const char *zKey,
                              const char *zWrite, ChoirObjectMeta *pNew);
/* Appends what x-amz-copy-source says of an object. */
CHOIR_PRIVATE void choirS3CopySource(const ChoirObject *, const char *zKey,
                                     ChoirBuf *);
/* The headers of condition eIf, the ETag as this store compares it. */
CHOIR_PRIVATE void choirS3Condition(ChoirS3Call *, int eIf, const char *zEtag);

/* --------------------------------------------------------------- parts ---- */
/* xPut for what does not go in one request. */
CHOIR_PRIVATE int choirS3PutParts(ChoirObject *, ChoirErr *, const char *zKey,
                                  const ChoirObjectSource *, int eIf,
                                  const char *zEtag, ChoirObjectMeta *pNew);
/* xCopy of what does not go in one request; 0: it is not done. */
CHOIR_PRIVATE int choirS3CopyParts(ChoirObject *pFrom, ChoirErr *,
                                   const char *zFrom, ChoirObject *pTo,
                                   const char *zTo, ChoirObjectMeta *pNew);
/* xSweep. */
CHOIR_PRIVATE i64 choirS3Sweep(ChoirObject *, ChoirErr *, const char *zPrefix,
                               i64 iBefore);

/* -------------------------------------------------------------- resume ---- */
/* A part that the store has: its ETag, "" while it has not. */
typedef struct ChoirS3Done {
  u64 crc;
  char zEtag[96];
} ChoirS3Done;
typedef struct ChoirS3Resume {
  ChoirS3Done *aPart; /* nPart of them, the caller's */
  int nPart;
  char *zId; /* of the upload that was under way, or NULL; the caller's */
  char zWrite[37];
  char *zFile;
  int fd; /* -1: nothing is kept */
} ChoirS3Resume;
/* Reads what is known of zWhat into zId, zWrite and aPart, and locks it. What
** does not work here keeps nobody from uploading. */
CHOIR_PRIVATE void choirS3ResumeOpen(ChoirS3Resume *, ChoirErr *,
                                     const char *zWhat);
/* An upload has begun: nothing of another is left. */
CHOIR_PRIVATE void choirS3ResumeBegin(ChoirS3Resume *, const char *zId,
                                      const char *zWrite);
/* aPart[iPart-1] has arrived. */
CHOIR_PRIVATE void choirS3ResumePart(ChoirS3Resume *, int iPart);
/* The upload has ended. */
CHOIR_PRIVATE void choirS3ResumeEnd(ChoirS3Resume *);

/* ------------------------------------------------------------- presign ---- */
/* A URL for zMethod (GET or PUT) and zKey from the endpoint of the secret that
** covers the store, or the one that is given; choirWipeFree. *pzReply: what the
** endpoint said, the same way, NULL: nothing. */
CHOIR_PRIVATE char *choirPresignUrl(const ChoirS3Store *, ChoirErr *,
                                    const char *zMethod, const char *zKey,
                                    char **pzReply);
/* The headers that it said to send with the URL. */
CHOIR_PRIVATE void choirPresignHeaders(ChoirHttp *, const char *zReply);

/* ----------------------------------------------------------------- xml ---- */
typedef struct ChoirXml {
  const char *zTag, *zText; /* into the document; the text as it stands */
  int nTag, nText;
} ChoirXml;
/* The next element that holds text alone, from *pz on and before zEnd (NULL:
** the NUL). 0: none. */
CHOIR_PRIVATE int choirXmlNext(const char **pz, const char *zEnd, ChoirXml *);
CHOIR_PRIVATE int choirXmlIs(const ChoirXml *, const char *zTag);
/* Appends the text with its entities undone. */
CHOIR_PRIVATE void choirXmlText(ChoirBuf *, const ChoirXml *);
/* The text of the first element zTag; NULL: there is none. Caller frees. */
CHOIR_PRIVATE char *choirXmlFirst(ChoirErr *, const char *zXml,
                                  const char *zTag);
/* Milliseconds of a time such as 2026-01-31T12:00:00.000Z; 0: it is none. */
CHOIR_PRIVATE i64 choirXmlTime(const ChoirXml *);

#endif /* CHOIR_OMIT_NET */
#endif /* CHOIR_OBJECT_S3_H */
