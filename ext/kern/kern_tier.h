/* SPDX-License-Identifier: MIT */
/*
** One tier: every kernel, then their table. Included once per tier (never
** guarded) after these are set:
**
**   KERN_TIER    suffix of the functions: v3         KERN_TARGET  attribute
**   KERN_TABLE   the table: choirKernV3              KERN_ZNAME   "v3"
**
**   KF           a vector of KF_N floats             KF_LOAD(p) KF_ZERO()
**                KF_ADD KF_SUB KF_FMA(a,b,c)=a*b+c KF_ABS KF_SUM(v)
**   KF_LOAD_F16(p), KF_LOAD_BF16(p)  KF_N halves as KF
**   KERN_F32(op) set where f32 has other vectors: V, N, LOAD, … of those
**   KI           KI_N int8 widened to int16          KI_LOAD(p)
**                KI_SUB(a,b) KI_ABS(a)
**   KA           an int32 accumulator                KA_ZERO() KA_ADD KA_SUM
**                KA_MADD(acc,a,b)  acc + a*b, pairs  KA_ONES()  KI of ones
**   KERN_HAMMING the tier's function for bits
**   KF_SET(x) KF_STORE(p,v) KF_FROM_U16(p)  KF_NOT_GT(a,b) bits of !(a > b)
**   KB … the byte vectors of kern_scan.h, or KERN_SUMS
**   KERN_I8_OWN  set: i8_dot and i8_cos exist already
**
** All of them, and the tier's names, are undefined at the end.
*/

#define KERN_CAT3_(a, b, c) kern_##a##_##b##_##c
#define KERN_CAT3(a, b, c) KERN_CAT3_(a, b, c)
#define KERN_FN(name, form) KERN_CAT3(name, form, KERN_TIER)

/* One block of int8 sums stays below 2^31: 32768 * 255^2. */
#define KERN_BLOCK ((size_t)32768)

/* -------------------------------------------------- f32, f16, bf16 ------ */
#define KX_N KX_F(N)
#define KX_VEC KX_F(V)
#define KX_ACC KX_F(V)
#define KX_ZERO KX_F(ZERO)
#define KX_ADD KX_F(ADD)
#define KX_SUM KX_F(SUM)
#define KERN_STEP_DOT(acc, q, r) acc = KX_F(FMA)(q, r, acc)
#define KERN_STEP_L2(acc, q, r)                                                \
  do {                                                                         \
    const KX_VEC kernD = KX_F(SUB)(q, r);                                      \
    acc = KX_F(FMA)(kernD, kernD, acc);                                        \
  } while (0)
#define KERN_STEP_L1(acc, q, r) acc = KX_F(ADD)(acc, KX_F(ABS)(KX_F(SUB)(q, r)))

#define KF_V KF
#ifndef KERN_F32
#define KERN_F32(op) KF_##op
#endif
#define KX_F(op) KERN_F32(op)
#define KX_BYTE 4
#define KX_LOAD KX_F(LOAD)
#define KX_NAME f32_dot
#define KX_STEP KERN_STEP_DOT
#include "kern_pair.h"
#define KX_NAME f32_l2
#define KX_STEP KERN_STEP_L2
#include "kern_pair.h"
#define KX_NAME f32_l1
#define KX_STEP KERN_STEP_L1
#include "kern_pair.h"
#define KX_NAME f32_cos
#define KX_STEP KERN_STEP_DOT
#include "kern_cos.h"
#undef KX_BYTE
#undef KX_LOAD
#undef KX_F

#define KX_F(op) KF_##op
#define KX_BYTE 2
#define KX_LOAD KF_LOAD_F16
#define KX_NAME f16_dot
#define KX_STEP KERN_STEP_DOT
#include "kern_pair.h"
#define KX_NAME f16_l2
#define KX_STEP KERN_STEP_L2
#include "kern_pair.h"
#define KX_NAME f16_l1
#define KX_STEP KERN_STEP_L1
#include "kern_pair.h"
#define KX_NAME f16_cos
#define KX_STEP KERN_STEP_DOT
#include "kern_cos.h"
#undef KX_LOAD

#define KX_LOAD KF_LOAD_BF16
#define KX_NAME bf16_dot
#define KX_STEP KERN_STEP_DOT
#include "kern_pair.h"
#define KX_NAME bf16_l2
#define KX_STEP KERN_STEP_L2
#include "kern_pair.h"
#define KX_NAME bf16_l1
#define KX_STEP KERN_STEP_L1
#include "kern_pair.h"
#define KX_NAME bf16_cos
#define KX_STEP KERN_STEP_DOT
#include "kern_cos.h"
#undef KX_BYTE
#undef KX_LOAD
#undef KX_F

#undef KX_N
#undef KX_VEC
#undef KX_ACC
#undef KX_ZERO
#undef KX_ADD
#undef KX_SUM
#undef KERN_STEP_DOT
#undef KERN_STEP_L2
#undef KERN_STEP_L1

/* ------------------------------------------------------------- int8 ----- */
#define KX_N KI_N
#define KX_VEC KI
#define KX_ACC KA
#define KX_ZERO KA_ZERO
#define KX_ADD KA_ADD
#define KX_SUM KA_SUM
#define KX_BYTE 1
#define KX_LOAD KI_LOAD
#define KERN_STEP_DOT(acc, q, r) acc = KA_MADD(acc, q, r)
#define KERN_STEP_L2(acc, q, r)                                                \
  do {                                                                         \
    const KI kernD = KI_SUB(q, r);                                             \
    acc = KA_MADD(acc, kernD, kernD);                                          \
  } while (0)
#define KERN_STEP_L1(acc, q, r)                                                \
  acc = KA_MADD(acc, KI_ABS(KI_SUB(q, r)), KA_ONES())

#ifndef KERN_I8_OWN
#define KX_NAME i8_dot
#define KX_STEP KERN_STEP_DOT
#include "kern_pair.h"
#endif
#define KX_NAME i8_l2
#define KX_STEP KERN_STEP_L2
#include "kern_pair.h"
#define KX_NAME i8_l1
#define KX_STEP KERN_STEP_L1
#include "kern_pair.h"
#ifndef KERN_I8_OWN
#define KX_NAME i8_cos
#define KX_STEP KERN_STEP_DOT
#include "kern_cos.h"
#endif

#undef KX_N
#undef KX_VEC
#undef KX_ACC
#undef KX_ZERO
#undef KX_ADD
#undef KX_SUM
#undef KX_BYTE
#undef KX_LOAD
#undef KERN_STEP_DOT
#undef KERN_STEP_L2
#undef KERN_STEP_L1

/* ------------------------------------------------------------ codes ----- */
#include "kern_scan.h"

/* -------------------------------------------------------- the table ----- */
#define KERN_OPS(t)                                                            \
  {                                                                            \
    .xDot = KERN_FN(t##_dot, pair), .xL2 = KERN_FN(t##_l2, pair),              \
    .xL1 = KERN_FN(t##_l1, pair), .xCos = KERN_FN(t##_cos, pair)               \
  }

CHOIR_PRIVATE const ChoirKern KERN_TABLE = {
    .zName = KERN_ZNAME,
    .a = {[KERN_F32] = KERN_OPS(f32),
          [KERN_F16] = KERN_OPS(f16),
          [KERN_BF16] = KERN_OPS(bf16),
          [KERN_I8] = KERN_OPS(i8)},
    .xHamming = KERN_HAMMING,
    .xScan = KERN_FN(scan, block),
    .xRotate = KERN_FN(rot, ate),
};

#undef KERN_OPS
#undef KERN_CAT3_
#undef KERN_CAT3
#undef KERN_FN
#undef KERN_BLOCK
#undef KERN_TIER
#undef KERN_TARGET
#undef KERN_TABLE
#undef KERN_ZNAME
#undef KERN_HAMMING
#undef KERN_I8_OWN
#undef KERN_F32
#undef KF
#undef KF_V
#undef KF_N
#undef KF_LOAD
#undef KF_LOAD_F16
#undef KF_LOAD_BF16
#undef KF_LOAD_FACTOR
#undef KF_ZERO
#undef KF_ADD
#undef KF_SUB
#undef KF_FMA
#undef KF_ABS
#undef KF_SUM
#undef KF_SET
#undef KF_STORE
#undef KF_FROM_U16
#undef KF_NOT_GT
#undef KI
#undef KI_N
#undef KI_LOAD
#undef KI_SUB
#undef KI_ABS
#undef KA
#undef KA_ZERO
#undef KA_ADD
#undef KA_SUM
#undef KA_MADD
#undef KA_ONES
