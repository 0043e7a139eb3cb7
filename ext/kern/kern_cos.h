/* SPDX-License-Identifier: MIT */
/*
** What a cosine needs in one pass over the row: dot(q,r) and dot(r,r).
** Included like kern_pair.h, with the same names set; KX_STEP multiplies.
*/

static KERN_TARGET void KERN_FN(KX_NAME, block)(const uint8_t *q,
                                                const uint8_t *r, size_t n,
                                                double aOut[2]) {
  KX_ACC s0 = KX_ZERO(), s1 = KX_ZERO(), s2 = KX_ZERO(), s3 = KX_ZERO();
  KX_ACC n0 = KX_ZERO(), n1 = KX_ZERO(), n2 = KX_ZERO(), n3 = KX_ZERO();
  const size_t nStep = (size_t)KX_N * KX_BYTE;
  size_t i = 0, nByte = n * KX_BYTE;
  for (; i + 4 * nStep <= nByte; i += 4 * nStep) {
    const KX_VEC v0 = KX_LOAD(r + i), v1 = KX_LOAD(r + i + nStep);
    const KX_VEC v2 = KX_LOAD(r + i + 2 * nStep);
    const KX_VEC v3 = KX_LOAD(r + i + 3 * nStep);
    KX_STEP(s0, KX_LOAD(q + i), v0);
    KX_STEP(s1, KX_LOAD(q + i + nStep), v1);
    KX_STEP(s2, KX_LOAD(q + i + 2 * nStep), v2);
    KX_STEP(s3, KX_LOAD(q + i + 3 * nStep), v3);
    KX_STEP(n0, v0, v0);
    KX_STEP(n1, v1, v1);
    KX_STEP(n2, v2, v2);
    KX_STEP(n3, v3, v3);
  }
  for (; i + nStep <= nByte; i += nStep) {
    const KX_VEC v = KX_LOAD(r + i);
    KX_STEP(s0, KX_LOAD(q + i), v);
    KX_STEP(n0, v, v);
  }
  if (i < nByte) {
    uint8_t aQ[KX_N * KX_BYTE] = {0}, aR[KX_N * KX_BYTE] = {0};
    memcpy(aQ, q + i, nByte - i);
    memcpy(aR, r + i, nByte - i);
    KX_STEP(s1, KX_LOAD(aQ), KX_LOAD(aR));
    KX_STEP(n1, KX_LOAD(aR), KX_LOAD(aR));
  }
  aOut[0] += (double)KX_SUM(KX_ADD(KX_ADD(s0, s1), KX_ADD(s2, s3)));
  aOut[1] += (double)KX_SUM(KX_ADD(KX_ADD(n0, n1), KX_ADD(n2, n3)));
}

static KERN_TARGET void KERN_FN(KX_NAME, pair)(const void *pQ, const void *pR,
                                               size_t n, double aOut[2]) {
  const uint8_t *q = pQ, *r = pR;
  aOut[0] = aOut[1] = 0.0;
  for (; n > KERN_BLOCK; n -= KERN_BLOCK) {
    KERN_FN(KX_NAME, block)(q, r, KERN_BLOCK, aOut);
    q += KERN_BLOCK * KX_BYTE;
    r += KERN_BLOCK * KX_BYTE;
  }
  KERN_FN(KX_NAME, block)(q, r, n, aOut);
}

#undef KX_NAME
#undef KX_STEP
