/** Types of flywheel.js, which defines one global: `flywheel`. */

/** Text, or chat messages. */
export type Prompt = string | ReadonlyArray<{ readonly role: string; readonly content: string }>;

export type Signal = "thumb" | "rating" | "copy" | "accept" | "regenerate" | "label" | "comment";

/** What a signal carries besides its name; `value` is 1 or -1 for a thumb, 0 to 1 for a rating. */
export interface SignalFields {
  value?: number;
  label?: string | boolean;
  comment?: string;
}

export interface WatchOptions {
  /** What the model was asked. */
  prompt?: Prompt;
  /** The model's text; the element's text when absent. */
  output?: string;
  /** Made up when absent. */
  predictionId?: string;
  threadId?: string;
  userId?: string;
  modelVersion?: string;
  /** Consent withheld; final. */
  doNotTrain?: boolean;
  /** The element that holds the buttons with `data-flywheel`. */
  controls?: Element;
}

export interface Configuration {
  /** Address of capture; that of the script when absent, so a bundle must give it. */
  url?: string;
  /** Which flywheel the events belong to. */
  application?: string;
  /** A browser key, where capture asks for keys. */
  key?: string;
  /** Name of your page or service; "browser" when absent. */
  source?: string;
  /** Of the interactions that end in approval without a change, the share that is sent; 0.01 when absent. */
  positiveShare?: number;
}

/** Events, but `sampledOut` and `onlyRead` are interactions. */
export interface Counts {
  accepted: number;
  refused: number;
  dropped: number;
  sampledOut: number;
  onlyRead: number;
}

/** One output in one element, until its interaction ends. */
export interface Watcher {
  readonly predictionId: string;
  /** Gives the text as it is now, for editors that keep their own text. */
  edited(text: string): void;
  /** Reports what the person did; `regenerate` ends the interaction. */
  signal(name: Signal, fields?: SignalFields): void;
  /** Sends what the interaction was worth. */
  end(): void;
}

export interface Flywheel {
  readonly counts: Readonly<Counts>;
  /** Sets options and gives all of them back. */
  configure(options: Configuration): Configuration;
  /** Begins an interaction; an earlier one on the same element ends. */
  watch(element: Element | null, options?: WatchOptions): Watcher;
}

declare global {
  const flywheel: Flywheel;
  interface Window {
    readonly flywheel: Flywheel;
  }
}
