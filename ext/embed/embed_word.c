/* SPDX-License-Identifier: MIT */
/*
** Words: the one tokenizer behind hash-384, the scoring of text hits and their
** previews. Needs no locale and no library, so it gives the same words on
** every machine.
**
** What it knows of Unicode is below: for Latin a letter per code point, for
** Greek, Cyrillic, Armenian and full-width forms runs that map to one letter
** or shift by a constant, and the ranges that separate words. Any other
** character is a letter that folds to itself.
*/
#include "embed.h"

/* Base letters of U+00C0–U+024F and U+1E00–U+1EFF; '.' folds to itself, a
** digit stands for the two letters of azWordPair. */
static const char aWordLatin1[] =
    "aaaaaa2ceeeeiiiidnooooo.ouuuuy51aaaaaa2ceeeeiiiidnooooo.ouuuuy5y"
    "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiii44jjkk.lllllll"
    "lllnnnnnnnnnoooooo33rrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs"
    "bbbb...cc.ddd....ffg...ikkl..nnooo..pp.....ttttuu.vyyzz........."
    ".....d..l..n.aaiioouuuuuuuuuu.aaaa22ggggkkoooo..j.d.gg..nnaa22oo"
    "aaaaeeeeiiiioooorrrruuuusstt..hhnd..zzaaeeooooooooyylntj..acclts"
    "z..b..eejjqqrryy";
static const char aWordLatin2[] =
    "aabbbbbbccddddddddddeeeeeeeeeeffgghhhhhhhhhhiiiikkkkkkllllllllmm"
    "mmmmnnnnnnnnoooooooopppprrrrrrrrssssssssssttttttttuuuuuuuuuuvvvv"
    "wwwwwwwwwwxxxxyyzzzzzzhtwyasss1.aaaaaaaaaaaaaaaaaaaaaaaaeeeeeeee"
    "eeeeeeeeiiiioooooooooooooooooooooooouuuuuuuuuuuuuuyyyyyyyy....yy";
static const char *const azWordPair[] = {"ss", "ae", "oe", "ij", "th"};

/* Sorted runs; eStep 0: all become iTo, 1: iTo, iTo+1, … */
static const struct {
  u16 iFrom, iLast, iTo, eStep;
} aWordRun[] = {
    {0x0386, 0x0386, 0x03b1, 0}, {0x0388, 0x0388, 0x03b5, 0},
    {0x0389, 0x0389, 0x03b7, 0}, {0x038a, 0x038a, 0x03b9, 0},
    {0x038c, 0x038c, 0x03bf, 0}, {0x038e, 0x038e, 0x03c5, 0},
    {0x038f, 0x038f, 0x03c9, 0}, {0x0390, 0x0390, 0x03b9, 0},
    {0x0391, 0x03a1, 0x03b1, 1}, {0x03a3, 0x03a9, 0x03c3, 1},
    {0x03aa, 0x03aa, 0x03b9, 0}, {0x03ab, 0x03ab, 0x03c5, 0},
    {0x03ac, 0x03ac, 0x03b1, 0}, {0x03ad, 0x03ad, 0x03b5, 0},
    {0x03ae, 0x03ae, 0x03b7, 0}, {0x03af, 0x03af, 0x03b9, 0},
    {0x03b0, 0x03b0, 0x03c5, 0}, {0x03c2, 0x03c2, 0x03c3, 0},
    {0x03ca, 0x03ca, 0x03b9, 0}, {0x03cb, 0x03cb, 0x03c5, 0},
    {0x03cc, 0x03cc, 0x03bf, 0}, {0x03cd, 0x03cd, 0x03c5, 0},
    {0x03ce, 0x03ce, 0x03c9, 0}, {0x0400, 0x0401, 0x0435, 0},
    {0x0402, 0x040f, 0x0452, 1}, {0x0410, 0x042f, 0x0430, 1},
    {0x0450, 0x0451, 0x0435, 0}, {0x0531, 0x0556, 0x0561, 1},
    {0x1f00, 0x1f0f, 0x03b1, 0}, {0x1f10, 0x1f1d, 0x03b5, 0},
    {0x1f20, 0x1f2f, 0x03b7, 0}, {0x1f30, 0x1f3f, 0x03b9, 0},
    {0x1f40, 0x1f4d, 0x03bf, 0}, {0x1f50, 0x1f5f, 0x03c5, 0},
    {0x1f60, 0x1f6f, 0x03c9, 0}, {0x1f70, 0x1f71, 0x03b1, 0},
    {0x1f72, 0x1f73, 0x03b5, 0}, {0x1f74, 0x1f75, 0x03b7, 0},
    {0x1f76, 0x1f77, 0x03b9, 0}, {0x1f78, 0x1f79, 0x03bf, 0},
    {0x1f7a, 0x1f7b, 0x03c5, 0}, {0x1f7c, 0x1f7d, 0x03c9, 0},
    {0x1f80, 0x1f8f, 0x03b1, 0}, {0x1f90, 0x1f9f, 0x03b7, 0},
    {0x1fa0, 0x1faf, 0x03c9, 0}, {0x1fb0, 0x1fbc, 0x03b1, 0},
    {0x1fc2, 0x1fc7, 0x03b7, 0}, {0x1fc8, 0x1fc9, 0x03b5, 0},
    {0x1fca, 0x1fcc, 0x03b7, 0}, {0x1fd0, 0x1fdb, 0x03b9, 0},
    {0x1fe0, 0x1fe3, 0x03c5, 0}, {0x1fe4, 0x1fe5, 0x03c1, 0},
    {0x1fe6, 0x1feb, 0x03c5, 0}, {0x1fec, 0x1fec, 0x03c1, 0},
    {0x1ff2, 0x1ff7, 0x03c9, 0}, {0x1ff8, 0x1ff9, 0x03bf, 0},
    {0x1ffa, 0x1ffc, 0x03c9, 0}, {0xff10, 0xff19, 0x0030, 1},
    {0xff21, 0xff3a, 0x0061, 1}, {0xff41, 0xff5a, 0x0061, 1},
};

/* Sorted ranges above ASCII that are not part of words. */
static const struct {
  u32 iFrom, iLast;
} aWordGap[] = {
    {0x0080, 0x00a9}, {0x00ab, 0x00b4}, {0x00b6, 0x00b9}, {0x00bb, 0x00bf},
    {0x00d7, 0x00d7}, {0x00f7, 0x00f7}, {0x02b9, 0x02df}, {0x0374, 0x0375},
    {0x037e, 0x037e}, {0x0384, 0x0385}, {0x0387, 0x0387}, {0x055a, 0x055f},
    {0x0589, 0x058f}, {0x05be, 0x05be}, {0x05c0, 0x05c0}, {0x05c3, 0x05c3},
    {0x05f3, 0x05f4}, {0x0600, 0x060f}, {0x061b, 0x061f}, {0x066a, 0x066d},
    {0x06d4, 0x06d4}, {0x0964, 0x0965}, {0x1680, 0x1680}, {0x2000, 0x206f},
    {0x207a, 0x207e}, {0x208a, 0x208e}, {0x20a0, 0x20cf}, {0x2190, 0x2bff},
    {0x2e00, 0x2e7f}, {0x3000, 0x3004}, {0x3008, 0x3020}, {0x3030, 0x3030},
    {0x303d, 0x303f}, {0x30fb, 0x30fb}, {0xe000, 0xf8ff}, {0xfd3e, 0xfd3f},
    {0xfe10, 0xfe1f}, {0xfe30, 0xfe6f}, {0xfeff, 0xff0f}, {0xff1a, 0xff20},
    {0xff3b, 0xff40}, {0xff5b, 0xff65}, {0xffe0, 0xffff}, {0xf0000, 0x10ffff},
};

/* Combining marks: they end no word and leave no trace in it. */
static int wordIsMark(u32 c) {
  return (c >= 0x0300 && c <= 0x036f) || (c >= 0x1dc0 && c <= 0x1dff) ||
         (c >= 0x20d0 && c <= 0x20ff) || (c >= 0xfe00 && c <= 0xfe0f) ||
         (c >= 0xfe20 && c <= 0xfe2f) || c == 0x00ad || c == 0x200c ||
         c == 0x200d;
}

static int wordIsGap(u32 c) {
  int iLo = 0, iHi = (int)(sizeof(aWordGap) / sizeof(aWordGap[0])) - 1;
  while (iLo <= iHi) {
    int iMid = (iLo + iHi) / 2;
    if (c < aWordGap[iMid].iFrom) {
      iHi = iMid - 1;
    } else if (c > aWordGap[iMid].iLast) {
      iLo = iMid + 1;
    } else {
      return 1;
    }
  }
  return 0;
}

/* c folded by the runs, or c itself. */
static u32 wordFoldRun(u32 c) {
  int iLo = 0, iHi = (int)(sizeof(aWordRun) / sizeof(aWordRun[0])) - 1;
  if (c >= 0x0460 && c <= 0x052f && (c < 0x0482 || c > 0x0489)) {
    if (c >= 0x04c0 && c <= 0x04ce) { /* the one place with odd pairs */
      return c == 0x04c0 ? 0x04cf : c + (c & 1);
    }
    return c | 1;
  }
  while (iLo <= iHi) {
    int iMid = (iLo + iHi) / 2;
    if (c < aWordRun[iMid].iFrom) {
      iHi = iMid - 1;
    } else if (c > aWordRun[iMid].iLast) {
      iLo = iMid + 1;
    } else {
      return aWordRun[iMid].iTo +
             (aWordRun[iMid].eStep ? c - aWordRun[iMid].iFrom : 0);
    }
  }
  return c;
}

static void wordPut(ChoirWords *p, u32 c) {
  char *a = p->aFold + p->nFold;
  p->aAt[p->nChar++] = (u16)p->nFold;
  if (c < 0x80) {
    a[0] = (char)c;
    p->nFold += 1;
  } else if (c < 0x800) {
    a[0] = (char)(0xc0 | c >> 6);
    a[1] = (char)(0x80 | (c & 0x3f));
    p->nFold += 2;
  } else if (c < 0x10000) {
    a[0] = (char)(0xe0 | c >> 12);
    a[1] = (char)(0x80 | (c >> 6 & 0x3f));
    a[2] = (char)(0x80 | (c & 0x3f));
    p->nFold += 3;
  } else {
    a[0] = (char)(0xf0 | c >> 18);
    a[1] = (char)(0x80 | (c >> 12 & 0x3f));
    a[2] = (char)(0x80 | (c >> 6 & 0x3f));
    a[3] = (char)(0x80 | (c & 0x3f));
    p->nFold += 4;
  }
  p->aAt[p->nChar] = (u16)p->nFold;
}

static void wordPutFolded(ChoirWords *p, u32 c) {
  char cBase = 0;
  if (c >= 0xc0 && c <= 0x24f) {
    cBase = aWordLatin1[c - 0xc0];
  } else if (c >= 0x1e00 && c <= 0x1eff) {
    cBase = aWordLatin2[c - 0x1e00];
  }
  if (cBase >= '1' && cBase <= '5') {
    wordPut(p, (u32)azWordPair[cBase - '1'][0]);
    wordPut(p, (u32)azWordPair[cBase - '1'][1]);
  } else if (cBase >= 'a') {
    wordPut(p, (u32)cBase);
  } else {
    wordPut(p, wordFoldRun(c));
  }
}

/* The character at z (n > 0 bytes left) and its length; a byte that is not
** UTF-8 is U+FFFD of length 1. */
static u32 wordChar(const u8 *z, i64 n, int *pnByte) {
  u32 c = z[0];
  int i, nByte = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
  *pnByte = 1;
  if (nByte == 1) {
    return c;
  }
  if (nByte == 0 || c > 0xf4 || n < nByte) {
    return 0xfffd;
  }
  c &= 0x7fu >> nByte;
  for (i = 1; i < nByte; i++) {
    if ((z[i] & 0xc0) != 0x80) {
      return 0xfffd;
    }
    c = c << 6 | (z[i] & 0x3f);
  }
  if ((nByte == 3 && (c < 0x800 || (c >= 0xd800 && c <= 0xdfff))) ||
      (nByte == 4 && (c < 0x10000 || c > 0x10ffff))) {
    return 0xfffd;
  }
  *pnByte = nByte;
  return c;
}

CHOIR_PRIVATE void choirWordInit(ChoirWords *p, const char *z, i64 n) {
  p->z = (const u8 *)z;
  p->n = n;
  p->i = 0;
  p->iStart = p->iEnd = 0;
  p->nFold = p->nChar = 0;
}

CHOIR_PRIVATE int choirWordNext(ChoirWords *p) {
  p->nFold = p->nChar = 0;
  while (p->i < p->n && p->nChar < CHOIR_WORD_MAX) {
    u32 c = p->z[p->i];
    int nByte = 1;
    if (c < 0x80) {
      if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') {
        c |= 0x20;
      } else if (c < '0' || c > '9') {
        c = 0;
      }
    } else {
      c = wordChar(p->z + p->i, p->n - p->i, &nByte);
      if (wordIsMark(c)) {
        p->i += nByte;
        p->iEnd = p->nChar ? p->i : p->iEnd;
        continue;
      }
      c = wordIsGap(c) ? 0 : c;
    }
    if (c == 0 && p->nChar) {
      break;
    }
    if (c) {
      p->iStart = p->nChar ? p->iStart : p->i;
      if (c < 0x80) {
        wordPut(p, c);
      } else {
        wordPutFolded(p, c);
      }
    }
    p->i += nByte;
    p->iEnd = c ? p->i : p->iEnd;
  }
  return p->nChar > 0;
}

CHOIR_PRIVATE u64 choirWordHash(char cTag, const char *a, int n) {
  u64 h = (0xcbf29ce484222325ULL ^ (u8)cTag) * 0x100000001b3ULL;
  int i;
  for (i = 0; i < n; i++) {
    h = (h ^ (u8)a[i]) * 0x100000001b3ULL;
  }
  h = (h ^ h >> 33) * 0xff51afd7ed558ccdULL;
  h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53ULL;
  return h ^ h >> 33;
}
