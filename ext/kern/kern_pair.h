/* SPDX-License-Identifier: MIT */
/*
** One metric over one element type, of a pair of vectors. Included many times
** (never guarded) by kern_tier.h, which sets
**
**   KX_NAME      f32_dot, i8_l2, …
**   KX_BYTE      bytes of one element
**   KX_N         elements of one step
**   KX_VEC       one step of elements, widened        KX_LOAD(p)
**   KX_ACC       an accumulator                       KX_ZERO()
**   KX_STEP(acc, q, r)                                KX_ADD(acc, acc)
**   KX_SUM(acc)  its lanes added up, a number
**
** Missing elements of the last step are read from a zeroed copy: a zero adds
** nothing to any of the metrics.
*/

static KERN_TARGET double KERN_FN(KX_NAME, block)(const uint8_t *q,
                                                  const uint8_t *r, size_t n) {
  KX_ACC s0 = KX_ZERO(), s1 = KX_ZERO(), s2 = KX_ZERO(), s3 = KX_ZERO();
  const size_t nStep = (size_t)KX_N * KX_BYTE;
  size_t i = 0, nByte = n * KX_BYTE;
  for (; i + 4 * nStep <= nByte; i += 4 * nStep) {
    KX_STEP(s0, KX_LOAD(q + i), KX_LOAD(r + i));
    KX_STEP(s1, KX_LOAD(q + i + nStep), KX_LOAD(r + i + nStep));
    KX_STEP(s2, KX_LOAD(q + i + 2 * nStep), KX_LOAD(r + i + 2 * nStep));
    KX_STEP(s3, KX_LOAD(q + i + 3 * nStep), KX_LOAD(r + i + 3 * nStep));
  }
  for (; i + nStep <= nByte; i += nStep) {
    KX_STEP(s0, KX_LOAD(q + i), KX_LOAD(r + i));
  }
  if (i < nByte) {
    uint8_t aQ[KX_N * KX_BYTE] = {0}, aR[KX_N * KX_BYTE] = {0};
    memcpy(aQ, q + i, nByte - i);
    memcpy(aR, r + i, nByte - i);
    KX_STEP(s1, KX_LOAD(aQ), KX_LOAD(aR));
  }
  return (double)KX_SUM(KX_ADD(KX_ADD(s0, s1), KX_ADD(s2, s3)));
}

static KERN_TARGET double KERN_FN(KX_NAME, pair)(const void *pQ, const void *pR,
                                                 size_t n) {
  const uint8_t *q = pQ, *r = pR;
  double sum = 0.0;
  for (; n > KERN_BLOCK; n -= KERN_BLOCK) {
    sum += KERN_FN(KX_NAME, block)(q, r, KERN_BLOCK);
    q += KERN_BLOCK * KX_BYTE;
    r += KERN_BLOCK * KX_BYTE;
  }
  return sum + KERN_FN(KX_NAME, block)(q, r, n);
}

#undef KX_NAME
#undef KX_STEP
