/**
 * Text in pictures, drawn as strokes: an SVG <text> needs a font on the machine, and a bare server has none.
 *
 * Glyphs are SVG paths on a grid with the capitals' top at 0, the baseline at 7 and descenders down to 9.2.
 */

const BOWL = 'M4 4.5C4 3 3.2 2 2 2S0 3 0 4.5.8 7 2 7 4 6 4 4.5';
const ROUND_C = 'M5 1.3C4.5.5 3.8 0 2.8 0 1.1 0 0 1.4 0 3.5S1.1 7 2.8 7';
const ROUND_O = 'M2.8 0C1.1 0 0 1.4 0 3.5S1.1 7 2.8 7 5.6 5.6 5.6 3.5 4.5 0 2.8 0Z';
const P = 'M0 7V0H2.5C3.8 0 4.5.8 4.5 1.9S3.8 3.8 2.5 3.8H0';

/** Width and path of each character. */
const GLYPHS: Record<string, readonly [number, string]> = {
  ' ': [1.6, ''],
  a: [4, `${BOWL}M4 2V7`],
  b: [4, `${BOWL}M0 0V7`],
  c: [3.8, 'M3.8 3C3.4 2.4 2.8 2 2 2 .8 2 0 3 0 4.5S.8 7 2 7C2.8 7 3.4 6.6 3.8 6'],
  d: [4, `${BOWL}M4 0V7`],
  e: [4, 'M0 4.5H4C4 3 3.2 2 2 2S0 3 0 4.5.8 7 2 7C2.8 7 3.4 6.7 3.8 6.1'],
  f: [2.6, 'M2.7 0C1.5-.1 1 .4 1 1.4V7M0 2.2H2.4'],
  g: [4, `${BOWL}M4 2V7.2C4 8.5 3.2 9.2 2 9.2 1.3 9.2.7 9 .2 8.5`],
  h: [3.8, 'M0 0V7M0 4C0 2.8.8 2 2 2S3.8 2.8 3.8 4V7'],
  i: [0.2, 'M.1 2V7M.1 0V.1'],
  j: [1, 'M.9 2V7.6C.9 8.7.5 9.2-.4 9.2M.9 0V.1'],
  k: [3.6, 'M0 0V7M3.4 2 0 5.1M1.4 3.9 3.6 7'],
  l: [0.2, 'M.1 0V7'],
  m: [6, 'M0 2V7M0 4C0 2.8.6 2 1.6 2S3 2.8 3 4V7M3 4C3 2.8 3.6 2 4.6 2S6 2.8 6 4V7'],
  n: [3.8, 'M0 2V7M0 4C0 2.8.8 2 2 2S3.8 2.8 3.8 4V7'],
  o: [4, BOWL],
  p: [4, `${BOWL}M0 2V9.2`],
  q: [4, `${BOWL}M4 2V9.2`],
  r: [2.3, 'M0 2V7M0 4.2C0 2.8.8 2 2.3 2'],
  s: [3.4, 'M3.2 2.9C2.8 2.3 2.3 2 1.7 2 .8 2 .2 2.5.2 3.2 .2 4.9 3.4 4 3.4 5.7 3.4 6.5 2.7 7 1.7 7 1 7 .4 6.7 0 6.1'],
  t: [2.6, 'M1 .6V5.6C1 6.5 1.4 7 2.6 6.9M0 2.2H2.4'],
  u: [3.8, 'M0 2V5C0 6.2.6 7 1.8 7S3.8 6.2 3.8 5M3.8 2V7'],
  v: [3.8, 'M0 2 1.9 7 3.8 2'],
  w: [5.6, 'M0 2 1.4 7 2.8 2.6 4.2 7 5.6 2'],
  x: [3.6, 'M0 2 3.6 7M3.6 2 0 7'],
  y: [3.8, 'M0 2 1.9 7M3.8 2 1.7 8C1.4 8.9 1 9.2.2 9.2'],
  z: [3.5, 'M.1 2H3.4L0 7H3.5'],
  A: [5, 'M0 7 2.5 0 5 7M.9 4.6H4.1'],
  B: [4.6, 'M0 0V7H2.6C3.9 7 4.6 6.3 4.6 5.2S3.9 3.4 2.6 3.4H0M0 0H2.4C3.5 0 4.1.7 4.1 1.7S3.5 3.4 2.4 3.4'],
  C: [5, `${ROUND_C}C3.8 7 4.5 6.5 5 5.7`],
  D: [5, 'M0 0V7H2C4 7 5 5.7 5 3.5S4 0 2 0Z'],
  E: [4, 'M4 0H0V7H4M0 3.4H3.4'],
  F: [4, 'M4 0H0V7M0 3.4H3.4'],
  G: [5.1, `${ROUND_C}C4.2 7 5.1 6 5.1 4.5V3.8H3`],
  H: [4.8, 'M0 0V7M4.8 0V7M0 3.4H4.8'],
  I: [0.2, 'M.1 0V7'],
  J: [2.8, 'M2.8 0V5.2C2.8 6.4 2.3 7 1.4 7 .7 7 .2 6.6 0 5.9'],
  K: [4.5, 'M0 0V7M4.3 0 0 4.3M1.7 2.7 4.5 7'],
  L: [3.8, 'M0 0V7H3.8'],
  M: [6, 'M0 7V0L3 5 6 0V7'],
  N: [4.8, 'M0 7V0L4.8 7V0'],
  O: [5.6, ROUND_O],
  P: [4.5, P],
  Q: [5.6, `${ROUND_O}M3.6 5.3 5.4 7.4`],
  R: [4.6, `${P}M2.4 3.8 4.6 7`],
  S: [4.5, 'M4.2 1.2C3.8.4 3.1 0 2.2 0 1 0 .2.7.2 1.7 .2 4.2 4.5 2.8 4.5 5.2 4.5 6.3 3.6 7 2.3 7 1.2 7 .4 6.5 0 5.6'],
  T: [5, 'M0 0H5M2.5 0V7'],
  U: [4.8, 'M0 0V4.5C0 6.1.9 7 2.4 7S4.8 6.1 4.8 4.5V0'],
  V: [5, 'M0 0 2.5 7 5 0'],
  W: [7, 'M0 0 1.7 7 3.5 1 5.3 7 7 0'],
  X: [4.6, 'M0 0 4.6 7M4.6 0 0 7'],
  Y: [4.8, 'M0 0 2.4 3.5V7M4.8 0 2.4 3.5'],
  Z: [4.5, 'M.1 0H4.4L0 7H4.5'],
  0: [4, 'M2 0C.7 0 0 1.4 0 3.5S.7 7 2 7 4 5.6 4 3.5 3.3 0 2 0Z'],
  1: [4, 'M.8 1.4 2.5 0V7'],
  2: [4, 'M.2 1.6C.3.6 1 0 2 0S3.8.7 3.8 1.8C3.8 3.4.1 5.2 0 7H4'],
  3: [4, 'M.3 1C.7.4 1.3 0 2 0 3 0 3.7.7 3.7 1.7S3 3.3 1.7 3.3C3.2 3.3 4 4 4 5.1S3.2 7 2 7C1.1 7 .4 6.6 0 5.8'],
  4: [4.2, 'M3 7V0L0 4.8H4.2'],
  5: [4, 'M3.7 0H.7L.4 3.1C.8 2.7 1.4 2.5 2 2.5 3.2 2.5 4 3.4 4 4.7S3.2 7 1.9 7C1.1 7 .4 6.6 0 6'],
  6: [4, 'M3.5.6C3.1.2 2.7 0 2.2 0 .8 0 0 1.6 0 4 0 6 .8 7 2 7S4 6.1 4 4.8 3.2 2.7 2.1 2.7.2 3.5 0 4.5'],
  7: [4, 'M0 0H4L1.4 7'],
  8: [
    4,
    'M2 3.3C1 3.3.3 2.6.3 1.7S1 0 2 0 3.7.7 3.7 1.7 3 3.3 2 3.3C.8 3.3 0 4.1 0 5.1S.8 7 2 7 4 6.2 4 5.1 3.2 3.3 2 3.3Z',
  ],
  9: [4, 'M.5 6.4C.9 6.8 1.3 7 1.8 7 3.2 7 4 5.4 4 3 4 1 3.2 0 2 0S0 .9 0 2.2.8 4.3 1.9 4.3 3.8 3.5 4 2.5'],
  '-': [2.4, 'M0 4.2H2.4'],
  '.': [0.2, 'M.1 7V6.9'],
  ',': [0.6, 'M.5 6.9 0 8.3'],
  ':': [0.2, 'M.1 3V2.9M.1 7V6.9'],
  ';': [0.6, 'M.5 3V2.9M.5 6.9 0 8.3'],
  '/': [2.8, 'M0 7.8 2.8-.6'],
  '(': [1.3, 'M1.3-.6C.3.7 0 2 0 3.6S.3 6.5 1.3 7.8'],
  ')': [1.3, 'M0-.6C1 .7 1.3 2 1.3 3.6S1 6.5 0 7.8'],
  '+': [4, 'M0 4.2H4M2 2.2V6.2'],
  '=': [3.6, 'M0 3.2H3.6M0 5.2H3.6'],
  '×': [3, 'M0 2.7 3 5.7M3 2.7 0 5.7'],
  '·': [0.2, 'M.1 4.2V4.1'],
  '%': [5.6, 'M4.8 0 .8 7M1.2 0A1.2 1.5 0 1 0 1.3 0ZM4.3 4A1.2 1.5 0 1 0 4.4 4Z'],
  "'": [0.2, 'M.1 0V1.6'],
  '!': [0.2, 'M.1 0V4.8M.1 7V6.9'],
  '?': [3.4, 'M0 1.5C.1.6.8 0 1.7 0S3.4.7 3.4 1.7C3.4 3 1.7 3.2 1.7 4.8M1.7 7V6.9'],
  _: [4, 'M0 8H4'],
};
const UNKNOWN: readonly [number, string] = [3.4, 'M0 0H3.4V7H0Z'];
const SPACING = 1.6;
const CAP = 7;

const glyphs = (text: string) => Array.from(text).map((c) => GLYPHS[c] ?? UNKNOWN);

/** Width in px of a line whose capitals are `height` px tall. */
export const textWidth = (text: string, height: number): number =>
  (glyphs(text).reduce((w, [width]) => w + width + SPACING, -SPACING) * height) / CAP;

interface TextStyle {
  /** Of a capital, px. */
  height: number;
  color: string;
  bold?: boolean;
  anchor?: 'start' | 'middle';
}

/** A line of text as an SVG element; (x, y) is the left (or middle) end of its baseline. */
export function textPath(
  text: string,
  x: number,
  y: number,
  { height, color, bold = false, anchor = 'start' }: TextStyle,
): string {
  const scale = height / CAP;
  let at = 0;
  const letters = glyphs(text).map(([width, path]) => {
    const placed = path && `<path transform="translate(${at.toFixed(2)} 0)" d="${path}"/>`;
    at += width + SPACING;
    return placed;
  });
  const left = anchor === 'middle' ? x - textWidth(text, height) / 2 : x;
  return `<g transform="translate(${left.toFixed(2)} ${(y - height).toFixed(2)}) scale(${scale.toFixed(4)})" fill="none" stroke="${color}" stroke-width="${bold ? 1.35 : 0.9}" stroke-linecap="round" stroke-linejoin="round">${letters.join('')}</g>`;
}
