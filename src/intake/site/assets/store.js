// What this tab remembers, never the card; every script begins with this. Where cookies are blocked, and in browsers inside
// apps, there may be no sessionStorage, or one that throws: then only this page remembers, for as long as it stands.
const store = (() => {
  const page = new Map();
  let tab = null;
  try {
    sessionStorage.setItem('tolom', '');
    tab = sessionStorage;
  } catch {
    tab = null;
  }
  return {
    lasts: tab !== null,
    read: (name) => JSON.parse((tab ? tab.getItem(name) : page.get(name)) ?? '{}'),
    keep: (name, value) => (tab ? tab.setItem(name, JSON.stringify(value)) : page.set(name, JSON.stringify(value))),
    forget: (name) => (tab ? tab.removeItem(name) : page.delete(name)),
  };
})();

