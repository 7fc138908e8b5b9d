/** Where in a value an element is read: a flat index, coordinates, or both, written out only when asked for. */

/** Who writes index code: see Emitter. */
export interface IndexWriter {
  let(type: string, text: string): string;
  size(value: number): string;
}

export class Index {
  readonly shape: readonly number[];
  private readonly writer: IndexWriter;
  private readonly flat: (() => string) | undefined;
  private readonly coordinate: ((k: number) => string) | undefined;
  private readonly cache = new Map<string, string>();

  constructor(writer: IndexWriter, shape: readonly number[], flat?: () => string, coordinate?: (k: number) => string) {
    this.writer = writer;
    this.shape = shape;
    this.flat = flat;
    this.coordinate = coordinate;
  }

  private memo(key: string, make: () => string): string {
    const found = this.cache.get(key);
    if (found !== undefined) return found;
    const made = make();
    this.cache.set(key, made);
    return made;
  }

  private size(k: number): string {
    return this.memo(`d${k}`, () => this.writer.size(this.shape[k]!));
  }

  /** Row-major flat index. */
  linear(): string {
    return this.memo('flat', () => {
      if (this.flat) return this.flat();
      let text = '';
      this.shape.forEach((s, k) => {
        if (s === 1) return;
        text = text ? `(${text}) * ${this.size(k)} + ${this.at(k)}` : this.at(k);
      });
      return text ? this.writer.let('u32', text) : '0u';
    });
  }

  /** Flat index over axes 0..k. */
  private prefix(k: number): string {
    if (k === this.shape.length - 1) return this.linear();
    return this.memo(`t${k}`, () => {
      const next = this.prefix(k + 1);
      return this.shape[k + 1] === 1 ? next : this.writer.let('u32', `divide(${next}, ${this.size(k + 1)})`);
    });
  }

  /** Coordinate along axis k. */
  at(k: number): string {
    if (this.shape[k] === 1) return '0u';
    return this.memo(`c${k}`, () => {
      if (this.coordinate) return this.coordinate(k);
      if (this.shape.slice(0, k).every((s) => s === 1)) return this.prefix(k);
      return this.writer.let('u32', `${this.prefix(k)} - ${this.prefix(k - 1)} * ${this.size(k)}`);
    });
  }

  /** The same elements under another shape; axes of size 1 come and go without arithmetic. */
  reshaped(to: readonly number[]): Index {
    const real = (s: readonly number[]) => s.flatMap((n, k) => (n === 1 ? [] : [k]));
    const from = real(this.shape);
    const into = real(to);
    if (!this.flat && from.length === into.length && from.every((k, i) => this.shape[k] === to[into[i]!])) {
      return new Index(this.writer, to, undefined, (k) => this.at(from[into.indexOf(k)]!));
    }
    return new Index(this.writer, to, () => this.linear());
  }
}
