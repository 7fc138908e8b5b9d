/** The table of all ops. An op that lacks a rule does not compile. */
import type { OpName } from '../graph.ts';
import { attentionOps } from './attention.ts';
import { convOps } from './conv3d.ts';
import { gatherOps } from './gather.ts';
import { leafOps } from './leaf.ts';
import { matmul } from './matmul.ts';
import { orderOps } from './order.ts';
import { movementOps } from './movement.ts';
import type { OpDef } from './op.ts';
import { binaryOps, cast, detach, unaryOps, where } from './pointwise.ts';
import { poolOps } from './pool.ts';
import { random } from './random.ts';
import { reduceOps } from './reduce.ts';
import { rowOps } from './rows.ts';

export type { Make, OpDef, VjpContext } from './op.ts';

export const OPS: { [K in OpName]: OpDef<K> } = {
  ...leafOps,
  ...unaryOps,
  ...binaryOps,
  where,
  cast,
  detach,
  ...movementOps,
  ...reduceOps,
  matmul,
  ...convOps,
  ...attentionOps,
  ...rowOps,
  ...gatherOps,
  ...orderOps,
  ...poolOps,
  random,
};

/** The record of an op known only at run time. */
export const opOf = (op: OpName): OpDef<OpName> => OPS[op] as unknown as OpDef<OpName>;
