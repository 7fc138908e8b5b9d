/** Memory that all programs of a device share: work runs in order on one queue, so no two programs need their arenas at once. */

export class Scratch {
  /** Changes when a buffer is replaced: bind groups made before are stale. */
  generation = 0;
  private readonly allocate: (bytes: number) => GPUBuffer;
  private readonly release: (buffer: GPUBuffer) => void;
  private buffers: GPUBuffer[] = [];
  /** Bytes of each arena that a program asked for. */
  private readonly users = new Map<object, readonly number[]>();

  constructor(allocate: (bytes: number) => GPUBuffer, release: (buffer: GPUBuffer) => void) {
    this.allocate = allocate;
    this.release = release;
  }

  /** Bytes of each arena. */
  get sizes(): number[] {
    return this.buffers.map((b) => b.size);
  }

  arena(i: number): GPUBuffer {
    return this.buffers[i]!;
  }

  enter(user: object, arenas: readonly number[]): void {
    this.users.set(user, arenas);
    this.fit();
  }

  leave(user: object): void {
    this.users.delete(user);
    this.fit();
  }

  /** Makes every arena as large as the largest wish: the old one is given back first, its content is nobody's. */
  private fit(): void {
    const wanted = largestArenas([...this.users.values()]);
    const old = this.buffers;
    if (wanted.length === old.length && wanted.every((bytes, i) => bytes === old[i]!.size)) return;
    this.generation++;
    const fits = (i: number): boolean => wanted[i] === old[i]?.size;
    old.forEach((b, i) => !fits(i) && this.release(b));
    this.buffers = wanted.map((bytes, i) => (fits(i) ? old[i]! : this.allocate(bytes)));
  }
}

/** Bytes of each arena that several programs share. */
export const largestArenas = (programs: readonly (readonly number[])[]): number[] =>
  Array.from({ length: Math.max(0, ...programs.map((p) => p.length)) }, (_, i) => Math.max(...programs.map((p) => p[i] ?? 0)));
