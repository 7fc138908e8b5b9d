/** Curves of bounded size: a run of any length is at most `MOST` bins of equal width in steps, each with mean, least and largest value. */

const MOST = 800;
const NAMES = 200; // metrics: a run has some dozens
const LONGEST_NAME = 100;

interface Bin {
  count: number;
  sum: number;
  low: number;
  high: number;
}
type Row = Map<string, Bin>;

/** As the page takes it: `at` are steps; a metric that a bin lacks is null there. */
export interface CurveData {
  at: number[];
  metrics: Record<string, { mean: (number | null)[]; low: (number | null)[]; high: (number | null)[] }>;
}

export class Curves {
  private width = 1;
  /** First step of each bin over the width, ascending, and its rows. */
  private places: number[] = [];
  private rows: Row[] = [];
  private readonly names = new Set<string>();
  private last = 0;

  /** Steps come in order: one that does not is left out, and so are names beyond what a run has. */
  add(step: number, metrics: Record<string, number>): void {
    if (step < this.last) return;
    this.last = step;
    const place = Math.floor(step / this.width);
    if (this.places.at(-1) !== place) {
      this.places.push(place);
      this.rows.push(new Map());
    }
    const row = this.rows.at(-1)!;
    for (const [name, x] of Object.entries(metrics)) {
      if (!this.names.has(name) && (this.names.size >= NAMES || name.length > LONGEST_NAME)) continue;
      this.names.add(name);
      join(row, name, { count: 1, sum: x, low: x, high: x });
    }
    if (this.places.length > MOST) this.halve();
  }

  private halve(): void {
    const { places, rows } = this;
    this.width *= 2;
    this.places = [];
    this.rows = [];
    places.forEach((place, i) => {
      const half = Math.floor(place / 2);
      if (this.places.at(-1) === half) for (const [name, bin] of rows[i]!) join(this.rows.at(-1)!, name, bin);
      else {
        this.places.push(half);
        this.rows.push(rows[i]!);
      }
    });
  }

  data(): CurveData {
    const column = (name: string, value: (b: Bin) => number) =>
      this.rows.map((row) => {
        const bin = row.get(name);
        return bin ? Number(value(bin).toPrecision(5)) : null;
      });
    return {
      at: this.places.map((p) => p * this.width),
      metrics: Object.fromEntries(
        [...this.names].map((name) => [
          name,
          {
            mean: column(name, (b) => b.sum / b.count),
            low: column(name, (b) => b.low),
            high: column(name, (b) => b.high),
          },
        ]),
      ),
    };
  }
}

function join(row: Row, name: string, { count, sum, low, high }: Bin): void {
  const bin = row.get(name);
  row.set(
    name,
    bin
      ? { count: bin.count + count, sum: bin.sum + sum, low: Math.min(bin.low, low), high: Math.max(bin.high, high) }
      : { count, sum, low, high },
  );
}
