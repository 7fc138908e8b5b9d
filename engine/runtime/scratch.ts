/** Memory that all programs of a device share: work runs in order on one queue, so no two programs need their arenas at once. */

export class Scratch {
  /** Changes when a buffer is replaced: bind groups made before are stale. */
  generation = 0;
  private readonly allocate: (bytes: number) => GPUBuffer;
  private readonly release: (buffer: GPUBuffer) => void;
  /** Missing where it has to be made anew, at its next use. */
  private buffers: (GPUBuffer | undefined)[] = [];
  /** Whether a run is under way that waits between its kernels. */
  private busy = false;
  /** Bytes of each arena that a program asked for. */
  private readonly users = new Map<object, readonly number[]>();

  constructor(allocate: (bytes: number) => GPUBuffer, release: (buffer: GPUBuffer) => void) {
    this.allocate = allocate;
    this.release = release;
  }

  /** Bytes of each arena. */
  get sizes(): number[] {
    return this.buffers.map((b) => b?.size ?? 0);
  }

  arena(i: number): GPUBuffer {
    return (this.buffers[i] ??= this.allocate(this.wanted[i]!));
  }

  enter(user: object, arenas: readonly number[]): void {
    this.users.set(user, arenas);
    this.drop();
    arenas.forEach((_, i) => this.arena(i));
  }

  /** Allocates nothing: a lost device is left as well. */
  leave(user: object): void {
    this.users.delete(user);
    this.drop();
  }

  /** A run that waits between its kernels: its arenas stay, whoever else comes and goes. */
  async during<T>(run: () => Promise<T>): Promise<T> {
    this.busy = true;
    try {
      return await run();
    } finally {
      this.busy = false;
      this.drop();
    }
  }

  private get wanted(): number[] {
    return largestArenas([...this.users.values()]);
  }

  /** Gives back what is not of the largest wish's size, before another is made: its content is nobody's. */
  private drop(): void {
    if (this.busy) return;
    const { wanted } = this;
    const old = this.buffers;
    if (old.every((b, i) => !b || b.size === wanted[i])) return;
    this.generation++;
    this.buffers = old.map((b, i) => (b?.size === wanted[i] ? b : undefined)).slice(0, wanted.length);
    for (const b of old) if (b && !this.buffers.includes(b)) this.release(b);
  }
}

/** Bytes of each arena that several programs share. */
export const largestArenas = (programs: readonly (readonly number[])[]): number[] =>
  Array.from({ length: Math.max(0, ...programs.map((p) => p.length)) }, (_, i) =>
    Math.max(...programs.map((p) => p[i] ?? 0)),
  );
