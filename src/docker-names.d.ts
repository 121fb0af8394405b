declare module 'docker-names' {
  const names: { getRandomName(appendNumber?: boolean): string };
  export default names;
}
