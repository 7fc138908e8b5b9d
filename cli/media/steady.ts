/** Frames that were shown for as long as each was, at one constant rate. */

const FASTEST = 240; // frames a second
const SHORT = 0.1; // of the intervals are shorter than the one that decides the rate
const REPEATS = 100; // of a frame, on average, at most

interface Steady<T> {
  readonly fps: number;
  readonly frames: readonly T[];
}

/**
 * Frames that keep their places at the mean rate are taken as they are: rounded times, and a last frame that stands longer. Where the rate
 * truly varies, the shorter intervals give the rate, and a frame is repeated for as long as it was shown.
 * @param times seconds, when each frame begins, and when the last one ends
 * @param known the rate that the file names, taken where the times agree with it
 */
export function steady<T>(frames: readonly T[], times: readonly number[], known?: number): Steady<T> {
  const n = frames.length;
  const start = times[0]!;
  if (n === 1) return { fps: known ?? 1 / (times[1]! - start), frames };
  const interval = (times[n - 1]! - start) / (n - 1);
  const inPlace = frames.every((_, i) => Math.abs(times[i]! - start - i * interval) <= interval / 2);
  if (inPlace && interval > 0)
    return { fps: known && Math.abs(known * interval - 1) < 0.005 ? known : 1 / interval, frames };
  const intervals = frames.map((_, i) => times[i + 1]! - times[i]!).sort((a, b) => a - b);
  const duration = times[n]! - start;
  const fps = Math.min(1 / Math.max(1 / FASTEST, intervals[Math.floor(SHORT * n)]!), (REPEATS * n) / duration);
  const count = Math.max(1, Math.round(duration * fps));
  let at = 0;
  const repeated = Array.from({ length: count }, (_, k) => {
    while (at + 1 < n && times[at + 1]! - start <= (k + 0.5) / fps) at++;
    return frames[at]!;
  });
  return { fps, frames: repeated };
}
