/** Tells the command inside which descriptor holds the lock that keeps the machine alive. */
export const lifeVariable = 'MINIRUN_LIFE';
/** The working directory: entering a mount namespace leads to its root. */
export const placeVariable = 'MINIRUN_CWD';
