/* SPDX-License-Identifier: MIT */
/*
** vec: vectors as SQL values and the distances between them.
**
**   value     what an argument holds; types, metrics   vec_value.c
**   json      '[1, 2.5]' to float32 and int8           vec_json.c
**   func      vec_f32 … vec_quantize_int8, vec_each    vec_func.c
**   distance  vec_distance_l2 …, other names for them  vec_distance.c
**   agg       vec_sum, vec_avg                         vec_agg.c
**   kernel    vec_kernel, the setting vec.kernel       vec_kernel.c
**
** A vector is a blob without a header: little-endian elements, nothing else
** (bits: the first one is the lowest of the first byte). What a blob holds is
** told by the subtype of the SQL value, float32 when there is none; subtypes
** do not survive storage, so stored int8 and bit vectors are wrapped again:
** vec_int8(column).
*/
#ifndef CHOIR_VEC_H
#define CHOIR_VEC_H

#include "../core/core.h"
#include "../kern/kern.h"

/* Element types; the first four are the kernels' own. */
enum {
  VEC_F32 = KERN_F32,
  VEC_F16 = KERN_F16,
  VEC_BF16 = KERN_BF16,
  VEC_I8 = KERN_I8,
  VEC_BIT
};

/* dot is negative, so that for every metric smaller is nearer. */
enum { VEC_COSINE, VEC_L2, VEC_DOT, VEC_L1, VEC_HAMMING, VEC_NMETRIC };

typedef struct ChoirVec {
  int eType;
  i64 nDim;      /* elements, at least 1 */
  i64 nByte;     /* bytes at a */
  const void *a; /* in this machine's byte order, not aligned */
  void *pOwn;    /* what choirVecFree frees, or NULL when a is borrowed */
} ChoirVec;

/* -------------------------------------------------------------- value ----
** A vector from an SQL value: a blob by its subtype, borrowed; text as JSON,
** owned. zArg starts the message when it is not one.
*/
CHOIR_PRIVATE void choirVecArg(ChoirErr *, ChoirVec *, sqlite3_value *,
                               const char *zArg);
/* The same for a blob or JSON text that holds eType whatever its subtype. */
CHOIR_PRIVATE void choirVecArgAs(ChoirErr *, ChoirVec *, sqlite3_value *,
                                 int eType, const char *zArg);
CHOIR_PRIVATE void choirVecFree(ChoirVec *);
/* The vector becomes the function's result, with its subtype; emptied. */
CHOIR_PRIVATE void choirVecResult(ChoirVec *, sqlite3_context *);
/* A new vector of nDim zeros. */
CHOIR_PRIVATE void choirVecNew(ChoirErr *, ChoirVec *, int eType, i64 nDim);
/* Elements as an SQL value has them to the order of this machine, or back. */
CHOIR_PRIVATE void choirVecOrder(int eType, void *a, i64 nByte);
/* Elements in nByte bytes; -1 when the bytes do not come out even. */
CHOIR_PRIVATE i64 choirVecDim(int eType, i64 nByte);
/* One element as a number, and setting one (rounded, clamped to the type). */
CHOIR_PRIVATE float choirVecAt(const ChoirVec *, i64 i);
CHOIR_PRIVATE void choirVecPut(ChoirVec *, i64 i, float f);
CHOIR_PRIVATE const char *choirVecTypeName(int eType);
/* By name (float32, f32, …; cosine, l2, …); an error lists the names. */
CHOIR_PRIVATE int choirVecTypeOf(ChoirErr *, const char *zName);
CHOIR_PRIVATE int choirVecMetricOf(ChoirErr *, const char *zName);
/* Errors unless both have the same type and length. */
CHOIR_PRIVATE void choirVecSame(ChoirErr *, const ChoirVec *, const ChoirVec *);
/* Errors unless the metric is defined for the type. */
CHOIR_PRIVATE void choirVecAllows(ChoirErr *, int eMetric, int eType);

/* --------------------------------------------------------------- json ----
** nByte bytes of text, zero-terminated, as a float32 or int8 vector that the
** caller frees. As lenient as sqlite-vec: items may be separated by any
** commas and white space, the closing bracket and what follows it are not
** looked at. Numbers are read as strtod does in the C locale.
*/
CHOIR_PRIVATE void choirVecJson(ChoirErr *, ChoirVec *, const char *z, i64 n,
                                int eType, const char *zArg);
/* The number at z, and the first byte after it; NULL when there is none or it
** is out of a double's range. The host's locale does not matter. */
CHOIR_PRIVATE const char *choirVecNumber(const char *z, double *pr);

/* ----------------------------------------------------------- distance ----
** a and b: nDim elements of eType. Cosine is 1 - cos, in 0 to 2, NaN when a
** vector has length 0; qq is dot(a,a) when it is known, negative otherwise.
*/
CHOIR_PRIVATE double choirVecDistance(const ChoirKern *, int eMetric, int eType,
                                      const void *a, const void *b, i64 nDim,
                                      double qq);
/* dot(a,a). */
CHOIR_PRIVATE double choirVecNorm2(const ChoirKern *, int eType, const void *a,
                                   i64 nDim);

/* ------------------------------------------------------------- kernel ----
** The tier this connection uses: the setting vec.kernel, or the best. */
CHOIR_PRIVATE const ChoirKern *choirVecKern(ChoirConn *);

CHOIR_PRIVATE CHOIR_COLD void choirVecRegister(ChoirConn *, ChoirErr *);

#endif /* CHOIR_VEC_H */
