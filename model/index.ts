/**
 * Wan2.1 as functions over named parameters: the video DiT, the causal VAE, text and
 * image encoders, samplers, adapters, heads, weights files.
 */
export { BlockStack, storedBlocks, type BlockSource, type BlockWeights, type RunOptions } from './blocks.ts';
export { clip, clipPixels, clipShapes, clipTables, clipTokens, initCLIP, type CLIPTables } from './clip/clip.ts';
export { encodeImage } from './clip/encode.ts';
export { CLIP_VIT_H, clipConfig, type CLIPConfig } from './clip/config.ts';
export { ditConfig, vaeConfig, vaeStride, WAN_VAE, type DiTConfig, type VAEConfig } from './config.ts';
export { head, headShapes, initHead, semanticLengths, type HeadConfig, type Semantics } from './heads.ts';
export { openCheckpoint, type Checkpoint, type Part } from './files/checkpoint.ts';
export { changeOf, exportWeights, type ExportOptions } from './files/export.ts';
export { loadParams } from './files/load.ts';
export { loadLora, mergeFiles, saveLora, type LoraFile, type LoraNaming } from './files/lora.ts';
export { openWeights } from './files/open.ts';
export { saveTensors } from './files/safetensors.ts';
export { UPLOAD_HOST_BYTES, uploadWeights, type UploadAllOptions } from './files/upload.ts';
export { Weights } from './files/weights.ts';
export { IMAGE_PATCH, imageTokens } from './imagetokens.ts';
export { initLora, LORA_TARGETS, mergeLora, withLora } from './lora.ts';
export { Scope, type HostParams, type Params } from './params.ts';
export {
  schedule,
  shiftSigma,
  SOLVER_KINDS,
  solverStep,
  startState,
  TRAIN_TIMESTEPS,
  type Schedule,
  type SolverKind,
  type SolverState,
} from './schedulers/index.ts';
export {
  embedCaptions,
  embedderOf,
  embeddingTable,
  tokenize,
  VOCABULARY,
  wordsIn,
  wordsOf,
  type Embed,
  type Language,
} from './text.ts';
export { Diffusion, evaluationsOf, latentNoise, type DiffusionInput, type Sampling } from './pipeline/diffuse.ts';
export { networkOf, type Network } from './pipeline/forward.ts';
export { cleanPrompt, loadTokenizer, Tokenizer } from './tokenizer.ts';
export { encodeText, type EncodedText, type EncodeTextOptions } from './umt5/encode.ts';
export { UMT5_XXL, umt5Config, type UMT5Config } from './umt5/config.ts';
export { initUMT5, relativeBuckets, umt5, umt5Shapes, type UMT5Context } from './umt5/umt5.ts';
export { dit, ditShapes, initDiT, type DiTInput, type DiTOutput, type Samples } from './wan/dit.ts';
export { ditTables, timeEmbedding, tokenGrid, type DiTTables } from './wan/tables.ts';
export {
  decode,
  denormalise,
  encode,
  initVAE,
  latentStats,
  normalise,
  vaeShapes,
  type LatentStats,
} from './wan/vae.ts';
