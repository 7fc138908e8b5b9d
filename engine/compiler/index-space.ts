/** Where in a value an element is read: a flat index, coordinates, or both, written out only when asked for. */

/** Who writes index code: see Emitter. */
interface IndexWriter {
  let(type: string, text: string): string;
  size(value: number): string;
}

/** A flat index over rows of `cols` elements whose row and column are at hand, as text: they cost no division. */
export interface RowColumn {
  row: string;
  col: string;
  cols: number;
}

export class Index {
  readonly shape: readonly number[];
  /** Four lanes read here come with neighbours exchanged; the flat index is then the first lane's. */
  swapped = false;
  private readonly writer: IndexWriter;
  private readonly flat: (() => string) | undefined;
  private readonly coordinate: ((k: number) => string) | undefined;
  private readonly entry: RowColumn | undefined;
  private readonly cache = new Map<string, string>();

  /** `entry` goes with `flat`. */
  constructor(
    writer: IndexWriter,
    shape: readonly number[],
    flat?: () => string,
    coordinate?: (k: number) => string,
    entry?: RowColumn,
  ) {
    this.writer = writer;
    this.shape = shape;
    this.flat = flat;
    this.coordinate = coordinate;
    this.entry = entry;
    if (!entry || shape.at(-1) !== entry.cols) return;
    this.cache.set(`c${shape.length - 1}`, entry.col);
    this.cache.set(`t${shape.length - 2}`, entry.row);
  }

  /** An index made from this one. */
  private derive(shape: readonly number[], flat?: () => string, coordinate?: (k: number) => string): Index {
    const index = new Index(this.writer, shape, flat, coordinate);
    index.swapped = this.swapped;
    return index;
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

  private readonly shapes = new Map<string, Index>();

  /** The same elements under another shape; axes of size 1 come and go without arithmetic. */
  reshaped(to: readonly number[]): Index {
    const key = to.join();
    return this.shapes.get(key) ?? this.shapes.set(key, this.reshape(to)).get(key)!;
  }

  private reshape(to: readonly number[]): Index {
    if (to.join() === this.shape.join()) return this;
    const real = (s: readonly number[]) => s.flatMap((n, k) => (n === 1 ? [] : [k]));
    const from = real(this.shape);
    const into = real(to);
    if (!this.flat && from.length === into.length && from.every((k, i) => this.shape[k] === to[into[i]!])) {
      return this.derive(to, undefined, (k) => this.at(from[into.indexOf(k)]!));
    }
    const index = new Index(this.writer, to, () => this.linear(), undefined, this.entry);
    index.swapped = this.swapped;
    return index;
  }

  /**
   * Where a view's operand of shape `from` is read when the view is read here. `change` maps the coordinates along axes that
   * are touched, called once each at once; other axes keep theirs, or have one element in `from`. While only the flat index is
   * known, neighbouring axes of one kind count as one: each axis that is told apart costs a division.
   */
  along(from: readonly number[], touched: (k: number) => boolean, change: (k: number, c: string) => string): Index {
    if (!this.flat) {
      const changed = from.map((_, k) => (touched(k) ? change(k, this.at(k)) : ''));
      return this.derive(from, undefined, (k) => changed[k] || this.at(k));
    }
    const runs: number[][] = [];
    const kind = (k: number) => (touched(k) ? `touched ${k}` : from[k] === this.shape[k] ? 'same' : 'broadcast');
    from.forEach((_, k) => {
      const run = runs.at(-1);
      if (run && kind(run[0]!) === kind(k)) run.push(k);
      else runs.push([k]);
    });
    const size = (shape: readonly number[]) => runs.map((run) => run.reduce((n, k) => n * shape[k]!, 1));
    const here = this.reshaped(size(this.shape));
    const changed = runs.map(([k], g) => (touched(k!) ? change(k!, here.at(g)) : ''));
    return this.derive(size(from), undefined, (g) => changed[g] || here.at(g)).reshaped(from);
  }

  /** Where the operand of a permutation is read: its axes that stay neighbours count as one. */
  permuted(order: readonly number[], from: readonly number[]): Index {
    if (!this.flat) return this.derive(from, undefined, (k) => this.at(order.indexOf(k)));
    const runs: number[][] = []; // of axes of `from`, in the order of this shape
    for (const axis of order) {
      const run = runs.at(-1);
      if (run && run.at(-1) === axis - 1) run.push(axis);
      else runs.push([axis]);
    }
    const size = (run: readonly number[]) => run.reduce((n, k) => n * from[k]!, 1);
    const here = this.reshaped(runs.map(size));
    const sorted = [...runs].sort((a, b) => a[0]! - b[0]!);
    return this.derive(sorted.map(size), undefined, (g) => here.at(runs.indexOf(sorted[g]!))).reshaped(from);
  }
}
