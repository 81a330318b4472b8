// What makes the pages livelier. Without it, they work all the same.
"use strict";

// Progress: the page is read again when something changed.
const watched = document.querySelector("[data-watch]");
if (watched && window.EventSource) {
  const source = new EventSource(watched.dataset.watch);
  // The first event tells the present state, which may be newer than the page.
  source.addEventListener("tenant", async () => {
    const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-watch]");
    if (fresh) {
      watched.replaceChildren(...fresh.childNodes);
    } else {
      source.close();
      location.reload();
    }
  });
}

// A question: the answer comes word by word.
const form = document.querySelector("[data-stream]");
if (form && window.ReadableStream) {
  const section = form.parentElement;
  const part = (name) => section.querySelector(`[data-${name}]`);
  const say = (text) => {
    part("error").textContent = text;
    part("error").hidden = !text;
  };

  const show = (event, data) => {
    if (event === "sources") {
      const items = data.map((source) => {
        const [item, details, summary, text] = ["li", "details", "summary", "p"].map((tag) => document.createElement(tag));
        summary.textContent = source.title;
        text.textContent = source.text;
        details.append(summary, text);
        item.append(details);
        return item;
      });
      part("sources").replaceChildren(...items);
    } else if (event === "text") {
      part("text").textContent += data.text;
    } else if (event === "error") {
      say(data.detail);
    }
  };

  const read = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const text of events) {
        const field = (name) => text.split("\n").filter((l) => l.startsWith(`${name}: `)).map((l) => l.slice(name.length + 2)).join("\n");
        if (field("event")) show(field("event"), JSON.parse(field("data")));
      }
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    say("");
    part("text").textContent = "";
    part("sources").replaceChildren();
    try {
      const body = new URLSearchParams(new FormData(form));
      const answer = await fetch(form.action, { method: "POST", body, headers: { accept: "text/event-stream" } });
      if (!answer.ok) {
        say((await answer.json()).detail);
      } else {
        part("answer").hidden = false;
        await read(answer.body);
      }
    } catch {
      say("The connection broke off. Your question is still here: please ask again.");
    } finally {
      button.disabled = false;
    }
  });
}

// An upload: it says how far it is. The page's parts are exchanged afterwards, so what is typed elsewhere stays.
document.addEventListener("submit", (event) => {
  const upload = event.target.closest("[data-upload]");
  if (!upload) return;
  event.preventDefault();
  const status = upload.querySelector("[data-status]");
  const request = new XMLHttpRequest();
  upload.querySelector("button").disabled = true;
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    const done = total ? Math.floor((100 * loaded) / total) : 0;
    status.textContent = done < 100 ? `Uploading: ${done} %` : "Reading your document ...";
  });
  request.addEventListener("load", () => {
    const page = new DOMParser().parseFromString(request.responseText, "text/html");
    const parts = ["#setup", "#documents", "#plan"].map((id) => [document.querySelector(id), page.querySelector(id)]);
    if (parts.every(([old, fresh]) => old && fresh)) {
      for (const [old, fresh] of parts) old.replaceWith(fresh);
    } else {
      location.reload();
    }
  });
  request.addEventListener("error", () => {
    status.textContent = "The connection broke off. Please try again.";
    upload.querySelector("button").disabled = false;
  });
  request.open("POST", upload.action);
  request.setRequestHeader("accept", "text/html");
  request.send(new FormData(upload));
});
