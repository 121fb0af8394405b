import type { Platform } from './manifest.ts';

/** The part of an OCI image config that a container takes over, with the image-spec's names. */
export interface ImageConfig {
  Env?: string[];
  Entrypoint?: string[];
  Cmd?: string[];
  WorkingDir?: string;
  User?: string;
  StopSignal?: string;
  Labels?: Record<string, string>;
  ExposedPorts?: Record<string, object>;
  Volumes?: Record<string, object>;
  /** Kept and shown; durations in nanoseconds, as docker has them. */
  Healthcheck?: {
    Test?: string[];
    Interval?: number;
    Timeout?: number;
    StartPeriod?: number;
    StartInterval?: number;
    Retries?: number;
  };
  OnBuild?: string[];
  Shell?: string[];
  ArgsEscaped?: boolean;
}

/** An image that is on this machine, unpacked. */
export interface Image {
  /** Digest of its config: `sha256:` and 64 hexadecimal digits. */
  id: string;
  /** As shown: `alpine:latest`. */
  reference: string;
  platform: Platform;
  /** Unpacked layers as absolute directories, the topmost first (overlayfs's order). */
  layers: string[];
  config: ImageConfig;
  /** What it stands in for when the real one could not be had: one line for the user. */
  standIn?: string;
}

/** `--pull`: `missing` fetches what is not here, `always` asks the source every time, `never` does not ask. */
export type PullPolicy = 'missing' | 'always' | 'never';
