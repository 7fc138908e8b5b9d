/** How long an update takes on several ranks, from bytes and rates alone. */

/** Bytes a second at which gradients pass each part of their way. */
export interface Rates {
  /** Device → host, and host → device. */
  read: number;
  write: number;
  /** What a rank sends to others, all of them together. */
  link: number;
  /** One micro-batch's numbers added to another's on the host. */
  add: number;
}

export interface Update {
  ranks: number;
  /** Micro-batches of an update, over all ranks. */
  accumulate: number;
  /** Of all gradients, in f32. */
  bytes: number;
  /** Seconds of a micro-batch's arithmetic. */
  compute: number;
}

/** Share of a tensor that is not a rank's own. */
const others = (ranks: number): number => (ranks - 1) / ranks;

/** Bytes that each rank sends in an update: parts of every micro-batch's gradients, and its part of the sums to all others. */
export const sentBytes = ({ ranks, accumulate, bytes }: Omit<Update, 'compute'>): number =>
  ranks === 1 ? 0 : (Math.ceil(accumulate / ranks) + 1) * others(ranks) * bytes;

/**
 * Seconds of an update: the gradients of one micro-batch are added up while the next is computed, and the sums are waited for. One
 * process alone has nothing to add up on the host.
 */
export function updateSeconds(u: Update, rates: Rates): number {
  const { ranks, accumulate, bytes, compute } = u;
  if (ranks === 1) return accumulate * compute;
  const rounds = Math.ceil(accumulate / ranks);
  // Each rank adds a part of every tensor, of all ranks: as many bytes as a tensor has.
  const round = bytes / rates.read + (others(ranks) * bytes) / rates.link + bytes / rates.add;
  const sums = (others(ranks) * bytes) / rates.link + bytes / rates.write;
  return compute + (rounds - 1) * Math.max(compute, round) + round + sums;
}
