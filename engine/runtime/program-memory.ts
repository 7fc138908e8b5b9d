/** What a program holds on the device: its share of the arenas, uniforms, what is uploaded at each call, and its results. */
import type { Device } from './device.ts';

/** A tensor's bytes on the device. */
export interface Span {
  buffer: GPUBuffer;
  offset: number;
  bytes: number;
}

/** Memory for the results of one call. */
export interface ResultSet {
  readonly id: number;
  readonly spans: readonly (Span | undefined)[];
  /** Counts the calls that wrote it. */
  generation: number;
  /** Calls made after this one's number may write it: its own results have been given by then. */
  free: number;
}

/** How much of the sets that were once needed together is kept from one call to the next. */
const DECAY = 0.9;

export interface Wanted {
  arenas: readonly number[];
  uniforms: number;
  /** Bytes of each input that comes from the host. */
  uploads: readonly (number | undefined)[];
  /** Bytes of each result that has memory of its own. */
  results: readonly (number | undefined)[];
  /** Whether inputs are brought from host memory while it runs; and the host memory for values of its own. */
  streams: boolean;
  host: readonly number[];
}

export class ProgramMemory {
  readonly uniform: GPUBuffer;
  readonly uploads: readonly (Span | undefined)[];
  /** Words of kernels in parts. */
  parts: GPUBuffer | undefined;
  /** Why nothing is here any more. */
  private gone: string | undefined;
  private readonly device: Device;
  private readonly results: Wanted['results'];
  private readonly buffers: GPUBuffer[] = [];
  /** The one used longest ago first. */
  private sets: ResultSet[] = [];
  private nextId = 0;
  private needed = 1;

  /** @throws where the budget has no room, with nothing held */
  constructor(device: Device, { arenas, uniforms, uploads, results, streams, host }: Wanted) {
    this.device = device;
    this.results = results;
    try {
      device.scratch.enter(this, arenas);
      if (streams) device.staging.enter(this, host);
      this.uploads = this.allocate(uploads);
      for (const span of this.uploads) if (span) this.buffers.push(span.buffer);
      this.uniform = device.uniforms(uniforms);
      this.buffers.push(this.uniform);
      this.add();
    } catch (error) {
      this.free('was never made');
      throw error;
    }
  }

  /**
   * Memory for the results of call number `call`, which reads these buffers: none of them, and none of a call that it overlaps. Mostly the
   * one set there is; others last as long as calls go on to need them.
   */
  take(reads: ReadonlySet<GPUBuffer>, call: number): ResultSet {
    const { sets } = this;
    if (this.results.every((bytes) => bytes === undefined)) return sets[0]!;
    const free = sets.filter((s) => s.free < call && !s.spans.some((span) => span && reads.has(span.buffer)));
    const needed = sets.length - free.length + 1;
    this.needed = Math.max(needed, this.needed * DECAY);
    while (free.length > 1 && this.sets.length > Math.ceil(this.needed)) this.drop(free.shift()!);
    if (!free.length) this.device.makeRoom(this.results.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0));
    const set = free[0] ?? this.add();
    this.sets = [...this.sets.filter((s) => s !== set), set];
    set.generation++;
    set.free = Infinity;
    return set;
  }

  /** Why what a call wrote into a set holds no longer, if so. */
  stale(set: ResultSet, generation: number): string | undefined {
    if (this.gone) return `${this.gone}: read() or keep() results before`;
    return set.generation === generation ? undefined : 'has run again: read() or keep() results before the next call';
  }

  /** @param why it is given back, for those who still hold results */
  free(why: string): void {
    if (this.gone) return;
    this.gone = why;
    this.device.scratch.leave(this);
    this.device.staging.leave(this);
    while (this.sets.length) this.drop(this.sets[0]!);
    for (const buffer of this.buffers) this.device.release(buffer);
    this.part(undefined);
  }

  /** Takes the words of kernels in parts, in place of those before; what was submitted with them is not disturbed. */
  part(words: Uint32Array | undefined): void {
    if (this.parts) this.device.release(this.parts);
    this.parts = words && this.device.uniforms(words.byteLength);
    if (words) this.device.write(this.parts!, 0, words, 'u32');
  }

  private add(): ResultSet {
    const set = { id: this.nextId++, spans: this.allocate(this.results), generation: 0, free: -1 };
    this.sets.push(set);
    return set;
  }

  private drop(set: ResultSet): void {
    this.sets = this.sets.filter((s) => s !== set);
    set.generation++;
    for (const span of set.spans) if (span) this.device.release(span.buffer);
  }

  /** All of them, or none. */
  private allocate(sizes: readonly (number | undefined)[]): (Span | undefined)[] {
    const spans: (Span | undefined)[] = [];
    try {
      for (const bytes of sizes)
        spans.push(bytes === undefined ? undefined : { buffer: this.device.buffer(bytes), offset: 0, bytes });
    } catch (error) {
      for (const span of spans) if (span) this.device.release(span.buffer);
      throw error;
    }
    return spans;
  }
}
