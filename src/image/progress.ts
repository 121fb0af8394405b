/** What happens to a layer while its image is pulled, pushed or loaded, in docker's words. */
export type LayerPhase =
  | 'Pulling fs layer'
  | 'Waiting'
  | 'Downloading'
  | 'Retrying'
  | 'Verifying Checksum'
  | 'Download complete'
  | 'Extracting'
  | 'Pull complete'
  | 'Already exists'
  | 'Preparing'
  | 'Pushing'
  | 'Pushed'
  | 'Mounted'
  | 'Skipped';

export interface LayerEvent {
  phase: LayerPhase;
  /** Bytes so far, of the data as it is transferred. */
  current?: number;
  /** Bytes in all. */
  total?: number;
  /** More about the phase: `in 3 seconds`, `from library/alpine`. */
  detail?: string;
}

/** Where work on images tells the user what it does. */
export interface Report {
  /** A line about the whole. */
  notice(line: string): void;
  /** An event of one layer, known by the first 12 digits of its blob's digest. Called often: it must be cheap. */
  layer?(id: string, event: LayerEvent): void;
}
