/* SPDX-License-Identifier: MIT */
/*
** Vectors as SQL values: what an argument holds, names of types and metrics,
** access to single elements.
**
** Subtypes: 223 float32, 224 bit and 225 int8 as in sqlite-vec; 226 float16
** and 227 bfloat16 are choir's own.
*/
#include "vec.h"
#include <math.h>

static const struct {
  const char *zName, *zShort;
  int nBit; /* of one element */
  unsigned iSubtype;
} aVecType[] = {
    [VEC_F32] = {"float32", "f32", 32, 223},
    [VEC_F16] = {"float16", "f16", 16, 226},
    [VEC_BF16] = {"bfloat16", "bf16", 16, 227},
    [VEC_I8] = {"int8", "i8", 8, 225},
    [VEC_BIT] = {"bit", "bit", 1, 224},
};
#define VEC_NTYPE ((int)(sizeof(aVecType) / sizeof(aVecType[0])))

static const char *const azVecMetric[VEC_NMETRIC] = {
    [VEC_COSINE] = "cosine", [VEC_L2] = "l2",           [VEC_DOT] = "dot",
    [VEC_L1] = "l1",         [VEC_HAMMING] = "hamming",
};

CHOIR_PRIVATE const char *choirVecTypeName(int eType) {
  return aVecType[eType].zName;
}

CHOIR_PRIVATE int choirVecTypeOf(ChoirErr *pErr, const char *zName) {
  int i;
  for (i = 0; i < VEC_NTYPE && zName; i++) {
    if (sqlite3_stricmp(zName, aVecType[i].zName) == 0 ||
        sqlite3_stricmp(zName, aVecType[i].zShort) == 0) {
      return i;
    }
  }
  choirErrSet(pErr, SQLITE_ERROR,
              "no vector type '%s'; float32, float16, bfloat16, int8, bit",
              zName ? zName : "");
  return VEC_F32;
}

CHOIR_PRIVATE int choirVecMetricOf(ChoirErr *pErr, const char *zName) {
  int i;
  for (i = 0; i < VEC_NMETRIC && zName; i++) {
    if (sqlite3_stricmp(zName, azVecMetric[i]) == 0) {
      return i;
    }
  }
  choirErrSet(pErr, SQLITE_ERROR,
              "no metric '%s'; cosine, l2, dot, l1, hamming",
              zName ? zName : "");
  return VEC_COSINE;
}

CHOIR_PRIVATE i64 choirVecDim(int eType, i64 nByte) {
  int nBit = aVecType[eType].nBit; /* a power of two: no division a row */
  return nByte * 8 & (nBit - 1) ? -1 : nByte * 8 >> __builtin_ctz((u32)nBit);
}

CHOIR_PRIVATE void choirVecOrder(int eType, void *a, i64 nByte) {
  choirLittleEndian(a, (u64)nByte, aVecType[eType].nBit / 8);
}

CHOIR_PRIVATE void choirVecFree(ChoirVec *p) {
  sqlite3_free(p->pOwn);
  p->pOwn = NULL;
  p->a = NULL;
  p->nDim = p->nByte = 0;
}

static void vecBlob(ChoirErr *pErr, ChoirVec *p, sqlite3_value *v, int eType,
                    const char *zArg) {
  p->eType = eType;
  p->a = sqlite3_value_blob(v);
  p->nByte = sqlite3_value_bytes(v);
  p->nDim = choirVecDim(eType, p->nByte);
  if (p->nByte == 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s has no elements; a vector needs at least one", zArg);
  } else if (p->a == NULL) {
    choirErrNomem(pErr);
  } else if (p->nDim < 0) {
    choirErrSet(pErr, SQLITE_ERROR,
                "%s is not a %s vector: its %lld bytes are no multiple of %d",
                zArg, aVecType[eType].zName, p->nByte,
                aVecType[eType].nBit / 8);
  } else if (CHOIR_BIG_ENDIAN && aVecType[eType].nBit > 8) {
    p->pOwn = choirMalloc(pErr, (u64)p->nByte);
    if (p->pOwn) {
      memcpy(p->pOwn, p->a, (size_t)p->nByte);
      choirVecOrder(eType, p->pOwn, p->nByte);
    }
    p->a = p->pOwn;
  }
}

CHOIR_PRIVATE void choirVecArgAs(ChoirErr *pErr, ChoirVec *p, sqlite3_value *v,
                                 int eType, const char *zArg) {
  memset(p, 0, sizeof(*p));
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (sqlite3_value_type(v) == SQLITE_BLOB) {
    vecBlob(pErr, p, v, eType, zArg);
  } else if (sqlite3_value_type(v) == SQLITE_TEXT && eType != VEC_BIT) {
    const char *z = (const char *)sqlite3_value_text(v);
    i64 n = sqlite3_value_bytes(v);
    if (z == NULL) {
      choirErrNomem(pErr);
      return;
    }
    choirVecJson(pErr, p, z, n, eType == VEC_I8 ? VEC_I8 : VEC_F32, zArg);
    if (eType == VEC_F16 || eType == VEC_BF16) {
      ChoirVec half;
      i64 i;
      choirVecNew(pErr, &half, eType, p->nDim);
      for (i = 0; i < half.nDim; i++) {
        choirVecPut(&half, i, choirVecAt(p, i));
      }
      choirVecFree(p);
      *p = half;
    }
  } else {
    choirErrSet(pErr, SQLITE_ERROR, "%s must be a blob%s, got %s", zArg,
                eType == VEC_BIT ? "" : " or JSON text", choirTypeName(v));
  }
}

CHOIR_PRIVATE void choirVecArg(ChoirErr *pErr, ChoirVec *p, sqlite3_value *v,
                               const char *zArg) {
  unsigned iSubtype = sqlite3_value_subtype(v);
  int i, eType = VEC_F32;
  for (i = 0; iSubtype != 0 && i < VEC_NTYPE; i++) {
    if (aVecType[i].iSubtype == iSubtype) {
      eType = i;
    }
  }
  choirVecArgAs(pErr, p, v, eType, zArg);
}

CHOIR_PRIVATE void choirVecResult(ChoirVec *p, sqlite3_context *pCtx) {
  if (CHOIR_BIG_ENDIAN && p->pOwn == NULL && aVecType[p->eType].nBit > 8) {
    p->pOwn = sqlite3_malloc64((u64)p->nByte); /* a part of an argument */
    if (p->pOwn == NULL) {
      sqlite3_result_error_nomem(pCtx);
      return;
    }
    memcpy(p->pOwn, p->a, (size_t)p->nByte);
  }
  if (p->pOwn) {
    choirVecOrder(p->eType, p->pOwn, p->nByte);
    sqlite3_result_blob64(pCtx, p->pOwn, (u64)p->nByte, sqlite3_free);
    p->pOwn = NULL;
  } else {
    sqlite3_result_blob64(pCtx, p->a, (u64)p->nByte, SQLITE_TRANSIENT);
  }
  sqlite3_result_subtype(pCtx, aVecType[p->eType].iSubtype);
}

CHOIR_PRIVATE void choirVecNew(ChoirErr *pErr, ChoirVec *p, int eType,
                               i64 nDim) {
  memset(p, 0, sizeof(*p));
  p->eType = eType;
  p->nByte = (nDim * aVecType[eType].nBit + 7) / 8;
  p->pOwn = choirMalloc(pErr, (u64)p->nByte);
  p->a = p->pOwn;
  p->nDim = p->pOwn ? nDim : 0;
}

CHOIR_PRIVATE float choirVecAt(const ChoirVec *p, i64 i) {
  const u8 *a = p->a;
  float f;
  u16 h;
  switch (p->eType) {
  case VEC_F32:
    memcpy(&f, a + i * 4, 4);
    return f;
  case VEC_I8:
    return (float)(int8_t)a[i];
  case VEC_BIT:
    return (float)(a[i / 8] >> (i % 8) & 1);
  default:
    memcpy(&h, a + i * 2, 2);
    return p->eType == VEC_F16 ? choirF16ToF32(h) : choirBf16ToF32(h);
  }
}

CHOIR_PRIVATE void choirVecPut(ChoirVec *p, i64 i, float f) {
  u8 *a = p->pOwn;
  u16 h;
  switch (p->eType) {
  case VEC_F32:
    memcpy(a + i * 4, &f, 4);
    break;
  case VEC_I8:
    a[i] = (u8)(int8_t)(f >= 127.0f ? 127.0f : f <= -128.0f ? -128.0f : f);
    break;
  case VEC_BIT:
    a[i / 8] = (u8)(a[i / 8] | (f > 0) << (i % 8));
    break;
  default:
    h = p->eType == VEC_F16 ? choirF32ToF16(f) : choirF32ToBf16(f);
    memcpy(a + i * 2, &h, 2);
    break;
  }
}

CHOIR_PRIVATE void choirVecSame(ChoirErr *pErr, const ChoirVec *pA,
                                const ChoirVec *pB) {
  if (pErr->rc != SQLITE_OK) {
    return;
  }
  if (pA->eType != pB->eType) {
    choirErrSet(pErr, SQLITE_ERROR,
                "vectors have different types, %s and %s; wrap both in the"
                " same constructor, as in vec_int8(x)",
                aVecType[pA->eType].zName, aVecType[pB->eType].zName);
  } else if (pA->nDim != pB->nDim) {
    choirErrSet(pErr, SQLITE_ERROR,
                "vectors have different dimensions, %lld and %lld", pA->nDim,
                pB->nDim);
  }
}

CHOIR_PRIVATE void choirVecAllows(ChoirErr *pErr, int eMetric, int eType) {
  if ((eMetric == VEC_HAMMING) != (eType == VEC_BIT)) {
    choirErrSet(pErr, SQLITE_ERROR, "no %s distance between %s vectors; %s",
                azVecMetric[eMetric], aVecType[eType].zName,
                eType == VEC_BIT ? "bits have hamming"
                                 : "hamming needs vec_bit(x)");
  }
}
