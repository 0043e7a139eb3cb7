/* SPDX-License-Identifier: MIT */
/*
** Making, changing and reading vectors: vec_f32, vec_f16, vec_bf16, vec_int8,
** vec_bit, vec_length, vec_type, vec_add, vec_sub, vec_normalize, vec_slice,
** vec_to_json, vec_quantize_binary, vec_quantize_int8, vec_each; libSQL's
** vector32 and vector_extract; pgvector's l2_normalize, subvector,
** binary_quantize and vector_dims.
**
** Names that sqlite-vec 0.1.9 has take the same inputs, give the same bytes
** and subtypes and fail where it fails; the text of an error is choir's own.
*/
#include "vec.h"
#include <math.h>

static void funcConstruct(ChoirCall *p, int eType) {
  ChoirVec v;
  choirVecArgAs(&p->err, &v, p->apArg[0], eType, "vector");
  if (p->err.rc == SQLITE_OK) {
    choirVecResult(&v, p->pCtx);
  }
  choirVecFree(&v);
}

/* Gives pIn's elements as a vector of another type. */
static void funcAs(ChoirCall *p, const ChoirVec *pIn, int eType) {
  ChoirVec out;
  i64 i;
  choirVecNew(&p->err, &out, eType, pIn->nDim);
  for (i = 0; i < out.nDim; i++) {
    choirVecPut(&out, i, choirVecAt(pIn, i));
  }
  if (p->err.rc == SQLITE_OK) {
    choirVecResult(&out, p->pCtx);
  }
  choirVecFree(&out);
}

/* A float vector of another precision is converted, anything else is taken as
** it is. */
static void funcConvert(ChoirCall *p, int eType) {
  ChoirVec v;
  if (sqlite3_value_type(p->apArg[0]) != SQLITE_BLOB ||
      sqlite3_value_subtype(p->apArg[0]) == 0) {
    funcConstruct(p, eType);
    return;
  }
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  if (p->err.rc == SQLITE_OK && (v.eType == eType || v.eType >= VEC_I8)) {
    choirVecFree(&v);
    funcConstruct(p, eType);
    return;
  }
  funcAs(p, &v, eType);
  choirVecFree(&v);
}

/*
** SQL: vec_f32(vector) -> BLOB
** SQL: vector32(vector) -> BLOB
**
** A float32 vector from JSON text or a blob. The blob is little-endian floats
** without a header, 4 bytes each, as in sqlite-vec and libSQL.
**
**   vector  TEXT '[1, 2.5]' or BLOB of 4*d bytes, d at least 1
**
** A float16 or bfloat16 vector (from vec_f16, vec_bf16) is widened. Numbers are
** read as C reads them: inf, nan and hexadecimal are accepted, and items may be
** separated by white space alone.
** NULL: an error.
** Errors: not a blob or text; no elements; bytes that are no multiple of 4; an
** item that is not a number or too large for a double.
** Source: sqlite-vec vec_f32, libSQL vector32.
**
** > SELECT hex(vec_f32('[1, 2.5]')), vec_length(vector32('[1, 2.5]'))
** = 0000803F00002040|2
** > SELECT vec_f32(x'0102')
** ! vec_f32: vector is not a float32 vector: its 2 bytes are no multiple of 4
*/
static void funcF32(ChoirCall *p) { funcConvert(p, VEC_F32); }

/*
** SQL: vec_f16(vector) -> BLOB
**
** A float16 (IEEE binary16) vector from JSON text, a blob of 2*d bytes, or
** another float vector: vec_f16(vec_f32(column)) halves its size.
**
**   vector  TEXT, BLOB of 2*d bytes, or the result of vec_f32 or vec_bf16
**
** Values are rounded to nearest even; above 65504 they become infinity.
** NULL: an error.
** Errors: as for vec_f32.
**
** > SELECT hex(vec_f16('[1, -2]')), vec_to_json(vec_f16(vec_f32('[0.5]')))
** = 003C00C0|[0.500000]
*/
static void funcF16(ChoirCall *p) { funcConvert(p, VEC_F16); }

/*
** SQL: vec_bf16(vector) -> BLOB
**
** A bfloat16 vector (the upper half of a float32) from JSON text, a blob of 2*d
** bytes, or another float vector.
**
**   vector  TEXT, BLOB of 2*d bytes, or the result of vec_f32 or vec_f16
**
** NULL: an error.
** Errors: as for vec_f32.
**
** > SELECT hex(vec_bf16('[1, -2]'))
** = 803F00C0
*/
static void funcBf16(ChoirCall *p) { funcConvert(p, VEC_BF16); }

/*
** SQL: vec_int8(vector) -> BLOB
**
** An int8 vector from JSON text or a blob of one signed byte an element.
**
**   vector  TEXT of integers -128 to 127, or BLOB
**
** The bytes of a blob are taken as they are; to shrink floats use
** vec_quantize_int8.
** NULL: an error.
** Errors: not a blob or text; no elements; an item outside -128 to 127.
** Source: sqlite-vec vec_int8.
**
** > SELECT hex(vec_int8('[1, -1, 127]')), vec_type(vec_int8(x'01'))
** = 01FF7F|int8
** > SELECT vec_int8('[300]')
** ! vec_int8: vector has a value outside -128 to 127 at byte 1: 300]
*/
static void funcInt8(ChoirCall *p) { funcConstruct(p, VEC_I8); }

/*
** SQL: vec_bit(vector) -> BLOB
**
** A bit vector from a blob, eight elements a byte; element 0 is the lowest bit
** of the first byte.
**
**   vector  BLOB
**
** NULL: an error.
** Errors: not a blob; empty.
** Source: sqlite-vec vec_bit.
**
** > SELECT vec_to_json(vec_bit(x'81')), vec_length(vec_bit(x'8100'))
** = [1,0,0,0,0,0,0,1]|16
*/
static void funcBit(ChoirCall *p) { funcConstruct(p, VEC_BIT); }

/*
** SQL: vec_length(vector) -> INTEGER
** SQL: vector_dims(vector) -> INTEGER
**
** The number of elements.
**
**   vector  TEXT (JSON) or BLOB
**
** NULL: an error.
** Errors: not a vector.
** Source: sqlite-vec vec_length, pgvector vector_dims.
**
** > SELECT vec_length('[1, 2, 3]'), vec_length(x'0000803f')
** = 3|1
*/
static void funcLength(ChoirCall *p) {
  ChoirVec v;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  sqlite3_result_int64(p->pCtx, v.nDim);
  choirVecFree(&v);
}

/*
** SQL: vec_type(vector) -> TEXT
**
** What the elements are: float32, float16, bfloat16, int8 or bit. A blob that
** comes straight from a table is float32.
**
**   vector  TEXT (JSON) or BLOB
**
** NULL: an error.
** Errors: not a vector.
** Source: sqlite-vec vec_type.
**
** > SELECT vec_type('[1]'), vec_type(vec_bit(x'ff')), vec_type(vec_f16('[1]'))
** = float32|bit|float16
*/
static void funcType(ChoirCall *p) {
  ChoirVec v;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  choirResultText(p, choirVecTypeName(v.eType));
  choirVecFree(&v);
}

/* Element by element, a + iSign*b; int8 wraps around, as in sqlite-vec. */
static void funcCombine(ChoirCall *p, int iSign, const char *zVerb) {
  ChoirVec a, b, out;
  i64 i;
  choirVecArg(&p->err, &a, p->apArg[0], "1st vector");
  choirVecArg(&p->err, &b, p->apArg[1], "2nd vector");
  choirVecSame(&p->err, &a, &b);
  if (p->err.rc == SQLITE_OK && a.eType == VEC_BIT) {
    choirErrSet(&p->err, SQLITE_ERROR, "cannot %s bit vectors", zVerb);
  }
  choirVecNew(&p->err, &out, a.eType, a.nDim);
  for (i = 0; i < out.nDim; i++) {
    if (a.eType == VEC_I8) {
      const int8_t *pA = a.a, *pB = b.a;
      ((u8 *)out.pOwn)[i] = (u8)(pA[i] + iSign * pB[i]);
    } else {
      choirVecPut(&out, i,
                  choirVecAt(&a, i) + (float)iSign * choirVecAt(&b, i));
    }
  }
  if (p->err.rc == SQLITE_OK) {
    choirVecResult(&out, p->pCtx);
  }
  choirVecFree(&out);
  choirVecFree(&b);
  choirVecFree(&a);
}

/*
** SQL: vec_add(a, b) -> BLOB
**
** The sum, element by element, of two vectors of the same type and length.
** int8 wraps around.
**
**   a, b  TEXT (JSON) or BLOB
**
** NULL: an error.
** Errors: different types or dimensions; bit vectors.
** Source: sqlite-vec vec_add.
**
** > SELECT vec_to_json(vec_add('[1, 2]', '[10, 20]'))
** = [11.000000,22.000000]
** > SELECT vec_add('[1, 2]', '[1]')
** ! vec_add: vectors have different dimensions, 2 and 1
*/
static void funcAdd(ChoirCall *p) { funcCombine(p, 1, "add"); }

/*
** SQL: vec_sub(a, b) -> BLOB
**
** The difference a - b, element by element. int8 wraps around.
**
**   a, b  TEXT (JSON) or BLOB, same type and length
**
** NULL: an error.
** Errors: different types or dimensions; bit vectors.
** Source: sqlite-vec vec_sub.
**
** > SELECT vec_to_json(vec_sub('[10, 20]', '[1, 2]'))
** = [9.000000,18.000000]
*/
static void funcSub(ChoirCall *p) { funcCombine(p, -1, "subtract"); }

/* bZero: a vector of length 0 stays as it is (pgvector) instead of turning
** into NaN (sqlite-vec). */
static void funcUnit(ChoirCall *p, int bZero) {
  ChoirVec v, out;
  float norm;
  i64 i;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  if (p->err.rc == SQLITE_OK && v.eType >= VEC_I8) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "vector has type %s; only float vectors can be normalized",
                choirVecTypeName(v.eType));
  }
  choirVecNew(&p->err, &out, v.eType, v.nDim);
  if (p->err.rc == SQLITE_OK) {
    norm = sqrtf(
        (float)choirVecNorm2(choirVecKern(p->pConn), v.eType, v.a, v.nDim));
    norm = bZero && norm == 0.0f ? 1.0f : norm;
    for (i = 0; i < out.nDim; i++) {
      choirVecPut(&out, i, choirVecAt(&v, i) / norm);
    }
    choirVecResult(&out, p->pCtx);
  }
  choirVecFree(&out);
  choirVecFree(&v);
}

/*
** SQL: vec_normalize(vector) -> BLOB
**
** The vector divided by its Euclidean length. One of length 0 gives NaN
** elements, as in sqlite-vec (l2_normalize leaves it alone).
**
**   vector  TEXT (JSON) or BLOB, float32, float16 or bfloat16
**
** NULL: an error.
** Errors: int8 and bit vectors.
** Source: sqlite-vec vec_normalize.
**
** > SELECT vec_to_json(vec_normalize('[3, 4]'))
** = [0.600000,0.800000]
*/
static void funcNormalize(ChoirCall *p) { funcUnit(p, 0); }

/*
** SQL: l2_normalize(vector) -> BLOB
**
** vec_normalize under pgvector's name and rules: a vector of length 0 stays as
** it is. Registered only where the name is free.
**
**   vector  TEXT (JSON), BLOB or NULL
**
** NULL: gives NULL.
** Errors: int8 and bit vectors.
** Source: pgvector l2_normalize.
**
** > SELECT vec_to_json(l2_normalize('[0, 0]')), l2_normalize(NULL) IS NULL
** = [0.000000,0.000000]|1
*/
static void funcL2Normalize(ChoirCall *p) {
  if (sqlite3_value_type(p->apArg[0]) != SQLITE_NULL) {
    funcUnit(p, 1);
  }
}

/* Elements iStart (0-based) to before iEnd. */
static void funcCut(ChoirCall *p, ChoirVec *pVec, i64 iStart, i64 iEnd) {
  if (p->err.rc == SQLITE_OK &&
      (iStart < 0 || iEnd <= iStart || iEnd > pVec->nDim)) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "no elements %lld to before %lld in a vector of %lld", iStart,
                iEnd, pVec->nDim);
  } else if (p->err.rc == SQLITE_OK && pVec->eType == VEC_BIT &&
             (iStart % 8 || iEnd % 8)) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "bit vectors are cut at multiples of 8, not at %lld and %lld",
                iStart, iEnd);
  }
  if (p->err.rc == SQLITE_OK) {
    const i64 nBit = pVec->nByte * 8 / pVec->nDim;
    ChoirVec out = *pVec;
    out.pOwn = NULL; /* borrowed from pVec, copied into the result */
    out.a = (const u8 *)pVec->a + iStart * nBit / 8;
    out.nDim = iEnd - iStart;
    out.nByte = out.nDim * nBit / 8;
    choirVecResult(&out, p->pCtx);
  }
}

/*
** SQL: vec_slice(vector, start, end) -> BLOB
**
** The elements from start up to but without end, counted from 0.
**
**   vector  TEXT (JSON) or BLOB
**   start   INTEGER, 0 to length - 1
**   end     INTEGER, start + 1 to length
**
** Cutting the front of an embedding that was trained for it (Matryoshka) is
** vec_normalize(vec_slice(v, 0, 256)). Bit vectors are cut at multiples of 8.
** NULL: a NULL vector is an error; NULL start or end count as 0.
** Errors: an empty slice, or one that leaves the vector.
** Source: sqlite-vec vec_slice.
**
** > SELECT vec_to_json(vec_slice('[1, 2, 3, 4]', 1, 3))
** = [2.000000,3.000000]
** > SELECT vec_slice('[1, 2]', 0, 3)
** ! vec_slice: no elements 0 to before 3 in a vector of 2
*/
static void funcSlice(ChoirCall *p) {
  ChoirVec v;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  funcCut(p, &v, sqlite3_value_int(p->apArg[1]),
          sqlite3_value_int(p->apArg[2]));
  choirVecFree(&v);
}

/*
** SQL: subvector(vector, start, count) -> BLOB
**
** count elements from start, counted from 1, as in pgvector. Registered only
** where the name is free; vec_slice is the same with other bounds.
**
**   vector  TEXT (JSON), BLOB or NULL
**   start   INTEGER from 1
**   count   INTEGER from 1
**
** NULL: a NULL argument gives NULL.
** Errors: elements outside the vector.
** Source: pgvector subvector.
**
** > SELECT vec_to_json(subvector('[1, 2, 3, 4]', 2, 2))
** = [2.000000,3.000000]
*/
static void funcSubvector(ChoirCall *p) {
  ChoirVec v;
  i64 iStart, n;
  if (sqlite3_value_type(p->apArg[0]) == SQLITE_NULL ||
      sqlite3_value_type(p->apArg[1]) == SQLITE_NULL ||
      sqlite3_value_type(p->apArg[2]) == SQLITE_NULL) {
    return;
  }
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  iStart = choirArgInt(&p->err, p->apArg[1], "start", 1, v.nDim);
  n = choirArgInt(&p->err, p->apArg[2], "count", 1, v.nDim);
  funcCut(p, &v, iStart - 1, iStart - 1 + n);
  choirVecFree(&v);
}

/* What one element is in JSON, into z. */
typedef void (*FuncNumber)(const ChoirVec *, i64 i, char z[64]);

static void funcPrint(ChoirCall *p, FuncNumber xNumber) {
  ChoirVec v;
  ChoirBuf b;
  i64 i;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  choirBufInit(&b, &p->err, CHOIR_BUF_JSON);
  choirBufText(&b, "[");
  for (i = 0; i < v.nDim && p->err.rc == SQLITE_OK; i++) {
    char z[64];
    xNumber(&v, i, z);
    choirBufText(&b, i ? "," : "");
    choirBufText(&b, z);
  }
  choirBufText(&b, "]");
  choirBufResult(&b, p->pCtx);
  sqlite3_result_subtype(p->pCtx, 'J');
  choirVecFree(&v);
}

static void funcSixDecimals(const ChoirVec *p, i64 i, char z[64]) {
  float f = choirVecAt(p, i);
  if (p->eType >= VEC_I8) {
    sqlite3_snprintf(64, z, "%d", (int)f);
  } else if (isnan(f)) {
    sqlite3_snprintf(64, z, "null");
  } else {
    sqlite3_snprintf(64, z, "%f", (double)f);
  }
}

/* The shortest of 6 to 9 digits that reads back as the same float. */
static void funcAllDigits(const ChoirVec *p, i64 i, char z[64]) {
  float f = choirVecAt(p, i);
  double r = NAN;
  int nDigit;
  sqlite3_snprintf(64, z, "null");
  for (nDigit = 6; isfinite(f) && (float)r != f; nDigit++) {
    sqlite3_snprintf(64, z, "%.*g", nDigit, (double)f);
    choirVecNumber(z, &r);
  }
}

/*
** SQL: vec_to_json(vector) -> TEXT
**
** The elements as a JSON array: floats with six decimals, as sqlite-vec prints
** them. NaN becomes null; infinity is printed as Inf, which is not JSON.
** vector_extract keeps every digit.
**
**   vector  TEXT (JSON) or BLOB
**
** NULL: an error.
** Errors: not a vector.
** Source: sqlite-vec vec_to_json.
**
** > SELECT vec_to_json(x'cdcccc3d'), vec_to_json(vec_int8(x'01ff'))
** = [0.100000]|[1,-1]
*/
static void funcToJson(ChoirCall *p) { funcPrint(p, funcSixDecimals); }

/*
** SQL: vector_extract(vector) -> TEXT
**
** The elements as a JSON array with as many digits as a float32 needs to come
** back exactly. libSQL's name; registered only where it is free.
**
**   vector  TEXT (JSON) or BLOB
**
** NaN and infinity become null, so the text is always JSON.
** NULL: an error.
** Errors: not a vector.
** Source: libSQL vector_extract.
**
** > SELECT vector_extract(vector32('[0.1, 2, -1e-7]'))
** = [0.1,2,-1e-07]
*/
static void funcExtract(ChoirCall *p) { funcPrint(p, funcAllDigits); }

/*
** SQL: vec_quantize_binary(vector) -> BLOB
** SQL: binary_quantize(vector) -> BLOB
**
** One bit an element, 1 where it is greater than 0: 1/32 of the size of
** float32, for a coarse search by vec_distance_hamming.
**
**   vector  TEXT (JSON) or BLOB, float or int8, a multiple of 8 elements
**
** Element 0 is the lowest bit of the first byte. binary_quantize is pgvector's
** name, registered only where it is free.
** NULL: an error.
** Errors: a length that is no multiple of 8; a bit vector.
** Source: sqlite-vec vec_quantize_binary.
**
** > SELECT hex(vec_quantize_binary('[1, -1, 0, 0.5, -2, 3, 4, -1]'))
** = 69
*/
static void funcQuantizeBinary(ChoirCall *p) {
  ChoirVec v;
  choirVecArg(&p->err, &v, p->apArg[0], "vector");
  if (p->err.rc == SQLITE_OK && v.eType == VEC_BIT) {
    choirErrSet(&p->err, SQLITE_ERROR, "vector has bits already");
  } else if (p->err.rc == SQLITE_OK && v.nDim % 8) {
    choirErrSet(&p->err, SQLITE_ERROR,
                "vector has %lld elements; bits need a multiple of 8", v.nDim);
  }
  funcAs(p, &v, VEC_BIT);
  choirVecFree(&v);
}

/*
** SQL: vec_quantize_int8(vector, range) -> BLOB
**
** One byte an element: -1 to 1 is spread over -128 to 127, what lies outside is
** clamped. A quarter of the size of float32.
**
**   vector  TEXT (JSON) or BLOB, float32, best of length 1
**   range   TEXT, 'unit'
**
** NULL: an error.
** Errors: another range than 'unit'; bytes that are not float32.
** Source: sqlite-vec vec_quantize_int8.
**
** > SELECT vec_to_json(vec_quantize_int8('[-1, 0, 0.5, 2]', 'unit'))
** = [-128,0,63,127]
*/
static void funcQuantizeInt8(ChoirCall *p) {
  const float step = 2.0f / 255.0f;
  ChoirVec v, out;
  const char *zRange;
  i64 i;
  choirVecArgAs(&p->err, &v, p->apArg[0], VEC_F32, "vector");
  zRange = choirArgText(&p->err, p->apArg[1], "range");
  if (zRange && sqlite3_stricmp(zRange, "unit") != 0) {
    choirErrSet(&p->err, SQLITE_ERROR, "range must be 'unit', got '%s'",
                zRange);
  }
  choirVecNew(&p->err, &out, VEC_I8, v.nDim);
  for (i = 0; i < out.nDim; i++) {
    double r = ((double)choirVecAt(&v, i) + 1.0) / (double)step - 128.0;
    ((int8_t *)out.pOwn)[i] = (int8_t)(r <= -128 ? -128 : r < 127 ? r : 127);
  }
  if (p->err.rc == SQLITE_OK) {
    choirVecResult(&out, p->pCtx);
  }
  choirVecFree(&out);
  choirVecFree(&v);
}

/* ------------------------------------------------------------- vec_each */

typedef struct EachCursor {
  ChoirCursor base;
  ChoirVec v;
} EachCursor;

/*
** SQL: vec_each(vector) -> TABLE(value)
**
** The elements of a vector, one a row, in order; rowid counts from 0.
**
**   vector  TEXT (JSON) or BLOB
**
** value is a real, or an integer for int8 and bit vectors; NaN becomes NULL. The
** bits of each byte come highest first, as in sqlite-vec: the other way round
** than vec_to_json has them.
** NULL: an error.
** Errors: not a vector.
** Source: sqlite-vec vec_each.
**
** > SELECT rowid, value FROM vec_each('[1.5, 2]')
** = 0|1.5
** = 1|2.0
*/
static void eachFilter(ChoirCursor *pCur) {
  EachCursor *p = (EachCursor *)pCur;
  choirVecArg(&pCur->err, &p->v, pCur->apArg[0], "vector");
  pCur->iRow = -1; /* the rowid is iRow + 1 */
}

static void eachNext(ChoirCursor *pCur) {
  pCur->bEof = pCur->iRow + 1 >= ((EachCursor *)pCur)->v.nDim;
}

static void eachColumn(ChoirCursor *pCur, sqlite3_context *pCtx, int iCol) {
  const ChoirVec *pVec = &((EachCursor *)pCur)->v;
  i64 i = pCur->iRow + 1;
  float f = choirVecAt(pVec, pVec->eType == VEC_BIT ? i ^ 7 : i);
  (void)iCol;
  if (pVec->eType >= VEC_I8) {
    sqlite3_result_int(pCtx, (int)f);
  } else {
    sqlite3_result_double(pCtx, (double)f);
  }
}

static void eachReset(ChoirCursor *pCur) {
  choirVecFree(&((EachCursor *)pCur)->v);
}

#define FUNC_SHARED CHOIR_SUBTYPE | CHOIR_SHARED
#define FUNC_ALIAS CHOIR_SUBTYPE | CHOIR_ALIAS

static const ChoirFunc aVecFunc[] = {
    {"vec_f32", 1, 1, CHOIR_PURE, FUNC_SHARED, funcF32, NULL},
    {"vec_f16", 1, 1, CHOIR_PURE, CHOIR_SUBTYPE, funcF16, NULL},
    {"vec_bf16", 1, 1, CHOIR_PURE, CHOIR_SUBTYPE, funcBf16, NULL},
    {"vec_int8", 1, 1, CHOIR_PURE, FUNC_SHARED, funcInt8, NULL},
    {"vec_bit", 1, 1, CHOIR_PURE, FUNC_SHARED, funcBit, NULL},
    {"vec_length", 1, 1, CHOIR_PURE, FUNC_SHARED, funcLength, NULL},
    {"vec_type", 1, 1, CHOIR_PURE, FUNC_SHARED, funcType, NULL},
    {"vec_add", 2, 2, CHOIR_PURE, FUNC_SHARED, funcAdd, NULL},
    {"vec_sub", 2, 2, CHOIR_PURE, FUNC_SHARED, funcSub, NULL},
    {"vec_normalize", 1, 1, CHOIR_PURE, FUNC_SHARED, funcNormalize, NULL},
    {"vec_slice", 3, 3, CHOIR_PURE, FUNC_SHARED, funcSlice, NULL},
    {"vec_to_json", 1, 1, CHOIR_PURE, FUNC_SHARED, funcToJson, NULL},
    {"vec_quantize_binary", 1, 1, CHOIR_PURE, FUNC_SHARED, funcQuantizeBinary,
     NULL},
    {"vec_quantize_int8", 2, 2, CHOIR_PURE, FUNC_SHARED, funcQuantizeInt8,
     NULL},
    {"vector32", 1, 1, CHOIR_PURE, FUNC_ALIAS, funcF32, NULL},
    {"vector_extract", 1, 1, CHOIR_PURE, FUNC_ALIAS, funcExtract, NULL},
    {"vector_dims", 1, 1, CHOIR_PURE, FUNC_ALIAS, funcLength, NULL},
    {"l2_normalize", 1, 1, CHOIR_PURE, FUNC_ALIAS, funcL2Normalize, NULL},
    {"subvector", 3, 3, CHOIR_PURE, FUNC_ALIAS, funcSubvector, NULL},
    {"binary_quantize", 1, 1, CHOIR_PURE, FUNC_ALIAS, funcQuantizeBinary, NULL},
};

static const ChoirTvf aVecTvf[] = {
    {"vec_each", "value, vector HIDDEN", 1, 1, 1, CHOIR_PURE, FUNC_SHARED,
     sizeof(EachCursor), eachFilter, eachNext, eachColumn, eachReset},
};

CHOIR_PRIVATE CHOIR_COLD void choirVecFuncRegister(ChoirConn *pConn,
                                                   ChoirErr *pErr) {
  choirFuncs(pConn, pErr, aVecFunc);
  choirTvfs(pConn, pErr, aVecTvf);
}
