/** Types of flywheel.js, which defines one global: `flywheel`. */

/** One part of a content; parts of other types than text are kept as they are. */
export interface Part {
  readonly type: string;
  readonly text?: string;
  readonly [field: string]: unknown;
}

/** The assistant asks for a call; `arguments` is an object, or JSON text as OpenAI sends it. */
export interface ToolCall {
  readonly id?: string;
  readonly type?: string;
  readonly function: { readonly name: string; readonly arguments: string | Readonly<Record<string, unknown>> };
}

/** One turn of a conversation; capture stores these fields and no others. */
export interface Message {
  readonly role: string;
  readonly content?: string | ReadonlyArray<Part> | null;
  readonly name?: string;
  readonly tool_calls?: ReadonlyArray<ToolCall>;
  readonly tool_call_id?: string;
  readonly reasoning_content?: string;
}

/** Text, or chat messages. */
export type Prompt = string | ReadonlyArray<Message>;

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
  /** The model's text or assistant message; the element's text when absent. */
  output?: string | Message;
  /** The functions that the model could call, as JSON schemas. */
  tools?: ReadonlyArray<object>;
  /** The watcher whose output this one replaces; by itself the one that ended by `regenerate` here, with this prompt. */
  regenerates?: Watcher;
  /** Made up when absent. */
  predictionId?: string;
  threadId?: string;
  userId?: string;
  /** Your server's signature of `userId`: without it the id is only claimed. */
  userToken?: string;
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
  /** The model's text or message. */
  readonly output: string | Message;
  /** Gives the text as it is now, for editors that keep their own text. */
  edited(text: string): void;
  /** Sends what is new now; each saved text is a revision of the one before. Wait for a pause in typing first. */
  save(): void;
  /** The person went back to the model's text: withdraws what was saved. */
  undo(): void;
  /** Takes back all that this person said about the output, and ends the interaction. */
  retract(): void;
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
  /** The person prefers one answer to another that was shown as well. */
  choose(preferred: Watcher, other: Watcher): void;
  /** Feedback on a conversation: marks the last answer that was watched with this `threadId`. */
  conversation(threadId: string, name: Signal, fields?: SignalFields): void;
}

declare global {
  const flywheel: Flywheel;
  interface Window {
    readonly flywheel: Flywheel;
  }
}
