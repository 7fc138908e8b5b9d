/** The trace in progress, and the one place where nodes are made. */
import { isPacked } from '../../kernels/packed.ts';
import { EngineError, callSite, checkShape } from '../host/errors.ts';
import type { OpAttrs, OpName, Value } from './graph.ts';
import { Graph, typeOf, valuesOf } from './graph.ts';
import { opOf } from './ops/index.ts';

export interface Tracing {
  readonly graph: Graph;
  /** Segment of the nodes now made: of a checkpoint (> 0), of its clones and gradients (< 0), or none (0). */
  segment: number;
  /** They belong to a gradient. */
  gradient: boolean;
  /** For each checkpoint so far the one around it; 0 is none. */
  readonly around: number[];
  /** Sweeps over checkpoints so far; random call sites so far. */
  sweeps: number;
  streams: number;
  /** Nodes whose values stay in memory beyond their checkpoint: as long as the one around it runs, or (0) for good. */
  readonly kept: Map<number, number>;
}

let current: Tracing | null = null;

export function tracing(op: string): Tracing {
  if (!current)
    throw new EngineError(op, 'tensors exist only while a function is traced: call this inside trace or compile');
  return current;
}

/** Runs `body` with a fresh graph, which functions of tensors add to. */
export function withTrace<T>(body: (trace: Tracing) => T): T {
  const before = current;
  current = { graph: new Graph(), segment: 0, gradient: false, around: [0], sweeps: 0, streams: 0, kept: new Map() };
  try {
    return body(current);
  } finally {
    current = before;
  }
}

/** Runs `body` with its nodes in `segment`, of a gradient or not; as around it unless given. */
export function inSegment<T>(segment: number, body: () => T, gradient = tracing('segment').gradient): T {
  const trace = tracing('segment');
  const before = { segment: trace.segment, gradient: trace.gradient };
  Object.assign(trace, { segment, gradient });
  try {
    return body();
  } finally {
    Object.assign(trace, before);
  }
}

/** Adds a node to the trace and gives its outputs. Throws an EngineError when the operands do not fit. */
export function emit<K extends OpName>(op: K, inputs: readonly Value[], attrs: OpAttrs[K]): Value[] {
  const { graph, segment, gradient } = tracing(op);
  for (const v of inputs)
    if (graph.nodes[v.node.id] !== v.node) throw new EngineError(op, 'an operand belongs to another trace');
  const packed = inputs.map((v) => typeOf(v).dtype).find(isPacked);
  if (packed && op !== 'matmul' && op !== 'detach' && op !== 'cast')
    throw new EngineError(op, `${packed} is packed: only matmul reads it; make it f32 or bf16 on the host`);
  const outs = opOf(op).infer(inputs.map(typeOf), attrs);
  for (const { shape } of outs) checkShape(op, shape);
  return valuesOf(
    graph.add(op, inputs, attrs, outs, {
      get site() {
        return callSite();
      },
      segment,
      gradient,
    }),
  );
}
