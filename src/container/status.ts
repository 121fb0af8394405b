import type { ContainerState } from './definition.ts';

/** Docker's words for where a container is in its life. */
export type ShownStatus = 'created' | 'running' | 'restarting' | 'exited';

/** A container's status in docker's words: one that is being stopped still runs, one that is being started does not. */
export function shownStatus({ status }: Pick<ContainerState, 'status'>): ShownStatus {
  switch (status) {
    case 'creating':
    case 'created':
    case 'starting':
      return 'created';
    case 'running':
    case 'stopping':
      return 'running';
    case 'restarting':
    case 'exited':
      return status;
  }
}

/** The same with what `pause` makes of it. */
export function statusWord(state: Pick<ContainerState, 'status' | 'paused'>): ShownStatus | 'paused' {
  const status = shownStatus(state);
  return status === 'running' && state.paused === true ? 'paused' : status;
}

/** Whether nothing runs and nobody is about to start or remove it. */
export function isAtRest({ status }: Pick<ContainerState, 'status'>): boolean {
  return status === 'created' || status === 'exited';
}
