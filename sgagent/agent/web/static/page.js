"use strict";
// Keep an open page as the server makes it, and filter while somebody types. Without this script the page is
// whole: forms send queries, and the link "Refresh" loads it again. Nothing here makes markup: what the server
// rendered is parsed as a document, and its elements take the places of the old ones.
(() => {
  const status = document.getElementById("live");
  const pause = document.getElementById("pause");
  const LONGEST_SILENCE = 30000; // milliseconds, after which ages like "19s ago" are brought up to date
  const PAUSE = 50; // times as long as a load took, before the next: a viewer costs the host 2 % at most
  let revision = null; // of the newest load: the one that the event before it named
  let loadedAt = 0;
  let restUntil = 0;
  let request = null;
  let source = null;

  function swap(fresh) {
    for (const old of document.querySelectorAll("[data-live]")) {
      const made = fresh.getElementById(old.id);
      if (!made) continue;
      for (const details of made.querySelectorAll("details[id]")) {
        details.open = document.getElementById(details.id)?.open ?? details.open;
      }
      if (old.isEqualNode(made)) continue;
      const active = document.activeElement;
      const place = focusable(old).indexOf(active);
      old.replaceWith(made);
      if (place >= 0) {
        const same = focusable(made).find((one) => one.href && one.href === active.href);
        (same ?? focusable(made)[place])?.focus({ preventScroll: true });
      }
    }
  }

  const focusable = (part) => [...part.querySelectorAll("a, summary, [tabindex]")];

  function load(named = revision) {
    request?.abort();
    const begun = Date.now();
    const asked = (request = new XMLHttpRequest());
    asked.open("GET", location.pathname + location.search);
    asked.responseType = "document";
    asked.onload = () => {
      if (asked.status === 200 && asked.response) {
        swap(asked.response);
        revision = named;
        loadedAt = Date.now();
        restUntil = loadedAt + PAUSE * (loadedAt - begun);
      }
    };
    asked.onloadend = () => {
      if (request === asked) request = null;
    };
    asked.send();
  }

  function hear(event) {
    const isReading = !document.getSelection().isCollapsed;
    const isNews = event.data !== revision || Date.now() - loadedAt > LONGEST_SILENCE;
    const isBusy = request || isReading || document.hidden || Date.now() < restUntil;
    if (isNews && !isBusy) load(event.data);
  }

  function listen() {
    source = new EventSource("events");
    source.onopen = () => (status.textContent = "Live");
    source.onmessage = hear;
    source.onerror = () => {
      status.textContent = "Not live";
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source?.readyState === 2 && listen(), 60000);
    };
  }

  pause.addEventListener("click", () => {
    const isPaused = source !== null;
    source?.close();
    source = null;
    if (!isPaused) listen();
    status.textContent = isPaused ? "Paused" : "";
    pause.setAttribute("aria-pressed", String(isPaused));
  });

  for (const form of document.querySelectorAll("[data-live-form]")) {
    let timer;
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const filled = [...new FormData(form)].filter(([, value]) => value);
        const query = new URLSearchParams(filled).toString();
        history.replaceState(null, "", location.pathname + (query && "?" + query));
        load();
      }, 200);
    });
  }

  // A link to what is folded opens it.
  const unfold = () => document.querySelector(`${location.hash || "#none"} details`)?.setAttribute("open", "");
  addEventListener("hashchange", unfold);
  unfold();
  pause.hidden = false;
  listen();
})();
