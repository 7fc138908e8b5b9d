/**
 * Frames of HDR film (PQ or HLG, BT.2020) as SDR of BT.709: light, its highlights bent under white, other primaries, and coded again.
 *
 * Sources: ITU-R BT.2100 (both transfers), BT.2408 (HDR's white of 203 cd/m²), BT.2087 (primaries), BT.1886 (SDR's exponent).
 */

const WHITE = 203; // cd/m² of what is white in SDR
const PEAK = 1000; // cd/m² of a display for HLG
const KNEE = 0.7; // of white, where highlights begin to bend
const SDR_EXPONENT = 2.4;

/** Light in units of SDR's white, of the code 0 to 1. */
const TRANSFERS: Record<string, (code: number) => number> = {
  smpte2084(code) {
    const p = code ** (1 / 78.84375);
    return (10_000 * (Math.max(0, p - 0.8359375) / (18.8515625 - 18.6875 * p)) ** (1 / 0.1593017578125)) / WHITE;
  },
  // Of the scene; the display's exponent follows.
  'arib-std-b67': (code) =>
    code <= 0.5 ? code ** 2 / 3 : (Math.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12,
};
const HLG = 'arib-std-b67';
const HLG_EXPONENT = 1.2;

/** Whether a transfer that ffmpeg names is one of HDR. */
export const isHdr = (transfer: string | undefined): transfer is string =>
  transfer !== undefined && Object.hasOwn(TRANSFERS, transfer);

/** Brightness as it is up to the knee, then ever nearer to white. */
const bend = (x: number): number => (x <= KNEE ? x : 1 - (1 - KNEE) * Math.exp((KNEE - x) / (1 - KNEE)));

/** BT.2020's primaries in BT.709's. */
const PRIMARIES = [
  [1.6605, -0.5876, -0.0728],
  [-0.1246, 1.1329, -0.0083],
  [-0.0182, -0.1006, 1.1187],
] as const;

const CODES = 4096; // steps that codes are looked up in

/** @param codes of 16 bits, [pixels, 3]. @returns 8 bits each */
export function toSdr(codes: Uint16Array, transfer: string): Uint8Array {
  const light = Float64Array.from({ length: CODES }, (_, i) => TRANSFERS[transfer]!(i / (CODES - 1)));
  const coded = Uint8Array.from({ length: CODES }, (_, i) => Math.round(255 * (i / (CODES - 1)) ** (1 / SDR_EXPONENT)));
  const out = new Uint8Array(codes.length);
  const rgb = [0, 0, 0];
  for (let i = 0; i < codes.length; i += 3) {
    for (let k = 0; k < 3; k++) rgb[k] = light[codes[i + k]! >> 4]!;
    if (transfer === HLG) {
      const y = 0.2627 * rgb[0]! + 0.678 * rgb[1]! + 0.0593 * rgb[2]!;
      const gain = (PEAK / WHITE) * y ** (HLG_EXPONENT - 1);
      for (let k = 0; k < 3; k++) rgb[k]! *= gain;
    }
    const most = Math.max(...rgb);
    const scale = most > KNEE ? bend(most) / most : 1;
    for (let k = 0; k < 3; k++) {
      const row = PRIMARIES[k]!;
      const v = scale * (row[0] * rgb[0]! + row[1] * rgb[1]! + row[2] * rgb[2]!);
      out[i + k] = coded[Math.round((CODES - 1) * Math.min(1, Math.max(0, v)))]!;
    }
  }
  return out;
}
