/** Whatever keeps a generator from being read or run, in one sentence. */
export class GeneratorError extends Error {}

/** A class for all images, or one for each; by number or by name. */
export type Classes = number | string | ArrayLike<number> | ReadonlyArray<number | string>;

/** Images side by side in memory, as a canvas takes them. */
export interface Images {
  readonly n: number;
  readonly width: number;
  readonly height: number;
  /** 1 for grey images, 3 for RGB; `data` has four either way. */
  readonly channels: number;
  /** Number of the class of every image; empty without classes. */
  readonly classes: readonly number[];
  /** RGBA, image after image, row after row. */
  readonly data: Uint8ClampedArray;
  /** Time that all of them took. */
  readonly milliseconds: number;
  /** One of them, for `putImageData`. Only in pages. */
  at(index: number): ImageData;
}

export interface Generator {
  readonly latentDim: number;
  /** Names of the classes; empty without. */
  readonly classes: readonly string[];
  /** Size of the file, with the code that runs it. */
  readonly bytes: number;

  /**
   * Makes images, those that `gancompress.load(file)(n, seed, classes)` makes in Python: each differs by one grey level
   * at most. `first` is the number of the first image, `threshold` the largest number of a latent; `z` are latents to
   * use instead of a seed, n times `latentDim` numbers.
   */
  generate(options?: {
    seed?: number;
    classes?: Classes;
    n?: number;
    first?: number;
    threshold?: number;
    z?: ArrayLike<number>;
  }): Promise<Images>;

  /** Makes images on the way from one latent to another, both ends included; `from` and `to` are seeds or latents. */
  interpolate(options: {
    from: number | Float32Array;
    to: number | Float32Array;
    steps?: number;
    classes?: Classes;
    threshold?: number;
  }): Promise<Images>;

  /** The latents of a seed's images `first`, `first + 1`, ..: n times `latentDim` numbers. */
  latents(options?: { seed?: number; n?: number; first?: number; threshold?: number }): Float32Array;
}

/** Numbers in the order of a shape, channels first. */
export interface Numbers {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** A network that takes an image or numbers, and gives an image or sound. */
export interface Network {
  readonly name: string;
  readonly takes: "image" | "numbers";
  readonly gives: "image" | "sound";
  /** Samples per second, of sound. */
  readonly rate: number;
  readonly bytes: number;
  /** Inputs that lie in the file. */
  readonly examples: readonly Numbers[];

  /** The shape that is taken of an input: sizes that may change are cut to multiples of what the network needs. */
  fit(shape: readonly number[]): number[];

  /** Makes one output of one input, whose shape is one that `fit` gives. */
  run(input: Numbers): Promise<Numbers & { readonly milliseconds: number }>;

  /** The numbers of an image as a canvas gives it, cut to what is taken. */
  fromImage(image: { data: ArrayLike<number>; width: number; height: number }): Numbers;

  /** What `run` gave as a canvas takes it. */
  toImage(output: Numbers): { data: Uint8ClampedArray; width: number; height: number };
}

/** Reads a generator, or a network, from its address, or from the bytes of its file. */
export function load<Kind extends Generator | Network = Generator>(
  source: string | URL | Request | ArrayBuffer | ArrayBufferView,
): Promise<Kind>;

/** The latent at share t, 0 to 1, of the way from a to b, along the arc between them. */
export function between(a: Float32Array, b: Float32Array, t: number): Float32Array;

/** Brings normal numbers between -most and most, where they have the law of normal ones that lie there. */
export function within(latents: Float32Array, most: number): Float32Array;

/** The shortest sequence of classes that has each as often as `counts` say, evenly spread. */
export function classCycle(counts: readonly number[]): number[];
